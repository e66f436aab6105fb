//! `create`: makes a container that waits to be started. What `run` shares with it is here too.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Error, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::SockType;

use super::delete;
use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, controllers};
use crate::cli::args::{self, CreateFlags};
use crate::cli::{CgroupManager, Global, Rootless, normalize};
use crate::facility::{id_maps, lsm, resctrl};
use crate::host::Host;
use crate::lifecycle::pid_file::{self, PidFile};
use crate::lifecycle::spawn::{Born, Init, Launch};
use crate::lifecycle::{foreground, sd_notify};
use crate::plan::cgroup::CgroupPlan;
use crate::plan::systemd::{self, Property};
use crate::plan::{Flags, Plan};
use crate::protect;
use crate::state::claim::Slot;
use crate::state::container::{Container, State, Store, boot_id};
use crate::state::locks;
use crate::sys::{clone, cred, process, socket, wait};
use crate::systemd::scope::Manager;
use crate::text::{log, timings};

#[inline(never)]
pub fn run(args: &args::Create, global: &Global, store: &Store) -> Result<i32> {
    let flags = &args.flags;
    if !flags.dry_run {
        protect::protect()?;
    }
    let bundle = Bundle::load(&flags.bundle, flags.config.as_deref())?;
    let request = Request {
        id: &args.id,
        flags,
        global,
        bundle,
        waits: true,
        detached: true,
    };
    if flags.dry_run {
        super::print(&request.plan()?.1.to_string())?;
        return Ok(0);
    }
    let Made {
        init,
        slot,
        resources,
        state,
        pid_file,
    } = request.make(store)?;
    // Until init has said that it waits it would die with this process, and nothing would be left behind.
    if let Err(error) = init.leave_waiting() {
        if let Some(file) = pid_file {
            file.take_back();
        }
        return Err(undo(&slot, &state, resources, error));
    }
    timings::step(|| "leave init waiting".to_string());
    keep(slot, state, resources);
    Ok(0)
}

/// What is asked for by `create` and by `run`.
pub struct Request<'a> {
    pub id: &'a str,
    pub flags: &'a CreateFlags,
    pub global: &'a Global,
    pub bundle: Bundle,
    /// Whether init waits for `start`.
    pub waits: bool,
    /// Whether this process ends before the container does.
    pub detached: bool,
}

/// A container whose init is ready; all of it is undone on drop, init first.
pub struct Made {
    pub init: Init,
    pub resources: Resources,
    pub slot: Slot,
    pub state: State,
    /// The file stays when this is dropped.
    pub pid_file: Option<PidFile>,
}

/// What is made for its processes; removed on drop unless kept.
#[derive(Default)]
pub struct Resources {
    cgroup: Option<Cgroup>,
    rdt: Option<resctrl::Made>,
}

impl Resources {
    fn restrict(&self, plan: &Plan) -> Result<()> {
        if let Some((cgroup, plan)) = self.cgroup.as_ref().zip(plan.cgroup.as_ref()) {
            cgroup.restrict(plan)?;
            timings::step(|| "device rules".to_string());
        }
        Ok(())
    }
}

/// Hooks of create meet the device rules of the container, under which some run, and which some amend. Without any, the kernel
/// checks and compiles the rules while init is at work, which is told to start after that. See [`Plan::mounts_a_device`] for those
/// that init waits for.
fn restricts_first(plan: &Plan) -> bool {
    !plan.hooks.are_none_of_create() && !plan.mounts_a_device()
}

