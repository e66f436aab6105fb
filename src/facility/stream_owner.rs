//! Owners of the standard streams. The container's user owns them, so that it can open /dev/stdout again: open(2) asks the
//! inode, not the descriptor. Used by the parent, and by the child.

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::unistd::{Uid, fchown, geteuid};

use crate::facility::id_maps;
use crate::host::Host;
use crate::plan::Plan;
use crate::plan::namespaces::Namespaces;
use crate::sys::{clone, process};
use crate::text::log;

/// Gives a standard stream to a user, if it is one to be given away: a pipe, a socket, or a regular file that belongs to this
/// process's user and is open for writing.
///
/// A device keeps its owner, also a terminal: its node is the host's. So does a file that is open for reading only: its new owner
/// could write to it. Fails with EPERM or EINVAL if the user namespace does not map the owner or the user, and with EROFS.
pub fn give(stream: i32, uid: u32) -> nix::Result<()> {
    let descriptor = process::callers(stream);
    let meta = fstat(descriptor)?;
    let is_given = match meta.st_mode & libc::S_IFMT {
        _ if meta.st_uid == uid => false,
        libc::S_IFIFO | libc::S_IFSOCK => true,
        libc::S_IFREG if meta.st_uid == geteuid().as_raw() => {
            let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
            matches!(flags & OFlag::O_ACCMODE, OFlag::O_WRONLY | OFlag::O_RDWR)
        }
        _ => false,
    };
    match is_given {
        true => fchown(descriptor, Some(Uid::from_raw(uid)), None),
        false => Ok(()),
    }
}

/// Gives all standard streams to the user of a process in a user namespace, which cannot give away what belongs to the host's root.
/// PARENT. A refusal is told in the log: a program that never opens a stream again does not notice it.
pub fn give_from_outside(pid: i32, plan: &Plan, host: &Host) -> Result<()> {
    let namespaces = &plan.namespaces;
    if host.euid != 0 || !namespaces.has(clone::NEWUSER) || plan.process.terminal.is_some() {
        return Ok(());
    }
    let uid = plan.process.identity.uid;
    let mapped = match namespaces.uids.is_empty() {
        true => Namespaces::maps_to_host(&id_maps::read_map(pid, "uid_map")?, uid),
        false => Namespaces::maps_to_host(&namespaces.uids, uid),
    };
    let Some(uid) = mapped else {
        return Ok(());
    };
    for stream in 0..3 {
        if let Err(errno) = give(stream, uid) {
            log::debug(&format!(
                "standard stream {stream}: fchown({uid}): {}; the container's user may be unable to open it again",
                errno.desc()
            ));
        }
    }
    Ok(())
}

/// Gives all standard streams to a user, in the child. A stream that it may not give stays, or its parent gives it.
pub fn give_what_may_be_given(uid: u32) -> nix::Result<()> {
    (0..3).try_for_each(|stream| unless_refused(give(stream, uid)))
}

pub fn unless_refused(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL | Errno::ENOSYS) => Ok(()),
        result => result,
    }
}
