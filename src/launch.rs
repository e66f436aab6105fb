//! PARENT: makes the container's init and answers it until it is ready.
//!
//! Two shapes only. With nothing to join, one clone3 makes init in all its new namespaces. Else a
//! relay joins what is to be joined and then makes init as its sibling, so that it is the parent's child.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::channel::{self, ChildEnd, Down, ParentEnd, Up};
use crate::container::{State, Status, report};
use crate::fault::{Coded, coded};
use crate::host::Host;
use crate::init::{self, Materials, Network};
use crate::patience::{self, Debtor};
use crate::plan::Plan;
use crate::plan::hooks::Hook;
use crate::plan::namespaces::Join;
use crate::plan::rdt::Groups;
use crate::sys::clone::{self, Side};
use crate::sys::{self, cred, process, tty};
use crate::{hooks, idmap, intelrdt, joins, netdev, notify, timings, trees};

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
    devices: Vec<netdev::Found<'a>>,
}

/// A container's init, and the clone flags of the namespaces in which it is and the caller is not.
pub struct Target {
    pub pidfd: OwnedFd,
    pub flags: u64,
}

/// The container's init: ready, waiting for the word to start. Killed on drop unless kept.
pub struct Init {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
    channel: ParentEnd,
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
        } = self;
        prepare_for_children(host)?;
        let (trees, sender) = trees::prepare(plan, host)?;
        let joins = joins::open(plan)?;
        let devices = netdev::find(&plan.net_devices)?;
        let (parent, child) = channel::pair()?;
        let refused = target.as_ref().is_some_and(|target| !target.prepare());
        let relayed = refused || !joins.is_empty();
        let makes_user = plan.namespaces.creates(clone::NEWUSER);
        let mut waits = relayed || makes_user || !devices.is_empty() || state.rdt.is_some();
        let mut outside = cgroup.is_none() && attachable;
        let own = plan.namespaces.at_the_clone();
        let flags = if relayed { 0 } else { own };
        waits |= outside;
        let mut network_apart = !waits && plan.namespaces.network_is_apart();
        let first = if network_apart {
            flags & !clone::NEWNET
        } else {
            flags
        };
        let mut side = clone::clone3(first, cgroup.map(AsFd::as_fd));
        if attachable && side.as_ref().is_err_and(is_refusal) {
            (outside, waits, network_apart) = (true, true, false);
            side = clone::clone3(flags, None);
        }
        let Side::Parent { pid, pidfd } = side.map_err(|e| explain_clone(e, plan, cgroup))? else {
            drop((parent, sender));
            let materials = Materials {
                hooks: hooks::take_environment(&plan.hooks.create_container),
                trees,
                gate: gate.as_ref(),
                state,
                waits,
                network: match plan.namespaces.creates(clone::NEWNET) {
                    true if network_apart => Network::Coming,
                    true => Network::New,
                    false => Network::Settled,
                },
                target,
            };
            if relayed {
                relay(plan, joins, child, materials);
            }
            init::run(plan, child, materials)
        };
        drop((child, trees, gate, joins));
        timings::step(|| "clone init".to_string());
        let mut init = Init::new(pid, pidfd, parent);
        if relayed {
            init.adopt()?;
        }
        if network_apart {
            let namespace = clone::network_apart().context("make a network namespace")?;
            init.channel.send_network(namespace)?;
            timings::step(|| "make the network namespace".to_string());
        }
        Ok(Born {
            init,
            outside,
            waits,
            plan,
            host,
            state,
            sender,
            devices,
        })
    }
}

impl Born<'_> {
    /// Sees it through to the point before its program.
    pub fn see_through(self, cgroup: Option<&Cgroup>) -> Result<Init> {
        let (plan, host) = (self.plan, self.host);
        let mut init = self.init;
        let send = |to| trees::send(trees::of(plan), host, &init.pidfd, to);
        let opener = self.sender.map(send).transpose()?;
        init.furnish(plan, host, self.state.rdt.as_ref())?;
        netdev::move_to(init.pid, init.pidfd.as_fd(), &self.devices)?;
        if self.waits {
            init.channel.send(Down::Go)?;
        }
        init.see_through(plan, self.state, cgroup)?;
        opener.map(tty::exit_code).transpose()?;
        Ok(init)
    }
}

fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(sys::errno(error), Some(Errno::EACCES | Errno::EPERM))
}

impl Target {
    /// Lets this process's next child be born in the container's pid namespace. Without privilege over
    /// that only a process of the container's user namespace may ask for it: false.
    ///
    /// False too if the processes in there may have CAP_SYS_PTRACE over that child: it would be seen by them while its root
    /// and its descriptors are still the host's (CVE-2016-9962).
    fn prepare(&self) -> bool {
        let seen = self.flags & clone::NEWPID != 0;
        let own_user = self.flags & clone::NEWUSER != 0;
        !seen || own_user && clone::setns(&self.pidfd, clone::NEWPID).is_ok()
    }

    /// Joins the user namespace alone, to act with its privilege before the others are joined.
    pub fn in_its_user_namespace(self) -> Result<Target> {
        process::set_dumpable(false)?;
        clone::setns(&self.pidfd, clone::NEWUSER).context("join the container's user namespace")?;
        cred::set_gid(0).ok();
        cred::set_uid(0).ok();
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
            // Root of the namespace, where it has one.
            cred::set_gid(0).ok();
            cred::set_uid(0).ok();
        }
        Ok(())
    }
}

impl Init {
    fn new(pid: i32, pidfd: OwnedFd, channel: ParentEnd) -> Init {
        Init {
            pid,
            pidfd,
            console: None,
            channel,
            kept: false,
        }
    }

    /// Takes the process that the relay has made in the relay's place.
    fn adopt(&mut self) -> Result<()> {
        let (pid, pidfd) = match self.next_word("join the namespaces", None, true)? {
            Some(Up::Pid(pid, pidfd)) => (pid, pidfd),
            Some(Up::Failed(failure)) => bail!(failure),
            Some(other) => bail!("unexpected {other:?} from the process that joins the namespaces"),
            None => {
                return Err(self.death(None, anyhow!("joining the namespaces ended early")));
            }
        };
        let relay = std::mem::replace(&mut self.pidfd, pidfd);
        self.pid = pid;
        reap(&relay);
        Ok(())
    }

    fn next_word(
        &self,
        awaited: &'static str,
        cgroup: Option<&Cgroup>,
        limited: bool,
    ) -> Result<Option<Up>> {
        let mut debtor = Debtor::new(self.pid, &self.pidfd, awaited);
        (debtor.cgroup, debtor.limited) = (cgroup, limited);
        patience::next_word(&self.channel, &debtor)
    }

