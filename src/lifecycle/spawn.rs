//! PARENT: makes init, and sets what only the parent may set.
//!
//! Without namespaces to join by path, one clone3(2) makes init in all its new namespaces. Otherwise a relay joins them, and makes
//! init as its sibling, so that init is a child of this process.
//!
//! Processes that live in a pid namespace see each new process in it. So a process outside of such a namespace does all that
//! needs the host. As its last act it makes the process that becomes the program, which has nothing of the host.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::Result;
use nix::errno::Errno;

use super::bind_sources;
use super::init_process::{Init, sent_or_peer_gone};
use crate::cgroup::Cgroup;
use crate::channel::{self, ChildEnd, Down};
use crate::facility::netdev::{self, Found};
use crate::facility::{id_maps, ns_files, resctrl, stream_owner};
use crate::host::Host;
use crate::init::args::{InitArgs, JoinTarget, Netns, Start};
use crate::init::{self, relay};
use crate::plan::Plan;
use crate::plan::namespaces::Join;
use crate::programs::hooks;
use crate::protect;
use crate::state::record::Record;
use crate::sys::clone::{self, Side};
use crate::sys::{self, process, wait};
use crate::text::timings;

/// What init is made from.
pub struct Spawn<'a> {
    pub plan: &'a Plan,
    pub host: &'a Host,
    pub start: Start,
    /// The socket on which init waits for `start`.
    pub start_socket: Option<OwnedFd>,
    /// The container that the process joins. None for one that makes its own.
    pub target: Option<JoinTarget>,
    /// Whether systemd can put the process into its cgroup. The kernel may let nobody else do so.
    pub is_attachable: bool,
}

/// How clone3(2) makes init, decided before the call.
struct SpawnPlan {
    /// A relay joins namespaces, and makes init.
    has_relay: bool,
    /// Init is made in its cgroup (CLONE_INTO_CGROUP).
    into_cgroup: bool,
    /// Init waits for [`Down::Go`].
    waits_for_parent: bool,
    flags: u64,
    netns: Netns,
    /// The network namespace of this process, to which it returns after it has made that of the container.
    saved_netns: Option<OwnedFd>,
}

impl SpawnPlan {
    fn new(plan: &Plan, has_relay: bool, into_cgroup: bool, parent_has_work: bool) -> SpawnPlan {
        let flags = if has_relay {
            0
        } else {
            plan.namespaces.clone_flags()
        };
        let waits_for_parent =
            has_relay || parent_has_work || plan.namespaces.creates(clone::NEWUSER);
        // An init that waits for nothing need not wait for its network either, until it needs that.
        let is_deferred = !waits_for_parent && plan.namespaces.can_defer_netns();
        let saved_netns = is_deferred.then(|| clone::own_netns().ok()).flatten();
        let netns = match saved_netns {
            Some(_) => Netns::FromParent,
            None if plan.namespaces.creates(clone::NEWNET) => Netns::Inherited,
            None => Netns::Done,
        };
        SpawnPlan {
            has_relay,
            into_cgroup,
            waits_for_parent,
            flags: match netns {
                Netns::FromParent => flags & !clone::NEWNET,
                _ => flags,
            },
            netns,
            saved_netns,
        }
    }

    fn clone3(&self, cgroup: Option<&Cgroup>) -> Result<Side> {
        let cgroup = cgroup.filter(|_| self.into_cgroup).map(AsFd::as_fd);
        clone::clone3(self.flags, cgroup)
    }
}

/// An init that was made. One that waits for its parent has done nothing yet.
pub struct SpawnedInit<'a> {
    pub init: Init,
    /// Init is still in the cgroup of this process. Somebody has to move it.
    pub needs_attach: bool,
    waits_for_parent: bool,
    plan: &'a Plan,
    host: &'a Host,
    source_socket: Option<ChildEnd>,
    /// The helper that opens the sources of mounts.
    source_helper: Option<OwnedFd>,
    devices: Vec<Found<'a>>,
}

/// Makes init. Returns in the parent only.
pub fn spawn<'a>(
    from: Spawn<'a>,
    state: &Record,
    cgroup: Option<&Cgroup>,
) -> Result<SpawnedInit<'a>> {
    let (plan, host) = (from.plan, from.host);
    prepare_for_children(host)?;
    let (trees, source_socket) = bind_sources::prepare(plan, host)?;
    let mut joins = ns_files::open(plan)?;
    let pid_namespace = ns_files::take_pid_namespace(plan, &mut joins)?;
    let devices = netdev::find(&plan.net_devices)?;
    let is_born_last =
        pid_namespace.is_some() || from.target.iter().any(JoinTarget::has_pid_namespace);
    let hooks = hooks::with_own_environment(&plan.hooks.create_container);
    let is_outside = cgroup.is_none() && from.is_attachable;
    let parent_has_work = is_outside || !devices.is_empty() || state.rdt.is_some();
    let (parent, child) = channel::pair()?;
    let mut how = SpawnPlan::new(plan, !joins.is_empty(), cgroup.is_some(), parent_has_work);
    let mut side = how.clone3(cgroup);
    let is_attached = from.is_attachable && how.into_cgroup;
    if is_attached && side.as_ref().is_err_and(is_refused) {
        how = SpawnPlan::new(plan, how.has_relay, false, true);
        side = how.clone3(None);
    }
    let Side::Parent { pid, pidfd } = side.map_err(|e| explain_clone(e, plan, cgroup))? else {
        drop((parent, source_socket));
        let args = InitArgs {
            trees,
            start: from.start,
            start_socket: from.start_socket.as_ref(),
            waits_for_parent: how.waits_for_parent,
            netns: how.netns,
            hooks,
            state,
            target: from.target,
            pid_namespace,
        };
        run_child(plan, how.has_relay.then_some(joins), child, args)
    };
    drop((child, trees, from.start_socket, joins, pid_namespace));
    timings::step(|| "clone init".to_string());
    let mut init = Init::new(pid, pidfd, parent);
    if how.has_relay {
        init.wait_for_relay(cgroup)?;
    }
    init.awaits_birth = is_born_last;
    init.send_netns(how.saved_netns)?;
    Ok(SpawnedInit {
        init,
        needs_attach: from.is_attachable && !how.into_cgroup,
        waits_for_parent: how.waits_for_parent,
        plan,
        host,
        source_socket,
        source_helper: None,
        devices,
    })
}

