//! `Step`: one act in the making of the root filesystem.
//!
//! Planned by the parent, performed by the child. Its text is the dry run, the debug log and the
//! context of its error alike.

use std::fmt;
use std::path::{Path, PathBuf};

use super::namespaces::IdMap;
use super::options;
use crate::sys::mount::Attributes;

#[derive(Debug)]
pub enum Step {
    Mount(Mount),
    Bind(Bind),
    Remount(Remount),
    MakeDir {
        path: PathBuf,
        mode: u32,
    },
    MakeNode(Node),
    /// The host's node of this path, which must be the same device.
    BindNode(Node),
    Symlink {
        target: &'static str,
        path: PathBuf,
    },
    /// A datagram socket, which everybody in the container may write to.
    BindSocket {
        path: PathBuf,
    },
    ReadOnly {
        path: PathBuf,
        /// With all that is mounted below.
        recursive: bool,
    },
    Mask {
        path: PathBuf,
    },
    Seal {
        path: PathBuf,
    },
}

/// A new filesystem, detached until it has all its attributes.
#[derive(Debug)]
pub struct Mount {
    pub field: String,
    pub kind: String,
    pub source: Option<String>,
    pub target: PathBuf,
    /// Options of the filesystem itself, in the order given.
    pub options: Vec<String>,
    pub attributes: u64,
    pub propagation: Vec<Propagation>,
    pub copy_up: bool,
}

/// A copy of an existing tree of mounts, or of a part of one.
#[derive(Debug)]
pub struct Bind {
    pub field: String,
    pub source: Source,
    pub target: PathBuf,
    pub attributes: Attributes,
    pub recursive_attributes: Attributes,
    pub propagation: Vec<Propagation>,
    /// Only a procfs may stand in for /proc.
    pub must_be_proc: bool,
    /// A source that is a symbolic link is copied as a link.
    pub copy_symlink: bool,
    /// A destination that is a symbolic link is covered itself.
    pub nofollow: bool,
    /// In a user namespace what the mount of the source forbids stays forbidden.
    pub locked: bool,
}

/// Where the tree of a bind comes from.
#[derive(Debug)]
pub enum Source {
    /// Opened by the child.
    Path(Tree),
    /// Opened by the parent, because the child may not: the index into `Rootfs::trees`.
    Opened(usize, Tree),
}

#[derive(Clone, Debug)]
pub struct Tree {
    pub path: PathBuf,
    pub recursive: bool,
    /// A symbolic link at the end of the path is meant itself.
    pub nofollow: bool,
    pub idmap: Option<Idmap>,
}

/// The owners that an idmapped mount shows. Without any map: those of the user namespace that the container joins.
#[derive(Clone, Debug)]
pub struct Idmap {
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
    pub recursive: bool,
}

/// New attributes, and options of the filesystem, for what is mounted at the target already.
#[derive(Debug)]
pub struct Remount {
    pub field: String,
    pub target: PathBuf,
    pub options: Vec<String>,
    pub attributes: Attributes,
    pub recursive_attributes: Attributes,
    pub propagation: Vec<Propagation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub kind: u64,
    pub recursive: bool,
}

#[derive(Debug)]
pub struct Node {
    /// Of a device that the config lists.
    pub field: Option<String>,
    pub path: PathBuf,
    pub kind: NodeKind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

impl Step {
    /// Where in the root.
    pub fn place(&self) -> &Path {
        match self {
            Step::Mount(Mount { target, .. })
            | Step::Bind(Bind { target, .. })
            | Step::Remount(Remount { target, .. }) => target,
            Step::MakeNode(node) | Step::BindNode(node) => &node.path,
            Step::MakeDir { path, .. }
            | Step::Symlink { path, .. }
            | Step::BindSocket { path }
            | Step::ReadOnly { path, .. }
            | Step::Mask { path }
            | Step::Seal { path } => path,
        }
    }

    /// One that has its own order besides the mounts of the config.
    pub fn is_no_mount(&self) -> bool {
        matches!(
            self,
            Step::MakeNode(_) | Step::Symlink { .. } | Step::ReadOnly { .. } | Step::Mask { .. }
        )
    }

    /// Returns whether the step makes a place read-only or hides it.
    pub fn is_hardening(&self) -> bool {
        matches!(
            self,
            Step::ReadOnly { .. } | Step::Mask { .. } | Step::Seal { .. }
        )
    }

    /// A new mount of cgroup2.
    pub fn is_cgroup(&self) -> bool {
        matches!(self, Step::Mount(mount) if mount.kind == "cgroup2")
    }

    /// A new filesystem of another kind, as that of sysfs, may show the network of who mounts it.
    pub fn shows_network(&self) -> bool {
        const WITHOUT: [&str; 5] = ["proc", "tmpfs", "devpts", "mqueue", "cgroup2"];
        matches!(self, Step::Mount(mount) if !WITHOUT.contains(&mount.kind.as_str()))
    }

