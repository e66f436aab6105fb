//! clone3(2), unshare(2) and setns(2): how processes and namespaces are made.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::{check, check_fd, entry, errno, io, named, process, read_text, socket, tty};

// libc declares some of these as c_int, which cannot hold them.
pub const NEWTIME: u64 = 0x80;
pub const NEWNS: u64 = 0x0002_0000;
pub const NEWCGROUP: u64 = 0x0200_0000;
pub const NEWUTS: u64 = 0x0400_0000;
pub const NEWIPC: u64 = 0x0800_0000;
pub const NEWUSER: u64 = 0x1000_0000;
pub const NEWPID: u64 = 0x2000_0000;
pub const NEWNET: u64 = 0x4000_0000;
/// The new process becomes a sibling, so that the caller's parent can wait for it.
pub const PARENT: u64 = 0x8000;
const PIDFD: u64 = 0x1000;

/// For a process that may be stopped from outside.
const HELPER_TIMEOUT: Duration = Duration::from_secs(10);

/// What the settings of their number call them.
const LIMITED: [(u64, &str); 8] = [
    (NEWUSER, "user"),
    (NEWPID, "pid"),
    (NEWNET, "net"),
    (NEWNS, "mnt"),
    (NEWIPC, "ipc"),
    (NEWUTS, "uts"),
    (NEWCGROUP, "cgroup"),
    (NEWTIME, "time"),
];
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of clone3 returned.
pub enum Side {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Makes a process as fork(2) does, in new namespaces and, if given, inside a cgroup.
///
/// The process must be single-threaded, so that the child may allocate.
pub fn clone3(flags: u64, cgroup: Option<BorrowedFd>) -> Result<Side> {
    debug_assert_eq!(threads(), 1, "clone3 with threads running");
    let mut pidfd: libc::c_int = -1;
    // SAFETY: clone_args is plain integers; zero is valid for each.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | PIDFD;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    // CLONE_PARENT takes the exit signal from the caller and refuses one of its own (clone(2)).
    args.exit_signal = if flags & PARENT == 0 {
        libc::SIGCHLD as u64
    } else {
        0
    };
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // The child may be seen by processes of a container from its birth on.
    let strings = entry::hide_strings();
    // SAFETY: args lives through the call. Without CLONE_VM the child has its own copy of memory,
    // and as no other thread exists, no lock is held in that copy.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of_val(&args)) };
    match result {
        0 => entry::forget_strings(strings),
        _ => entry::show_strings(&strings),
    }
    let pid = check(result, || format!("clone3(flags {:#x})", args.flags))
        .map_err(|error| explain(error, flags))?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: CLONE_PIDFD made the kernel store a new descriptor here.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent {
        pid: pid as i32,
        pidfd,
    })
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// The file that takes the offsets of this process's next time namespace.
///
/// Opened by who may: it is the host's root's as soon as the process is not dumpable (proc(5)).
pub fn open_time_offsets() -> Result<File> {
    let path = "/proc/self/timens_offsets";
    io(File::options().write(true).open(path)).with_context(|| format!("open {path}"))
}

/// Makes a time namespace with these offsets, `clock seconds nanoseconds`, for the children of this process.
///
/// time_namespaces(7): they are set after it is made and before anybody is in it.
pub fn make_time_namespace(mut file: File, offsets: impl Iterator<Item = String>) -> Result<()> {
    unshare(NEWTIME)?;
    for line in offsets {
        io(file.write_all(line.as_bytes())).with_context(|| format!("write {line:?}"))?;
    }
    Ok(())
}

/// Goes into the time namespace that was made for children.
pub fn enter_time_namespace() -> Result<()> {
    let made = "/proc/self/ns/time_for_children";
    let namespace = io(File::open(made)).with_context(|| format!("open {made}"))?;
    setns(&namespace, NEWTIME)
}

pub fn unshare(flags: u64) -> Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_unshare, flags) };
    check(result, || format!("unshare({flags:#x})"))
        .map(drop)
        .map_err(|error| explain(error, flags))
}

