//! `check`, users: who asks, which namespaces this user can make, which ids this user can map into one.
//!
//! Run by the parent, which has newuidmap and newgidmap map the ids of a child, as for a container. Must not
//! look at anything but files where a trial tells nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use super::trial::{Refusal, attempt};
use super::{Finding, fact};
use crate::facility::id_maps;
use crate::host::{self, Hierarchy, Host};
use crate::plan::namespaces::{IdMap, KINDS, Kind};
use crate::sys::{clone, cred, probe};

const CAP_SYS_ADMIN: u64 = 1 << 21;

pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    /// From /etc/passwd, or the number.
    pub name: String,
    /// Whether namespaces can be made without a user namespace around them.
    pub privileged: bool,
    /// Whether this is not root, or root of a user namespace only.
    pub confined: bool,
}

impl Caller {
    pub fn probe() -> Result<Caller> {
        let uid = geteuid().as_raw();
        Ok(Caller {
            uid,
            gid: getegid().as_raw(),
            name: name_of(uid),
            privileged: cred::capabilities()?.permitted & CAP_SYS_ADMIN != 0,
            confined: uid != 0 || host::in_user_namespace().unwrap_or(false),
        })
    }

    /// The namespaces that this caller needs to make others.
    pub fn shell(&self) -> u64 {
        if self.privileged { 0 } else { clone::NEWUSER }
    }
}

fn name_of(uid: u32) -> String {
    let unnamed = if uid == 0 {
        "root".to_string()
    } else {
        uid.to_string()
    };
    host::user_name(uid).unwrap_or(unnamed)
}

pub fn namespaces(caller: &Caller) -> Vec<Finding> {
    let has_shell = attempt(caller.shell(), || Ok(String::new())).is_ok();
    let found = KINDS.iter().map(|kind| match kind.flag {
        clone::NEWUSER => namespace(kind, caller),
        _ if has_shell => namespace(kind, caller),
        _ => Finding::missing(kind.name, "this user needs a user namespace around it")
            .fix("see user below"),
    });
    let is_needed = |kind: &Kind| match kind.flag {
        clone::NEWNS => true,
        clone::NEWUSER => !caller.privileged,
        _ => false,
    };
    let judge = |(finding, kind): (Finding, &Kind)| match is_needed(kind) {
        true => finding.needed(),
        false => finding,
    };
    found.zip(&KINDS).map(judge).collect()
}

fn namespace(kind: &Kind, caller: &Caller) -> Finding {
    let inside = match caller.privileged || kind.flag == clone::NEWUSER {
        true => "a new one was made",
        false => "a new one was made, in a user namespace",
    };
    match attempt(caller.shell() | kind.flag, || Ok(String::new())) {
        Ok(_) => Finding::ok(kind.name, inside),
        Err(refusal) => {
            let fix = fix_for(kind, &refusal, caller);
            Finding::missing(kind.name, refusal.text).fix(fix)
        }
    }
}

fn fix_for(kind: &Kind, refusal: &Refusal, caller: &Caller) -> String {
    let file = kind.file;
    match refusal.errno {
        // namespaces(7): a limit of this user's, or of the depth.
        Some(Errno::ENOSPC) => format!("sysctl -w user.max_{file}_namespaces=15000"),
        Some(Errno::EINVAL) => format!("boot a kernel with {} namespaces", kind.name),
        _ if is("/proc/sys/kernel/unprivileged_userns_clone", "0") && !caller.privileged => {
            "sysctl -w kernel.unprivileged_userns_clone=1".to_string()
        }
        _ => "this seems to be a container itself; let its seccomp and AppArmor profiles allow namespaces, \
              or give it CAP_SYS_ADMIN"
            .to_string(),
    }
}

fn is(path: &str, value: &str) -> bool {
    fact(path).is_some_and(|text| text == value)
}

pub fn findings(caller: &Caller) -> Vec<Finding> {
    let mut found = vec![limit()];
    found.extend(switches());
    found.push(ids(caller));
    if caller.confined {
        found.extend(["newuidmap", "newgidmap"].map(helper));
    }
    found
}

fn limit() -> Finding {
    let name = "limit";
    match fact("/proc/sys/user/max_user_namespaces") {
        Some(text) if text == "0" => Finding::missing(name, "max_user_namespaces is 0")
            .fix("sysctl -w user.max_user_namespaces=15000"),
        Some(text) => Finding::ok(name, format!("max_user_namespaces is {text}")),
        None => Finding::missing(name, "no /proc/sys/user/max_user_namespaces")
            .fix("boot a kernel with CONFIG_USER_NS"),
    }
}

