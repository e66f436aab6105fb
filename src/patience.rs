//! PARENT: waits for init and for hooks, never without an end in sight.
//!
//! Who waits here looks at the word that is awaited, at the process that owes it, and at the signals that stop a
//! command. A create that has kept those signals is undone before it ends. An init that is silent for long is looked
//! at: what has been stopped or frozen from outside will not speak.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::SockType;

use crate::cgroup::Cgroup;
use crate::channel::{ParentEnd, STEP_TIMEOUT, Up};
use crate::sys::stat::Stat;
use crate::sys::{self, again, named, process, socket, tty};

/// A silence after which init is looked at.
const SILENCE: Duration = Duration::from_secs(5);

/// For the death of a killed process: in uninterruptible sleep it does not die.
pub const DEATH: Duration = Duration::from_secs(10);

/// For the one who listens at a socket that the caller names.
const LISTENER: Duration = Duration::from_secs(5);

const INTERRUPTS: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// The error of a command that was told to stop.
#[derive(Debug)]
pub struct Interrupted(pub Signal);

/// Who owes a word, and which.
pub struct Debtor<'a> {
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    /// Where it must not be frozen.
    pub cgroup: Option<&'a Cgroup>,
    pub awaited: &'static str,
    /// How long it may take. None where hooks without a timeout have their turn.
    pub limit: Option<Duration>,
    /// The process, in messages.
    pub name: &'static str,
}

/// Keeps the signals that stop a command for the waits below, so that it can take back what it has done.
pub fn keep_interrupts() -> Result<()> {
    named(interrupts().thread_block(), || {
        "sigprocmask(SIG_BLOCK)".to_string()
    })
}

/// The mask of signals that was in force before; set again on drop.
pub struct Kept(SigSet);

/// Keeps the same signals until the value is dropped.
pub fn keep_interrupts_meanwhile() -> Result<Kept> {
    let before = interrupts().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    named(before, || "sigprocmask(SIG_BLOCK)".to_string()).map(Kept)
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.thread_set_mask().ok();
    }
}

/// Those that the caller does not ignore, as nohup(1) does.
fn interrupts() -> SigSet {
    let kept = |signal: &Signal| !process::is_ignored(*signal as i32);
    INTERRUPTS.into_iter().filter(kept).collect()
}

/// Connects to a socket that others listen at. One that accepts no connection, or reads nothing, keeps nobody waiting for long.
pub fn connect(path: &Path, kind: SockType) -> Result<OwnedFd> {
    socket::connect_within(path, kind, LISTENER).map_err(|error| match sys::errno(&error) {
        Some(Errno::EAGAIN) => error.context(format!(
            "nobody has accepted a connection within {} s",
            LISTENER.as_secs()
        )),
        _ => error,
    })
}

/// The next word of init; `None` when it is gone, or has executed its program.
pub fn next_word(channel: &ParentEnd, debtor: &Debtor) -> Result<Option<Up>> {
    let begun = Instant::now();
    loop {
        let time = debtor.limit.map_or(SILENCE, |limit| limit.min(SILENCE));
        let [said, ended] = wait_for([channel.as_fd(), debtor.pidfd], Some(time))?;
        if said || ended && is_ready(channel.as_fd()) {
            return channel.receive();
        }
        if ended {
            return Ok(None);
        }
        debtor.check_moves().context(debtor.awaited)?;
        if debtor.limit.is_some_and(|limit| begun.elapsed() >= limit) {
            let state = state(debtor.pid).unwrap_or('?');
            bail!(
                "{}: {} is not done after {} seconds (process {}, state {state})",
                debtor.awaited,
                debtor.name,
                begun.elapsed().as_secs(),
                debtor.pid
            );
        }
    }
}

/// Waits for the word of a helper of this command, which is killed if it has not come in time.
pub fn answer_of(
    channel: &ParentEnd,
    (pid, pidfd): (i32, &OwnedFd),
    awaited: &'static str,
) -> Result<Option<Up>> {
    let mut debtor = Debtor::new(pid, pidfd, awaited);
    debtor.name = "the process that does so";
    let said = next_word(channel, &debtor);
    if said.is_err() {
        process::pidfd_send_signal(pidfd, libc::SIGKILL).ok();
    }
    said
}

impl<'a> Debtor<'a> {
    pub fn new(pid: i32, pidfd: &'a OwnedFd, awaited: &'static str) -> Debtor<'a> {
        Debtor {
            pid,
            pidfd: pidfd.as_fd(),
            cgroup: None,
            awaited,
            limit: Some(STEP_TIMEOUT),
            name: "container init",
        }
    }

    /// Fails if it is frozen, stopped or traced, and so cannot answer.
    pub fn check_moves(&self) -> Result<()> {
        if let Some(cgroup) = self.cgroup
            && cgroup.has_event("frozen 1")?
        {
            bail!(
                "{} is frozen: {} or a cgroup above it has 1 in cgroup.freeze",
                self.name,
                cgroup.path.display()
            );
        }
        match state(self.pid) {
            Some('T') => bail!(
                "{} was stopped by a signal: process {} waits for SIGCONT",
                self.name,
                self.pid
            ),
            Some('t') => bail!(
                "{} was stopped by who traces it: process {}",
                self.name,
                self.pid
            ),
            _ => Ok(()),
        }
    }
}

fn state(pid: i32) -> Option<char> {
    Stat::of(pid).ok()??.state()
}

/// Which of these are ready, none after that time; a signal that was kept is an error.
pub fn wait_for<const N: usize>(fds: [BorrowedFd; N], time: Option<Duration>) -> Result<[bool; N]> {
    let deadline = time.map(|time| Instant::now() + time);
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = named(SignalFd::with_flags(&interrupts(), flags), || {
        "signalfd".to_string()
    })?;
    loop {
        let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).to_vec();
        polled.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, left(deadline)) {
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

fn left(deadline: Option<Instant>) -> PollTimeout {
    let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
    deadline.map_or(PollTimeout::NONE, |deadline| {
        // Rounded up: the last millisecond is waited for, not spun through.
        let left = left(deadline) + Duration::from_micros(999);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    })
}

/// Whether something can be read, or the other end is closed.
pub fn is_ready(fd: BorrowedFd) -> bool {
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
    again(|| poll(&mut polled, PollTimeout::ZERO)).is_ok_and(|ready| ready > 0)
}

/// Whether a process that was killed ends in time. No signal disturbs this.
pub fn dies(pidfd: &OwnedFd) -> bool {
    ends_within(pidfd, DEATH)
}

/// Kills a child and reaps it. It has nothing left to do.
pub fn end(child: &OwnedFd) {
    process::pidfd_send_signal(child, libc::SIGKILL).ok();
    reap(child);
}

/// Reaps a child that ends by itself or was killed, and returns its exit code. Returns -1 if it does not end in time.
pub fn reap(child: &OwnedFd) -> i32 {
    match dies(child) {
        true => tty::exit_code(child).unwrap_or(-1),
        false => -1,
    }
}

pub fn ends_within(pidfd: &OwnedFd, time: Duration) -> bool {
    let deadline = Instant::now() + time;
    loop {
        let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, left(Some(deadline))) {
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
