//! PARENT: runs another process in a container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use serde_json::Value;

use super::create::{Sockets, check_preserved, log_plan};
use super::init_process::Init;
use super::pid_file::{self, PidFile};
use super::spawn::{Spawn, raise_hard_limits, spawn};
use super::{foreground, sd_notify};
use crate::bundle::{Bundle, unique_keys};
use crate::cgroup::Cgroup;
use crate::cli::{args, normalize};
use crate::facility::{accounts, id_maps, lsm, ns_files};
use crate::host::Host;
use crate::init::args::{JoinTarget, Start};
use crate::plan::Plan;
use crate::plan::exec::{self, Changes, Saved};
use crate::state::container::{Container, Status};
use crate::state::state_dir::CGROUP;
use crate::sys::{self, caller_file, clone, process, socket};
use crate::systemd::scope;
use crate::text::fault::{self, Coded, coded};
use crate::text::{log, timings};

/// Runs the process that the arguments describe. Returns its exit code, or 0 for one that is detached.
pub fn exec(args: &args::Exec, container: &Container) -> Result<i32> {
    let init = require_running(container, args.ignore_paused)?;
    timings::step(|| "find the container".to_string());
    args.pid_file.as_deref().map_or(Ok(()), pid_file::check)?;
    exec_in(args, container, init).map_err(|error| match fault::code(&error) {
        // The end of the container fails any step, with an error that says nothing of the cause.
        None | Some("killed") if container.is_ending() => stopped().into(),
        _ => error,
    })
}

fn exec_in(args: &args::Exec, container: &Container, init: OwnedFd) -> Result<i32> {
    let mut saved = container.exec_config()?;
    let target = JoinTarget {
        flags: ns_files::differing(container.state.pid, saved.namespaces)?,
        pidfd: init,
    };
    let host = Host::probe()?;
    let mut plan = plan(args, container, &host, &target, &saved)?;
    // No file of a process and no flag can change it. Records of older versions have it in the config.
    if saved.filter.is_some() {
        plan.process.seccomp = saved.filter.take();
    }
    timings::step(|| "plan".to_string());
    check_terminal(args, &plan)?;
    check_preserved(plan.process.preserve_fds)?;
    lsm::check(&plan.process.labels, None)?;
    let sockets = Sockets::connect(&args.console_socket, &args.pidfd_socket)?;
    let cgroup = cgroup(container, &host, &args.cgroup)?;
    let initial = &plan.process.scheduling.affinity.initial;
    if !initial.is_empty() {
        // The process inherits this. It is born in the container's cgroup.
        process::set_affinity(initial)
            .context("process.execCPUAffinity.initial: go to these processors")?;
    }
    // The process inherits these.
    raise_hard_limits(0, &plan);
    if args.detach {
        let mut process = spawn_process(args, container, &plan, &host, target, cgroup.as_ref())?;
        notify_caller(sockets, &mut process)?;
        start(&mut process, args, container)?;
        process.keep();
        return Ok(0);
    }
    let (signals, _) = foreground::block_signals()?;
    let mut process = spawn_process(args, container, &plan, &host, target, cgroup.as_ref())?;
    let console = process.console.take().map(foreground::attach).transpose()?;
    start(&mut process, args, container)?;
    foreground::wait(process.pidfd.as_fd(), console, None, &signals)
}

/// Makes the process, and answers it until it is ready.
fn spawn_process(
    args: &args::Exec,
    container: &Container,
    plan: &Plan,
    host: &Host,
    target: JoinTarget,
    cgroup: Option<&Cgroup>,
) -> Result<Init> {
    let mut state = container.state.clone();
    let unit = container.state.unit.as_ref().zip(cgroup);
    let from = Spawn {
        plan,
        host,
        start: start_of(args, plan),
        start_socket: None,
        target: Some(target),
        is_attachable: unit.is_some(),
    };
    let mut spawned = spawn(from, &state, cgroup)?;
    if let Some((unit, cgroup)) = unit.filter(|_| spawned.needs_attach) {
        unit.attach(below_scope(container, cgroup)?, spawned.init.pid)?;
    }
    spawned.configure(&mut state, cgroup)?;
    if start_of(args, plan) == Start::AtOnce {
        spawned.start_at_once()?;
    }
    spawned.wait_until_ready(&mut state, cgroup)
}

/// Returns when the process starts: at once, if nobody is told of it between its being ready and its start.
fn start_of(args: &args::Exec, plan: &Plan) -> Start {
    let is_told = args.pidfd_socket.is_some() || args.pid_file.is_some();
    match is_told || plan.process.terminal.is_some() {
        true => Start::AfterReady,
        false => Start::AtOnce,
    }
}

