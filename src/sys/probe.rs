//! Questions to the kernel that change nothing, whatever the answer: for `check`.
//!
//! Has it a call, is Landlock enabled, does a file have capabilities of its own. Decides nothing.

use std::ffi::CStr;
use std::path::Path;
use std::ptr::null_mut;

use super::c_string;

/// Whether the kernel has a system call. It is made with arguments that it must refuse.
pub fn has_call(number: libc::c_long) -> bool {
    // SAFETY: every pointer is -1, which is no user address, and no call takes all bits of flags or sizes.
    let result = unsafe { libc::syscall(number, -1, -1, -1, -1, -1, -1) };
    result >= 0 || nix::errno::Errno::last() != nix::errno::Errno::ENOSYS
}

/// The version of Landlock's interface; `None` where it is not built in or not enabled.
pub fn landlock_version() -> Option<i64> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    let (none, size) = (null_mut::<libc::c_void>(), 0usize);
    // SAFETY: with this flag the kernel takes neither attribute nor size, and makes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            size,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    (result > 0).then_some(result)
}

/// Whether a program gains capabilities when it is executed, by its file's own (capabilities(7)).
pub fn has_file_capabilities(program: &Path) -> bool {
    const ATTRIBUTE: &CStr = c"security.capability";
    let Ok(path) = c_string(program) else {
        return false;
    };
    // SAFETY: both strings are NUL-terminated; with no buffer the kernel gives the size only.
    unsafe { libc::getxattr(path.as_ptr(), ATTRIBUTE.as_ptr(), null_mut(), 0) > 0 }
}
