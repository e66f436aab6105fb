//! `spec.mounts` -> steps. One table of option names feeds the parser, the printed plan and `features`.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use libc::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV,
    MOUNT_ATTR_NODIRATIME as NODIRATIME, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY,
    MOUNT_ATTR_RELATIME as RELATIME, MOUNT_ATTR_STRICTATIME as STRICTATIME, MS_PRIVATE, MS_SHARED,
    MS_SLAVE, MS_UNBINDABLE,
};
use oci_spec::runtime::Mount as Entry;

use super::namespaces::{Namespaces, id_maps};
use super::step::{Bind, Idmap, Mount, Propagation, Remount, Source, Step, Tree};
use crate::bundle::Bundle;
use crate::host::Host;
use crate::sys::clone;
use crate::sys::mount::Attributes;

/// What an option of the spec's table does.
#[derive(Clone, Copy)]
enum Effect {
    /// Nothing that the mount API can say, or the kernel's default.
    Nothing,
    Set(u64),
    Clear(u64),
    /// One of the three ways to keep access times, which exclude each other.
    AccessTime(u64),
    /// A flag of the superblock, by its name for fsconfig(2).
    Superblock(&'static str),
    Bind,
    Remount,
    Propagation(u64),
    Idmap,
    CopyUp,
}

use Effect::{AccessTime, Clear, CopyUp, Nothing, Set, Superblock};

/// Option, effect, whether it takes in all mounts below. The first name of an attribute is its printed one.
const OPTIONS: &[(&str, Effect, bool)] = &[
    ("defaults", Nothing, false),
    ("ro", Set(RDONLY), false),
    ("rw", Clear(RDONLY), false),
    ("nosuid", Set(NOSUID), false),
    ("suid", Clear(NOSUID), false),
    ("nodev", Set(NODEV), false),
    ("dev", Clear(NODEV), false),
    ("noexec", Set(NOEXEC), false),
    ("exec", Clear(NOEXEC), false),
    ("noatime", AccessTime(NOATIME), false),
    ("atime", AccessTime(RELATIME), false),
    ("relatime", AccessTime(RELATIME), false),
    ("norelatime", AccessTime(STRICTATIME), false),
    ("strictatime", AccessTime(STRICTATIME), false),
    ("nostrictatime", AccessTime(RELATIME), false),
    ("nodiratime", Set(NODIRATIME), false),
    ("diratime", Clear(NODIRATIME), false),
    ("nosymfollow", Set(NOSYMFOLLOW), false),
    ("symfollow", Clear(NOSYMFOLLOW), false),
    ("sync", Superblock("sync"), false),
    ("async", Superblock("async"), false),
    ("dirsync", Superblock("dirsync"), false),
    ("lazytime", Superblock("lazytime"), false),
    ("nolazytime", Superblock("nolazytime"), false),
    ("mand", Superblock("mand"), false),
    ("nomand", Superblock("nomand"), false),
    ("iversion", Nothing, false),
    ("noiversion", Nothing, false),
    ("silent", Nothing, false),
    ("loud", Nothing, false),
    ("bind", Effect::Bind, false),
    ("rbind", Effect::Bind, true),
    ("remount", Effect::Remount, false),
    ("shared", Effect::Propagation(MS_SHARED), false),
    ("rshared", Effect::Propagation(MS_SHARED), true),
    ("slave", Effect::Propagation(MS_SLAVE), false),
    ("rslave", Effect::Propagation(MS_SLAVE), true),
    ("private", Effect::Propagation(MS_PRIVATE), false),
    ("rprivate", Effect::Propagation(MS_PRIVATE), true),
    ("unbindable", Effect::Propagation(MS_UNBINDABLE), false),
    ("runbindable", Effect::Propagation(MS_UNBINDABLE), true),
    ("idmap", Effect::Idmap, false),
    ("ridmap", Effect::Idmap, true),
    ("tmpcopyup", CopyUp, false),
    ("rro", Set(RDONLY), true),
    ("rrw", Clear(RDONLY), true),
    ("rnosuid", Set(NOSUID), true),
    ("rsuid", Clear(NOSUID), true),
    ("rnodev", Set(NODEV), true),
    ("rdev", Clear(NODEV), true),
    ("rnoexec", Set(NOEXEC), true),
    ("rexec", Clear(NOEXEC), true),
    ("rnoatime", AccessTime(NOATIME), true),
    ("ratime", AccessTime(RELATIME), true),
    ("rrelatime", AccessTime(RELATIME), true),
    ("rnorelatime", AccessTime(STRICTATIME), true),
    ("rstrictatime", AccessTime(STRICTATIME), true),
    ("rnostrictatime", AccessTime(RELATIME), true),
    ("rnodiratime", Set(NODIRATIME), true),
    ("rdiratime", Clear(NODIRATIME), true),
    ("rnosymfollow", Set(NOSYMFOLLOW), true),
    ("rsymfollow", Clear(NOSYMFOLLOW), true),
];

/// The only files of /proc that may be mounted over: those that show a container its own limits.
const PROC_FILES: [&str; 10] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

pub fn option_names() -> Vec<&'static str> {
    OPTIONS.iter().map(|(name, ..)| *name).collect()
}

