//! `--pid-file`: written whole or not at all, and never in the place of something else. Parent only.

use std::fs::{Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::sys;

/// A pid file that this process has written.
pub struct PidFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// Fails for what a pid file must not replace: a directory, a device, a fifo, a socket, and a link to one of these. A link to a regular
/// file, or to nothing, is replaced itself.
pub fn check(file: &Path) -> Result<()> {
    // A file that lstat(2) refuses cannot be written either; the write gives the error.
    let Ok(mut found) = file.symlink_metadata() else {
        return Ok(());
    };
    if found.is_symlink() {
        match file.metadata() {
            Ok(target) => found = target,
            Err(_) => return Ok(()),
        }
    }
    ensure!(
        found.is_file(),
        "--pid-file: write {file:?}: is {}; name a regular file, or a path where nothing is",
        kind(&found)
    );
    Ok(())
}

/// Names the type of a file that is neither regular nor a link.
pub fn kind(file: &Metadata) -> &'static str {
    let kind = file.file_type();
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a fifo",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() => "a block device",
        () => "a character device",
    }
}

impl PidFile {
    /// Writes the file whole or not at all, for readers that poll; without a newline, which some do not expect.
    pub fn write(file: &Path, pid: i32) -> Result<PidFile> {
        let name = file
            .file_name()
            .context("--pid-file: names no file")?
            .to_string_lossy();
        let temporary = file.with_file_name(format!(".{name}.{pid}"));
        let new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&temporary);
        let context = || format!("--pid-file: write {file:?}");
        let mut open = sys::io(new)
            .with_context(|| format!("make {temporary:?}"))
            .with_context(context)?;
        let written = write!(open, "{pid}")
            .and_then(|()| open.metadata())
            .and_then(|made| std::fs::rename(&temporary, file).map(|()| made));
        let made = sys::io(written)
            .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
            .with_context(context)?;
        Ok(PidFile {
            path: file.to_path_buf(),
            id: (made.dev(), made.ino()),
        })
    }

    /// Removes it, unless another file has its name by now.
    pub fn take_back(self) {
        let found = self.path.symlink_metadata();
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.id) {
            std::fs::remove_file(&self.path).ok();
        }
    }
}
