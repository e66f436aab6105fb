//! `tmpcopyup`: a tmpfs takes in what the directory below it holds.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use crate::sys::{self, named, path};

/// Copies the entries of `from` into `to`, with owners, modes and times.
///
/// Directories that are still to be copied are kept by their path below both, and opened one after the other: an image may
/// have more of them than this process may have open files.
pub fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut pending = vec![PathBuf::new()];
    while let Some(path) = pending.pop() {
        let [from, to] = [open_below(from, &path)?, open_below(to, &path)?];
        for name in entries(&from)? {
            let is_directory =
                copy_entry(&from, &to, &name).with_context(|| format!("copy {name:?}"))?;
            pending.extend(is_directory.then(|| path.join(name)));
        }
    }
    Ok(())
}

fn open_below(root: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let path = if path == Path::new("") {
        Path::new(".")
    } else {
        path
    };
    open_directory(root, path).map_err(|error| match sys::errno(&error) {
        Some(Errno::ENAMETOOLONG) => anyhow!(
            "directories are deeper than a path can be long, {} bytes",
            libc::PATH_MAX - 1
        ),
        _ => error,
    })
}

/// Copies one entry, of a directory nothing that is in it. Returns whether it is a directory.
fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &Path) -> Result<bool> {
    let meta = named(fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW), || {
        format!("fstatat({name:?})")
    })?;
    let mode = Mode::from_bits_truncate(meta.st_mode & 0o7777);
    let kind = SFlag::from_bits_truncate(meta.st_mode & libc::S_IFMT);
    match kind {
        SFlag::S_IFDIR => named(mkdirat(to, name, mode), || format!("mkdirat({name:?})"))?,
        SFlag::S_IFLNK => {
            let target = named(readlinkat(from, name), || format!("readlinkat({name:?})"))?;
            named(symlinkat(target.as_os_str(), to, name), || {
                format!("symlinkat({name:?})")
            })?;
        }
        SFlag::S_IFREG => copy_contents(from, to, name)?,
        _ => named(mknodat(to, name, kind, mode, meta.st_rdev), || {
            format!("mknodat({name:?})")
        })?,
    }
    copy_attributes(to, name, kind, mode, &meta)?;
    Ok(kind == SFlag::S_IFDIR)
}

fn copy_contents(from: &OwnedFd, to: &OwnedFd, name: &Path) -> Result<()> {
    // Not to wait for a writer, if a process of the container puts a FIFO there.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let mut source = File::from(path::open_below(from, name, flags)?);
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    let mut copy = File::from(path::create(to, name, flags, 0o600)?);
    std::io::copy(&mut source, &mut copy)
        .map(drop)
        .context("copy the contents")
}

fn copy_attributes(
    to: &OwnedFd,
    name: &Path,
    kind: SFlag,
    mode: Mode,
    meta: &FileStat,
) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(meta.st_uid), Gid::from_raw(meta.st_gid));
    let mut mode = mode;
    match fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW) {
        // The owner has no number in this user namespace: the copy is root's, and runs as nobody else.
        Err(Errno::EINVAL) => mode -= Mode::S_ISUID | Mode::S_ISGID,
        owned => named(owned, || format!("fchownat({name:?})"))?,
    }
    if kind != SFlag::S_IFLNK {
        let changed = fchmodat(to, name, mode, FchmodatFlags::FollowSymlink);
        named(changed, || format!("fchmodat({name:?})"))?;
    }
    let accessed = TimeSpec::new(meta.st_atime, meta.st_atime_nsec);
    let modified = TimeSpec::new(meta.st_mtime, meta.st_mtime_nsec);
    let timed = utimensat(
        to,
        name,
        &accessed,
        &modified,
        UtimensatFlags::NoFollowSymlink,
    );
    named(timed, || format!("utimensat({name:?})"))
}

/// What is mounted below the directory is taken in too.
fn open_directory(at: &OwnedFd, name: &Path) -> Result<OwnedFd> {
    path::open_below(at, name, libc::O_RDONLY | libc::O_DIRECTORY)
}

fn entries(directory: &OwnedFd) -> Result<Vec<PathBuf>> {
    let own = open_directory(directory, Path::new("."))?;
    let list = named(Dir::from_fd(own), || "fdopendir(directory)".to_string())?;
    let mut names = Vec::new();
    for entry in list {
        let entry = named(entry, || "readdir(directory)".to_string())?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(PathBuf::from(OsStr::from_bytes(name)));
        }
    }
    Ok(names)
}
