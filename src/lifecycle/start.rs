//! PARENT: starts the program of a container, and says how that went.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::init_process::sent_or_peer_gone;
use super::{remove, sd_notify, seccomp_notify};
use crate::channel::{Down, ParentEnd, STEP_TIMEOUT, Up};
use crate::programs::hooks;
use crate::state::container::{Container, Status};
use crate::state::record::Record;
use crate::state::store::Store;
use crate::supervise::{self, AwaitedInit};
use crate::sys::stat::Stat;
use crate::sys::{self, process, wait};
use crate::text::fault::{Coded, coded};
use crate::text::{log, timings};

/// Starts the program of a created container. Returns when the program runs, and says that it is ready where it is asked to.
pub fn start(id: &str, store: &Store) -> Result<()> {
    let container = find(id, store)?;
    let init = require_created(&container)?;
    let cgroup = container.cgroup()?;
    let mut awaited_init = AwaitedInit::new(container.state.pid, &init, "start");
    awaited_init.cgroup = cgroup.as_ref();
    let connection = connect(&container, &awaited_init)?;
    timings::step(|| "find the container".to_string());
    let started = request_start(&connection, &container.state, awaited_init);
    if started
        .as_ref()
        .is_err_and(|error| hooks::has_failed(error, "startContainer"))
    {
        destroy(&container);
    }
    let Some(started) = started? else {
        bail!(peer_gone_error(&container, &init));
    };
    check_survival(&container, &init)?;
    timings::step(|| "startContainer hooks, seccomp, exec".to_string());
    container.remove_start_socket()?;
    run_poststart_hooks(&container).inspect_err(|_| destroy(&container))?;
    if let Some(socket) = started.notify_socket {
        sd_notify::wait_until_ready(socket, container.state.pid, &init)?;
    }
    Ok(())
}

/// A container whose program runs.
#[derive(Default)]
pub struct Started {
    /// The socket on which the program tells that it is ready (sd_notify(3)), if it was created with one.
    pub notify_socket: Option<OwnedFd>,
}

/// Says start, over the launch's channel or the gate's, and waits for the program. Returns None if init is gone, or was started
/// by another.
pub fn request_start(
    channel: &ParentEnd,
    state: &Record,
    init: AwaitedInit,
) -> Result<Option<Started>> {
    if !sent_or_peer_gone(channel.send(Down::Start))? {
        return Ok(None);
    }
    match supervise::recv_from_init(channel, &init)? {
        Some(Up::Starting) => {}
        Some(Up::Failed(failure)) => bail!(failure),
        None => return Ok(None),
        Some(other) => bail!("unexpected {other:?} from the container's init"),
    }
    wait_for_exec(channel, state, init).map(Some)
}

/// The connection closes on exec: its end without a word is success.
pub fn wait_for_exec(
    channel: &ParentEnd,
    state: &Record,
    mut init: AwaitedInit,
) -> Result<Started> {
    let mut started = Started::default();
    init.limit = state.start_limit().map(|hooks| hooks + STEP_TIMEOUT);
    loop {
        match supervise::recv_from_init(channel, &init)? {
            None => return Ok(started),
            Some(Up::NotifySocket(socket)) => started.notify_socket = Some(socket),
            Some(Up::Listener(number, listener)) => {
                seccomp_notify::hand_over(state, (init.pid, init.pidfd), number, listener)?;
                sent_or_peer_gone(channel.send(Down::Go))?;
            }
            Some(Up::Failed(failure)) => bail!(failure),
            Some(other) => bail!("unexpected {other:?} from the container's init"),
        }
    }
}

/// How long a create may still be at work.
const CREATION_TIMEOUT: Duration = Duration::from_secs(10);

/// Returns the container as soon as nobody is creating it, or when that takes too long. A hook of the creation does not wait: its
/// creator waits for it.
fn find(id: &str, store: &Store) -> Result<Container> {
    let deadline = Instant::now() + CREATION_TIMEOUT;
    loop {
        let container = store.find(id)?;
        let creator = match container.state.pid {
            0 if !container.damaged => container.creator()?,
            _ => None,
        };
        if creator.is_none_or(is_above) || Instant::now() >= deadline {
            return Ok(container);
        }
        sleep(Duration::from_millis(2));
    }
}

/// Whether this process descends from another one.
fn is_above(other: i32) -> bool {
    let parent = |pid: &i32| Stat::of(*pid).ok().flatten()?.parent();
    let own = std::process::id() as i32;
    std::iter::successors(Some(own), parent).any(|pid| pid == other)
}

