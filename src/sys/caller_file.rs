//! Files that the caller names by a flag or in the config. Parent, and hooks.
//!
//! A name may lead to a fifo that nobody has open at the other end, and open(2) would then wait without end.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sys;

/// The longest that a fifo may be without a writer.
const WRITER: Duration = Duration::from_secs(5);

/// Reads a config, or a part of one.
///
/// Fails if the file is a fifo that nobody opens for writing within 5 s, or if it is too long (see [`sys::read_all`]). A writer
/// may take its time: its end ends the reading.
pub fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = sys::io(options.open(file))?;
    sys::read_all(Awaited {
        file,
        has_writer: false,
    })
}

/// Opens a file to append to it; makes one with mode 0644, less the umask, where there is none.
///
/// Writes do not wait either: a full pipe takes no more. Fails for a fifo that nobody reads.
pub fn append(file: &Path) -> Result<File> {
    let mut options = File::options();
    options.append(true).create(true).mode(0o644);
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options.open(file).map_err(|error| {
        // fifo(7): ENXIO without a reader. For a socket or a device the errno says enough.
        let is_fifo = || std::fs::metadata(file).is_ok_and(|meta| meta.file_type().is_fifo());
        match error.raw_os_error() {
            Some(libc::ENXIO) if is_fifo() => Error::other("nobody reads from this fifo"),
            _ => error,
        }
    })
}

/// A file that was opened with O_NONBLOCK, read as if it had not been, but for a fifo without a writer.
struct Awaited {
    file: File,
    /// Whether anybody has written, or has the fifo open to do so.
    has_writer: bool,
}

impl Read for Awaited {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut waited = false;
        loop {
            match self.file.read(buffer) {
                // pipe(7): somebody has it open for writing. A terminal says the same.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.has_writer = true;
                    self.wait(None)?;
                }
                Ok(0) if !self.has_writer && self.is_fifo()? => {
                    if waited {
                        let words = "nobody has opened this fifo for writing within";
                        return Err(Error::other(format!("{words} {} s", WRITER.as_secs())));
                    }
                    self.has_writer = self.wait(Some(WRITER))?;
                    waited = true;
                }
                read => {
                    self.has_writer |= read.as_ref().is_ok_and(|count| *count > 0);
                    return read;
                }
            }
        }
    }
}

impl Awaited {
    fn is_fifo(&self) -> Result<bool> {
        Ok(self.file.metadata()?.file_type().is_fifo())
    }

    /// Waits until there is something to read, or the last writer is gone; false if the time is over before.
    fn wait(&self, time: Option<Duration>) -> Result<bool> {
        let deadline = time.map(|time| Instant::now() + time);
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            });
            let mut polled = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            match poll(&mut polled, timeout) {
                Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
