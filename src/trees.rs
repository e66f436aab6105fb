//! PARENT: opens the trees of mounts that init may not open itself.
//!
//! For a user namespace they are opened in init's own mount namespace, by a process that keeps the
//! host's privilege: what the kernel has copied there is locked, so that nobody inside can take off a
//! read-only or nosuid of the host (mount_namespaces(7)). A tree opened in the host's mount namespace
//! has no locks. Must not change the namespaces of the caller.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;

use crate::channel::{self, ChildEnd, ParentEnd, Up};
use crate::fault::Coded;
use crate::host::Host;
use crate::idmap;
use crate::plan::Plan;
use crate::plan::step::{Idmap, Tree};
use crate::sys::clone::{self, Side};
use crate::sys::{self, mount, process};

/// How init comes by its trees.
pub enum Trees {
    Opened(Vec<OwnedFd>),
    /// So many will be sent.
    Coming(usize, ParentEnd),
}

impl Trees {
    pub fn take(self) -> Result<Vec<OwnedFd>> {
        match self {
            Trees::Opened(trees) => Ok(trees),
            Trees::Coming(count, from) => receive(count, &from),
        }
    }
}

/// Trees for an init to be made, and where to send them to once it is there.
pub fn prepare(plan: &Plan, host: &Host) -> Result<(Trees, Option<ChildEnd>)> {
    let trees = of(plan);
    let namespaces = &plan.namespaces;
    let locked = namespaces.has(clone::NEWUSER) && namespaces.creates(clone::NEWNS);
    if trees.is_empty() || !locked || host.euid != 0 {
        return Ok((Trees::Opened(open(trees, host)?), None));
    }
    let (from, to) = channel::pair()?;
    Ok((Trees::Coming(trees.len(), from), Some(to)))
}

pub fn of(plan: &Plan) -> &[Tree] {
    plan.rootfs.as_ref().map_or(&[], |rootfs| &rootfs.trees)
}

/// Starts a process that opens the trees in the mount namespace of another and sends them.
pub fn send(trees: &[Tree], host: &Host, process: impl AsFd, to: ChildEnd) -> Result<OwnedFd> {
    if let Side::Parent { pidfd, .. } = clone::clone3(0, None)? {
        return Ok(pidfd);
    }
    let send = |tree| to.send(Up::Tree(open_one(tree, host)?));
    let sent = clone::setns(process, clone::NEWNS).and_then(|()| trees.iter().try_for_each(send));
    if let Err(error) = sent {
        to.send(Up::Failed(Coded::of(&error))).ok();
    }
    process::exit(0)
}

pub fn receive(count: usize, from: &ParentEnd) -> Result<Vec<OwnedFd>> {
    let next = |_| match from.receive()? {
        Some(Up::Tree(tree)) => Ok(tree),
        Some(Up::Failed(text)) => bail!(text),
        other => bail!("opening the sources of mounts ended early: {other:?}"),
    };
    (0..count).map(next).collect()
}

/// In the mount namespace of the caller.
pub fn open(trees: &[Tree], host: &Host) -> Result<Vec<OwnedFd>> {
    trees.iter().map(|tree| open_one(tree, host)).collect()
}

/// It receives what is mounted on the host later, and gives nothing back.
fn open_one(tree: &Tree, host: &Host) -> Result<OwnedFd> {
    let open = || -> Result<OwnedFd> {
        let opened = match tree.nofollow {
            true => mount::clone_link(&tree.path, tree.recursive),
            false => mount::clone_tree(&tree.path, tree.recursive),
        };
        let opened = opened.map_err(|error| explain(error, tree))?;
        mount::set_propagation(&opened, libc::MS_SLAVE, true)?;
        if let Some(idmap) = &tree.idmap {
            map_owners(&opened, idmap, host)?;
        }
        Ok(opened)
    };
    open()
        .map_err(|error| explain_idmap(error, tree))
        .with_context(|| format!("open {:?}", tree.path))
}

/// mount_setattr(2): the capability is wanted in the user namespace that the filesystem was mounted in.
fn explain_idmap(error: anyhow::Error, tree: &Tree) -> anyhow::Error {
    match sys::errno(&error) {
        Some(Errno::EPERM) if tree.idmap.is_some() => error.context(
            "an idmapped mount needs CAP_SYS_ADMIN over its filesystem; leave out idmap, and change the owners of the files",
        ),
        _ => error,
    }
}

/// The kernel shows nobody in a user namespace what is covered (mount_namespaces(7)).
fn explain(error: anyhow::Error, tree: &Tree) -> anyhow::Error {
    match sys::errno(&error) {
        Some(Errno::EINVAL) if !tree.recursive => error.context(
            "other mounts lie below it, and in a user namespace they cannot be left out; take rbind",
        ),
        _ => error,
    }
}

fn map_owners(tree: &OwnedFd, idmap: &Idmap, host: &Host) -> Result<()> {
    let namespace = idmap::namespace(host, &idmap.uids, &idmap.gids)?;
    mount::set_idmap(tree, namespace, idmap.recursive)
        .context("map its owners (does its filesystem support idmapped mounts on this kernel?)")
}
