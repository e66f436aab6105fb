//! `spec.process` -> argv, environment, credentials, limits: all that execve(2) will need.

use std::collections::HashMap;
use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::{
    Capabilities, LinuxCapabilities, LinuxSeccomp, PosixRlimit, PosixRlimitType, Process as Spec,
    User,
};

use super::namespaces::Namespaces;
use super::scheduling::{Scheduling, scheduling};
use super::seccomp::Filter;
use super::{Flags, notify_socket};
use crate::bundle::Bundle;
use crate::host::Host;
use crate::sys::clone;
use crate::sys::cred::Sets;
use crate::text::log;

/// Set for a process that keeps the supplementary groups of the caller.
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// The umask of the runtime, and of a process whose config names none.
pub const UMASK: u32 = 0o022;

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
    /// Name of the session keyring to join. The command that makes the container adds a random part.
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
            umask: UMASK,
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
        terminal: terminal(spec)?,
        identity: identity(bundle, spec, namespaces)?,
        rlimits: rlimits(spec.rlimits().as_deref().unwrap_or_default())?,
        oom_score_adj: oom_score_adj(spec)?,
        umask: umask(spec.user())?,
        keyring,
        preserve_fds: preserved(flags)?,
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
    let entries: Vec<&String> = spec.env().iter().flatten().collect();
    let mut last = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let Some((name, _)) = entry.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            bail!("process.env[{index}]: {entry:?}: must be NAME=value");
        };
        last.insert(name, index);
    }
    let mut kept: Vec<usize> = last.into_values().collect();
    kept.sort_unstable();
    let mut env: Vec<String> = kept
        .into_iter()
        .map(|index| entries[index].clone())
        .collect();
    if flags.listen_fds > 0 {
        env.retain(|entry| !entry.starts_with("LISTEN_FDS=") && !entry.starts_with("LISTEN_PID="));
        env.push(format!("LISTEN_FDS={}", flags.listen_fds));
        env.push("LISTEN_PID=1".to_string());
    }
    if flags.has_notify_socket {
        env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
        env.push(format!("NOTIFY_SOCKET={}", notify_socket::PATH));
    }
    strings(&env, "process.env")
}

/// A descriptor's number is an int, and the first three are the standard streams.
fn preserved(flags: &Flags) -> Result<u32> {
    let count = flags.listen_fds.checked_add(flags.preserve_fds);
    let count = count.filter(|count| *count <= i32::MAX as u32 - 3);
    count.context("--preserve-fds: no process can have so many descriptors")
}

fn terminal(spec: &Spec) -> Result<Option<Terminal>> {
    if spec.terminal() != Some(true) {
        return Ok(None);
    }
    let size = spec.console_size().unwrap_or_default();
    let number = |name: &str, value: u64| {
        u16::try_from(value)
            .with_context(|| format!("process.consoleSize.{name}: {value}: must be at most 65535"))
    };
    Ok(Some(Terminal {
        height: number("height", size.height())?,
        width: number("width", size.width())?,
    }))
}

