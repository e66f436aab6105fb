//! A caller who is confined: calls that never fail elsewhere do, and nobody reads what is said.

use std::io;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const SAME: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const GIVE: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// From now on this call of the process fails with EPERM.
fn refuse(number: libc::c_long) -> io::Result<()> {
    answer(number, libc::EPERM)
}

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

#[test]
fn calls_that_a_sandbox_refuses_make_no_panic() {
    let c = bundle!();
    let call = c.call_new("run", &[]);
    let output = call.setup(|| refuse(libc::SYS_umask)).finish();
    let output = output.fails_with("umask(0o0): Operation not permitted");
    assert!(!output.stderr().contains("panic"), "{}", output.describe());
    c.assert_gone();
    let call = c.call_new("run", &[]);
    call.setup(|| refuse(libc::SYS_getrandom)).finish().ok();
}

#[test]
fn nobody_has_to_read_the_timings() {
    let c = bundle!().asks(&["exit 5"]);
    c.write_config();
    let dir = c.dir.display().to_string();
    let (reader, writer) = io::pipe().expect("pipe");
    drop(reader);
    let call = ["--timings", "text", "run", "--bundle", &dir, &c.id];
    c.call(&call).fd(writer, 2).finish().exits(5);
}
