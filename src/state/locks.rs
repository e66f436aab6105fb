//! How a container's directory goes: who deletes it keeps its creator from going on, removes alone what is known by names,
//! has its poststop hooks run once, and takes the record away last of all. Parent only. Processes and cgroups are not seen here.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::state::container::Container;
use crate::state::record::write_lock;
use crate::state::state_dir::{DELETED, NAMES, POSTSTOP, STATE, StateDir};
use crate::sys;

/// How long another command may take to remove what a container has.
const REMOVAL_LOCK_TIMEOUT: Duration = Duration::from_secs(30);

impl Container {
    /// Of a container without an init: from now on nobody who has only just taken the id goes on to create it. `None` if
    /// one has, or if all of it is gone.
    pub fn lock_records(&self) -> Result<Option<File>> {
        let records = match self.dir.file(STATE, OFlag::O_WRONLY | OFlag::O_CREAT) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => sys::io(opened).with_context(|| format!("remove {:?}", self.dir.path))?,
        };
        let locked = fcntl(&records, FcntlArg::F_SETLK(&write_lock()));
        Ok(locked.is_ok().then_some(records))
    }

    /// Tells a creator that this container is to be no more.
    pub fn mark_deleted(&self) -> Result<()> {
        sys::io(mark_deleted(&self.dir))
            .with_context(|| format!("note the deletion in {:?}", self.dir.path))
    }

    /// Whether its creator may be at work, and will see that it was told so.
    pub fn is_marked_deleted(&self) -> bool {
        self.dir.has(DELETED)
    }

    /// Takes the record away, last of all.
    pub fn remove_state_dir(&self) -> Result<()> {
        sys::io(remove_state_dir(&self.dir)).with_context(|| format!("remove {:?}", self.dir.path))
    }
}

/// A cgroup is removed by its path. Who does so is alone with the container for that time, and its id is still taken, for
/// who removes the record is alone as well: what has the path cannot be that of a later one. `None` if all of it is gone.
pub fn lock_for_removal(dir: &StateDir) -> Result<Option<File>> {
    let lock = sys::io(dir.reopen()).with_context(|| format!("open {:?}", dir.path))?;
    let begun = Instant::now();
    while let Err(error) = lock.try_lock() {
        match error {
            TryLockError::WouldBlock => sleep(Duration::from_millis(1)),
            TryLockError::Error(error) => sys::io(Err(error)).context("flock")?,
        }
        ensure!(
            begun.elapsed() < REMOVAL_LOCK_TIMEOUT,
            "{:?}: another command has been removing it for {} s; delete again when that has ended",
            dir.path,
            REMOVAL_LOCK_TIMEOUT.as_secs()
        );
    }
    Ok(dir.is_there().then_some(lock))
}

/// Whether somebody removes it, who has taken the record away while its creator still adds to the rest.
pub fn is_removal_underway(dir: &StateDir) -> bool {
    let taken = |lock: File| matches!(lock.try_lock(), Err(TryLockError::WouldBlock));
    dir.reopen().is_ok_and(taken) || !dir.is_there()
}

/// Whether this caller is the first to run the poststop hooks. They are run once, even if one of them ends the caller
/// or deletes the container itself.
pub fn claim_poststop(dir: &StateDir) -> bool {
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    !dir.file(POSTSTOP, new)
        .is_err_and(|error| matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound))
}

/// Another command may still be adding something, which its creator will then see to be of no effect.
pub fn remove_state_dir(dir: &StateDir) -> std::io::Result<()> {
    const TRIES: usize = 100;
    for _ in 1..TRIES {
        match remove_once(dir) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => mark_deleted(dir)?,
            removed => return removed,
        }
    }
    remove_once(dir)
}

fn remove_once(dir: &StateDir) -> std::io::Result<()> {
    for name in NAMES {
        dir.remove(name)?;
    }
    dir.rmdir()
}

fn mark_deleted(dir: &StateDir) -> std::io::Result<()> {
    match dir.write(DELETED, b"") {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
