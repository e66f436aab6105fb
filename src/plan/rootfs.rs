//! The root filesystem -> what to make the root of, and the steps that setup it.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use libc::{MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE};
use oci_spec::runtime::{Linux, LinuxDevice, LinuxDeviceType};

use super::Flags;
use super::mounts::{self, clean};
use super::namespaces::Namespaces;
use super::options::propagation;
use super::phases::{Phases, phases};
use super::step::{Node, NodeKind, Propagation, Source, Step, Tree};
use crate::bundle::Bundle;
use crate::bundle::overlay::{Overlay, Upper};
use crate::host::Host;
use crate::sys::clone;
use crate::text::log::printable;

#[derive(Debug)]
pub enum Root {
    Tree(Source),
    Overlay(Overlay),
    /// Without a mount namespace of its own the container works in the tree of its caller.
    InPlace(PathBuf),
}

#[derive(Debug)]
pub struct Rootfs {
    pub root: Root,
    /// What the copied tree of the host's mounts is set to before anything else.
    pub host_propagation: Propagation,
    /// Where the new root is attached until it becomes `/`: the rootfs directory, as hooks expect.
    pub anchor: PathBuf,
    /// Trees that the parent opens; steps refer to them by their index.
    pub trees: Vec<Tree>,
    pub phases: Phases,
    /// Whether pivot_root(2) makes the new root `/`. With `--no-pivot` it is moved over the old one.
    pub pivot: bool,
    pub propagation: Option<Propagation>,
    /// What the mounts ask for in vain.
    pub warnings: Vec<String>,
}

impl Rootfs {
    /// Returns all steps, in the order in which they are performed.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.phases.all()
    }

    pub fn may_open_a_device(&self) -> bool {
        self.steps().any(Step::may_open_a_device)
    }
}

pub fn rootfs(
    bundle: &Bundle,
    host: &Host,
    namespaces: &Namespaces,
    flags: &Flags,
    has_pause: bool,
) -> Result<Rootfs> {
    let default = Linux::default();
    let linux = bundle.spec.linux().as_ref().unwrap_or(&default);
    let word = linux
        .rootfs_propagation()
        .as_deref()
        .filter(|word| !word.is_empty());
    let wanted = word
        .map(|word| propagation(word, "linux.rootfsPropagation"))
        .transpose()?;
    let plan = mounts::mounts(bundle, host, namespaces)?;
    let mut trees = plan.trees;
    let (root, anchor) = root(bundle, host, namespaces, &mut trees)?;
    if namespaces.creates(clone::NEWNS) {
        ensure_no_conflict(flags.no_pivot, wanted)?;
    } else {
        check_in_place(bundle, linux, namespaces.joins(clone::NEWNS))?;
    }

    let mut setup = plan.steps;
    let has_own_dev = !dev_is_bound(&setup);
    if has_own_dev {
        set_up_dev(&mut setup, linux, namespaces)?;
    }
    setup.extend(working_directory(bundle, has_own_dev));
    if flags.has_notify_socket {
        setup.extend(super::notify_socket::steps());
    }
    let mut hardening = plan.seals;
    let read_only = paths(linux.readonly_paths(), "linux.readonlyPaths")?;
    let masked = paths(linux.masked_paths(), "linux.maskedPaths")?;
    hardening.extend(read_only.into_iter().map(|path| Step::ReadOnly {
        recursive: !has_mount_below(&setup, &path),
        path,
    }));
    hardening.extend(masked.into_iter().map(|path| Step::Mask { path }));
    if is_read_only(bundle) {
        hardening.push(Step::Seal {
            path: PathBuf::from("/"),
        });
    }
    Ok(Rootfs {
        root,
        host_propagation: host_propagation(wanted),
        anchor,
        trees,
        phases: phases(setup, hardening, has_pause),
        pivot: !flags.no_pivot,
        propagation: wanted,
        warnings: plan.warnings,
    })
}

