//! PARENT: makes the container's init and answers it until it is ready.
//!
//! Without namespaces to join by path, one clone3 makes init in all its new namespaces. Else a relay joins them, and makes init
//! as its sibling, so that init is the parent's child.
//!
//! A process in a pid namespace that others live in can be seen by them. There, all that needs anything of the host is done by a
//! process outside of that namespace. Its last act is to make the process that becomes the program, which has nothing of the host.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::channel::{self, ChildEnd, Down, ParentEnd, STEP_TIMEOUT, Up};
use crate::facility::{id_maps, netdev, ns_files, resctrl, stream_owner};
use crate::host::Host;
use crate::init::relay::{Target, relay};
use crate::init::{self, Materials};
use crate::lifecycle::bind_sources;
use crate::lifecycle::spawn_plan::Way;
use crate::lifecycle::start::{arrives, see_program, start_over};
use crate::plan::Plan;
use crate::plan::hooks::Hook;
use crate::plan::rdt::Groups;
use crate::programs::hooks;
use crate::protect;
use crate::state::container::{State, Status};
use crate::state::document::report;
use crate::supervise::{self, AwaitedInit};
use crate::sys::clone::{self, Side};
use crate::sys::{self, process, wait};
use crate::text::fault::{Coded, coded};
use crate::text::timings;

/// What init is made from, and who is told about it.
pub struct Launch<'a> {
    pub plan: &'a Plan,
    pub host: &'a Host,
    pub gate: Option<OwnedFd>,
    pub state: &'a mut State,
    /// The container that the process joins, instead of making its own.
    pub target: Option<Target>,
    /// Whether systemd can put the process in its cgroup, where the kernel lets nobody else do so.
    pub attachable: bool,
    /// Once it is ready it starts, and waits for no word.
    pub at_once: bool,
}

/// An init that was made. One that waits has done nothing yet.
pub struct Born<'a> {
    pub init: Init,
    /// It is in its caller's cgroup, and not where it should be.
    pub outside: bool,
    waits: bool,
    plan: &'a Plan,
    host: &'a Host,
    pub state: &'a mut State,
    sender: Option<ChildEnd>,
    opener: Option<OwnedFd>,
    devices: Vec<netdev::Found<'a>>,
}

/// The container's init: ready, waiting for the word to start. Killed on drop unless kept.
pub struct Init {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
    channel: ParentEnd,
    /// Who has made it, until that is reaped.
    relay: Option<OwnedFd>,
    /// Another process takes its place, before it is ready: see [`Up::Born`].
    awaits_birth: bool,
    /// It was told to before it was ready, and is about to.
    starting: bool,
    pub runs: bool,
    /// The socket on which the program tells that it is ready.
    pub notify_socket: Option<OwnedFd>,
    kept: bool,
}

impl<'a> Launch<'a> {
    /// Makes init, which waits for its parent if there is anything to be done for it.
    pub fn begin(self, cgroup: Option<&Cgroup>) -> Result<Born<'a>> {
        let Launch {
            plan,
            host,
            gate,
            state,
            target,
            attachable,
            at_once,
        } = self;
        prepare_for_children(host)?;
        let (trees, sender) = bind_sources::prepare(plan, host)?;
        let mut joins = ns_files::open(plan)?;
        let pid_namespace = ns_files::take_pid_namespace(plan, &mut joins)?;
        let devices = netdev::find(&plan.net_devices)?;
        let (parent, child) = channel::pair()?;
        let is_born_last = pid_namespace.is_some() || target.iter().any(Target::has_pid_namespace);
        let hooks = hooks::with_own_environment(&plan.hooks.create_container);
        let mut way = Way::new(plan, !joins.is_empty());
        way.outside = cgroup.is_none() && attachable;
        way.waits |= way.outside || !devices.is_empty() || state.rdt.is_some();
        let side = way.clone(plan, cgroup, attachable);
        let Side::Parent { pid, pidfd } = side.map_err(|e| explain_clone(e, plan, cgroup))? else {
            drop((parent, sender));
            let materials = Materials {
                hooks,
                trees,
                gate: gate.as_ref(),
                state,
                waits: way.waits,
                at_once,
                network: way.network,
                target,
                pid_namespace,
            };
            if way.relayed {
                relay(plan, joins, child, materials);
            }
            init::run(plan, child, materials)
        };
        drop((child, trees, gate, joins, pid_namespace));
        timings::step(|| "clone init".to_string());
        let mut init = Init::new(pid, pidfd, parent);
        if way.relayed {
            init.wait_for_relay(cgroup)?;
        }
        init.awaits_birth = is_born_last;
        init.give_network(way.own_network)?;
        Ok(Born {
            init,
            outside: way.outside,
            waits: way.waits,
            plan,
            host,
            state,
            sender,
            opener: None,
            devices,
        })
    }
}

