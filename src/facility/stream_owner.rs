//! Owners of the standard streams. The container's user owns them, so that it can open /dev/stdout again: open(2) asks the
//! inode, not the descriptor. Used by the parent, and by the child.

use std::os::fd::BorrowedFd;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Uid, fchown, geteuid};

use crate::facility::id_maps;
use crate::host::Host;
use crate::plan::Plan;
use crate::plan::namespaces::Namespaces;
use crate::sys::{clone, process};
use crate::text::log;

/// linux/magic.h.
const PIPEFS_MAGIC: FsType = FsType(0x50495045);

/// Gives a standard stream to a user, if the stream may be given away: a pipe, a socket, or a named FIFO or regular file that
/// belongs to this process's user. A file must be open for writing.
///
/// A device keeps its owner, also a terminal: its node is the host's. So does a file that is open for reading only: its new owner
/// could write to it. Fails with EPERM or EINVAL if the user namespace does not map the owner or the user, and with EROFS.
pub fn give(stream: i32, uid: u32) -> nix::Result<()> {
    let descriptor = process::callers(stream);
    let meta = fstat(descriptor)?;
    let is_own = meta.st_uid == geteuid().as_raw();
    let is_given = match meta.st_mode & libc::S_IFMT {
        _ if meta.st_uid == uid => false,
        libc::S_IFSOCK => true,
        libc::S_IFIFO => is_own && !is_path(descriptor)? || is_anonymous_pipe(descriptor)?,
        libc::S_IFREG if is_own => is_writable(descriptor)?,
        _ => false,
    };
    match is_given {
        true => fchown(descriptor, Some(Uid::from_raw(uid)), None),
        false => Ok(()),
    }
}

/// Returns whether a descriptor only names a file (O_PATH). The C library's fchown(3) would change the owner all the same.
fn is_path(descriptor: BorrowedFd) -> nix::Result<bool> {
    Ok(flags(descriptor)?.contains(OFlag::O_PATH))
}

fn is_writable(descriptor: BorrowedFd) -> nix::Result<bool> {
    let flags = flags(descriptor)?;
    let access = flags & OFlag::O_ACCMODE;
    Ok(!flags.contains(OFlag::O_PATH) && matches!(access, OFlag::O_WRONLY | OFlag::O_RDWR))
}

fn flags(descriptor: BorrowedFd) -> nix::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(
        descriptor,
        FcntlArg::F_GETFL,
    )?))
}

/// A pipe without a name is nobody's file. Another user may have made it, as the shell does that calls sudo(8).
fn is_anonymous_pipe(descriptor: BorrowedFd) -> nix::Result<bool> {
    Ok(fstatfs(descriptor)?.filesystem_type() == PIPEFS_MAGIC)
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
