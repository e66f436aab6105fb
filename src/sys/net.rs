//! The loopback device of a new network namespace.

use std::os::fd::AsRawFd;

use anyhow::Result;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{check, named};

/// A new network namespace has one device, and it is down (network_namespaces(7)).
pub fn bring_up_loopback() -> Result<()> {
    let made = socket(
        AddressFamily::Unix,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let socket = named(made, || "socket(AF_UNIX)".to_string())?;
    // SAFETY: ifreq is plain data; zero is valid for each field.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: the request outlives the call; its name is NUL-terminated.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )
    };
    check(result.into(), || "ioctl(SIOCSIFFLAGS, lo)".to_string()).map(drop)
}
