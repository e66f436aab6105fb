//! PARENT: creates a container and starts its program.

use std::os::fd::AsFd;

use anyhow::{Context, Result};

use super::create::Request;
use super::sd_notify::{self, Forwarder};
use super::{foreground, remove, start};
use crate::state::store::Store;
use crate::sys::process;
use crate::text::{log, timings};

/// Returns when the program runs, and says that it is ready where it is asked to (sd_notify(3)).
pub fn run_detached(request: Request, store: &Store) -> Result<()> {
    let (init, container, pid_file) = request.create(store)?.commit();
    let mut init = init.context("there is no init")?;
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
        remove::remove(&container)?;
        return Err(error);
    }
    init.keep();
    Ok(())
}

/// Waits for the end of the container, and removes it, unless it is to be kept. Returns the exit code of the program.
pub fn run_in_foreground(
    request: Request,
    store: &Store,
    no_subreaper: bool,
    keeps_container: bool,
) -> Result<i32> {
    let (signals, _) = foreground::block_signals()?;
    if !no_subreaper {
        // Orphans of a container without a pid namespace of its own become children of this process.
        process::set_child_subreaper()?;
    }
    let linux = request.bundle.spec.linux().as_ref();
    let has_filter = linux.is_some_and(|linux| linux.seccomp().is_some());
    let (init, container, pid_file) = request.create(store)?.commit();
    let mut init = init.context("there is no init")?;
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
    let has_failed = started.is_err();
    let code = started.and_then(|(console, forwarder)| {
        foreground::wait(init.pidfd.as_fd(), console, forwarder, &signals)
    });
    if has_filter && code.as_ref().is_ok_and(|code| *code == 128 + libc::SIGSYS) {
        log::warn(start::KILLED_BY_SECCOMP);
    }
    drop(init);
    timings::step(|| "the program".to_string());
    if let Some(file) = pid_file.filter(|_| has_failed) {
        file.take_back();
    }
    if has_failed || !keeps_container {
        remove::remove(&container)?;
    }
    code
}
