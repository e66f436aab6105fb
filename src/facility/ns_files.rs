//! PARENT: the namespaces that a container joins, opened and judged before anything is made.
//!
//! Only descriptors are handed on: the relay of `launch` joins what was judged here, whatever the paths lead to then.
//! Nothing is joined here.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use nix::sys::stat::fstat;

use crate::plan::Plan;
use crate::plan::namespaces::{Join, KINDS};
use crate::sys::{self, clone};

/// Opened before anything is joined: afterwards the paths may be out of reach.
pub fn open(plan: &Plan) -> Result<Vec<(&Join, OwnedFd)>> {
    let open = |join| {
        let opened = open_one(join)?;
        refuse_host_changes(plan, join, &opened)?;
        Ok((join, opened))
    };
    plan.namespaces.join.iter().map(open).collect()
}

/// Takes the pid namespace out of the list, if init is born into it last: others who live there see init from then on.
///
/// A process in a new user namespace could not join it any more. Its init would be seen while it still has the host's root, which is
/// refused. In a joined one it can, if the pid namespace belongs to that; else those who look have no rights over init (ptrace(2)).
pub fn take_pid_namespace(
    plan: &Plan,
    joins: &mut Vec<(&Join, OwnedFd)>,
) -> Result<Option<OwnedFd>> {
    let find = |flag| joins.iter().position(|(join, _)| join.kind.flag == flag);
    let (Some(index), user) = (find(clone::NEWPID), find(clone::NEWUSER)) else {
        return Ok(None);
    };
    let (join, namespace) = &joins[index];
    if plan.namespaces.creates(clone::NEWUSER) {
        let own = sys::io(File::open("/proc/self/ns/pid")).context("open /proc/self/ns/pid")?;
        ensure!(
            is_same(namespace, &own.into())?,
            "{}: {:?}: the processes there would see the host in a container with a new user namespace; \
             join the user namespace of that pid namespace by its path, too",
            join.field,
            join.path
        );
        return Ok(None);
    }
    if let Some(user) = user
        && !is_same(&clone::owner_of(namespace)?, &joins[user].1)?
    {
        return Ok(None);
    }
    Ok(Some(joins.remove(index).1))
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let id = |namespace| {
        let stat = sys::named(fstat(namespace), || "fstat(namespace)".to_string())?;
        Ok::<_, Error>((stat.st_dev, stat.st_ino))
    };
    Ok(id(one)? == id(other)?)
}

/// A path may lead to the host's own namespace, in which no setting is the container's.
fn refuse_host_changes(plan: &Plan, join: &Join, namespace: &OwnedFd) -> Result<()> {
    let flag = join.kind.flag;
    let sysctl = plan.sysctl.iter().find(|sysctl| sysctl.namespace == flag);
    let name = plan
        .hostname
        .as_ref()
        .or(plan.domainname.as_ref())
        .filter(|_| flag == clone::NEWUTS);
    let steps = || plan.rootfs.iter().flat_map(|rootfs| rootfs.steps());
    let mask = steps()
        .find(|step| step.is_hardening())
        .map(ToString::to_string);
    // Options of a new mount of cgroup2 are those of the host's, if the namespace is.
    let mut cgroups = steps().filter(|step| flag == clone::NEWCGROUP && step.is_cgroup());
    let Some(what) = sysctl
        .map(ToString::to_string)
        .or(name.map(|name| format!("hostname {name}")))
        .or(mask.filter(|_| flag == clone::NEWNS))
        .or(cgroups.next().map(ToString::to_string))
    else {
        return Ok(());
    };
    let own = Path::new("/proc/self/ns").join(join.kind.file);
    let own = sys::io(File::open(&own)).with_context(|| format!("open {own:?}"))?;
    ensure!(
        !is_same(&own.into(), namespace)?,
        "{what}: would change the host: {}: {:?} is the host's own namespace",
        join.field,
        join.path
    );
    Ok(())
}

/// Without waiting for a writer: it might be a fifo.
pub fn open_path(join: &Join) -> Result<File> {
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&join.path);
    sys::io(opened).with_context(|| format!("{}: open {:?}", join.field, join.path))
}

fn open_one(join: &Join) -> Result<OwnedFd> {
    let path = &join.path;
    let opened = open_path(join)?;
    let kind = clone::namespace_kind(&opened)
        .with_context(|| format!("{}: {path:?}: is no namespace", join.field))?;
    ensure!(
        kind == join.kind.flag,
        "{}: {path:?}: is no {} namespace",
        join.field,
        join.kind.name
    );
    Ok(opened.into())
}

/// Returns the clone flags of the namespaces in which a process is and this one is not. `made` are those that were made for the
/// container, which need no look, except for the user namespace: nobody may join its own again (setns(2)).
pub fn differing(pid: i32, made: u64) -> Result<u64> {
    let known = made & !clone::NEWUSER;
    let mut flags = known;
    for kind in KINDS.iter().filter(|kind| known & kind.flag == 0) {
        let link = |process: &str| {
            let path = format!("/proc/{process}/ns/{}", kind.file);
            sys::io(std::fs::read_link(&path)).with_context(|| format!("read {path}"))
        };
        if link("self")? != link(&pid.to_string())? {
            flags |= kind.flag;
        }
    }
    Ok(flags)
}
