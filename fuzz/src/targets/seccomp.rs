//! Seccomp profiles: the filter answers as the profile says, for its own calls, their neighbours, and arguments around its values.

use libseccomp::{ScmpArch, ScmpSyscall};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg,
    LinuxSeccompOperator as Operator, LinuxSyscall,
};

use super::cbpf::{Data, run};
use cofferdam::plan::seccomp::compile;

const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const X32_BIT: u32 = 0x4000_0000;

pub fn seccomp(data: &[u8]) {
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(data) else {
        return;
    };
    let Ok(filter) = compile(&profile) else {
        return;
    };
    assert!(filter.program.len() <= libc::BPF_MAXINSNS as usize);
    let numbers = numbers(&profile);
    let newest = numbers.iter().map(|(number, _)| *number).max();
    let pool = boundaries(&profile);
    // Which values meet depends on the bytes alone.
    let mut at = data.len();
    let mut value = || {
        at = at.wrapping_mul(31).wrapping_add(7);
        pool[at / 8 % pool.len()]
    };
    let mut asked: Vec<u32> = numbers
        .iter()
        .flat_map(|(number, _)| [*number, number + 1])
        .collect();
    asked.extend([0, 335, X32_BIT - 1]);
    asked.sort_unstable();
    asked.dedup();
    for number in asked {
        for _ in 0..4 {
            let data = Data {
                number,
                audit: Arch::ScmpArchX86_64 as u32,
                args: [0; 6].map(|_| value()),
            };
            let answer = run(&filter.program, &data);
            let right = answers(&profile, &numbers, newest, &data);
            assert!(
                right.contains(&answer),
                "{data:x?}: {answer:#x}, not of {right:#x?}"
            );
        }
    }
    for audit in [
        Arch::ScmpArchX86,
        Arch::ScmpArchAarch64,
        Arch::ScmpArchS390x,
    ]
    .map(|arch| arch as u32)
    {
        for number in [0, 102, 117, u32::MAX] {
            let args = [0; 6].map(|_| value());
            run(
                &filter.program,
                &Data {
                    number,
                    audit,
                    args,
                },
            );
        }
    }
}

/// The numbers of all names that x86_64 has.
fn numbers(profile: &LinuxSeccomp) -> Vec<(u32, &str)> {
    let names = profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|syscall| syscall.names());
    let number = |name: &'_ str| {
        let resolved = ScmpSyscall::from_name_by_arch(name, ScmpArch::X8664).ok()?;
        u32::try_from(i32::from(resolved)).ok()
    };
    names
        .filter_map(|name| Some((number(name)?, name.as_str())))
        .collect()
}

/// What the filter may answer to a call of x86_64. Which of several rules that hold wins is as in libseccomp, and another test's matter;
/// but the first without a condition beats those with one, and what the default does is no rule.
fn answers(
    profile: &LinuxSeccomp,
    numbers: &[(u32, &str)],
    newest: Option<u32>,
    data: &Data,
) -> Vec<u32> {
    let default = value(profile.default_action(), profile.default_errno_ret());
    let permits = [
        Action::ScmpActAllow,
        Action::ScmpActLog,
        Action::ScmpActTrace,
    ];
    if newest.is_some_and(|newest| data.number > newest)
        && !permits.contains(&profile.default_action())
    {
        return vec![NO_SUCH_CALL];
    }
    let names: Vec<&str> = numbers
        .iter()
        .filter(|(number, _)| *number == data.number)
        .map(|(_, name)| *name)
        .collect();
    let concerns = |syscall: &&LinuxSyscall| {
        syscall
            .names()
            .iter()
            .any(|name| names.contains(&name.as_str()))
            && value(syscall.action(), syscall.errno_ret()) != default
    };
    let rules: Vec<&LinuxSyscall> = profile
        .syscalls()
        .iter()
        .flatten()
        .filter(concerns)
        .collect();
    let action = |rule: &&LinuxSyscall| value(rule.action(), rule.errno_ret());
    if let Some(rule) = rules.iter().find(|rule| holds(rule, None)) {
        return vec![action(rule)];
    }
    let found: Vec<u32> = rules
        .iter()
        .filter(|rule| holds(rule, Some(data)))
        .map(action)
        .collect();
    if found.is_empty() {
        vec![default]
    } else {
        found
    }
}

fn value(action: Action, errno: Option<u32>) -> u32 {
    let errno = errno.unwrap_or(libc::EPERM as u32);
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        Action::ScmpActErrno => libc::SECCOMP_RET_ERRNO | errno,
        Action::ScmpActNotify => libc::SECCOMP_RET_USER_NOTIF,
        Action::ScmpActTrace => libc::SECCOMP_RET_TRACE | errno,
        Action::ScmpActLog => libc::SECCOMP_RET_LOG,
        Action::ScmpActAllow => libc::SECCOMP_RET_ALLOW,
    }
}

/// Whether a rule holds for a call, or without one: for every call. One argument that is named twice makes alternatives of all.
pub fn holds(rule: &LinuxSyscall, data: Option<&Data>) -> bool {
    let args = rule.args().as_deref().unwrap_or_default();
    let holds = |arg: &LinuxSeccompArg| match data {
        Some(data) => compare(arg, data),
        None => arg.op() == Operator::ScmpCmpMaskedEq && arg.value() == 0,
    };
    let twice = |arg: &LinuxSeccompArg| {
        args.iter()
            .filter(|other| other.index() == arg.index())
            .count()
            > 1
    };
    match args.iter().any(twice) {
        true => args.iter().any(holds),
        false => args.iter().all(holds),
    }
}

fn compare(arg: &LinuxSeccompArg, data: &Data) -> bool {
    // Calls of 32 bits have no more to compare.
    let counts = match data.audit == Arch::ScmpArchX86 as u32 {
        true => 0xffff_ffff,
        false => u64::MAX,
    };
    let (given, value) = (data.args[arg.index()] & counts, arg.value() & counts);
    match arg.op() {
        Operator::ScmpCmpEq => given == value,
        Operator::ScmpCmpNe => given != value,
        Operator::ScmpCmpLt => given < value,
        Operator::ScmpCmpLe => given <= value,
        Operator::ScmpCmpGt => given > value,
        Operator::ScmpCmpGe => given >= value,
        Operator::ScmpCmpMaskedEq => given & value == arg.value_two().unwrap_or(0) & value,
    }
}

/// Values at, next to and half like those that the profile compares with.
pub fn boundaries(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut pool = vec![0, 1, 0xffff_ffff, 1 << 32, u64::MAX];
    let args = profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|syscall| syscall.args())
        .flatten();
    for arg in args {
        for value in [arg.value(), arg.value_two().unwrap_or(arg.value())] {
            pool.extend([
                value,
                value.wrapping_sub(1),
                value.wrapping_add(1),
                value ^ 1 << 32,
            ]);
            pool.extend([
                value & 0xffff_ffff,
                value | !0 << 32,
                !value,
                value & value >> 1,
            ]);
        }
    }
    pool
}
