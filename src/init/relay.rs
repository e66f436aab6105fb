//! CHILD: the relay of a container that joins namespaces by their paths. The parent must not join them itself.
//!
//! The relay joins them, makes init as its sibling, and ends.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::channel::{ChildEnd, Up};
use crate::init;
use crate::init::args::{InitArgs, become_userns_root};
use crate::plan::Plan;
use crate::plan::namespaces::Join;
use crate::sys::clone::{self, Side};
use crate::sys::{self, process};
use crate::text::fault::Coded;

/// Joins the namespaces, makes init, tells the parent of it, and ends.
pub fn relay(plan: &Plan, joins: Vec<(&Join, OwnedFd)>, channel: ChildEnd, args: InitArgs) -> ! {
    match set_own_oom_score(plan).and_then(|()| join_and_clone(plan, joins)) {
        Ok(Side::Child) => init::run(plan, channel, args),
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
        become_userns_root();
    }
    for (join, namespace) in refused {
        clone::setns(&namespace, join.kind.flag).with_context(|| join.field.clone())?;
    }
    if let Some(file) = clock {
        clone::make_time_namespace(file, plan.namespaces.offset_lines())
            .context("linux.timeOffsets")?;
    }
    let flags = plan.namespaces.clone_flags() | clone::PARENT;
    clone::clone3(flags, None).context("make the container's init")
}
