//! PARENT: the namespaces that a container joins, opened and judged before anything is made.
//!
//! Only descriptors are handed on: the relay of `launch` joins what was judged here, whatever the paths lead to then.
//! Nothing is joined here.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::plan::Plan;
use crate::plan::namespaces::Join;
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
/// Not with a user namespace. A process that was executed outside of that can be seen from inside, but neither traced nor looked
/// into (ptrace(2)), and could not join the pid namespace once it is in the user namespace.
pub fn take_pid_namespace(plan: &Plan, joins: &mut Vec<(&Join, OwnedFd)>) -> Option<OwnedFd> {
    if plan.namespaces.has(clone::NEWUSER) {
        return None;
    }
    let is_pid = |(join, _): &(&Join, OwnedFd)| join.kind.flag == clone::NEWPID;
    let index = joins.iter().position(is_pid)?;
    Some(joins.remove(index).1)
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
    let seals = plan.rootfs.iter().flat_map(|rootfs| &rootfs.seal);
    let mask = seals.map(ToString::to_string).next();
    let furnish = plan.rootfs.iter().flat_map(|rootfs| &rootfs.furnish);
    // Options of a new mount of cgroup2 are those of the host's, if the namespace is.
    let mut cgroups = furnish.filter(|step| flag == clone::NEWCGROUP && step.is_cgroup());
    let Some(what) = sysctl
        .map(ToString::to_string)
        .or(name.map(|name| format!("hostname {name}")))
        .or(mask.filter(|_| flag == clone::NEWNS))
        .or(cgroups.next().map(ToString::to_string))
    else {
        return Ok(());
    };
    let own = Path::new("/proc/self/ns").join(join.kind.file);
    let own = sys::io(std::fs::metadata(&own)).with_context(|| format!("stat {own:?}"))?;
    let joined = sys::named(nix::sys::stat::fstat(namespace), || {
        "fstat(namespace)".to_string()
    })?;
    ensure!(
        (own.dev(), own.ino()) != (joined.st_dev, joined.st_ino),
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
