//! `create`: makes a container that waits to be started. What `run` shares with it is here too.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FcntlArg, fcntl};
use nix::mount::{MntFlags, umount2};
use nix::sys::socket::SockType;

use crate::bundle::Bundle;
use crate::cgroup::{Cgroup, controllers};
use crate::cli::{Global, Rootless};
use crate::container::{Slot, State, Status, Store, boot_id, report};
use crate::flags::{self, CreateFlags};
use crate::host::Host;
use crate::launch::{Init, Launch};
use crate::plan::{Flags, Plan};
use crate::sys::{self, clone, process, socket};
use crate::{hooks, idmap, intelrdt, log, lsm, selfexe, timings};

pub fn run(args: &flags::Create, global: &Global, store: &Store) -> Result<i32> {
    let flags = &args.flags;
    if !flags.dry_run {
        selfexe::protect()?;
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
    let made = request.make(store)?;
    let Made {
        init,
        slot,
        cgroup,
        rdt,
        ..
    } = made;
    // Until init has said that it waits it would die with this process, and nothing would be left behind.
    init.leave_waiting()?;
    timings::step(|| "leave init waiting".to_string());
    keep(slot, cgroup, rdt);
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
    pub cgroup: Option<Cgroup>,
    pub rdt: Option<intelrdt::Made>,
    pub slot: Slot,
    pub state: State,
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
            listen_fds: listen_fds(),
            systemd_cgroup: self.global.systemd_cgroup,
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
        let (host, plan) = self.plan()?;
        self.check_terminal(&plan)?;
        lsm::check(&plan.process.labels, self.bundle.mount_label())?;
        if let Some(cgroup) = &plan.cgroup {
            controllers::check(&cgroup.mount, &cgroup.resources)?;
        }
        check_rdt(&plan)?;
        idmap::check_joined(&plan.namespaces)?;
        self.bundle.check_files()?;
        check_preserved(plan.process.preserve_fds)?;
        if log::is_verbose() {
            plan.to_string().lines().for_each(log::debug);
        }
        plan.warnings.iter().for_each(|warning| log::warn(warning));
        let receiver = self
            .bundle
            .annotation("run.oci.pidfd_receiver")
            .map(PathBuf::from);
        let pidfd = self.flags.pidfd_socket.clone().or(receiver);
        let sockets = Sockets::connect(&self.flags.console_socket, &pidfd)?;

        let mut slot = store.claim(self.id)?;
        let mut state = self.record(&plan, &host)?;
        slot.save(&state)?;
        slot.save_config(&self.bundle, &plan)?;
        timings::step(|| "claim the id, write the record".to_string());
        let (init, cgroup, rdt) = self.launch(&plan, &host, &mut slot, &mut state)?;
        let mut made = Made {
            init,
            cgroup,
            rdt,
            slot,
            state,
        };
        match self.finish(&mut made, sockets) {
            Ok(()) => Ok(made),
            Err(error) => {
                let Made { state, .. } = made;
                take_down(&state);
                Err(error)
            }
        }
    }

    /// The cgroup and its limits first: init is born with them.
    fn launch(
        &self,
        plan: &Plan,
        host: &Host,
        slot: &mut Slot,
        state: &mut State,
    ) -> Result<(Init, Option<Cgroup>, Option<intelrdt::Made>)> {
        let cgroup = plan
            .cgroup
            .as_ref()
            .map(Cgroup::create)
            .transpose()?
            .flatten();
        if let Some((cgroup, plan)) = cgroup.as_ref().zip(plan.cgroup.as_ref()) {
            slot.claim_cgroup(cgroup)?;
            cgroup.apply(plan)?;
            timings::step(|| "make the cgroup, with limits and device rules".to_string());
        }
        let make_groups = |rdt| intelrdt::make(Path::new(intelrdt::ROOT), rdt);
        let rdt = plan.rdt.as_ref().map(make_groups).transpose()?;
        let gate = if self.waits {
            Some(slot.listen()?)
        } else {
            None
        };
        let launch = Launch {
            target: None,
            plan,
            host,
            cgroup: cgroup.as_ref(),
            gate,
            state,
        };
        match launch.run() {
            Ok(init) => Ok((init, cgroup, rdt)),
            Err(error) => {
                drop((cgroup, rdt));
                take_down(state);
                Err(error)
            }
        }
    }

    /// The record of a created container is written before anybody is told of it.
    fn finish(&self, made: &mut Made, sockets: Sockets) -> Result<()> {
        made.state.created = log::rfc3339_nanos(SystemTime::now());
        made.slot.save(&made.state)?;
        timings::step(|| "write the record".to_string());
        if let Some((socket, console)) = sockets
            .console
            .zip(made.init.console.take_if(|_| self.detached))
        {
            socket::send(socket, b"/dev/ptmx", Some(console.as_fd()))
                .context("--console-socket")?;
        }
        if let Some(socket) = sockets.pidfd {
            socket::send(socket, b"standard", Some(made.init.pidfd.as_fd()))
                .context("--pidfd-socket")?;
        }
        if let Some(file) = &self.flags.pid_file {
            write_pid_file(file, made.init.pid)?;
        }
        Ok(())
    }

    fn record(&self, plan: &Plan, host: &Host) -> Result<State> {
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
            rdt: plan.rdt.as_ref().map(|rdt| rdt.groups.clone()),
            mounts_in_place: match (&plan.rootfs, plan.namespaces.joins(clone::NEWNS)) {
                (Some(rootfs), false) => rootfs.mounts_in_place(),
                _ => Vec::new(),
            },
            private_pids: plan.namespaces.creates(clone::NEWPID),
            hooks: plan.hooks.clone(),
            notify: plan
                .process
                .seccomp
                .as_ref()
                .and_then(|filter| filter.notify.clone()),
            ..State::default()
        })
    }

    fn check_terminal(&self, plan: &Plan) -> Result<()> {
        let terminal = plan.process.terminal.is_some();
        let socket = self.flags.console_socket.is_some();
        ensure!(
            socket || !terminal || !self.detached,
            "process.terminal: cannot allocate tty if cofferdam will detach without setting console socket; set process.terminal \
             to false, or give --console-socket"
        );
        ensure!(
            !socket || terminal && self.detached,
            "cannot use console socket if cofferdam will not detach or allocate tty: leave --console-socket out, \
             or set process.terminal to true"
        );
        Ok(())
    }
}

