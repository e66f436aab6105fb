//! `check`, cgroups: which hierarchy the host has, which controllers, and what this user may do where the
//! cgroups of containers are made.
//!
//! Run by the parent. Tries it with a cgroup of its own, with no process but one that ends at once, and
//! removes it; must not switch a controller on.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::wait::waitpid;
use nix::unistd::{AccessFlags, Pid, eaccess};

use super::users::Caller;
use super::{Finding, fact, has_systemd};
use crate::host::Hierarchy;
use crate::plan::devices;
use crate::sys::clone::{self, Side};
use crate::sys::{self, bpf, process};

/// What `linux.resources` has limits for, the usual ones first.
const CONTROLLERS: [&str; 8] = [
    "cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc",
];
const USUAL: usize = 5;

pub fn findings(caller: &Caller) -> Vec<Finding> {
    let hierarchy = match Hierarchy::probe() {
        Ok(hierarchy) => hierarchy,
        Err(_) => {
            let finding = Finding::missing("hierarchy", "no cgroup v2 at /sys/fs/cgroup")
                .fix("mount -t cgroup2 none /sys/fs/cgroup")
                .needed();
            return vec![finding];
        }
    };
    let place = place(&hierarchy);
    vec![
        version(&hierarchy),
        controllers(&hierarchy),
        delegation(caller, &hierarchy, &place),
        device_rules(caller, &place),
    ]
}

/// Where the cgroup of a container without linux.cgroupsPath is made: beside the caller's own.
fn place(hierarchy: &Hierarchy) -> PathBuf {
    let above = hierarchy.own.parent().unwrap_or(Path::new("/"));
    let mount = hierarchy.mount.components();
    mount.chain(above.components().skip(1)).collect()
}

fn version(hierarchy: &Hierarchy) -> Finding {
    let mount = hierarchy.mount.display();
    match hierarchy.mount == Path::new("/sys/fs/cgroup") {
        true => Finding::ok("hierarchy", format!("v2 alone, at {mount}")),
        false => Finding::limited("hierarchy", format!("v2 beside v1, at {mount}")).fix(v2_alone()),
    }
}

fn v2_alone() -> &'static str {
    match has_systemd() {
        true => "boot with systemd.unified_cgroup_hierarchy=1",
        false => "boot with cgroup_no_v1=all, and mount -t cgroup2 none /sys/fs/cgroup",
    }
}

fn controllers(hierarchy: &Hierarchy) -> Finding {
    let name = "controllers";
    let there = listed(&hierarchy.mount.join("cgroup.controllers"));
    let missing = absent(&CONTROLLERS[..USUAL], &there);
    if missing.is_empty() {
        return Finding::ok(name, there.join(" "));
    }
    let known = fact("/proc/cgroups").unwrap_or_default();
    let (v1, nowhere): (Vec<&str>, Vec<&str>) =
        missing.into_iter().partition(|name| is_in_v1(name, &known));
    let mut parts = vec![words(&there)];
    let lacks = [("as v1 only", &v1), ("nowhere", &nowhere)];
    let lacking = lacks.iter().filter(|(_, names)| !names.is_empty());
    parts.extend(lacking.map(|(why, names)| format!("{why}: {}", names.join(" "))));
    let fix = match v1.is_empty() {
        true => {
            "boot a kernel with them (memory: cgroup_enable=memory on some boards); limits of these are refused"
        }
        false => v2_alone(),
    };
    Finding::limited(name, parts.join("; ")).fix(fix)
}

/// /proc/cgroups gives the number of the hierarchy, 0 for v2 or none; io is blkio there (cgroups(7)).
fn is_in_v1(controller: &str, known: &str) -> bool {
    let name = if controller == "io" {
        "blkio"
    } else {
        controller
    };
    known.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.first() == Some(&name) && fields.get(1).is_some_and(|number| *number != "0")
    })
}

/// Whether this user can make cgroups, and which limits these can have.
fn delegation(caller: &Caller, hierarchy: &Hierarchy, place: &Path) -> Finding {
    let name = "delegation";
    if let Err(error) = with_cgroup(place, start_in) {
        return refused(caller, hierarchy, format!("{error:#}"));
    }
    let usable = usable(place);
    let there = listed(&hierarchy.mount.join("cgroup.controllers"));
    let usual = CONTROLLERS[..USUAL]
        .iter()
        .filter(|name| there.contains(&name.to_string()));
    let missing = absent(&usual.copied().collect::<Vec<_>>(), &usable);
    let value = format!(
        "a process started in a new cgroup of {}; limits: {}",
        place.display(),
        words(&usable)
    );
    if missing.is_empty() {
        return Finding::ok(name, value);
    }
    Finding::limited(name, value).fix(match has_systemd() {
        true => format!(
            "put [Service] Delegate={} into /etc/systemd/system/user@.service.d/delegate.conf, then systemctl \
             daemon-reload and log in anew",
            CONTROLLERS[..USUAL].join(" ")
        ),
        false => format!(
            "as root: write +{} to cgroup.subtree_control of each cgroup above {}",
            missing.join(" +"),
            place.display()
        ),
    })
}

