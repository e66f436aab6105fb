//! Extended attributes as marks: an attribute is there or not, its value says nothing.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};

use anyhow::Result;

use super::check;

pub fn set(file: impl AsFd, name: &CStr) -> Result<()> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the name is NUL-terminated; a value of length 0 is not read.
    let result = unsafe { libc::fsetxattr(fd, name.as_ptr(), null(), 0, 0) };
    check(result.into(), || format!("fsetxattr(fd {fd}, {name:?})")).map(drop)
}

/// Not of what a symbolic link points to.
pub fn has(file: &Path, name: &CStr) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both strings are NUL-terminated; nothing is written to a buffer of length 0.
    unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), null_mut(), 0) >= 0 }
}