/// Before there is a record that claims the groups.
fn check_rdt(plan: &Plan) -> Result<()> {
    let Some(rdt) = &plan.rdt else {
        return Ok(());
    };
    let root = Path::new(intelrdt::ROOT);
    intelrdt::check_mounted(root)?;
    intelrdt::check(root, rdt)
}

/// Leaves the container as it is when this process ends.
pub fn keep(slot: Slot, cgroup: Option<Cgroup>, rdt: Option<intelrdt::Made>) {
    slot.keep();
    if let Some(rdt) = rdt {
        rdt.keep();
    }
    if let Some(cgroup) = cgroup {
        cgroup.keep();
    }
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
                .as_ref()
                .map(|path| socket::connect_to(path, SockType::Stream));
            connected.transpose().context(flag)
        };
        Ok(Sockets {
            console: connect(console, "--console-socket")?,
            pidfd: connect(pidfd, "--pidfd-socket")?,
        })
    }
}

/// After the last process: mounts in the caller's tree go, and poststop hooks take down what createRuntime
/// hooks have set up (runtime.md, "Lifecycle", step 13).
pub fn take_down(state: &State) {
    unmount_in_place(state);
    let list = &state.hooks.poststop;
    if list.is_empty() {
        return;
    }
    // The bundle may be gone by now.
    let directory = Some(state.bundle.as_path()).filter(|dir| dir.is_dir());
    match report(state, Status::Stopped, 0).line() {
        Ok(json) => hooks::run_all(list, "poststop", &json, directory.unwrap_or(Path::new("/"))),
        Err(error) => log::warn(&format!("poststop hooks: {error:#}")),
    }
}

/// Without a mount namespace nobody else would.
fn unmount_in_place(state: &State) {
    let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
    for target in state.mounts_in_place.iter().rev() {
        // What was not reached is not mounted.
        umount2(target, flags).ok();
    }
}

/// sd_listen_fds(3): the service manager has opened so many from 3 on.
pub fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

/// Also marks all other descriptors of the caller: neither hooks nor the container get them.
pub fn check_preserved(count: u32) -> Result<()> {
    for fd in 3..3 + count as i32 {
        let open = fcntl(process::callers(fd), FcntlArg::F_GETFD).is_ok();
        ensure!(
            open,
            "unable to stat preserved-fd {fd}: not open; give --preserve-fds the number of open descriptors"
        );
    }
    process::close_on_exec_from(3 + count as i32)
}

/// Whole or not at all, for readers that poll; without a newline, which some do not expect.
pub fn write_pid_file(file: &Path, pid: i32) -> Result<()> {
    let name = file
        .file_name()
        .context("--pid-file: names no file")?
        .to_string_lossy();
    let temporary = file.with_file_name(format!(".{name}.{pid}"));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut open| write!(open, "{pid}"))
        .and_then(|()| std::fs::rename(&temporary, file));
    sys::io(written)
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        .with_context(|| format!("--pid-file: write {file:?}"))
}
