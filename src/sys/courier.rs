//! CHILD: a thread beside init, for the moment of the start, that gives the listener of a filter to the parent.
//!
//! Who takes a descriptor out of a process that is not dumpable needs privilege in the user namespace in which that was executed
//! (ptrace(2)), which an ordinary user lacks. A thread has the same descriptors; the filter binds the one that loads it (seccomp(2)),
//! and execve(2) ends all others. It calls the kernel and nothing else: the allocator counts on one thread.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};

use nix::errno::Errno;

use super::check_fd;
use super::process::write;

pub struct Courier {
    errand: &'static Errand,
}

/// Open until execve(2), as the thread may need it until then.
struct Errand {
    /// Takes the number of the listener, plus one: zero is no event.
    numbers: OwnedFd,
    socket: RawFd,
    /// The first byte of the packet; the number of the listener follows.
    tag: u8,
}

impl Courier {
    /// Waits for the number. Not to be had where there may be no more threads.
    pub fn new(socket: impl AsFd, tag: u8) -> Option<Courier> {
        // SAFETY: no pointers are passed.
        let opened = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        let numbers = check_fd(opened.into(), || "eventfd()".to_string()).ok()?;
        let socket = socket.as_fd().as_raw_fd();
        let errand: &'static Errand = Box::leak(Box::new(Errand {
            numbers,
            socket,
            tag,
        }));
        let mut thread = MaybeUninit::uninit();
        let argument = std::ptr::from_ref(errand).cast_mut().cast();
        // SAFETY: the errand is never freed or changed.
        let made = unsafe { libc::pthread_create(thread.as_mut_ptr(), null(), carry, argument) };
        (made == 0).then_some(Courier { errand })
    }

    /// Of one who is under the filter already, and can do no more than write(2).
    pub fn send(&self, listener: i32) -> Result<(), Errno> {
        let number = (listener as u64 + 1).to_ne_bytes();
        write(&self.errand.numbers, &number)
    }
}

extern "C" fn carry(errand: *mut c_void) -> *mut c_void {
    // SAFETY: as made above; nobody changes it.
    let errand = unsafe { &*errand.cast::<Errand>() };
    let mut number = 0u64;
    let place = (&raw mut number).cast();
    // SAFETY: the place has eight bytes, and outlives the call.
    let read = unsafe { libc::read(errand.numbers.as_raw_fd(), place, size_of::<u64>()) };
    if read > 0 && number > 0 {
        give(errand, (number - 1) as i32);
    }
    null_mut()
}

/// With the number, by which the parent can try to take it itself if it cannot be sent (ETOOMANYREFS).
fn give(errand: &Errand, listener: i32) {
    let socket = errand.socket;
    let [a, b, c, d] = listener.to_ne_bytes();
    let packet = [errand.tag, a, b, c, d];
    let mut part = libc::iovec {
        iov_base: packet.as_ptr().cast_mut().cast(),
        iov_len: packet.len(),
    };
    let mut control = [0u64; 4];
    // SAFETY: msghdr is plain data; the buffers outlive the calls, and one descriptor fits into the control message.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header)
            .cast::<RawFd>()
            .write_unaligned(listener);
        if libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL) < 0 {
            message.msg_control = null_mut();
            message.msg_controllen = 0;
            libc::sendmsg(socket, &raw const message, libc::MSG_NOSIGNAL);
        }
    }
}