/// Returns the init of a created container.
fn require_created(container: &Container) -> Result<OwnedFd> {
    let (status, init) = container.status_and_init()?;
    let words = match status {
        Status::Created => return init.with_context(|| stopped(container)),
        Status::Running => ALREADY_RUNNING,
        Status::Creating => "cannot start a container that is being created",
        Status::Paused => "cannot start a container in the paused state",
        Status::Stopped => bail!(stopped(container)),
    };
    bail!(coded("container-state", words))
}

/// Connects to an init that waits to be started. Nobody listens where another caller has started it meanwhile.
fn connect(container: &Container, init: &AwaitedInit) -> Result<ParentEnd> {
    match container.connect_start_socket() {
        Ok(socket) => Ok(ParentEnd::connected(socket)),
        Err(_) if process::has_ended(init.pidfd) => bail!(stopped(container)),
        Err(error) if sys::errno(&error) == Some(Errno::EAGAIN) => {
            init.check_not_stalled()?;
            Err(error.context("start: container init does not answer"))
        }
        Err(_) => bail!(coded("container-state", ALREADY_RUNNING)),
    }
}

/// A connection has no peer any more where init was killed meanwhile, and where it went to its program for another caller.
fn peer_gone_error(container: &Container, init: &OwnedFd) -> Coded {
    match wait::wait_exit(init, EXIT_GRACE) {
        true => stopped(container),
        false => coded("container-state", ALREADY_RUNNING),
    }
}

const ALREADY_RUNNING: &str = "cannot start an already running container";

/// For what is about to end.
const EXIT_GRACE: Duration = Duration::from_millis(100);

/// A filter may kill for the very call that executes the program, which no process can tell any more. Who has no memory
/// left is ending (proc_pid_exe(5)); how, is to be read while nobody has waited for it.
fn check_survival(container: &Container, init: &OwnedFd) -> Result<()> {
    let exe = format!("/proc/{}/exe", container.state.pid);
    let gone = |error: std::io::Error| error.kind() == ErrorKind::NotFound;
    if !std::fs::read_link(exe).is_err_and(gone) {
        return Ok(());
    }
    wait::wait_exit(init, EXIT_GRACE);
    match container.exit_status().map(|status| status & 0x7f) {
        Some(libc::SIGSYS) => bail!(coded("seccomp-killed", KILLED_BY_SECCOMP)),
        _ => Ok(()),
    }
}

/// Of a program that ended by SIGSYS.
pub const KILLED_BY_SECCOMP: &str = "the container's program was killed by signal 31 (SIGSYS): the filter of linux.seccomp kills for a \
                            call that it needs; the kernel's audit log names the call (ausearch -m SECCOMP, or dmesg)";

/// How its init ended is known while nobody has waited for that, or when the kernel has counted why.
fn stopped(container: &Container) -> Coded {
    let what = "cannot start a container that has stopped";
    let cgroup = container.cgroup().ok().flatten();
    if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.oom_kills() > 0) {
        return coded("oom-killed", format!("{what}: {}", cgroup.out_of_memory()));
    }
    let ended = container.exit_status().map(describe_exit);
    let ended = ended.map_or_else(String::new, |ended| format!(": its init {ended}"));
    coded(
        "container-state",
        format!("{what}{ended}; delete it, and create it again"),
    )
}

fn describe_exit(status: i32) -> String {
    match status & 0x7f {
        0 => format!("exited with status {}", status >> 8),
        signal => format!("was killed by signal {signal}"),
    }
}

/// runtime.md, "Lifecycle": after a hook has failed it goes on as for `delete`, with the poststop hooks.
fn destroy(container: &Container) {
    if let Err(error) = remove::remove(container) {
        log::warn(&format!("remove the container: {error:#}"));
    }
}

/// A failure stops the container.
pub fn run_poststart_hooks(container: &Container) -> Result<()> {
    let list = &container.state.hooks.poststart;
    if list.is_empty() {
        return Ok(());
    }
    // They get none of the caller's files.
    process::close_on_exec_from(3)?;
    let json = container.report(Status::Running).line()?;
    let done = hooks::run(list, "poststart", &json, &container.state.bundle);
    timings::step(|| "poststart hooks".to_string());
    done.inspect_err(|_| drop(remove::kill_all(container)))
}

#[cfg(test)]
mod tests {
    use super::describe_exit;

    #[test]
    fn the_end_of_a_process_is_told() {
        assert_eq!(describe_exit(3 << 8), "exited with status 3");
        assert_eq!(describe_exit(9), "was killed by signal 9");
    }
}
