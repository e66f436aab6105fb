//! PARENT: creates a container, for `create` and `run`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::SockType;

use super::pid_file::{self, PidFile};
use super::rollback::{Rollback, device_filter_first};
use super::spawn::{Spawn, spawn};
use super::{foreground, sd_notify};
use crate::bundle::Bundle;
use crate::cgroup::controllers;
use crate::cli::args::CreateFlags;
use crate::cli::{CgroupManager, Global, Rootless, normalize};
use crate::facility::{id_maps, lsm, resctrl};
use crate::host::Host;
use crate::init::args::Start;
use crate::plan::{Flags, Plan};
use crate::state::claim::StateDirGuard;
use crate::state::record::{Record, boot_id};
use crate::state::store::Store;
use crate::sys::{clone, cred, process, socket, wait};
use crate::systemd::scope::Manager;
use crate::text::{log, timings};

/// What `create` and `run` ask for.
pub struct Request<'a> {
    pub id: &'a str,
    pub flags: &'a CreateFlags,
    pub global: &'a Global,
    pub bundle: Bundle,
    pub verb: Verb,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verb {
    /// Init waits for `start`.
    Create,
    /// `run --detach`: this process ends before the container.
    RunDetached,
    /// `run`: this process waits for the end of the container.
    Run,
}

impl Request<'_> {
    /// Reads the host's facts, and plans the container. Changes nothing.
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

    /// Creates the container. Leaves nothing behind when it fails.
    pub fn create(self, store: &Store) -> Result<Rollback> {
        let (host, mut plan) = self.plan()?;
        self.check(&plan)?;
        log_plan(&plan);
        make_unguessable(plan.process.keyring.as_mut())?;
        let sockets = Sockets::connect(&self.flags.console_socket, &self.pidfd_receiver())?;

        wait::block_termination_signals()?;
        let manager = connect_systemd(&plan)?;
        let state_dir = StateDirGuard::claim(store, self.id)?;
        let state = self.record(&plan, &host, manager.as_ref())?;
        let mut made = Rollback::new(state_dir, state);
        let created = made
            .prepare(&plan)
            .and_then(|()| self.spawn_init(&plan, &host, manager, &mut made))
            .and_then(|()| self.notify_caller(sockets, &mut made));
        match created {
            Ok(()) => Ok(made),
            Err(error) => Err(made.undo(error)),
        }
    }

    /// Makes init, and answers it until it is ready.
    fn spawn_init(
        &self,
        plan: &Plan,
        host: &Host,
        mut manager: Option<Manager>,
        made: &mut Rollback,
    ) -> Result<()> {
        made.was_spawned = true;
        let start = self.start(plan);
        let from = Spawn {
            plan,
            host,
            start,
            start_socket: (start == Start::AtSocket)
                .then(|| made.state_dir.listen())
                .transpose()?,
            target: None,
            is_attachable: manager.is_some(),
        };
        let mut spawned = spawn(from, &made.state, made.cgroup.as_ref())?;
        // Init works meanwhile.
        made.state_dir.save_config(&self.bundle, plan)?;
        if let Some(manager) = &mut manager {
            made.create_scope(plan, manager, &spawned)?;
        } else if !device_filter_first(plan) && !plan.mounts_a_device() {
            made.attach_device_filter(plan)?;
        }
        spawned.configure(&mut made.state, made.cgroup.as_ref())?;
        if start == Start::AtOnce {
            made.record_init()?;
            spawned.start_at_once()?;
        }
        let init = spawned.wait_until_ready(&mut made.state, made.cgroup.as_ref())?;
        made.init = Some(init);
        match start {
            Start::AtOnce => Ok(()),
            Start::AtSocket | Start::AfterReady => made.record_init(),
        }
    }

    /// Returns when init starts: at once, if there is nothing to do between its being ready and its start.
    fn start(&self, plan: &Plan) -> Start {
        let is_told = self.flags.pid_file.is_some() || self.pidfd_receiver().is_some();
        let has_hooks = !plan.hooks.are_none_of_create() || !plan.hooks.start_container.is_empty();
        let is_awaited = plan.process.terminal.is_some() || has_hooks || plan.mounts_a_device();
        // The pid of a program that is born into a pid namespace of others is known last.
        let joins_pid_namespace = plan.namespaces.joins(clone::NEWPID);
        match self.verb {
            Verb::Create => Start::AtSocket,
            _ if is_told || is_awaited || joins_pid_namespace => Start::AfterReady,
            _ => Start::AtOnce,
        }
    }

    fn is_detached(&self) -> bool {
        self.verb != Verb::Run
    }

    /// Sends the terminal and the pidfd to those who asked for them, and writes the pid file.
    fn notify_caller(&self, sockets: Sockets, made: &mut Rollback) -> Result<()> {
        let init = made.init.as_mut().context("there is no init")?;
        let console = init.console.take_if(|_| self.is_detached());
        if let Some((socket, console)) = sockets.console.zip(console) {
            socket::send(socket, b"/dev/ptmx", Some(console.as_fd()))
                .context("--console-socket")?;
        }
        if let Some(socket) = sockets.pidfd {
            socket::send(socket, b"standard", Some(init.pidfd.as_fd()))
                .context("--pidfd-socket")?;
        }
        let file = self.flags.pid_file.as_deref();
        made.pid_file = file
            .map(|file| PidFile::write(file, init.pid))
            .transpose()?;
        Ok(())
    }

    fn pidfd_receiver(&self) -> Option<PathBuf> {
        let annotated = || self.bundle.annotation("run.oci.pidfd_receiver");
        let socket = self.flags.pidfd_socket.clone();
        socket.or_else(|| annotated().map(PathBuf::from))
    }

    fn record(&self, plan: &Plan, host: &Host, manager: Option<&Manager>) -> Result<Record> {
        let rootfs = match &self.bundle.overlay {
            Some(overlay) => overlay.lower.first().cloned().unwrap_or_default(),
            None => self.bundle.rootfs()?,
        };
        Ok(Record {
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
            at_once: self.start(plan) == Start::AtOnce,
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
            ..Record::default()
        })
    }

    /// Refuses what cannot succeed, before anything is made.
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
            socket || !has_terminal || !self.is_detached(),
            "process.terminal: cannot allocate tty if {program} will detach without setting console socket; set process.terminal \
             to false, or give --console-socket"
        );
        ensure!(
            !socket || has_terminal && self.is_detached(),
            "cannot use console socket if {program} will not detach or allocate tty: leave --console-socket out, \
             or set process.terminal to true"
        );
        match has_terminal && !self.is_detached() {
            true => foreground::check_stdin(),
            false => Ok(()),
        }
    }
}