fn root(
    bundle: &Bundle,
    host: &Host,
    namespaces: &Namespaces,
    trees: &mut Vec<Tree>,
) -> Result<(Root, PathBuf)> {
    let new_mounts = namespaces.creates(clone::NEWNS);
    if let Some(overlay) = &bundle.overlay {
        ensure!(
            new_mounts,
            "linux.namespaces: an overlay root needs a new mount namespace"
        );
        let user_attributes = namespaces.has(clone::NEWUSER) || host.in_user_namespace;
        let overlay = Overlay {
            user_attributes,
            ..overlay.clone()
        };
        let anchor = if bundle.root().is_some() {
            bundle.rootfs()?
        } else {
            PathBuf::from("/")
        };
        return Ok((Root::Overlay(overlay), anchor));
    }
    let path = bundle.rootfs()?;
    if !new_mounts {
        return Ok((Root::InPlace(path.clone()), path));
    }
    // Hooks look for the container's mounts there.
    let anchor = path.clone();
    let tree = Tree {
        path,
        recursive: true,
        nofollow: false,
        idmap: None,
    };
    if host.euid == 0 && namespaces.has(clone::NEWUSER) {
        trees.push(tree.clone());
        return Ok((Root::Tree(Source::Opened(trees.len() - 1, tree)), anchor));
    }
    Ok((Root::Tree(Source::Path(tree)), anchor))
}

/// Nothing that happens in the container may show on the host; what happens there may show here.
fn host_propagation(wanted: Option<Propagation>) -> Propagation {
    let kind = match wanted.map(|propagation| propagation.kind) {
        Some(MS_SHARED) => MS_SHARED,
        Some(MS_PRIVATE | MS_UNBINDABLE) => MS_PRIVATE,
        _ => MS_SLAVE,
    };
    Propagation {
        kind,
        recursive: true,
    }
}

fn ensure_no_conflict(no_pivot: bool, wanted: Option<Propagation>) -> Result<()> {
    let private = wanted.is_some_and(|propagation| propagation.kind == MS_PRIVATE);
    ensure!(
        !(no_pivot && private),
        "linux.rootfsPropagation: private: cannot be had with --no-pivot, where the old root stays mounted below"
    );
    Ok(())
}

/// A joined namespace can take masks; the root itself and its propagation are as its maker left them. An
/// inherited one is the host's own.
fn check_in_place(bundle: &Bundle, linux: &Linux, joined: bool) -> Result<()> {
    let reason = if joined {
        "needs a new mount namespace; this one is joined, and its root belongs to whoever made it"
    } else {
        "needs a new mount namespace; without one it would change the host's own tree"
    };
    ensure!(!is_read_only(bundle), "root.readonly: true: {reason}");
    let propagation = linux.rootfs_propagation().as_ref();
    ensure!(
        propagation.is_none_or(String::is_empty),
        "linux.rootfsPropagation: {reason}"
    );
    let hides = [
        ("linux.maskedPaths", linux.masked_paths()),
        ("linux.readonlyPaths", linux.readonly_paths()),
    ];
    for (field, list) in hides {
        ensure!(
            joined || list.as_ref().is_none_or(Vec::is_empty),
            "{field}: {reason}"
        );
    }
    Ok(())
}

/// The last mount at a path or above it.
fn last_mount<'a>(steps: &'a [Step], path: &Path) -> Option<&'a Step> {
    let is_mount = |step: &&Step| matches!(step, Step::Mount(_) | Step::Bind(_));
    let mut mounts = steps.iter().filter(is_mount).rev();
    mounts.find(|step| path.starts_with(step.place()))
}

/// A /dev that comes from the host has its nodes already, and they are the host's.
fn dev_is_bound(steps: &[Step]) -> bool {
    let dev = Path::new("/dev");
    matches!(last_mount(steps, dev), Some(Step::Bind(bind)) if bind.target == dev)
}

/// Made if the source exists (config-linux.md, "Default Devices" and "Dev symbolic links").
const LINKS: [(&str, &str); 6] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
];

