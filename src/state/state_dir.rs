//! A container's directory below the root, held open. Parent only.
//!
//! What is read, written and removed here goes through the descriptor: a directory that was removed meanwhile has nothing
//! and takes nothing, and a later container with the same id, whose directory has the same path, is never touched.

use std::fs::{DirBuilder, File};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use crate::sys::{self, again, path};

/// The file of records, one a line. The last good line counts. The first is written before anything is made, so whatever a killed
/// creator leaves can be found. The creator holds a lock on the file while it lives.
pub const STATE: &str = "state";
/// The socket on which a created container waits for `start`.
pub const START_SOCKET: &str = "gate";
/// A link whose text names the container's cgroup. It outlives damage to the records.
pub const CGROUP: &str = "cgroup";
/// A link whose text names the groups of resctrl.
pub const RDT: &str = "rdt";
/// What `exec` needs of the config.
pub const CONFIG: &str = "config";
/// Says that the deletion has begun.
pub const DELETED: &str = "deleted";
/// Says that the poststop hooks have begun.
pub const POSTSTOP: &str = "poststop";
/// Numbers of mounts that were added while the container ran.
pub const MOUNTS: &str = "mounts";
/// In the order in which they are removed.
pub const NAMES: [&str; 8] = [
    START_SOCKET,
    CGROUP,
    RDT,
    CONFIG,
    MOUNTS,
    POSTSTOP,
    STATE,
    DELETED,
];

#[derive(Debug)]
pub struct StateDir {
    pub path: PathBuf,
    open: OwnedFd,
}

impl StateDir {
    /// Not through a link.
    pub fn open(path: PathBuf) -> Result<StateDir> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = again(|| nix::fcntl::open(&path, flags, Mode::empty()))?;
        Ok(StateDir { path, open })
    }

    pub fn owner(&self) -> Result<u32> {
        Ok(fstat(&self.open)?.st_uid)
    }

    /// Whether its path still leads to it.
    pub fn is_there(&self) -> bool {
        let found = nix::sys::stat::lstat(&self.path);
        let own = fstat(&self.open);
        found.is_ok_and(|found| own.is_ok_and(|own| is_same(&found, &own)))
    }

    pub fn has(&self, name: &str) -> bool {
        fstatat(&self.open, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok()
    }

    /// Never through a link, never waiting for a writer of a pipe, and for nobody else to read.
    pub fn file(&self, name: &str, flags: OFlag) -> Result<File> {
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o600);
        Ok(again(|| openat(&self.open, name, flags, mode))?.into())
    }

    /// Fails for all but a regular file of no more than 64 MiB.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        const LONGEST: u64 = 64 << 20;
        let file = self.file(name, OFlag::O_RDONLY)?;
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(Error::other("is no regular file"));
        }
        if meta.len() > LONGEST {
            return Err(Error::other(format!("has more than {LONGEST} bytes")));
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
        file.take(LONGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        self.file(name, flags)?.write_all(bytes)
    }

    /// The text of a link; `None` if there is none by this name.
    pub fn link(&self, name: &str) -> Result<Option<String>> {
        match gone(readlinkat(&self.open, name))? {
            Some(text) => Ok(Some(text.to_string_lossy().into_owned())),
            None => Ok(None),
        }
    }

    pub fn make_link(&self, name: &str, text: &str) -> Result<()> {
        Ok(symlinkat(text, &self.open, name)?)
    }

    /// For calls that take nothing but a path, as those of sockets do.
    pub fn path_of(&self, name: &str) -> PathBuf {
        Path::new(&format!("/proc/self/fd/{}", self.open.as_raw_fd())).join(name)
    }

    pub fn remove(&self, name: &str) -> Result<()> {
        gone(unlinkat(&self.open, name, UnlinkatFlags::NoRemoveDir)).map(drop)
    }

    /// Once it is empty. One that has its path by now would have to be empty as well: then its creator begins anew or gives up.
    pub fn rmdir(&self) -> Result<()> {
        match self.is_there() {
            true => gone(std::fs::remove_dir(&self.path)).map(drop),
            false => Ok(()),
        }
    }

    /// For flock(2), which does not take a reference.
    pub fn reopen(&self) -> Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(again(|| openat(&self.open, ".", flags, Mode::empty()))?.into())
    }
}

/// Makes a directory of this mode, with its parents, where it is missing. Of a name that is taken by something else the error says
/// what that is.
pub fn make_all(path: &Path, mode: u32) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            path::check_only_directories(path)?;
            sys::io(Err(error))
        }
        made => sys::io(made),
    }
}

fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// What is not there any more is fine.
fn gone<T>(result: std::result::Result<T, impl Into<Error>>) -> Result<Option<T>> {
    match result.map_err(Into::into) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}
