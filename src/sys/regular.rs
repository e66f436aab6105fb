//! Regular files in a place that others may change at any moment: an image, a volume, a container.
//!
//! To open a device acts on it, to open a fifo waits, and to read from procfs may take away what is read. So a file is
//! opened O_PATH first, which does none of this (open(2)), and is opened for reading only if its type is right.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat};
use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, fstatfs};

use super::{again, named, path};

const READ: i32 = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
/// The filesystems that make up contents on each read and may tell a size above 0. The last three are CONFIGFS_MAGIC,
/// DEBUGFS_MAGIC and EFIVARFS_MAGIC of the kernel.
const GENERATED: [FsType; 5] = [
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
    FsType(0x6265_6570),
    FsType(0x6462_6720),
    FsType(0xde5e_81e4),
];

/// Opens the file at `path`, below a root that may be hostile, for reading.
///
/// Fails for all but a regular file with contents on a filesystem that stores them. Most files of procfs and the like
/// have the size 0, /proc/kmsg too.
pub fn open(root: impl AsFd, path: &Path) -> Result<File> {
    let found = path::resolve(&root, path)?;
    check(&stat(&found)?)?;
    let filesystem = named(fstatfs(&found), || "fstatfs".to_string())?.filesystem_type();
    ensure!(!GENERATED.contains(&filesystem), "is made up by the kernel");
    reopen(&found, |flags| path::open(&root, path, flags))
}

/// Opens the file at `path` for reference only (O_PATH), as seen from this process, with what fstat(2) says of it.
pub fn find(path: &Path) -> Result<(OwnedFd, FileStat), Errno> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let found = again(|| nix::fcntl::open(path, flags, Mode::empty()))?;
    let stat = fstat(&found)?;
    Ok((found, stat))
}

/// Opens for reading what [`find`] has found at `path`. Fails for all but a regular file with contents.
pub fn read(path: &Path, (found, stat): &(OwnedFd, FileStat)) -> Result<File> {
    check(stat)?;
    reopen(found, |flags| {
        let flags = OFlag::from_bits_retain(flags);
        let opened = again(|| nix::fcntl::open(path, flags, Mode::empty()));
        named(opened, || format!("open({path:?})"))
    })
}

fn is_regular(stat: &FileStat) -> bool {
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
}

fn check(stat: &FileStat) -> Result<()> {
    ensure!(is_regular(stat), "is no regular file");
    ensure!(stat.st_size > 0, "is empty");
    Ok(())
}

fn stat(file: impl AsFd) -> Result<FileStat> {
    named(fstat(file), || "fstat".to_string())
}

/// Opens the same file again, through its link in procfs (proc_pid_fd(5)).
///
/// In a container without a procfs nothing but the name leads to the file. Then another file may be opened, with the
/// rights of this process and without waiting, and the call fails.
fn reopen(found: &OwnedFd, by_name: impl FnOnce(i32) -> Result<OwnedFd>) -> Result<File> {
    if let Some(directory) = own_descriptors() {
        let (number, flags) = (found.as_raw_fd().to_string(), OFlag::from_bits_retain(READ));
        let opened = again(|| openat(&directory, number.as_str(), flags, Mode::empty()));
        return named(opened, || format!("open(/proc/self/fd/{number})")).map(File::from);
    }
    let opened = by_name(READ)?;
    let (meant, got) = (stat(found)?, stat(&opened)?);
    ensure!(
        (meant.st_dev, meant.st_ino) == (got.st_dev, got.st_ino),
        "was exchanged meanwhile"
    );
    Ok(opened.into())
}

/// /proc/self/fd; `None` where /proc is no procfs.
fn own_descriptors() -> Option<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = again(|| nix::fcntl::open("/proc/self/fd", flags, Mode::empty())).ok()?;
    let filesystem = fstatfs(&directory).ok()?.filesystem_type();
    (filesystem == PROC_SUPER_MAGIC).then_some(directory)
}
