//! `delete`: ends what is left of a container and removes all that was made for it, its record last.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::create::take_down;
use crate::cgroup::tree;
use crate::container::{Container, State, Status, Store, boot_id};
use crate::fault::{self, coded};
use crate::flags;
use crate::sys::process;
use crate::{intelrdt, timings};

/// Milliseconds that a killed init may take; in uninterruptible sleep it does not die.
const PATIENCE: u16 = 10_000;

pub fn run(args: &flags::Delete, store: &Store) -> Result<i32> {
    let container = match store.find(&args.id) {
        Err(error) if args.force && fault::code(&error) == Some("container-unknown") => {
            return Ok(0);
        }
        found => found?,
    };
    match container.status() {
        Ok(Status::Stopped | Status::Created) => {}
        _ if args.force => {}
        Err(error) => return Err(error),
        Ok(status) => bail!(coded(
            "container-state",
            format!(
                "cannot delete container {} that is not stopped: {status}; stop it, or use --force",
                args.id
            )
        )),
    }
    timings::step(|| "find the container".to_string());
    remove(&container)?;
    Ok(0)
}

/// Leaves the record in place when anything survives, so that another try finds it.
pub fn remove(container: &Container) -> Result<()> {
    kill_all(container)?;
    timings::step(|| "kill".to_string());
    if let Some(cgroup) = container.cgroup()? {
        let path = cgroup.path.display().to_string();
        ensure!(
            cgroup.wait_until_empty()?,
            "{path}: processes survive SIGKILL (in uninterruptible sleep?): {:?}; delete again when they are gone",
            cgroup.processes()?
        );
        cgroup.remove().context("remove the container's cgroup")?;
    } else {
        remove_unclaimed_cgroup(container);
    }
    timings::step(|| "remove the cgroup".to_string());
    remove_rdt_groups(&container.state)?;
    take_down(&container.state);
    timings::step(|| "poststop hooks".to_string());
    container.forget()
}

/// Ends every process of the container: those of its cgroup, and init wherever it is.
pub fn kill_all(container: &Container) -> Result<()> {
    if let Some(cgroup) = container.cgroup()? {
        cgroup.kill()?;
    }
    let Some(init) = container.init()? else {
        return Ok(());
    };
    process::pidfd_send_signal(&init, libc::SIGKILL).ok();
    wait(&init)
}

fn wait(init: &OwnedFd) -> Result<()> {
    loop {
        let mut polled = [PollFd::new(init.as_fd(), PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(PATIENCE)) {
            Ok(1..) => return Ok(()),
            Ok(_) => bail!(
                "the container's init survives SIGKILL (in uninterruptible sleep?); delete again later"
            ),
            Err(Errno::EINTR) => {}
            Err(errno) => bail!("poll(pidfd): {}", errno.desc()),
        }
    }
}

/// A creator that was killed right after making the cgroup had no time to put anybody in: rmdir will do,
/// and fails if the directory is another's. One that somebody else has removed may have others above it.
fn remove_unclaimed_cgroup(container: &Container) {
    let Some(path) = &container.state.cgroup else {
        return;
    };
    if container.state.pid == 0 {
        std::fs::remove_dir(path).ok();
    }
    tree::remove_made_above(path);
}

/// Groups do not outlive a boot: one with the name would be another's.
fn remove_rdt_groups(state: &State) -> Result<()> {
    match &state.rdt {
        Some(groups) if state.boot_id == boot_id()? => {
            intelrdt::remove(Path::new(intelrdt::ROOT), groups)
        }
        _ => Ok(()),
    }
}
