//! Performs the steps of the plan. Every path is resolved inside the root, every act is on a descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, makedev, mknodat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::filesystem::{self, New, configure};
use super::rootfs::{Root, open_tree, trusted_proc};
use super::{copyup, explain, locked_flags, masks, procfs};
use crate::plan::step::{Bind, Mount, Node, NodeKind, Propagation, Remount, Step};
use crate::sys::mount::{self, Attributes, Configuration};
use crate::sys::{self, named, path, socket};
use crate::text::fault::{Coded, coded};
use crate::text::timings;

pub fn perform_all(steps: &[Step], root: &mut Root) -> Result<()> {
    for step in steps {
        perform(step, root)?;
        timings::step(|| step.to_string());
    }
    Ok(())
}

pub fn perform(step: &Step, root: &mut Root) -> Result<()> {
    act(step, root).with_context(|| step.to_string())
}

fn act(step: &Step, root: &mut Root) -> Result<()> {
    match step {
        Step::Mount(step) => make_mount(step, root),
        Step::Bind(step) => bind(step, root),
        Step::Remount(step) => remount(step, root),
        Step::MakeDir { path, mode } => make_dir(path, *mode, root),
        Step::MakeNode(node) => make_node(node, root),
        Step::BindNode(node) => {
            bind_node(node, root).map_err(|error| match path::resolve(&*root, &node.path) {
                Ok(place) => explain_mismatch(error, false, &place),
                Err(_) => error,
            })
        }
        Step::Symlink { target, path } => symlink(target, path, root),
        Step::BindSocket { path } => bind_socket(path, root),
        Step::ReadOnly { path, recursive } => read_only(path, *recursive, root),
        Step::Mask { path } => masks::mask(path, root),
        Step::Seal { path } => seal(path, root),
    }
}

fn make_mount(step: &Mount, root: &mut Root) -> Result<()> {
    let (target, existed) = directory_target(root, &step.target, &step.kind)?;
    let mounted = match &root.pid_namespace {
        Some(namespace) if step.kind == "proc" => procfs::mount_of(namespace, step, &*root),
        _ => new_filesystem(step, &target, existed, root),
    };
    let mounted = mounted.map_err(|error| explain::refused_mount(error, &step.kind))?;
    if step.copy_up {
        copyup::copy(&target, &mounted).context("copy up what the tmpfs covers")?;
    }
    root.prepare_for(&mounted, &step.target)?;
    mount::move_mount(&mounted, &target).map_err(|error| match kind_name(&target) {
        "directory" => error,
        kind => mismatch(format!(
            "a new file system needs a directory, and the image has a {kind} at the destination"
        )),
    })?;
    root.own.push(mount::id(&mounted)?);
    set_propagation(&mounted, &step.propagation)?;
    root.take(mounted, &step.target);
    Ok(())
}

/// Makes a detached filesystem. `covered` is the directory that was there before.
fn new_filesystem(step: &Mount, target: &OwnedFd, existed: bool, root: &Root) -> Result<OwnedFd> {
    let mut options = step.options.clone();
    let has_mode = || step.options.iter().any(|word| word.starts_with("mode="));
    if existed && step.kind == "tmpfs" && !has_mode() {
        // As mount(8) users expect: what covers a directory has its mode.
        options.push(format!("mode={:o}", stat(target)?.st_mode & 0o7777));
    }
    let new = New {
        kind: &step.kind,
        source: step.source.as_deref(),
        options: &options,
        attributes: step.attributes,
    };
    // Where processes of the container run, nothing but the mount itself is ever attached.
    filesystem::make(&new, (!root.is_in_place).then_some(target))
}

fn bind(step: &Bind, root: &mut Root) -> Result<()> {
    let tree = open_tree(&step.source, &mut root.trees)
        .map_err(|error| explain::missing_source(error, &step.field))?;
    if step.must_be_proc {
        ensure!(is_proc(&tree)?, "only a procfs may stand in for /proc");
    }
    let kind = kind_of(&stat(&tree)?);
    if step.copy_symlink && kind == SFlag::S_IFLNK {
        return copy_link(&tree, &step.target, root);
    }
    let is_dir = kind == SFlag::S_IFDIR;
    let target = match step.nofollow {
        true => target_itself(root, &step.target, is_dir)?,
        false => target(root, &step.target, is_dir)?.0,
    };
    let changes = [step.attributes, step.recursive_attributes];
    locked_flags::change(&tree, changes, step.locked)?;
    root.prepare_for(&tree, &step.target)?;
    mount::move_mount(&tree, &target).map_err(|error| explain_mismatch(error, is_dir, &target))?;
    set_propagation(&tree, &step.propagation)?;
    if step.target == Path::new("/") {
        root.own = vec![mount::id(&tree)?];
    }
    root.take(tree, &step.target);
    Ok(())
}