impl Born<'_> {
    /// Does to it what only the parent may do. It need not wait any more.
    pub fn release(&mut self, cgroup: Option<&Cgroup>) -> Result<()> {
        let (plan, host, init) = (self.plan, self.host, &self.init);
        protect::let_go_of_mount();
        let send = |to| bind_sources::send_of(plan, host, (init.pid, &init.pidfd), to);
        self.opener = self.sender.take().map(send).transpose()?;
        // A relay, or a process that joins a container, has set its own score.
        let is_scored = init.relay.is_some() || plan.rootfs.is_none();
        if let Some(score) = plan.process.oom_score_adj.filter(|_| !is_scored) {
            process::set_oom_score(&init.pid.to_string(), score)?;
        }
        init.furnish(plan, host, self.state.rdt.as_ref())?;
        stream_owner::give_from_outside(init.pid, plan, host)?;
        netdev::move_to(init.pid, init.pidfd.as_fd(), &self.devices)?;
        if self.waits {
            init.channel.send(Down::Go)?;
        }
        init.record(plan, self.state)
            .map_err(|error| init.death(cgroup, error))
    }

    /// It starts as soon as it is ready.
    pub fn start_at_once(&self) -> Result<()> {
        arrives(self.init.channel.send(Down::Start)).map(drop)
    }

    /// Sees it through to the point before its program.
    pub fn see_through(self, cgroup: Option<&Cgroup>) -> Result<Init> {
        let mut init = self.init;
        init.reap_relay();
        init.see_through(self.plan, self.state, cgroup)?;
        self.opener.iter().for_each(wait::kill_and_reap);
        Ok(init)
    }
}

impl Init {
    fn new(pid: i32, pidfd: OwnedFd, channel: ParentEnd) -> Init {
        Init {
            pid,
            pidfd,
            console: None,
            channel,
            relay: None,
            awaits_birth: false,
            starting: false,
            runs: false,
            notify_socket: None,
            kept: false,
        }
    }

    /// While it is at work.
    fn give_network(&self, own: Option<OwnedFd>) -> Result<()> {
        let Some(own) = own else {
            return Ok(());
        };
        let namespace = clone::network_apart(own).context("make a network namespace")?;
        let sent = self.channel.send_network(namespace);
        timings::step(|| "make the network namespace".to_string());
        arrives(sent).map(drop)
    }

    /// Waits until the relay has made init.
    fn wait_for_relay(&mut self, cgroup: Option<&Cgroup>) -> Result<()> {
        self.awaits_birth = true;
        match self.recv_from_init("join the namespaces", cgroup, true)? {
            Some(Up::Born(pidfd)) => self.adopt(pidfd),
            Some(Up::Failed(failure)) => Err(explain_relay(failure, cgroup)),
            Some(other) => bail!("unexpected {other:?} from the process that joins the namespaces"),
            None => {
                let error = coded("killed", "joining the namespaces ended early");
                Err(self.death(None, error.into()))
            }
        }
    }

    /// Takes the process that another one has made in the place of its maker. It is a child of this process, as its maker was.
    fn adopt(&mut self, pidfd: OwnedFd) -> Result<()> {
        self.reap_relay();
        self.pid = process::pid_of_child(&pidfd).context("find the process that was made")?;
        self.relay = Some(std::mem::replace(&mut self.pidfd, pidfd));
        self.awaits_birth = false;
        Ok(())
    }

    /// Writes down which process is init, unless the process joins a container.
    fn record(&self, plan: &Plan, state: &mut State) -> Result<()> {
        match plan.rootfs {
            Some(_) => state.set_init(self.pid),
            None => Ok(()),
        }
    }

