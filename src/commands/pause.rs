//! `pause` and `resume`: freeze and thaw all processes of a container.

use anyhow::{Context, Result, ensure};

use crate::cgroup::Cgroup;
use crate::container::{Container, Status, Store, not_running};
use crate::fault::coded;
use crate::flags;

pub fn pause(args: &flags::Pause, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    let status = container.status()?;
    ensure!(
        matches!(status, Status::Created | Status::Running),
        not_running()
    );
    freeze(&container, true)
}

pub fn resume(args: &flags::Pause, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    ensure!(
        container.status()? == Status::Paused,
        coded("container-state", "container not paused")
    );
    freeze(&container, false)
}

fn freeze(container: &Container, frozen: bool) -> Result<i32> {
    ensure!(
        !container.state.no_cgroup,
        "the container has no cgroup that could be frozen: it was made with --cgroup-manager disabled"
    );
    // It has ended meanwhile, or its cgroup was removed from under it.
    let cgroup: Cgroup = container.cgroup()?.with_context(not_running)?;
    cgroup.freeze(frozen)?;
    Ok(0)
}
