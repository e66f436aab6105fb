//! CHILD of a moment: joins the namespaces that are there already, and makes the process that lives in them as its sibling.
//!
//! Whoever is in such a namespace may see that process from its birth on, so nothing of the host is left in it by then.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::channel::{ChildEnd, Up};
use crate::fault::Coded;
use crate::init::{self, Materials};
use crate::launch::set_oom_score;
use crate::plan::Plan;
use crate::plan::namespaces::Join;
use crate::sys::clone::{self, Side};
use crate::sys::{self, cred, process};

/// A container's init, and the clone flags of the namespaces in which it is and the caller is not.
pub struct Target {
    pub pidfd: OwnedFd,
    pub flags: u64,
}

impl Target {
    /// Lets this process's next child be born in the container's pid namespace. Without privilege over
    /// that only a process of the container's user namespace may ask for it: false.
    ///
    /// False too if the processes in there may have CAP_SYS_PTRACE over that child: it would be seen by them while its root
    /// and its descriptors are still the host's (CVE-2016-9962).
    pub fn prepare(&self) -> bool {
        let seen = self.flags & clone::NEWPID != 0;
        let own_user = self.flags & clone::NEWUSER != 0;
        !seen || own_user && clone::setns(&self.pidfd, clone::NEWPID).is_ok()
    }

    /// Joins the user namespace alone, to act with its privilege before the others are joined.
    pub fn in_its_user_namespace(self) -> Result<Target> {
        process::set_dumpable(false)?;
        clone::setns(&self.pidfd, clone::NEWUSER).context("join the container's user namespace")?;
        become_its_root();
        let flags = self.flags & !clone::NEWUSER;
        Ok(Target { flags, ..self })
    }

    /// Joins all namespaces at once; those that are joined already do no harm.
    pub fn enter(&self) -> Result<()> {
        // The processes in there must not be able to look into this one.
        process::set_dumpable(false)?;
        if self.flags != 0 {
            clone::setns(&self.pidfd, self.flags).context("join the container's namespaces")?;
        }
        if self.flags & clone::NEWUSER != 0 {
            become_its_root();
        }
        Ok(())
    }
}

/// Joins, then makes init, which says that it is born, and ends.
pub fn relay(
    plan: &Plan,
    joins: Vec<(&Join, OwnedFd)>,
    channel: ChildEnd,
    mut materials: Materials,
) -> ! {
    // Init is born with it. Its own file it could not write, nor could the parent, where it has to be out of sight (proc(5)).
    let score = plan.process.oom_score_adj;
    let scored = score.map_or(Ok(()), |score| set_oom_score("self", score));
    let made = scored.and_then(|()| match materials.target.take() {
        Some(target) => enter_and_clone(plan, target, &channel),
        None => join_and_clone(plan, joins),
    });
    match made {
        Ok(Side::Child) => init::run(plan, channel, materials),
        Ok(Side::Parent { .. }) => process::exit(0),
        Err(error) => {
            channel.send(Up::Failed(Coded::of(&error))).ok();
            process::exit(1)
        }
    }
}

/// Nothing of the host is left that the container could find in the process.
fn enter_and_clone(plan: &Plan, target: Target, channel: &ChildEnd) -> Result<Side> {
    target.enter()?;
    drop(target);
    init::close_all_but(&[channel.as_fd()], plan.process.preserve_fds)?;
    clone::clone3(clone::PARENT, None).context("make the process")
}

fn join_and_clone(plan: &Plan, joins: Vec<(&Join, OwnedFd)>) -> Result<Side> {
    let offsets = &plan.namespaces.time_offsets;
    let within = !offsets.is_empty() && plan.namespaces.joins(clone::NEWUSER);
    let clock = within.then(clone::open_time_offsets).transpose();
    let clock = clock.context("linux.timeOffsets")?;
    if !plan.namespaces.creates(clone::NEWUSER) {
        // The processes in there must not be able to look into this one.
        process::set_dumpable(false)?;
    }
    let (user, others): (Vec<_>, Vec<_>) = joins
        .into_iter()
        .partition(|(join, _)| join.kind.flag == clone::NEWUSER);
    // With the host's capabilities first; what belongs to the user namespace only from inside it.
    let mut refused = Vec::new();
    for (join, namespace) in others {
        match clone::setns(&namespace, join.kind.flag) {
            Err(error) if !user.is_empty() && sys::errno(&error) == Some(Errno::EPERM) => {
                refused.push((join, namespace))
            }
            result => result.with_context(|| join.field.clone())?,
        }
    }
    for (join, namespace) in user {
        clone::setns(&namespace, clone::NEWUSER).with_context(|| join.field.clone())?;
        become_its_root();
    }
    for (join, namespace) in refused {
        clone::setns(&namespace, join.kind.flag).with_context(|| join.field.clone())?;
    }
    if let Some(file) = clock {
        clone::make_time_namespace(file, plan.namespaces.offset_lines())
            .context("linux.timeOffsets")?;
    }
    let flags = plan.namespaces.at_the_clone() | clone::PARENT;
    clone::clone3(flags, None).context("make the container's init")
}

/// Root of the user namespace that was joined, where it has one.
fn become_its_root() {
    cred::set_gid(0).ok();
    cred::set_uid(0).ok();
}