/// The link of the host is made again inside the root, whatever it points to.
fn copy_link(link: &OwnedFd, path: &Path, root: &Root) -> Result<()> {
    let text = named(readlinkat(link, ""), || "readlinkat(source)".to_string())?;
    let (parent, name) = path::make_parent(root, path)?;
    match nix::unistd::symlinkat(text.as_os_str(), &parent, name) {
        Err(Errno::EEXIST) => {
            let same = readlinkat(&parent, name).is_ok_and(|there| there == text);
            ensure!(same, "something else is there already");
            Ok(())
        }
        made => named(made, || format!("symlinkat({name:?})")),
    }
}

/// move_mount(2) says EINVAL, or ENOTDIR, without a word. Engines look for the end of the text.
fn explain_mismatch(error: Error, source_is_dir: bool, target: &OwnedFd) -> Error {
    let target = kind_name(target);
    let source = if source_is_dir { "directory" } else { "file" };
    match source_is_dir == (target == "directory") {
        true => error,
        false => mismatch(format!(
            "a {source} as source does not go onto the {target} that the image has at the destination"
        )),
    }
}

fn mismatch(text: String) -> Error {
    Error::new(Coded {
        errno: Errno::ENOTDIR as i32,
        ..coded("mount-mismatch", text + ": not a directory")
    })
}

/// The kind of a file of the image, in words.
fn kind_name(file: &OwnedFd) -> &'static str {
    match stat(file).map(|meta| kind_of(&meta)) {
        Ok(SFlag::S_IFDIR) => "directory",
        Ok(SFlag::S_IFIFO) => "fifo",
        Ok(SFlag::S_IFSOCK) => "socket",
        Ok(SFlag::S_IFCHR | SFlag::S_IFBLK) => "device",
        Ok(SFlag::S_IFLNK) => "symbolic link",
        _ => "file",
    }
}

fn remount(step: &Remount, root: &Root) -> Result<()> {
    let target = path::resolve(root, &step.target)?;
    ensure!(mount::is_mount(&target)?, "nothing is mounted there");
    if !step.options.is_empty() {
        // The first is the root, of which the host has the filesystem.
        let (own, id) = (root.own.get(1..).unwrap_or_default(), mount::id(&target)?);
        ensure!(
            own.contains(&id),
            "this config has not mounted the filesystem there, whose own options stay; add \"bind\" to change the mount alone"
        );
        let superblock = Configuration::pick(&target)?;
        configure(&superblock, None, &step.options)?;
        superblock.reconfigure()?;
    }
    let changes = [step.attributes, step.recursive_attributes];
    locked_flags::change(&target, changes, false)?;
    set_propagation(&target, &step.propagation)
}

fn set_propagation(mounted: &OwnedFd, list: &[Propagation]) -> Result<()> {
    list.iter().try_for_each(|propagation| {
        mount::set_propagation(mounted, propagation.kind, propagation.recursive)
            .with_context(|| format!("make it {propagation}"))
    })
}

/// Relative to its directory: no path of the host or of the image leads there.
fn bind_socket(path: &Path, root: &mut Root) -> Result<()> {
    let (parent, name) = path::make_parent(&*root, path)?;
    named(nix::unistd::fchdir(&parent), || "fchdir()".to_string())?;
    root.notify_socket = Some(socket::bind_datagram(Path::new(name))?);
    Ok(())
}
/// The first half is the wording that scripts match.
const ORDINARY: &str = "must be mounted on ordinary directory: must be an ordinary directory";

/// The directory for a new filesystem, and whether it was there before.
fn directory_target(root: &Root, path: &Path, kind: &str) -> Result<(OwnedFd, bool)> {
    if matches!(kind, "proc" | "sysfs") {
        // A link of the image would put these where the image wants them.
        if let Err(Errno::ENOENT) = path::resolve_plainly(root, path) {
            path::make_directories(root, path).context(ORDINARY)?;
        }
        let target = path::resolve_without_links(root, path).map_err(|error| {
            match path::resolve_link(root, path).as_ref().map(kind_name) {
                Ok("directory" | "symbolic link") | Err(_) => {
                    error.context(format!("{ORDINARY}, not a symbolic link"))
                }
                Ok(kind) => mismatch(format!("{ORDINARY}, and the image has a {kind} there")),
            }
        });
        return Ok((target?, true));
    }
    target(root, path, true)
}

