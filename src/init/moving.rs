//! CHILD: makes the new root `/` without pivot_root(2), which refuses a root on a ramfs (`--no-pivot`).
//!
//! The new root is moved over the root of the mount namespace. chroot(2) alone would leave it below: a process with
//! CAP_SYS_CHROOT would climb out of it, a process that joins the namespace would be in the root of the host, and the kernel
//! would refuse user namespaces to a root that is not that of its mount namespace (user_namespaces(7)). With pivot_root(2) the
//! same holds for a caller that is in a chroot itself.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};

use super::masks::empty_directory;
use super::rootfs::trusted_proc;
use crate::sys::{self, again, clone, cred, mount, named, path, process};

/// Moves the mount `root` over `/` and makes it the root directory. The mounts of the host that are left below are unmounted
/// where that does not reach the host (`shared`: it would) and where the kernel has not locked them together.
pub fn over_the_old(root: &OwnedFd, shared: bool) -> Result<()> {
    let proc = trusted_proc()?;
    let callers = process::root_directory()?;
    clone::setns(open(&proc, "self/ns/mnt")?, clone::NEWNS)?;
    let top = process::root_directory()?;
    let old = if mount::id(&top)? == mount::id(root)? {
        // It was attached there to begin with.
        callers
    } else {
        if shared {
            // The host must not get the new root.
            mount::set_propagation(&top, libc::MS_SLAVE, false)?;
        }
        mount::move_mount(root, &top).context("move the new root over /")?;
        top
    };
    make_root(&old)?;
    let table = sys::read_all(File::from(open(&proc, "self/mountinfo")?))
        .context("read the table of mounts")?;
    drop(proc);
    for place in places(&table).iter().rev() {
        clear(&old, place, shared)?;
    }
    make_root(root)
}

/// Leaves a chroot that the caller is in: setns(2) enters the topmost mount on the root of the namespace. pivot_root(2) would put
/// the new root into the place of that chroot, and a nested chroot would lead out of it.
///
/// Stays where it is if the topmost mount is the new root: then it lies on the root of the namespace, and the caller is in no chroot.
pub fn leave_a_chroot(root: &OwnedFd) -> Result<()> {
    let callers = process::root_directory()?;
    let (path, flags) = ("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC);
    let own = again(|| nix::fcntl::open(path, flags, Mode::empty()));
    let own = named(own, || format!("open({path})"))?;
    clone::setns(own, clone::NEWNS).or_else(|error| {
        // Without the capability for chroot(2) this is refused, and the container lacks it, too.
        const CHROOT: u64 = 1 << 18;
        let harmless = sys::errno(&error) == Some(Errno::EPERM)
            && cred::capabilities()?.effective & CHROOT == 0;
        if harmless { Ok(()) } else { Err(error) }
    })?;
    match mount::id(process::root_directory()?)? == mount::id(root)? {
        true => make_root(&callers),
        false => Ok(()),
    }
}

fn open(proc: &OwnedFd, name: &str) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let opened = again(|| nix::fcntl::openat(proc, name, flags, Mode::empty()));
    named(opened, || format!("open(/proc/{name})"))
}

fn make_root(directory: &OwnedFd) -> Result<()> {
    named(nix::unistd::fchdir(directory), || {
        "fchdir(root)".to_string()
    })?;
    named(nix::unistd::chroot("."), || "chroot(\".\")".to_string())
}

/// Where something is mounted, from the root on (proc_pid_mountinfo(5), field 5), but for the root itself.
fn places(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n');
    let fields = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let paths = fields.map(|field| PathBuf::from(OsString::from_vec(unescape(field))));
    let below = paths.filter_map(|path| Some(path.strip_prefix("/").ok()?.to_path_buf()));
    below.filter(|path| path.as_os_str() != "").collect()
}

/// Space, tab, newline and backslash are three octal digits after a backslash in the table.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let digits = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// Unmounts what lies at a place of the old root. A procfs or sysfs that stays is covered: where one can be seen in whole,
/// any user namespace may mount another, without what the container masks (mount_too_revealing in fs/namespace.c).
fn clear(old: &OwnedFd, place: &Path, shared: bool) -> Result<()> {
    if !shared {
        named(nix::unistd::fchdir(old), || "fchdir(old root)".to_string())?;
        // EINVAL: the mount is locked, or went with one above it, or the place is one of the new root.
        umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
    }
    let Ok(left) = path::open_below(old, place, libc::O_PATH) else {
        return Ok(());
    };
    let kind = named(fstatfs(left.as_fd()), || format!("fstatfs({place:?})"))?.filesystem_type();
    if !matches!(kind, PROC_SUPER_MAGIC | SYSFS_MAGIC) || !mount::is_mount(&left)? {
        return Ok(());
    }
    if shared {
        mount::set_propagation(&left, libc::MS_SLAVE, false)?;
    }
    mount::move_mount(empty_directory()?, &left)
        .with_context(|| format!("cover the host's {}", Path::new("/").join(place).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_table_below_the_root() {
        let table = b"1 0 0:1 / / rw - rootfs none rw\n\
            2 1 0:2 / /proc rw - proc proc rw\n\
            3 1 0:3 / /a\\040b\\134c\\1 rw - tmpfs none rw\n\nbroken\n";
        let expected = ["proc", "a b\\c\\1"].map(PathBuf::from);
        assert_eq!(places(table), expected);
    }
}