/// namespaces(7): a user may have so many, and some kinds may not be nested deeper than 32.
fn explain(error: Error, flags: u64) -> Error {
    if errno(&error) != Some(Errno::ENOSPC) {
        return error;
    }
    let asked = LIMITED.iter().filter(|(kind, _)| flags & kind != 0);
    let limit = |name| read_text(format!("/proc/sys/user/max_{name}_namespaces"));
    let value = |name| limit(name).map_or("?".to_string(), |text| text.trim().to_string());
    let mut limits: Vec<_> = asked.map(|(_, name)| (name, value(name))).collect();
    if limits.iter().any(|(_, value)| value == "0") {
        limits.retain(|(_, value)| value == "0");
    }
    let list = limits
        .iter()
        .map(|(name, value)| format!("max_{name}_namespaces is {value}"));
    let list = list.collect::<Vec<_>>().join(", ");
    error.context(format!(
        "as many namespaces as /proc/sys/user allows: {list}; raise the limit, or nest fewer than 32"
    ))
}

/// This process's network namespace, if it may come back to it: not if that belongs to another user namespace.
pub fn own_netns() -> Result<OwnedFd> {
    let own = open_network()?;
    setns(&own, NEWNET)?;
    Ok(own)
}

/// Makes a network namespace and comes back. The kernel takes longer over it than over all others together.
pub fn new_netns(own: OwnedFd) -> Result<OwnedFd> {
    match unshare(NEWNET) {
        Err(error) if matches!(errno(&error), Some(Errno::EPERM | Errno::ENOSYS)) => {
            return new_netns_in_child();
        }
        unshared => unshared?,
    }
    let made = open_network();
    setns(own, NEWNET)?;
    made
}

/// For a sandbox that refuses unshare(2): from a process that is born in a new one.
fn new_netns_in_child() -> Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    let made = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC);
    let (here, there) = named(made, || "socketpair(AF_UNIX)".to_string())?;
    match clone3(NEWNET, None)? {
        Side::Child => {
            let sent =
                open_network().and_then(|network| socket::send(there, b"n", Some(network.as_fd())));
            process::exit(i32::from(sent.is_err()))
        }
        Side::Parent { pidfd, .. } => {
            drop(there);
            socket::limit_receive(&here, HELPER_TIMEOUT)?;
            let received = socket::receive(here, &mut [0]);
            process::pidfd_send_signal(&pidfd, libc::SIGKILL)?;
            tty::exit_code(pidfd)?;
            let (_, network) =
                received.context("no word in ten seconds from the process that was born in it")?;
            network.context("the process that was born in it has ended early")
        }
    }
}

fn open_network() -> Result<OwnedFd> {
    let path = "/proc/self/ns/net";
    let opened = io(File::open(path)).with_context(|| format!("open {path}"))?;
    Ok(opened.into())
}

pub fn setns(namespace: impl AsFd, kind: u64) -> Result<()> {
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_setns, fd, kind) };
    check(result, || format!("setns(fd {fd}, {kind:#x})")).map(drop)
}

/// Returns the user namespace that a namespace belongs to (ioctl_ns(2)). Fails with EPERM if that is not below this process's own.
pub fn owner_of(namespace: impl AsFd) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: NS_GET_USERNS takes no argument.
    let result = unsafe { libc::ioctl(fd, NS_GET_USERNS) };
    check_fd(result.into(), || format!("ioctl(fd {fd}, NS_GET_USERNS)"))
}

/// Which kind of namespace a descriptor of /proc/PID/ns refers to: one of the NEW* flags (ioctl_ns(2)).
pub fn namespace_kind(namespace: impl AsFd) -> Result<u64> {
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    let fd = namespace.as_fd().as_raw_fd();
    // SAFETY: NS_GET_NSTYPE takes no argument.
    let result = unsafe { libc::ioctl(fd, NS_GET_NSTYPE) };
    check(result.into(), || format!("ioctl(fd {fd}, NS_GET_NSTYPE)")).map(|kind| kind as u64)
}
