//! PARENT: ends all that a hook has started, whatever session or process group it is in.
//!
//! The hook is a child subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): while it lives, orphans among its descendants become
//! its children. It is stopped, so that it starts nothing more. Then its children are killed, until it gets no new ones.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::sys::process;
use crate::sys::stat::Stat;
use crate::sys::wait::{self, KILL_TIMEOUT};

/// A moment in which a signal arrives.
const MOMENT: Duration = Duration::from_millis(1);

struct Child {
    pid: i32,
    /// `None` if it has ended, or if its number is another process's by now: the hook may ignore SIGCHLD, and then the
    /// kernel keeps the number for nobody.
    living: Option<OwnedFd>,
    /// Its process group, if that belongs to a session that the hook has not been born in. All of that session descend
    /// from the hook.
    group: Option<i32>,
}

/// Stops the hook and kills all its descendants. The hook itself is left to the caller.
///
/// An error says that there are processes still after `wait::KILL_TIMEOUT`, as of a hook that makes new sessions faster than
/// they are found. Without CONFIG_PROC_CHILDREN the kernel does not tell the children, and there is nothing to be done.
pub fn end(hook: i32, pidfd: &OwnedFd) -> Result<()> {
    let parent = Stat::of(hook)?.and_then(|stat| stat.parent());
    if parent != Some(std::process::id() as i32) {
        // A procfs of another pid namespace, where the number is another process's.
        return Ok(());
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    let mut ended: Vec<i32> = Vec::new();
    loop {
        process::pidfd_send_signal(pidfd, libc::SIGSTOP).ok();
        // In this order: what is stopped before its children are read gets no child by itself.
        let is_stopped = !is_at_work(hook);
        let children = children(hook);
        // A child may die after the list is read, and leave an orphan that is not in the list. So each child must have
        // ended before.
        let known = |child: &Child| child.living.is_none() && ended.contains(&child.pid);
        if is_stopped && children.iter().all(known) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "processes that the hook has started are still there; end them, and what starts them"
            );
        }
        if !is_stopped {
            wait::wait_exit(pidfd, MOMENT);
        }
        kill(&children, deadline);
        ended = children
            .iter()
            .filter(|child| child.living.is_none())
            .map(|child| child.pid)
            .collect();
    }
}

/// The groups first: the kernel kills all of a group at once, and one that forks meanwhile does not escape.
fn kill(children: &[Child], deadline: Instant) {
    let mut groups: Vec<i32> = children.iter().filter_map(|child| child.group).collect();
    groups.dedup();
    for group in groups {
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
    let living = || children.iter().filter_map(|child| child.living.as_ref());
    for child in living() {
        process::pidfd_send_signal(child, libc::SIGKILL).ok();
    }
    for child in living() {
        let left = deadline.saturating_duration_since(Instant::now());
        wait::wait_exit(child, left);
    }
}

/// The signal that stops it may not have arrived yet.
fn is_at_work(hook: i32) -> bool {
    let state = Stat::of(hook).ok().flatten().and_then(|stat| stat.state());
    matches!(state, Some('R' | 'S'))
}

/// The children of all its threads (proc_tid_children(5)), those that nobody has waited for included.
fn children(hook: i32) -> Vec<Child> {
    let session = Stat::of(hook)
        .ok()
        .flatten()
        .and_then(|stat| stat.session());
    let threads = fs::read_dir(format!("/proc/{hook}/task"));
    let lists = threads.into_iter().flatten().flatten();
    let lists = lists.map(|thread| fs::read_to_string(thread.path().join("children")));
    let mut all = Vec::new();
    for list in lists.flatten() {
        let pids = list.split_whitespace().map(str::parse);
        all.extend(pids.flatten().map(|pid| child(pid, hook, session)));
    }
    all
}

fn child(pid: i32, hook: i32, session: Option<i32>) -> Child {
    let pidfd = process::pidfd_open(pid).ok();
    let stat = Stat::of(pid).ok().flatten();
    let stat = stat.filter(|stat| stat.parent() == Some(hook));
    let living = pidfd.filter(|pidfd| stat.is_some() && !process::has_ended(pidfd));
    let elsewhere = stat.filter(|stat| session.is_some() && stat.session() != session);
    Child {
        pid,
        living,
        group: elsewhere
            .and_then(|stat| stat.group())
            .filter(|group| *group > 1),
    }
}