/// NGROUPS_MAX (setgroups(2)).
const MAX_GROUPS: usize = 65536;

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
    ensure!(
        groups.len() <= MAX_GROUPS,
        "process.user.additionalGids: has {} groups; the kernel takes at most {MAX_GROUPS}",
        groups.len()
    );
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
    let bounding = set(LinuxCapabilities::bounding);
    Ok(Identity {
        uid: user.uid(),
        gid: user.gid(),
        groups: (!keep && !namespaces.deny_setgroups).then_some(groups),
        bounding,
        sets: Sets {
            effective: set(LinuxCapabilities::effective),
            permitted: set(LinuxCapabilities::permitted),
            // capset(2) refuses what is not in the bounding set too.
            inheritable: set(LinuxCapabilities::inheritable) & bounding,
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
    let unfounded = spec.capabilities().as_ref().map_or(0, unfounded);
    let mut missing = capability_names(wanted & !owned | unfounded);
    missing.extend(bundle.unknown_capabilities.iter().cloned());
    let warning = |name: String| format!("process.capabilities: {name}: cannot be granted here");
    missing.into_iter().map(warning).collect()
}

/// What the kernel keeps out of a set because another set has not got it (capabilities(7)).
fn unfounded(sets: &LinuxCapabilities) -> u64 {
    let permitted = mask(sets.permitted());
    let inheritable = mask(sets.inheritable()) & mask(sets.bounding());
    let effective = mask(sets.effective()) & !permitted;
    let ambient = mask(sets.ambient()) & !(permitted & inheritable);
    mask(sets.inheritable()) & !inheritable | effective | ambient
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
        PosixRlimitType::RlimitAs => ("RLIMIT_AS", libc::RLIMIT_AS as _),
        PosixRlimitType::RlimitCore => ("RLIMIT_CORE", libc::RLIMIT_CORE as _),
        PosixRlimitType::RlimitCpu => ("RLIMIT_CPU", libc::RLIMIT_CPU as _),
        PosixRlimitType::RlimitData => ("RLIMIT_DATA", libc::RLIMIT_DATA as _),
        PosixRlimitType::RlimitFsize => ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE as _),
        PosixRlimitType::RlimitLocks => ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS as _),
        PosixRlimitType::RlimitMemlock => ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK as _),
        PosixRlimitType::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE as _),
        PosixRlimitType::RlimitNice => ("RLIMIT_NICE", libc::RLIMIT_NICE as _),
        PosixRlimitType::RlimitNofile => ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE as _),
        PosixRlimitType::RlimitNproc => ("RLIMIT_NPROC", libc::RLIMIT_NPROC as _),
        PosixRlimitType::RlimitRss => ("RLIMIT_RSS", libc::RLIMIT_RSS as _),
        PosixRlimitType::RlimitRtprio => ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO as _),
        PosixRlimitType::RlimitRttime => ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME as _),
        PosixRlimitType::RlimitSigpending => ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING as _),
        PosixRlimitType::RlimitStack => ("RLIMIT_STACK", libc::RLIMIT_STACK as _),
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
    let umask = user.umask().unwrap_or(UMASK);
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
            writeln!(f, "AppArmor profile {}", log::printable(profile))?;
        }
        if let Some(label) = &self.labels.selinux {
            writeln!(f, "SELinux label {}", log::printable(label))?;
        }
        self.scheduling.fmt(f)?;
        writeln!(f, "umask {:04o}", self.umask)?;
        writeln!(f, "cwd {}", log::printable(&self.cwd.to_string_lossy()))?;
        if self.preserve_fds > 0 {
            writeln!(f, "keep {} descriptors from 3 on", self.preserve_fds)?;
        }
        if let Some(filter) = &self.seccomp {
            writeln!(f, "{filter}")?;
        }
        for entry in &self.env {
            writeln!(f, "env {}", log::printable(&entry.to_string_lossy()))?;
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::tests::{
        self as fixture, assert_faults, bundle, host, plan, plan_for, user_namespace, users_host,
    };

    fn of(pointer: &str, value: Value) -> Process {
        plan(&[(pointer, value)]).process
    }

    fn words(list: &[CString]) -> Vec<&str> {
        list.iter().map(|text| text.to_str().unwrap()).collect()
    }

    #[test]
    fn of_a_variable_given_twice_the_last_value_counts() {
        let env = of("/process/env", json!(["A=1", "B=2", "A=3", "AB=", "C=x=y"])).env;
        assert_eq!(words(&env), ["B=2", "A=3", "AB=", "C=x=y"]);
    }

    #[test]
    fn socket_activation_is_told_anew() {
        let bundle = bundle(&[(
            "/process/env",
            json!(["LISTEN_FDS=9", "LISTEN_PID=7", "LISTEN_FDNAMES=a"]),
        )]);
        let namespaces = Namespaces::default();
        let flags = |listen_fds, preserve_fds| Flags {
            listen_fds,
            preserve_fds,
            ..fixture::flags()
        };
        let process = super::process(&bundle, &namespaces, &host(), &flags(2, 3)).unwrap();
        assert_eq!(
            words(&process.env),
            ["LISTEN_FDNAMES=a", "LISTEN_FDS=2", "LISTEN_PID=1"]
        );
        assert_eq!(process.preserve_fds, 5);
        for (listen, preserve) in [(u32::MAX, 1), (0, u32::MAX), (0, i32::MAX as u32 - 2)] {
            let error = super::process(&bundle, &namespaces, &host(), &flags(listen, preserve))
                .unwrap_err();
            assert!(error.to_string().starts_with("--preserve-fds: "), "{error}");
        }
    }

    #[test]
    fn faults_name_the_field() {
        let limit = |soft: u64| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": 10});
        assert_faults(&[
            ("/process/args", json!([]), "process.args: empty"),
            (
                "/process/args",
                json!(["a", "b\0"]),
                "process.args[1]: \"b\\0\": contains a NUL byte",
            ),
            (
                "/process/env",
                json!(["A=1", "B"]),
                "process.env[1]: \"B\": must be NAME=value",
            ),
            (
                "/process/env",
                json!(["=B"]),
                "process.env[0]: \"=B\": must be NAME=value",
            ),
            (
                "/process/cwd",
                json!("tmp"),
                "process.cwd: \"tmp\": must be absolute",
            ),
            (
                "/process/user",
                json!({"uid": u32::MAX, "gid": 0}),
                "process.user.uid: 4294967295: is no id",
            ),
            (
                "/process/user",
                json!({"uid": 0, "gid": u32::MAX}),
                "process.user.gid: 4294967295: is no id",
            ),
            (
                "/process/user/umask",
                json!(0o1000),
                "process.user.umask: 512: must be at most 511",
            ),
            (
                "/process/rlimits",
                json!([limit(1), limit(2)]),
                "process.rlimits[1].type: RLIMIT_NOFILE: listed twice",
            ),
            (
                "/process/rlimits",
                json!([limit(11)]),
                "process.rlimits[0].soft: 11: must not be above hard, 10",
            ),
            (
                "/process/oomScoreAdj",
                json!(1001),
                "process.oomScoreAdj: 1001: must be from",
            ),
            (
                "/process/oomScoreAdj",
                json!(-1001),
                "process.oomScoreAdj: -1001: must be from",
            ),
        ]);
    }

    #[test]
    fn a_terminal_has_the_size_of_the_config() {
        let terminal = |size: Value, wanted: bool| {
            plan_for(
                &host(),
                &[
                    ("/process/terminal", json!(wanted)),
                    ("/process/consoleSize", size),
                ],
            )
            .map(|plan| {
                plan.process
                    .terminal
                    .map(|terminal| (terminal.height, terminal.width))
            })
        };
        let size = json!({"height": 24, "width": 80});
        assert_eq!(terminal(size.clone(), true).unwrap(), Some((24, 80)));
        assert_eq!(terminal(size, false).unwrap(), None);
        let size = json!({"height": 24, "width": 65616});
        let error = terminal(size.clone(), true).unwrap_err().to_string();
        assert_eq!(
            error,
            "process.consoleSize.width: 65616: must be at most 65535"
        );
        assert!(terminal(size, false).is_ok());
    }

    #[test]
    fn absent_capabilities_are_none() {
        for capabilities in [None, Some(json!({}))] {
            let change = capabilities.map(|value| ("/process/capabilities", value));
            let identity = plan(change.as_slice()).process.identity;
            let Identity {
                bounding,
                sets,
                ambient,
                ..
            } = identity;
            assert_eq!((bounding, sets, ambient), (0, Sets::default(), 0));
        }
    }

    #[test]
    fn each_set_has_what_is_listed_for_it() {
        let process = of(
            "/process/capabilities",
            json!({
                "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_CHECKPOINT_RESTORE"],
                "effective": ["CAP_CHOWN"],
                "permitted": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"],
                "ambient": ["CAP_NET_ADMIN"],
            }),
        );
        let (chown, kill) = (1 << 0, 1 << 5);
        let identity = process.identity;
        assert_eq!(identity.bounding, chown | kill | 1 << 40);
        assert_eq!(
            identity.sets,
            Sets {
                effective: chown,
                permitted: kill,
                inheritable: kill
            }
        );
        assert_eq!(identity.ambient, 1 << 12);
        assert_eq!(
            capability_names(chown | 1 << 40),
            ["CAP_CHOWN", "CAP_CHECKPOINT_RESTORE"]
        );
    }

    #[test]
    fn what_cannot_be_granted_is_left_out_with_a_warning() {
        let capabilities = |host: &Host, changes: fixture::Changes| {
            let config = (
                "/process/capabilities",
                json!({
                    "bounding": ["CAP_KILL", "CAP_FUTURE"],
                    "inheritable": ["CAP_KILL", "CAP_CHOWN"],
                }),
            );
            let plan = plan_for(host, &[&[config], changes].concat()).unwrap();
            (plan.process.identity.sets.inheritable, plan.warnings)
        };
        let warning = |name: &str| format!("process.capabilities: {name}: cannot be granted here");
        let (inheritable, warnings) = capabilities(&host(), &[]);
        assert_eq!(inheritable, 1 << 5);
        assert_eq!(warnings, [warning("CAP_CHOWN"), warning("CAP_FUTURE")]);
        let (_, warnings) = capabilities(&users_host(), &[]);
        assert_eq!(
            warnings,
            ["CAP_CHOWN", "CAP_KILL", "CAP_FUTURE"].map(warning)
        );
        let (_, warnings) = capabilities(&users_host(), &user_namespace());
        assert_eq!(warnings, ["CAP_CHOWN", "CAP_FUTURE"].map(warning));
    }

    #[test]
    fn what_another_set_keeps_away_is_warned_of() {
        let warnings = |sets: Value| plan(&[("/process/capabilities", sets)]).warnings;
        let kill = json!(["CAP_KILL"]);
        let warned = ["process.capabilities: CAP_KILL: cannot be granted here"];
        for sets in [
            json!({"bounding": kill, "effective": kill}),
            json!({"bounding": kill, "permitted": kill, "ambient": kill}),
            json!({"bounding": kill, "inheritable": kill, "ambient": kill}),
            json!({"permitted": kill, "inheritable": kill, "ambient": kill}),
        ] {
            assert_eq!(warnings(sets.clone()), warned, "{sets}");
        }
        let all = json!({"bounding": kill, "permitted": kill, "inheritable": kill,
            "effective": kill, "ambient": kill});
        assert!(warnings(all).is_empty());
    }

    #[test]
    fn groups_are_those_of_the_config_unless_the_callers_are_to_be_kept() {
        let groups = |changes: fixture::Changes| plan(changes).process.identity.groups;
        let listed = ("/process/user/additionalGids", json!([5, 6]));
        assert_eq!(groups(&[]), Some(vec![]));
        assert_eq!(groups(std::slice::from_ref(&listed)), Some(vec![5, 6]));
        for (value, kept) in [("1", true), ("true", true), ("0", false), ("false", false)] {
            let annotation = (
                "/annotations",
                json!({"run.oci.keep_original_groups": value}),
            );
            assert_eq!(groups(&[annotation]).is_none(), kept, "{value}");
        }
        let map = |id| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        let single = [
            ("/linux/namespaces/-", json!({"type": "user"})),
            ("/linux/uidMappings", map(1000)),
            ("/linux/gidMappings", map(1001)),
        ];
        let plan = plan_for(&users_host(), &single).unwrap();
        assert_eq!(plan.process.identity.groups, None);
        let error = plan_for(&users_host(), &[&single[..], &[listed]].concat()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("process.user.additionalGids: [5, 6]: "),
            "{error}"
        );
    }

    #[test]
    fn limits_have_the_numbers_of_this_architecture() {
        let limits = of(
            "/process/rlimits",
            json!([
                {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2},
                {"type": "RLIMIT_RTTIME", "soft": 3, "hard": u64::MAX},
            ]),
        )
        .rlimits;
        let values = limits
            .iter()
            .map(|limit| (limit.resource, limit.soft, limit.hard));
        let expected: [(u32, u64, u64); 2] = [
            (libc::RLIMIT_NOFILE as _, 1, 2),
            (libc::RLIMIT_RTTIME as _, 3, u64::MAX),
        ];
        assert_eq!(values.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn defaults_are_safe_ones() {
        let process = plan(&[]).process;
        assert_eq!(process.umask, 0o022);
        assert_eq!(process.oom_score_adj, None);
        assert_eq!(process.keyring.as_deref(), Some("_ses.c"));
        assert!(!process.identity.no_new_privileges && process.terminal.is_none());
        assert_eq!(of("/process/user/umask", json!(0o27)).umask, 0o27);
        assert!(
            of("/process/noNewPrivileges", json!(true))
                .identity
                .no_new_privileges
        );
        assert!(
            !of("/process/noNewPrivileges", json!(false))
                .identity
                .no_new_privileges
        );
    }

    #[test]
    fn without_a_process_there_is_nothing_to_run() {
        let process = of("/process", Value::Null);
        assert!(process.args.is_empty());
        assert_eq!(process.cwd, PathBuf::from("/"));
    }

    #[test]
    fn labels_that_change_nothing_are_none() {
        for (profile, planned) in [("", None), ("unconfined", None), ("p", Some("p"))] {
            let labels = of("/process/apparmorProfile", json!(profile)).labels;
            assert_eq!(labels.apparmor.as_deref(), planned);
        }
        assert_eq!(of("/process/selinuxLabel", json!("")).labels.selinux, None);
        assert_eq!(
            of("/process/selinuxLabel", json!("l"))
                .labels
                .selinux
                .as_deref(),
            Some("l")
        );
    }
}
