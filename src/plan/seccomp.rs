//! `linux.seccomp` -> the filter that init loads right before it runs the container's program.
//!
//! Run by the parent: checks the spec and compiles it. `architecture` resolves names with
//! libseccomp's tables, `table` decides for every system call number what becomes of it, and `bpf`
//! writes the instructions. Must not load anything: the child gets the finished program, and never
//! calls libseccomp.

mod architecture;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use serde::{Deserialize, Serialize};

pub use self::architecture::supported as supported_architectures;
use self::architecture::{Architecture, architectures};
use self::table::{BAD_ARCHITECTURE, Table, sections};
use super::bpf::{self, Compare, Test};
pub use crate::sys::seccomp::Instruction;

/// What init hands to seccomp(2).
#[derive(Debug, Serialize, Deserialize)]
pub struct Filter {
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`, with those that the listener needs.
    pub flags: u32,
    /// The spec asked for no flags: a kernel that refuses SPEC_ALLOW is asked again without it.
    pub flags_optional: bool,
    /// Set if a rule has SCMP_ACT_NOTIFY.
    pub notify: Option<Notify>,
    /// What the profile says, in a few words.
    pub outline: String,
}

impl Filter {
    /// The flags that a kernel may refuse, and is asked again without.
    pub fn optional_flags(&self) -> u32 {
        if self.flags_optional { SPEC_ALLOW } else { 0 }
    }

    /// The flags for a process whose calls no agent answers. There SCMP_ACT_NOTIFY is the errno ENOSYS (seccomp(2),
    /// SECCOMP_RET_USER_NOTIF). The kernel refuses WAIT_KILLABLE_RECV without a listener.
    pub fn flags_without_listener(&self) -> u32 {
        self.flags & !(NEW_LISTENER | WAIT_KILLABLE_RECV)
    }
}

/// Who gets the listener's descriptor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Notify {
    pub listener_path: PathBuf,
    pub metadata: String,
}

pub fn compile(seccomp: &LinuxSeccomp) -> Result<Filter> {
    let default = value(
        seccomp.default_action(),
        seccomp.default_errno_ret(),
        "linux.seccomp.defaultErrnoRet",
    )?;
    let notify = notify(seccomp)?;
    let architectures = architectures(seccomp)?;
    let entries = entries(seccomp)?;
    let mut tables = Vec::new();
    for architecture in &architectures {
        tables.push(Table::new(architecture, &entries, default)?);
    }
    let sections = sections(&tables, default);
    let program = bpf::program(&sections, BAD_ARCHITECTURE).context("linux.seccomp")?;
    Ok(Filter {
        program,
        flags: flags(seccomp, notify.is_some()),
        flags_optional: seccomp.flags().is_none(),
        notify,
        outline: outline(seccomp, default, &architectures),
    })
}

/// Actions of the spec.
pub const ACTIONS: &[(Action, &str)] = &[
    (Action::ScmpActAllow, "SCMP_ACT_ALLOW"),
    (Action::ScmpActErrno, "SCMP_ACT_ERRNO"),
    (Action::ScmpActKill, "SCMP_ACT_KILL"),
    (Action::ScmpActKillProcess, "SCMP_ACT_KILL_PROCESS"),
    (Action::ScmpActKillThread, "SCMP_ACT_KILL_THREAD"),
    (Action::ScmpActLog, "SCMP_ACT_LOG"),
    (Action::ScmpActNotify, "SCMP_ACT_NOTIFY"),
    (Action::ScmpActTrace, "SCMP_ACT_TRACE"),
    (Action::ScmpActTrap, "SCMP_ACT_TRAP"),
];

/// Operators of the spec.
pub const OPERATORS: &[(Operator, &str)] = &[
    (Operator::ScmpCmpEq, "SCMP_CMP_EQ"),
    (Operator::ScmpCmpGe, "SCMP_CMP_GE"),
    (Operator::ScmpCmpGt, "SCMP_CMP_GT"),
    (Operator::ScmpCmpLe, "SCMP_CMP_LE"),
    (Operator::ScmpCmpLt, "SCMP_CMP_LT"),
    (Operator::ScmpCmpMaskedEq, "SCMP_CMP_MASKED_EQ"),
    (Operator::ScmpCmpNe, "SCMP_CMP_NE"),
];

/// Flags of the spec.
pub const FLAGS: &[(Flag, &str)] = &[
    (Flag::SeccompFilterFlagLog, "SECCOMP_FILTER_FLAG_LOG"),
    (
        Flag::SeccompFilterFlagSpecAllow,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    ),
    (Flag::SeccompFilterFlagTsync, "SECCOMP_FILTER_FLAG_TSYNC"),
    (
        Flag::SeccompFilterFlagWaitKillableRecv,
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ),
];

/// The value a filter returns for an action; the low 16 bits are data (the errno, or the tracer's word).
fn value(action: Action, errno: Option<u32>, field: &str) -> Result<u32> {
    let takes_errno = matches!(action, Action::ScmpActErrno | Action::ScmpActTrace);
    if let Some(errno) = errno {
        ensure!(
            takes_errno,
            "{field}: {errno}: {action} returns no errno, only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do"
        );
        ensure!(
            errno <= libc::SECCOMP_RET_DATA,
            "{field}: {errno}: must be at most {}",
            libc::SECCOMP_RET_DATA
        );
    }
    let data = if takes_errno {
        errno.unwrap_or(libc::EPERM as u32)
    } else {
        0
    };
    Ok(kernel_action(action) | data)
}

fn kernel_action(action: Action) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO,
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE,
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    }
}

fn notify(seccomp: &LinuxSeccomp) -> Result<Option<Notify>> {
    let listener_path = seccomp.listener_path().clone();
    let listener_path = listener_path.filter(|path| !path.as_os_str().is_empty());
    let metadata = seccomp.listener_metadata().clone().unwrap_or_default();
    ensure!(
        listener_path.is_some() || metadata.is_empty(),
        "linux.seccomp.listenerMetadata: {metadata:?}: must not be set without linux.seccomp.listenerPath"
    );
    // Init hands the listener over with the filter in force: nobody would answer for it yet.
    ensure!(
        seccomp.default_action() != Action::ScmpActNotify,
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY: cannot be the default, it would hold the hand-over of the listener"
    );
    let asks = |syscall: &LinuxSyscall| syscall.action() == Action::ScmpActNotify;
    let entries = seccomp.syscalls().iter().flatten().enumerate();
    let asking: Vec<_> = entries.filter(|(_, syscall)| asks(syscall)).collect();
    for (index, syscall) in &asking {
        ensure!(
            !syscall.names().iter().any(|name| name == "write"),
            "linux.seccomp.syscalls[{index}]: write: cannot have SCMP_ACT_NOTIFY, it would hold the hand-over of the listener"
        );
    }
    if asking.is_empty() {
        return Ok(None);
    }
    let listener_path = listener_path
        .context("linux.seccomp.listenerPath: missing; SCMP_ACT_NOTIFY needs an agent's socket")?;
    Ok(Some(Notify {
        listener_path,
        metadata,
    }))
}

const TSYNC: u32 = libc::SECCOMP_FILTER_FLAG_TSYNC as u32;
const SPEC_ALLOW: u32 = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as u32;
const NEW_LISTENER: u32 = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as u32;
const WAIT_KILLABLE_RECV: u32 = libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV as u32;

/// A filter without flags would switch on the costly mitigation of speculative store bypass
/// (prctl(2), PR_SPEC_STORE_BYPASS) on kernels before 5.16: SPEC_ALLOW is the default.
fn flags(seccomp: &LinuxSeccomp, listens: bool) -> u32 {
    let mut flags = match seccomp.flags() {
        Some(listed) => listed
            .iter()
            .fold(0, |flags, flag| flags | kernel_flag(*flag)),
        None => SPEC_ALLOW,
    };
    if listens {
        flags |= NEW_LISTENER;
    } else {
        // The kernel refuses it without a listener, and there is nothing to wait for.
        flags &= !WAIT_KILLABLE_RECV;
    }
    // There is one thread, but for the one that hands the listener over, which the filter must not bind.
    if listens {
        flags &= !TSYNC;
    }
    flags
}

fn kernel_flag(flag: Flag) -> u32 {
    match flag {
        Flag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG as u32,
        Flag::SeccompFilterFlagTsync => TSYNC,
        Flag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
        Flag::SeccompFilterFlagWaitKillableRecv => WAIT_KILLABLE_RECV,
    }
}

/// An entry of `linux.seccomp.syscalls`.
struct Entry<'a> {
    field: String,
    names: &'a [String],
    action: u32,
    /// Conjunctions of tests of which one must hold.
    alternatives: Vec<Vec<Test>>,
}

fn entries(seccomp: &LinuxSeccomp) -> Result<Vec<Entry<'_>>> {
    let mut entries = Vec::new();
    for (index, syscall) in seccomp.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{index}]");
        entries.push(entry(syscall, field)?);
    }
    Ok(entries)
}

fn entry(syscall: &LinuxSyscall, field: String) -> Result<Entry<'_>> {
    ensure!(
        !syscall.names().is_empty(),
        "{field}.names: empty; give at least one"
    );
    let errno_field = format!("{field}.errnoRet");
    let action = value(syscall.action(), syscall.errno_ret(), &errno_field)?;
    let args = syscall.args().as_deref().unwrap_or_default();
    Ok(Entry {
        alternatives: alternatives(args, &field)?,
        field,
        names: syscall.names(),
        action,
    })
}

/// All arguments must match; but where one index is named twice, each of them is enough: no value
/// could equal two others, and profiles list several values of one argument this way.
fn alternatives(args: &[LinuxSeccompArg], field: &str) -> Result<Vec<Vec<Test>>> {
    let mut tests = Vec::new();
    for (index, arg) in args.iter().enumerate() {
        let asked = arg.index();
        ensure!(
            asked < 6,
            "{field}.args[{index}].index: {asked}: must be 0 to 5"
        );
        tests.push(test(arg));
    }
    tests.sort_by_key(|test| test.index);
    if tests.windows(2).any(|pair| pair[0].index == pair[1].index) {
        return Ok(tests.into_iter().map(|test| vec![test]).collect());
    }
    Ok(vec![tests])
}

fn test(arg: &LinuxSeccompArg) -> Test {
    let (compare, negated) = match arg.op() {
        Operator::ScmpCmpEq | Operator::ScmpCmpMaskedEq => (Compare::Equal, false),
        Operator::ScmpCmpNe => (Compare::Equal, true),
        Operator::ScmpCmpGt => (Compare::Greater, false),
        Operator::ScmpCmpLe => (Compare::Greater, true),
        Operator::ScmpCmpGe => (Compare::GreaterOrEqual, false),
        Operator::ScmpCmpLt => (Compare::GreaterOrEqual, true),
    };
    let (mask, value) = match arg.op() {
        Operator::ScmpCmpMaskedEq => (arg.value(), arg.value_two().unwrap_or(0)),
        _ => (u64::MAX, arg.value()),
    };
    Test {
        index: arg.index() as u8,
        compare,
        negated,
        mask,
        value: value & mask,
        wide: true,
    }
}

fn outline(seccomp: &LinuxSeccomp, default: u32, architectures: &[Architecture]) -> String {
    let names = seccomp
        .syscalls()
        .iter()
        .flatten()
        .map(|syscall| syscall.names().len());
    let named: usize = names.sum();
    let architectures: Vec<&str> = architectures
        .iter()
        .map(|architecture| architecture.name.trim_start_matches("SCMP_ARCH_"))
        .collect();
    let action = seccomp.default_action().to_string();
    let mut text = format!(
        "{named} syscalls on {}, otherwise {}",
        architectures.join("+"),
        action.trim_start_matches("SCMP_ACT_")
    );
    if default & libc::SECCOMP_RET_DATA != 0 {
        text += &format!(" {}", default & libc::SECCOMP_RET_DATA);
    }
    text
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(
            f,
            "seccomp: {}; {} instructions",
            self.outline,
            self.program.len()
        )?;
        for (flag, name) in FLAGS {
            if self.flags & kernel_flag(*flag) != 0 {
                write!(f, ", {}", name.trim_start_matches("SECCOMP_FILTER_FLAG_"))?;
            }
        }
        match &self.notify {
            Some(notify) => write!(f, ", listener {:?}", notify.listener_path),
            None => Ok(()),
        }
    }
}
