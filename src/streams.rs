//! PARENT: the standard streams that a container gets from its caller.
//!
//! A process that holds a descriptor of a node can change the node's mode, owner and times, if it is root or has CAP_CHOWN or
//! CAP_FOWNER. Engines give /dev/null of the host as a stream, and so the container gets a node of its own instead.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, fchmodat, fstat, major, makedev, minor, mkdirat, mknodat,
};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::log;
use crate::sys::mount::Configuration;
use crate::sys::{again, named, process};

/// The memory devices that read and write the same for everybody (devices.txt of the kernel), at the paths that programs know.
const MEMORY_MAJOR: u64 = 1;
const MEMORY_DEVICES: [(u64, &str); 5] = [
    (3, "dev/null"),
    (5, "dev/zero"),
    (7, "dev/full"),
    (8, "dev/random"),
    (9, "dev/urandom"),
];

/// Replaces each standard stream that is a memory device by the same device on a new tmpfs.
///
/// A caller without CAP_SYS_ADMIN and CAP_MKNOD keeps the streams as they are. A container of such a caller has a user namespace,
/// or no more rights over the host's node than its caller has.
pub fn replace_host_devices() {
    let mut tmpfs = None;
    for stream in 0..3 {
        let Some(device) = memory_device(stream) else {
            continue;
        };
        if let Err(error) = replace(stream, device, &mut tmpfs) {
            log::debug(&format!(
                "standard stream {stream} stays the host's device: {error:#}"
            ));
        }
    }
}

/// Returns the minor number and the path of the memory device that a stream is. None for all else.
fn memory_device(stream: i32) -> Option<(u64, &'static str)> {
    let meta = fstat(process::callers(stream)).ok()?;
    let is_device = meta.st_mode & libc::S_IFMT == libc::S_IFCHR;
    let (major, minor) = (major(meta.st_rdev), minor(meta.st_rdev));
    let mut devices = MEMORY_DEVICES.into_iter();
    let found = devices.find(|(number, _)| *number == minor);
    found.filter(|_| is_device && major == MEMORY_MAJOR)
}

fn replace(stream: i32, device: (u64, &str), tmpfs: &mut Option<OwnedFd>) -> Result<()> {
    let tmpfs = match tmpfs {
        Some(tmpfs) => tmpfs,
        None => tmpfs.insert(new_tmpfs()?),
    };
    let (number, name) = device;
    make_node(tmpfs, name, number)?;
    let flags = named(fcntl(process::callers(stream), FcntlArg::F_GETFL), || {
        format!("fcntl({stream}, F_GETFL)")
    })?;
    let flags = OFlag::from_bits_truncate(flags) | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let opened = again(|| openat(tmpfs.as_fd(), name, flags, Mode::empty()));
    let own = named(opened, || format!("openat({name:?})"))?;
    let done = match stream {
        0 => dup2_stdin(own),
        1 => dup2_stdout(own),
        _ => dup2_stderr(own),
    };
    named(done, || format!("dup2({stream})"))
}

fn new_tmpfs() -> Result<OwnedFd> {
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let tmpfs = Configuration::open("tmpfs")?.mount(attributes)?;
    let made = mkdirat(&tmpfs, "dev", Mode::from_bits_truncate(0o755));
    named(made, || "mkdirat(\"dev\")".to_string())?;
    Ok(tmpfs)
}

/// Every user of the container may open the node again, as /dev/stdout.
fn make_node(tmpfs: &OwnedFd, name: &str, minor: u64) -> Result<()> {
    let mode = Mode::from_bits_truncate(0o666);
    let device = makedev(MEMORY_MAJOR, minor);
    match mknodat(tmpfs, name, SFlag::S_IFCHR, mode, device) {
        // Another stream is the same device.
        Err(nix::errno::Errno::EEXIST) => return Ok(()),
        made => named(made, || format!("mknodat({name:?})"))?,
    }
    let changed = fchmodat(tmpfs, name, mode, FchmodatFlags::FollowSymlink);
    named(changed, || format!("fchmodat({name:?})"))
}