/// One entry's options, sorted by what they act on.
#[derive(Default)]
struct Options {
    bind: Option<bool>,
    remount: bool,
    attributes: Attributes,
    recursive_attributes: Attributes,
    propagation: Vec<Propagation>,
    superblock: Vec<String>,
    data: Vec<String>,
    idmap: Option<bool>,
    copy_up: bool,
}

/// The steps of all entries in their order, and those that must wait until everything is in place.
#[derive(Default)]
pub struct Mounts {
    pub steps: Vec<Step>,
    pub seals: Vec<Step>,
    pub trees: Vec<Tree>,
}

pub fn mounts(bundle: &Bundle, host: &Host, namespaces: &Namespaces) -> Result<Mounts> {
    let mut plan = Mounts::default();
    for (index, entry) in bundle.spec.mounts().iter().flatten().enumerate() {
        let field = format!("mounts[{index}]");
        Planner {
            bundle,
            host,
            namespaces,
            entry,
            field,
        }
        .plan(&mut plan)?;
    }
    Ok(plan)
}

/// One entry with what is needed to judge it.
struct Planner<'a> {
    bundle: &'a Bundle,
    host: &'a Host,
    namespaces: &'a Namespaces,
    entry: &'a Entry,
    field: String,
}

impl Planner<'_> {
    fn plan(&self, plan: &mut Mounts) -> Result<()> {
        let destination = self.entry.destination();
        let target = clean(destination);
        let field = &self.field;
        ensure!(
            target != Path::new("/"),
            "{field}.destination: {destination:?}: is the root itself"
        );
        let mut options = self.options()?;
        let kind = self.entry.typ().clone().unwrap_or_default();
        self.check_proc(&target, &kind, &options)?;
        if options.remount {
            plan.steps.push(self.remount(target, options));
            return Ok(());
        }
        if let Some(source) = self.stand_in(&kind, &options) {
            options.bind = Some(true);
            plan.steps
                .push(self.bind(source, target, options, plan.trees.len())?);
        } else if options.bind.is_some() {
            let source = self.source()?;
            plan.steps
                .push(self.bind(source, target, options, plan.trees.len())?);
        } else {
            plan.seals.extend(late_seal(&kind, &target, &mut options));
            plan.steps.push(self.mount(kind, target, options)?);
            return Ok(());
        }
        if let Some(Step::Bind(Bind {
            source: Source::Opened(_, tree),
            ..
        })) = plan.steps.last()
        {
            plan.trees.push(tree.clone());
        }
        Ok(())
    }

    fn options(&self) -> Result<Options> {
        let mut options = Options::default();
        for option in self.entry.options().iter().flatten() {
            let Some((_, effect, recursive)) = OPTIONS.iter().find(|(name, ..)| name == option)
            else {
                options.data.push(option.clone());
                continue;
            };
            options.apply(*effect, *recursive);
        }
        let mapped = self.entry.uid_mappings().is_some() || self.entry.gid_mappings().is_some();
        if mapped && options.idmap.is_none() {
            options.idmap = Some(false);
        }
        ensure!(
            options.idmap.is_none() || options.bind.is_some(),
            "{}.options: idmap: only binds can be idmapped; add \"bind\" or \"rbind\"",
            self.field
        );
        Ok(options)
    }

    /// Mounts over the files of /proc could feed the runtime or the workload false facts.
    fn check_proc(&self, target: &Path, kind: &str, options: &Options) -> Result<()> {
        let Ok(below) = target.strip_prefix("/proc") else {
            return Ok(());
        };
        let field = &self.field;
        if below.as_os_str().is_empty() {
            ensure!(
                kind == "proc" || options.bind.is_some() || options.remount,
                "{field}.destination: /proc: only a mount of type proc may stand here, not {kind}"
            );
            return Ok(());
        }
        let allowed = PROC_FILES.iter().any(|file| Path::new(file) == below);
        ensure!(
            allowed,
            "{field}.destination: {}: nothing may be mounted inside /proc but on its files {}",
            target.display(),
            PROC_FILES.join(", ")
        );
        Ok(())
    }

    /// Two filesystems that the kernel refuses in some combinations of namespaces are bound from the host.
    fn stand_in(&self, kind: &str, options: &Options) -> Option<PathBuf> {
        if options.bind.is_some() {
            return None;
        }
        let user = self.namespaces.has(clone::NEWUSER);
        match kind {
            // sysfs belongs to the network namespace: its owner alone may mount it (sysfs_init_fs_context).
            "sysfs" if user && !self.namespaces.has(clone::NEWNET) => Some(PathBuf::from("/sys")),
            // Without a cgroup namespace a cgroup2 mount in a user namespace is refused.
            "cgroup" | "cgroup2" if user && !self.namespaces.has(clone::NEWCGROUP) => {
                Some(self.host.cgroup.mount.clone())
            }
            _ => None,
        }
    }

    fn source(&self) -> Result<PathBuf> {
        let source = self
            .entry
            .source()
            .clone()
            .filter(|source| !source.as_os_str().is_empty());
        let missing = || {
            format!(
                "{}.source: missing; a bind needs the path to bind",
                self.field
            )
        };
        Ok(self.bundle.dir.join(source.with_context(missing)?))
    }

    fn bind(&self, path: PathBuf, target: PathBuf, options: Options, slot: usize) -> Result<Step> {
        let tree = Tree {
            path,
            recursive: options.bind == Some(true),
            idmap: self.idmap(&options)?,
        };
        // The user of a user namespace may not reach the source, and only the host maps owners.
        let parent_opens =
            tree.idmap.is_some() || self.host.euid == 0 && self.namespaces.has(clone::NEWUSER);
        let source = if parent_opens {
            Source::Opened(slot, tree)
        } else {
            Source::Path(tree)
        };
        Ok(Step::Bind(Bind {
            field: self.field.clone(),
            source,
            must_be_proc: target == Path::new("/proc"),
            target,
            attributes: options.attributes,
            recursive_attributes: options.recursive_attributes,
            propagation: options.propagation,
        }))
    }

    fn idmap(&self, options: &Options) -> Result<Option<Idmap>> {
        let Some(recursive) = options.idmap else {
            return Ok(None);
        };
        let uids = id_maps(
            self.entry.uid_mappings(),
            &format!("{}.uidMappings", self.field),
        )?;
        let gids = id_maps(
            self.entry.gid_mappings(),
            &format!("{}.gidMappings", self.field),
        )?;
        ensure!(
            uids.is_empty() == gids.is_empty(),
            "{}.uidMappings: give uidMappings and gidMappings, or neither",
            self.field
        );
        if !uids.is_empty() {
            return Ok(Some(Idmap {
                uids,
                gids,
                recursive,
            }));
        }
        let (uids, gids) = (self.namespaces.uids.clone(), self.namespaces.gids.clone());
        ensure!(
            !uids.is_empty(),
            "{}.options: idmap: give uidMappings and gidMappings, or make a user namespace whose maps serve",
            self.field
        );
        Ok(Some(Idmap {
            uids,
            gids,
            recursive,
        }))
    }

    fn remount(&self, target: PathBuf, options: Options) -> Step {
        let mut data = options.superblock;
        data.extend(options.data);
        Step::Remount(Remount {
            field: self.field.clone(),
            target,
            options: if options.bind.is_some() {
                Vec::new()
            } else {
                data
            },
            attributes: options.attributes,
            recursive_attributes: options.recursive_attributes,
            propagation: options.propagation,
        })
    }

    fn mount(&self, kind: String, target: PathBuf, options: Options) -> Result<Step> {
        let field = &self.field;
        ensure!(
            !kind.is_empty(),
            "{field}.type: missing; give a filesystem, or the option \"bind\""
        );
        ensure!(
            kind != "bind",
            "{field}.type: bind: is no filesystem; say it by the option \"bind\" or \"rbind\""
        );
        ensure!(
            !options.copy_up || kind == "tmpfs",
            "{field}.options: tmpcopyup: only a tmpfs can take in what it covers, not {kind}"
        );
        let source = self
            .entry
            .source()
            .as_ref()
            .map(|source| source.display().to_string());
        let mut words = options.superblock;
        // A filesystem on a device must itself be told; for the others the mount's own flag is enough.
        let read_only = (options.attributes.set | options.recursive_attributes.set) & RDONLY != 0;
        if read_only
            && source
                .as_ref()
                .is_some_and(|source| source.starts_with('/'))
        {
            words.push("ro".to_string());
        }
        let data = options.data.iter().flat_map(|data| data.split(','));
        words.extend(data.filter(|word| !word.is_empty()).map(str::to_string));
        if let Some(label) = self.mount_label(&kind) {
            words.push(format!("context={label}"));
        }
        Ok(Step::Mount(Mount {
            field: field.clone(),
            kind: if kind == "cgroup" {
                "cgroup2".to_string()
            } else {
                kind
            },
            source,
            target,
            options: words,
            attributes: options.attributes.set | options.recursive_attributes.set,
            propagation: options.propagation,
            copy_up: options.copy_up,
        }))
    }

    /// The kernel's own filesystems take no context option.
    fn mount_label(&self, kind: &str) -> Option<String> {
        let labelled = !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
        let label = self.bundle.spec.linux().as_ref()?.mount_label().clone()?;
        (labelled && !label.is_empty()).then_some(label)
    }
}

