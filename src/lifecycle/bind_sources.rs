//! PARENT: opens the trees of mounts that init may not open itself.
//!
//! They are opened in init's own mount namespace, by a process that keeps the host's privilege: what the kernel has copied there
//! for a user namespace is locked, so that nobody inside can take off a read-only or nosuid of the host (mount_namespaces(7)). A
//! tree that was opened in the host's mount namespace has no locks, and cannot be attached elsewhere if a mount namespace is kept
//! in a file of it. Must not change the namespaces of the caller.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::channel::{self, ChildEnd, Down, Up};
use crate::facility::id_maps;
use crate::host::Host;
use crate::plan::Plan;
use crate::plan::rootfs::{Root, Rootfs};
use crate::plan::step::{Idmap, Source, Tree};
use crate::sys::clone::{self, Side};
use crate::sys::{self, mount, named, path, process};
use crate::text::fault::Coded;

use crate::init::trees::Trees;

/// Trees for an init to be made, and where to send them to once it is there.
pub fn prepare(plan: &Plan, host: &Host) -> Result<(Trees, Option<ChildEnd>)> {
    let trees = of(plan);
    if trees.is_empty() || host.euid != 0 {
        return Ok((Trees::opened(open(trees, host)?), None));
    }
    let (trees, to) = coming(trees.len())?;
    Ok((trees, Some(to)))
}

fn of(plan: &Plan) -> &[Tree] {
    plan.rootfs.as_ref().map_or(&[], |rootfs| &rootfs.trees)
}

/// So many trees, and the end for the process that [`send`] starts.
pub fn coming(count: usize) -> Result<(Trees, ChildEnd)> {
    let (from, to) = channel::pair()?;
    Ok((Trees::coming(count, from), to))
}

/// Starts a process that opens the trees of a plan for an init and sends them: see [`send`].
pub fn send_of(plan: &Plan, host: &Host, init: (i32, &OwnedFd), to: ChildEnd) -> Result<OwnedFd> {
    send(of(plan), plan.rootfs.as_ref(), host, init, to)
}

/// Starts a process that opens the trees in the mount namespace of another and sends them. Those that lie in the new root, on
/// which the container's mounts appear, it opens when it is asked. It ends with the last one, or with who asks.
pub fn send(
    trees: &[Tree],
    rootfs: Option<&Rootfs>,
    host: &Host,
    (pid, pidfd): (i32, &OwnedFd),
    to: ChildEnd,
) -> Result<OwnedFd> {
    if let Side::Parent { pidfd, .. } = clone::clone3(0, None)? {
        return Ok(pidfd);
    }
    let user = user_namespace(pid, trees);
    let sent = user.and_then(|user| {
        let owners = Owners { host, user };
        enter(pid, pidfd)?;
        serve(trees, rootfs, &owners, &to)
    });
    if let Err(error) = sent {
        to.send(Up::Failed(Coded::of(&error))).ok();
    }
    process::exit(0)
}

/// Where the owners of idmapped mounts come from.
struct Owners<'a> {
    host: &'a Host,
    /// The user namespace of init, for mounts without maps.
    user: Option<OwnedFd>,
}

/// Returns the user namespace of a process, if the owners of a tree come from there.
fn user_namespace(pid: i32, trees: &[Tree]) -> Result<Option<OwnedFd>> {
    let mut idmaps = trees.iter().filter_map(|tree| tree.idmap.as_ref());
    if !idmaps.any(|idmap| idmap.uids.is_empty()) {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/ns/user");
    let opened = sys::io(File::open(&path)).with_context(|| format!("open {path}"))?;
    Ok(Some(opened.into()))
}

/// Goes into the mount namespace of a process, and to the root that the process has there: it may be in a chroot.
fn enter(pid: i32, pidfd: &OwnedFd) -> Result<()> {
    let root = path::open_directory(Path::new(&format!("/proc/{pid}/root")));
    clone::setns(pidfd, clone::NEWNS)?;
    // A caller that may not look into that process uses the root of the namespace.
    let Ok(root) = root else { return Ok(()) };
    named(nix::unistd::fchdir(&root), || "fchdir(root)".to_string())?;
    named(nix::unistd::chroot("."), || "chroot(\".\")".to_string())
}

fn serve(trees: &[Tree], rootfs: Option<&Rootfs>, owners: &Owners, to: &ChildEnd) -> Result<()> {
    // A root that is attached on `/` is not seen by paths.
    let anchor = rootfs.map(|rootfs| rootfs.anchor.as_path());
    let anchor = anchor.filter(|anchor| *anchor != Path::new("/"));
    let place = anchor.and_then(|anchor| path::open_directory(anchor).ok());
    let anchor = anchor.and_then(|anchor| path::real(anchor).ok());
    to.send(place.map_or(Up::Later, Up::Tree))?;
    let own = rootfs.and_then(|rootfs| match &rootfs.root {
        Root::Tree(Source::Opened(slot, _)) => Some(*slot),
        _ => None,
    });
    let mut later = Vec::new();
    for (slot, tree) in trees.iter().enumerate() {
        if Some(slot) != own && may_show_mounts(tree, anchor.as_deref()) {
            later.push(tree);
            to.send(Up::Later)?;
        } else {
            to.send(Up::Tree(open_one(tree, owners)?))?;
        }
    }
    for tree in later {
        if to.receive()? != Some(Down::Go) {
            break;
        }
        to.send(Up::Tree(open_one(tree, owners)?))?;
    }
    Ok(())
}

/// Whether what the path leads to may be another thing once the mounts before it are made.
fn may_show_mounts(tree: &Tree, anchor: Option<&Path>) -> bool {
    let Some(anchor) = anchor else { return false };
    let leads_in = |path: &PathBuf| path.starts_with(anchor);
    // A link itself is where its parent is.
    tree.nofollow || path::real(&tree.path).as_ref().map_or(true, leads_in)
}

/// In the mount namespace of the caller.
pub fn open(trees: &[Tree], host: &Host) -> Result<Vec<OwnedFd>> {
    let owners = Owners { host, user: None };
    trees.iter().map(|tree| open_one(tree, &owners)).collect()
}

/// It receives what is mounted on the host later, and gives nothing back.
fn open_one(tree: &Tree, owners: &Owners) -> Result<OwnedFd> {
    let open = || -> Result<OwnedFd> {
        let opened = match tree.nofollow {
            true => mount::clone_link(&tree.path, tree.recursive),
            false => mount::clone_tree(&tree.path, tree.recursive),
        };
        let opened = opened.map_err(|error| explain(error, tree))?;
        mount::set_propagation(&opened, libc::MS_SLAVE, true)?;
        if let Some(idmap) = &tree.idmap {
            map_owners(&opened, idmap, owners)?;
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

fn map_owners(tree: &OwnedFd, idmap: &Idmap, owners: &Owners) -> Result<()> {
    let mapped = match &owners.user {
        Some(user) if idmap.uids.is_empty() => mount::set_idmap(tree, user, idmap.recursive),
        _ => {
            let namespace = id_maps::namespace(owners.host, &idmap.uids, &idmap.gids)?;
            mount::set_idmap(tree, namespace, idmap.recursive)
        }
    };
    mapped.context("map its owners (does its filesystem support idmapped mounts on this kernel?)")
}
