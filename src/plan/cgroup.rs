//! `linux.cgroupsPath` and `linux.resources` -> the container's cgroup and what is written there.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{Linux, Mount};

use super::Flags;
use super::mounts::clean;
use super::namespaces::Namespaces;
use super::resources::{self, Resources};
use super::systemd::{self, Scope};
use crate::bundle::Bundle;
use crate::host::Host;
use crate::plan::devices::{self, DeviceRule};
use crate::sys::clone;
use crate::text::log::printable;

const SUBGROUP: &str = "run.oci.systemd.subgroup";
const DELEGATED: &str = "run.oci.delegate-cgroup";

#[derive(Debug)]
pub struct CgroupPlan {
    /// Where cgroup v2 is mounted.
    pub mount: PathBuf,
    /// The container's own directory.
    pub path: PathBuf,
    /// The systemd scope that it is, if systemd is to make it.
    pub unit: Option<Scope>,
    /// Where below it the container's processes begin; empty for there itself.
    pub below: PathBuf,
    pub resources: Resources,
    /// The device program; `None` allows everything.
    pub devices: Option<Vec<u64>>,
    pub device_rules: Vec<DeviceRule>,
    /// The user of the host that the cgroup is given to, for the container to manage below it.
    pub owner: Option<u32>,
    /// Whether the caller may be without the right to make cgroups, and no limit needs one.
    pub optional: bool,
}

pub fn cgroup(
    bundle: &Bundle,
    namespaces: &Namespaces,
    host: &Host,
    flags: &Flags,
) -> Result<CgroupPlan> {
    let default = Linux::default();
    let linux = bundle.spec.linux().as_ref().unwrap_or(&default);
    let mut resources = resources::resources(linux.resources().as_ref())?;
    let mut path = linux.cgroups_path().as_deref().unwrap_or(Path::new(""));
    if flags.no_cgroup {
        check_unlimited(&mut resources)?;
        path = Path::new("");
    }
    let mount = host.cgroup.mount.clone();
    let unit = match flags.systemd_cgroup {
        true => Some(systemd::scope(
            bundle,
            host,
            &flags.id,
            &resources.settings,
        )?),
        false => None,
    };
    let full = match &unit {
        Some(scope) => scope.expected(host),
        None => directory(path, &flags.id, &host.cgroup.own)?,
    };
    let free = resources.devices.is_empty() && namespaces.has(clone::NEWUSER);
    let mut device_rules = std::mem::take(&mut resources.devices);
    device_rules.extend(devices::defaults());
    let confined = host.euid != 0 || host.in_user_namespace;
    Ok(CgroupPlan {
        path: mount.join(full.strip_prefix("/").unwrap_or(&full)),
        mount,
        below: match unit {
            Some(_) => below_scope(bundle)?,
            None => PathBuf::new(),
        },
        unit,
        optional: flags.rootless.unwrap_or(confined) && resources.settings.is_empty(),
        // A user namespace cannot make nodes; where no rule is given none is needed.
        // Only CAP_BPF in the initial user namespace may attach one; a user namespace has no mknod anyway.
        devices: if confined || free {
            None
        } else {
            devices::program(&device_rules)?
        },
        device_rules,
        owner: owner(bundle, namespaces, flags),
        resources,
    })
}

/// Without a cgroup nothing could be limited.
fn check_unlimited(resources: &mut Resources) -> Result<()> {
    if let Some(setting) = resources.settings.first() {
        bail!(
            "{}: cannot be set without a cgroup: remove it, or leave --cgroup-manager disabled out",
            setting.field
        );
    }
    if !resources.devices.is_empty() {
        let text = "linux.resources.devices: has no effect without a cgroup";
        resources.warnings.push(text.to_string());
    }
    Ok(())
}

/// config-linux.md, "Cgroup ownership": a cgroup that the container sees as its root, and may write, is its user's.
fn owner(bundle: &Bundle, namespaces: &Namespaces, flags: &Flags) -> Option<u32> {
    let is_writable = |mount: &Mount| {
        let kind = mount.typ().as_deref();
        matches!(kind, Some("cgroup" | "cgroup2"))
            && clean(mount.destination()) == Path::new("/sys/fs/cgroup")
            && !mount
                .options()
                .iter()
                .flatten()
                .any(|option| option == "ro" || option == "rro")
    };
    let mut mounts = bundle.spec.mounts().iter().flatten();
    let writable = namespaces.creates(clone::NEWCGROUP) && mounts.any(is_writable);
    let delegated = flags.systemd_cgroup && bundle.annotation(DELEGATED).is_some();
    if !writable && !delegated || namespaces.joins(clone::NEWUSER) {
        return None;
    }
    let uid = bundle.spec.process().as_ref()?.user().uid();
    let owner = match namespaces.creates(clone::NEWUSER) {
        true => Namespaces::maps_to_host(&namespaces.uids, uid)?,
        false => uid,
    };
    (owner != 0).then_some(owner)
}

