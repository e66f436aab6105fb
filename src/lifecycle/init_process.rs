//! PARENT: the process that becomes the container's program, from the clone until the program runs.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;

use super::start::{request_start, wait_for_exec};
use crate::cgroup::Cgroup;
use crate::channel::{Down, ParentEnd, STEP_TIMEOUT, Up};
use crate::plan::Plan;
use crate::plan::hooks::Hook;
use crate::programs::hooks;
use crate::state::container::Status;
use crate::state::document::report;
use crate::state::record::Record;
use crate::supervise::{self, AwaitedInit};
use crate::sys::{self, clone, process, wait};
use crate::text::fault::{Coded, coded};
use crate::text::timings;

/// The container's init, or a process of `exec`. Killed on drop, unless [`Init::keep`] or [`Init::detach`] was called.
pub struct Init {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub console: Option<OwnedFd>,
    channel: ParentEnd,
    /// The process that made this one, until it is reaped.
    relay: Option<OwnedFd>,
    /// Another process becomes init before it is ready: see [`Up::Born`].
    pub awaits_birth: bool,
    /// Init goes on to its program by itself: the request came before it was ready.
    is_starting: bool,
    pub is_running: bool,
    /// The socket on which the program says that it is ready (sd_notify(3)).
    pub notify_socket: Option<OwnedFd>,
    kept: bool,
}

impl Init {
    pub fn new(pid: i32, pidfd: OwnedFd, channel: ParentEnd) -> Init {
        Init {
            pid,
            pidfd,
            console: None,
            channel,
            relay: None,
            awaits_birth: false,
            is_starting: false,
            is_running: false,
            notify_socket: None,
            kept: false,
        }
    }

    pub fn has_relay(&self) -> bool {
        self.relay.is_some()
    }

    pub fn send(&self, message: Down) -> Result<()> {
        self.channel.send(message)
    }

    /// Makes the network namespace while init works, and sends it. Does nothing without a namespace to return to.
    pub fn send_netns(&self, saved: Option<OwnedFd>) -> Result<()> {
        let Some(saved) = saved else {
            return Ok(());
        };
        let namespace = clone::new_netns(saved).context("make a network namespace")?;
        let sent = self.channel.send_network(namespace);
        timings::step(|| "make the network namespace".to_string());
        sent_or_peer_gone(sent).map(drop)
    }

    /// Waits until the relay has made init.
    pub fn wait_for_relay(&mut self, cgroup: Option<&Cgroup>) -> Result<()> {
        self.awaits_birth = true;
        match self.recv_from_init("join the namespaces", cgroup, true)? {
            Some(Up::Born(pidfd)) => self.adopt(pidfd),
            Some(Up::Failed(failure)) => Err(explain_relay(failure, cgroup)),
            Some(other) => bail!("unexpected {other:?} from the process that joins the namespaces"),
            None => {
                let error = coded("killed", "joining the namespaces ended early");
                Err(self.explain_exit(None, error.into()))
            }
        }
    }

    /// Replaces this process by the one that it has made, which is a child of the caller as well (CLONE_PARENT).
    fn adopt(&mut self, pidfd: OwnedFd) -> Result<()> {
        self.reap_relay();
        self.pid = process::pid_of_child(&pidfd).context("find the process that was made")?;
        self.relay = Some(std::mem::replace(&mut self.pidfd, pidfd));
        self.awaits_birth = false;
        Ok(())
    }

    /// Notes in the state which process is init. A process of `exec` is not.
    pub fn record(&self, plan: &Plan, state: &mut Record, cgroup: Option<&Cgroup>) -> Result<()> {
        match plan.rootfs {
            Some(_) => state
                .set_init(self.pid)
                .map_err(|error| self.explain_exit(cgroup, error)),
            None => Ok(()),
        }
    }

    /// Reaps the process that made this one. It counts as one of the container's processes until it is reaped.
    pub fn reap_relay(&mut self) {
        if let Some(relay) = self.relay.take() {
            // The connection of init does not end as long as this process has its end of it.
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
            // The new process may send after the end of the one that made it.
            awaited_init.pidfd = self.channel.as_fd();
        }
        supervise::recv_from_init(&self.channel, &awaited_init)
    }

