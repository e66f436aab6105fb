//! Sockets that carry descriptors: sendmsg(2) and recvmsg(2) with SCM_RIGHTS.

use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    bind, connect, getsockname, getsockopt, recv, recvmsg, sendmsg, setsockopt, socket,
    sockopt::{self, ReceiveTimeout, SendTimeout},
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::{again, named};

/// Sends one message with at most one descriptor.
pub fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd>) -> Result<()> {
    let raw = fd.map(|fd| [fd.as_raw_fd()]);
    let rights: Vec<ControlMessage> = raw.iter().map(|fd| ControlMessage::ScmRights(fd)).collect();
    let parts = [IoSlice::new(bytes)];
    let to = socket.as_fd().as_raw_fd();
    let flags = MsgFlags::MSG_NOSIGNAL;
    let call = || format!("sendmsg(fd {to}, {} bytes)", bytes.len());
    named(
        again(|| sendmsg::<UnixAddr>(to, &parts, &rights, flags, None)),
        call,
    )
    .map(drop)
}

/// Receives one message and the descriptor that may come with it; no bytes mean that the peer is gone.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let from = socket.as_fd().as_raw_fd();
    let mut space = nix::cmsg_space!([i32; 4]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<UnixAddr>(from, &mut parts, Some(&mut space), flags) {
        Err(Errno::EINTR) => return receive(socket, buffer),
        // The other end was closed before it had received all: told once, before what it had sent itself (net/unix/af_unix.c).
        Err(Errno::ECONNRESET) => return receive(socket, buffer),
        other => named(other, || format!("recvmsg(fd {from})"))?,
    };
    let mut fds = Vec::new();
    for control in named(message.cmsgs(), || format!("recvmsg(fd {from})"))? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has just made these descriptors for this process.
            let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
            fds.extend(received.into_iter().map(owned));
        }
    }
    if fds.len() > 1 {
        bail!(
            "recvmsg(fd {from}): {} descriptors in one message",
            fds.len()
        );
    }
    Ok((message.bytes, fds.pop()))
}

/// Lets a receive fail with EAGAIN where nothing comes for this time (socket(7), SO_RCVTIMEO).
pub fn limit_receive(socket: impl AsFd, timeout: Duration) -> Result<()> {
    let timeout = TimeVal::milliseconds(timeout.as_millis() as i64);
    named(setsockopt(&socket, ReceiveTimeout, &timeout), || {
        "setsockopt(SO_RCVTIMEO)".to_string()
    })
}

/// Connects to a socket in the filesystem, however long its path is. The listener may have a full queue of connections: then
/// this waits until it accepts one, or fails with EAGAIN after `timeout`. Later sends have the same limit.
pub fn connect_within(path: &Path, kind: SockType, timeout: Duration) -> Result<OwnedFd> {
    let socket = unix_socket(kind)?;
    let timeout = TimeVal::milliseconds(timeout.as_millis() as i64);
    // unix(7): connect(2) waits for a full queue of the listener as long as sending may take.
    named(setsockopt(&socket, SendTimeout, &timeout), || {
        "setsockopt(SO_SNDTIMEO)".to_string()
    })?;
    let (_directory, address) = address(path)?;
    named(again(|| connect(socket.as_raw_fd(), &address)), || {
        format!("connect({path:?})")
    })?;
    Ok(socket)
}

/// A socket in the filesystem that takes connections.
pub fn listen_at(path: &Path) -> Result<OwnedFd> {
    let socket = unix_socket(SockType::SeqPacket)?;
    let (_directory, address) = address(path)?;
    named(bind(socket.as_raw_fd(), &address), || {
        format!("bind({path:?})")
    })?;
    let backlog = nix::sys::socket::Backlog::MAXCONN;
    named(nix::sys::socket::listen(&socket, backlog), || {
        format!("listen({path:?})")
    })?;
    Ok(socket)
}

/// Makes a datagram socket with this path. The umask decides who may send to it.
pub fn bind_datagram(path: &Path) -> Result<OwnedFd> {
    let socket = unix_socket(SockType::Datagram)?;
    let (_directory, address) = address(path)?;
    named(bind(socket.as_raw_fd(), &address), || {
        format!("bind({path:?})")
    })?;
    Ok(socket)
}

/// Connects to a datagram socket: one with a path, or one of the abstract namespace, without its first zero byte. A send to a
/// full one fails with EAGAIN after `timeout`.
pub fn connect_datagram(name: &[u8], is_abstract: bool, timeout: Duration) -> Result<OwnedFd> {
    if !is_abstract {
        return connect_within(
            Path::new(OsStr::from_bytes(name)),
            SockType::Datagram,
            timeout,
        );
    }
    let socket = unix_socket(SockType::Datagram)?;
    let timeout = TimeVal::milliseconds(timeout.as_millis() as i64);
    named(setsockopt(&socket, SendTimeout, &timeout), || {
        "setsockopt(SO_SNDTIMEO)".to_string()
    })?;
    let address = named(UnixAddr::new_abstract(name), || {
        "abstract socket".to_string()
    })?;
    named(again(|| connect(socket.as_raw_fd(), &address)), || {
        "connect(abstract socket)".to_string()
    })?;
    Ok(socket)
}

/// Returns whether the descriptor is a Unix datagram socket.
pub fn is_datagram(fd: impl AsFd) -> bool {
    let local = getsockname::<UnixAddr>(fd.as_fd().as_raw_fd()).is_ok();
    local && getsockopt(&fd, sockopt::SockType) == Ok(SockType::Datagram)
}

/// Receives a datagram that is there, without the descriptors that came with it, which are closed. Returns None if there is
/// none.
pub fn receive_datagram(socket: impl AsFd, buffer: &mut [u8]) -> Result<Option<usize>> {
    let from = socket.as_fd().as_raw_fd();
    match again(|| recv(from, buffer, MsgFlags::MSG_DONTWAIT)) {
        Err(Errno::EAGAIN) => Ok(None),
        received => named(received, || format!("recv(fd {from})")).map(Some),
    }
}

pub fn accept(listener: impl AsFd) -> Result<OwnedFd> {
    let fd = listener.as_fd().as_raw_fd();
    let accepted = again(|| nix::sys::socket::accept4(fd, SockFlag::SOCK_CLOEXEC));
    let connection = named(accepted, || format!("accept(fd {fd})"))?;
    // SAFETY: the kernel has just made this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(connection) })
}

fn unix_socket(kind: SockType) -> Result<OwnedFd> {
    let made = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None);
    named(made, || "socket(AF_UNIX)".to_string())
}

/// sockaddr_un holds 107 bytes (unix(7)): a longer path is reached through its open directory.
fn address(path: &Path) -> Result<(Option<OwnedFd>, UnixAddr)> {
    if let Ok(address) = UnixAddr::new(path) {
        return Ok((None, address));
    }
    let (parent, name) = path
        .parent()
        .zip(path.file_name())
        .context("socket path without a name")?;
    let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let opened = again(|| nix::fcntl::open(parent, flags, nix::sys::stat::Mode::empty()));
    let directory = named(opened, || format!("open({parent:?})"))?;
    let short = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let address = UnixAddr::new(&Path::new(&short).join(name));
    let address = named(address, || format!("socket path {path:?}"))?;
    Ok((Some(directory), address))
}
