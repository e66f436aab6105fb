//! CHILD: carries the plan out, in this order, and becomes the container's program. Never sees a spec.
//!
//! It may look at files and allocate until the credentials are taken on; from the loading of the
//! seccomp filter on it makes raw calls on prepared memory only. It leaves in two ways: exec, or one
//! `Failed` with the whole cause.

pub mod args;
mod console;
mod copyup;
pub mod exec;
pub mod explain;
mod filesystem;
pub mod hotplug;
mod identity;
mod locked_flags;
mod masks;
mod moving;
mod procfs;
pub mod relay;
mod rootfs;
mod steps;
mod streams;
pub mod trees;

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::channel::{ChildEnd, Down, LONGEST, Up};
use crate::facility::lsm;
use crate::init::args::{InitArgs, JoinTarget, Netns, Start};
use crate::init::relay::set_own_oom_score;
use crate::plan::Plan;
use crate::plan::hooks::Hook;
use crate::plan::process::UMASK;
use crate::plan::rootfs::Rootfs;
use crate::plan::scheduling::Affinity;
use crate::programs::hooks;
use crate::protect;
use crate::state::container::Status;
use crate::state::document::report;
use crate::state::record::Record;
use crate::sys::clone::{self, Side};
use crate::sys::confine::Confinement;
use crate::sys::{again, cred, named, net, path, process, socket, tty};
use crate::text::fault::{Coded, coded};
use crate::text::timings;

/// How long a caller of `start` may be silent after it has connected.
const CALLER_TIMEOUT: Duration = Duration::from_secs(5);

pub fn run(plan: &Plan, channel: ChildEnd, args: InitArgs) -> ! {
    let (socket, state) = (args.start_socket, args.state);
    let ready = match set_up(plan, &channel, args) {
        Ok(ready) => ready,
        Err(error) => fail(&channel, error),
    };
    let channel = match wait_for_start(channel, socket) {
        Ok(channel) => channel,
        // Nobody is left who could be told.
        Err(_) => process::exit(1),
    };
    match start(plan, &channel, ready, state) {
        Ok(never) => match never {},
        Err(error) => fail(&channel, error),
    }
}

fn fail(channel: &ChildEnd, error: anyhow::Error) -> ! {
    channel.send(Up::Failed(Coded::of(&error))).ok();
    process::exit(127)
}

/// Does everything up to the last step before the program. Returns in the process that becomes the program.
fn set_up(plan: &Plan, channel: &ChildEnd, mut args: InitArgs) -> Result<exec::Ready> {
    let (socket, start) = (args.start_socket, args.start);
    wait_for_parent(channel, args.waits_for_parent)?;
    let joined = args.target.take().map(|target| join(plan, target));
    let joined = joined.transpose()?.unwrap_or_default();
    let is_born_last = joined.is_apart || args.pid_namespace.is_some();
    take_on_namespaces(plan)?;
    // Some settings are those of the network.
    if !plan.sysctl.is_empty() {
        enter_network(&mut args.netns, channel)?;
    }
    use_procfs(plan, joined.proc.as_ref())?;

    let (terminal, notify_socket) = match &plan.rootfs {
        Some(rootfs) => make_root(plan, rootfs, args, channel)?,
        None => {
            let root = process::root_directory()?;
            (console::open(root, plan, channel, joined.proc)?, None)
        }
    };
    let has_terminal = terminal.is_some();
    console::take_over_stdio(terminal, plan.process.identity.uid)?;
    // The parent's own descriptors came along, and some of the caller. No path of the container may lead through them,
    // and a waiting one holds none of the host.
    let keep = [
        Some(channel.as_fd()),
        socket.map(AsFd::as_fd),
        notify_socket.as_ref().map(AsFd::as_fd),
    ];
    let keep: Vec<BorrowedFd> = keep.into_iter().flatten().collect();
    exec::close_all_but(&keep, plan.process.preserve_fds)?;
    let mut ready = exec::prepare(plan)?;
    ready.notify_socket = notify_socket;
    if is_born_last {
        move_into_pid_namespace(channel)?;
    }
    if has_terminal {
        tty::make_controlling(process::callers(0))?;
    }
    process::set_parent_death_signal(libc::SIGKILL)?;
    timings::step(|| "find the program, prepare its identity".to_string());
    for piece in timings::pieces(LONGEST) {
        channel.send(Up::Timings(piece))?;
    }
    if start != Start::AtOnce {
        channel.send(Up::Ready)?;
    }
    Ok(ready)
}