/// A path of the kernel has 4095 bytes at most, those of the cgroup's mount and its files included.
const MAX_PATH: usize = 3840;

/// An absolute path starts at the mount; a relative one, by default the id, beside the caller's own cgroup,
/// which has processes in it and so can have no children with limits (cgroups(7), "no internal processes").
fn directory(path: &Path, id: &str, own: &Path) -> Result<PathBuf> {
    let climbs = path
        .components()
        .any(|component| component == Component::ParentDir);
    ensure!(
        !climbs,
        "linux.cgroupsPath: {path:?}: must not contain \"..\""
    );
    let below = if path.as_os_str().is_empty() {
        Path::new(id)
    } else {
        path
    };
    let base = own.parent().unwrap_or(Path::new("/"));
    let full = if below.is_absolute() {
        below.to_path_buf()
    } else {
        base.join(below)
    };
    ensure!(
        full != Path::new("/"),
        "linux.cgroupsPath: {path:?}: is the root of all cgroups"
    );
    let length = full.as_os_str().len();
    ensure!(
        length <= MAX_PATH,
        "linux.cgroupsPath: has {length} bytes; must have at most {MAX_PATH}"
    );
    Ok(full)
}

/// Directories below a scope, one in the other, the first for the container and the second for it to manage.
fn below_scope(bundle: &Bundle) -> Result<PathBuf> {
    let mut below = PathBuf::new();
    for name in [SUBGROUP, DELEGATED] {
        let Some(text) = bundle.annotation(name) else {
            continue;
        };
        let path = Path::new(text.trim_start_matches('/'));
        let plain = |part| matches!(part, Component::Normal(_));
        ensure!(
            path.components().all(plain),
            "annotations[{name:?}]: {text:?}: must be a directory below the container's scope"
        );
        below.push(path);
    }
    Ok(below)
}

