//! Paths inside a root that may be hostile: resolved by the kernel within the root, then used by descriptor.
//!
//! openat2(2) with RESOLVE_IN_ROOT treats the root as `/` for `..` and absolute links, and
//! RESOLVE_NO_MAGICLINKS refuses the links of /proc that would jump out of it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::{c_string, check_fd, errno};

const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Below the directory, on its own filesystem, through no link at all: for procfs and cgroupfs.
const STRICT: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_XDEV
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS;
/// The kernel gives EAGAIN when a rename or mount raced with `..`; more than this is an attack.
const RETRIES: usize = 64;

/// Opens a path for reference only (O_PATH), following links inside the root.
pub fn resolve(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    openat2(root.as_fd(), path, libc::O_PATH, 0, IN_ROOT)
}

/// As [`resolve`], but ELOOP if any component is a symbolic link.
pub fn resolve_plainly(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let how = IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
    openat2(root.as_fd(), path, libc::O_PATH, 0, how)
}

/// A directory that is reached through no symbolic link.
pub fn resolve_without_links(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    openat2(root.as_fd(), path, flags, 0, IN_ROOT | libc::RESOLVE_NO_SYMLINKS)
}

/// Opens the path's own last component, even if that is a symbolic link.
pub fn resolve_link(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    openat2(root.as_fd(), path, libc::O_PATH | libc::O_NOFOLLOW, 0, IN_ROOT)
}

pub fn open(root: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    openat2(root.as_fd(), path, flags, 0, IN_ROOT)
}

/// Opens a file of procfs or cgroupfs below a directory of the same mount, through no links.
pub fn open_strict(directory: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    openat2(directory.as_fd(), path, flags, 0, STRICT)
}

/// Makes a file below a directory, through no links.
pub fn create(directory: impl AsFd, path: &Path, flags: i32, mode: u64) -> Result<OwnedFd> {
    openat2(directory.as_fd(), path, flags | libc::O_NOFOLLOW, mode, STRICT)
}

/// The directory at `path`, made with all its parents (mode 0755) where missing.
pub fn make_directories(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    match resolve(&root, path) {
        Err(error) if errno(&error) == Some(Errno::ENOENT) => {}
        found => return found,
    }
    let mut made = PathBuf::from("/");
    for component in normal_components(path) {
        let parent = resolve(&root, &made)?;
        made.push(component);
        make_directory_at(&parent, component, 0o755)
            .with_context(|| format!("make directory {made:?}"))?;
    }
    resolve(&root, path)
}

/// The file at `path`, made empty (mode 0644) where missing, with its parents.
pub fn make_file(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    match resolve(&root, path) {
        Err(error) if errno(&error) == Some(Errno::ENOENT) => {}
        found => return found,
    }
    let (parent, name) = make_parent(&root, path)?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    match openat2(parent.as_fd(), Path::new(&name), flags, 0o644, IN_ROOT) {
        Err(error) if errno(&error) != Some(Errno::EEXIST) => Err(error),
        _ => resolve(&root, path),
    }
}

/// The directory that holds `path`, made where missing, and the last name in it.
pub fn make_parent<'a>(root: impl AsFd, path: &'a Path) -> Result<(OwnedFd, &'a OsStr)> {
    let Some(name) = path.file_name() else {
        bail!("{path:?} names no file");
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((make_directories(root, parent)?, name))
}

fn make_directory_at(parent: &OwnedFd, name: &OsStr, mode: u32) -> Result<()> {
    match nix::sys::stat::mkdirat(parent, name, nix::sys::stat::Mode::from_bits_truncate(mode)) {
        // Another process of the same rootfs may be faster; what it made is resolved again.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => super::named(Err(errno), || format!("mkdirat({name:?})")),
    }
}

fn normal_components(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        _ => None,
    })
}

fn openat2(at: BorrowedFd, path: &Path, flags: i32, mode: u64, resolve: u64) -> Result<OwnedFd> {
    let name = c_string(path)?;
    // SAFETY: open_how is plain integers; zero is valid for each.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC | libc::O_NOCTTY) as u64;
    if flags & libc::O_PATH != 0 {
        how.flags = (flags | libc::O_CLOEXEC) as u64;
    }
    how.mode = mode;
    how.resolve = resolve;
    let mut attempt = 0;
    loop {
        let fd = at.as_raw_fd();
        // SAFETY: name is NUL-terminated; how outlives the call and its size is given.
        let result = unsafe {
            libc::syscall(libc::SYS_openat2, fd, name.as_ptr(), &raw const how, size_of_val(&how))
        };
        attempt += 1;
        if result < 0 && retriable(Errno::last()) && attempt < RETRIES {
            continue;
        }
        return check_fd(result, || format!("openat2(fd {fd}, {path:?})"));
    }
}

fn retriable(errno: Errno) -> bool {
    matches!(errno, Errno::EAGAIN | Errno::EINTR)
}
