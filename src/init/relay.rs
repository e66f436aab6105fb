//! CHILD: joins the namespaces of others, which the parent must not do for itself.
//!
//! A process that joins a container takes all from its [`Target`]. A container that joins single namespaces by their paths has
//! a relay: a process that joins them, makes init as its sibling, and ends.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::channel::{ChildEnd, Up};
use crate::init::{self, Materials};
use crate::plan::Plan;
use crate::plan::namespaces::Join;
use crate::sys::clone::{self, Side};
use crate::sys::{self, cred, process};
use crate::text::fault::Coded;

/// A container's init, and the clone flags of the namespaces in which it is and the caller is not.
pub struct Target {
    pub pidfd: OwnedFd,
    pub flags: u64,
}

impl Target {
    /// Whether the container has a pid namespace that this process is not in.
    pub fn has_pid_namespace(&self) -> bool {
        self.flags & clone::NEWPID != 0
    }

    /// Joins the user namespace alone, to act with its privilege before the others are joined.
    pub fn in_its_user_namespace(self) -> Result<Target> {
        process::set_dumpable(false)?;
        clone::setns(&self.pidfd, clone::NEWUSER).context("join the container's user namespace")?;
        become_its_root();
        let flags = self.flags & !clone::NEWUSER;
        Ok(Target { flags, ..self })
    }

    /// Joins all namespaces at once. A pid namespace is joined for the children of this process only (pid_namespaces(7)).
    /// Joining a namespace again does no harm.
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

/// Joins the namespaces, makes init, tells the parent of it, and ends.
pub fn relay(
    plan: &Plan,
    joins: Vec<(&Join, OwnedFd)>,
    channel: ChildEnd,
    materials: Materials,
) -> ! {
    match set_own_oom_score(plan).and_then(|()| join_and_clone(plan, joins)) {
        Ok(Side::Child) => init::run(plan, channel, materials),
        Ok(Side::Parent { pidfd, .. }) => {
            channel.send(Up::Born(pidfd)).ok();
            process::exit(0)
        }
        Err(error) => {
            channel.send(Up::Failed(Coded::of(&error))).ok();
            process::exit(1)
        }
    }
}

/// Sets the score that the children of this process are born with. A process that is not dumpable cannot write its own file, nor
/// can its parent where both are an ordinary user's (proc(5)).
pub fn set_own_oom_score(plan: &Plan) -> Result<()> {
    let score = plan.process.oom_score_adj;
    score.map_or(Ok(()), |score| process::set_oom_score("self", score))
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