impl fmt::Display for CgroupPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "cgroup {}", printable(&self.path.to_string_lossy()))?;
        if let Some(scope) = &self.unit {
            writeln!(f, "{}", printable(&scope.to_string()))?;
        }
        if self.below != Path::new("") {
            writeln!(
                f,
                "cgroup of the processes: {}",
                printable(&self.below.to_string_lossy())
            )?;
        }
        for setting in &self.resources.settings {
            let text = format!("{} = {}", setting.file, setting.value);
            writeln!(f, "{}", printable(&text))?;
        }
        if let Some(owner) = self.owner {
            writeln!(f, "cgroup belongs to the host's user {owner}")?;
        }
        match &self.devices {
            None => writeln!(f, "devices: all"),
            Some(_) => {
                let rules: Vec<String> =
                    self.device_rules.iter().map(ToString::to_string).collect();
                writeln!(f, "devices: deny all, {}", rules.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::tests::{
        self as fixture, Changes, bundle, host, plan_for, user_namespace, users_host,
    };

    fn planned(changes: Changes, flags: &Flags) -> Result<CgroupPlan> {
        let bundle = bundle(changes);
        let linux = bundle.spec.linux().as_ref().unwrap();
        let namespaces = crate::plan::namespaces::namespaces(linux, &host())?;
        cgroup(&bundle, &namespaces, &host(), flags)
    }

    fn path(text: &str) -> Result<String> {
        let plan = planned(&[("/linux/cgroupsPath", json!(text))], &fixture::flags())?;
        let below = plan.path.strip_prefix("/sys/fs/cgroup").unwrap();
        Ok(below.display().to_string())
    }

    #[test]
    fn paths_start_at_the_mount_or_beside_the_caller() {
        for (text, expected) in [
            ("", "user.slice/c"),
            ("/", ""),
            ("/a/b", "a/b"),
            ("a/b", "user.slice/a/b"),
            ("a:b:c", "user.slice/a:b:c"),
        ] {
            let found = path(text).unwrap_or_default();
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(
            directory(Path::new(""), "c", Path::new("/")).unwrap(),
            Path::new("/c")
        );
    }

    #[test]
    fn paths_that_climb_or_are_the_root_are_refused() {
        for text in ["/../x", "../x", "/a/../b", "a/.."] {
            let error = path(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("linux.cgroupsPath: {text:?}: must not contain \"..\"")
            );
        }
        for text in ["/", "//", "/."] {
            let error = path(text).unwrap_err().to_string();
            assert!(
                error.ends_with("is the root of all cgroups"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn annotations_name_directories_below_a_scope() {
        let below = |annotations: Value, systemd_cgroup| {
            let flags = Flags {
                systemd_cgroup,
                ..fixture::flags()
            };
            let user = ("/process/user", json!({"uid": 7, "gid": 0}));
            let plan = planned(&[("/annotations", annotations), user], &flags)?;
            Ok((plan.below.display().to_string(), plan.owner))
        };
        let good = |annotations: Value| {
            let found: Result<_> = below(annotations, true);
            found.unwrap()
        };
        let both = json!({SUBGROUP: "/a", DELEGATED: "b/c"});
        assert_eq!(good(json!({})), (String::new(), None));
        assert_eq!(good(json!({SUBGROUP: ""})), (String::new(), None));
        assert_eq!(good(json!({SUBGROUP: "a"})), ("a".to_string(), None));
        assert_eq!(good(both.clone()), ("a/b/c".to_string(), Some(7)));
        assert_eq!(below(both, false).unwrap(), (String::new(), None));
        for name in [SUBGROUP, DELEGATED] {
            let error = below(json!({name: "a/../.."}), true).unwrap_err();
            let start = format!("annotations[{name:?}]: \"a/../..\": must be a directory");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }

    #[test]
    fn without_a_cgroup_there_are_no_limits() {
        let flags = Flags {
            no_cgroup: true,
            ..fixture::flags()
        };
        let limit = [(
            "/linux/resources",
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 5}]}),
        )];
        let error = planned(&limit, &flags).unwrap_err().to_string();
        assert!(
            error.starts_with("linux.resources.hugepageLimits")
                && error.contains("without a cgroup"),
            "{error}"
        );
        let rules = [
            (
                "/linux/resources",
                json!({"devices": [{"allow": false, "access": "rwm"}]}),
            ),
            ("/linux/cgroupsPath", json!("/../x")),
        ];
        let plan = planned(&rules, &flags).unwrap();
        assert_eq!(plan.resources.warnings.len(), 1);
        assert!(
            crate::plan::Plan::create(&bundle(&rules), &host(), &flags)
                .unwrap()
                .cgroup
                .is_none()
        );
    }

    #[test]
    fn devices_are_denied_unless_the_caller_could_not_deny_them() {
        let denies = |host: &Host, changes: Changes| {
            plan_for(host, changes)
                .unwrap()
                .cgroup
                .unwrap()
                .devices
                .is_some()
        };
        let rules = (
            "/linux/resources",
            json!({"devices": [{"allow": false, "access": "rwm"}]}),
        );
        let ruled = [&user_namespace()[..], &[rules]].concat();
        assert!(denies(&host(), &[]));
        assert!(!denies(&host(), &user_namespace()));
        assert!(denies(&host(), &ruled));
        assert!(!denies(&users_host(), &ruled));
        assert!(!denies(
            &Host {
                in_user_namespace: true,
                denies_setgroups: false,
                ..host()
            },
            &ruled
        ));
    }

    #[test]
    fn only_a_confined_caller_without_limits_does_without_a_cgroup() {
        let optional = |host: &Host, rootless, changes: Changes| {
            let flags = Flags {
                rootless,
                ..fixture::flags()
            };
            let bundle = bundle(changes);
            cgroup(&bundle, &Namespaces::default(), host, &flags)
                .unwrap()
                .optional
        };
        let limit = [("/linux/resources", json!({"pids": {"limit": 5}}))];
        let cases: [(_, _, Changes, _); 6] = [
            (host(), None, &[], false),
            (host(), Some(true), &[], true),
            (users_host(), None, &[], true),
            (users_host(), Some(false), &[], false),
            (users_host(), None, &limit, false),
            (host(), Some(true), &limit, false),
        ];
        for (host, rootless, changes, expected) in cases {
            assert_eq!(
                optional(&host, rootless, changes),
                expected,
                "{rootless:?} {changes:?}"
            );
        }
    }

    #[test]
    fn a_writable_cgroup_of_its_own_belongs_to_the_containers_user() {
        let entry = |options: Value| {
            (
                "/mounts",
                json!([{"destination": "/sys/fs/cgroup/", "type": "cgroup", "options": options}]),
            )
        };
        let owner = |changes: Changes| plan_for(&host(), changes).unwrap().cgroup.unwrap().owner;
        let user = ("/process/user", json!({"uid": 7, "gid": 0}));
        let writable = entry(json!(["nosuid"]));
        assert_eq!(owner(&[user.clone(), writable.clone()]), Some(7));
        assert_eq!(owner(std::slice::from_ref(&writable)), None);
        assert_eq!(owner(std::slice::from_ref(&user)), None);
        assert_eq!(owner(&[user.clone(), entry(json!(["ro"]))]), None);
        let mapped = [&user_namespace()[..], &[user.clone(), writable.clone()]].concat();
        assert_eq!(owner(&mapped), Some(100_007));
        assert_eq!(
            owner(&[
                ("/linux/namespaces", json!([{"type": "mount"}])),
                user,
                writable
            ]),
            None
        );
    }
}