const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// Adds nodes and links. What the config mounts on the path of a node stays.
fn set_up_dev(setup: &mut Vec<Step>, linux: &Linux, namespaces: &Namespaces) -> Result<()> {
    let mut nodes = devices(linux, namespaces)?;
    nodes.retain(|node| {
        let path = node.place();
        last_mount(setup, path).is_none_or(|mount| mount.place() != path)
    });
    setup.extend(nodes);
    setup.extend(LINKS.map(|(path, target)| Step::Symlink {
        target,
        path: PathBuf::from(path),
    }));
    Ok(())
}

fn devices(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Step>> {
    let mut nodes = Vec::new();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        nodes.push(node(device, &format!("linux.devices[{index}]"))?);
    }
    // It is always the link to the multiplexer of the container's own devpts.
    nodes.retain(|node| node.path != Path::new("/dev/ptmx"));
    for (path, major, minor) in DEVICES {
        let path = PathBuf::from(path);
        if nodes.iter().all(|node: &Node| node.path != path) {
            let kind = NodeKind::Char(major, minor);
            nodes.push(Node {
                field: None,
                path,
                kind,
                mode: 0o666,
                uid: 0,
                gid: 0,
            });
        }
    }
    // mknod(2) of a device needs CAP_MKNOD in the initial user namespace.
    let bound = namespaces.has(clone::NEWUSER);
    let step = |node: Node| match node.kind {
        NodeKind::Char(..) | NodeKind::Block(..) if bound => Step::BindNode(node),
        _ => Step::MakeNode(node),
    };
    // The host has one node of a path, and one mount of it is enough. One that is made again may get another mode.
    let mut known = HashSet::new();
    nodes.retain(|node| !bound || known.insert((node.path.clone(), node.kind)));
    Ok(nodes.into_iter().map(step).collect())
}

fn node(device: &LinuxDevice, field: &str) -> Result<Node> {
    let path = device.path();
    ensure!(
        path.is_absolute(),
        "{field}.path: {path:?}: must be absolute"
    );
    let number = |name: &str, value: i64| {
        u32::try_from(value).with_context(|| format!("{field}.{name}: {value}: must be 0 or more"))
    };
    let (major, minor) = (
        number("major", device.major())?,
        number("minor", device.minor())?,
    );
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Char(major, minor),
        LinuxDeviceType::B => NodeKind::Block(major, minor),
        LinuxDeviceType::P => NodeKind::Fifo,
        LinuxDeviceType::A => bail!("{field}.type: a: must be c, b, u or p"),
    };
    ensure!(
        kind == NodeKind::Fifo || (major, minor) != (0, 0),
        "{field}.major: 0: no device has major and minor 0; give the numbers of one"
    );
    let mode = device.file_mode().unwrap_or(0o666) & 0o777;
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    Ok(Node {
        field: Some(field.to_string()),
        path: clean(path),
        kind,
        mode,
        uid,
        gid,
    })
}

/// As the engines expect, a working directory that the image lacks is made.
/// Makes the working directory, but not in what belongs to the kernel or to the host.
fn working_directory(bundle: &Bundle, has_own_dev: bool) -> Option<Step> {
    let cwd = clean(bundle.spec.process().as_ref()?.cwd());
    let is_foreign = cwd.starts_with("/proc")
        || cwd.starts_with("/sys")
        || cwd.starts_with("/dev") && !has_own_dev;
    (cwd != Path::new("/") && !is_foreign).then_some(Step::MakeDir {
        path: cwd,
        mode: 0o755,
    })
}

/// Whether the config mounts something below a path. That is as writable as its own options say.
fn has_mount_below(steps: &[Step], path: &Path) -> bool {
    let is_mount = |step: &&Step| matches!(step, Step::Mount(_) | Step::Bind(_));
    let mut places = steps.iter().filter(is_mount).map(Step::place);
    places.any(|place| place != path && place.starts_with(path))
}

fn is_read_only(bundle: &Bundle) -> bool {
    bundle
        .root()
        .is_some_and(|root| root.readonly() == Some(true))
}

