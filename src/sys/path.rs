//! Paths inside a root that may be hostile: resolved by the kernel within the root, then used by descriptor.
//!
//! openat2(2) with RESOLVE_IN_ROOT treats the root as `/` for `..` and absolute links, and
//! RESOLVE_NO_MAGICLINKS refuses the links of /proc that would jump out of it.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{Mode, mkdirat};

use super::{again, named};

const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
/// Below the directory, on its own filesystem, through no link at all: for procfs and cgroupfs.
const STRICT: u64 = libc::RESOLVE_BENEATH
    | libc::RESOLVE_NO_XDEV
    | libc::RESOLVE_NO_SYMLINKS
    | libc::RESOLVE_NO_MAGICLINKS;
/// Below the directory, through no link, but into what is mounted there.
const BELOW: u64 = STRICT & !libc::RESOLVE_NO_XDEV;
/// As many symbolic links as the kernel follows in one path (path_resolution(7)).
pub const LINKS: usize = 40;
/// The kernel gives EAGAIN when a rename or mount raced with `..`; more than this is an attack.
const RETRIES: usize = 64;

/// The path without links and `..`: from the kernel, in a few calls. realpath(3) of musl asks for each component, and for memory.
pub fn real(path: &Path) -> Result<PathBuf> {
    let mut options = File::options();
    let opened = super::io(options.read(true).custom_flags(libc::O_PATH).open(path))?;
    let name = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let real = super::io(std::fs::read_link(name))?;
    // What is deleted, or no longer below the root, is given a path that may be that of something else (proc(5)).
    let meant = super::io(opened.metadata())?;
    match std::fs::metadata(&real) {
        Ok(found) if (found.dev(), found.ino()) == (meant.dev(), meant.ino()) => Ok(real),
        _ => super::io(std::fs::canonicalize(path)),
    }
}

/// Opens a path for reference only (O_PATH), following links inside the root.
pub fn resolve(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    openat2(root.as_fd(), path, libc::O_PATH, 0, IN_ROOT)
}

/// As [`resolve`], but ELOOP if any component is a symbolic link.
pub fn resolve_plainly(root: impl AsFd, path: &Path) -> Result<OwnedFd, Errno> {
    let how = IN_ROOT | libc::RESOLVE_NO_SYMLINKS;
    try_openat2(root.as_fd(), path, libc::O_PATH, 0, how)
}

/// As [`resolve`], for a path that may not be there.
pub fn find(root: impl AsFd, path: &Path) -> Result<Option<OwnedFd>> {
    match try_openat2(root.as_fd(), path, libc::O_PATH, 0, IN_ROOT) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        found => refused(found, root.as_fd(), path).map(Some),
    }
}

/// Opens a directory by its path in the namespace of this process, for reference only (open(2), O_PATH).
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = again(|| nix::fcntl::open(path, flags, Mode::empty()));
    named(opened, || format!("open({path:?})"))
}

/// A directory that is reached through no symbolic link.
pub fn resolve_without_links(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    openat2(
        root.as_fd(),
        path,
        flags,
        0,
        IN_ROOT | libc::RESOLVE_NO_SYMLINKS,
    )
}

/// Opens the path's own last component, even if that is a symbolic link.
pub fn resolve_link(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    openat2(
        root.as_fd(),
        path,
        libc::O_PATH | libc::O_NOFOLLOW,
        0,
        IN_ROOT,
    )
}

pub fn open(root: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    openat2(root.as_fd(), path, flags, 0, IN_ROOT)
}

/// Opens a file of procfs or cgroupfs below a directory of the same mount, through no links.
pub fn open_strict(directory: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    openat2(directory.as_fd(), path, flags, 0, STRICT)
}

/// Opens what is below a directory, mounts included, through no links.
pub fn open_below(directory: impl AsFd, path: &Path, flags: i32) -> Result<OwnedFd> {
    openat2(directory.as_fd(), path, flags, 0, BELOW)
}

/// Makes a file below a directory, through no links.
pub fn create(directory: impl AsFd, path: &Path, flags: i32, mode: u64) -> Result<OwnedFd> {
    openat2(
        directory.as_fd(),
        path,
        flags | libc::O_NOFOLLOW,
        mode,
        STRICT,
    )
}

/// The directory at `path`, made with all its parents (mode 0755) where missing. Where a symbolic link
/// leads nowhere, what it names is made, inside the root.
pub fn make_directories(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    make_directories_over(root.as_fd(), path, LINKS)
}

fn make_directories_over(root: BorrowedFd, path: &Path, links: usize) -> Result<OwnedFd> {
    let (found, Some((parent, name))) = (find(root, path)?, path.parent().zip(path.file_name()))
    else {
        return resolve(root, path);
    };
    if let Some(found) = found {
        return Ok(found);
    }
    let parent_fd = make_directories_over(root, parent, links)?;
    match mkdirat(&parent_fd, name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => resolve(root, path),
        Err(Errno::EEXIST) => match link_target(&parent_fd, parent, name, links)? {
            Some(target) => make_directories_over(root, &target, links - 1),
            // Another process of the same rootfs was faster; what it made is resolved like ours.
            None => resolve(root, path),
        },
        Err(errno) => super::named(Err(errno), || format!("mkdirat({path:?})")),
    }
}

