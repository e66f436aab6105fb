//! Flags of mounts that are locked: what a less privileged user namespace may not take away.
//!
//! The kernel locks them where it copies mounts into such a namespace (mount_namespaces(7), "Restrictions
//! on mount namespaces"), and tells no more than EPERM. Run by the child, on detached mounts and on
//! those of a remount.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use libc::{
    MOUNT_ATTR__ATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY,
};
use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::plan::options;
use crate::sys::mount::{self, Attributes};
use crate::sys::{self, named};

const LOCKABLE: [(u64, FsFlags); 4] = [
    (MOUNT_ATTR_RDONLY, FsFlags::ST_RDONLY),
    (MOUNT_ATTR_NOSUID, FsFlags::ST_NOSUID),
    (MOUNT_ATTR_NODEV, FsFlags::ST_NODEV),
    (MOUNT_ATTR_NOEXEC, FsFlags::ST_NOEXEC),
];

/// Changes the attributes of a mount. With `locked`, none of these may be lifted even where the kernel
/// has no lock: a tree that was opened in another mount namespace may come without.
pub fn change(mounted: &OwnedFd, changes: [Attributes; 2], locked: bool) -> Result<()> {
    let clear = changes[0].clear | changes[1].clear;
    let before = if clear == 0 { 0 } else { forbidden(mounted)? };
    for attributes in changes {
        let changed = mount::set_attributes(mounted, attributes);
        changed.map_err(|error| match sys::errno(&error) {
            Some(Errno::EPERM) => explain(error, attributes, before),
            _ => error,
        })?;
    }
    if !locked || clear & before == 0 {
        return Ok(());
    }
    // Asked again, because a filesystem that is itself read-only stays so whatever its mount says.
    let lifted = before & !forbidden(mounted)?;
    if lifted != 0 {
        bail!(refusal(lifted));
    }
    Ok(())
}

fn explain(error: anyhow::Error, asked: Attributes, before: u64) -> anyhow::Error {
    if asked.clear & before != 0 {
        return error.context(refusal(asked.clear & before));
    }
    let set = asked.set & (MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME);
    let times = options::attribute_names(set, asked.clear & MOUNT_ATTR__ATIME, "");
    if times.is_empty() {
        return error;
    }
    error.context(format!(
        "{}: locked in a user namespace, where times of access are kept as the source has it; leave it out",
        times.join(", ")
    ))
}

fn forbidden(mounted: &OwnedFd) -> Result<u64> {
    let flags = named(fstatvfs(mounted), || "fstatvfs(mount)".to_string())?.flags();
    let set = LOCKABLE.iter().filter(|(_, flag)| flags.contains(*flag));
    Ok(set.fold(0, |all, (attribute, _)| all | attribute))
}

fn refusal(lifted: u64) -> String {
    format!(
        "{}: locked in a user namespace, the source is mounted {}; leave it out",
        options::attribute_names(0, lifted, "").join(", "),
        options::attribute_names(lifted, 0, "").join(", ")
    )
}
