//! `spec.process` -> argv, environment, credentials, limits: all that execve(2) will need.

use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxSeccomp, PosixRlimit, PosixRlimitType, Process as Spec,
    User,
};

use super::Flags;
use super::namespaces::Namespaces;
use super::scheduling::{Scheduling, scheduling};
use super::seccomp::Filter;
use crate::bundle::Bundle;
use crate::host::Host;
use crate::sys::clone;
use crate::sys::cred::Sets;

/// Set for a process that keeps the supplementary groups of the caller.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

#[derive(Debug, Default)]
pub struct Process {
    /// Empty if the config has no process: the container can be created, but not started.
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub cwd: PathBuf,
    pub terminal: Option<Terminal>,
    pub identity: Identity,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    pub umask: u32,
    /// Name of the session keyring to join.
    pub keyring: Option<String>,
    /// Descriptors from 3 on that the process keeps.
    pub preserve_fds: u32,
    pub labels: Labels,
    pub scheduling: Scheduling,
    pub seccomp: Option<Filter>,
    /// What the config asks for in vain.
    pub warnings: Vec<String>,
}

/// The size of a new terminal; zero leaves it to the terminal's user.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal {
    pub height: u16,
    pub width: u16,
}

/// What the security modules are to call the process.
#[derive(Debug, Default)]
pub struct Labels {
    pub apparmor: Option<String>,
    pub selinux: Option<String>,
}

#[derive(Debug, Default)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// `None` keeps the groups of the caller.
    pub groups: Option<Vec<u32>>,
    pub bounding: u64,
    pub sets: Sets,
    pub ambient: u64,
    pub no_new_privileges: bool,
}

#[derive(Debug)]
pub struct Rlimit {
    pub name: String,
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

pub fn process(
    bundle: &Bundle,
    namespaces: &Namespaces,
    host: &Host,
    flags: &Flags,
) -> Result<Process> {
    let keyring = (!flags.no_new_keyring).then(|| format!("_ses.{}", flags.id));
    let Some(spec) = bundle.spec.process() else {
        return Ok(Process {
            cwd: PathBuf::from("/"),
            keyring,
            ..Process::default()
        });
    };
    let linux = bundle.spec.linux().as_ref();
    let seccomp = linux.and_then(|linux| linux.seccomp().clone());
    let seccomp = seccomp.map(|seccomp| with_receiver(seccomp, bundle));
    Ok(Process {
        args: args(spec)?,
        env: env(spec, flags)?,
        cwd: spec.cwd().clone(),
        terminal: terminal(spec),
        identity: identity(bundle, spec, namespaces)?,
        rlimits: rlimits(spec.rlimits().as_deref().unwrap_or_default())?,
        oom_score_adj: oom_score_adj(spec)?,
        umask: umask(spec.user())?,
        keyring,
        preserve_fds: flags.listen_fds + flags.preserve_fds,
        labels: labels(spec),
        scheduling: scheduling(spec, linux)?,
        seccomp: seccomp.as_ref().map(super::seccomp::compile).transpose()?,
        warnings: capability_warnings(bundle, spec, namespaces, host),
    })
}

/// The agent that an engine names beside a profile that names none.
fn with_receiver(mut seccomp: LinuxSeccomp, bundle: &Bundle) -> LinuxSeccomp {
    if seccomp.listener_path().is_none() {
        seccomp.set_listener_path(
            bundle
                .annotation("run.oci.seccomp.receiver")
                .map(PathBuf::from),
        );
    }
    seccomp
}

fn labels(spec: &Spec) -> Labels {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Labels {
        apparmor: given(spec.apparmor_profile()).filter(|profile| profile != "unconfined"),
        selinux: given(spec.selinux_label()),
    }
}

fn args(spec: &Spec) -> Result<Vec<CString>> {
    let args = spec.args().as_deref().unwrap_or_default();
    ensure!(
        !args.is_empty(),
        "process.args: empty; give the program to run"
    );
    strings(args, "process.args")
}

fn strings(list: &[String], field: &str) -> Result<Vec<CString>> {
    let one = |(index, text): (usize, &String)| {
        CString::new(text.as_bytes())
            .with_context(|| format!("{field}[{index}]: {text:?}: contains a NUL byte"))
    };
    list.iter().enumerate().map(one).collect()
}

/// The environment of the config; of a name given twice the last value counts.
fn env(spec: &Spec, flags: &Flags) -> Result<Vec<CString>> {
    let mut list: Vec<&str> = Vec::new();
    for (index, entry) in spec.env().iter().flatten().enumerate() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            bail!("process.env[{index}]: {entry:?}: must be NAME=value");
        };
        list.retain(|earlier| {
            earlier
                .split_once('=')
                .is_none_or(|(earlier, _)| earlier != name)
        });
        list.push(entry);
    }
    let mut env: Vec<String> = list.into_iter().map(str::to_string).collect();
    if flags.listen_fds > 0 {
        env.retain(|entry| !entry.starts_with("LISTEN_FDS=") && !entry.starts_with("LISTEN_PID="));
        env.push(format!("LISTEN_FDS={}", flags.listen_fds));
        env.push("LISTEN_PID=1".to_string());
    }
    strings(&env, "process.env")
}

