//! seccomp(2): loads a filter that the plan has prepared. Allocates nothing.

use nix::errno::Errno;

use crate::plan::seccomp::Instruction;

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;

#[repr(C)]
struct Program {
    length: libc::c_ushort,
    instructions: *const Instruction,
}

/// Installs the filter for this thread; with SECCOMP_FILTER_FLAG_NEW_LISTENER gives the listener's number.
///
/// A kernel that knows none of the `optional` flags is asked again without them.
pub fn load(filter: &[Instruction], flags: u32, optional: u32) -> Result<i32, Errno> {
    match install(filter, flags) {
        Err(Errno::EINVAL) if flags & optional != 0 => install(filter, flags & !optional),
        result => result,
    }
}

fn install(filter: &[Instruction], flags: u32) -> Result<i32, Errno> {
    let length = libc::c_ushort::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    let program = Program {
        length,
        instructions: filter.as_ptr(),
    };
    // SAFETY: Program and Instruction have the layout of sock_fprog and sock_filter; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    Errno::result(result).map(|fd| fd as i32)
}