fn refused(caller: &Caller, hierarchy: &Hierarchy, why: String) -> Finding {
    let name = "delegation";
    if !caller.confined {
        return Finding::missing(name, why)
            .fix("mount /sys/fs/cgroup writable; an outer container needs a cgroup namespace of its own")
            .needed();
    }
    let own = hierarchy.mount.join(&caller.name);
    let (user, own) = (&caller.name, own.display());
    Finding::limited(name, format!("{why}; containers run without limits")).fix(match has_systemd() {
        true => "systemd-run --user --scope cofferdam ..".to_string(),
        false => format!(
            "as root: mkdir -p {own}/shell; chown -R {user} {own}; echo PID >{own}/shell/cgroup.procs, PID \
             being that of the user's shell"
        ),
    })
}

/// The user must be allowed to move processes in the cgroup above both, the old one and the new one.
fn start_in(path: &Path) -> Result<()> {
    let directory = sys::io(File::open(path)).with_context(|| format!("open {path:?}"))?;
    match clone::clone3(0, Some(directory.as_fd())) {
        Ok(Side::Child) => process::exit(0),
        Ok(Side::Parent { pid, .. }) => sys::again(|| waitpid(Pid::from_raw(pid), None))
            .map(drop)
            .map_err(Into::into),
        Err(error) => Err(error.context(format!("start a process in {}", path.display()))),
    }
}

/// The controllers that a new cgroup in `place` can have: those that are on, and those that may be turned on.
fn usable(place: &Path) -> Vec<String> {
    let switch = place.join("cgroup.subtree_control");
    let file = match eaccess(&switch, AccessFlags::W_OK) {
        Ok(()) => place.join("cgroup.controllers"),
        Err(_) => switch,
    };
    listed(&file)
}

fn device_rules(caller: &Caller, place: &Path) -> Finding {
    let name = "device rules";
    match load(place) {
        Ok(()) => Finding::ok(name, "a program was loaded and attached"),
        Err(_) if caller.confined => Finding::limited(
            name,
            "only root of the host can attach them; in a user namespace no device can be made anyway",
        ),
        Err(error) => Finding::missing(name, format!("{error:#}")).fix(
            "boot a kernel with CONFIG_CGROUP_BPF; an outer container needs CAP_BPF and CAP_SYS_ADMIN",
        ),
    }
}

/// The rules of a container for which config.json has none but to deny the rest.
fn load(place: &Path) -> Result<()> {
    let program = devices::program(&devices::defaults())?.unwrap_or_default();
    let program = bpf::load_device_program(&program)?;
    with_cgroup(place, |path| {
        let directory = sys::io(File::open(path)).with_context(|| format!("open {path:?}"))?;
        bpf::attach_device_program(directory, program)
    })
}

fn with_cgroup(place: &Path, act: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let path = place.join(format!("cofferdam-check-{}", std::process::id()));
    sys::io(std::fs::create_dir(&path)).with_context(|| format!("make {}", path.display()))?;
    let done = act(&path);
    let removed = sys::io(std::fs::remove_dir(&path));
    done.and(removed.with_context(|| format!("remove {}", path.display())))
}

fn listed(file: &Path) -> Vec<String> {
    let text = fact(&file.to_string_lossy()).unwrap_or_default();
    text.split_whitespace().map(str::to_string).collect()
}

fn absent<'a>(wanted: &[&'a str], there: &[String]) -> Vec<&'a str> {
    let is_absent = |name: &&str| !there.iter().any(|other| other == name);
    wanted.iter().copied().filter(is_absent).collect()
}

fn words(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".to_string(),
        false => names.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_go_beside_the_caller() {
        let place = |own: &str| {
            place(&Hierarchy {
                mount: "/sys/fs/cgroup".into(),
                own: own.into(),
            })
        };
        assert_eq!(place("/"), Path::new("/sys/fs/cgroup"));
        assert_eq!(place("/a"), Path::new("/sys/fs/cgroup"));
        assert_eq!(place("/a/b/c"), Path::new("/sys/fs/cgroup/a/b"));
    }

    #[test]
    fn controllers_of_v1_have_a_hierarchy() {
        let known = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nblkio\t7\t1\t1\nmemory\t0\t9\t1\n";
        for (name, expected) in [
            ("cpu", true),
            ("io", true),
            ("memory", false),
            ("pids", false),
        ] {
            assert_eq!(is_in_v1(name, known), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_absent() {
        let there = ["cpu", "memory"].map(String::from);
        assert_eq!(
            absent(&["cpu", "io", "memory", "pids"], &there),
            ["io", "pids"]
        );
    }
}