/// Takes nothing over from the parent's signals, and dies with it from here on.
fn wait_for_parent(channel: &ChildEnd, waits: bool) -> Result<()> {
    timings::restart();
    protect::close_exe_mount();
    process::set_parent_death_signal(libc::SIGKILL)?;
    process::reset_signals()?;
    unblock_signals()?;
    if waits {
        channel.expect(Down::Go)?;
        timings::step(|| "wait for the parent".to_string());
    }
    Ok(())
}

/// How a process has joined a container.
#[derive(Default)]
struct Joined {
    /// The container's pid namespace is for the children of this process, which is not in there.
    is_apart: bool,
    /// A procfs that shows this process, where one is needed. A procfs of the container may not show it.
    proc: Option<OwnedFd>,
}

fn join(plan: &Plan, target: JoinTarget) -> Result<Joined> {
    set_own_oom_score(plan)?;
    let needs_proc = plan.process.terminal.is_some() || has_labels(plan);
    let proc = needs_proc.then(rootfs::trusted_proc).transpose()?;
    target.join()?;
    Ok(Joined {
        is_apart: target.has_pid_namespace(),
        proc,
    })
}

/// Becomes root of its user namespace, and makes and names the other namespaces that it was not born in.
fn take_on_namespaces(plan: &Plan) -> Result<()> {
    enter_time_namespace(plan)?;
    if plan.namespaces.creates(clone::NEWUSER) {
        identity::become_root(&plan.namespaces)?;
    }
    process::set_dumpable(false)?;
    named(nix::unistd::setsid(), || "setsid()".to_string())?;
    process::set_umask(0)?;
    set_affinity(plan)?;
    match plan.namespaces.made_by_init() {
        0 => {}
        flags => clone::unshare(flags)?,
    }
    set_names(plan)?;
    join_keyring(plan)?;
    timings::step(|| "namespaces, names and keyring".to_string());
    Ok(())
}

/// Makes the process that becomes the program, in the pid namespace that is set for the children of this process, and ends.
/// Returns in the new process only. It has nothing that the program will not have but this connection, its memory, and a
/// capability where the filter takes one.
fn move_into_pid_namespace(channel: &ChildEnd) -> Result<()> {
    match clone::clone3(clone::PARENT, None).context("make the process")? {
        Side::Child => {
            named(nix::unistd::setsid(), || "setsid()".to_string())?;
            Ok(())
        }
        Side::Parent { pidfd, .. } => {
            channel.send(Up::Born(pidfd)).ok();
            process::exit(0)
        }
    }
}

