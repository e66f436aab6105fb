//! `start`: lets the init of a created container go on to its program, and says how that went.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail};

use super::delete;
use crate::channel::ParentEnd;
use crate::container::{Container, Status, Store};
use crate::fault::coded;
use crate::flags;
use crate::{hooks, launch, timings};

pub fn run(args: &flags::Start, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    match container.status()? {
        Status::Created => {}
        Status::Creating => bail!(coded(
            "container-state",
            "cannot start a container that is being created"
        )),
        Status::Running => bail!(coded(
            "container-state",
            "cannot start an already running container"
        )),
        Status::Paused => bail!(coded(
            "container-state",
            "cannot start a container in the paused state"
        )),
        Status::Stopped => bail!(coded(
            "container-state",
            "cannot start a container that has stopped"
        )),
    }
    timings::step(|| "find the container".to_string());
    let stopped = coded(
        "container-state",
        "cannot start a container that has stopped",
    );
    let init = container.init()?.context(stopped.clone())?;
    let gate = ParentEnd::connected(container.gate().context(stopped)?);
    launch::start_over(&gate, &container.state, init.as_fd())?;
    timings::step(|| "startContainer hooks, seccomp, exec".to_string());
    container.close_gate()?;
    run_poststart_hooks(&container)?;
    Ok(0)
}

/// runtime.md, "Lifecycle", step 9: a failure stops the container.
pub fn run_poststart_hooks(container: &Container) -> Result<()> {
    let list = &container.state.hooks.poststart;
    if list.is_empty() {
        return Ok(());
    }
    let json = container.report(Status::Running).line()?;
    let done = hooks::run(list, "poststart", &json, &container.state.bundle);
    timings::step(|| "poststart hooks".to_string());
    done.inspect_err(|_| drop(delete::kill_all(container)))
}