impl Request<'_> {
    /// Pure but for the reading of the host's facts.
    pub fn plan(&self) -> Result<(Host, Plan)> {
        timings::step(|| "read the config".to_string());
        let host = Host::probe()?;
        let flags = Flags {
            id: self.id.to_string(),
            no_pivot: self.flags.no_pivot,
            no_new_keyring: self.flags.no_new_keyring,
            preserve_fds: self.flags.preserve_fds,
            listen_fds: sd_notify::listen_fds(),
            systemd_cgroup: self.global.cgroup_manager() == CgroupManager::Systemd,
            no_cgroup: self.global.cgroup_manager() == CgroupManager::Disabled,
            has_notify_socket: sd_notify::address()?.is_some(),
            rootless: match self.global.rootless {
                Rootless::True => Some(true),
                Rootless::False => Some(false),
                Rootless::Auto => None,
            },
        };
        let plan = Plan::create(&self.bundle, &host, &flags)?;
        timings::step(|| "plan".to_string());
        Ok((host, plan))
    }

    pub fn make(self, store: &Store) -> Result<Made> {
        let (host, mut plan) = self.plan()?;
        self.check(&plan)?;
        tell_of(&plan);
        make_unguessable(plan.process.keyring.as_mut())?;
        let sockets = Sockets::connect(&self.flags.console_socket, &self.pidfd_receiver())?;

        wait::block_termination_signals()?;
        let mut manager = reach_systemd(&plan)?;
        let mut slot = Slot::claim(store, self.id)?;
        let mut state = self.record(&plan, &host, manager.as_ref())?;
        let mut resources = Resources::default();
        if let Err(error) = self.prepare(&plan, &mut slot, &state, &mut resources) {
            return Err(give_up(&slot, &state, resources, error));
        }
        let gate = self.waits.then(|| slot.listen()).transpose();
        let at_once = state.at_once;
        let launch = |gate| {
            let launch = Launch {
                target: None,
                plan: &plan,
                host: &host,
                gate,
                state: &mut state,
                attachable: manager.is_some(),
                at_once,
            };
            let mut born = launch.begin(resources.cgroup.as_ref())?;
            // While init is at work.
            slot.save_config(&self.bundle, &plan)?;
            if let Some(manager) = &mut manager {
                resources.cgroup = enter_scope(&plan, manager, &slot, &mut born)?;
            } else if !restricts_first(&plan) && !plan.mounts_a_device() {
                resources.restrict(&plan)?;
            }
            born.release(resources.cgroup.as_ref())?;
            if at_once {
                record_init(&mut slot, born.state)?;
                born.start_at_once()?;
            }
            born.see_through(resources.cgroup.as_ref())
        };
        let finished = gate.and_then(launch).and_then(|mut init| {
            if !at_once {
                record_init(&mut slot, &mut state)?;
            }
            let pid_file = self.tell(&mut init, sockets)?;
            Ok((init, pid_file))
        });
        match finished {
            Ok((init, pid_file)) => Ok(Made {
                init,
                resources,
                slot,
                state,
                pid_file,
            }),
            Err(error) => Err(undo(&slot, &state, resources, error)),
        }
    }

    /// The records, the cgroup and its limits first: init is born with them.
    fn prepare(
        &self,
        plan: &Plan,
        slot: &mut Slot,
        state: &State,
        resources: &mut Resources,
    ) -> Result<()> {
        slot.save(state)?;
        timings::step(|| "claim the id, write the record".to_string());
        // A scope is made around init.
        let early = plan.cgroup.as_ref().filter(|plan| plan.unit.is_none());
        resources.cgroup = early.map(Cgroup::create).transpose()?.flatten();
        if let Some((cgroup, plan)) = resources.cgroup.as_ref().zip(plan.cgroup.as_ref()) {
            slot.claim_cgroup(cgroup)?;
            cgroup.limit(plan)?;
            timings::step(|| "make the cgroup, with limits".to_string());
        }
        if restricts_first(plan) {
            resources.restrict(plan)?;
        }
        if let Some(rdt) = &plan.rdt {
            slot.claim_rdt(&rdt.groups)?;
        }
        let make_groups = |rdt| resctrl::make(Path::new(resctrl::ROOT), rdt);
        resources.rdt = plan.rdt.as_ref().map(make_groups).transpose()?;
        Ok(())
    }

    /// Whether there is nothing to do between init's being ready and its start.
    fn starts_at_once(&self, plan: &Plan) -> bool {
        let told = self.flags.pid_file.is_some() || self.pidfd_receiver().is_some();
        let hooks = !plan.hooks.are_none_of_create() || !plan.hooks.start_container.is_empty();
        let asked = plan.process.terminal.is_some() || hooks || plan.mounts_a_device();
        // Its number is known last where it is born into a pid namespace of others.
        let joins_pids = plan.namespaces.joins(clone::NEWPID);
        !(self.waits || told || asked || joins_pids)
    }

    fn pidfd_receiver(&self) -> Option<PathBuf> {
        let annotated = || self.bundle.annotation("run.oci.pidfd_receiver");
        let socket = self.flags.pidfd_socket.clone();
        socket.or_else(|| annotated().map(PathBuf::from))
    }

    /// Those who wait for a created container.
    fn tell(&self, init: &mut Init, sockets: Sockets) -> Result<Option<PidFile>> {
        if let Some((socket, console)) =
            sockets.console.zip(init.console.take_if(|_| self.detached))
        {
            socket::send(socket, b"/dev/ptmx", Some(console.as_fd()))
                .context("--console-socket")?;
        }
        if let Some(socket) = sockets.pidfd {
            socket::send(socket, b"standard", Some(init.pidfd.as_fd()))
                .context("--pidfd-socket")?;
        }
        let file = self.flags.pid_file.as_deref();
        file.map(|file| PidFile::write(file, init.pid)).transpose()
    }

    fn record(&self, plan: &Plan, host: &Host, manager: Option<&Manager>) -> Result<State> {
        let rootfs = match &self.bundle.overlay {
            Some(overlay) => overlay.lower.first().cloned().unwrap_or_default(),
            None => self.bundle.rootfs()?,
        };
        Ok(State {
            id: self.id.to_string(),
            oci_version: self.bundle.spec.version().clone(),
            boot_id: boot_id()?,
            bundle: self.bundle.dir.clone(),
            rootfs,
            owner: host.euid,
            annotations: self.bundle.annotations(),
            cgroup: plan.cgroup.as_ref().map(|cgroup| cgroup.path.clone()),
            unit: manager.map(|manager| manager.unit.clone()),
            no_cgroup: plan.cgroup.is_none(),
            rdt: plan.rdt.as_ref().map(|rdt| rdt.groups.clone()),
            mounts_in_place: match (&plan.rootfs, plan.namespaces.joins(clone::NEWNS)) {
                (Some(rootfs), false) => rootfs.mounts_in_place(),
                _ => Vec::new(),
            },
            at_once: self.starts_at_once(plan),
            private_pids: plan.namespaces.creates(clone::NEWPID),
            hooks: plan.hooks.clone(),
            start_seconds: plan
                .hooks
                .start_container
                .iter()
                .map(|hook| hook.timeout)
                .sum(),
            notify: plan
                .process
                .seccomp
                .as_ref()
                .and_then(|filter| filter.notify.clone()),
            ..State::default()
        })
    }

    /// What is there to be used, before anything is made.
    fn check(&self, plan: &Plan) -> Result<()> {
        self.check_terminal(plan)?;
        self.flags
            .pid_file
            .as_deref()
            .map_or(Ok(()), pid_file::check)?;
        lsm::check(&plan.process.labels, self.bundle.mount_label())?;
        if let Some(cgroup) = &plan.cgroup {
            controllers::check(&cgroup.mount, &cgroup.resources)?;
        }
        check_rdt(plan)?;
        id_maps::check_joined(&plan.namespaces)?;
        self.bundle.check_files()?;
        check_preserved(plan.process.preserve_fds)
    }

    fn check_terminal(&self, plan: &Plan) -> Result<()> {
        let has_terminal = plan.process.terminal.is_some();
        let socket = self.flags.console_socket.is_some();
        let program = normalize::called();
        ensure!(
            socket || !has_terminal || !self.detached,
            "process.terminal: cannot allocate tty if {program} will detach without setting console socket; set process.terminal \
             to false, or give --console-socket"
        );
        ensure!(
            !socket || has_terminal && self.detached,
            "cannot use console socket if {program} will not detach or allocate tty: leave --console-socket out, \
             or set process.terminal to true"
        );
        match has_terminal && !self.detached {
            true => foreground::check_stdin(),
            false => Ok(()),
        }
    }
}