/// Each once: every mount on the same place would be looked through by the next.
fn paths(list: &Option<Vec<String>>, field: &str) -> Result<Vec<PathBuf>> {
    let mut known = HashSet::new();
    let mut paths = all_paths(list, field)?;
    paths.retain(|path| known.insert(path.clone()));
    Ok(paths)
}

fn all_paths(list: &Option<Vec<String>>, field: &str) -> Result<Vec<PathBuf>> {
    let one = |(index, path): (usize, &String)| {
        ensure!(
            path.starts_with('/'),
            "{field}[{index}]: {path:?}: must be absolute"
        );
        let path = clean(Path::new(path));
        // What is mounted on the root itself covers nothing for those who are inside it.
        ensure!(
            path != Path::new("/"),
            "{field}[{index}]: {path:?}: is the root itself; see root.readonly"
        );
        Ok(path)
    };
    list.iter().flatten().enumerate().map(one).collect()
}

impl Rootfs {
    /// What is mounted in the caller's own tree, for want of a mount namespace.
    pub fn mounts_in_place(&self) -> Vec<PathBuf> {
        let Root::InPlace(root) = &self.root else {
            return Vec::new();
        };
        let target = |step: &Step| match step {
            Step::Mount(mount) => Some(mount.target.clone()),
            Step::Bind(bind) => Some(bind.target.clone()),
            _ => None,
        };
        let targets = self.steps().filter_map(target);
        targets
            .map(|target| root.join(target.strip_prefix("/").unwrap_or(&target)))
            .collect()
    }

    /// What init does up to the hooks, for the printed plan.
    pub fn write_setup(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.root)?;
        let phases = [&self.phases.before_network, &self.phases.after_network];
        phases
            .into_iter()
            .flatten()
            .try_for_each(|step| writeln!(f, "{}", printable(&step.to_string())))
    }

    /// What init does after the hooks.
    pub fn write_rest(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.phases
            .after_hooks
            .iter()
            .try_for_each(|step| writeln!(f, "{}", printable(&step.to_string())))?;
        match (&self.root, self.pivot) {
            (Root::InPlace(_), _) => writeln!(f, "chroot into it")?,
            (_, true) => writeln!(f, "pivot into it")?,
            (_, false) => writeln!(f, "move it over / without pivot_root")?,
        }
        match self.propagation {
            Some(propagation) => writeln!(f, "make / {propagation}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Root::Tree(source) => writeln!(
                f,
                "root is a copy of the tree {}",
                printable(&source.tree().path.to_string_lossy())
            ),
            Root::InPlace(path) => writeln!(
                f,
                "root is {} in the caller's tree",
                printable(&path.to_string_lossy())
            ),
            Root::Overlay(overlay) => overlay.fmt(f),
        }
    }
}