/// The life of the child, from the clone to its program or its end.
fn run_child(
    plan: &Plan,
    joins: Option<Vec<(&Join, OwnedFd)>>,
    channel: ChildEnd,
    args: InitArgs,
) -> ! {
    match joins {
        Some(joins) => relay::relay(plan, joins, channel, args),
        None => init::run(plan, channel, args),
    }
}

impl SpawnedInit<'_> {
    /// Sets what only the parent may set, lets an init that waits go on, and notes in the state which process is init.
    pub fn configure(&mut self, state: &mut Record, cgroup: Option<&Cgroup>) -> Result<()> {
        let (plan, host, init) = (self.plan, self.host, &self.init);
        protect::close_exe_mount();
        let serve = |to| bind_sources::send_of(plan, host, (init.pid, &init.pidfd), to);
        self.source_helper = self.source_socket.take().map(serve).transpose()?;
        // A relay, or a process that joins a container, has set its own score.
        let is_scored = init.has_relay() || plan.rootfs.is_none();
        if let Some(score) = plan.process.oom_score_adj.filter(|_| !is_scored) {
            process::set_oom_score(&init.pid.to_string(), score)?;
        }
        if let Some(groups) = &state.rdt {
            resctrl::enter(Path::new(resctrl::ROOT), groups, init.pid)?;
        }
        if plan.namespaces.creates(clone::NEWUSER) {
            id_maps::write(init.pid, host, &plan.namespaces.uids, &plan.namespaces.gids)?;
            raise_hard_limits(init.pid, plan);
        }
        stream_owner::give_from_outside(init.pid, plan, host)?;
        netdev::move_to(init.pid, init.pidfd.as_fd(), &self.devices)?;
        if self.waits_for_parent {
            init.send(Down::Go)?;
        }
        init.record(plan, state, cgroup)
    }

    /// Asks init to start as soon as it is ready.
    pub fn start_at_once(&self) -> Result<()> {
        sent_or_peer_gone(self.init.send(Down::Start)).map(drop)
    }

    /// Answers init until it is ready. Updates the state, where another process becomes init.
    pub fn wait_until_ready(self, state: &mut Record, cgroup: Option<&Cgroup>) -> Result<Init> {
        let mut init = self.init;
        init.reap_relay();
        init.wait_until_ready(self.plan, state, cgroup)?;
        self.source_helper.iter().for_each(wait::kill_and_reap);
        Ok(init)
    }
}

/// Raises the hard limits of a process as far as its plan wants, where this process may.
///
/// Nobody in a user namespace may raise them, but who makes the process may. The process lowers the rest itself, and names the
/// limit if the kernel refuses. `pid` 0 is this process.
pub fn raise_hard_limits(pid: i32, plan: &Plan) {
    for limit in &plan.process.rlimits {
        if let Ok((soft, hard)) = process::prlimit(pid, limit.resource, None)
            && limit.hard > hard
        {
            process::prlimit(pid, limit.resource, Some((soft, limit.hard))).ok();
        }
    }
}

fn prepare_for_children(host: &Host) -> Result<()> {
    process::reset_sigchld();
    match host.euid {
        // Children inherit this.
        0 => process::set_dumpable(false),
        // Others must be able to write the id maps of their own child.
        _ => Ok(()),
    }
}

/// The kernel does not let this process into the cgroup.
fn is_refused(error: &anyhow::Error) -> bool {
    matches!(sys::errno(error), Some(Errno::EACCES | Errno::EPERM))
}

fn explain_clone(error: anyhow::Error, plan: &Plan, cgroup: Option<&Cgroup>) -> anyhow::Error {
    if sys::errno(&error) == Some(Errno::EAGAIN) {
        let full = cgroup.and_then(Cgroup::full).unwrap_or_default();
        return error.context(format!("make a process of the container{full}"));
    }
    let refused = sys::errno(&error) == Some(Errno::EPERM);
    if refused && !plan.namespaces.has(clone::NEWUSER) {
        return error.context(
            "linux.namespaces: make new namespaces without privilege; add a user namespace, as \
             \"cofferdam spec --rootless\" does",
        );
    }
    error.context("make the container's init")
}