/// Writes the warnings of a plan to the log, and the whole plan with --debug.
pub fn tell_of(plan: &Plan) {
    if log::is_verbose() {
        plan.to_string().lines().for_each(log::debug);
    }
    plan.warnings.iter().for_each(|warning| log::warn(warning));
}

/// The kernel joins a keyring that has the name already, whoever has made it. With a random part in the name there is
/// none. `exec` reads the name in the container's directory, which nobody else can read.
fn make_unguessable(keyring: Option<&mut String>) -> Result<()> {
    if let Some(name) = keyring {
        name.push_str(&format!("-{:032x}", cred::random()?));
    }
    Ok(())
}

/// Before anybody is told of the container.
fn record_init(slot: &mut Slot, state: &mut State) -> Result<()> {
    state.created = log::rfc3339_nanos(SystemTime::now());
    slot.save(state)?;
    ensure!(!slot.is_deleted(), "the record has no effect any more");
    timings::step(|| "write the record".to_string());
    Ok(())
}

/// `None` if systemd is not wanted, or is out of reach and nothing needs it.
fn reach_systemd(plan: &Plan) -> Result<Option<Manager>> {
    let Some(cgroup) = &plan.cgroup else {
        return Ok(None);
    };
    let Some(scope) = &cgroup.unit else {
        return Ok(None);
    };
    match Manager::reach(scope) {
        Err(error) if cgroup.optional => {
            log::debug(&format!("{error:#}"));
            Ok(None)
        }
        reached => reached.map(Some),
    }
}