/// Resolves a mount's target, made where missing, and says whether it was there. A path through links
/// must not end in /proc, where the plan has judged its text alone.
fn target(root: &Root, path: &Path, is_dir: bool) -> Result<(OwnedFd, bool)> {
    match path::resolve_plainly(root, path) {
        Ok(target) => Ok((target, true)),
        Err(Errno::ENOENT) => Ok((make_target(root, path, is_dir)?, false)),
        Err(Errno::ELOOP) => {
            let existed = path::find(root, path)?.is_some();
            let target = make_target(root, path, is_dir)?;
            ensure!(
                !leads_to_proc(root, &target)?,
                "leads into /proc by a symbolic link"
            );
            // The mount would be covered by the root that it lies on, and nobody would see it.
            ensure!(
                !is_same_file(root, &target)?,
                "leads to the root by a symbolic link; give / as the destination"
            );
            root.has_linked_mount.set(true);
            Ok((target, existed))
        }
        Err(errno) => named(Err(errno), || format!("openat2({path:?})")),
    }
}

fn make_target(root: &Root, path: &Path, is_dir: bool) -> Result<OwnedFd> {
    let made = if is_dir {
        path::make_directories(root, path)
    } else {
        path::make_file(root, path)
    };
    made.map_err(|error| match sys::errno(&error) {
        Some(Errno::EROFS) => error.context("the place must be there already, or be writable"),
        _ => error,
    })
}

/// The place of that name, even if it is a symbolic link.
fn target_itself(root: &Root, path: &Path, is_dir: bool) -> Result<OwnedFd> {
    let (parent, name) = path::make_parent(root, path)?;
    ensure!(
        !leads_to_proc(root, &parent)?,
        "leads into /proc by a symbolic link"
    );
    // From the parent as its root, where the name is no link.
    let name = &Path::new("/").join(name);
    match path::resolve_link(&parent, name) {
        Err(error) if sys::errno(&error) == Some(Errno::ENOENT) => {}
        found => return found,
    }
    if is_dir {
        path::make_directories(&parent, name)
    } else {
        path::make_file(&parent, name)
    }
}

fn leads_to_proc(root: &Root, target: &OwnedFd) -> Result<bool> {
    let same = match path::resolve(root, Path::new("/proc")) {
        Ok(proc) => is_same_file(&proc, target)?,
        Err(_) => false,
    };
    Ok(same || is_proc(target)?)
}

fn is_same_file(one: impl AsFd, other: impl AsFd) -> Result<bool> {
    let (one, other) = (stat(one)?, stat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

pub fn is_proc(file: &OwnedFd) -> Result<bool> {
    let fs = named(fstatfs(file), || {
        format!("fstatfs(fd {})", file.as_raw_fd())
    })?;
    Ok(fs.filesystem_type() == PROC_SUPER_MAGIC)
}

fn make_dir(path: &Path, mode: u32, root: &Root) -> Result<()> {
    if path::find(root, path)?.is_some() {
        return Ok(());
    }
    change_mode(&path::make_directories(root, path)?, mode)
}

fn make_node(node: &Node, root: &Root) -> Result<()> {
    let (parent, name) = path::make_parent(root, &node.path)?;
    let (kind, device) = identity_of(node);
    match mknodat(
        &parent,
        name,
        kind,
        Mode::from_bits_truncate(node.mode),
        device,
    ) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let found = path::resolve_link(&parent, Path::new(name))?;
            return check_node(node, &found, root);
        }
        // A sandbox without mknod(2) has the host's nodes at least.
        Err(Errno::EPERM) if kind != SFlag::S_IFIFO => return bind_node(node, root),
        Err(errno) => return named(Err(errno), || format!("mknodat({name:?})")),
    }
    if (node.uid, node.gid) == (0, 0) {
        return Ok(());
    }
    let made = path::resolve_link(&parent, Path::new(name))?;
    change_owner(&made, node.uid, node.gid)?;
    // chown(2) takes some bits of the mode away.
    change_mode(&made, node.mode)
}

/// What the image has there already will do if it is the same device.
fn check_node(node: &Node, found: &OwnedFd, root: &Root) -> Result<()> {
    let (kind, device) = identity_of(node);
    let meta = stat(found)?;
    if kind_of(&meta) != kind || meta.st_rdev != device {
        bail!("something else is there already");
    }
    if !root.owns(found)? {
        return Ok(());
    }
    change_owner(found, node.uid, node.gid)?;
    change_mode(found, node.mode)
}

