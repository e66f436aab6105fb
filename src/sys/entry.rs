//! Where the C library enters this program. Rust's own start-up would look for the stack's end in /proc/self/maps and give
//! overflows a stack of their own, which is a fifth of what a short command does; and would abort in sandboxes that refuse it.
//! What of it is needed is done here: the arguments are kept, descriptors 0 to 2 are open, and a reader that is gone is an
//! error instead of a signal.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::process::exit;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use std::os::fd::{BorrowedFd, IntoRawFd};

static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();

/// What the program was called with, its own name first. The standard library does not learn it from musl.
pub fn arguments() -> impl Iterator<Item = OsString> {
    let arguments = ARGUMENTS.get_or_init(|| std::env::args_os().collect());
    arguments.iter().cloned()
}

// SAFETY: the only function of that name; unit tests have one of their harness.
#[cfg(not(test))]
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    // SAFETY: so many strings were put on the stack by execve(2), which outlive the program.
    let words = (0..count as usize).map(|i| unsafe { CStr::from_ptr(*words.add(i)) });
    ARGUMENTS.get_or_init(|| {
        words
            .map(|word| OsStr::from_bytes(word.to_bytes()).into())
            .collect()
    });
    if open_standard_streams().is_err() {
        exit(1);
    }
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.ok();
    // Flushes what has been printed, which the return from here would not.
    exit(crate::start())
}

/// What is opened later must not get one of these numbers: messages would be written to it.
fn open_standard_streams() -> nix::Result<()> {
    for number in 0..=2 {
        // SAFETY: asked for whether it is open, and for nothing else.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl(stream, FcntlArg::F_GETFD) == Err(Errno::EBADF) {
            // The lowest number that is free.
            let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
            let _ = null.into_raw_fd();
        }
    }
    Ok(())
}
