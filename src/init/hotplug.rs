//! CHILD: mounts and unmounts in a container that runs, with the steps that make a new one.
//!
//! Run by a process of the command that has joined the namespaces of the container, but for its pid namespace, where it could be
//! seen. The paths are the
//! container's and may change under its hands, so all goes by descriptor. What was done before
//! something failed is undone. Must not execute anything, nor name a file by a path of the container.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::readlinkat;
use nix::mount::{MntFlags, umount2};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::rootfs::{Root, trusted_proc};
use super::steps;
use crate::init::trees::Trees;
use crate::plan::step::Step;
use crate::sys::{again, mount, named, path};

/// What is opened before anything is joined.
pub struct HotplugFds {
    /// The root directory of the container's init.
    pub root: OwnedFd,
    /// A procfs in which this process finds itself.
    pub proc: OwnedFd,
    /// The container's, if it is another than this process's.
    pub pid_namespace: Option<OwnedFd>,
    /// Where the numbers of added mounts are noted, one a line.
    pub record: OwnedFd,
}

/// A procfs of the caller's own.
pub fn procfs() -> Result<OwnedFd> {
    trusted_proc()
}

/// All steps, or none.
pub fn add(steps: &[Step], trees: Trees, site: HotplugFds) -> Result<()> {
    let mut root = Root {
        directory: site.root,
        trees,
        mask: None,
        null: None,
        is_in_place: true,
        pid_namespace: site.pid_namespace,
        notify_socket: None,
        has_linked_mount: Cell::new(false),
        own: Vec::new(),
    };
    let mut done = Done::default();
    let added = steps
        .iter()
        .try_for_each(|step| done.perform(step, &mut root))
        .and_then(|()| done.note(&site.record));
    added.inspect_err(|_| done.undo(&root, &site.proc))
}

/// Unmounts what lies at these places, if it is among the `added`.
pub fn remove(targets: &[PathBuf], added: &[u64], site: &HotplugFds) -> Result<()> {
    for target in targets {
        let place = path::find(&site.root, target)?;
        let mounted = place.with_context(|| format!("{target:?}: nothing is there"))?;
        ensure!(
            mount::is_mount(&mounted)?,
            "{target:?}: nothing is mounted there"
        );
        ensure!(
            added.contains(&mount::id(&mounted)?),
            "{target:?}: was not added by \"mounts add\"; what the config has mounted stays"
        );
        unmount(&mounted, &site.proc).with_context(|| format!("unmount {target:?}"))?;
    }
    Ok(())
}

/// What has been done so far.
#[derive(Default)]
struct Done {
    mounted: Vec<OwnedFd>,
    made: Vec<PathBuf>,
}

impl Done {
    fn perform(&mut self, step: &Step, root: &mut Root) -> Result<()> {
        let Some(target) = target(step) else {
            return steps::perform(step, root);
        };
        let before = top(root, target).map(|(id, _)| id);
        let missing = missing(root, target, path::LINKS);
        let performed = steps::perform(step, root);
        self.made.extend(missing);
        if let Some((id, mounted)) = top(root, target)
            && Some(id) != before
        {
            self.mounted.push(mounted);
        }
        performed
    }

    fn note(&self, record: &OwnedFd) -> Result<()> {
        let mut lines = String::new();
        for mounted in &self.mounted {
            lines += &format!("{}\n", mount::id(mounted)?);
        }
        let written = again(|| nix::unistd::write(record, lines.as_bytes()));
        named(written, || "write(record of mounts)".to_string()).map(drop)
    }

    /// Last things first. What cannot be undone stays: the first error is the one to tell.
    fn undo(&self, root: &Root, proc: &OwnedFd) {
        for mounted in self.mounted.iter().rev() {
            unmount(mounted, proc).ok();
        }
        for made in self.made.iter().rev() {
            let found = made.parent().map(|parent| path::find(root, parent));
            let (Some(Ok(Some(parent))), Some(name)) = (found, made.file_name()) else {
                continue;
            };
            // Only of what is empty, and only one of the two succeeds.
            unlinkat(&parent, name, UnlinkatFlags::RemoveDir).ok();
            unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir).ok();
        }
    }
}

fn target(step: &Step) -> Option<&Path> {
    match step {
        Step::Mount(mount) => Some(&mount.target),
        Step::Bind(bind) => Some(&bind.target),
        _ => None,
    }
}

/// The topmost mount at this place, if it can be reached.
fn top(root: &Root, target: &Path) -> Option<(u64, OwnedFd)> {
    let place = path::find(root, target).ok()??;
    let id = mount::id(&place).ok()?;
    mount::is_mount(&place).ok()?.then_some((id, place))
}

/// Returns the paths that are made for a target, outermost first. For a link that leads nowhere, they are below the place that
/// the link names.
fn missing(root: &Root, target: &Path, links: usize) -> Vec<PathBuf> {
    let mut missing = Vec::new();
    for path in target.ancestors() {
        if !matches!(path::find(root, path), Ok(None)) {
            break;
        }
        let link = path::resolve_link(root, path).and_then(|link| Ok(readlinkat(link, "")?));
        match (link, path.parent()) {
            (Ok(text), Some(parent)) if links > 0 => {
                let named = self::missing(root, &parent.join(text), links - 1);
                missing.extend(named.into_iter().rev());
                break;
            }
            _ => missing.push(path.to_path_buf()),
        }
    }
    missing.reverse();
    missing
}

/// umount(2) takes no descriptor, but its name in a procfs, from there.
fn unmount(mounted: &OwnedFd, proc: &OwnedFd) -> Result<()> {
    named(nix::unistd::fchdir(proc), || "fchdir(procfs)".to_string())?;
    let name = format!("self/fd/{}", mounted.as_raw_fd());
    let unmounted = umount2(name.as_str(), MntFlags::MNT_DETACH);
    named(unmounted, || "umount(mount, MNT_DETACH)".to_string())
}