/// In a user namespace no node can be made, but one of the host can be bound.
fn bind_node(node: &Node, root: &Root) -> Result<()> {
    let tree = hosts_node(&node.path)?;
    let (kind, device) = identity_of(node);
    let meta = stat(&tree)?;
    let same = kind_of(&meta) == kind && meta.st_rdev == device;
    ensure!(same, "what the host has there is another device");
    let target = path::make_file(root, &node.path)?;
    mount::move_mount(&tree, &target)
}

/// A device on a read-only mount can be used, but not given another mode or owner: those are the host's.
fn hosts_node(path: &Path) -> Result<OwnedFd> {
    let tree = mount::clone_tree(path, false)?;
    make_read_only(&tree)?;
    Ok(tree)
}

/// Sets the flags of a mount that shows a device of the host.
pub fn make_read_only(tree: &OwnedFd) -> Result<()> {
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    let attributes = Attributes {
        set,
        ..Attributes::default()
    };
    mount::set_attributes(tree, attributes)
}

/// What mknod(2) would be told.
fn identity_of(node: &Node) -> (SFlag, u64) {
    match node.kind {
        NodeKind::Char(major, minor) => (SFlag::S_IFCHR, makedev(major.into(), minor.into())),
        NodeKind::Block(major, minor) => (SFlag::S_IFBLK, makedev(major.into(), minor.into())),
        NodeKind::Fifo => (SFlag::S_IFIFO, 0),
    }
}

/// Left alone where the image brings its own; only `ptmx` must be this link and nothing else.
fn symlink(target: &str, path: &Path, root: &Root) -> Result<()> {
    let (parent, name) = path::make_parent(root, path)?;
    let link = || nix::unistd::symlinkat(target, &parent, name);
    match link() {
        Err(Errno::EEXIST) if name == "ptmx" && root.owns(&parent)? => {
            let flags = nix::unistd::UnlinkatFlags::NoRemoveDir;
            match nix::unistd::unlinkat(&parent, name, flags) {
                // The config has mounted something there.
                Err(Errno::EBUSY) => return Ok(()),
                done => named(done, || format!("unlinkat({name:?})"))?,
            }
            named(link(), || format!("symlinkat({name:?})"))
        }
        Err(Errno::EEXIST) => Ok(()),
        result => named(result, || format!("symlinkat({name:?})")),
    }
}

/// Makes a place read-only. `recursive` also takes in the mounts that came along with a bind. The plan asks for that where no entry
/// of `mounts` lies below; behind links it cannot know.
fn read_only(path: &Path, recursive: bool, root: &Root) -> Result<()> {
    let Some(place) = path::find(root, path)? else {
        return Ok(());
    };
    let is_plain = !root.has_linked_mount.get() && path::resolve_plainly(root, path).is_ok();
    let recursive = recursive && is_plain;
    let tree = mount::clone_tree_at(&place, true)?;
    mount::set_attributes(
        &tree,
        Attributes {
            set: libc::MOUNT_ATTR_RDONLY,
            clear: 0,
            recursive,
        },
    )?;
    mount::move_mount(&tree, &place)
}

fn seal(path: &Path, root: &Root) -> Result<()> {
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        ..Attributes::default()
    };
    if path == Path::new("/") {
        return mount::set_attributes(root, attributes);
    }
    mount::set_attributes(path::resolve(root, path)?, attributes)
}

pub fn kind_of(meta: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(meta.st_mode & libc::S_IFMT)
}

pub fn stat(file: impl AsFd) -> Result<FileStat> {
    let file = file.as_fd();
    named(fstat(file), || format!("fstat(fd {})", file.as_raw_fd()))
}

fn change_owner(file: &OwnedFd, uid: u32, gid: u32) -> Result<()> {
    let (owner, group) = (
        nix::unistd::Uid::from_raw(uid),
        nix::unistd::Gid::from_raw(gid),
    );
    let changed = nix::unistd::fchownat(file, "", Some(owner), Some(group), AtFlags::AT_EMPTY_PATH);
    named(changed, || format!("fchownat({uid}:{gid})"))
}

/// fchmod(2) refuses a descriptor opened for reference only; its name in a procfs does not.
fn change_mode(file: &OwnedFd, mode: u32) -> Result<()> {
    match path::change_mode(file, mode) {
        // Sandboxes that do not know the call refuse it in this way or that.
        Err(Errno::ENOSYS | Errno::EPERM) => {}
        changed => return named(changed, || format!("fchmodat2({mode:04o})")),
    }
    let name = format!("self/fd/{}", file.as_raw_fd());
    let mode = Mode::from_bits_truncate(mode);
    let changed = fchmodat(
        trusted_proc()?,
        name.as_str(),
        mode,
        FchmodatFlags::FollowSymlink,
    );
    named(changed, || format!("fchmodat({mode:?})"))
}
