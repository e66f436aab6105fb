//! `linux.cgroupsPath` and `linux.resources` -> the container's cgroup and what is written there.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{Linux, Mount};

use super::Flags;
use super::mounts::clean;
use super::namespaces::Namespaces;
use super::resources::{self, Resources};
use crate::bundle::Bundle;
use crate::cgroup::devices::{self, DeviceRule};
use crate::host::Host;
use crate::sys::clone;

#[derive(Debug)]
pub struct CgroupPlan {
    /// Where cgroup v2 is mounted.
    pub mount: PathBuf,
    /// The container's own directory.
    pub path: PathBuf,
    /// The systemd scope that holds it, if systemd is to make it.
    pub unit: Option<String>,
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
    let (below, unit) = if flags.systemd_cgroup {
        let (path, unit) = scope(path, &flags.id, host)?;
        (path, Some(unit))
    } else {
        (directory(path, &flags.id, &host.cgroup.own)?, None)
    };
    let free = resources.devices.is_empty() && namespaces.has(clone::NEWUSER);
    let mut device_rules = std::mem::take(&mut resources.devices);
    device_rules.extend(devices::defaults());
    let confined = host.euid != 0 || host.in_user_namespace;
    Ok(CgroupPlan {
        path: mount.join(below.strip_prefix("/").unwrap_or(&below)),
        mount,
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
        owner: owner(bundle, namespaces),
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
fn owner(bundle: &Bundle, namespaces: &Namespaces) -> Option<u32> {
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
    let writable = bundle.spec.mounts().iter().flatten().any(is_writable);
    if !writable || !namespaces.creates(clone::NEWCGROUP) || namespaces.joins(clone::NEWUSER) {
        return None;
    }
    let uid = bundle.spec.process().as_ref()?.user().uid();
    let owner = match namespaces.creates(clone::NEWUSER) {
        true => Namespaces::maps_to_host(&namespaces.uids, uid)?,
        false => uid,
    };
    (owner != 0).then_some(owner)
}

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
    Ok(full)
}

/// `slice:prefix:name` as systemd sees it: the scope `prefix-name.scope` in the nested slice.
fn scope(path: &Path, id: &str, host: &Host) -> Result<(PathBuf, String)> {
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split(':').collect();
    let (slice, prefix, name) = match parts[..] {
        [""] => ("", "cofferdam", id),
        [slice, prefix, name] if !name.is_empty() && !text.contains('/') => (slice, prefix, name),
        _ => bail!("linux.cgroupsPath: {text}: with --systemd-cgroup it must be slice:prefix:name"),
    };
    let default = if host.euid == 0 {
        "system.slice"
    } else {
        "user.slice"
    };
    let slice = if slice.is_empty() { default } else { slice };
    let unit = match (prefix, name) {
        (_, name) if name.ends_with(".slice") => name.to_string(),
        ("", name) => format!("{name}.scope"),
        (prefix, name) => format!("{prefix}-{name}.scope"),
    };
    Ok((slice_path(slice)?.join(&unit), unit))
}

/// systemd.slice(5): `a-b.slice` lies inside `a.slice`.
fn slice_path(slice: &str) -> Result<PathBuf> {
    let Some(stem) = slice
        .strip_suffix(".slice")
        .filter(|stem| !stem.contains('/'))
    else {
        bail!("linux.cgroupsPath: {slice}: must be the name of a slice, such as system.slice");
    };
    let mut path = PathBuf::from("/");
    if stem == "-" {
        return Ok(path);
    }
    let mut name = String::new();
    for part in stem.split('-') {
        ensure!(
            !part.is_empty(),
            "linux.cgroupsPath: {slice}: is no name of a slice"
        );
        name = if name.is_empty() {
            part.to_string()
        } else {
            format!("{name}-{part}")
        };
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

impl fmt::Display for CgroupPlan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.unit {
            Some(unit) => writeln!(f, "cgroup {} (systemd unit {unit})", self.path.display())?,
            None => writeln!(f, "cgroup {}", self.path.display())?,
        }
        for setting in &self.resources.settings {
            writeln!(f, "{} = {}", setting.file, setting.value)?;
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

    fn path(text: &str, systemd_cgroup: bool) -> Result<(String, Option<String>)> {
        let flags = Flags {
            systemd_cgroup,
            ..fixture::flags()
        };
        let plan = planned(&[("/linux/cgroupsPath", json!(text))], &flags)?;
        let below = plan.path.strip_prefix("/sys/fs/cgroup").unwrap();
        Ok((below.display().to_string(), plan.unit))
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
            let found = path(text, false).map(|(path, _)| path).unwrap_or_default();
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
            let error = path(text, false).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("linux.cgroupsPath: {text:?}: must not contain \"..\"")
            );
        }
        for text in ["/", "//", "/."] {
            let error = path(text, false).unwrap_err().to_string();
            assert!(
                error.ends_with("is the root of all cgroups"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn scopes_lie_in_nested_slices() {
        let cases = [
            ("", "system.slice/cofferdam-c.scope"),
            ("::x", "system.slice/x.scope"),
            ("a-b-c.slice:p:x", "a.slice/a-b.slice/a-b-c.slice/p-x.scope"),
            ("-.slice:p:x", "p-x.scope"),
            ("user.slice:p:x.slice", "user.slice/x.slice"),
        ];
        for (text, expected) in cases {
            let (path, unit) = path(text, true).unwrap();
            assert_eq!(path, expected, "{text}");
            assert_eq!(unit.as_deref(), path.rsplit('/').next());
        }
        for text in [
            "/a",
            "a:b",
            "a.slice:b:",
            "a:b:c",
            "a--b.slice:p:x",
            "a/b.slice:p:x",
            "a.slice:../../p:x",
            "a.slice:p:x/../y",
        ] {
            assert!(path(text, true).is_err(), "{text}");
        }
    }

    #[test]
    fn the_default_slice_is_that_of_the_caller() {
        let (path, _) = scope(Path::new(""), "c", &users_host()).unwrap();
        assert_eq!(path, Path::new("/user.slice/cofferdam-c.scope"));
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
