//! Terminals: the ioctls that nix lacks, and how a foreground process ended.
//!
//! Used by the parent, which owns the master side while a container runs in the foreground.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::pty::Winsize;

use super::{again, check, check_fd, named};

/// The rows and columns of a terminal.
pub fn window_size(terminal: impl AsFd) -> Result<Winsize> {
    let fd = terminal.as_fd().as_raw_fd();
    let mut size = Winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) };
    check(result.into(), || format!("ioctl(fd {fd}, TIOCGWINSZ)"))?;
    Ok(size)
}

/// The kernel sends SIGWINCH to the terminal's foreground processes if this changes the size.
pub fn set_window_size(terminal: impl AsFd, size: Winsize) -> Result<()> {
    let fd = terminal.as_fd().as_raw_fd();
    let (rows, columns) = (size.ws_row, size.ws_col);
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) };
    check(result.into(), || {
        format!("ioctl(fd {fd}, TIOCSWINSZ, {rows}x{columns})")
    })
    .map(drop)
}

/// Opens the slave side of a master without a path, which another mount namespace could redirect.
pub fn open_peer(master: impl AsFd) -> Result<OwnedFd> {
    let fd = master.as_fd().as_raw_fd();
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes its flags by value.
    let result = unsafe { libc::ioctl(fd, libc::TIOCGPTPEER, flags) };
    check_fd(result.into(), || format!("ioctl(fd {fd}, TIOCGPTPEER)"))
}

/// Waits for the end of a child and reaps it: its exit code, or 128 and the signal that killed it.
///
/// nix's waitid has no value for a real-time signal, and would lose the status of a child that
/// one has killed.
pub fn exit_code(pidfd: impl AsFd) -> Result<i32> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: siginfo_t is plain data, for which all zero is a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let wait = || {
        let (kind, id) = (libc::P_PIDFD, fd as libc::id_t);
        // SAFETY: the structure outlives the call.
        Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED) })
    };
    named(again(wait), || format!("waitid(P_PIDFD, {fd}, WEXITED)"))?;
    // SAFETY: waitid has filled in the fields of a SIGCHLD.
    let status = unsafe { info.si_status() };
    let exited = info.si_code == libc::CLD_EXITED;
    Ok(if exited { status } else { 128 + status })
}

/// unlockpt(3): until then nobody can open the slave side.
pub fn unlock(master: impl AsFd) -> Result<()> {
    let fd = master.as_fd().as_raw_fd();
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    let result = unsafe { libc::ioctl(fd, libc::TIOCSPTLCK, &raw const locked) };
    check(result.into(), || format!("ioctl(fd {fd}, TIOCSPTLCK)")).map(drop)
}

/// Makes a terminal that of the caller's session, which must have none.
pub fn make_controlling(terminal: impl AsFd) -> Result<()> {
    let fd = terminal.as_fd().as_raw_fd();
    // SAFETY: TIOCSCTTY takes its argument by value.
    let result = unsafe { libc::ioctl(fd, libc::TIOCSCTTY, 0) };
    check(result.into(), || format!("ioctl(fd {fd}, TIOCSCTTY)")).map(drop)
}
