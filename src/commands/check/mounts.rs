//! `check`, file systems: which of those that a container needs this user can mount.
//!
//! All are mounted by a child, in a mount namespace of its own, and are gone with it; must not mount anything
//! that others see.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::fchdir;

use super::trial::{Refusal, attempt};
use super::users::Caller;
use super::{Finding, fact};
use crate::facility::{id_maps, resctrl};
use crate::host::Host;
use crate::plan::namespaces::IdMap;
use crate::sys::mount::{self, Configuration};
use crate::sys::{self, clone, named};

const OUTER: &str = "this seems to be a container itself; let its seccomp and AppArmor profiles allow mounts, \
                     or give it CAP_SYS_ADMIN";
const MASKED: &str = "parts of /proc or /sys are mounted over here, and the kernel gives a user namespace no view \
                      without that; bind the ones that are there, or run the outer container unmasked";

pub fn findings(caller: &Caller) -> Vec<Finding> {
    let mut found = vec![
        tmpfs(caller),
        view("proc", caller, clone::NEWPID, || detached("proc")),
        view("sysfs", caller, clone::NEWNET, || detached("sysfs")),
        overlay(caller),
    ];
    if caller.privileged {
        found.push(overlay_in_a_user_namespace());
    }
    found.push(idmapped(caller));
    found.push(resctrl());
    found
}

fn tmpfs(caller: &Caller) -> Finding {
    let name = "tmpfs";
    let finding = match attempt(caller.shell() | clone::NEWNS, || detached("tmpfs")) {
        Ok(_) => Finding::ok(name, "mounted"),
        Err(refusal) => missing(name, refusal),
    };
    finding.needed()
}

fn missing(name: &str, refusal: Refusal) -> Finding {
    let fix = fix_for(&refusal);
    Finding::missing(name, refusal.text).fix(fix)
}

fn fix_for(refusal: &Refusal) -> &'static str {
    // Ubuntu makes a user namespace without capabilities where no profile allows it.
    let restricted = fact("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    match restricted.is_some_and(|value| value != "0") {
        _ if !refusal.tried => "see namespaces above",
        true => "see the AppArmor switch above",
        false => OUTER,
    }
}

/// A file system that shows the namespace of its mounter.
fn view(name: &str, caller: &Caller, namespace: u64, act: fn() -> Result<String>) -> Finding {
    match attempt(caller.shell() | clone::NEWNS | namespace, act) {
        Ok(_) => Finding::ok(name, "a new one was mounted"),
        Err(refusal) => {
            let is_masked = refusal.tried && refusal.errno == Some(Errno::EPERM);
            let fix = if is_masked { MASKED } else { fix_for(&refusal) };
            Finding::limited(name, refusal.text).fix(fix)
        }
    }
}

fn detached(kind: &str) -> Result<String> {
    Configuration::open(kind)?.mount(0).map(|_| String::new())
}

fn overlay(caller: &Caller) -> Finding {
    let (name, namespaces) = ("overlay", caller.shell() | clone::NEWNS);
    let act = match caller.privileged {
        true => || layers(false),
        false => || layers(true),
    };
    match attempt(namespaces, act) {
        Ok(text) => Finding::ok(name, text),
        Err(refusal) => missing_overlay(name, refusal),
    }
}

fn overlay_in_a_user_namespace() -> Finding {
    let name = "overlay, rootless";
    match attempt(clone::NEWUSER | clone::NEWNS, || layers(true)) {
        Ok(text) => Finding::ok(name, text),
        Err(refusal) => missing_overlay(name, refusal),
    }
}

fn missing_overlay(name: &str, refusal: Refusal) -> Finding {
    match refusal.errno {
        Some(Errno::ENODEV) => Finding::missing(name, refusal.text).fix("modprobe overlay"),
        _ => missing(name, refusal),
    }
}

/// Mounts one layer with another to write to, all on a tmpfs.
fn layers(user_attributes: bool) -> Result<String> {
    let scratch = Configuration::open("tmpfs")?.mount(0)?;
    // Overlay takes directories only where their mount is attached; nobody else sees this one.
    mount::move_mount(&scratch, open("/")?)?;
    for name in ["lower", "upper", "work"] {
        let made = mkdirat(&scratch, name, Mode::S_IRWXU);
        named(made, || format!("mkdirat({name:?})"))?;
    }
    named(fchdir(&scratch), || "fchdir()".to_string())?;
    let overlay = Configuration::open("overlay")?;
    for (key, directory) in [
        ("lowerdir", "lower"),
        ("upperdir", "upper"),
        ("workdir", "work"),
    ] {
        overlay.string(key, directory)?;
    }
    if user_attributes {
        overlay.flag("userxattr")?;
    }
    let mounted = overlay.mount(0)?;
    named(mkdirat(&mounted, "new", Mode::S_IRWXU), || {
        "mkdirat() on it".to_string()
    })?;
    let place = if user_attributes {
        ", in a user namespace"
    } else {
        ""
    };
    Ok(format!("mounted and written to{place}"))
}

/// The owners of a file system of the host are mapped: only for who has power over that file system.
fn idmapped(caller: &Caller) -> Finding {
    let name = "idmapped mounts";
    if caller.confined {
        return Finding::limited(
            name,
            "only root of the host can map the owners of its files",
        )
        .fix("give the files to the mapped ids, or use a copy");
    }
    match attempt(clone::NEWNS, map_owners) {
        Ok(text) => Finding::ok(name, text),
        Err(refusal) if refusal.errno == Some(Errno::EINVAL) => {
            Finding::limited(name, refusal.text)
                .fix("keep root file systems on ext4, xfs, btrfs or tmpfs")
        }
        Err(refusal) => missing(name, refusal),
    }
}

fn map_owners() -> Result<String> {
    let map = IdMap {
        container: 0,
        host: 100_000,
        size: 65_536,
    };
    let host = Host::probe()?;
    let namespace = id_maps::namespace(&host, &[map], &[map])?;
    let place = "/";
    let tree = mount::clone_tree(Path::new(place), false)?;
    mount::set_idmap(&tree, &namespace, false)
        .with_context(|| format!("on the file system of {place}"))?;
    Ok(format!("on the file system of {place}"))
}

fn resctrl() -> Finding {
    let name = "resctrl";
    let place = resctrl::ROOT;
    let known = fact("/proc/filesystems").unwrap_or_default();
    if !known.split_whitespace().any(|kind| kind == "resctrl") {
        return Finding::missing(name, "not in this kernel; linux.intelRdt is refused");
    }
    match resctrl::check_mounted(Path::new(place)) {
        Ok(()) => Finding::ok(name, format!("mounted at {place}")),
        Err(_) => {
            Finding::limited(name, "not mounted").fix(format!("mount -t resctrl resctrl {place}"))
        }
    }
}

fn open(path: &str) -> Result<OwnedFd> {
    let opened = sys::io(File::open(path)).with_context(|| format!("open {path}"))?;
    Ok(opened.into())
}
