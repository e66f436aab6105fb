//! The new root: attached, and in the end made `/`. What furnishes it lies between (see `steps`).

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::filesystem::{self, New};
use super::moving;
use crate::bundle::overlay::Overlay;
use crate::init::trees::Trees;
use crate::plan::rootfs::{Root as Plan, Rootfs};
use crate::plan::step::{Propagation, Source};
use crate::sys::mount::{self, Configuration};
use crate::sys::{self, named, path};

/// The root being furnished, and what the steps share.
pub struct Root {
    pub directory: OwnedFd,
    /// Opened by another process.
    pub trees: Trees,
    /// The empty read-only directory that masks others, once one was needed.
    pub mask: Option<OwnedFd>,
    /// The null device that masks others, once one was needed.
    pub null: Option<OwnedFd>,
    /// Whether this is a tree of mounts that others share.
    pub is_in_place: bool,
    /// The pid namespace that a new procfs shows, where this process is not in it.
    pub pid_namespace: Option<OwnedFd>,
    /// The socket that the container sends its messages for the service manager to (sd_notify(3)).
    pub notify_socket: Option<OwnedFd>,
    /// Whether a mount lies behind a symbolic link, at another place than the plan knows.
    pub has_linked_mount: Cell<bool>,
    /// Numbers of the mounts that are the container's own: the root, and filesystems that were mounted new.
    pub own: Vec<u64>,
}

impl Root {
    /// Whether what is there may be changed. Another mount is a bind, or came along below the rootfs: what it shows
    /// is the host's, by whatever link or name the container reaches it.
    pub fn owns(&self, file: impl AsFd) -> Result<bool> {
        Ok(self.own.contains(&mount::id(file)?))
    }

    /// Prepares for a mount on `/`, which nobody else is to see. pivot_root(2) takes no shared mount, nor one that lies on a shared one.
    pub fn prepare_for(&self, mounted: &OwnedFd, target: &Path) -> Result<()> {
        if target != Path::new("/") || self.is_in_place {
            return Ok(());
        }
        mount::set_propagation(&self.directory, libc::MS_PRIVATE, false)?;
        mount::set_propagation(mounted, libc::MS_SLAVE, false)
    }

