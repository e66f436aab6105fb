//! Calls of the kernel that a process is refused from now on, as by an old kernel or a sandbox: a filter of four instructions.

use std::io;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const SAME: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GIVE: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// From now on this call of the process, and of all that it starts, fails with this errno.
pub fn answer(number: libc::c_long, errno: i32) -> io::Result<()> {
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut filter = [
        step(LOAD, 0, 0),
        step(SAME, number as u32, 1),
        step(GIVE, libc::SECCOMP_RET_ERRNO | errno as u32, 0),
        step(GIVE, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: program describes four instructions that outlive the call.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
