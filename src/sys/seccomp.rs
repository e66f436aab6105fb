//! seccomp(2): loads a filter that the plan has prepared. Allocates nothing.

use nix::errno::Errno;

use serde::{Deserialize, Serialize};

/// One instruction, laid out as the kernel's `struct sock_filter`. In a record it is one number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

impl From<u64> for Instruction {
    fn from(number: u64) -> Instruction {
        Instruction {
            code: number as u16,
            jt: (number >> 16) as u8,
            jf: (number >> 24) as u8,
            k: (number >> 32) as u32,
        }
    }
}

impl From<Instruction> for u64 {
    fn from(own: Instruction) -> u64 {
        u64::from(own.k) << 32
            | u64::from(own.jf) << 24
            | u64::from(own.jt) << 16
            | u64::from(own.code)
    }
}

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
