//! `spec.mounts` -> steps, in the order of the entries.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libc::MOUNT_ATTR_RDONLY as RDONLY;
use oci_spec::runtime::Mount as Entry;

use super::namespaces::{Namespaces, id_maps};
use super::options::Options;
use super::step::{Bind, Idmap, Mount, Remount, Source, Step, Tree};
use crate::bundle::Bundle;
use crate::host::Host;
use crate::sys::clone;

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
        let mut options = Options::parse(self.entry.options().as_deref().unwrap_or_default());
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
            words.push(format!("{}={label}", self.context_option()?));
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

    /// mount(8), "SELinux": which of the four the label is for.
    fn context_option(&self) -> Result<&str> {
        let name = "run.oci.mount_context_type";
        let option = self.bundle.annotation(name).unwrap_or("context");
        let known = ["context", "fscontext", "defcontext", "rootcontext"].contains(&option);
        ensure!(
            known,
            "annotations.{name}: {option}: must be context, fscontext, defcontext or rootcontext"
        );
        Ok(option)
    }

    /// The kernel's own filesystems take no context option.
    fn mount_label(&self, kind: &str) -> Option<String> {
        let labelled = !matches!(kind, "proc" | "sysfs" | "mqueue" | "cgroup" | "cgroup2");
        let label = self.bundle.spec.linux().as_ref()?.mount_label().clone()?;
        (labelled && !label.is_empty()).then_some(label)
    }
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
