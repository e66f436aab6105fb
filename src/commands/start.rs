//! `start`: lets the init of a created container go on to its program, and says how that went.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use super::delete;
use crate::channel::ParentEnd;
use crate::cli::args;
use crate::lifecycle::sd_notify;
use crate::lifecycle::start::start_over;
use crate::programs::hooks;
use crate::state::container::{Container, Status, Store};
use crate::supervise::AwaitedInit;
use crate::sys::stat::Stat;
use crate::sys::{self, process, wait};
use crate::text::fault::{Coded, coded};
use crate::text::{log, timings};

pub fn run(args: &args::Start, store: &Store) -> Result<i32> {
    let container = find(&args.id, store)?;
    let init = living(&container)?;
    let cgroup = container.cgroup()?;
    let mut awaited_init = AwaitedInit::new(container.state.pid, &init, "start");
    awaited_init.cgroup = cgroup.as_ref();
    let gate = gate(&container, &awaited_init)?;
    timings::step(|| "find the container".to_string());
    let started = start_over(&gate, &container.state, awaited_init);
    if started
        .as_ref()
        .is_err_and(|error| hooks::has_failed(error, "startContainer"))
    {
        destroy(&container);
    }
    let Some(started) = started? else {
        bail!(lost(&container, &init));
    };
    check_survival(&container, &init)?;
    timings::step(|| "startContainer hooks, seccomp, exec".to_string());
    container.close_gate()?;
    run_poststart_hooks(&container).inspect_err(|_| destroy(&container))?;
    if let Some(socket) = started.notify_socket {
        sd_notify::wait_until_ready(socket, container.state.pid, &init)?;
    }
    Ok(0)
}

/// How long a create may still be at work.
const CREATION: Duration = Duration::from_secs(10);

/// Returns the container as soon as nobody is creating it, or when that takes too long. A hook of the creation does not wait: its
/// creator waits for it.
fn find(id: &str, store: &Store) -> Result<Container> {
    let deadline = Instant::now() + CREATION;
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
fn living(container: &Container) -> Result<OwnedFd> {
    let (status, init) = container.look()?;
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
fn gate(container: &Container, init: &AwaitedInit) -> Result<ParentEnd> {
    match container.gate() {
        Ok(gate) => Ok(ParentEnd::connected(gate)),
        Err(_) if process::has_ended(init.pidfd) => bail!(stopped(container)),
        Err(error) if sys::errno(&error) == Some(Errno::EAGAIN) => {
            init.check_not_stalled()?;
            Err(error.context("start: container init does not answer"))
        }
        Err(_) => bail!(coded("container-state", ALREADY_RUNNING)),
    }
}

/// A connection has no peer any more where init was killed meanwhile, and where it went to its program for another caller.
fn lost(container: &Container, init: &OwnedFd) -> Coded {
    match wait::wait_exit(init, MOMENT) {
        true => stopped(container),
        false => coded("container-state", ALREADY_RUNNING),
    }
}

const ALREADY_RUNNING: &str = "cannot start an already running container";

/// For what is about to end.
const MOMENT: Duration = Duration::from_millis(100);

/// A filter may kill for the very call that executes the program, which no process can tell any more. Who has no memory
/// left is ending (proc_pid_exe(5)); how, is to be read while nobody has waited for it.
fn check_survival(container: &Container, init: &OwnedFd) -> Result<()> {
    let exe = format!("/proc/{}/exe", container.state.pid);
    let gone = |error: std::io::Error| error.kind() == ErrorKind::NotFound;
    if !std::fs::read_link(exe).is_err_and(gone) {
        return Ok(());
    }
    wait::wait_exit(init, MOMENT);
    match container.exit_status().map(|status| status & 0x7f) {
        Some(libc::SIGSYS) => bail!(coded("seccomp-killed", FILTERED)),
        _ => Ok(()),
    }
}

/// Of a program that ended by SIGSYS.
pub const FILTERED: &str = "the container's program was killed by signal 31 (SIGSYS): the filter of linux.seccomp kills for a \
                            call that it needs; the kernel's audit log names the call (ausearch -m SECCOMP, or dmesg)";

/// How its init ended is known while nobody has waited for that, or when the kernel has counted why.
fn stopped(container: &Container) -> Coded {
    let what = "cannot start a container that has stopped";
    let cgroup = container.cgroup().ok().flatten();
    if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.oom_kills() > 0) {
        return coded("oom-killed", format!("{what}: {}", cgroup.out_of_memory()));
    }
    let ended = container.exit_status().map(ended);
    let ended = ended.map_or_else(String::new, |ended| format!(": its init {ended}"));
    coded(
        "container-state",
        format!("{what}{ended}; delete it, and create it again"),
    )
}

fn ended(status: i32) -> String {
    match status & 0x7f {
        0 => format!("exited with status {}", status >> 8),
        signal => format!("was killed by signal {signal}"),
    }
}

/// runtime.md, "Lifecycle": after a hook has failed it goes on as for `delete`, with the poststop hooks.
fn destroy(container: &Container) {
    if let Err(error) = delete::remove(container) {
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
    done.inspect_err(|_| drop(delete::kill_all(container)))
}

#[cfg(test)]
mod tests {
    use super::ended;

    #[test]
    fn the_end_of_a_process_is_told() {
        assert_eq!(ended(3 << 8), "exited with status 3");
        assert_eq!(ended(9), "was killed by signal 9");
    }
}
