//! Where the C library enters this program. Rust's own start-up would look for the stack's end in /proc/self/maps and give
//! overflows a stack of their own, which is a fifth of what a short command does; and would abort in sandboxes that refuse it.
//! What of it is needed is done here: the words of the call are kept, descriptors 0 to 2 are open, and a reader that is gone
//! is an error instead of a signal.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::process::exit;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;

type Words = *const *const c_char;

unsafe extern "C" {
    static environ: Words;
}

/// What main was called with. The standard library does not learn it from musl.
static WORDS: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

// SAFETY: the only function of that name; unit tests and fuzzing have one of their harness.
#[cfg(not(any(test, fuzzing)))]
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, words: Words) -> c_int {
    WORDS.store(words.cast_mut(), Ordering::Relaxed);
    let begun = Instant::now();
    crate::selfexe::protect_early();
    if open_standard_streams().is_err() {
        exit(1);
    }
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.ok();
    // Flushes what has been printed, which the return from here would not.
    exit(crate::start(begun))
}

/// The words of the call, the program's name first. There are none in unit tests.
pub fn words() -> impl Iterator<Item = &'static CStr> {
    // SAFETY: execve(2) has put the strings and, after them, NULL on the stack, where they outlive the program.
    unsafe { each(WORDS.load(Ordering::Relaxed)) }
}

/// # Safety
/// The list, if there is one, ends with NULL, and neither it nor its strings ever change.
unsafe fn each(list: Words) -> impl Iterator<Item = &'static CStr> {
    let listed = (0..).map_while(move |i| {
        if list.is_null() {
            return None;
        }
        // SAFETY: so says the caller.
        unsafe {
            let word = *list.add(i);
            (!word.is_null()).then(|| CStr::from_ptr(word))
        }
    });
    // Nothing of the list is behind its end.
    listed.fuse()
}

/// Where the strings of the call and of the environment are.
pub fn strings() -> (Range<usize>, Range<usize>) {
    let end_of =
        |word: Option<&CStr>| word.map(|word| word.as_ptr() as usize + word.count_bytes() + 1);
    let start = words().next().map_or(0, |word| word.as_ptr() as usize);
    let between = end_of(words().last()).unwrap_or(start);
    // SAFETY: nothing has changed the environment, so that its strings are still those behind the words.
    let end = end_of(unsafe { each(environ) }.last()).unwrap_or(between);
    (start..between, between..end)
}

pub fn arguments() -> impl Iterator<Item = OsString> {
    words().map(|word| OsStr::from_bytes(word.to_bytes()).into())
}

/// Executes a file with the words and the environment of this program; returns only on failure.
pub fn execute_again(file: impl AsFd) -> Errno {
    let (fd, path, words) = (
        file.as_fd().as_raw_fd(),
        c"".as_ptr(),
        WORDS.load(Ordering::Relaxed),
    );
    // SAFETY: all lists end with NULL; there is one thread, so nothing changes the environment meanwhile.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            path,
            words,
            environ,
            libc::AT_EMPTY_PATH,
        )
    };
    Errno::last()
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