    /// Reaps the maker of this process, which counts as one of the container's processes until then. It ends by itself: there is
    /// no need to wait for that while the program begins.
    fn reap_relay(&mut self) {
        if let Some(relay) = self.relay.take() {
            // While its maker lives, the connection does not end.
            wait::kill_and_reap(&relay);
        }
    }

    fn recv_from_init(
        &self,
        awaited: &'static str,
        cgroup: Option<&Cgroup>,
        limited: bool,
    ) -> Result<Option<Up>> {
        let mut awaited_init = AwaitedInit::new(self.pid, &self.pidfd, awaited);
        awaited_init.cgroup = cgroup;
        awaited_init.limit = limited.then_some(STEP_TIMEOUT);
        if self.awaits_birth {
            // The process that was made may speak after the end of its maker.
            awaited_init.pidfd = self.channel.as_fd();
        }
        supervise::recv_from_init(&self.channel, &awaited_init)
    }

    /// What only the parent may do to it.
    fn furnish(&self, plan: &Plan, host: &Host, rdt: Option<&Groups>) -> Result<()> {
        if let Some(groups) = rdt {
            resctrl::enter(Path::new(resctrl::ROOT), groups, self.pid)?;
        }
        if plan.namespaces.creates(clone::NEWUSER) {
            id_maps::write(self.pid, host, &plan.namespaces.uids, &plan.namespaces.gids)?;
            raise_hard_limits(self.pid, plan);
        }
        Ok(())
    }

    /// Answers it until it is ready.
    fn see_through(
        &mut self,
        plan: &Plan,
        state: &mut State,
        cgroup: Option<&Cgroup>,
    ) -> Result<()> {
        let limited = plan.hooks.create_container.iter().all(Hook::is_limited);
        // A process that joins a container may wait with it for its thaw, if it was told to.
        let not_frozen = cgroup.filter(|_| plan.rootfs.is_some());
        let (mut is_ready, mut is_inside, mut rules) = (false, false, plan.rules_after_mounts());
        while !is_ready || self.awaits_birth {
            match self.recv_from_init("set up the container", not_frozen, limited)? {
                // A tracer in the pid namespace may have a process there say anything. What the setting up takes was said before.
                Some(word @ (Up::Hooks | Up::Born(_) | Up::Console(_))) if is_inside => {
                    bail!("unexpected {word:?} from the container's init")
                }
                Some(Up::Hooks) => {
                    timings::step(|| "wait for the root filesystem".to_string());
                    let rules = cgroup.zip(rules.take());
                    rules.map_or(Ok(()), |(cgroup, rules)| cgroup.restrict(rules))?;
                    run_runtime_hooks(plan, state)?;
                    timings::step(|| "prestart and createRuntime hooks".to_string());
                    self.channel.send(Down::Go)?;
                }
                Some(Up::Born(pidfd)) => {
                    self.adopt(pidfd)?;
                    is_inside = true;
                    self.record(plan, state)
                        .map_err(|error| self.death(cgroup, error))?;
                }
                Some(Up::Console(master)) => self.console = Some(master),
                Some(Up::Timings(piece)) => timings::add(&piece),
                Some(word @ (Up::Ready | Up::Starting)) => {
                    ensure!(
                        rules.is_none(),
                        "init is ready before the device rules hold"
                    );
                    self.starting = matches!(word, Up::Starting);
                    is_ready = true;
                }
                Some(Up::Failed(failure)) if self.awaits_birth => {
                    return Err(explain_relay(failure, cgroup));
                }
                Some(Up::Failed(failure)) => bail!(failure),
                None => {
                    return Err(
                        self.death(cgroup, anyhow!("container init ended before it was ready"))
                    );
                }
                Some(other) => bail!("unexpected {other:?} from the container's init"),
            }
        }
        timings::step(|| "wait until init is ready".to_string());
        Ok(())
    }

