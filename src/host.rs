//! `Host`: the facts about this machine that a plan depends on, read once. Plain data, so tests write their own.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::sys::{self, cred};

#[derive(Clone, Debug)]
pub struct Host {
    pub euid: u32,
    pub egid: u32,
    /// Whether this process is itself in a user namespace that is not the initial one.
    pub in_user_namespace: bool,
    /// Whether the user namespace that this process is in has given up setgroups(2), for itself and all below.
    pub denies_setgroups: bool,
    /// What this process may do and give away, a bit for each capability.
    pub capabilities: u64,
    pub cgroup: Hierarchy,
}

/// The cgroup v2 tree.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    /// Where it is mounted: /sys/fs/cgroup, or its `unified` directory on a hybrid host.
    pub mount: PathBuf,
    /// This process's own cgroup, as an absolute path below the mount.
    pub own: PathBuf,
}

impl Host {
    pub fn probe() -> Result<Host> {
        let in_user_namespace = in_user_namespace()?;
        Ok(Host {
            euid: nix::unistd::geteuid().as_raw(),
            egid: nix::unistd::getegid().as_raw(),
            in_user_namespace,
            denies_setgroups: in_user_namespace && denies_setgroups(),
            capabilities: cred::capabilities()?.permitted,
            cgroup: Hierarchy::probe()?,
        })
    }
}

impl Hierarchy {
    pub fn probe() -> Result<Hierarchy> {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let is_v2 = |path: &&&str| {
            statfs(**path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
        };
        let mount = mounts.iter().find(is_v2).context(
            "/sys/fs/cgroup: no cgroup v2 here; mount it: mount -t cgroup2 none /sys/fs/cgroup",
        )?;
        let text = read("/proc/self/cgroup")?;
        let own = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or("/");
        Ok(Hierarchy {
            mount: PathBuf::from(mount),
            own: PathBuf::from(own),
        })
    }
}

fn denies_setgroups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim_end() == "deny")
}

/// Whether this process is in another user namespace than the initial one, which has a number of its own
/// (PROC_USER_INIT_INO of include/linux/proc_ns.h, Linux 3.8). Its maps do not tell: another may map all ids as well.
pub fn in_user_namespace() -> Result<bool> {
    const INITIAL: u64 = 0xEFFF_FFFD;
    let path = "/proc/self/ns/user";
    let found = sys::io(std::fs::metadata(path)).with_context(|| format!("stat {path}"))?;
    Ok(found.ino() != INITIAL)
}

/// From /etc/passwd alone: getpwuid(3) would load what other sources of names need, and a static program dies of that.
pub fn user_name(uid: u32) -> Option<String> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let number = uid.to_string();
    let mut lines = passwd.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_string())
    })
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    sys::io(sys::read_text(path)).with_context(|| format!("read {path:?}"))
}