    /// What only the parent may do to it.
    fn furnish(&self, plan: &Plan, host: &Host, rdt: Option<&Groups>) -> Result<()> {
        if let Some(groups) = rdt {
            intelrdt::enter(Path::new(intelrdt::ROOT), groups, self.pid)?;
        }
        if let Some(score) = plan.process.oom_score_adj {
            set_oom_score(self.pid, score)?;
        }
        if plan.namespaces.creates(clone::NEWUSER) {
            idmap::write(self.pid, host, &plan.namespaces.uids, &plan.namespaces.gids)?;
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
        state
            .set_init(self.pid)
            .map_err(|error| self.death(cgroup, error))?;
        let limited = plan.hooks.create_container.iter().all(Hook::is_limited);
        // A process that joins a container may wait with it for its thaw, if it was told to.
        let not_frozen = cgroup.filter(|_| plan.rootfs.is_some());
        loop {
            match self.next_word("set up the container", not_frozen, limited)? {
                Some(Up::Hooks) => {
                    timings::step(|| "wait for the root filesystem".to_string());
                    run_runtime_hooks(plan, state)?;
                    timings::step(|| "prestart and createRuntime hooks".to_string());
                    self.channel.send(Down::Go)?;
                }
                Some(Up::Console(master)) => self.console = Some(master),
                Some(Up::Timings(piece)) => timings::add(&piece),
                Some(Up::Ready) => {
                    timings::step(|| "wait until init is ready".to_string());
                    return Ok(());
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
    }

    /// `create`: init waits at its gate from now on, whatever becomes of this process.
    pub fn leave_waiting(mut self) -> Result<()> {
        // One that has been killed meanwhile is told of below.
        self.channel.send(Down::Wait).ok();
        match self.next_word("leave init waiting for the start", None, true)? {
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
        let debtor = Debtor::new(self.pid, &self.pidfd, "start");
        start_over(&self.channel, state, debtor)
    }

    /// Not to be killed with this value: it has ended, or lives on without this process.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// How an init ended that could not say so itself. One that lives is ended, for the error that is given.
    fn death(&self, cgroup: Option<&Cgroup>, error: anyhow::Error) -> anyhow::Error {
        let ended = process::has_ended(&self.pidfd);
        process::pidfd_send_signal(&self.pidfd, libc::SIGKILL).ok();
        let signal = reap(&self.pidfd) - 128;
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
            process::pidfd_send_signal(&self.pidfd, libc::SIGKILL).ok();
            reap(&self.pidfd);
        }
    }
}

/// Of one that will end, or does not die: then nobody waits for it.
fn reap(process: &OwnedFd) -> i32 {
    match patience::dies(process) {
        true => tty::exit_code(process).unwrap_or(-1),
        false => -1,
    }
}

/// Says start, over the launch's channel or the gate's, and waits for the program to run.
///
/// The connection closes on exec: its end without a word is success.
pub fn start_over(channel: &ParentEnd, state: &State, mut init: Debtor) -> Result<()> {
    channel.send(Down::Start)?;
    match patience::next_word(channel, &init)? {
        Some(Up::Starting) => {}
        Some(Up::Failed(failure)) => bail!(failure),
        None => bail!("cannot start an already running container"),
        Some(other) => bail!("unexpected {other:?} from the container's init"),
    }
    // The hooks of the start have no limit but their own.
    init.limited = false;
    loop {
        match patience::next_word(channel, &init)? {
            None => return Ok(()),
            Some(Up::Listener(number)) => {
                notify::hand_over(state, (init.pid, init.pidfd), number)?;
                channel.send(Down::Go)?;
            }
            Some(Up::Failed(failure)) => bail!(failure),
            Some(other) => bail!("unexpected {other:?} from the container's init"),
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

/// Joins, then makes init and ends.
fn relay(
    plan: &Plan,
    joins: Vec<(&Join, OwnedFd)>,
    channel: ChildEnd,
    mut materials: Materials,
) -> ! {
    let made = match materials.target.take() {
        Some(target) => enter_and_clone(plan, target, &channel),
        None => join_and_clone(plan, joins),
    };
    match made {
        Ok(Side::Child) => init::run(plan, channel, materials),
        Ok(Side::Parent { pid, pidfd }) => {
            let sent = channel.send(Up::Pid(pid, pidfd));
            process::exit(if sent.is_ok() { 0 } else { 1 })
        }
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
        // Root of the namespace, where it has one.
        cred::set_gid(0).ok();
        cred::set_uid(0).ok();
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

fn set_oom_score(pid: i32, score: i32) -> Result<()> {
    let hint =
        || format!("process.oomScoreAdj: {score}: a value below one's own needs CAP_SYS_RESOURCE");
    write_proc(&pid.to_string(), "oom_score_adj", &score.to_string()).with_context(hint)
}

fn write_proc(process: &str, file: &str, text: &str) -> Result<()> {
    let path = Path::new("/proc").join(process).join(file);
    sys::io(std::fs::write(&path, text)).with_context(|| format!("write {text:?} to {path:?}"))
}

/// In a user namespace nobody has the right to raise them; the parent may have it. Init will lower the rest.
fn raise_hard_limits(pid: i32, plan: &Plan) {
    for limit in &plan.process.rlimits {
        if let Ok((soft, hard)) = process::prlimit(pid, limit.resource, None)
            && limit.hard > hard
        {
            // If this is refused, init says so with the limit's name.
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
