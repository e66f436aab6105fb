//! PARENT: waits for init and for hooks, never without an end in sight.
//!
//! Who waits here looks at the word that is awaited, at the process that owes it, and at the signals that stop a
//! command. A create that has kept those signals is undone before it ends. An init that is silent for long is looked
//! at: what has been stopped or frozen from outside will not speak.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::unistd::setsid;

use crate::cgroup::Cgroup;
use crate::channel::{self, ParentEnd, STEP_TIMEOUT, Up};
use crate::sys::clone::{self, Side};
use crate::sys::stat::Stat;
use crate::sys::{process, wait};
use crate::text::fault::Coded;

/// A silence after which init is looked at.
const STALL_CHECK_EVERY: Duration = Duration::from_secs(5);

/// Who owes a word, and which.
pub struct AwaitedInit<'a> {
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

/// The next word of init; `None` when it is gone, or has executed its program.
pub fn recv_from_init(channel: &ParentEnd, awaited_init: &AwaitedInit) -> Result<Option<Up>> {
    let begun = Instant::now();
    loop {
        let time = awaited_init
            .limit
            .map_or(STALL_CHECK_EVERY, |limit| limit.min(STALL_CHECK_EVERY));
        let [said, ended] = wait::poll_readable([channel.as_fd(), awaited_init.pidfd], Some(time))?;
        if said || ended && wait::is_readable(channel.as_fd()) {
            return channel.receive();
        }
        if ended {
            return Ok(None);
        }
        awaited_init
            .check_not_stalled()
            .context(awaited_init.awaited)?;
        if awaited_init
            .limit
            .is_some_and(|limit| begun.elapsed() >= limit)
        {
            let state = state(awaited_init.pid).unwrap_or('?');
            bail!(
                "{}: {} is not done after {} seconds (process {}, state {state})",
                awaited_init.awaited,
                awaited_init.name,
                begun.elapsed().as_secs(),
                awaited_init.pid
            );
        }
    }
}

/// Waits for the word of a helper of this command, which is killed if it has not come in time.
pub fn recv_from_helper(
    channel: &ParentEnd,
    (pid, pidfd): (i32, &OwnedFd),
    awaited: &'static str,
) -> Result<Option<Up>> {
    let mut awaited_init = AwaitedInit::new(pid, pidfd, awaited);
    awaited_init.name = "the process that does so";
    let said = recv_from_init(channel, &awaited_init);
    if said.is_err() {
        process::pidfd_send_signal(pidfd, libc::SIGKILL).ok();
    }
    said
}

/// Lets a child do something, and returns its error. The child has a session of its own, so a signal of the terminal does not stop
/// it half-way. `awaited` names the work in messages.
pub fn run_in_child(awaited: &'static str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    process::reset_sigchld();
    let (parent, child) = channel::pair()?;
    if let Side::Parent { pid, pidfd } = clone::clone3(0, None).context(awaited)? {
        drop(child);
        let received = recv_from_helper(&parent, (pid, &pidfd), awaited);
        wait::kill_and_reap(&pidfd);
        return from_report(received?);
    }
    drop(parent);
    setsid().ok();
    child.send(to_report(act())).ok();
    process::exit(0)
}

/// Returns the message by which a helper reports.
pub fn to_report(done: Result<()>) -> Up {
    match done {
        Ok(()) => Up::Ready,
        Err(error) => Up::Failed(Coded::of(&error)),
    }
}

/// Returns the error that a helper has reported. None is the message of one that ended early.
pub fn from_report(received: Option<Up>) -> Result<()> {
    match received {
        Some(Up::Ready) => Ok(()),
        Some(Up::Failed(failure)) => bail!(failure),
        other => bail!("the process that does so ended early: {other:?}"),
    }
}

impl<'a> AwaitedInit<'a> {
    pub fn new(pid: i32, pidfd: &'a OwnedFd, awaited: &'static str) -> AwaitedInit<'a> {
        AwaitedInit {
            pid,
            pidfd: pidfd.as_fd(),
            cgroup: None,
            awaited,
            limit: Some(STEP_TIMEOUT),
            name: "container init",
        }
    }

    /// Fails if it is frozen, stopped or traced, and so cannot answer.
    pub fn check_not_stalled(&self) -> Result<()> {
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