/// The file at `path`, made empty (mode 0644) where missing, with its parents; links as for directories.
pub fn make_file(root: impl AsFd, path: &Path) -> Result<OwnedFd> {
    make_file_over(root.as_fd(), path, LINKS)
}

fn make_file_over(root: BorrowedFd, path: &Path, links: usize) -> Result<OwnedFd> {
    if let Some(found) = find(root, path)? {
        return Ok(found);
    }
    let Some((parent, name)) = path.parent().zip(path.file_name()) else {
        bail!("{path:?} names no file");
    };
    let parent_fd = make_directories_over(root, parent, links)?;
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;
    match try_openat2(parent_fd.as_fd(), Path::new(name), flags, 0o644, IN_ROOT) {
        Ok(_) => resolve(root, path),
        Err(Errno::EEXIST) => match link_target(&parent_fd, parent, name, links)? {
            Some(target) => make_file_over(root, &target, links - 1),
            None => resolve(root, path),
        },
        made => refused(made, parent_fd.as_fd(), Path::new(name)),
    }
}

/// The path that a symbolic link of this name stands for, to be resolved inside the root as any other.
fn link_target(at: &OwnedFd, parent: &Path, name: &OsStr, links: usize) -> Result<Option<PathBuf>> {
    match readlinkat(at, name) {
        Ok(_) if links == 0 => super::named(Err(Errno::ELOOP), || format!("follow {name:?}")),
        // An absolute target replaces the parent.
        Ok(target) => Ok(Some(parent.join(target))),
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
        Err(errno) => super::named(Err(errno), || format!("readlinkat({name:?})")),
    }
}

/// The directory that holds `path`, made where missing, and the last name in it.
pub fn make_parent(root: impl AsFd, path: &Path) -> Result<(OwnedFd, &OsStr)> {
    let Some(name) = path.file_name() else {
        bail!("{path:?} names no file");
    };
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok((make_directories(root, parent)?, name))
}

/// chmod(2) of a file opened for reference only (O_PATH); ENOSYS before Linux 6.6.
pub fn change_mode(file: impl AsFd, mode: u32) -> Result<(), Errno> {
    let (fd, empty) = (file.as_fd().as_raw_fd(), c"".as_ptr());
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: the path is an empty NUL-terminated string.
    let result = unsafe { libc::syscall(libc::SYS_fchmodat2, fd, empty, mode, flags) };
    Errno::result(result).map(drop)
}

fn openat2(at: BorrowedFd, path: &Path, flags: i32, mode: u64, resolve: u64) -> Result<OwnedFd> {
    refused(try_openat2(at, path, flags, mode, resolve), at, path)
}

fn refused(opened: Result<OwnedFd, Errno>, at: BorrowedFd, path: &Path) -> Result<OwnedFd> {
    super::named(opened, || {
        format!("openat2(fd {}, {path:?})", at.as_raw_fd())
    })
}

fn try_openat2(
    at: BorrowedFd,
    path: &Path,
    flags: i32,
    mode: u64,
    resolve: u64,
) -> Result<OwnedFd, Errno> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: open_how is plain integers; zero is valid for each.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    if flags & libc::O_PATH == 0 {
        how.flags |= libc::O_NOCTTY as u64;
    }
    how.mode = mode;
    how.resolve = resolve;
    for _ in 0..RETRIES {
        let (fd, name, size) = (at.as_raw_fd(), name.as_ptr(), size_of_val(&how));
        // SAFETY: name is NUL-terminated; how outlives the call and its size is given.
        let result = unsafe { libc::syscall(libc::SYS_openat2, fd, name, &raw const how, size) };
        match Errno::result(result) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // SAFETY: the kernel has just returned this descriptor; nobody else knows its number.
            other => return other.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        }
    }
    Err(Errno::EAGAIN)
}

/// Refuses a path on which there is something else than directories: a link that leads nowhere, or a file.
pub fn check_only_directories(path: &Path) -> Result<()> {
    let Some(there) = path
        .ancestors()
        .find(|path| path.symlink_metadata().is_ok())
    else {
        return Ok(());
    };
    match (std::fs::metadata(there), std::fs::read_link(there)) {
        (Err(error), Ok(target)) if error.kind() == ErrorKind::NotFound => bail!(
            "{there:?} is a symbolic link to {target:?}, which is not there; make it, or name another"
        ),
        (Ok(meta), _) if !meta.is_dir() => bail!("{there:?} is no directory; name another"),
        _ => Ok(()),
    }
}
