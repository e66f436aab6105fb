//! Directories of the cgroup tree: makes the way down to a container's own, and removes what was made. Parent only.
//!
//! What is made above a container's directory is marked in the tree itself, by an attribute. So the last container
//! below takes it away, whoever made it and whatever became of its record; what was there before has no mark and stays.
//! Limits are not seen here.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use crate::sys::{self, named, path, xattr};

/// cgroups(7) has user attributes since Linux 5.7.
const MARK: &std::ffi::CStr = c"user.cofferdam.made";

/// How often somebody may remove what was on the way before it is an error.
const TRIES: usize = 100;

/// Makes a directory below the mount with all that is missing above it; also says whether it was there.
pub fn make(mount: &Path, directory: &Path) -> Result<(OwnedFd, bool)> {
    let mut made = descend(mount, directory);
    for _ in 1..TRIES {
        // Another container was the last one below some directory, and took it away.
        if made.as_ref().is_err_and(is_removed) {
            made = descend(mount, directory);
        }
    }
    made.inspect_err(|_| remove_made_above(directory))
}

fn descend(mount: &Path, directory: &Path) -> Result<(OwnedFd, bool)> {
    let below = directory.strip_prefix(mount).unwrap_or(directory);
    let mut here = super::open_directory(mount)?;
    let mut existed = true;
    let mut components = below.components().peekable();
    while let Some(component) = components.next() {
        (here, existed) = step(&here, component.as_os_str())?;
        if !existed && components.peek().is_some() {
            xattr::set(&here, MARK).context("mark what is made above the container's cgroup")?;
        }
    }
    Ok((here, existed))
}

fn step(above: &OwnedFd, name: &OsStr) -> Result<(OwnedFd, bool)> {
    let existed = match mkdirat(above, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => false,
        Err(Errno::EEXIST) => true,
        Err(errno) => return named(Err(errno), || format!("mkdirat({name:?})")),
    };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    match path::open_strict(above, Path::new(name), flags) {
        Err(error) if !existed => {
            unlinkat(above, name, UnlinkatFlags::RemoveDir).ok();
            Err(error)
        }
        opened => Ok((opened?, existed)),
    }
}

/// ENODEV is what the kernel says of a directory that was removed while it was open.
fn is_removed(error: &anyhow::Error) -> bool {
    matches!(sys::errno(error), Some(Errno::ENOENT | Errno::ENODEV))
}

/// Removes a directory and those below it, which must be empty of processes.
pub fn remove(directory: &Path) -> Result<()> {
    match remove_one(directory) {
        Err(Errno::EBUSY) => {
            remove_below(directory)?;
            named(remove_one(directory), || format!("rmdir({directory:?})"))
        }
        other => named(other, || format!("rmdir({directory:?})")),
    }
}

/// Removes those above that were made for a container and have nothing in them any more.
pub fn remove_made_above(directory: &Path) {
    let above = directory.ancestors().skip(1);
    let above = above.skip_while(|above| !above.exists());
    for directory in above.take_while(|above| xattr::has(above, MARK)) {
        if remove_one(directory).is_err() {
            return;
        }
    }
}

fn remove_one(directory: &Path) -> nix::Result<()> {
    match unlinkat(nix::fcntl::AT_FDCWD, directory, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// Children first; the workload may have made any number of them.
fn remove_below(directory: &Path) -> Result<()> {
    for child in below(directory).iter().rev() {
        named(remove_one(child), || format!("rmdir({child:?})"))?;
    }
    Ok(())
}

/// All of them, parents before their children.
pub fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut next = Some(directory.to_path_buf());
    let mut seen = 0;
    while let Some(directory) = next {
        let entries = sys::read_dir(&directory).into_iter().flatten().flatten();
        let is_dir = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        found.extend(entries.filter(is_dir).map(|entry| entry.path()));
        next = found.get(seen).cloned();
        seen += 1;
    }
    found
}

/// Every process that has a thread here or below. Frozen, none of them makes another meanwhile.
pub fn kill_threads(directory: &Path) -> Result<()> {
    let freeze = directory.join("cgroup.freeze");
    sys::io(std::fs::write(&freeze, "1")).with_context(|| format!("write 1 to {freeze:?}"))?;
    let own = std::iter::once(directory.to_path_buf());
    for cgroup in own.chain(below(directory)) {
        let threads = std::fs::read_to_string(cgroup.join("cgroup.threads")).unwrap_or_default();
        for thread in threads.lines().filter_map(|line| line.parse().ok()) {
            // kill(2) takes the number of any thread for its process.
            kill(Pid::from_raw(thread), Signal::SIGKILL).ok();
        }
    }
    Ok(())
}
