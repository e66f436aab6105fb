//! PARENT: ends all that a hook has started, whatever session or process group it is in.
//!
//! The hook is a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): while it lives, orphans among its descendants become
//! its children. It is stopped, so that it starts nothing more. Then its children are killed, until it gets no new ones.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::patience::{self, DEATH};
use crate::sys::process;
use crate::sys::stat::Stat;

/// A moment in which a signal arrives.
const MOMENT: Duration = Duration::from_millis(1);

/// Stops the hook and kills all its descendants. The hook itself is left to the caller.
///
/// An error names the processes that are still there after `patience::DEATH`. Without CONFIG_PROC_CHILDREN the kernel
/// does not tell the children, and there is nothing to be done.
pub fn end(hook: i32, pidfd: &OwnedFd) -> Result<()> {
    let deadline = Instant::now() + DEATH;
    process::pidfd_send_signal(pidfd, libc::SIGSTOP).ok();
    loop {
        let living = children(hook);
        if living.is_empty() && !is_at_work(hook) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let living: Vec<i32> = living.into_iter().map(|(pid, _)| pid).collect();
            bail!("processes that the hook has started survive SIGKILL: {living:?}");
        }
        if living.is_empty() {
            patience::ends_within(pidfd, MOMENT);
        }
        for (_, child) in &living {
            process::pidfd_send_signal(child, libc::SIGKILL).ok();
        }
        for (_, child) in &living {
            let left = deadline.saturating_duration_since(Instant::now());
            patience::ends_within(child, left);
        }
    }
}

/// The signal that stops it may not have arrived yet.
fn is_at_work(hook: i32) -> bool {
    let state = Stat::of(hook).ok().flatten().and_then(|stat| stat.state());
    matches!(state, Some('R' | 'S'))
}

/// The children of all its threads that have not ended yet (proc_tid_children(5)).
fn children(hook: i32) -> Vec<(i32, OwnedFd)> {
    let threads = fs::read_dir(format!("/proc/{hook}/task"));
    let lists = threads.into_iter().flatten().flatten();
    let lists = lists.map(|thread| fs::read_to_string(thread.path().join("children")));
    let mut living = Vec::new();
    for list in lists.flatten() {
        let pids = list.split_whitespace().map(str::parse);
        living.extend(pids.flatten().filter_map(|pid| child(pid, hook)));
    }
    living
}

/// `None` if it has ended, or if its number is another process's by now: the hook may ignore SIGCHLD, and then the kernel
/// keeps the number for nobody.
fn child(pid: i32, hook: i32) -> Option<(i32, OwnedFd)> {
    let pidfd = process::pidfd_open(pid).ok()?;
    let parent = Stat::of(pid).ok()??.parent();
    (parent == Some(hook) && !process::has_ended(&pidfd)).then_some((pid, pidfd))
}
