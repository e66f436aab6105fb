//! The standard streams of a container that has no terminal.
//!
//! A process that holds a descriptor of a node can change the node's mode, owner and times, if it is root or has CAP_CHOWN or
//! CAP_FOWNER. Engines give /dev/null of the host as a stream, and so the container gets a node of its own instead.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, major, minor, mkdirat, mknodat,
};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::sys::mount::Configuration;
use crate::sys::{again, named, path, process};

/// The memory devices that read and write the same for everybody (devices.txt of the kernel).
const MEMORY_MAJOR: u64 = 1;
const MEMORY_DEVICES: [(u64, &str); 5] = [
    (3, "/dev/null"),
    (5, "/dev/zero"),
    (7, "/dev/full"),
    (8, "/dev/random"),
    (9, "/dev/urandom"),
];

/// Replaces each standard stream that is a memory device of the host by one of the container, or by one on a new tmpfs.
///
/// A process without the capabilities for a new node keeps the stream. It has a user namespace, whose root cannot change the
/// host's node, or no more rights over that than its caller.
pub fn replace_host_devices() -> Result<()> {
    let mut tmpfs = None;
    for stream in 0..3 {
        let meta = named(fstat(process::callers(stream)), || {
            format!("fstat({stream})")
        })?;
        let Some(name) = memory_device(&meta) else {
            continue;
        };
        let flags = named(fcntl(process::callers(stream), FcntlArg::F_GETFL), || {
            format!("fcntl({stream}, F_GETFL)")
        })?;
        let flags = flags & (libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK);
        let own =
            own_node(name, &meta, flags).or_else(|_| new_node(name, &meta, flags, &mut tmpfs));
        if let Ok(own) = own {
            put(own, stream)?;
        }
    }
    Ok(())
}

/// Returns the path of the memory device that a stream is. None for all else.
fn memory_device(meta: &FileStat) -> Option<&'static str> {
    let is_device = meta.st_mode & libc::S_IFMT == libc::S_IFCHR;
    let (major, minor) = (major(meta.st_rdev), minor(meta.st_rdev));
    let mut devices = MEMORY_DEVICES.into_iter();
    let found = devices.find(|(number, _)| is_device && *number == minor);
    found
        .filter(|_| major == MEMORY_MAJOR)
        .map(|(_, name)| name)
}

/// Opens the node that the container has at this path. Fails if that is another device, or the very node that is to be replaced.
fn own_node(name: &str, host: &FileStat, flags: i32) -> Result<OwnedFd> {
    let root = process::root_directory()?;
    let found = named(path::resolve_plainly(&root, Path::new(name)), || {
        format!("openat2({name:?})")
    })?;
    check(&found, host)?;
    let opened = path::open(&root, Path::new(name), flags | libc::O_NOFOLLOW)?;
    check(&opened, host)?;
    Ok(opened)
}

fn check(found: &OwnedFd, host: &FileStat) -> Result<()> {
    let meta = named(fstat(found), || "fstat(device)".to_string())?;
    let is_same = meta.st_mode & libc::S_IFMT == libc::S_IFCHR && meta.st_rdev == host.st_rdev;
    let is_other = (meta.st_dev, meta.st_ino) != (host.st_dev, host.st_ino);
    ensure!(is_same && is_other, "is no node of the container's own");
    Ok(())
}

/// Makes the node on a tmpfs that nobody else has, where every user of the container may open it again.
fn new_node(
    name: &str,
    host: &FileStat,
    flags: i32,
    tmpfs: &mut Option<OwnedFd>,
) -> Result<OwnedFd> {
    let tmpfs = match tmpfs {
        Some(tmpfs) => tmpfs,
        None => tmpfs.insert(new_tmpfs()?),
    };
    let name = name.trim_start_matches('/');
    let mode = Mode::from_bits_truncate(0o666);
    match mknodat(tmpfs.as_fd(), name, SFlag::S_IFCHR, mode, host.st_rdev) {
        // Another stream is the same device.
        Err(Errno::EEXIST) => {}
        made => {
            named(made, || format!("mknodat({name:?})"))?;
            let changed = fchmodat(tmpfs.as_fd(), name, mode, FchmodatFlags::FollowSymlink);
            named(changed, || format!("fchmodat({name:?})"))?;
        }
    }
    let flags = OFlag::from_bits_truncate(flags) | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let opened = again(|| openat(tmpfs.as_fd(), name, flags, Mode::empty()));
    named(opened, || format!("openat({name:?})"))
}

fn new_tmpfs() -> Result<OwnedFd> {
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let tmpfs = Configuration::open("tmpfs")?.mount(attributes)?;
    let made = mkdirat(&tmpfs, "dev", Mode::from_bits_truncate(0o755));
    named(made, || "mkdirat(\"dev\")".to_string())?;
    Ok(tmpfs)
}

fn put(own: OwnedFd, stream: i32) -> Result<()> {
    let done = match stream {
        0 => dup2_stdin(own),
        1 => dup2_stdout(own),
        _ => dup2_stderr(own),
    };
    named(done, || format!("dup2({stream})"))
}