    /// A new filesystem that may be on a block device, which the kernel opens for the process that mounts it.
    pub fn may_open_a_device(&self) -> bool {
        const WITHOUT: [&str; 8] = [
            "proc", "tmpfs", "devpts", "mqueue", "cgroup2", "cgroup", "sysfs", "overlay",
        ];
        matches!(self, Step::Mount(mount) if !WITHOUT.contains(&mount.kind.as_str()))
    }
}

impl Source {
    pub fn tree(&self) -> &Tree {
        match self {
            Source::Path(tree) | Source::Opened(_, tree) => tree,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Step::Mount(mount) => mount.fmt(f),
            Step::Bind(bind) => bind.fmt(f),
            Step::Remount(remount) => remount.fmt(f),
            Step::MakeDir { path, mode } => {
                write!(f, "make directory {} ({mode:04o})", path.display())
            }
            Step::MakeNode(node) => node.fmt(f),
            Step::BindNode(node) => {
                if let Some(field) = &node.field {
                    write!(f, "{field}: ")?;
                }
                write!(f, "bind the host's {}", node.path.display())
            }
            Step::Symlink { target, path } => write!(f, "link {} -> {target}", path.display()),
            Step::BindSocket { path } => write!(f, "make socket {}", path.display()),
            Step::ReadOnly { path, recursive } => {
                let below = if *recursive { " and all below it" } else { "" };
                write!(f, "make {}{below} read-only", path.display())
            }
            Step::Mask { path } => write!(f, "mask {}", path.display()),
            Step::Seal { path } => write!(f, "make the mount at {} read-only", path.display()),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut words = options::attribute_names(self.attributes, 0, "");
        words.extend(self.options.iter().cloned());
        words.extend(self.copy_up.then(|| "tmpcopyup".to_string()));
        words.extend(self.propagation.iter().map(Propagation::to_string));
        write!(f, "{}: mount {}", self.field, self.kind)?;
        if let Some(source) = self.source.as_ref().filter(|source| **source != self.kind) {
            write!(f, " from {source}")?;
        }
        write!(f, " on {}{}", self.target.display(), list(&words))
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let tree = self.source.tree();
        let mut words = Vec::new();
        words.extend(tree.recursive.then(|| "recursive".to_string()));
        words.extend(tree.idmap.as_ref().map(Idmap::to_string));
        words.extend(changes(self.attributes, self.recursive_attributes));
        words.extend(self.propagation.iter().map(Propagation::to_string));
        let source_nofollow = tree.nofollow && !self.copy_symlink;
        let links = [
            (self.copy_symlink, "copy-symlink"),
            (source_nofollow, "src-nofollow"),
            (self.nofollow, "dest-nofollow"),
        ];
        let said = links.iter().filter(|(said, _)| *said);
        words.extend(said.map(|(_, word)| word.to_string()));
        let (source, target) = (tree.path.display(), self.target.display());
        write!(
            f,
            "{}: bind {source} on {target}{}",
            self.field,
            list(&words)
        )
    }
}

impl fmt::Display for Remount {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut words = changes(self.attributes, self.recursive_attributes);
        words.extend(self.options.iter().cloned());
        words.extend(self.propagation.iter().map(Propagation::to_string));
        write!(
            f,
            "{}: remount {}{}",
            self.field,
            self.target.display(),
            list(&words)
        )
    }
}

impl fmt::Display for Propagation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(options::propagation_name(*self))
    }
}

