//! What an operation asks of the kernel, counted in a run of its own: system calls, forks (threads included), execs,
//! and the largest of its processes. Tracing slows down, so nothing here is timed. It is a process of its own:
//! with its end the container that a `create` leaves is free of it.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

#[derive(Default)]
struct Counts {
    stops: HashMap<Pid, u64>,
    forks: u64,
    execs: u64,
    peak_kb: u64,
}

/// `bench count -- PROGRAM ARGUMENTS` prints the counts.
pub fn count(words: &[String]) -> Result<()> {
    let (program, arguments) = words.split_first().context("no program to count")?;
    let mut command = Command::new(program);
    // A pipe of the caller would be held open by the container.
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = bench_sys::traced(&mut command).spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    waitpid(pid, None)?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT;
    ptrace::setoptions(pid, options)?;
    ptrace::syscall(pid, None)?;
    let mut counts = Counts {
        execs: 1,
        ..Counts::default()
    };
    counts.follow(pid)?;
    // A call stops its process twice, exit_group once.
    let calls: u64 = counts.stops.values().map(|stops| stops.div_ceil(2)).sum();
    let Counts {
        forks,
        execs,
        peak_kb,
        ..
    } = counts;
    println!(
        "{}",
        json!({"syscalls": calls, "forks": forks, "execs": execs, "rss_kb": peak_kb})
    );
    Ok(())
}

impl Counts {
    fn follow(&mut self, main: Pid) -> Result<()> {
        loop {
            let status = waitpid(None, Some(WaitPidFlag::__WALL))?;
            let signal = match status {
                WaitStatus::Exited(pid, 0) if pid == main => return Ok(()),
                WaitStatus::Exited(pid, status) if pid == main => bail!("exit status {status}"),
                WaitStatus::Signaled(pid, signal, _) if pid == main => bail!("{signal}"),
                WaitStatus::PtraceSyscall(pid) => {
                    *self.stops.entry(pid).or_default() += 1;
                    None
                }
                WaitStatus::PtraceEvent(pid, _, event) => self.event(pid, event),
                // New ones begin stopped.
                WaitStatus::Stopped(_, Signal::SIGSTOP) => None,
                WaitStatus::Stopped(_, signal) => Some(signal),
                _ => continue,
            };
            if let Some(pid) = status.pid() {
                match ptrace::syscall(pid, signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    fn event(&mut self, pid: Pid, event: i32) -> Option<Signal> {
        if event == Event::PTRACE_EVENT_EXEC as i32 {
            self.execs += 1;
        } else if event == Event::PTRACE_EVENT_EXIT as i32 {
            self.peak_kb = self.peak_kb.max(peak_of(pid));
        } else {
            self.forks += 1;
        }
        None
    }
}

/// The peak of the memory that the process has now: an exec begins anew, unlike in rusage.
fn peak_of(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Calls `bench count` for a command line.
pub fn counts_of(command: Command) -> Result<Value> {
    let mut counting = Command::new(std::env::current_exe()?);
    counting
        .args(["count", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let out = counting
        .env_clear()
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()?;
    if !out.status.success() {
        bail!("counting: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(serde_json::from_slice(&out.stdout)?)
}
