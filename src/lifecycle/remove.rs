//! PARENT: removes a container: its processes first, then what they were in, the record last.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};

use crate::cgroup::{Cgroup, tree};
use crate::facility::resctrl;
use crate::programs::hooks;
use crate::state::container::{Container, Status};
use crate::state::document::report;
use crate::state::locks::{self, claim_poststop};
use crate::state::record::{Record, boot_id};
use crate::state::state_dir::StateDir;
use crate::sys::{self, named, path, process, wait};
use crate::text::{log, timings};

/// Leaves the record in place when anything survives, so that another try finds it.
pub fn remove(container: &Container) -> Result<()> {
    let Some(mut lock) = locks::lock_for_removal(&container.dir)? else {
        return Ok(());
    };
    end(container)?;
    if !container.state.hooks.poststop.is_empty() {
        // A hook may delete the container, too.
        drop(lock);
        run_poststop_hooks(&container.dir, &container.state);
        match locks::lock_for_removal(&container.dir)? {
            Some(again) => lock = again,
            None => return Ok(()),
        }
    }
    timings::step(|| "poststop hooks".to_string());
    let removed = container.remove_state_dir();
    drop(lock);
    removed
}

/// What it has beside its record: processes first, then what they were in.
fn end(container: &Container) -> Result<()> {
    kill_all(container)?;
    if container.state.no_cgroup && !container.state.private_pids {
        log::warn(
            "processes that outlive the container's init are not found: it has neither a cgroup nor a pid namespace \
             of its own",
        );
    }
    timings::step(|| "kill".to_string());
    if let Some(cgroup) = container.cgroup()? {
        remove_cgroup(&cgroup)?;
    } else {
        remove_rest_of_cgroup(container)?;
    }
    timings::step(|| "remove the cgroup".to_string());
    remove_rdt_groups(&container.state)?;
    unmount_in_place(&container.state);
    Ok(())
}

/// An `exec` may still put a process in after all were killed; it is killed, too.
fn remove_cgroup(cgroup: &Cgroup) -> Result<()> {
    const TRIES: usize = 100;
    for _ in 1..TRIES {
        match remove_empty(cgroup) {
            Err(error) if sys::errno(&error) == Some(Errno::EBUSY) => cgroup.kill()?,
            removed => return removed,
        }
    }
    remove_empty(cgroup)
}

fn remove_empty(cgroup: &Cgroup) -> Result<()> {
    ensure!(
        cgroup.wait_until_empty()?,
        "{}: processes survive SIGKILL (in uninterruptible sleep?): {}; delete again when they are gone",
        cgroup.path.display(),
        cgroup.named_processes()
    );
    cgroup.remove().context("remove the container's cgroup")
}

/// Ends every process of the container: those of its cgroup, and init wherever it is.
pub fn kill_all(container: &Container) -> Result<()> {
    let Some(init) = signal_kill(container)? else {
        return Ok(());
    };
    if container.dies_within(&init, wait::KILL_TIMEOUT)? {
        return Ok(());
    }
    // pid_namespaces(7): init ends last of all in its namespace.
    let cgroup = container.cgroup()?;
    let left = cgroup.map_or_else(String::new, |cgroup| {
        format!(": {}", cgroup.named_processes())
    });
    bail!(
        "the container's init survives SIGKILL (in uninterruptible sleep, or some process in its pid namespace?){left}; \
         delete again when they are gone"
    )
}

/// Kills them without waiting for that; gives the init that has to die.
pub fn signal_kill(container: &Container) -> Result<Option<OwnedFd>> {
    if let Some(cgroup) = container.cgroup()? {
        cgroup.kill()?;
    }
    let init = container.init()?;
    if let Some(init) = &init {
        process::pidfd_send_signal(init, libc::SIGKILL).ok();
    }
    Ok(init)
}

/// A creator that was killed right after making the cgroup had no time to put anybody in: rmdir will do,
/// and fails if others are in. One that somebody else has removed may have others above it.
fn remove_rest_of_cgroup(container: &Container) -> Result<()> {
    let Some(path) = &container.state.cgroup else {
        return Ok(());
    };
    if let Some(unit) = &container.state.unit {
        // systemd removes it when the last process is gone, but may keep its name as that of a failed unit. And it keeps one
        // whose only process was dying when it came: of that the kernel tells nothing (cgroup.c, cgroup_migrate_add_task).
        let asked_for = container.state.pid == 0 && !is_populated(path);
        let ended = match asked_for {
            true => unit.stop(),
            false => unit.forget(),
        };
        ended.unwrap_or_else(|error| log::warn(&format!("{error:#}")));
    } else if container.state.pid == 0 {
        remove_unclaimed(container, path)?;
    }
    tree::remove_made_above(path);
    Ok(())
}

/// Not one that another is about to go into. It stays claimed until it is gone, for who claims it then sees that.
fn remove_unclaimed(container: &Container, path: &Path) -> Result<()> {
    let cgroup = match Cgroup::at(path) {
        Err(error) if sys::errno(&error) == Some(Errno::ENOENT) => return Ok(()),
        opened => opened.ok(),
    };
    let claim = |cgroup: &Cgroup| cgroup.claim().unwrap_or(true);
    if cgroup.as_ref().is_none_or(claim) || container.is_being_created()? {
        std::fs::remove_dir(path).ok();
    }
    Ok(())
}

/// One with processes is another container's by now.
fn is_populated(path: &Path) -> bool {
    Cgroup::at(path).is_ok_and(|cgroup| cgroup.has_event("populated 1").unwrap_or(true))
}

/// Groups do not outlive a boot: one with the name would be another's.
fn remove_rdt_groups(state: &Record) -> Result<()> {
    match &state.rdt {
        Some(groups) if state.boot_id == boot_id()? => {
            resctrl::remove(Path::new(resctrl::ROOT), groups)
        }
        _ => Ok(()),
    }
}

/// They take down what createRuntime hooks have set up (runtime.md, "Lifecycle", step 13).
pub fn run_poststop_hooks(dir: &StateDir, state: &Record) {
    let list = &state.hooks.poststop;
    if list.is_empty() || !claim_poststop(dir) {
        return;
    }
    // Of the caller's files hooks get none; a create has marked them before.
    process::close_on_exec_from(3).ok();
    // The bundle may be gone by now.
    let directory = Some(state.bundle.as_path()).filter(|dir| dir.is_dir());
    match report(state, Status::Stopped, 0).line() {
        Ok(json) => hooks::run_all(list, "poststop", &json, directory.unwrap_or(Path::new("/"))),
        Err(error) => log::warn(&format!("poststop hooks: {error:#}")),
    }
}

/// After the last process: without a mount namespace nobody else would. Links that the container has put in the way lead to
/// nothing outside of its root.
pub fn unmount_in_place(state: &Record) {
    for target in state.mounts_in_place.iter().rev() {
        // What was not reached is not mounted.
        unmount(&state.rootfs, target).ok();
    }
}

fn unmount(rootfs: &Path, target: &Path) -> Result<()> {
    let mut options = File::options();
    options
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    let root = sys::io(options.open(rootfs))?;
    let place = path::resolve(root, &Path::new("/").join(target.strip_prefix(rootfs)?))?;
    // umount(2) takes no descriptor, but its name.
    let name = format!("/proc/self/fd/{}", place.as_raw_fd());
    named(umount2(name.as_str(), MntFlags::MNT_DETACH), || {
        "umount".to_string()
    })
}
