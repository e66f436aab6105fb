//! Waits with a deadline: for descriptors, for the death of processes, and for the signals that stop a command.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::SockType;

use super::{again, errno, named, process, socket, tty};

/// For the death of a killed process: in uninterruptible sleep it does not die.
pub const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// For the one who listens at a socket that the caller names.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const TERMINATION_SIGNALS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// The error of a command that was told to stop.
#[derive(Debug)]
pub struct Interrupted(pub Signal);

/// Keeps the signals that stop a command for the waits below, so that it can take back what it has done.
pub fn block_termination_signals() -> Result<()> {
    named(termination_signals().thread_block(), || {
        "sigprocmask(SIG_BLOCK)".to_string()
    })
}

/// The mask of signals that was in force before; set again on drop.
pub struct SignalMask(SigSet);

/// Keeps the same signals until the value is dropped.
pub fn block_termination_signals_meanwhile() -> Result<SignalMask> {
    let before = termination_signals().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    named(before, || "sigprocmask(SIG_BLOCK)".to_string()).map(SignalMask)
}

impl Drop for SignalMask {
    fn drop(&mut self) {
        self.0.thread_set_mask().ok();
    }
}

/// Those that the caller does not ignore, as nohup(1) does.
fn termination_signals() -> SigSet {
    let kept = |signal: &Signal| !process::is_ignored(*signal as i32);
    TERMINATION_SIGNALS.into_iter().filter(kept).collect()
}

/// Connects to a socket that others listen at. One that accepts no connection, or reads nothing, keeps nobody waiting for long.
pub fn connect(path: &Path, kind: SockType) -> Result<OwnedFd> {
    socket::connect_within(path, kind, CONNECT_TIMEOUT).map_err(|error| match errno(&error) {
        Some(Errno::EAGAIN) => error.context(format!(
            "nobody has accepted a connection within {} s",
            CONNECT_TIMEOUT.as_secs()
        )),
        _ => error,
    })
}

/// Which of these are ready, none after that time; a signal that was kept is an error.
pub fn poll_readable<const N: usize>(
    fds: [BorrowedFd; N],
    time: Option<Duration>,
) -> Result<[bool; N]> {
    let deadline = time.map(|time| Instant::now() + time);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = named(SignalFd::with_flags(&termination_signals(), flags), || {
        "signalfd".to_string()
    })?;
    loop {
        let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).to_vec();
        polled.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, time_left(deadline)) {
            Err(Errno::EINTR) => continue,
            result => named(result, || "poll".to_string())?,
        };
        let mut ready = [false; N];
        for (ready, polled) in ready.iter_mut().zip(&polled) {
            *ready = polled.any() == Some(true);
        }
        // What has happened comes first: a signal that was sent to a program that runs is for the program.
        if ready.contains(&true) {
            return Ok(ready);
        }
        if let Some(signal) = signals.read_signal().ok().flatten() {
            return Err(Interrupted(Signal::try_from(signal.ssi_signo as i32)?).into());
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(ready);
        }
    }
}

fn time_left(deadline: Option<Instant>) -> PollTimeout {
    let time_left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    deadline.map_or(PollTimeout::NONE, |deadline| {
        // Rounded up: the last millisecond is waited for, not spun through.
        let time_left = time_left(deadline) + Duration::from_micros(999);
        PollTimeout::try_from(time_left).unwrap_or(PollTimeout::MAX)
    })
}

/// Whether something can be read, or the other kill_and_reap is closed.
pub fn is_readable(fd: BorrowedFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    again(|| poll(&mut polled, PollTimeout::ZERO)).is_ok_and(|ready| ready > 0)
}

/// Whether a process that was killed ends in time. No signal disturbs this.
pub fn wait_killed(pidfd: &OwnedFd) -> bool {
    wait_exit(pidfd, KILL_TIMEOUT)
}

/// Kills a child and reaps it. It has nothing time_left to do.
pub fn kill_and_reap(child: &OwnedFd) {
    process::pidfd_send_signal(child, libc::SIGKILL).ok();
    reap(child);
}

/// Reaps a child that ends by itself or was killed, and returns its exit code. Returns -1 if it does not kill_and_reap in time.
pub fn reap(child: &OwnedFd) -> i32 {
    match wait_killed(child) {
        true => tty::exit_code(child).unwrap_or(-1),
        false => -1,
    }
}

pub fn wait_exit(pidfd: &OwnedFd, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    loop {
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, time_left(Some(deadline))) {
            Ok(1..) => return true,
            Ok(_) | Err(Errno::EINTR) if Instant::now() < deadline => {}
            _ => return false,
        }
    }
}

impl Interrupted {
    /// As a shell tells it.
    pub fn exit_code(&self) -> i32 {
        128 + self.0 as i32
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "interrupted by {}", self.0)
    }
}

impl std::error::Error for Interrupted {}