impl Options {
    fn apply(&mut self, effect: Effect, recursive: bool) {
        let attributes = if recursive {
            &mut self.recursive_attributes
        } else {
            &mut self.attributes
        };
        attributes.recursive = recursive;
        match effect {
            Effect::Nothing => {}
            Effect::Set(flag) => change(attributes, flag, flag, 0),
            Effect::Clear(flag) => change(attributes, flag, 0, flag),
            // mount_setattr(2): to set any of them, the whole field must be cleared.
            Effect::AccessTime(flag) => change(attributes, ATIME, flag, ATIME),
            Effect::Superblock(name) => self.superblock.push(name.to_string()),
            Effect::Bind => self.bind = Some(recursive),
            Effect::Remount => self.remount = true,
            Effect::Propagation(kind) => self.propagation.push(Propagation { kind, recursive }),
            Effect::Idmap => self.idmap = Some(recursive),
            Effect::CopyUp => self.copy_up = true,
        }
    }
}

/// The last word on a flag counts.
fn change(attributes: &mut Attributes, field: u64, set: u64, clear: u64) {
    attributes.set = attributes.set & !field | set;
    attributes.clear = attributes.clear & !field | clear;
}

/// A read-only tmpfs must stay writable until the mount points and nodes inside it are made.
fn late_seal(kind: &str, target: &Path, options: &mut Options) -> Option<Step> {
    let read_only = (options.attributes.set | options.recursive_attributes.set) & RDONLY != 0;
    if kind != "tmpfs" || !read_only {
        return None;
    }
    options.attributes.set &= !RDONLY;
    options.recursive_attributes.set &= !RDONLY;
    Some(Step::Seal {
        path: target.to_path_buf(),
    })
}

