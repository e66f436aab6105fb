//! Checks that the directory of all records, `--root`, is out of other users' reach. Parent only.
//!
//! A user who may rename a directory on the way to the records can put others in their place. A container that runs is
//! unknown then, and hooks of a false record are run. So only root and the caller may write to these directories.

use std::ffi::CStr;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::readlink;
use nix::sys::stat::{FileStat, lstat};
use nix::unistd::geteuid;

use crate::host;
use crate::state::state_dir::StateDir;
use crate::sys::{self, xattr};

/// As many symbolic links as the kernel follows in one path (path_resolution(7)).
const LINKS: usize = 40;
/// An owner who has no number in the user namespace of the caller (user_namespaces(7)).
const UNMAPPED: u32 = 65534;
const ACCESS_LIST: &CStr = c"system.posix_acl_access";

/// Fails if others can exchange the directory or one above it. Returns whether a directory is there.
pub fn check(root: &Path) -> Result<bool> {
    let path = sys::io(std::path::absolute(root)).context("--root: the current directory")?;
    check_over(&path, geteuid().as_raw(), LINKS)
}

/// Fails for the directory of a container that belongs to another user: hooks of its record would be run for that user.
pub fn check_record(dir: &StateDir) -> Result<()> {
    let (owner, own) = (sys::io(dir.owner())?, geteuid().as_raw());
    ensure!(
        owner == own || owner == 0,
        "{:?}: belongs to user {owner}, who could have put anything there; call this as that user",
        dir.path
    );
    Ok(())
}

fn check_over(path: &Path, own: u32, links: usize) -> Result<bool> {
    let mut parts = path.components();
    let mut here = PathBuf::new();
    let mut is_directory = true;
    while let Some(part) = parts.next() {
        here.push(part);
        // A user who can exchange "/" has everything.
        if part == Component::RootDir {
            continue;
        }
        // Missing, or not to be searched: the use of the path gives the error.
        let Ok(found) = lstat(&here) else {
            return Ok(false);
        };
        let is_last = parts.clone().next().is_none();
        check_owner(&here, &found, own, is_last)?;
        let kind = found.st_mode & libc::S_IFMT;
        is_directory = kind == libc::S_IFDIR;
        if kind != libc::S_IFLNK {
            check_mode(&here, &found)?;
        } else if let (Ok(target), 1..) = (readlink(&here), links) {
            let above = here.parent().unwrap_or(Path::new("/"));
            let path = above.join(target).join(parts.as_path());
            return check_over(&path, own, links - 1);
        }
    }
    Ok(is_directory)
}

/// Fails for another user's directory or link. In a user namespace those of the host's root have no owner; the directory of
/// the records must have one.
fn check_owner(path: &Path, found: &FileStat, own: u32, is_last: bool) -> Result<()> {
    let owner = found.st_uid;
    let is_unmapped =
        || !is_last && owner == UNMAPPED && host::in_user_namespace().unwrap_or(false);
    ensure!(
        owner == own || owner == 0 || is_unmapped(),
        "--root: {path:?} belongs to user {owner}, who could exchange the records of containers; \
         name a directory of your own"
    );
    Ok(())
}

/// Fails for a directory in which others can rename. In a sticky one they can rename only their own files (inode(7)).
/// A group with the number of the owner has no other members (pam_umask(8), "usergroups").
fn check_mode(path: &Path, found: &FileStat) -> Result<()> {
    let mode = found.st_mode;
    // With an access list these bits are its mask (acl(5)), and speak of others, too.
    let is_private = || found.st_gid == found.st_uid && !xattr::has(path, ACCESS_LIST);
    let by_group = mode & libc::S_IWGRP != 0 && !is_private();
    let by_others = by_group || mode & libc::S_IWOTH != 0;
    ensure!(
        !by_others || mode & libc::S_ISVTX != 0,
        "--root: {path:?} can be written by others (mode {:04o}), who could exchange the records of containers; \
         chmod go-w it, or name another directory",
        mode & 0o7777
    );
    Ok(())
}
