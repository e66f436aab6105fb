//! A procfs of a pid namespace that this process is not in. A process that is in there can be seen by those who live there.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::exec::close_all_but;
use super::filesystem::configure;
use super::steps::is_proc;
use crate::channel::{self, ChildEnd, Up};
use crate::plan::step::Mount;
use crate::supervise::{self, AwaitedInit};
use crate::sys::clone::{self, Side};
use crate::sys::cred::{self, Sets};
use crate::sys::mount::Configuration;
use crate::sys::{named, process, wait};
use crate::text::fault::Coded;

/// The number of no process.
const UNKNOWN: i32 = 0;

/// For a process in the namespace, which its processes may stop.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a detached procfs that shows `namespace`. The root of the container is for a kernel that needs a process in there.
pub fn mount_of(namespace: &OwnedFd, step: &Mount, root: impl AsFd) -> Result<OwnedFd> {
    let filesystem = Configuration::open("proc")?;
    // Linux 6.18.
    match filesystem.descriptor("pidns", namespace) {
        Ok(()) => {
            configure(&filesystem, step.source.as_deref(), &step.options)?;
            filesystem.mount(step.attributes)
        }
        Err(_) => mount_from_inside(namespace, step, root),
    }
}

/// The same by a process that is born in the namespace, with nothing but a socket, the container's root, and one capability.
fn mount_from_inside(namespace: &OwnedFd, step: &Mount, root: impl AsFd) -> Result<OwnedFd> {
    let (here, there) = channel::pair()?;
    let Side::Parent { pid, pidfd } = clone::clone3(0, None)? else {
        drop(here);
        tell(&there, clean_and_clone(namespace, step, root, &there));
        process::exit(0)
    };
    drop(there);
    let (mut pid, mut pidfd) = (pid, pidfd);
    let mounted = loop {
        let mut awaited_init = AwaitedInit::new(pid, &pidfd, "mount a procfs");
        (awaited_init.name, awaited_init.limit) = ("the process that does so", Some(TIMEOUT));
        awaited_init.pidfd = here.as_fd();
        match supervise::recv_from_init(&here, &awaited_init) {
            // Its number is not to be had: /proc may be the container's, which does not show this process.
            Ok(Some(Up::Born(made))) if pid != UNKNOWN => {
                wait::kill_and_reap(&pidfd);
                (pid, pidfd) = (UNKNOWN, made);
            }
            // A tracer inside may have the process send anything.
            Ok(Some(Up::Tree(mounted))) => break check(mounted),
            Ok(Some(Up::Failed(failure))) => break Err(failure.into()),
            Ok(_) => break Err(anyhow!("the process that mounts it ended early")),
            Err(error) => break Err(error),
        }
    };
    wait::kill_and_reap(&pidfd);
    mounted
}

fn tell(channel: &ChildEnd, done: Result<Up>) {
    let word = done.unwrap_or_else(|error| Up::Failed(Coded::of(&error)));
    channel.send(word).ok();
}

fn check(mounted: OwnedFd) -> Result<OwnedFd> {
    ensure!(is_proc(&mounted)?, "what was mounted is no procfs");
    Ok(mounted)
}

/// Gives up all that is the host's, and makes the process inside as its sibling.
fn clean_and_clone(
    namespace: &OwnedFd,
    step: &Mount,
    root: impl AsFd,
    channel: &ChildEnd,
) -> Result<Up> {
    named(nix::unistd::fchdir(root), || "fchdir(root)".to_string())?;
    named(nix::unistd::chroot("."), || "chroot(\".\")".to_string())?;
    clone::setns(namespace, clone::NEWPID).context("join the pid namespace")?;
    close_all_but(&[channel.as_fd()], 0)?;
    process::close_between(0, 2)?;
    const SYS_ADMIN: u64 = 1 << 21;
    cred::set_capabilities(Sets {
        effective: SYS_ADMIN,
        permitted: SYS_ADMIN,
        inheritable: 0,
    })?;
    match clone::clone3(clone::PARENT, None)? {
        Side::Parent { pidfd, .. } => Ok(Up::Born(pidfd)),
        Side::Child => {
            let filesystem = Configuration::open("proc")?;
            configure(&filesystem, step.source.as_deref(), &step.options)?;
            filesystem.mount(step.attributes).map(Up::Tree)
        }
    }
}
