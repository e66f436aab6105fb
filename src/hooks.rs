//! Runs hooks: the state on standard input, output kept for the error text, a deadline. Parent and child.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::plan::hooks::Hook;
use crate::sys::{self, named, process};
use crate::{caller_files, patience};

/// So much of a failed hook's output goes into the error text.
const OUTPUT: u64 = 1024;

/// Gives this process's environment to the hooks that have none. A child of this process has no environment any more.
pub fn with_own_environment(hooks: &[Hook]) -> Vec<Hook> {
    let mut own = Vec::new();
    if hooks.iter().any(|hook| hook.env.is_none()) {
        own.extend(std::env::vars_os().map(|(name, value)| {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            format!("{name}={value}")
        }));
    }
    with_environment(hooks, &own)
}

/// Gives the hooks that have none this environment.
pub fn with_environment(hooks: &[Hook], environment: &[String]) -> Vec<Hook> {
    let filled = |hook: &Hook| Hook {
        env: Some(hook.env.clone().unwrap_or_else(|| environment.to_vec())),
        ..hook.clone()
    };
    hooks.iter().map(filled).collect()
}

/// Runs the hooks in order; the first that fails ends it.
pub fn run(hooks: &[Hook], name: &str, state: &str, directory: &Path) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run_one(hook, state, directory)
            .with_context(|| format!("{} #{index} ({})", failure(name), hook.path.display()))?;
    }
    Ok(())
}

/// Whether an error, perhaps one that init has told, is that of a hook of this kind.
pub fn has_failed(error: &Error, name: &str) -> bool {
    error.to_string().starts_with(&failure(name))
}

fn failure(name: &str) -> String {
    format!("error running {name} hook")
}

/// Runs all of them, whatever they end with: nothing is left that a failure could stop.
pub fn run_all(hooks: &[Hook], name: &str, state: &str, directory: &Path) {
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(error) = run_one(hook, state, directory) {
            crate::log::warn(&format!(
                "{name} hook #{index} ({}): {error:#}",
                hook.path.display()
            ));
        }
    }
}

fn run_one(hook: &Hook, state: &str, directory: &Path) -> Result<()> {
    // Files in memory instead of pipes: nobody can block on them, and the hook sees their end.
    let mut input = memory_file("hook-state")?;
    input
        .write_all(state.as_bytes())
        .and_then(|()| input.rewind())
        .context("write the state")?;
    let mut output = memory_file("hook-output")?;
    let mut child = command(hook, directory)
        .stdin(input)
        .stdout(stream(hook.stdout.as_deref(), &output)?)
        .stderr(stream(hook.stderr.as_deref(), &output)?)
        .spawn()
        .map_err(|error| explained(error, &hook.path))?;
    let status = wait(&mut child, hook.timeout.map(Duration::from_secs))?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    output
        .rewind()
        .and_then(|()| output.take(OUTPUT).read_to_end(&mut text))
        .ok();
    let text = String::from_utf8_lossy(&text).trim().replace('\n', " ");
    bail!(
        "{}{}{text}",
        ending(status),
        if text.is_empty() { "" } else { ", output: " }
    )
}

/// The file that the engine wants it in, or the one that is kept for the error text.
fn stream(file: Option<&Path>, output: &File) -> Result<File> {
    let Some(file) = file else {
        return Ok(output.try_clone()?);
    };
    let opened = caller_files::append(file).and_then(|opened| {
        // The hook may wait for a reader who is there.
        fcntl(&opened, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        Ok(opened)
    });
    sys::io(opened).with_context(|| format!("open {file:?} for the output of hooks"))
}

fn command(hook: &Hook, directory: &Path) -> Command {
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    if let Some(env) = &hook.env {
        command
            .env_clear()
            .envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    // A group of its own, so that a timeout ends what the hook has started too.
    command.current_dir(directory).process_group(0);
    process::unblock_signals_in(&mut command);
    command
}

fn wait(child: &mut Child, timeout: Option<Duration>) -> Result<ExitStatus> {
    let pid = child.id() as i32;
    let pidfd = process::pidfd_open(pid)?;
    let awaited = patience::wait_for([pidfd.as_fd()], timeout);
    if !matches!(awaited, Ok([true])) {
        killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    let status = child.wait().context("wait for the hook")?;
    match awaited? {
        [true] => Ok(status),
        [false] => bail!(
            "hook ran past specified timeout of {:.1}s",
            timeout.unwrap_or_default().as_secs_f64()
        ),
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        _ => status.to_string(),
    }
}

fn explained(error: std::io::Error, path: &Path) -> anyhow::Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    anyhow::anyhow!("execute {path:?}: {}", errno.desc().to_lowercase())
}

fn memory_file(name: &str) -> Result<File> {
    let made = memfd_create(name, MFdFlags::MFD_CLOEXEC);
    named(made, || format!("memfd_create({name})")).map(File::from)
}