/// Writes the warnings of a plan to the log, and the whole plan with --debug.
pub fn log_plan(plan: &Plan) {
    if log::is_verbose() {
        plan.to_string().lines().for_each(log::debug);
    }
    plan.warnings.iter().for_each(|warning| log::warn(warning));
}

/// Adds a random part to the name of the keyring. The kernel joins a keyring that has the name already, whoever has made it.
/// `exec` reads the name in the container's directory, which nobody else can read.
fn make_unguessable(keyring: Option<&mut String>) -> Result<()> {
    if let Some(name) = keyring {
        name.push_str(&format!("-{:032x}", cred::random()?));
    }
    Ok(())
}

/// Connects to systemd. Returns None if the plan has no scope, or if systemd is out of reach and nothing needs the scope.
fn connect_systemd(plan: &Plan) -> Result<Option<Manager>> {
    let Some(cgroup) = &plan.cgroup else {
        return Ok(None);
    };
    let Some(scope) = &cgroup.unit else {
        return Ok(None);
    };
    match Manager::connect(scope) {
        Err(error) if cgroup.optional => {
            log::debug(&format!("{error:#}"));
            Ok(None)
        }
        reached => reached.map(Some),
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

/// The sockets of the caller. They are connected before anything is made, so a missing listener costs nothing.
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