/// The path from the root, with `.`, `..` and doubled slashes resolved by their text alone.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

/// The options that say these changes, in the words of the table.
pub fn attribute_names(set: u64, clear: u64, prefix: &str) -> Vec<String> {
    let named = |(name, effect, recursive): &(&str, Effect, bool)| {
        let stated = match effect {
            _ if *recursive => false,
            Set(flag) => set & flag != 0,
            Clear(flag) => clear & flag != 0,
            AccessTime(flag) => match *name {
                "noatime" | "strictatime" => set & ATIME == *flag,
                "relatime" => clear & ATIME != 0 && set & ATIME == 0,
                _ => false,
            },
            _ => false,
        };
        stated.then(|| format!("{prefix}{name}"))
    };
    OPTIONS.iter().filter_map(named).collect()
}

pub fn propagation_name(propagation: Propagation) -> &'static str {
    let same = |entry: &&(&str, Effect, bool)| {
        matches!(entry.1, Effect::Propagation(kind) if kind == propagation.kind)
            && entry.2 == propagation.recursive
    };
    OPTIONS.iter().find(same).map_or("", |(name, ..)| name)
}

/// The propagation that a word of the spec names.
pub fn propagation(word: &str, field: &str) -> Result<Propagation> {
    let found = OPTIONS
        .iter()
        .find_map(|(name, effect, recursive)| match effect {
            Effect::Propagation(kind) if *name == word => Some(Propagation {
                kind: *kind,
                recursive: *recursive,
            }),
            _ => None,
        });
    let Some(found) = found else {
        bail!(
            "{field}: {word}: must be shared, slave, private or unbindable, or one of them after an r"
        );
    };
    Ok(found)
}
