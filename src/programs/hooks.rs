//! Runs hooks: the state on standard input, output kept for the error text, a deadline. Parent and child.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::plan::hooks::Hook;
use crate::programs::descendants;
use crate::sys::confine::{Confinement, Program, confine};
use crate::sys::process::{self, Pointers};
use crate::sys::{self, caller_file, wait};

/// So much of a failed hook's output goes into the error text.
const OUTPUT: u64 = 1024;

/// The confinement of hooks that the runtime itself runs. Whatever they start stays below them while they live, in any session.
const ON_THE_HOST: Confinement = Confinement {
    subreaper: true,
    umask: None,
    limits: Vec::new(),
    filter: None,
};

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

/// PARENT: runs the hooks in order; the first that fails ends it.
///
/// A hook that runs past its timeout, or is interrupted, is ended with all that it has started. What a hook leaves
/// behind otherwise lives on.
pub fn run(hooks: &[Hook], name: &str, state: &str, directory: &Path) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let _kept = wait::block_termination_signals_meanwhile()?;
    in_order(hooks, name, |hook| {
        run_one(hook, state, directory, &ON_THE_HOST)
    })
}

/// CHILD: the same for hooks in the container's namespaces.
///
/// The failure of such a hook ends the container, and its pid namespace or its cgroup ends what the hook has started.
pub fn run_inside(
    hooks: &[Hook],
    name: &str,
    state: &str,
    directory: &Path,
    confinement: &Confinement,
) -> Result<()> {
    in_order(hooks, name, |hook| {
        run_one(hook, state, directory, confinement)
    })
}

fn in_order(hooks: &[Hook], name: &str, run: impl Fn(&Hook) -> Result<()>) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        run(hook)
            .with_context(|| format!("{} #{index}: {}", failure(name), hook.path.display()))?;
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
///
/// PARENT. Hooks are ended as in `run`; an interrupted hook is followed by the next one.
pub fn run_all(hooks: &[Hook], name: &str, state: &str, directory: &Path) {
    let _kept = wait::block_termination_signals_meanwhile();
    for (index, hook) in hooks.iter().enumerate() {
        if let Err(error) = run_one(hook, state, directory, &ON_THE_HOST) {
            crate::text::log::warn(&format!(
                "{} #{index}: {}: {error:#}",
                failure(name),
                hook.path.display()
            ));
        }
    }
}

fn run_one(hook: &Hook, state: &str, directory: &Path, confinement: &Confinement) -> Result<()> {
    // Files in memory instead of pipes: nobody can block on them, and the hook sees their end.
    let mut input = sys::memory_file("hook-state")?;
    input
        .write_all(state.as_bytes())
        .and_then(|()| input.rewind())
        .context("write the state")?;
    let mut output = sys::memory_file("hook-output")?;
    let spawned = command(hook, directory, confinement)?
        .stdin(input)
        .stdout(stream(hook.stdout.as_deref(), &output)?)
        .stderr(stream(hook.stderr.as_deref(), &output)?)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => bail!("{}{}", explained(error, &hook.path), written(&mut output)),
    };
    let status = wait(
        &mut child,
        hook.timeout.map(Duration::from_secs),
        confinement.subreaper,
    )?;
    if status.success() {
        return Ok(());
    }
    bail!("{}{}", ending(status), written(&mut output))
}

/// The output of a hook, as a part of the error text.
fn written(output: &mut File) -> String {
    let mut text = Vec::new();
    output
        .rewind()
        .and_then(|()| output.take(OUTPUT).read_to_end(&mut text))
        .ok();
    let text = String::from_utf8_lossy(&text).trim().replace('\n', " ");
    match text.as_str() {
        "" => text,
        text => format!(", output: {text}"),
    }
}

/// The file that the engine wants it in, or the one that is kept for the error text.
fn stream(file: Option<&Path>, output: &File) -> Result<File> {
    let Some(file) = file else {
        return Ok(output.try_clone()?);
    };
    let opened = caller_file::append(file).and_then(|opened| {
        // The hook may wait for a reader who is there.
        fcntl(&opened, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
        Ok(opened)
    });
    sys::io(opened).with_context(|| format!("open {file:?} for the output of hooks"))
}

fn command(hook: &Hook, directory: &Path, confinement: &Confinement) -> Result<Command> {
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
    let program = confinement.filter.as_ref().map(|_| program(hook));
    confine(&mut command, confinement.clone(), program.transpose()?);
    Ok(command)
}

fn program(hook: &Hook) -> Result<Program> {
    let strings = |list: &[String]| {
        let list = list.iter().map(|text| CString::new(text.as_str()));
        list.collect::<Result<Vec<_>, _>>().map(Pointers::new)
    };
    let path = CString::new(hook.path.as_os_str().as_bytes())?;
    Ok(Program {
        argv: match hook.args.is_empty() {
            true => Pointers::new(vec![path.clone()]),
            false => strings(&hook.args)?,
        },
        envp: strings(hook.env.as_deref().unwrap_or_default())?,
        path,
        failure: format!("execute {:?}: ", hook.path),
    })
}

/// One that is late, or interrupted, is ended. With `subreaper` it is the parent of all that it has started and nobody else
/// has waited for.
fn wait(child: &mut Child, timeout: Option<Duration>, subreaper: bool) -> Result<ExitStatus> {
    let pid = child.id() as i32;
    let pidfd = process::pidfd_open(pid)?;
    let awaited = wait::poll_readable([pidfd.as_fd()], timeout);
    let late = match awaited {
        Ok([true]) => return child.wait().context("wait for the hook"),
        Ok([false]) => anyhow!(
            "hook ran past specified timeout of {:.1}s",
            timeout.unwrap_or_default().as_secs_f64()
        ),
        Err(error) => error,
    };
    let ended = match subreaper {
        true => descendants::end(pid, &pidfd),
        false => Ok(()),
    };
    killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
    if wait::wait_killed(&pidfd) {
        child.wait().context("wait for the hook")?;
    }
    match ended {
        Ok(()) => Err(late),
        Err(left) => Err(late.context(left)),
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
