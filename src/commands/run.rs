//! `run`: creates a container, starts it and, unless detached, waits for its end and removes it.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::create::{Made, Request, keep};
use super::{delete, spec, start};
use crate::bundle::Bundle;
use crate::bundle::overlay::{Overlay, Upper};
use crate::cli::{Global, args};
use crate::lifecycle::foreground;
use crate::lifecycle::pid_file::PidFile;
use crate::lifecycle::sd_notify::{self, Forwarder};
use crate::lifecycle::spawn::Init;
use crate::protect;
use crate::state::container::{Container, Store};
use crate::state::state_dir;
use crate::sys::{self, process};
use crate::text::{log, timings};

#[inline(never)]
pub fn run(args: &args::Run, global: &Global, store: &Store) -> Result<i32> {
    if !args.flags.dry_run {
        protect::protect()?;
    }
    let bundle = bundle(args)?;
    let (id, flags) = (args.id.as_str(), &args.flags);
    let request = Request {
        id,
        flags,
        global,
        bundle,
        waits: false,
        detached: args.detach,
    };
    if flags.dry_run {
        super::print(&request.plan()?.1.to_string())?;
        return Ok(0);
    }
    if args.detach {
        detached(request, store)
    } else {
        foreground(args, request, store)
    }
}

fn detached(request: Request, store: &Store) -> Result<i32> {
    let (mut init, container, pid_file) = on_its_own(request.make(store)?);
    let started = init
        .start(&container.state)
        .and_then(|()| start::run_poststart_hooks(&container))
        .and_then(|()| match init.notify_socket.take() {
            Some(socket) => sd_notify::wait_until_ready(socket, init.pid, &init.pidfd),
            None => Ok(()),
        });
    if let Err(error) = started {
        drop(init);
        if let Some(file) = pid_file {
            file.take_back();
        }
        delete::remove(&container)?;
        return Err(error);
    }
    init.keep();
    Ok(0)
}

fn foreground(args: &args::Run, request: Request, store: &Store) -> Result<i32> {
    let (signals, _) = foreground::block_signals()?;
    if !args.no_subreaper {
        // Processes that the container leaves to its caller's namespace come to this one.
        process::set_child_subreaper()?;
    }
    let linux = request.bundle.spec.linux().as_ref();
    let filtered = linux.is_some_and(|linux| linux.seccomp().is_some());
    let (mut init, container, pid_file) = on_its_own(request.make(store)?);
    let console = init.console.take().map(foreground::attach).transpose();
    let started = console.and_then(|console| {
        init.start(&container.state)?;
        timings::step(|| "startContainer hooks, seccomp, exec".to_string());
        start::run_poststart_hooks(&container)?;
        // The service manager knows this process, which waits for the container's end.
        let socket = init.notify_socket.take();
        let forwarder = socket
            .map(|socket| Forwarder::new(socket, None))
            .transpose()?;
        Ok((console, forwarder.flatten()))
    });
    let failed = started.is_err();
    let code = started.and_then(|(console, forwarder)| {
        foreground::wait(init.pidfd.as_fd(), console, forwarder, &signals)
    });
    if filtered && code.as_ref().is_ok_and(|code| *code == 128 + libc::SIGSYS) {
        log::warn(start::FILTERED);
    }
    drop(init);
    timings::step(|| "the program".to_string());
    if let Some(file) = pid_file.filter(|_| failed) {
        file.take_back();
    }
    if failed || !args.keep {
        delete::remove(&container)?;
    }
    code
}

/// From here on the container is removed as `delete` does it, poststop hooks included.
fn on_its_own(made: Made) -> (Init, Container, Option<PidFile>) {
    let Made {
        init,
        resources,
        slot,
        state,
        pid_file,
    } = made;
    let container = keep(slot, state, resources);
    (init, container, pid_file)
}

/// The bundle that is named, or one made of layers; with the command that is given, if any.
fn bundle(args: &args::Run) -> Result<Bundle> {
    let flags = &args.flags;
    let mut bundle = if args.layers.is_empty() {
        ensure!(args.upper.is_none(), "--upper: has no use without --layer");
        Bundle::load(&flags.bundle, flags.config.as_deref())?
    } else {
        layered(args)?
    };
    if !args.command.is_empty() {
        let process = bundle.spec.process_mut().as_mut();
        process
            .context("process: missing in the config")?
            .set_args(Some(args.command.clone()));
    }
    Ok(bundle)
}

/// No bundle at all: the defaults of `spec`, on an overlay.
fn layered(args: &args::Run) -> Result<Bundle> {
    let absolute = |dir: &PathBuf| {
        sys::path::real(dir).map_err(|error| match sys::path::check_only_directories(dir) {
            Err(reason) => reason.context("--layer"),
            Ok(()) => error.context(format!("--layer: {}", dir.display())),
        })
    };
    let lower = args
        .layers
        .iter()
        .map(absolute)
        .collect::<Result<Vec<_>>>()?;
    let ids = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let mut config = spec::default_spec(ids.0 != 0, ids);
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    merge(
        &mut config,
        "/process/terminal",
        json!(interactive && !args.detach),
    );
    merge(&mut config, "/root/readonly", json!(false));
    let here = sys::io(std::env::current_dir()).context("the current directory")?;
    let mut bundle = Bundle::of_config(here, &config)?;
    let upper = args
        .upper
        .as_deref()
        .map(|dir| upper(dir, args.flags.dry_run))
        .transpose()?;
    bundle.overlay = Some(Overlay {
        lower,
        upper,
        user_attributes: false,
    });
    Ok(bundle)
}

fn merge(config: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = config.pointer_mut(pointer) {
        *place = value;
    }
}

/// Overlay needs a work directory on the same filesystem, and not inside: it is put beside.
fn upper(dir: &Path, dry_run: bool) -> Result<Upper> {
    let dir = sys::io(std::path::absolute(dir)).context("--upper")?;
    let mut work = dir.clone().into_os_string();
    work.push(".work");
    let upper = Upper {
        work: PathBuf::from(work),
        dir,
    };
    for dir in [&upper.dir, &upper.work].into_iter().filter(|_| !dry_run) {
        state_dir::make_all(dir, 0o777).map_err(|error| match sys::errno(&error) {
            Some(_) => error.context(format!("--upper: {}", dir.display())),
            None => error.context("--upper"),
        })?;
    }
    Ok(upper)
}