/// Makes the root filesystem and goes into it; the hooks of `create` have their turn in between. Returns the terminal and the
/// socket for sd_notify(3).
fn make_root(
    plan: &Plan,
    rootfs: &Rootfs,
    args: InitArgs,
    channel: &ChildEnd,
) -> Result<(Option<OwnedFd>, Option<OwnedFd>)> {
    let InitArgs {
        trees,
        hooks,
        state,
        mut netns,
        pid_namespace,
        ..
    } = args;
    let mut root = rootfs::enter(rootfs, trees, pid_namespace)?;
    timings::step(|| "attach the root".to_string());
    let phases = &rootfs.phases;
    steps::perform_all(&phases.before_network, &mut root)?;
    enter_network(&mut netns, channel)?;
    steps::perform_all(&phases.after_network, &mut root)?;
    if plan.waits_after_mounts() {
        channel.send(Up::Hooks)?;
        channel.expect(Down::Go)?;
    }
    run_create_hooks(&hooks, &root, state)?;
    timings::step(|| "hooks of create".to_string());
    let terminal = console::open(&root, plan, channel, None)?;
    if let Some(terminal) = &terminal {
        console::put_on_console(terminal, &root)?;
    }
    steps::perform_all(&phases.after_hooks, &mut root)?;
    if let Some(namespace) = root.pid_namespace.take() {
        // For the child that this process makes last. Hooks, which were made before, are not in there.
        clone::setns(namespace, clone::NEWPID).context("join the pid namespace")?;
    }
    let notify_socket = root.notify_socket.take();
    rootfs::pivot(rootfs, root)?;
    timings::step(|| "leave the old root".to_string());
    Ok((terminal, notify_socket))
}

/// Once, however often it is called.
fn enter_network(netns: &mut Netns, channel: &ChildEnd) -> Result<()> {
    match std::mem::replace(netns, Netns::Done) {
        Netns::Done => return Ok(()),
        Netns::Inherited => {}
        Netns::FromParent => {
            clone::setns(channel.network()?, clone::NEWNET)?;
            timings::step(|| "wait for the network namespace".to_string());
        }
    }
    net::bring_up_loopback().context("bring up the loopback device")
}

/// From here on the process lives by itself: `create` may end, and does not take it along.
fn wait_for_start(channel: ChildEnd, socket: Option<&OwnedFd>) -> Result<ChildEnd> {
    let order = channel.receive()?.context("the parent is gone")?;
    process::set_parent_death_signal(0)?;
    match (order, socket) {
        (Down::Start, _) => {
            channel.send(Up::Starting)?;
            Ok(channel)
        }
        (Down::Wait, Some(socket)) => {
            channel.send(Up::Waiting)?;
            drop(channel);
            wait_at_socket(socket)
        }
        (order, _) => bail!("unexpected {order:?} from the parent"),
    }
}

/// Takes connections until one asks to start. A caller may end before it does.
fn wait_at_socket(socket: &OwnedFd) -> Result<ChildEnd> {
    process::die_of_signals();
    loop {
        let connection = socket::accept(socket)?;
        // A caller that connects and stops must not keep others from starting the container.
        socket::limit_receive(&connection, CALLER_TIMEOUT)?;
        let connection = ChildEnd::connected(connection);
        if matches!(connection.receive(), Ok(Some(Down::Start)))
            && connection.send(Up::Starting).is_ok()
        {
            return Ok(connection);
        }
    }
}

fn start(
    plan: &Plan,
    channel: &ChildEnd,
    mut ready: exec::Ready,
    state: &Record,
) -> Result<Infallible> {
    if let Some(socket) = ready.notify_socket.take() {
        channel.send(Up::NotifySocket(socket))?;
    }
    run_start_hooks(plan, &ready, state)?;
    exec::execute(plan, channel, ready)
}

/// Their programs come from the image: they are confined as the container's own program.
fn run_start_hooks(plan: &Plan, ready: &exec::Ready, state: &Record) -> Result<()> {
    let list = &plan.hooks.start_container;
    if list.is_empty() {
        return Ok(());
    }
    let list = exec::with_environment(list, ready);
    let confinement = exec::confinement(&plan.process)?;
    let state = line(state, Status::Created)?;
    hooks::run_inside(
        &list,
        "startContainer",
        &state,
        // Init is in the directory of the process by now.
        Path::new("."),
        &confinement,
    )
}

/// Their programs are the host's, so they have the umask of the runtime. Their working directory is the new root, which is not
/// `/` yet.
fn run_create_hooks(list: &[Hook], root: impl AsFd, state: &Record) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    named(nix::unistd::fchdir(root), || "fchdir(new root)".to_string())?;
    let confinement = Confinement {
        umask: Some(UMASK),
        ..Confinement::default()
    };
    let state = line(state, Status::Creating)?;
    hooks::run_inside(
        list,
        "createContainer",
        &state,
        Path::new("."),
        &confinement,
    )
}

