//! Where the C library enters this program. Rust's own start-up would look for the stack's end in /proc/self/maps and give
//! overflows a stack of their own, which is a fifth of what a short command does; and would abort in sandboxes that refuse it.
//! What of it is needed is done here: the words of the call are kept, descriptors 0 to 2 are open, and a reader that is gone
//! is an error instead of a signal.

use std::ffi::{CStr, OsStr, OsString, c_char};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;

pub type Words = *const *const c_char;

unsafe extern "C" {
    static environ: Words;
}

/// What main was called with. The standard library does not learn it from musl.
static WORDS: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// The first string of the command line, and how many bytes it, the others and the environment take.
static STRINGS: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
static LENGTH: AtomicUsize = AtomicUsize::new(0);

/// Keeps where the words of the call and the environment are.
///
/// # Safety
/// `words` is the list that the C library gives to main, and nothing has changed the environment yet.
pub unsafe fn keep_args(words: Words) {
    WORDS.store(words.cast_mut(), Ordering::Relaxed);
    let (words, environment) = strings();
    STRINGS.store(words.start as *mut u8, Ordering::Relaxed);
    LENGTH.store(environment.end - words.start, Ordering::Relaxed);
}

/// Opens those of descriptors 0 to 2 that are closed, and makes a write to a closed pipe an error instead of a signal.
pub fn prepare_streams() -> nix::Result<()> {
    open_standard_streams()?;
    // A sandbox may refuse the call. Then a closed pipe ends the program, as without this.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.ok();
    Ok(())
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

/// Returns where the strings of the command line are and, behind them, those of the environment, before anything changes the latter.
pub fn strings() -> (Range<usize>, Range<usize>) {
    let end_of =
        |word: Option<&CStr>| word.map(|word| word.as_ptr() as usize + word.count_bytes() + 1);
    let start = words().next().map_or(0, |word| word.as_ptr() as usize);
    let between = end_of(words().last()).unwrap_or(start);
    // SAFETY: the list ends with NULL, and nothing has changed the environment yet.
    let end = end_of(unsafe { each(environ) }.last()).unwrap_or(between);
    (start..between, between..end)
}

/// Overwrites the strings of the command line and of the environment, and returns them for [`show_strings`].
///
/// Everybody in a pid namespace can read /proc/PID/cmdline of each process there (proc_pid_cmdline(5)), so a process that is born
/// in one has these strings overwritten before its birth. Must not be called while somebody uses [`words`].
pub fn hide_strings() -> Vec<u8> {
    let title = b"cofferdam init";
    // SAFETY: main has found the strings, which are on this process's stack for as long as it lives.
    let strings = unsafe { found_strings() };
    let saved = strings.to_vec();
    strings.fill(0);
    // The last byte stays 0: without that the kernel reads on, into the environment.
    let length = title.len().min(strings.len().saturating_sub(1));
    strings[..length].copy_from_slice(&title[..length]);
    saved
}

/// Undoes [`hide_strings`].
pub fn show_strings(saved: &[u8]) {
    // SAFETY: as above.
    unsafe { found_strings() }.copy_from_slice(saved);
}

/// Overwrites what [`hide_strings`] has saved, in a child whose memory a tracer in the container may read.
pub fn forget_strings(mut saved: Vec<u8>) {
    saved.fill(0);
    // Without a reader the compiler would leave the writes out.
    std::hint::black_box(&saved);
}

/// # Safety
/// The caller keeps no other reference to the strings meanwhile.
unsafe fn found_strings() -> &'static mut [u8] {
    let (start, length) = (
        STRINGS.load(Ordering::Relaxed),
        LENGTH.load(Ordering::Relaxed),
    );
    if start.is_null() {
        return &mut [];
    }
    // SAFETY: execve(2) has put so many bytes there, which this process may write.
    unsafe { std::slice::from_raw_parts_mut(start, length) }
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
