//! Makes paths unreadable: `linux.maskedPaths`.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknodat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use super::rootfs::Root;
use super::steps::{kind_of, make_read_only, stat};
use crate::sys::mount::{self, Configuration};
use crate::sys::{named, path};

/// Covers a file by a null device, a directory by an empty one that all masked directories share.
pub fn mask(path: &Path, root: &mut Root) -> Result<()> {
    let Some(place) = path::find(&*root, path)? else {
        return Ok(());
    };
    let is_dir = kind_of(&stat(&place)?) == SFlag::S_IFDIR;
    if !is_dir {
        let null = null_device(root)?;
        mount::move_mount(&null, &place)?;
        // Only what is attached can be cloned, before Linux 6.15.
        root.null.get_or_insert(null);
        return Ok(());
    }
    match &root.mask {
        Some(mask) => mount::move_mount(mount::clone_tree_at(mask, false)?, &place),
        None => {
            let mask = empty_directory()?;
            mount::move_mount(&mask, &place)?;
            root.mask = Some(mask);
            Ok(())
        }
    }
}

/// Returns a mount of a null device that is the container's. A capability of the container lifts the read-only flag of
/// a mount, and then changes the node below: that must not be the host's.
///
/// The host's node is left where no node can be made, as in a user namespace, whose root cannot change it.
fn null_device(root: &mut Root) -> Result<OwnedFd> {
    if root.null.is_none() {
        root.null = own_null(root)?;
    }
    let null = match &root.null {
        Some(own) => mount::clone_tree_at(own, false)?,
        None => new_null(root).or_else(|_| mount::clone_tree(Path::new("/dev/null"), false))?,
    };
    ensure!(is_null(&null)?, "/dev/null: is not the null device");
    make_read_only(&null)?;
    Ok(null)
}

/// Makes a node on a tmpfs, and returns a detached mount of the node. The tmpfs lies on the new root for that moment.
fn new_null(root: &Root) -> Result<OwnedFd> {
    ensure!(!root.is_in_place, "others share the tree of mounts");
    let tmpfs = Configuration::open("tmpfs")?;
    let tmpfs = tmpfs.mount(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC)?;
    let (name, mode) = ("null", Mode::from_bits_truncate(0o666));
    let made = mknodat(&tmpfs, name, SFlag::S_IFCHR, mode, makedev(1, 3));
    named(made, || "mknodat(null)".to_string())?;
    let changed = fchmodat(&tmpfs, name, mode, FchmodatFlags::FollowSymlink);
    named(changed, || "fchmodat(null)".to_string())?;
    mount::move_mount(&tmpfs, root)?;
    let node = path::resolve_link(&tmpfs, Path::new(name));
    let node = node.and_then(|node| mount::clone_tree_at(&node, false));
    named(nix::unistd::fchdir(&tmpfs), || "fchdir(tmpfs)".to_string())?;
    named(umount2(".", MntFlags::MNT_DETACH), || {
        "umount(tmpfs)".to_string()
    })?;
    node
}

/// None if the container's /dev/null is a link, another file, on a filesystem of others, or on one without devices.
fn own_null(root: &Root) -> Result<Option<OwnedFd>> {
    let Ok(found) = path::resolve_plainly(root, Path::new("/dev/null")) else {
        return Ok(None);
    };
    let flags = named(fstatvfs(&found), || "fstatvfs(/dev/null)".to_string())?.flags();
    let is_usable = is_null(&found)? && root.owns(&found)? && !flags.contains(FsFlags::ST_NODEV);
    Ok(is_usable.then_some(found))
}

fn is_null(file: &OwnedFd) -> Result<bool> {
    let meta = stat(file)?;
    Ok(kind_of(&meta) == SFlag::S_IFCHR && meta.st_rdev == makedev(1, 3))
}

/// Makes a detached tmpfs that is empty and read-only.
pub fn empty_directory() -> Result<OwnedFd> {
    let tmpfs = Configuration::open("tmpfs")?;
    for (key, value) in [
        ("source", "tmpfs"),
        ("nr_blocks", "1"),
        ("nr_inodes", "1"),
        ("mode", "0555"),
    ] {
        tmpfs.string(key, value)?;
    }
    tmpfs.mount(
        libc::MOUNT_ATTR_RDONLY
            | libc::MOUNT_ATTR_NOSUID
            | libc::MOUNT_ATTR_NODEV
            | libc::MOUNT_ATTR_NOEXEC,
    )
}
