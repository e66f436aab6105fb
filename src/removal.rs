//! How a container's directory goes: who deletes it keeps its creator from going on, has its poststop hooks run once, and
//! takes the record away last of all. Parent only. Processes and cgroups are not seen here.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, fcntl};

use crate::container::{
    Container, DELETED, NAMES, POSTSTOP, STATE, gone_is_fine, is_same, write_lock,
};
use crate::sys;

impl Container {
    /// Of a container without an init: from now on nobody who has only just taken the id goes on to create it. `None` if
    /// one has, or if all of it is gone.
    pub fn seize(&self) -> Result<Option<File>> {
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.dir.join(STATE));
        let records = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => sys::io(opened).with_context(|| format!("remove {:?}", self.dir))?,
        };
        let locked = fcntl(&records, FcntlArg::F_SETLK(&write_lock()));
        Ok(locked.is_ok().then_some(records))
    }

    /// Tells a creator that this container is to be no more.
    pub fn doom(&self) -> Result<()> {
        let noted = gone_is_fine(std::fs::write(self.dir.join(DELETED), ""));
        sys::io(noted).with_context(|| format!("note the deletion in {:?}", self.dir))
    }

    /// Whether its creator may be at work, and will see that it was told so.
    pub fn is_doomed(&self) -> bool {
        self.dir.join(DELETED).exists()
    }

    /// Takes the record away, last of all.
    pub fn forget(&self) -> Result<()> {
        if !is_same(&self.dir, self.inode) {
            return Ok(());
        }
        sys::io(forget(&self.dir)).with_context(|| format!("remove {:?}", self.dir))
    }
}

/// Whether this caller is the first to run the poststop hooks. They are run once, even if one of them ends the caller
/// or deletes the container itself.
pub fn begins_poststop(dir: &Path) -> bool {
    let noted = File::create_new(dir.join(POSTSTOP));
    !noted
        .is_err_and(|error| matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound))
}

/// Another command may still be adding something, which its creator will then see to be of no effect.
pub fn forget(dir: &Path) -> std::io::Result<()> {
    const TRIES: usize = 100;
    let mut removed = forget_once(dir);
    for _ in 1..TRIES {
        if !removed
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::DirectoryNotEmpty)
        {
            break;
        }
        gone_is_fine(std::fs::write(dir.join(DELETED), ""))?;
        removed = forget_once(dir);
    }
    removed
}

fn forget_once(dir: &Path) -> std::io::Result<()> {
    for name in NAMES {
        gone_is_fine(std::fs::remove_file(dir.join(name)))?;
    }
    gone_is_fine(std::fs::remove_dir(dir))
}
