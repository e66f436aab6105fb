//! `spec.mounts` -> steps, in the order of the entries.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use libc::{MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_RDONLY as RDONLY};
use oci_spec::runtime::Mount as Entry;

use super::namespaces::{Namespaces, id_maps};
use super::options::{self, Options};
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

/// Options of filesystems, and of mount(8), that set owners or access. `mode` and `size` of a tmpfs are not among them: the OCI
/// validation suite gives them to a bind.
const DECISIVE: [&str; 16] = [
    "dir_mode",
    "dmask",
    "dmode",
    "file_mode",
    "fmask",
    "fmode",
    "fsuid",
    "gid",
    "nr_inodes",
    "smackfsroot",
    "uid",
    "umask",
    "x-mount.group",
    "x-mount.mode",
    "x-mount.owner",
    "x-mount.subdir",
];

/// The steps of all entries in their order, and those that must wait until everything is in place.
#[derive(Default)]
pub struct Mounts {
    pub steps: Vec<Step>,
    pub seals: Vec<Step>,
    pub trees: Vec<Tree>,
    /// What the entries ask for in vain.
    pub warnings: Vec<String>,
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
        // A process that runs keeps the root that it has.
        ensure!(
            target != Path::new("/") || self.namespaces.enter & clone::NEWNS == 0,
            "{field}.destination: {destination:?}: is the root itself"
        );
        let mut options = self.options()?;
        let kind = self.entry.typ().clone().unwrap_or_default();
        self.check_proc(&target, &kind, &options)?;
        self.check_words(&kind, &options)?;
        if options.bind.is_some() {
            plan.warnings.extend(self.idle_words(&options)?);
        }
        if options.remount {
            plan.steps.push(self.remount(target, options));
            return Ok(());
        }
        if let Some(source) = self.stand_in(&kind, &options) {
            plan.warnings.extend(self.idle_words(&options)?);
            let user = self.in_user_namespace();
            options.bind = Some(user);
            if user {
                // There the mounts below come along, as the kernel locks them together. What is kept from one filesystem is
                // kept from those, too.
                options.recursive_attributes.recursive = true;
                options.recursive_attributes.set |= options.attributes.set & !ATIME;
                // The host's times of access are locked, and of no interest there.
                options.attributes.set &= !ATIME;
                options.attributes.clear &= !ATIME;
            }
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
        let maps = [self.entry.uid_mappings(), self.entry.gid_mappings()];
        let mapped = maps.into_iter().flatten().any(|maps| !maps.is_empty());
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

    /// A bind has no filesystem to give unknown words to. One with a value, which its type would
    /// understand, is passed over; a bare one may be meant for a flag, and `readonly` must not give a
    /// mount that can be written. `x-` is for comments (mount(8)).
    fn check_words(&self, kind: &str, options: &Options) -> Result<()> {
        let field = &self.field;
        let is_bind = options.bind.is_some();
        ensure!(
            !options.copy_up || kind == "tmpfs" && !is_bind && !options.remount,
            "{field}.options: tmpcopyup: only a new tmpfs can take in what it covers"
        );
        for (said, word) in [
            (options.copy_symlink, "copy-symlink"),
            (options.source_nofollow, "src-nofollow"),
            (options.destination_nofollow, "dest-nofollow"),
        ] {
            ensure!(
                !said || is_bind && !options.remount,
                "{field}.options: {word}: only of a bind; add \"bind\" or \"rbind\""
            );
        }
        let several = words(options).find(|word| options::names().contains(&word.as_str()));
        if let Some(word) = several.filter(|_| is_bind || kind == "bind") {
            bail!(
                "{field}.options: {word}: stands in one entry with others; give each option an entry of its own"
            );
        }
        let bare = words(options).find(|word| is_bind && !is_idle(word));
        let Some(word) = bare else {
            return Ok(());
        };
        match options::nearest(&word) {
            Some(option) => {
                bail!("{field}.options: {word}: is no option of a bind; did you mean {option}?")
            }
            None => bail!(
                "{field}.options: {word}: is no option of a bind; \"cofferdam features\" lists them"
            ),
        }
    }

    /// Returns warnings of the words that a bind has no use for. Fails at one that sets owners or access.
    fn idle_words(&self, options: &Options) -> Result<Vec<String>> {
        const IDLE: &str = "has no effect on a bind, which has no filesystem of its own";
        let field = &self.field;
        let warning = |word: String| {
            let key = word.split('=').next().unwrap_or_default().to_lowercase();
            match key.as_str() {
                "idmap" | "ridmap" | "x-mount.idmap" => bail!(
                    "{field}.options: {word}: takes no value; give uidMappings and gidMappings in {field}, and {key:?} alone"
                ),
                key if DECISIVE.contains(&key) || key.ends_with("context") => bail!(
                    "{field}.options: {word}: {IDLE}; set it where the source is made, or remove it"
                ),
                _ => Ok(format!("{field}.options: {word}: {IDLE}")),
            }
        };
        words(options).map(warning).collect()
    }

    /// Whether the mounts belong to a user namespace. A caller that is confined itself owns no more than what it makes.
    fn in_user_namespace(&self) -> bool {
        self.namespaces.has(clone::NEWUSER) || self.host.in_user_namespace
    }

    /// Two filesystems are bound from the host: where the kernel refuses a new mount, and where a new mount would be the host's.
    fn stand_in(&self, kind: &str, options: &Options) -> Option<PathBuf> {
        if options.bind.is_some() {
            return None;
        }
        match kind {
            // sysfs belongs to the network namespace: its owner alone may mount it (sysfs_init_fs_context).
            "sysfs" if self.in_user_namespace() && !self.namespaces.has(clone::NEWNET) => {
                Some(PathBuf::from("/sys"))
            }
            // Every mount of cgroup2 has the same superblock. A new one from the initial cgroup namespace sets the options of all,
            // the host's among them; from another namespace they are ignored (apply_cgroup_root_flags). A user namespace is
            // refused a new one from the initial namespace.
            "cgroup" | "cgroup2" if !self.namespaces.has(clone::NEWCGROUP) => {
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
            nofollow: options.source_nofollow || options.copy_symlink,
            idmap: self.idmap(&options)?,
        };
        let user = self.namespaces.has(clone::NEWUSER);
        // The user of a user namespace may not reach the source, and only the host maps owners. In a
        // container that runs the paths of the host are out of reach.
        let parent_opens = tree.idmap.is_some()
            || self.host.euid == 0 && user
            || self.namespaces.enter & clone::NEWNS != 0;
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
            copy_symlink: options.copy_symlink,
            nofollow: options.destination_nofollow,
            locked: user,
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
        let joined = self.namespaces.joins(clone::NEWUSER) && self.host.euid == 0;
        ensure!(
            !uids.is_empty() || joined,
            "{}.options: idmap: give uidMappings and gidMappings, or make or join a user namespace whose maps serve",
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
        let source = self
            .entry
            .source()
            .as_ref()
            .map(|source| source.display().to_string());
        let attributes = options.of_new_mount();
        let mut words = options.superblock.clone();
        // A filesystem on a device must itself be told; for the others the mount's own flag is enough.
        if attributes & RDONLY != 0
            && source
                .as_ref()
                .is_some_and(|source| source.starts_with('/'))
        {
            words.push("ro".to_string());
        }
        words.extend(self::words(&options));
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
            attributes,
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
    if kind != "tmpfs" || options.of_new_mount() & RDONLY == 0 {
        return None;
    }
    options.attributes.set &= !RDONLY;
    options.recursive_attributes.set &= !RDONLY;
    Some(Step::Seal {
        path: target.to_path_buf(),
    })
}

/// The words that no option is made of.
fn words(options: &Options) -> impl Iterator<Item = String> {
    let words = options.data.iter().flat_map(|data| split(data));
    words.map(unquoted)
}

fn is_idle(word: &str) -> bool {
    word.contains('=') || word.to_lowercase().starts_with("x-")
}

/// Splits options at their commas, but not at those in the quotes of an SELinux label (mount(8), "context="), nor at those
/// with a backslash in a path of an overlay (overlayfs.rst). Quotes and backslashes stay.
pub fn split(data: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for letter in data.chars() {
        if letter == ',' && !quoted && !escaped {
            words.push(String::new());
            continue;
        }
        if let Some(word) = words.last_mut() {
            quoted ^= letter == '"' && (quoted || word.ends_with("context="));
            escaped = letter == '\\' && !escaped && is_overlay_path(word);
            word.push(letter);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn is_overlay_path(word: &str) -> bool {
    const KEYS: [&str; 4] = ["lowerdir", "upperdir", "workdir", "datadir"];
    KEYS.iter().any(|key| word.starts_with(key))
}

/// The quotes around a label belong to mount(2)'s list of options, not to its value.
fn unquoted(word: String) -> String {
    match word.split_once("context=") {
        Some((_, value)) if value.starts_with('"') => word.replace('"', ""),
        _ => word,
    }
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::tests::{self as fixture, Changes, plan, plan_for, user_namespace};

    /// The steps of these entries, in words.
    fn steps(entries: Value) -> Vec<String> {
        steps_with(entries, &[])
    }

    fn steps_with(entries: Value, changes: Changes) -> Vec<String> {
        let changes = [changes, &[("/mounts", entries)]].concat();
        let bundle = fixture::bundle(&changes);
        let mounts = mounts(&bundle, &fixture::host(), &plan(&changes).namespaces).unwrap();
        let all = mounts.steps.iter().chain(&mounts.seals);
        all.map(ToString::to_string).collect()
    }

    fn fault(entry: Value) -> String {
        fixture::fault(&[("/mounts", json!([entry]))])
    }

    #[test]
    fn entries_become_steps_in_their_order() {
        let entries = json!([
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/a/./b//../c", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1k,mode=755"]},
            {"destination": "data", "source": "in/bundle", "options": ["rbind", "ro", "rslave"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
            {"destination": "/c", "type": "none", "options": ["remount", "bind", "ro", "a=1k"]},
        ]);
        let expected = [
            "mounts[0]: mount proc on /proc",
            "mounts[1]: mount tmpfs on /a/c (nosuid, size=1k, mode=755)",
            "mounts[2]: bind /bundle/in/bundle on /data (recursive, ro, rslave)",
            "mounts[3]: mount cgroup2 from cgroup on /sys/fs/cgroup (ro)",
            "mounts[4]: remount /c (ro)",
        ];
        assert_eq!(steps(entries), expected);
    }

    #[test]
    fn a_read_only_tmpfs_is_sealed_when_all_is_in_place() {
        for option in ["ro", "rro"] {
            let entries = json!([
                {"destination": "/t", "type": "tmpfs", "options": [option, "noexec"]},
                {"destination": "/t/u", "type": "tmpfs"},
            ]);
            let expected = [
                "mounts[0]: mount tmpfs on /t (noexec)",
                "mounts[1]: mount tmpfs on /t/u",
                "make the mount at /t read-only",
            ];
            assert_eq!(steps(entries), expected);
        }
    }

    #[test]
    fn only_a_filesystem_on_a_device_is_told_that_it_is_read_only() {
        let entry = |source: &str| json!([{"destination": "/m", "type": "ext4", "source": source, "options": ["ro"]}]);
        assert_eq!(
            steps(entry("/dev/x")),
            ["mounts[0]: mount ext4 from /dev/x on /m (ro, ro)"]
        );
        assert_eq!(
            steps(entry("x")),
            ["mounts[0]: mount ext4 from x on /m (ro)"]
        );
    }

    #[test]
    fn data_is_split_at_commas_outside_of_quotes() {
        let cases: [(&str, &[&str]); 7] = [
            ("size=1k", &["size=1k"]),
            ("a,,b=c,", &["a", "b=c"]),
            (
                "rootcontext=\"u:r:t:s0:c1,c2\",mode=755",
                &["rootcontext=\"u:r:t:s0:c1,c2\"", "mode=755"],
            ),
            ("\"a,b", &["\"a", "b"]),
            (
                r"lowerdir=/a\,b:/c\\,upperdir=/d",
                &[r"lowerdir=/a\,b:/c\\", "upperdir=/d"],
            ),
            (r"a=b\,c", &[r"a=b\", "c"]),
            ("", &[]),
        ];
        for (data, words) in cases {
            assert_eq!(split(data), words, "{data}");
        }
    }

    #[test]
    fn mounts_are_labelled_where_the_filesystem_takes_it() {
        let entries = json!([
            {"destination": "/t", "type": "tmpfs"},
            {"destination": "/proc", "type": "proc"},
            {"destination": "/q", "type": "mqueue"},
        ]);
        let label = ("/linux/mountLabel", json!("u:r:t:s0:c1,c2"));
        let expected = [
            "mounts[0]: mount tmpfs on /t (context=u:r:t:s0:c1,c2)",
            "mounts[1]: mount proc on /proc",
            "mounts[2]: mount mqueue on /q",
        ];
        assert_eq!(
            steps_with(entries.clone(), std::slice::from_ref(&label)),
            expected
        );
        let kind = (
            "/annotations",
            json!({"run.oci.mount_context_type": "fscontext"}),
        );
        let other = steps_with(entries, &[label, kind]);
        assert_eq!(
            other[0],
            "mounts[0]: mount tmpfs on /t (fscontext=u:r:t:s0:c1,c2)"
        );
    }

    #[test]
    fn nothing_is_mounted_inside_proc_but_on_ten_files() {
        let bind = |path: &str| json!({"destination": path, "source": "/x", "options": ["bind"]});
        for file in PROC_FILES {
            let step = steps(json!([bind(&format!("/proc/{file}"))]));
            assert_eq!(step, [format!("mounts[0]: bind /x on /proc/{file}")]);
        }
        for path in [
            "/proc/self",
            "/proc/sys",
            "/proc/stat/x",
            "//proc/1",
            "/./proc/1",
            "/x/../proc/1",
        ] {
            let fault = fault(bind(path));
            assert!(
                fault.starts_with("mounts[0].destination: /proc/"),
                "{path}: {fault}"
            );
        }
        for path in ["/proc", "/proc/", "//proc", "/./proc", "/x/../proc"] {
            let fault = fault(json!({"destination": path, "type": "tmpfs"}));
            assert!(
                fault.starts_with("mounts[0].destination: /proc: only a mount"),
                "{path}: {fault}"
            );
        }
        let plan = plan(&[("/mounts", json!([bind("/proc"), bind("/procs")]))]);
        let rootfs = plan.rootfs.unwrap();
        let checked = rootfs.steps().filter_map(|step| match step {
            Step::Bind(bind) => Some(bind.must_be_proc),
            _ => None,
        });
        assert_eq!(checked.collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn faults_name_the_entry() {
        let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
        let cases = [
            (json!({"destination": "/a"}), "mounts[0].type: missing"),
            (
                json!({"destination": "/a", "type": "bind", "source": "/b"}),
                "mounts[0].type: bind: is no filesystem",
            ),
            (
                json!({"destination": "/a", "options": ["bind"]}),
                "mounts[0].source: missing",
            ),
            (
                json!({"destination": "/a", "source": "", "options": ["bind"]}),
                "mounts[0].source: missing",
            ),
            (
                json!({"destination": "/a", "type": "proc", "options": ["tmpcopyup"]}),
                "mounts[0].options: tmpcopyup: only",
            ),
            (
                json!({"destination": "/a", "source": "/b", "options": ["bind", "tmpcopyup"]}),
                "mounts[0].options: tmpcopyup: only",
            ),
            (
                json!({"destination": "/a", "type": "tmpfs", "options": ["remount", "tmpcopyup"]}),
                "mounts[0].options: tmpcopyup: only",
            ),
            (
                json!({"destination": "/a", "type": "tmpfs", "options": ["src-nofollow"]}),
                "mounts[0].options: src-nofollow: only of a bind",
            ),
            (
                json!({"destination": "/a", "options": ["bind", "remount", "dest-nofollow"]}),
                "mounts[0].options: dest-nofollow: only of a bind",
            ),
            (
                json!({"destination": "/a", "source": "/b", "options": ["bind", "readonly"]}),
                "mounts[0].options: readonly: is no option of a bind; did you mean ro?",
            ),
            (
                json!({"destination": "/a", "source": "/b", "options": ["bind", "a=b,nodevs"]}),
                "mounts[0].options: nodevs: is no option of a bind; did you mean nodev?",
            ),
            (
                json!({"destination": "/a", "options": ["bind", "remount", "z"]}),
                "mounts[0].options: z: is no option of a bind; \"cofferdam features\" lists them",
            ),
            (
                json!({"destination": "/a", "type": "tmpfs", "options": ["idmap"]}),
                "mounts[0].options: idmap: only binds",
            ),
            (
                json!({"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}),
                "mounts[0].options: idmap: give",
            ),
            (
                json!({"destination": "/a", "source": "/b", "options": ["bind"], "uidMappings": map}),
                "mounts[0].uidMappings: give uidMappings and gidMappings",
            ),
        ];
        for (entry, words) in cases {
            let fault = fault(entry.clone());
            assert!(fault.starts_with(words), "{entry}: {fault}");
        }
    }

    #[test]
    fn words_with_values_on_binds_are_only_warned_of() {
        let options = ["bind", "a=1k,b=755", "x-mount.mkdir", "ro"];
        let entry = json!({"destination": "/a", "source": "/b", "options": options});
        let plan = plan(&[("/mounts", json!([entry]))]);
        let words = ["a=1k", "b=755", "x-mount.mkdir"];
        assert_eq!(plan.warnings.len(), words.len());
        for (warning, word) in plan.warnings.iter().zip(words) {
            let wanted = format!("mounts[0].options: {word}: has no effect on a bind");
            assert!(warning.starts_with(&wanted), "{warning}");
        }
        assert_eq!(
            plan.rootfs.unwrap().steps().next().unwrap().to_string(),
            "mounts[0]: bind /b on /a (ro)"
        );
    }

    #[test]
    fn links_are_followed_unless_the_options_say_otherwise() {
        let entries = json!([
            {"destination": "/a", "source": "/b", "options": ["bind", "src-nofollow", "dest-nofollow"]},
            {"destination": "/a", "source": "/b", "options": ["rbind", "copy-symlink", "ro"]},
        ]);
        let expected = [
            "mounts[0]: bind /b on /a (src-nofollow, dest-nofollow)",
            "mounts[1]: bind /b on /a (recursive, ro, copy-symlink)",
        ];
        assert_eq!(steps(entries), expected);
    }

    #[test]
    fn empty_maps_are_no_maps() {
        let entry =
            json!({"destination": "/a", "type": "tmpfs", "uidMappings": [], "gidMappings": []});
        assert_eq!(steps(json!([entry])), ["mounts[0]: mount tmpfs on /a"]);
    }

    #[test]
    fn owners_are_mapped_as_the_entry_says_or_as_the_user_namespace_does() {
        let map = json!([{"containerID": 5, "hostID": 6, "size": 7}]);
        let own = json!([{
            "destination": "/a", "source": "/b", "options": ["bind", "ridmap"],
            "uidMappings": map, "gidMappings": map,
        }]);
        let mapped = "mounts[0]: bind /b on /a (ridmap uids 5:6:7 gids 5:6:7)";
        assert_eq!(steps(own), [mapped]);
        let bare = json!([{"destination": "/a", "source": "/b", "options": ["bind", "idmap"]}]);
        let mapped = "mounts[0]: bind /b on /a (idmap uids 0:100000:65536 gids 0:100000:65536)";
        assert_eq!(steps_with(bare, &user_namespace()), [mapped]);
    }

    #[test]
    fn the_parent_opens_what_the_user_of_a_user_namespace_may_not_reach() {
        let entries = json!([
            {"destination": "/t", "type": "tmpfs"},
            {"destination": "/a", "source": "/x", "options": ["bind"]},
            {"destination": "/b", "source": "/y", "options": ["rbind"]},
        ]);
        let entries = [("/mounts", entries)];
        let with_user = [&user_namespace()[..], &entries].concat();
        let opened = |host: &Host, changes: Changes| {
            let rootfs = plan_for(host, changes).unwrap().rootfs.unwrap();
            let slots = rootfs.steps().filter_map(|step| match step {
                Step::Bind(Bind {
                    source: Source::Opened(slot, tree),
                    ..
                }) => {
                    assert_eq!(tree.path, rootfs.trees[*slot].path);
                    Some(*slot)
                }
                _ => None,
            });
            (slots.collect::<Vec<_>>(), rootfs.trees.len())
        };
        assert_eq!(opened(&fixture::host(), &with_user), (vec![0, 1], 3));
        assert_eq!(opened(&fixture::host(), &entries), (vec![], 0));
        assert_eq!(opened(&fixture::users_host(), &with_user), (vec![], 0));
    }

    #[test]
    fn for_a_container_that_runs_the_parent_opens_all() {
        let entries = json!([{"destination": "/a", "source": "/x", "options": ["bind"]}]);
        let bundle = fixture::bundle(&[("/mounts", entries)]);
        for (enter, opened) in [(clone::NEWNS, 1), (clone::NEWPID, 0)] {
            let namespaces = Namespaces {
                enter,
                ..Namespaces::default()
            };
            let mounts = mounts(&bundle, &fixture::users_host(), &namespaces).unwrap();
            assert_eq!(mounts.trees.len(), opened);
        }
    }

    #[test]
    fn what_the_kernel_would_refuse_in_a_user_namespace_is_bound_from_the_host() {
        let entries = json!([
            {"destination": "/sys", "type": "sysfs", "options": ["nosuid", "ro", "relatime"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]},
        ]);
        let bound = [
            "mounts[0]: bind /sys on /sys (recursive, ro, nosuid, rro, rnosuid)",
            "mounts[1]: bind /sys/fs/cgroup on /sys/fs/cgroup (recursive, ro, rro)",
        ];
        let mounted = [
            "mounts[0]: mount sysfs on /sys (ro, nosuid)",
            "mounts[1]: mount cgroup2 on /sys/fs/cgroup (ro)",
        ];
        let shared = ("/linux/namespaces", json!([{"type": "mount"}]));
        let with_user = [std::slice::from_ref(&shared), &user_namespace()].concat();
        assert_eq!(steps_with(entries.clone(), &with_user), bound);
        assert_eq!(steps_with(entries.clone(), &user_namespace()), mounted);
        // A new mount of cgroup2 would set options for the host.
        let cgroup_bound = [
            mounted[0],
            "mounts[1]: bind /sys/fs/cgroup on /sys/fs/cgroup (ro)",
        ];
        assert_eq!(
            steps_with(entries.clone(), std::slice::from_ref(&shared)),
            cgroup_bound
        );
        let confined = Host {
            in_user_namespace: true,
            denies_setgroups: false,
            ..fixture::host()
        };
        let changes = [shared, ("/mounts", entries)];
        let rootfs = plan_for(&confined, &changes).unwrap().rootfs.unwrap();
        let first = rootfs.steps().map(ToString::to_string).take(2);
        assert_eq!(first.collect::<Vec<_>>(), bound);
    }

    #[test]
    fn options_of_cgroup2_have_no_effect_where_it_is_the_hosts() {
        let options = json!(["rw", "nsdelegate,a=b"]);
        let entry =
            json!({"destination": "/c", "type": "cgroup2", "source": "c", "options": options});
        let changes = [
            ("/linux/namespaces", json!([{"type": "mount"}])),
            ("/mounts", json!([entry])),
        ];
        let warnings = plan(&changes).warnings;
        let expected = ["nsdelegate", "a=b"].map(|word| {
            format!("mounts[0].options: {word}: has no effect on a bind, which has no filesystem of its own")
        });
        assert_eq!(warnings, expected);
        assert!(plan(&changes[1..]).warnings.is_empty());
    }

    #[test]
    fn paths_are_cleaned_by_their_text() {
        for (path, cleaned) in [
            ("", "/"),
            ("a", "/a"),
            ("//a//b/", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/../..", "/"),
            ("/a/../b", "/b"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(cleaned), "{path}");
        }
    }
}
