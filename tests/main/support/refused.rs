//! Calls of the kernel that a process is refused from now on, as by an old kernel or a sandbox: a filter of four instructions.
//!
//! With COFFERDAM_REFUSED all tests of this process have one refused to each call of the runtime, but for `delete`. Then what
//! would succeed may fail, which ends the test early, and is noted in the file COFFERDAM_REFUSED_LOG; so is what such a test
//! has left behind. See attacks/refused.rs.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};

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

pub const REFUSED: &str = "COFFERDAM_REFUSED";
pub const LOG: &str = "COFFERDAM_REFUSED_LOG";

thread_local! {
    static ENDED: Cell<bool> = const { Cell::new(false) };
}

/// The call and the errno that this process is to have refused everywhere.
pub fn everywhere() -> Option<(libc::c_long, i32)> {
    let text = std::env::var(REFUSED).ok()?;
    let (number, errno) = text.split_once(' ').expect("a call and an errno");
    Some((
        number.parse().expect("a number"),
        errno.parse().expect("an errno"),
    ))
}

/// What is put away is not under test.
pub fn to_this(args: &[OsString]) -> Option<(libc::c_long, i32)> {
    everywhere().filter(|_| !args.iter().any(|word| word == "delete"))
}

/// Ends the test, if a call of the kernel is refused and the command has failed in good order for that.
pub fn may_end(code: i32, said: &str) {
    let in_order =
        (1..=255).contains(&code) && !said.is_empty() && !said.contains("internal error");
    if everywhere().is_some() && in_order {
        ENDED.set(true);
        note("ended", said.trim());
        panic!("refused: {said}");
    }
}

/// Whether this test has been ended so: what it leaves is still judged.
pub fn has_ended() -> bool {
    ENDED.get()
}

pub fn note(kind: &str, what: &str) {
    let path = std::env::var_os(LOG).expect("a log");
    let test = std::thread::current()
        .name()
        .unwrap_or_default()
        .to_string();
    let line = format!("{kind} {test} {}\n", what.replace('\n', " "));
    let file = File::options().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("write the log");
}
