//! All unsafe code of the runtime: thin wrappers over the system calls that nix lacks.
//!
//! Used by parent and child alike. A wrapper takes and returns typed values (owned and borrowed
//! descriptors), decides nothing, and names the call with its arguments when the kernel refuses it.

pub mod alloc;
pub mod bpf;
pub mod caller_file;
pub mod clone;
pub mod confine;
pub mod courier;
pub mod cred;
pub mod entry;
pub mod image;
pub mod min_kernel;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod path;
pub mod probe;
pub mod process;
pub mod regular;
pub mod seccomp;
pub mod socket;
pub mod stat;
pub mod tty;
pub mod wait;
pub mod xattr;

pub use entry::{arguments, execute_again, words};

use std::ffi::{CString, OsStr};
use std::fmt;
use std::fs::{File, ReadDir};
use std::io::{ErrorKind, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// A system call that the kernel refused: the call as one would write it, if it says more than the
/// context does, and why.
#[derive(Debug)]
pub struct Refused {
    call: String,
    errno: Errno,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.call.as_str() {
            "" => f.write_str(self.errno.desc())?,
            call => write!(f, "{call}: {}", self.errno.desc())?,
        }
        if self.errno == Errno::ENOSYS {
            f.write_str(&min_kernel::hint(&self.call))?;
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

/// The result of a raw call, or the call's own words.
fn check(result: libc::c_long, call: impl FnOnce() -> String) -> Result<libc::c_long> {
    if result >= 0 {
        return Ok(result);
    }
    let errno = Errno::last();
    Err(Refused {
        call: call(),
        errno,
    }
    .into())
}

fn check_fd(result: libc::c_long, call: impl FnOnce() -> String) -> Result<OwnedFd> {
    let fd = check(result, call)? as i32;
    // SAFETY: the kernel has just returned this descriptor; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a result of nix the same words that a raw call has.
pub fn named<T>(result: nix::Result<T>, call: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|errno| {
        Refused {
            call: call(),
            errno,
        }
        .into()
    })
}

/// signal(7): made again for as long as something interrupts it.
pub fn again<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// The result of a file operation in the kernel's words, without the library's number behind them.
pub fn io<T>(result: std::io::Result<T>) -> Result<T> {
    result.map_err(|error| match error.raw_os_error() {
        Some(code) => Refused {
            call: String::new(),
            errno: Errno::from_raw(code),
        }
        .into(),
        None => error.into(),
    })
}

/// A directory's entries; unlike the rest of the library, its own function gives up when a signal interrupts it.
pub fn read_dir(path: &Path) -> std::io::Result<ReadDir> {
    loop {
        match std::fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Makes a file in memory that exec closes: nobody blocks on it, and a reader sees its end (memfd_create(2)).
pub fn memory_file(name: &str) -> Result<File> {
    let made = memfd_create(name, MFdFlags::MFD_CLOEXEC);
    named(made, || format!("memfd_create({name})")).map(File::from)
}

/// All of a config or of a part of it. A device may have no end; and read without types a number takes sixteen times its text,
/// an object a hundred times.
pub fn read_all(from: impl Read) -> Result<Vec<u8>> {
    const LONGEST: u64 = 8 << 20;
    const MOST: usize = 200_000;
    let mut text = Vec::with_capacity(8 << 10);
    io(from.take(LONGEST + 1).read_to_end(&mut text))?;
    anyhow::ensure!(
        text.len() as u64 <= LONGEST,
        "has more than {LONGEST} bytes, and no config is that long"
    );
    let count = |wanted: &[u8]| text.iter().filter(|byte| wanted.contains(byte)).count();
    anyhow::ensure!(
        count(b"{[") <= MOST && count(b",") <= 5 * MOST,
        "has more than {MOST} lists and objects, or five times as many values, and no config has that many"
    );
    Ok(text)
}

/// A file of /proc or /sys, whose size the kernel does not tell: asking for it is left out, and one read is enough for most.
pub fn read_text(path: impl AsRef<Path>) -> std::io::Result<String> {
    let mut text = String::with_capacity(4 << 10);
    let file = std::fs::File::open(path)?;
    file.take(u64::MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// The errno at the bottom of an error, if a system call caused it.
pub fn errno(error: &anyhow::Error) -> Option<Errno> {
    error.chain().find_map(|cause| {
        let refused = cause.downcast_ref::<Refused>().map(|refused| refused.errno);
        refused.or_else(|| {
            let io = cause.downcast_ref::<std::io::Error>()?;
            io.raw_os_error().map(Errno::from_raw)
        })
    })
}

pub fn c_string(text: impl AsRef<OsStr>) -> Result<CString> {
    let bytes = text.as_ref().as_bytes();
    CString::new(bytes).with_context(|| format!("{:?} contains a NUL byte", text.as_ref()))
}