fn terminal(spec: &Spec) -> Option<Terminal> {
    let size = spec.console_size().unwrap_or_default();
    let (height, width) = (size.height() as u16, size.width() as u16);
    (spec.terminal() == Some(true)).then_some(Terminal { height, width })
}

/// The credentials of the process. What the config does not grant is not there.
fn identity(bundle: &Bundle, spec: &Spec, namespaces: &Namespaces) -> Result<Identity> {
    let user = spec.user();
    for (field, id) in [
        ("process.user.uid", user.uid()),
        ("process.user.gid", user.gid()),
    ] {
        // (uid_t)-1 means "no change" to the kernel.
        ensure!(
            id != u32::MAX,
            "{field}: {id}: is no id; must be below 4294967295"
        );
    }
    let groups = user.additional_gids().clone().unwrap_or_default();
    let keep = bundle
        .annotation(KEEP_GROUPS)
        .is_some_and(|value| value != "0" && value != "false");
    ensure!(
        groups.is_empty() || !namespaces.deny_setgroups,
        "process.user.additionalGids: {groups:?}: cannot be set where only one's own group is mapped; \
         map more groups (newgidmap), or remove them"
    );
    let capabilities = spec.capabilities().clone();
    let set = |pick: fn(&LinuxCapabilities) -> &Option<Capabilities>| {
        capabilities.as_ref().map_or(0, |sets| mask(pick(sets)))
    };
    Ok(Identity {
        uid: user.uid(),
        gid: user.gid(),
        groups: (!keep && !namespaces.deny_setgroups).then_some(groups),
        bounding: set(LinuxCapabilities::bounding),
        sets: Sets {
            effective: set(LinuxCapabilities::effective),
            permitted: set(LinuxCapabilities::permitted),
            inheritable: set(LinuxCapabilities::inheritable),
        },
        ambient: set(LinuxCapabilities::ambient),
        no_new_privileges: spec.no_new_privileges() == Some(true),
    })
}

/// config.md, "Linux Process": what cannot be granted is warned about, and left out.
fn capability_warnings(
    bundle: &Bundle,
    spec: &Spec,
    namespaces: &Namespaces,
    host: &Host,
) -> Vec<String> {
    let lists = spec.capabilities().iter().flat_map(|sets| {
        [
            sets.bounding(),
            sets.effective(),
            sets.inheritable(),
            sets.permitted(),
            sets.ambient(),
        ]
    });
    let wanted = lists.fold(0, |all, list| all | mask(list));
    // The first process of a new user namespace has all of them.
    let owned = if namespaces.has(clone::NEWUSER) {
        u64::MAX
    } else {
        host.capabilities
    };
    let mut missing = capability_names(wanted & !owned);
    missing.extend(bundle.unknown_capabilities.iter().cloned());
    let warning = |name: String| format!("process.capabilities: {name}: cannot be granted here");
    missing.into_iter().map(warning).collect()
}

fn mask(capabilities: &Option<Capabilities>) -> u64 {
    let bit = |name: String| {
        caps::Capability::from_str(&format!("CAP_{name}"))
            .map_or(0, |capability| capability.bitmask())
    };
    capabilities
        .iter()
        .flatten()
        .fold(0, |mask, capability| mask | bit(capability.to_string()))
}

