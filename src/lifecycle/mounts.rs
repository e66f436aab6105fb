//! PARENT: changes the mounts of a running container.
//!
//! An entry is planned as one of the config. A process that joins the container performs it; the trees are opened before. Only
//! mounts that were added can be removed: their numbers are noted in the container's directory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use oci_spec::runtime::Mount;
use serde_json::json;

use super::bind_sources;
use crate::bundle::Bundle;
use crate::channel;
use crate::facility::{id_maps, ns_files};
use crate::host::Host;
use crate::init::args::JoinTarget;
use crate::init::hotplug::{self, HotplugFds};
use crate::init::trees::Trees;
use crate::plan::mounts::{self as planned, Mounts, clean};
use crate::plan::namespaces::Namespaces;
use crate::plan::step::{Step, Tree};
use crate::state::container::Container;
use crate::state::state_dir::MOUNTS;
use crate::sys::clone::{self, Side};
use crate::sys::{self, again, named, process, wait};
use crate::text::log;
use crate::{protect, supervise};

/// The work of the process that joins the container, in messages.
const JOINING: &str = "change the mounts of the container";

pub const STOPPED: &str = "a stopped container has no mounts";

/// Plans the entries as those of a config, and mounts them in the container.
pub fn add(entries: &[Mount], container: &Container) -> Result<()> {
    let host = Host::probe()?;
    let (mut target, site) = open(container)?;
    let plan = plan(entries, container, &host, target.flags)?;
    plan.warnings.iter().for_each(|warning| log::warn(warning));
    let steps: Vec<Step> = plan.steps.into_iter().chain(plan.seals).collect();
    steps.iter().for_each(|step| log::debug(&step.to_string()));
    // A caller without privilege may open mounts in a copy that belongs to the container's user namespace.
    let has_user = target.flags & clone::NEWUSER != 0;
    let joins_first = host.euid != 0 && has_user;
    let mut opened = Vec::new();
    if has_user && !joins_first {
        opened = open_locked(&plan.trees, container, &host)?;
    }
    supervise::run_in_child(JOINING, || {
        protect::close_exe_mount();
        if joins_first {
            target = target.in_its_user_namespace()?;
        }
        if opened.len() < plan.trees.len() {
            // Not in the host's mount namespace: a mount namespace that is kept in a file there cannot be attached in an older one.
            clone::unshare(clone::NEWNS)?;
            opened = bind_sources::open(&plan.trees, &host)?;
        }
        target.join()?;
        hotplug::add(&steps, Trees::opened(opened), site)
    })
}

/// With the locks that the kernel gives a copy of the host's mounts that belongs to the container's user
/// namespace: a process makes that copy, and holds it while another opens the trees in there.
fn open_locked(trees: &[Tree], container: &Container, host: &Host) -> Result<Vec<OwnedFd>> {
    let (target, _) = open(container)?;
    let (parent, child) = channel::pair()?;
    let Side::Parent { pid, pidfd: holder } = clone::clone3(0, None)? else {
        drop(parent);
        let copied = target
            .in_its_user_namespace()
            .and_then(|_| clone::unshare(clone::NEWNS));
        child.send(supervise::to_report(copied)).ok();
        // Until the parent hangs up.
        child.receive().ok();
        process::exit(0)
    };
    drop(child);
    supervise::from_report(supervise::recv_from_helper(
        &parent,
        (pid, &holder),
        JOINING,
    )?)?;
    let (coming, to) = bind_sources::coming(trees.len())?;
    let opener = bind_sources::send(trees, None, host, (pid, &holder), to)?;
    let opened = coming.all();
    drop(parent);
    wait::kill_and_reap(&opener);
    wait::kill_and_reap(&holder);
    opened
}

/// Removes mounts that `add` has made.
pub fn remove(targets: &[PathBuf], container: &Container) -> Result<()> {
    let targets: Vec<PathBuf> = targets.iter().map(|target| clean(target)).collect();
    let added = added(container)?;
    let (target, site) = open(container)?;
    supervise::run_in_child(JOINING, || {
        protect::close_exe_mount();
        target.join()?;
        hotplug::remove(&targets, &added, &site)
    })
}

fn plan(entries: &[Mount], container: &Container, host: &Host, flags: u64) -> Result<Mounts> {
    let state = &container.state;
    let config = json!({
        "ociVersion": state.oci_version,
        "mounts": entries,
        "linux": container.exec_config()?.linux,
        "annotations": state.annotations,
    });
    let bundle = Bundle::of_process(state.bundle.clone(), &config)?;
    let mut namespaces = Namespaces {
        enter: flags,
        ..Namespaces::default()
    };
    if flags & clone::NEWUSER != 0 {
        namespaces.uids = id_maps::read_map(state.pid, "uid_map")?;
        namespaces.gids = id_maps::read_map(state.pid, "gid_map")?;
    }
    let plan = planned::mounts(&bundle, host, &namespaces)?;
    let remount = plan
        .steps
        .iter()
        .find(|step| matches!(step, Step::Remount(_)));
    match remount {
        Some(step) => bail!("{step}: what is mounted cannot be changed while the container runs"),
        None => Ok(plan),
    }
}

/// Returns the namespaces to join, and the files that must be opened while the host's paths are in reach.
///
/// The pid namespace is not joined: processes of the container could see this one there.
fn open(container: &Container) -> Result<(JoinTarget, HotplugFds)> {
    let pid = container.state.pid;
    let all = ns_files::differing(pid, 0)?;
    let flags = all & !clone::NEWPID;
    let namespace = || sys::io(File::open(format!("/proc/{pid}/ns/pid")));
    let pid_namespace = (all != flags).then(namespace).transpose();
    ensure!(
        flags & clone::NEWNS != 0,
        "the container has no mount namespace of its own; mount on the host"
    );
    let flag = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let path = format!("/proc/{pid}/root");
    let root = named(
        again(|| nix::fcntl::open(path.as_str(), flag, Mode::empty())),
        || format!("open({path:?})"),
    )?;
    let appended = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
    let record =
        sys::io(container.dir.file(MOUNTS, appended)).context("open the record of added mounts")?;
    let site = HotplugFds {
        root,
        proc: hotplug::procfs()?,
        pid_namespace: pid_namespace
            .context("open the container's pid namespace")?
            .map(OwnedFd::from),
        record: record.into(),
    };
    // Asked last: then all that was opened by number is of this process.
    let pidfd = container.init()?.context(STOPPED)?;
    Ok((JoinTarget { pidfd, flags }, site))
}

fn added(container: &Container) -> Result<Vec<u64>> {
    let text = container.dir.read(MOUNTS).unwrap_or_default();
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect())
}

/// Returns the text of mountinfo of a process (proc_pid_mountinfo(5)).
pub fn mountinfo(pid: i32) -> Result<String> {
    let path = Path::new("/proc").join(pid.to_string()).join("mountinfo");
    sys::io(std::fs::read_to_string(&path)).with_context(|| format!("read {path:?}"))
}