impl fmt::Display for Idmap {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let maps = |maps: &[IdMap]| {
            maps.iter()
                .map(IdMap::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let name = if self.recursive { "ridmap" } else { "idmap" };
        if self.uids.is_empty() {
            return write!(f, "{name} of the joined user namespace");
        }
        write!(
            f,
            "{name} uids {} gids {}",
            maps(&self.uids),
            maps(&self.gids)
        )
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let path = self.path.display();
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        match self.kind {
            NodeKind::Char(major, minor) => write!(f, "make node {path} c {major}:{minor}")?,
            NodeKind::Block(major, minor) => write!(f, "make node {path} b {major}:{minor}")?,
            NodeKind::Fifo => write!(f, "make fifo {path}")?,
        }
        write!(f, " ({:04o}, owner {}:{})", self.mode, self.uid, self.gid)
    }
}

fn changes(plain: Attributes, recursive: Attributes) -> Vec<String> {
    let mut words = options::attribute_names(plain.set, plain.clear, "");
    words.extend(options::attribute_names(
        recursive.set,
        recursive.clear,
        "r",
    ));
    words
}

fn list(words: &[String]) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(" ({})", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use libc::{MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MS_SHARED, MS_SLAVE};

    use super::*;

    fn tree(path: &str, idmap: Option<Idmap>) -> Tree {
        let (path, recursive) = (PathBuf::from(path), idmap.is_none());
        Tree {
            path,
            recursive,
            nofollow: false,
            idmap,
        }
    }

    fn bind(tree: Tree, attributes: Attributes, recursive_attributes: Attributes) -> Step {
        Step::Bind(Bind {
            field: "mounts[1]".to_string(),
            source: Source::Path(tree),
            target: PathBuf::from("/b"),
            attributes,
            recursive_attributes,
            propagation: vec![Propagation {
                kind: MS_SLAVE,
                recursive: true,
            }],
            must_be_proc: false,
            copy_symlink: false,
            nofollow: false,
            locked: false,
        })
    }

    #[test]
    fn mounts_say_what_from_where_and_how() {
        let mut mount = Mount {
            field: "mounts[0]".to_string(),
            kind: "tmpfs".to_string(),
            source: Some("tmpfs".to_string()),
            target: PathBuf::from("/t"),
            options: Vec::new(),
            attributes: 0,
            propagation: Vec::new(),
            copy_up: false,
        };
        assert_eq!(mount.to_string(), "mounts[0]: mount tmpfs on /t");
        mount.source = Some("x".to_string());
        mount.options = vec!["size=1k".to_string()];
        mount.attributes = MOUNT_ATTR_NOSUID;
        mount.propagation = vec![Propagation {
            kind: MS_SHARED,
            recursive: false,
        }];
        mount.copy_up = true;
        let text = "mounts[0]: mount tmpfs from x on /t (nosuid, size=1k, tmpcopyup, shared)";
        assert_eq!(Step::Mount(mount).to_string(), text);
    }

    #[test]
    fn binds_tell_the_mount_from_all_below_it() {
        let none = Attributes::default();
        let set = Attributes {
            set: MOUNT_ATTR_RDONLY,
            ..none
        };
        let clear = Attributes {
            clear: MOUNT_ATTR_NOSUID,
            recursive: true,
            ..none
        };
        let text = bind(tree("/a", None), set, clear).to_string();
        assert_eq!(
            text,
            "mounts[1]: bind /a on /b (recursive, ro, rsuid, rslave)"
        );
        let map = IdMap {
            container: 0,
            host: 7,
            size: 2,
        };
        let idmap = Idmap {
            uids: vec![map, map],
            gids: vec![map],
            recursive: false,
        };
        let text = bind(tree("/a", Some(idmap)), none, none).to_string();
        assert_eq!(
            text,
            "mounts[1]: bind /a on /b (idmap uids 0:7:2 0:7:2 gids 0:7:2, rslave)"
        );
    }

    #[test]
    fn binds_say_what_they_do_with_links() {
        let none = Attributes::default();
        let with_links = |copy_symlink, from, nofollow| {
            let tree = Tree {
                nofollow: from,
                recursive: false,
                ..tree("/a", None)
            };
            let Step::Bind(bind) = bind(tree, none, none) else {
                return String::new();
            };
            let bind = Bind {
                copy_symlink,
                nofollow,
                propagation: Vec::new(),
                ..bind
            };
            bind.to_string()
        };
        let text = "mounts[1]: bind /a on /b (src-nofollow, dest-nofollow)";
        assert_eq!(with_links(false, true, true), text);
        let text = "mounts[1]: bind /a on /b (copy-symlink)";
        assert_eq!(with_links(true, true, false), text);
    }

    #[test]
    fn every_other_step_has_its_words() {
        let path = || PathBuf::from("/p");
        let bound = |kind| {
            let (mode, uid, gid) = (0o666, 0, 0);
            Step::BindNode(Node {
                field: None,
                path: path(),
                kind,
                mode,
                uid,
                gid,
            })
        };
        let node = |kind, field| {
            Step::MakeNode(Node {
                field,
                path: path(),
                kind,
                mode: 0o640,
                uid: 1,
                gid: 2,
            })
        };
        let remount = Step::Remount(Remount {
            field: "mounts[2]".to_string(),
            target: path(),
            options: vec!["size=2k".to_string()],
            attributes: Attributes {
                set: MOUNT_ATTR_RDONLY,
                ..Attributes::default()
            },
            recursive_attributes: Attributes::default(),
            propagation: Vec::new(),
        });
        let cases = [
            (remount, "mounts[2]: remount /p (ro, size=2k)"),
            (
                Step::MakeDir {
                    path: path(),
                    mode: 0o755,
                },
                "make directory /p (0755)",
            ),
            (
                node(NodeKind::Char(1, 3), None),
                "make node /p c 1:3 (0640, owner 1:2)",
            ),
            (
                node(NodeKind::Block(8, 0), Some("f".to_string())),
                "f: make node /p b 8:0 (0640, owner 1:2)",
            ),
            (node(NodeKind::Fifo, None), "make fifo /p (0640, owner 1:2)"),
            (bound(NodeKind::Char(1, 3)), "bind the host's /p"),
            (
                Step::Symlink {
                    target: "t",
                    path: path(),
                },
                "link /p -> t",
            ),
            (
                Step::ReadOnly {
                    path: path(),
                    recursive: true,
                },
                "make /p and all below it read-only",
            ),
            (
                Step::ReadOnly {
                    path: path(),
                    recursive: false,
                },
                "make /p read-only",
            ),
            (Step::Mask { path: path() }, "mask /p"),
            (
                Step::Seal { path: path() },
                "make the mount at /p read-only",
            ),
        ];
        for (step, text) in cases {
            assert_eq!(step.to_string(), text);
        }
    }
}