impl fmt::Display for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "root is an overlay")?;
        for lower in &self.lower {
            writeln!(f, "overlay layer {}", printable(&lower.to_string_lossy()))?;
        }
        match &self.upper {
            Some(Upper { dir, work }) => {
                writeln!(
                    f,
                    "overlay upper {} (work {})",
                    printable(&dir.to_string_lossy()),
                    printable(&work.to_string_lossy())
                )
            }
            None => writeln!(f, "overlay upper on a tmpfs that dies with the container"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::tests::{
        self as fixture, Changes, assert_faults, bundle, fault, host, plan, user_namespace,
    };

    fn rootfs_of(changes: Changes) -> Rootfs {
        plan(changes).rootfs.unwrap()
    }

    fn setup(changes: Changes) -> Vec<String> {
        let rootfs = rootfs_of(changes);
        let steps = rootfs.steps().filter(|step| !step.is_hardening());
        steps.map(ToString::to_string).collect()
    }

    fn hardening(changes: Changes) -> Vec<String> {
        let rootfs = rootfs_of(changes);
        let steps = rootfs.steps().filter(|step| step.is_hardening());
        steps.map(ToString::to_string).collect()
    }

    fn root_text(changes: Changes) -> String {
        rootfs_of(changes).root.to_string()
    }

    #[test]
    fn default_devices_and_links_are_always_there() {
        let furnish = setup(&[]);
        let expected = [
            "make node /dev/null c 1:3 (0666, owner 0:0)",
            "make node /dev/zero c 1:5 (0666, owner 0:0)",
            "make node /dev/full c 1:7 (0666, owner 0:0)",
            "make node /dev/random c 1:8 (0666, owner 0:0)",
            "make node /dev/urandom c 1:9 (0666, owner 0:0)",
            "make node /dev/tty c 5:0 (0666, owner 0:0)",
            "link /dev/fd -> /proc/self/fd",
            "link /dev/stdin -> /proc/self/fd/0",
            "link /dev/stdout -> /proc/self/fd/1",
            "link /dev/stderr -> /proc/self/fd/2",
            "link /dev/core -> /proc/kcore",
            "link /dev/ptmx -> pts/ptmx",
        ];
        assert_eq!(furnish, expected);
    }

    #[test]
    fn only_a_filesystem_of_a_device_opens_one() {
        for (kind, opens) in [
            ("tmpfs", false),
            ("sysfs", false),
            ("ext4", true),
            ("fuseblk", true),
        ] {
            let mount = json!([{"type": kind, "source": "/dev/loop0", "destination": "/mnt"}]);
            let rootfs = rootfs_of(&[("/mounts", mount)]);
            assert_eq!(rootfs.may_open_a_device(), opens, "{kind}");
        }
    }

    /// An image may have /var/run as a link to /run.
    #[test]
    fn what_is_apart_from_sysfs_does_not_wait_for_the_network() {
        let mount =
            |kind: &str, target: &str| json!({"type": kind, "source": kind, "destination": target});
        let changes = [
            (
                "/mounts",
                json!([
                    mount("proc", "/proc"),
                    mount("tmpfs", "/dev"),
                    mount("tmpfs", "/tmp"),
                    mount("sysfs", "/sys"),
                    mount("tmpfs", "/sys/fs"),
                    mount("tmpfs", "/run")
                ]),
            ),
            (
                "/linux/maskedPaths",
                json!([
                    "/proc/keys",
                    "/sys/firmware",
                    "/run/a",
                    "/var/run/a",
                    "/tmp/a"
                ]),
            ),
            ("/linux/readonlyPaths", json!(["/proc/sys", "/sys/block"])),
        ];
        let of = |steps: &[Step]| {
            steps
                .iter()
                .map(|step| step.place().display().to_string())
                .collect::<Vec<_>>()
        };
        let phases = rootfs_of(&changes).phases;
        let before = of(&phases.before_network);
        let in_dev = |place: &String| place.starts_with("/dev/");
        let nodes: Vec<String> = before
            .iter()
            .filter(|place| in_dev(place))
            .cloned()
            .collect();
        assert!(nodes.len() > 10, "{nodes:?}");
        assert_eq!(
            before,
            [
                &["/proc".to_string(), "/dev".into(), "/tmp".into()],
                &nodes[..],
                &["/proc/sys".into(), "/proc/keys".into()]
            ]
            .concat()
        );
        assert_eq!(
            of(&phases.after_network),
            [
                "/sys",
                "/sys/fs",
                "/run",
                "/sys/block",
                "/sys/firmware",
                "/run/a",
                "/var/run/a",
                "/tmp/a"
            ]
        );
        assert!(phases.after_hooks.is_empty());
        let terminal = ("/process/terminal", json!(true));
        let phases = rootfs_of(&[&changes[..], &[terminal]].concat()).phases;
        assert_eq!(phases.before_network.len(), 3 + nodes.len());
        assert_eq!(of(&phases.after_network), ["/sys", "/sys/fs", "/run"]);
        assert_eq!(
            of(&phases.after_hooks),
            [
                "/proc/sys",
                "/sys/block",
                "/proc/keys",
                "/sys/firmware",
                "/run/a",
                "/var/run/a",
                "/tmp/a"
            ]
        );
    }

    /// Earlier mounts are no part of the new root, whose own links may lead anywhere.
    #[test]
    fn in_a_root_that_was_mounted_nothing_overtakes() {
        let mount =
            |kind: &str, target: &str| json!({"type": kind, "source": kind, "destination": target});
        let root = json!({"destination": "/", "source": "/s", "options": ["bind"]});
        let mounts = [mount("proc", "/proc"), mount("tmpfs", "/dev"), root];
        let rootfs = rootfs_of(&[
            (
                "/mounts",
                json!([&mounts[..], &[mount("sysfs", "/sys")]].concat()),
            ),
            ("/linux/maskedPaths", json!(["/proc/keys"])),
        ]);
        let phases = rootfs.phases;
        assert_eq!(phases.before_network.len(), mounts.len());
        assert!(phases.after_hooks.is_empty());
        let mask = phases.after_network.last().map(|step| step.to_string());
        assert_eq!(mask.as_deref(), Some("mask /proc/keys"));
    }

    #[test]
    fn a_mount_takes_the_place_of_a_node() {
        let bind = json!({"destination": "/dev/zero", "source": "/s", "options": ["bind"]});
        let tmpfs = json!({"destination": "/dev", "type": "tmpfs"});
        for (mounts, made) in [
            (json!([bind]), false),
            (json!([tmpfs, bind]), false),
            (json!([bind, tmpfs]), true),
        ] {
            let furnish = setup(&[("/mounts", mounts.clone())]);
            let found = furnish.iter().any(|step| step.contains("node /dev/zero"));
            assert_eq!(found, made, "{mounts}");
        }
    }

    #[test]
    fn listed_devices_come_first_and_replace_defaults() {
        let furnish = setup(&[(
            "/linux/devices",
            json!([
                {"type": "c", "path": "/dev//null", "major": 1, "minor": 3, "fileMode": 0o100600, "uid": 5, "gid": 6},
                {"type": "b", "path": "/dev/disk", "major": 8, "minor": 0},
                {"type": "u", "path": "/dev/u", "major": 9, "minor": 1},
                {"type": "p", "path": "/dev/pipe"},
            ]),
        )]);
        let expected = [
            "linux.devices[0]: make node /dev/null c 1:3 (0600, owner 5:6)",
            "linux.devices[1]: make node /dev/disk b 8:0 (0666, owner 0:0)",
            "linux.devices[2]: make node /dev/u c 9:1 (0666, owner 0:0)",
            "linux.devices[3]: make fifo /dev/pipe (0666, owner 0:0)",
            "make node /dev/zero c 1:5 (0666, owner 0:0)",
        ];
        assert_eq!(furnish[..5], expected);
        assert!(
            !furnish[5..].iter().any(|step| step.contains("/dev/null")),
            "{furnish:?}"
        );
    }

    #[test]
    fn in_a_user_namespace_devices_are_bound_and_fifos_made() {
        let device = (
            "/linux/devices",
            json!([{"type": "p", "path": "/dev/pipe"}]),
        );
        let furnish = setup(&[&[device], &user_namespace()[..]].concat());
        assert_eq!(
            furnish[0],
            "linux.devices[0]: make fifo /dev/pipe (0666, owner 0:0)"
        );
        assert_eq!(furnish[1], "bind the host's /dev/null");
    }

    #[test]
    fn a_dev_of_the_host_is_left_as_it_is() {
        let tmpfs = json!({"destination": "/dev", "type": "tmpfs"});
        let bind = json!({"destination": "/dev/", "source": "/dev", "options": ["rbind"]});
        let shm = json!({"destination": "/dev/shm", "source": "/s", "options": ["bind"]});
        let cases = [
            (json!([bind]), false),
            (json!([tmpfs]), true),
            (json!([tmpfs, shm]), true),
            (json!([tmpfs, bind]), false),
            (json!([bind, tmpfs]), true),
        ];
        for (mounts, furnished) in cases {
            let furnish = setup(&[("/mounts", mounts.clone())]);
            let found = furnish.iter().any(|step| step.contains("/dev/zero"));
            assert_eq!(found, furnished, "{mounts}");
        }
    }

    #[test]
    fn a_working_directory_is_made_where_the_image_may_lack_it() {
        let cases = [
            ("/", None),
            ("/a/b", Some("make directory /a/b (0755)")),
            ("/proc/self/fd/7", None),
            ("/x/../proc/self", None),
            ("/sys/a", None),
            ("/dev/a", Some("make directory /dev/a (0755)")),
            ("/devel", Some("make directory /devel (0755)")),
        ];
        for (cwd, step) in cases {
            let furnish = setup(&[("/process/cwd", json!(cwd))]);
            let made = furnish
                .last()
                .filter(|step| step.starts_with("make directory"));
            assert_eq!(made.map(String::as_str), step, "{cwd}");
        }
    }

    #[test]
    fn seals_come_last_read_only_paths_before_masked_ones_and_the_root_after_all() {
        let found = hardening(&[
            ("/linux/maskedPaths", json!(["/proc/kcore", "/a/../b"])),
            ("/linux/readonlyPaths", json!(["/proc/sys"])),
            ("/root/readonly", json!(true)),
            (
                "/mounts",
                json!([{"destination": "/t", "type": "tmpfs", "options": ["ro"]}]),
            ),
        ]);
        let expected = [
            "make the mount at /t read-only",
            "make /proc/sys and all below it read-only",
            "mask /proc/kcore",
            "mask /b",
            "make the mount at / read-only",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn faults_name_the_field() {
        let device = |kind: &str, path: &str, major: i64| json!([{"type": kind, "path": path, "major": major, "minor": 0}]);
        assert_faults(&[
            (
                "/linux/devices",
                device("a", "/dev/a", 1),
                "linux.devices[0].type: a: must be",
            ),
            (
                "/linux/devices",
                device("c", "dev/a", 1),
                "linux.devices[0].path: \"dev/a\": must be absolute",
            ),
            (
                "/linux/devices",
                device("b", "/dev/a", -1),
                "linux.devices[0].major: -1: must be 0 or more",
            ),
            (
                "/linux/maskedPaths",
                json!(["/a", "b"]),
                "linux.maskedPaths[1]: \"b\": must be absolute",
            ),
            (
                "/linux/maskedPaths",
                json!(["/"]),
                "linux.maskedPaths[0]: \"/\": is the root itself",
            ),
            (
                "/linux/readonlyPaths",
                json!(["/a/.."]),
                "linux.readonlyPaths[0]: \"/\": is the root itself",
            ),
            (
                "/linux/rootfsPropagation",
                json!("sharing"),
                "linux.rootfsPropagation: sharing: must be",
            ),
        ]);
    }

    #[test]
    fn without_a_mount_namespace_the_hosts_own_tree_is_not_changed() {
        let namespaces = ("/linux/namespaces", json!([{"type": "pid"}]));
        let in_place = |change: (&'static str, Value)| fault(&[namespaces.clone(), change]);
        for (change, words) in [
            (
                ("/linux/maskedPaths", json!(["/a"])),
                "linux.maskedPaths: needs a new mount namespace",
            ),
            (
                ("/linux/readonlyPaths", json!(["/a"])),
                "linux.readonlyPaths: needs a new mount namespace",
            ),
            (
                ("/root/readonly", json!(true)),
                "root.readonly: true: needs a new mount namespace",
            ),
            (
                ("/annotations", json!({"dev.cofferdam.overlay.lower": "/l"})),
                "linux.namespaces: an overlay root",
            ),
        ] {
            let fault = in_place(change);
            assert!(fault.starts_with(words), "{fault}");
        }
        let root = root_text(&[namespaces]);
        assert_eq!(root, "root is /bundle/rootfs in the caller's tree\n");
    }

    #[test]
    fn a_joined_mount_namespace_takes_masks_but_keeps_its_root() {
        let joined = (
            "/linux/namespaces",
            json!([{"type": "mount", "path": "/run/ns"}]),
        );
        let masked = ("/linux/maskedPaths", json!(["/a"]));
        let read_only = ("/linux/readonlyPaths", json!(["/b"]));
        let found = hardening(&[joined.clone(), masked, read_only]);
        assert_eq!(found, ["make /b and all below it read-only", "mask /a"]);
        for (change, words) in [
            (
                ("/root/readonly", json!(true)),
                "root.readonly: true: needs a new mount namespace; this one is joined",
            ),
            (
                ("/linux/rootfsPropagation", json!("slave")),
                "linux.rootfsPropagation: needs a new mount namespace; this one is joined",
            ),
        ] {
            let fault = fault(&[joined.clone(), change]);
            assert!(fault.starts_with(words), "{fault}");
        }
    }

    #[test]
    fn the_root_is_a_tree_that_the_parent_opens_for_a_user_namespace() {
        assert_eq!(
            root_text(&[]),
            "root is a copy of the tree /bundle/rootfs\n"
        );
        assert!(matches!(rootfs_of(&[]).root, Root::Tree(Source::Path(_))));
        let rootfs = rootfs_of(&user_namespace());
        assert!(matches!(rootfs.root, Root::Tree(Source::Opened(0, _))));
        assert!(rootfs.trees[0].recursive && rootfs.trees[0].path == Path::new("/bundle/rootfs"));
    }

    #[test]
    fn propagation_to_the_host_is_what_was_asked_for_or_none() {
        let cases = [
            (None, MS_SLAVE),
            (Some("slave"), MS_SLAVE),
            (Some("rslave"), MS_SLAVE),
            (Some("private"), MS_PRIVATE),
            (Some("unbindable"), MS_PRIVATE),
            (Some("shared"), MS_SHARED),
        ];
        for (word, kind) in cases {
            let change = word.map(|word| ("/linux/rootfsPropagation", json!(word)));
            let rootfs = rootfs_of(change.as_slice());
            assert_eq!(
                rootfs.host_propagation,
                Propagation {
                    kind,
                    recursive: true
                },
                "{word:?}"
            );
            assert_eq!(rootfs.propagation.is_some(), word.is_some());
        }
    }

    fn flags(no_pivot: bool) -> Flags {
        Flags {
            no_pivot,
            ..Flags::default()
        }
    }

    #[test]
    fn a_private_root_needs_pivot_root() {
        let config = bundle(&[("/linux/rootfsPropagation", json!("rprivate"))]);
        let namespaces = plan(&[]).namespaces;
        let error = rootfs(&config, &host(), &namespaces, &flags(true), false)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("linux.rootfsPropagation: private: cannot be had with --no-pivot"),
            "{error}"
        );
        assert!(
            rootfs(&config, &host(), &namespaces, &flags(false), false)
                .unwrap()
                .pivot
        );
        assert!(
            !rootfs(&bundle(&[]), &host(), &namespaces, &flags(true), false)
                .unwrap()
                .pivot
        );
    }

    #[test]
    fn overlays_keep_their_attributes_where_a_user_namespace_may_write_them() {
        let annotations = (
            "/annotations",
            json!({
                "dev.cofferdam.overlay.lower": "/top:base",
                "dev.cofferdam.overlay.upper": "up",
                "dev.cofferdam.overlay.work": "/work",
            }),
        );
        let text = "root is an overlay\noverlay layer /top\noverlay layer /bundle/base\n\
                    overlay upper /bundle/up (work /work)\n";
        assert_eq!(root_text(std::slice::from_ref(&annotations)), text);
        let user = |changes: Changes, host: &Host| match fixture::plan_for(host, changes)
            .unwrap()
            .rootfs
            .unwrap()
            .root
        {
            Root::Overlay(overlay) => overlay.user_attributes,
            other => panic!("{other:?}"),
        };
        let confined = Host {
            in_user_namespace: true,
            denies_setgroups: false,
            ..host()
        };
        assert!(!user(std::slice::from_ref(&annotations), &host()));
        assert!(user(std::slice::from_ref(&annotations), &confined));
        assert!(user(
            &[&[annotations], &user_namespace()[..]].concat(),
            &host()
        ));
    }
}