fn rlimits(list: &[PosixRlimit]) -> Result<Vec<Rlimit>> {
    let mut limits: Vec<Rlimit> = Vec::new();
    for (index, limit) in list.iter().enumerate() {
        let (name, resource) = resource(limit.typ());
        let field = format!("process.rlimits[{index}]");
        ensure!(
            limits.iter().all(|other| other.name != name),
            "{field}.type: {name}: listed twice"
        );
        let (soft, hard) = (limit.soft(), limit.hard());
        ensure!(
            soft <= hard,
            "{field}.soft: {soft}: must not be above hard, {hard}"
        );
        limits.push(Rlimit {
            name: name.to_string(),
            resource,
            soft,
            hard,
        });
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> (&'static str, u32) {
    match kind {
        PosixRlimitType::RlimitAs => ("RLIMIT_AS", libc::RLIMIT_AS),
        PosixRlimitType::RlimitCore => ("RLIMIT_CORE", libc::RLIMIT_CORE),
        PosixRlimitType::RlimitCpu => ("RLIMIT_CPU", libc::RLIMIT_CPU),
        PosixRlimitType::RlimitData => ("RLIMIT_DATA", libc::RLIMIT_DATA),
        PosixRlimitType::RlimitFsize => ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
        PosixRlimitType::RlimitLocks => ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
        PosixRlimitType::RlimitMemlock => ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
        PosixRlimitType::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
        PosixRlimitType::RlimitNice => ("RLIMIT_NICE", libc::RLIMIT_NICE),
        PosixRlimitType::RlimitNofile => ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
        PosixRlimitType::RlimitNproc => ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
        PosixRlimitType::RlimitRss => ("RLIMIT_RSS", libc::RLIMIT_RSS),
        PosixRlimitType::RlimitRtprio => ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
        PosixRlimitType::RlimitRttime => ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
        PosixRlimitType::RlimitSigpending => ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
        PosixRlimitType::RlimitStack => ("RLIMIT_STACK", libc::RLIMIT_STACK),
    }
}

fn oom_score_adj(spec: &Spec) -> Result<Option<i32>> {
    let score = spec.oom_score_adj();
    let valid = score.is_none_or(|score| (-1000..=1000).contains(&score));
    ensure!(
        valid,
        "process.oomScoreAdj: {}: must be from -1000 to 1000",
        score.unwrap_or(0)
    );
    Ok(score)
}

/// Where the config has none, the engines and their images count on 0022.
fn umask(user: &User) -> Result<u32> {
    let umask = user.umask().unwrap_or(0o022);
    ensure!(
        umask <= 0o777,
        "process.user.umask: {umask}: must be at most 511 (octal 0777)"
    );
    Ok(umask)
}

/// The capabilities of a mask, by their names.
pub fn capability_names(mask: u64) -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    let granted = all
        .into_iter()
        .filter(|capability| mask & capability.bitmask() != 0);
    granted.map(|capability| capability.to_string()).collect()
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if let Some(Terminal { height, width }) = self.terminal {
            match (height, width) {
                (0, 0) => writeln!(f, "new terminal")?,
                _ => writeln!(f, "new terminal, {height} rows, {width} columns")?,
            }
        }
        for Rlimit {
            name, soft, hard, ..
        } in &self.rlimits
        {
            writeln!(f, "limit {name} {soft}:{hard}")?;
        }
        if let Some(score) = self.oom_score_adj {
            writeln!(f, "oom score adjustment {score}")?;
        }
        if let Some(keyring) = &self.keyring {
            writeln!(f, "session keyring {keyring}")?;
        }
        self.identity.fmt(f)?;
        if let Some(profile) = &self.labels.apparmor {
            writeln!(f, "AppArmor profile {profile}")?;
        }
        if let Some(label) = &self.labels.selinux {
            writeln!(f, "SELinux label {label}")?;
        }
        self.scheduling.fmt(f)?;
        writeln!(f, "umask {:04o}", self.umask)?;
        writeln!(f, "cwd {}", self.cwd.display())?;
        if self.preserve_fds > 0 {
            writeln!(f, "keep {} descriptors from 3 on", self.preserve_fds)?;
        }
        if let Some(filter) = &self.seccomp {
            writeln!(f, "{filter}")?;
        }
        for entry in &self.env {
            writeln!(f, "env {}", entry.to_string_lossy())?;
        }
        let args: Vec<_> = self
            .args
            .iter()
            .map(|text| text.to_string_lossy())
            .collect();
        writeln!(f, "exec {args:?}")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "user {}:{}", self.uid, self.gid)?;
        match &self.groups {
            Some(groups) if !groups.is_empty() => writeln!(f, ", groups {groups:?}")?,
            Some(_) => writeln!(f)?,
            None => writeln!(f, ", groups of the caller")?,
        }
        let sets = [
            ("bounding", self.bounding),
            ("effective", self.sets.effective),
            ("permitted", self.sets.permitted),
            ("inheritable", self.sets.inheritable),
            ("ambient", self.ambient),
        ];
        for (name, set) in sets {
            let names = capability_names(set);
            let names = if names.is_empty() {
                "none".to_string()
            } else {
                names.join(" ")
            };
            writeln!(f, "{name} capabilities {names}")?;
        }
        if self.no_new_privileges {
            writeln!(f, "no new privileges")?;
        }
        Ok(())
    }
}