fn notify_caller(sockets: Sockets, process: &mut Init) -> Result<()> {
    if let Some((socket, console)) = sockets.console.zip(process.console.take()) {
        socket::send(socket, b"/dev/ptmx", Some(console.as_fd())).context("--console-socket")?;
    }
    if let Some(socket) = sockets.pidfd {
        socket::send(socket, b"setns", Some(process.pidfd.as_fd())).context("--pidfd-socket")?;
    }
    Ok(())
}

/// Starts the process. The pid file is written first: if this process is killed in between, no process lives on whose pid nobody
/// knows. A start that fails leaves no pid file.
fn start(process: &mut Init, args: &args::Exec, container: &Container) -> Result<()> {
    if process.is_running {
        return Ok(());
    }
    let Some(file) = &args.pid_file else {
        return process.start(&container.state);
    };
    let written = PidFile::write(file, process.pid)?;
    process
        .start(&container.state)
        .inspect_err(|_| written.take_back())
}

fn stopped() -> Coded {
    coded("container-state", "cannot exec in a stopped container")
}

/// Returns the init of a container that can be joined.
fn require_running(container: &Container, ignore_paused: bool) -> Result<OwnedFd> {
    let (status, init) = container.status_and_init()?;
    let words = match status {
        Status::Created | Status::Running => return init.with_context(stopped),
        Status::Paused if ignore_paused => return init.with_context(stopped),
        Status::Paused => "cannot exec in a paused container (use --ignore-paused to override)",
        Status::Creating => "cannot exec in a container that is being created",
        Status::Stopped => "cannot exec in a stopped container",
    };
    bail!(coded("container-state", words))
}

fn plan(
    args: &args::Exec,
    container: &Container,
    host: &Host,
    target: &JoinTarget,
    saved: &Saved,
) -> Result<Plan> {
    let process = match &args.process {
        Some(file) => exec::of_file(&saved.process, read(file)?)?,
        None => exec::of_changes(&saved.process, changes(args, saved, container)?)?,
    };
    let config = serde_json::json!({
        "ociVersion": container.state.oci_version,
        "process": process,
        "linux": saved.linux,
        "annotations": container.state.annotations,
    });
    let bundle = Bundle::of_process(container.state.bundle.clone(), &config)?;
    let flags = exec::flags(&args.id, args.preserve_fds, sd_notify::listen_fds(), saved);
    let mut plan = Plan::exec(&bundle, host, &flags, target.flags)?;
    if target.flags & clone::NEWUSER != 0 {
        plan.namespaces.uids = id_maps::read_map(container.state.pid, "uid_map")?;
        // Asked afterwards: then the number was that of init.
        ensure!(!process::has_ended(&target.pidfd), stopped());
    }
    // Before the name of the keyring is known, which is a secret.
    log_plan(&plan);
    plan.process.keyring.clone_from(&saved.keyring);
    Ok(plan)
}

fn read(file: &Path) -> Result<Value> {
    let text = caller_file::read(file).with_context(|| format!("--process: read {file:?}"))?;
    unique_keys::read(&text).with_context(|| format!("--process: {}", file.display()))
}

fn changes(args: &args::Exec, saved: &Saved, container: &Container) -> Result<Changes> {
    ensure!(
        !args.command.is_empty(),
        "exec: no command given; give one after the ID, or --process"
    );
    let mut groups = args.additional_gids.clone();
    let mut user = None;
    if let Some(text) = &args.user {
        let gid = saved.process["user"]["gid"].as_u64().unwrap_or(0) as u32;
        let found = accounts::resolve(text, &root_of(container)?, gid)?;
        user = Some((found.uid, found.gid));
        groups.extend(found.groups.unwrap_or_default());
    }
    Ok(Changes {
        args: args.command.clone(),
        env: args.env.clone(),
        cwd: args.cwd.clone(),
        terminal: args.tty,
        user,
        groups,
        capabilities: args.cap.clone(),
        no_new_privileges: args.no_new_privs,
        apparmor: args.apparmor.clone(),
        label: args.process_label.clone(),
    })
}

/// The container's root, to look at files in it.
fn root_of(container: &Container) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", container.state.pid);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = sys::again(|| nix::fcntl::open(path.as_str(), flags, Mode::empty()));
    let root = sys::named(opened, || format!("open {path}"))?;
    // Asked afterwards: then the number was that of init when its root was opened.
    container.init()?.with_context(stopped)?;
    Ok(root)
}

fn check_terminal(args: &args::Exec, plan: &Plan) -> Result<()> {
    let has_terminal = plan.process.terminal.is_some();
    let socket = args.console_socket.is_some();
    let program = normalize::called();
    ensure!(
        socket || !has_terminal || !args.detach,
        "process.terminal: cannot allocate tty if {program} will detach without setting console socket; give --console-socket"
    );
    ensure!(
        !socket || has_terminal && args.detach,
        "cannot use console socket if {program} will not detach or allocate tty: leave --console-socket out"
    );
    match has_terminal && !args.detach {
        true => foreground::check_stdin(),
        false => Ok(()),
    }
}