    /// Makes a mount on `/` the root from now on.
    pub fn take(&mut self, mounted: OwnedFd, target: &Path) {
        if target == Path::new("/") {
            self.directory = mounted;
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Attaches the new root where the plan says. Paths of the host stay reachable until the old root is left.
pub fn enter(plan: &Rootfs, mut trees: Trees, pid_namespace: Option<OwnedFd>) -> Result<Root> {
    let found = trees.wait()?;
    let directory = match &plan.root {
        Plan::InPlace(path) => path::open_directory(path)?,
        Plan::Tree(source) => {
            let anchor = prepare_host_tree(plan, found)?;
            attach(open_tree(source, &mut trees)?, &anchor, &plan.anchor)?
        }
        Plan::Overlay(overlay) => {
            let anchor = prepare_host_tree(plan, found)?;
            attach(
                assemble(overlay, &anchor, &plan.anchor)?,
                &anchor,
                &plan.anchor,
            )?
        }
    };
    let own = vec![mount::id(&directory)?];
    Ok(Root {
        directory,
        trees,
        mask: None,
        null: None,
        is_in_place: matches!(plan.root, Plan::InPlace(_)),
        pid_namespace,
        notify_socket: None,
        has_linked_mount: Cell::new(false),
        own,
    })
}

/// Makes the new root `/` and takes the old one away.
pub fn pivot(plan: &Rootfs, root: Root) -> Result<()> {
    if matches!(plan.root, Plan::Tree(_) | Plan::Overlay(_)) && !plan.pivot {
        let shared = plan.host_propagation.kind == libc::MS_SHARED;
        moving::over_the_old(&root.directory, shared)?;
        to_root()?;
        return plan
            .propagation
            .map_or(Ok(()), |propagation| propagate("/", propagation));
    }
    let in_place = matches!(plan.root, Plan::InPlace(_));
    if !in_place {
        moving::leave_a_chroot(&root.directory)?;
    }
    named(nix::unistd::fchdir(&root), || {
        "fchdir(new root)".to_string()
    })?;
    if in_place {
        // The container shares the mounts of its caller, of which none may be moved.
        named(nix::unistd::chroot("."), || "chroot(\".\")".to_string())?;
        return to_root();
    }
    let old = path::open_directory(Path::new("/"))?;
    mount::pivot_to_current_directory()?;
    named(nix::unistd::fchdir(&old), || "fchdir(old root)".to_string())?;
    if plan.host_propagation.kind == libc::MS_SHARED {
        // What is unmounted here must not be unmounted on the host.
        propagate(
            ".",
            Propagation {
                kind: libc::MS_SLAVE,
                recursive: true,
            },
        )?;
    }
    unmount_all_here()?;
    to_root()?;
    match plan.propagation {
        Some(propagation) => propagate("/", propagation),
        None => Ok(()),
    }
}

/// umount(".") takes what lies on top first, such as the scratch tmpfs of an overlay. EINVAL: nothing is
/// mounted here any more, the old root is out of reach.
fn unmount_all_here() -> Result<()> {
    loop {
        match umount2(".", MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(Errno::EINVAL) => return Ok(()),
            Err(errno) => return named(Err(errno), || "umount(old root)".to_string()),
        }
    }
}

fn to_root() -> Result<()> {
    named(nix::unistd::chdir("/"), || "chdir(\"/\")".to_string())
}

/// The tree of a bind: from the parent, or opened here.
pub fn open_tree(source: &Source, trees: &mut Trees) -> Result<OwnedFd> {
    match source {
        Source::Path(tree) if tree.nofollow => mount::clone_link(&tree.path, tree.recursive),
        Source::Path(tree) => mount::clone_tree(&tree.path, tree.recursive),
        Source::Opened(slot, _) => trees.take(*slot),
    }
}

/// A procfs in which no path can lead elsewhere: a new one, or the host's if the kernel allows no new one.
pub fn trusted_proc() -> Result<OwnedFd> {
    let own = Configuration::open("proc").and_then(|proc| proc.mount(0));
    let proc = match own {
        Ok(proc) => proc,
        Err(_) => path::open_directory(Path::new("/proc"))?,
    };
    let kind = named(fstatfs(&proc), || "fstatfs(/proc)".to_string())?.filesystem_type();
    let inode = named(nix::sys::stat::fstat(&proc), || "fstat(/proc)".to_string())?.st_ino;
    ensure!(
        kind == PROC_SUPER_MAGIC && inode == 1,
        "/proc: is no procfs"
    );
    Ok(proc)
}

/// The copied mounts of the host must not tell the host what happens to them. Gives the place for the new root: the one that was
/// `found`, or `/` where the user of a user namespace may not reach the anchor, or an overlay names one that is not there.
fn prepare_host_tree(plan: &Rootfs, found: Option<OwnedFd>) -> Result<OwnedFd> {
    propagate("/", plan.host_propagation)?;
    if plan.host_propagation.kind == libc::MS_SHARED {
        let reached = path::open_directory(&plan.anchor).is_ok();
        let anchor = if reached {
            &plan.anchor
        } else {
            Path::new("/")
        };
        make_private(anchor)?;
        return path::open_directory(anchor);
    }
    let found = found.map_or_else(|| path::open_directory(&plan.anchor), Ok);
    found.or_else(|_| path::open_directory(Path::new("/")))
}

/// Makes the mount that holds `path` private: it is at `path` or at one of its parents.
fn make_private(path: &Path) -> Result<()> {
    let mut last = Ok(());
    for place in path.ancestors() {
        last = mount::set_propagation(path::open_directory(place)?, libc::MS_PRIVATE, false);
        if last.is_ok() {
            break;
        }
    }
    last.with_context(|| format!("make the mount of {path:?} private"))
}

fn attach(tree: OwnedFd, anchor: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    mount::move_mount(&tree, anchor)
        .with_context(|| format!("attach the root filesystem at {path:?}"))?;
    Ok(tree)
}

fn propagate(path: impl AsRef<Path>, propagation: Propagation) -> Result<()> {
    let path = path.as_ref();
    let mut flags = MsFlags::from_bits_retain(propagation.kind);
    flags.set(MsFlags::MS_REC, propagation.recursive);
    let done = nix::mount::mount(None::<&str>, path, None::<&str>, flags, None::<&str>);
    named(done, || format!("mount({path:?}, {propagation})"))
}

/// overlayfs over the layers, detached.
fn assemble(overlay: &Overlay, anchor: &OwnedFd, path: &Path) -> Result<OwnedFd> {
    let mut layers = overlay.lower.clone();
    let held = match overlay.upper {
        Some(_) => Vec::new(),
        None => hold_what_is_covered(&mut layers, path)?,
    };
    let layers: Vec<&Path> = layers.iter().map(|layer| layer.as_path()).collect();
    let mut options = vec![format!("lowerdir={}", mount::layer_list(&layers))];
    // Overlay takes directories by path only where their mount is attached in this namespace; a new
    // tmpfs lies at the anchor until the old root is left.
    let scratch = match &overlay.upper {
        Some(upper) => {
            options.push(format!("upperdir={}", mount::escaped(&upper.dir)));
            options.push(format!("workdir={}", mount::escaped(&upper.work)));
            None
        }
        None => Some(scratch_upper(&mut options, anchor)?),
    };
    options.extend(overlay.user_attributes.then(|| "userxattr".to_string()));
    let new = New {
        kind: "overlay",
        source: None,
        options: &options,
        attributes: 0,
    };
    let mounted = filesystem::make(&new, Some(anchor));
    drop((held, scratch));
    mounted.map_err(|error| explain(error, overlay))
}

/// Names the layers below the anchor, or on it, by open descriptors: the tmpfs of the upper layer covers their paths. Returns the
/// descriptors.
fn hold_what_is_covered(layers: &mut [PathBuf], anchor: &Path) -> Result<Vec<OwnedFd>> {
    let mut held = Vec::new();
    let Ok(anchor) = path::real(anchor) else {
        return Ok(held);
    };
    for layer in layers.iter_mut().filter(|_| anchor != Path::new("/")) {
        if path::real(layer).is_ok_and(|layer| layer.starts_with(&anchor)) {
            let directory = path::open_directory(layer)?;
            *layer = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
            held.push(directory);
        }
    }
    Ok(held)
}

fn scratch_upper(options: &mut Vec<String>, anchor: &OwnedFd) -> Result<OwnedFd> {
    let tmpfs = Configuration::open("tmpfs")?;
    tmpfs.string("mode", "0755")?;
    let scratch = tmpfs.mount(0)?;
    mount::move_mount(&scratch, anchor).context("attach the tmpfs of the upper layer")?;
    for (key, name) in [("upperdir", "upper"), ("workdir", "work")] {
        let made = mkdirat(&scratch, name, Mode::from_bits_truncate(0o755));
        named(made, || format!("mkdirat({name:?})"))?;
        options.push(format!(
            "{key}=/proc/self/fd/{}/{name}",
            scratch.as_raw_fd()
        ));
    }
    Ok(scratch)
}

/// Two refusals of overlayfs whose errno misleads.
fn explain(error: anyhow::Error, overlay: &Overlay) -> anyhow::Error {
    let names: Vec<String> = overlay
        .lower
        .iter()
        .map(|layer| layer.display().to_string())
        .collect();
    let is_root = overlay.lower.iter().any(|layer| layer == Path::new("/"));
    let reason = match sys::errno(&error) {
        Some(Errno::ELOOP) => ": one directory lies inside another; they must lie apart",
        Some(Errno::EINVAL) if overlay.user_attributes && is_root => {
            ": in a user namespace the kernel refuses a layer with mounts below it, as / has; take one \
             without, such as /usr"
        }
        _ => "",
    };
    error.context(format!("overlay of {}{reason}", names.join(", ")))
}
