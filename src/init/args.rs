//! CHILD: what the parent gives to init at the clone.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};

use super::trees::Trees;
use crate::plan::hooks::Hook;
use crate::state::record::Record;
use crate::sys::{clone, cred, process};

/// What init is made with, besides the plan and the channel.
pub struct InitArgs<'a> {
    /// The sources of mounts that another process has opened.
    pub trees: Trees,
    pub start: Start,
    /// The socket on which a created container waits for `start`. None for a process that nobody starts by a verb.
    pub start_socket: Option<&'a OwnedFd>,
    /// Whether init waits for [`Down::Go`](crate::channel::Down::Go) before it does anything.
    pub waits_for_parent: bool,
    pub netns: Netns,
    /// The createContainer hooks.
    pub hooks: Vec<Hook>,
    /// The state that hooks get.
    pub state: &'a Record,
    /// The container that `exec` joins.
    pub target: Option<JoinTarget>,
    /// The pid namespace of others that the program is born into. Init has nothing of the host any more when it joins this.
    pub pid_namespace: Option<OwnedFd>,
}

/// When init goes on to its program.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Start {
    /// `create`: when `start` connects to the start socket.
    AtSocket,
    /// `run`, `exec`: when the parent asks, after init has said that it is ready.
    AfterReady,
    /// `run`, `exec`: as soon as it is ready. The parent has asked before, and hears nothing in between.
    AtOnce,
}

/// Who makes the network namespace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Netns {
    /// Nobody: the container has none of its own, or its device is up already.
    Done,
    /// The clone has made it. Init brings its device up.
    Inherited,
    /// The parent makes it while init works, and sends it.
    FromParent,
}

/// The init of a container to join, and the clone flags of the namespaces in which that init is and the caller is not.
pub struct JoinTarget {
    pub pidfd: OwnedFd,
    pub flags: u64,
}

impl JoinTarget {
    /// Returns whether the container has a pid namespace that this process is not in.
    pub fn has_pid_namespace(&self) -> bool {
        self.flags & clone::NEWPID != 0
    }

    /// Joins the user namespace alone, to act with its privilege before the others are joined.
    pub fn in_its_user_namespace(self) -> Result<JoinTarget> {
        process::set_dumpable(false)?;
        clone::setns(&self.pidfd, clone::NEWUSER).context("join the container's user namespace")?;
        become_userns_root();
        let flags = self.flags & !clone::NEWUSER;
        Ok(JoinTarget { flags, ..self })
    }

    /// Joins all namespaces at once. A pid namespace is joined for the children of this process only (pid_namespaces(7)).
    /// Joining a namespace again does no harm.
    pub fn join(&self) -> Result<()> {
        // Processes in the container must not be able to look into this one.
        process::set_dumpable(false)?;
        if self.flags != 0 {
            clone::setns(&self.pidfd, self.flags).context("join the container's namespaces")?;
        }
        if self.flags & clone::NEWUSER != 0 {
            become_userns_root();
        }
        Ok(())
    }
}

/// Becomes root of the user namespace that was joined, if that maps root.
pub fn become_userns_root() {
    cred::set_gid(0).ok();
    cred::set_uid(0).ok();
}
