//! `pause` and `resume`: freeze and thaw all processes of a container.

use anyhow::{Result, bail, ensure};

use crate::cli::args;
use crate::state::container::{Container, Status, not_running};
use crate::state::state_dir::CGROUP;
use crate::state::store::Store;
use crate::text::fault::coded;

pub fn pause(args: &args::Pause, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    let status = container.status()?;
    ensure!(
        matches!(status, Status::Created | Status::Running),
        not_running()
    );
    freeze(&container, true)
}

pub fn resume(args: &args::Pause, store: &Store) -> Result<i32> {
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
    ensure!(
        container.dir.has(CGROUP),
        "the container has no cgroup that could be frozen: its creator may make none; create it below a delegated cgroup \
         (systemd-run --user --scope -p Delegate=yes)"
    );
    let Some(cgroup) = container.cgroup()? else {
        // It has ended meanwhile.
        ensure!(container.init()?.is_some(), not_running());
        bail!("the container's cgroup is gone, and with it what could be frozen; kill still works");
    };
    cgroup.freeze(frozen)?;
    Ok(0)
}