/// While init waits: its cgroup, with the limits that others are born with.
fn enter_scope(
    whole: &Plan,
    manager: &mut Manager,
    slot: &Slot,
    born: &mut Born,
) -> Result<Option<Cgroup>> {
    let Some(plan) = &whole.cgroup else {
        return Ok(None);
    };
    let cgroup = Cgroup::create_scope(plan, manager, born.init.pid)?;
    slot.claim_cgroup(&cgroup)?;
    born.state.cgroup = Some(cgroup.path.clone());
    cgroup.limit(plan)?;
    if !whole.mounts_a_device() {
        cgroup.restrict(plan)?;
    }
    correct_properties(&cgroup, plan, manager)?;
    cgroup.lead_below(plan, born.init.pid)?;
    timings::step(|| "have systemd make the scope, with limits".to_string());
    Ok(Some(cgroup))
}

/// Which of two files a limit goes to is seen only now that the scope has its files.
fn correct_properties(cgroup: &Cgroup, plan: &CgroupPlan, manager: &Manager) -> Result<()> {
    let settings = &plan.resources.settings;
    let known = plan.unit.iter().flat_map(|scope| &scope.properties);
    let stays = |property: &Property| {
        let mut known = known.clone();
        known.any(|other| other == property || (other.asked && other.name == property.name))
    };
    let mut properties = systemd::limits(&cgroup.found(settings))?;
    properties.retain(|property| !stays(property));
    match properties.is_empty() {
        true => Ok(()),
        false => manager.unit.set(&properties),
    }
}

/// Before there is a record that claims the groups.
fn check_rdt(plan: &Plan) -> Result<()> {
    let Some(rdt) = &plan.rdt else {
        return Ok(());
    };
    let root = Path::new(resctrl::ROOT);
    resctrl::check_mounted(root)?;
    resctrl::check(root, rdt)
}

/// Leaves the container as it is when this process ends.
pub fn keep(slot: Slot, state: State, resources: Resources) -> Container {
    if let Some(rdt) = resources.rdt {
        rdt.keep();
    }
    if let Some(cgroup) = resources.cgroup {
        cgroup.keep();
    }
    slot.keep(state)
}

/// After init's end; gives the error that is to be told.
fn undo(slot: &Slot, state: &State, resources: Resources, error: Error) -> Error {
    let error = give_up(slot, state, resources, error);
    delete::run_poststop_hooks(&slot.dir, state);
    error
}

/// The same before anything was launched.
fn give_up(slot: &Slot, state: &State, resources: Resources, error: Error) -> Error {
    let error = slot.explain(error);
    // Where another command takes too long over it, nothing is gained by leaving more behind.
    let alone = locks::alone(&slot.dir).ok();
    drop(resources);
    delete::unmount_in_place(state);
    drop(alone);
    error
}

/// Connected before anything is made, so that a missing listener costs nothing.
pub struct Sockets {
    pub console: Option<OwnedFd>,
    pub pidfd: Option<OwnedFd>,
}

impl Sockets {
    pub fn connect(console: &Option<PathBuf>, pidfd: &Option<PathBuf>) -> Result<Sockets> {
        let connect = |path: &Option<PathBuf>, flag: &'static str| {
            let connected = path
                .as_deref()
                .map(|path| wait::connect(path, SockType::Stream));
            connected.transpose().context(flag)
        };
        Ok(Sockets {
            console: connect(console, "--console-socket")?,
            pidfd: connect(pidfd, "--pidfd-socket")?,
        })
    }
}

/// Also marks all other descriptors of the caller: neither hooks nor the container get them.
pub fn check_preserved(count: u32) -> Result<()> {
    for fd in 3..3 + count as i32 {
        // With close-on-exec it is one of this program's own.
        let flags = fcntl(process::callers(fd), FcntlArg::F_GETFD);
        let open = flags.is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0);
        ensure!(
            open,
            "unable to stat preserved-fd {fd}: not open; give --preserve-fds the number of open descriptors"
        );
    }
    process::close_on_exec_from(3 + count as i32)
}