    /// `create`: init waits at its gate from now on, whatever becomes of this process.
    pub fn leave_waiting(mut self) -> Result<()> {
        self.reap_relay();
        // One that has been killed meanwhile is told of below.
        self.channel.send(Down::Wait).ok();
        match self.recv_from_init("leave init waiting for the start", None, true)? {
            Some(Up::Waiting) => {
                self.kept = true;
                Ok(())
            }
            None => Err(self.death(None, anyhow!("container init ended instead of waiting"))),
            Some(other) => bail!("unexpected {other:?} from the container's init"),
        }
    }

    /// `run`: init goes on to its program. Returns once that runs.
    pub fn start(&mut self, state: &State) -> Result<()> {
        if !self.starting {
            // The program may be allowed no more processes than there are.
            self.reap_relay();
        }
        let awaited_init = AwaitedInit::new(self.pid, &self.pidfd, "start");
        let started = match self.starting {
            true => see_program(&self.channel, state, awaited_init).map(Some)?,
            false => start_over(&self.channel, state, awaited_init)?,
        };
        self.reap_relay();
        let Some(started) = started else {
            return Err(self.death(None, anyhow!("container init ended instead of starting")));
        };
        self.runs = true;
        self.notify_socket = started.notify_socket;
        Ok(())
    }

    /// Not to be killed with this value: it has ended, or lives on without this process.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// How an init ended that could not say so itself. One that lives is ended, for the error that is given.
    fn death(&self, cgroup: Option<&Cgroup>, error: anyhow::Error) -> anyhow::Error {
        let ended = process::has_ended(&self.pidfd);
        process::pidfd_send_signal(&self.pidfd, libc::SIGKILL).ok();
        let signal = wait::reap(&self.pidfd) - 128;
        if !ended || signal <= 0 {
            return error;
        }
        if let Some(memory) = cgroup.filter(|cgroup| cgroup.oom_kills() > 0) {
            return error.context(coded("oom-killed", memory.out_of_memory()));
        }
        match signal {
            libc::SIGSYS => error.context(coded(
                "seccomp-killed",
                "container init was killed by signal 31 (SIGSYS): the filter of linux.seccomp kills for a call that the \
                 runtime itself needs; allow what the kernel's audit log names (ausearch -m SECCOMP, or dmesg)",
            )),
            _ => error.context(coded("killed", format!("container init was killed by signal {signal}"))),
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if !self.kept {
            wait::kill_and_reap(&self.pidfd);
            // One that was made meanwhile may have been stopped before it could bind its life to this process's.
            while self.awaits_birth
                && wait::is_readable(self.channel.as_fd())
                && let Ok(Some(word)) = self.channel.receive()
            {
                if let Up::Born(pidfd) = word {
                    wait::kill_and_reap(&pidfd);
                    self.awaits_birth = false;
                }
            }
            self.reap_relay();
        }
    }
}

fn prepare_for_children(host: &Host) -> Result<()> {
    process::keep_children();
    match host.euid {
        // Inherited by what is made now.
        0 => process::set_dumpable(false),
        // Others must be able to write the id maps of their own child.
        _ => Ok(()),
    }
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

/// The relay is a process of the container's cgroup, too, as long as it is not reaped.
fn explain_relay(failure: Coded, cgroup: Option<&Cgroup>) -> anyhow::Error {
    let refused = failure.errno == Errno::EAGAIN as i32;
    match cgroup.filter(|_| refused).and_then(Cgroup::full) {
        Some(full) => anyhow!(failure).context(format!(
            "make a process of the container, which takes two for a moment{full}"
        )),
        None => failure.into(),
    }
}

/// In a user namespace nobody has the right to raise them; who makes the process may have it. It will lower the rest itself, and
/// names the limit if this is refused.
pub fn raise_hard_limits(pid: i32, plan: &Plan) {
    for limit in &plan.process.rlimits {
        if let Ok((soft, hard)) = process::prlimit(pid, limit.resource, None)
            && limit.hard > hard
        {
            process::prlimit(pid, limit.resource, Some((soft, limit.hard))).ok();
        }
    }
}

fn run_runtime_hooks(plan: &Plan, state: &State) -> Result<()> {
    let json = report(state, Status::Creating, state.pid).line()?;
    hooks::run(&plan.hooks.prestart, "prestart", &json, &state.bundle)?;
    hooks::run(
        &plan.hooks.create_runtime,
        "createRuntime",
        &json,
        &state.bundle,
    )
}