    /// Answers init until it is ready.
    pub fn wait_until_ready(
        &mut self,
        plan: &Plan,
        state: &mut Record,
        cgroup: Option<&Cgroup>,
    ) -> Result<()> {
        let limited = plan.hooks.create_container.iter().all(Hook::is_limited);
        // A process of `exec` may wait with a frozen container, if the caller asks for that (--ignore-paused).
        let not_frozen = cgroup.filter(|_| plan.rootfs.is_some());
        let (mut is_ready, mut is_inside, mut rules) = (false, false, plan.rules_after_mounts());
        while !is_ready || self.awaits_birth {
            match self.recv_from_init("set up the container", not_frozen, limited)? {
                // A tracer in the pid namespace can make init send anything. Init has sent these before it went in.
                Some(word @ (Up::Hooks | Up::Born(_) | Up::Console(_))) if is_inside => {
                    bail!("unexpected {word:?} from the container's init")
                }
                Some(Up::Hooks) => {
                    timings::step(|| "wait for the root filesystem".to_string());
                    let rules = cgroup.zip(rules.take());
                    rules.map_or(Ok(()), |(cgroup, rules)| cgroup.attach_device_filter(rules))?;
                    run_runtime_hooks(plan, state)?;
                    timings::step(|| "prestart and createRuntime hooks".to_string());
                    self.channel.send(Down::Go)?;
                }
                Some(Up::Born(pidfd)) => {
                    self.adopt(pidfd)?;
                    is_inside = true;
                    self.record(plan, state, cgroup)?;
                }
                Some(Up::Console(master)) => self.console = Some(master),
                Some(Up::Timings(piece)) => timings::add(&piece),
                Some(word @ (Up::Ready | Up::Starting)) => {
                    ensure!(
                        rules.is_none(),
                        "init is ready before the device rules hold"
                    );
                    self.is_starting = matches!(word, Up::Starting);
                    is_ready = true;
                }
                Some(Up::Failed(failure)) if self.awaits_birth => {
                    return Err(explain_relay(failure, cgroup));
                }
                Some(Up::Failed(failure)) => bail!(failure),
                None => {
                    return Err(self.explain_exit(
                        cgroup,
                        anyhow!("container init ended before it was ready"),
                    ));
                }
                Some(other) => bail!("unexpected {other:?} from the container's init"),
            }
        }
        timings::step(|| "wait until init is ready".to_string());
        Ok(())
    }

    /// `create`: lets init wait at the start socket. Init lives on when this process ends.
    pub fn detach(mut self) -> Result<()> {
        self.reap_relay();
        // The answer below tells of an init that was killed meanwhile.
        self.channel.send(Down::Wait).ok();
        match self.recv_from_init("leave init waiting for the start", None, true)? {
            Some(Up::Waiting) => {
                self.kept = true;
                Ok(())
            }
            None => {
                Err(self.explain_exit(None, anyhow!("container init ended instead of waiting")))
            }
            Some(other) => bail!("unexpected {other:?} from the container's init"),
        }
    }

    /// `run`, `exec`: lets init go on to its program. Returns when that runs.
    pub fn start(&mut self, state: &Record) -> Result<()> {
        if !self.is_starting {
            // The cgroup may allow no more processes than the container has now.
            self.reap_relay();
        }
        let awaited_init = AwaitedInit::new(self.pid, &self.pidfd, "start");
        let started = match self.is_starting {
            true => wait_for_exec(&self.channel, state, awaited_init).map(Some)?,
            false => request_start(&self.channel, state, awaited_init)?,
        };
        self.reap_relay();
        let Some(started) = started else {
            return Err(
                self.explain_exit(None, anyhow!("container init ended instead of starting"))
            );
        };
        self.is_running = true;
        self.notify_socket = started.notify_socket;
        Ok(())
    }

    /// Leaves the process alive when this value is dropped.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Returns the error with the reason why init ended: a signal, or no memory. Kills an init that lives, and returns the error as it is.
    fn explain_exit(&self, cgroup: Option<&Cgroup>, error: anyhow::Error) -> anyhow::Error {
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
            // A process that init has made meanwhile may be stopped before it sets its parent-death signal.
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

/// Adds which cgroup allows no more processes. The relay counts as one of the container's until it is reaped.
fn explain_relay(failure: Coded, cgroup: Option<&Cgroup>) -> anyhow::Error {
    let refused = failure.errno == Errno::EAGAIN as i32;
    match cgroup.filter(|_| refused).and_then(Cgroup::full) {
        Some(full) => anyhow!(failure).context(format!(
            "make a process of the container, which takes two for a moment{full}"
        )),
        None => failure.into(),
    }
}

fn run_runtime_hooks(plan: &Plan, state: &Record) -> Result<()> {
    let json = report(state, Status::Creating, state.pid).line()?;
    hooks::run(&plan.hooks.prestart, "prestart", &json, &state.bundle)?;
    hooks::run(
        &plan.hooks.create_runtime,
        "createRuntime",
        &json,
        &state.bundle,
    )
}

/// Returns whether the message has arrived. A peer that has ended gets nothing; it has sent the reason before, if it could.
pub fn sent_or_peer_gone(sent: Result<()>) -> Result<bool> {
    match sent.as_ref().err().and_then(sys::errno) {
        Some(Errno::EPIPE | Errno::ECONNRESET) => Ok(false),
        _ => sent.map(|()| true),
    }
}