/// The state with the pid that a hook inside the container sees.
fn line(state: &Record, status: Status) -> Result<String> {
    report(state, status, std::process::id() as i32).line()
}

fn unblock_signals() -> Result<()> {
    named(process::every_signal().thread_unblock(), || {
        "sigprocmask(unblock all)".to_string()
    })
}

fn join_keyring(plan: &Plan) -> Result<()> {
    let Some(name) = &plan.process.keyring else {
        return Ok(());
    };
    match cred::join_session_keyring(Some(name)) {
        Ok(keyring) => {
            // Refused in some sandboxes; the keyring is private all the same.
            cred::share_keyring(keyring).ok();
            Ok(())
        }
        Err(error) => match crate::sys::errno(&error) {
            // A kernel without keyrings has none that could leak.
            Some(nix::errno::Errno::ENOSYS) => Ok(()),
            Some(nix::errno::Errno::EDQUOT) => {
                Err(error.context(coded("key-quota", "the user's quota of keys is used up; raise kernel.keys.maxkeys, or use --no-new-keyring")))
            }
            _ => Err(error),
        },
    }
}

/// What the caller was bound to does not count. With a wish for the time before only, the kernel decides (config.md).
fn set_affinity(plan: &Plan) -> Result<()> {
    let Affinity { initial, last } = &plan.process.scheduling.affinity;
    match plan.rootfs.is_none() {
        true if !last.is_empty() => process::set_affinity(last)
            .context("process.execCPUAffinity.final: go to these processors"),
        true if !initial.is_empty() => Ok(()),
        _ => process::set_affinity(&process::ALL_PROCESSORS),
    }
}

/// Not as the root of a new user namespace yet: the file for offsets belongs to who this process was at its birth.
fn enter_time_namespace(plan: &Plan) -> Result<()> {
    let namespaces = &plan.namespaces;
    // In a joined user namespace the relay has done it.
    if namespaces.time_offsets.is_empty() || namespaces.joins(clone::NEWUSER) {
        return Ok(());
    }
    clone::open_time_offsets()
        .and_then(|file| clone::make_time_namespace(file, namespaces.offset_lines()))
        .and_then(|()| clone::enter_time_namespace())
        .context("linux.timeOffsets")
}

fn set_names(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        named(nix::unistd::sethostname(name), || {
            format!("sethostname({name:?})")
        })?;
    }
    if let Some(name) = &plan.domainname {
        process::set_domainname(name)?;
    }
    Ok(())
}

/// Sysctls and labels, through a procfs that nothing in the image or in a volume can stand in for.
///
/// `early` was opened before this process joined a container.
fn use_procfs(plan: &Plan, early: Option<&OwnedFd>) -> Result<()> {
    if plan.sysctl.is_empty() && !has_labels(plan) {
        return Ok(());
    }
    let proc = early.map_or_else(rootfs::trusted_proc, |proc| Ok(proc.try_clone()?))?;
    for sysctl in &plan.sysctl {
        let file = Path::new("sys").join(&sysctl.file);
        write_sysctl(&proc, &file, &sysctl.value)
            .with_context(|| format!("linux.sysctl.{}: {}", sysctl.name, sysctl.value))?;
    }
    lsm::set(&plan.process.labels, &proc)
}

fn has_labels(plan: &Plan) -> bool {
    let labels = &plan.process.labels;
    labels.apparmor.is_some() || labels.selinux.is_some()
}

fn write_sysctl(proc: &OwnedFd, file: &Path, value: &str) -> Result<()> {
    let file = path::open_strict(proc, file, libc::O_WRONLY)?;
    let written = again(|| nix::unistd::write(&file, value.as_bytes()));
    named(written, || format!("write({value:?})")).map(drop)
}