/// Returns the container's cgroup, or the one that is asked for below it. None if the container was made without one.
///
/// cgroups(7): no process may be where controllers are handed on. An init that does so has gone below, and there one goes too;
/// that of a scope may have begun there. An init in the host's cgroup namespace may have left the cgroup and removed it.
fn cgroup(container: &Container, host: &Host, asked: &[String]) -> Result<Option<Cgroup>> {
    let present = || present_cgroup(&host.cgroup.mount, container.state.pid);
    let path = match (container.cgroup()?, asked) {
        (None, []) if container.dir.has(CGROUP) => {
            present().context("the container's cgroup is gone")?
        }
        (None, []) => return Ok(None),
        (None, _) if container.dir.has(CGROUP) => {
            bail!("--cgroup: the container's cgroup is gone; leave the flag out")
        }
        (None, _) => bail!("--cgroup: the container has no cgroup of its own"),
        (Some(own), []) if own.delegates_controllers() || container.state.unit.is_some() => {
            let below = present().ok().filter(|path| path.starts_with(&own.path));
            below.unwrap_or(own.path.clone())
        }
        (Some(own), []) => own.path.clone(),
        (Some(own), asked) => own.path.join(parse_sub_cgroup(asked)?),
    };
    let found = Cgroup::at(&path).with_context(|| match asked {
        [] => format!("the container's cgroup {}", path.display()),
        _ => format!("--cgroup: {}", path.display()),
    });
    log::debug(&format!(
        "join process {}, in cgroup {}",
        container.state.pid,
        path.display()
    ));
    found.map(Some)
}

/// As systemd is told of it.
fn below_scope<'a>(container: &Container, cgroup: &'a Cgroup) -> Result<&'a Path> {
    let scope = container
        .cgroup()?
        .context("the container's scope is gone")?;
    let below = cgroup.path.strip_prefix(&scope.path);
    below.with_context(|| format!("{} is outside of the scope", cgroup.path.display()))
}

/// `PATH` or `CONTROLLER[,CONTROLLER]:PATH`, below the container's cgroup. In cgroup v2 all controllers have the same.
fn parse_sub_cgroup(asked: &[String]) -> Result<PathBuf> {
    let mut paths = Vec::new();
    for text in asked {
        let path = text.split_once(':').map_or(text.as_str(), |(_, path)| path);
        let path = Path::new(path.trim_start_matches('/'));
        let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        ensure!(
            path.components().all(plain) && text.matches(':').count() < 2,
            "--cgroup: {text:?}: must be PATH or CONTROLLER:PATH, below the container's cgroup"
        );
        let names = path.components().filter(|part| *part != Component::CurDir);
        paths.push(names.collect::<PathBuf>());
    }
    ensure!(
        paths.windows(2).all(|pair| pair[0] == pair[1]),
        "--cgroup: {asked:?}: cgroup v2 has one for all controllers; give one path"
    );
    Ok(paths.pop().unwrap_or_default())
}

/// Returns the cgroup in which a process is. Fails for the top of the tree, where no limit holds, and for one that this process's
/// cgroup namespace does not show: its path begins with "/.." (cgroup_namespaces(7)).
fn present_cgroup(mount: &Path, pid: i32) -> Result<PathBuf> {
    let path = scope::cgroup_of(&pid.to_string())?;
    let plain = |part| matches!(part, Component::Normal(_));
    ensure!(
        path != Path::new("") && path.components().all(plain),
        "container init is in /{}, where no limit of the container holds, or which cannot be seen from here; \
         put process {pid} into a cgroup below {}",
        path.display(),
        mount.display()
    );
    Ok(mount.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_below_the_containers_and_one_for_all_controllers() {
        let parse = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(ToString::to_string).collect();
            super::parse_sub_cgroup(&asked).map_err(|error| error.to_string())
        };
        for (asked, path) in [
            (&["a/b"][..], "a/b"),
            (&["/a"], "a"),
            (&["/"], ""),
            (&[""], ""),
            (&["./a//b/"], "a/b"),
            (&["memory:/a"], "a"),
            (&["cpu,memory:a", ":a"], "a"),
        ] {
            assert_eq!(parse(asked).unwrap(), PathBuf::from(path), "{asked:?}");
        }
        for asked in ["..", "a/../b", "/..", "a:b:c", "a:..", "..:a:b"] {
            let fault = parse(&[asked]).unwrap_err();
            assert!(fault.contains("must be PATH or CONTROLLER:PATH"), "{fault}");
        }
        let fault = parse(&["memory:a", "cpu:b"]).unwrap_err();
        assert!(fault.ends_with("give one path"), "{fault}");
    }
}