/// Settings that some distributions add to the kernel.
fn switches() -> Vec<Finding> {
    let mut found = Vec::new();
    let clone = "unprivileged_userns_clone";
    if let Some(value) = fact(&format!("/proc/sys/kernel/{clone}")) {
        let text = format!("{clone} is {value}");
        found.push(match value.as_str() {
            "0" => Finding::limited("switch", text).fix(format!("sysctl -w kernel.{clone}=1")),
            _ => Finding::ok("switch", text),
        });
    }
    let attach_device_filter = "apparmor_restrict_unprivileged_userns";
    if let Some(value) = fact(&format!("/proc/sys/kernel/{attach_device_filter}")) {
        let text = format!("{attach_device_filter} is {value}");
        found.push(match value.as_str() {
            "0" => Finding::ok("AppArmor switch", text),
            _ => Finding::limited("AppArmor switch", text).fix(format!(
                "give this program an AppArmor profile with the rule `userns,`, or sysctl -w kernel.{attach_device_filter}=0"
            )),
        });
    }
    found
}

/// How many ids can be mapped, by mapping them.
fn ids(caller: &Caller) -> Finding {
    let name = "ids";
    if caller.uid == 0 {
        let map = fact("/proc/self/uid_map").unwrap_or_default();
        let size = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
        let sum: u64 = map.lines().filter_map(size).sum();
        return Finding::ok(name, format!("root can map all it has: {sum}"));
    }
    let (Some(uids), Some(gids)) = (
        granted("/etc/subuid", caller),
        granted("/etc/subgid", caller),
    ) else {
        return Finding::limited(
            name,
            "only the own one: no range in /etc/subuid and /etc/subgid",
        )
        .fix(format!(
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}",
            caller.name
        ));
    };
    let size = uids.1.min(gids.1) + 1;
    match map(caller, uids, gids) {
        Ok(()) => Finding::ok(name, format!("{size} were mapped")),
        Err(error) => {
            Finding::limited(name, format!("only the own one: {error:#}")).fix(fix_for_ids())
        }
    }
}

fn map(caller: &Caller, uids: (u32, u32), gids: (u32, u32)) -> Result<()> {
    let maps = |own: u32, (start, count): (u32, u32)| {
        let map = |container, host, size| IdMap {
            container,
            host,
            size,
        };
        [map(0, own, 1), map(1, start, count)]
    };
    let host = Host {
        euid: caller.uid,
        egid: caller.gid,
        in_user_namespace: caller.confined,
        denies_setgroups: false,
        capabilities: 0,
        cgroup: Hierarchy {
            mount: PathBuf::new(),
            own: PathBuf::new(),
        },
    };
    id_maps::namespace(&host, &maps(caller.uid, uids), &maps(caller.gid, gids)).map(drop)
}

fn fix_for_ids() -> &'static str {
    let status = fact("/proc/self/status").unwrap_or_default();
    match status.lines().any(|line| line == "NoNewPrivs:\t1") {
        true => {
            "this process runs under no_new_privs, which keeps newuidmap from its privilege; leave that out"
        }
        false => "see newuidmap and newgidmap below, and compare /etc/subuid and /etc/subgid",
    }
}

/// The first range of a user in subuid(5) or subgid(5), where a line begins with a name or a number.
fn granted(file: &str, caller: &Caller) -> Option<(u32, u32)> {
    let number = caller.uid.to_string();
    range(&fact(file)?, &[&caller.name, &number])
}

fn range(text: &str, names: &[&str]) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let (start, count) = (
            fields.next()?.parse().ok()?,
            fields.next()?.trim().parse().ok()?,
        );
        (names.contains(&owner) && count > 0).then_some((start, count))
    })
}

/// newuidmap(1) or newgidmap(1), which map by a privilege of their own.
fn helper(name: &str) -> Finding {
    let Some(path) = id_maps::helper(name) else {
        return Finding::limited(name, "not installed")
            .fix("apt-get install uidmap, or the package shadow-utils");
    };
    let place = path.display();
    match privilege(&path) {
        Some(privilege) => Finding::ok(name, format!("{place}, {privilege}")),
        None => Finding::limited(
            name,
            format!("{place} is neither setuid nor has file capabilities"),
        )
        .fix(format!("chmod u+s {place}")),
    }
}

fn privilege(path: &Path) -> Option<&'static str> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    match mode & libc::S_ISUID != 0 {
        true => Some("setuid"),
        false => probe::has_file_capabilities(path).then_some("with file capabilities"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let text = "bob:1:2\nann:100000:65536\n1000:7:8\nann:5:5\nzoe:9:0\nbad:x:y\n";
        assert_eq!(range(text, &["ann", "1001"]), Some((100000, 65536)));
        assert_eq!(range(text, &["eve", "1000"]), Some((7, 8)));
        for name in ["zoe", "bad", "an", ""] {
            assert_eq!(range(text, &[name]), None, "{name}");
        }
    }
}
