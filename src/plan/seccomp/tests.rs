//! The filter against libseccomp's: both programs are interpreted, for every number of a system
//! call, each architecture and arguments around those of the profile.
//!
//! libseccomp 2.5 answers rightly for all that real profiles do. But where a rule of several
//! arguments stands beside others of the same call it may go on with the wrong argument loaded, it
//! mixes up several LT and LE, and it never ends for some orders of several arguments. There a
//! model of the spec is the judge.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::Arch;
use serde_json::{Value, json};

use super::architecture::ARCHITECTURES;
use super::*;
use crate::plan::oracle::cbpf::{Data, call, run};
use crate::plan::oracle::seccomp::{boundaries, holds};

const KILL: u32 = 0;
const ALLOW: u32 = 0x7fff_0000;
const ENOSYS: u32 = 0x0005_0026;
const EPERM: u32 = 0x0005_0001;

#[test]
fn engines_profiles_are_libseccomps() {
    for engine in ["docker", "podman", "containerd"] {
        let profile = engine_profile(engine);
        let differences = compare(&profile, &mut Random::seed(1));
        assert_eq!(differences, [""; 0], "{engine}");
    }
}

#[test]
fn a_filter_comes_out_of_a_record_as_it_went_in() {
    for engine in ["docker", "podman", "containerd"] {
        let filter = compile(&engine_profile(engine)).unwrap();
        let text = serde_json::to_string(&filter).unwrap();
        let read: Filter = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{read:?}"), format!("{filter:?}"), "{engine}");
    }
}

#[test]
fn random_profiles_are_libseccomps() {
    let names: Vec<String> = names_of(ScmpArch::Native).into_values().collect();
    for seed in 1..=300 {
        let mut random = Random::seed(seed);
        let profile = random_profile(&mut random, &names, Kind::Sound);
        let differences = compare(&profile, &mut random);
        assert_eq!(differences, [""; 0], "seed {seed}: {}", print(&profile));
    }
}

#[test]
fn random_profiles_do_what_they_say() {
    let names = ["read", "mmap", "clone", "personality"].map(String::from);
    for seed in 1..=1500 {
        let mut random = Random::seed(seed);
        let profile = random_profile(&mut random, &names, Kind::Any);
        let program = compile(&profile).unwrap().program;
        let pool = boundaries(&profile);
        for _ in 0..60 {
            let (audit, name) = (random.pick(&[X86_64, X86]), random.pick(&[0, 1, 2, 3]));
            let number = match audit {
                X86_64 => [0, 9, 56, 135][name],
                _ => [3, 90, 120, 136][name],
            };
            let data = Data {
                number,
                audit,
                args: [0; 6].map(|_| random.pick(&pool)),
            };
            assert_eq!(
                run(&program, &data),
                model(&profile, &names[name], &data),
                "seed {seed}: {data:x?}: {}",
                print(&profile)
            );
        }
    }
}

/// Calls behind socketcall(2) and ipc(2) keep the tests of all arguments but the first.
#[test]
fn multiplexed_calls_are_libseccomps() {
    let arg = |index, op, value| json!([{"index": index, "value": value, "op": op}]);
    let spec = json!({"defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_MIPSEL"],
        "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_LOG", "args": arg(1, "SCMP_CMP_NE", 5)},
            {"names": ["accept", "recvmmsg", "shmget"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["bind"], "action": "SCMP_ACT_TRAP", "args": arg(0, "SCMP_CMP_EQ", 40)},
            {"names": ["semop"], "action": "SCMP_ACT_LOG", "args": arg(2, "SCMP_CMP_NE", 1)}]});
    let profile = profile(spec);
    assert_eq!(compare(&profile, &mut Random::seed(3)), [""; 0]);
    let program = compile(&profile).unwrap().program;
    let socketcall = |args| {
        run(
            &program,
            &Data {
                args,
                ..call(X86, 102)
            },
        )
    };
    assert_eq!(socketcall([1, 6, 0, 0, 0, 0]), 0x7ffc_0000);
    assert_eq!(socketcall([1, 5, 0, 0, 0, 0]), EPERM);
    assert_eq!(socketcall([2, 5, 0, 0, 0, 0]), 0x0003_0000);
    assert_eq!(socketcall([3, 6, 0, 0, 0, 0]), EPERM);
}

/// Each architecture of libseccomp, beside the native one.
#[test]
fn every_architecture_is_libseccomps() {
    for (_, name) in ARCHITECTURES.iter().filter(|(_, name)| is_known(name)) {
        let mut profile = engine_profile("docker");
        profile.set_architectures(Some(vec![name.parse().unwrap()]));
        let differences = compare(&profile, &mut Random::seed(7));
        assert_eq!(differences, [""; 0], "{name}");
    }
}

/// Above the newest call that the profile names, also on the native architecture, listed or not.
#[test]
fn unknown_calls_get_enosys() {
    let denying = profile(json!({"defaultAction": "SCMP_ACT_KILL_PROCESS",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [{"names": ["read", "openat2", "no_such_call"], "action": "SCMP_ACT_ALLOW"}]}));
    let program = compile(&denying).unwrap().program;
    let answer = |audit, number| run(&program, &call(audit, number));
    for audit in [X86_64, X86] {
        assert_eq!(answer(audit, 437), ALLOW);
        assert_eq!(answer(audit, 436), 0x8000_0000);
        assert_eq!(answer(audit, 438), ENOSYS);
    }
    assert_eq!(answer(X86_64, 0x4000_0000), KILL, "x32 is not listed");
    assert_eq!(answer(0xc000_00b7, 63), KILL, "aarch64 is not listed");
    for permitting in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        let mut profile = denying.clone();
        profile.set_default_action(permitting.parse().unwrap());
        let program = compile(&profile).unwrap().program;
        let expected = value(profile.default_action(), None, "").unwrap();
        assert_eq!(run(&program, &call(X86_64, 438)), expected, "{permitting}");
    }
}

#[test]
fn setup_of_s390_gets_enosys() {
    let mut profile = engine_profile("docker");
    profile.set_architectures(Some(vec![Arch::ScmpArchS390x]));
    let program = compile(&profile).unwrap().program;
    assert_eq!(run(&program, &call(Arch::ScmpArchS390x as u32, 0)), ENOSYS);
    assert_eq!(run(&program, &call(Arch::ScmpArchS390x as u32, 3)), ALLOW);
}

#[test]
fn several_values_of_one_argument_are_alternatives() {
    let program = filter(
        json!([{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"},
        {"index": 1, "value": 3, "op": "SCMP_CMP_EQ"},
        {"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]}]),
    );
    let answer = |args| {
        run(
            &program,
            &Data {
                args,
                ..call(X86_64, 135)
            },
        )
    };
    assert_eq!(answer([8, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer([9, 0, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer([0, 3, 0, 0, 0, 0]), ALLOW);
    assert_eq!(answer([7, 2, 0, 0, 0, 0]), EPERM);
}

#[test]
fn arguments_have_64_bits_where_registers_have() {
    let program = filter(
        json!([{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
        {"index": 0, "value": 0x1_0000_0008_u64, "op": "SCMP_CMP_EQ"}]}]),
    );
    let answer = |audit, number, value| {
        let args = [value, 0, 0, 0, 0, 0];
        run(
            &program,
            &Data {
                args,
                ..call(audit, number)
            },
        )
    };
    assert_eq!(answer(X86_64, 135, 0x1_0000_0008), ALLOW);
    assert_eq!(answer(X86_64, 135, 8), EPERM);
    assert_eq!(answer(X86, 136, 8), ALLOW, "the register cannot hold more");
}

/// As in libseccomp: fewer arguments beat more, the first beats the second, and no rule that does
/// what the default does counts.
#[test]
fn rules_of_one_call_have_an_order() {
    let args = json!([{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]);
    let both = json!([args[0], {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}]);
    let table = [
        (json!([["LOG", null], ["ALLOW", null]]), "SCMP_ACT_LOG"),
        (json!([["LOG", args], ["ALLOW", null]]), "SCMP_ACT_ALLOW"),
        (json!([["ALLOW", null], ["LOG", args]]), "SCMP_ACT_ALLOW"),
        (json!([["ERRNO", null], ["LOG", args]]), "SCMP_ACT_LOG"),
        (
            json!([["LOG", args], ["ALLOW", both], ["TRAP", both]]),
            "SCMP_ACT_LOG",
        ),
        (
            json!([["LOG", both], ["LOG", args], ["TRAP", both]]),
            "SCMP_ACT_LOG",
        ),
    ];
    for (rules, expected) in table {
        let entries = rules.as_array().unwrap().iter();
        let entries = entries.map(|rule| {
            let action = format!("SCMP_ACT_{}", rule[0].as_str().unwrap());
            json!({"names": ["read"], "action": action, "args": rule[1]})
        });
        let program = filter(Value::Array(entries.collect()));
        let data = Data {
            args: [5; 6],
            ..call(X86_64, 0)
        };
        let expected = value(expected.parse().unwrap(), None, "").unwrap();
        assert_eq!(run(&program, &data), expected, "{rules}");
    }
}

#[test]
fn faults_name_the_field() {
    let rule = |rule: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
    let five = json!([{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]);
    let table = [
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: 1: SCMP_ACT_ALLOW returns no errno, only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 65536}),
            "linux.seccomp.defaultErrnoRet: 65536: must be at most 65535",
        ),
        (
            rule(json!({"names": ["read"], "action": "SCMP_ACT_KILL", "errnoRet": 0})),
            "linux.seccomp.syscalls[0].errnoRet: 0: SCMP_ACT_KILL returns no errno, only SCMP_ACT_ERRNO and SCMP_ACT_TRACE do",
        ),
        (
            rule(
                json!({"names": ["read"], "action": "SCMP_ACT_LOG", "args": [
                {"index": 6, "value": 5, "op": "SCMP_CMP_EQ"}]}),
            ),
            "linux.seccomp.syscalls[0].args[0].index: 6: must be 0 to 5",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY: cannot be the default, it would hold the hand-over of the listener",
        ),
        (
            rule(json!({"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY", "args": five})),
            "linux.seccomp.syscalls[0]: write: cannot have SCMP_ACT_NOTIFY, it would hold the hand-over of the listener",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata: \"x\": must not be set without linux.seccomp.listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
                {"names": ["read"], "action": "SCMP_ACT_LOG", "args": five},
                {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": five}]}),
            "linux.seccomp.syscalls[1]: read on SCMP_ARCH_X86_64: an earlier entry has another action for the same arguments",
        ),
    ];
    for (spec, expected) in table {
        let fault = compile(&profile(spec)).unwrap_err();
        assert_eq!(format!("{fault:#}"), expected);
    }
}

#[test]
fn unknown_architecture_of_the_library() {
    let Some((arch, name)) = ARCHITECTURES.iter().find(|(_, name)| !is_known(name)) else {
        return; // this libseccomp knows them all
    };
    let mut profile = engine_profile("docker");
    profile.set_architectures(Some(vec![Arch::ScmpArchNative, *arch]));
    let fault = compile(&profile).unwrap_err();
    assert_eq!(
        format!("{fault:#}"),
        format!(
            "linux.seccomp.architectures[1]: {name}: this build's libseccomp has no syscall table for it"
        )
    );
}

#[test]
fn the_kernel_takes_4096_instructions() {
    let values = |count: u64| {
        let args = (0..count).map(|value| json!({"index": 0, "value": value, "op": "SCMP_CMP_EQ"}));
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args.collect::<Vec<_>>()}]})
    };
    let program = compile(&profile(values(1000))).unwrap().program;
    for number in [0, 500, 999, 1000] {
        let expected = if number < 1000 { ALLOW } else { EPERM };
        let data = Data {
            args: [number; 6],
            ..call(X86_64, 0)
        };
        assert_eq!(run(&program, &data), expected, "long jumps");
    }
    let fault = compile(&profile(values(1100))).unwrap_err();
    assert!(
        format!("{fault:#}").starts_with("linux.seccomp: the filter needs 4"),
        "{fault:#}"
    );
}

#[test]
fn flags_and_listener() {
    let notify = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    let table = [
        (json!({}), 4, true),
        (json!({"flags": []}), 0, false),
        (
            json!({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}),
            3,
            false,
        ),
        (
            json!({"flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            0,
            false,
        ),
        (json!({"syscalls": notify}), 4 | 8, true),
        (
            json!({"syscalls": notify, "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            8 | 32,
            false,
        ),
        (
            json!({"syscalls": notify, "flags": ["SECCOMP_FILTER_FLAG_TSYNC"]}),
            8,
            false,
        ),
    ];
    for (mut spec, flags, optional) in table {
        spec["defaultAction"] = json!("SCMP_ACT_ALLOW");
        spec["listenerPath"] = json!("/run/agent");
        spec["listenerMetadata"] = json!("m");
        let filter = compile(&profile(spec.clone())).unwrap();
        assert_eq!(
            (filter.flags, filter.flags_optional),
            (flags, optional),
            "{spec}"
        );
        let listener = filter
            .notify
            .map(|notify| (notify.listener_path, notify.metadata));
        let expected = (flags & 8 != 0).then(|| ("/run/agent".into(), "m".to_string()));
        assert_eq!(listener, expected, "{spec}");
    }
}

#[test]
fn one_line_for_people() {
    let mut spec = engine_profile("docker");
    let filter = compile(&spec).unwrap();
    let length = filter.program.len();
    assert!(length <= 650, "{length} instructions: loading gets slow");
    assert_eq!(
        filter.to_string(),
        format!(
            "seccomp: 365 syscalls on X86_64+X86+X32, otherwise ERRNO 1; {length} instructions, SPEC_ALLOW"
        )
    );
    spec.set_default_action(Action::ScmpActKill)
        .set_default_errno_ret(None);
    spec.set_architectures(None).set_flags(Some(Vec::new()));
    let filter = compile(&spec).unwrap();
    let length = filter.program.len();
    assert_eq!(
        filter.to_string(),
        format!("seccomp: 365 syscalls on X86_64, otherwise KILL; {length} instructions")
    );
}

/// The tables hold all names of the spec, as serde reads and writes them.
#[test]
fn names_are_the_specs() {
    fn check<T: serde::Serialize>(table: &[(T, &str)], count: usize) {
        assert_eq!(table.len(), count);
        for (variant, name) in table {
            assert_eq!(json!(variant), json!(name));
        }
        let mut names: Vec<_> = table.iter().map(|(_, name)| name).collect();
        names.dedup();
        assert!(names.len() == count && names.is_sorted(), "{names:?}");
    }
    check(ACTIONS, 9);
    check(OPERATORS, 7);
    check(ARCHITECTURES, 23);
    check(FLAGS, 4);
}

/// The numbers that libseccomp only tells the other way round.
#[test]
fn direct_numbers_are_libseccomps() {
    let mut checked = 0;
    for (arch, name) in ARCHITECTURES.iter().filter(|(_, name)| is_known(name)) {
        let profile = profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [name]}));
        let all = architectures(&profile).unwrap();
        let architecture = all.iter().find(|known| known.arch == *arch).unwrap();
        for (number, name) in names_of(name.parse().unwrap()) {
            let numbers = architecture::numbers(&name, architecture);
            assert_eq!(numbers.direct, Some(number), "{name} on {arch}");
            checked += u32::from(numbers.multiplexed.is_some());
        }
    }
    assert!(
        checked > 150,
        "{checked} multiplexed calls have numbers of their own"
    );
}

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const X32_BIT: u32 = 0x4000_0000;

fn engine_profile(engine: &str) -> LinuxSeccomp {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/seccomp");
    let text = std::fs::read_to_string(format!("{folder}/{engine}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn profile(spec: Value) -> LinuxSeccomp {
    serde_json::from_value(spec).unwrap()
}

fn filter(syscalls: Value) -> Vec<Instruction> {
    let spec = json!({"defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"], "syscalls": syscalls});
    compile(&profile(spec)).unwrap().program
}

fn print(profile: &LinuxSeccomp) -> String {
    serde_json::to_string(profile).unwrap()
}

/// What the spec says of one call, by name, where at most one action can apply.
fn model(profile: &LinuxSeccomp, name: &str, data: &Data) -> u32 {
    let default = value(profile.default_action(), profile.default_errno_ret(), "").unwrap();
    for syscall in profile.syscalls().iter().flatten() {
        if syscall.names().iter().any(|known| known == name) && holds(syscall, Some(data)) {
            return value(syscall.action(), syscall.errno_ret(), "").unwrap();
        }
    }
    default
}

/// Every answer in which the filter differs from libseccomp's, with the ENOSYS rule on top of that.
fn compare(profile: &LinuxSeccomp, random: &mut Random) -> Vec<String> {
    let ours = compile(profile).unwrap().program;
    let mut differences = Vec::new();
    let mut abis = vec![ScmpArch::native()];
    for arch in profile.architectures().iter().flatten() {
        abis.push(arch.to_string().parse().unwrap());
    }
    abis.retain(|abi| *abi != ScmpArch::Native);
    // A filter of libseccomp holds architectures of one byte order only.
    if abis.iter().any(is_foreign_order) {
        abis.retain(is_foreign_order);
    }
    let theirs = library(profile, &abis);
    let rules: Vec<Abi> = abis.iter().map(|abi| Abi::new(profile, *abi)).collect();
    for data in probes(profile, &rules, random) {
        let abi = rules.iter().find(|abi| abi.owns(&data));
        let unknown = abi.is_some_and(|abi| abi.is_unknown(data.number));
        let expected = if unknown { ENOSYS } else { run(&theirs, &data) };
        let answer = run(&ours, &data);
        if answer != expected {
            differences.push(format!("{data:x?}: {answer:#x}, libseccomp {expected:#x}"));
        }
    }
    differences
}

/// One architecture of the profile, as libseccomp's tables show it.
struct Abi {
    library: ScmpArch,
    audit: u32,
    /// Numbers with a name, in the profile or not.
    named: Vec<u32>,
    newest: Option<u32>,
    /// Numbers whose rules look at arguments.
    conditional: Vec<u32>,
}

impl Abi {
    fn new(profile: &LinuxSeccomp, library: ScmpArch) -> Abi {
        let (arch, _) = ARCHITECTURES
            .iter()
            .find(|(_, name)| name.parse::<ScmpArch>().unwrap() == library)
            .unwrap();
        let audit = if library == ScmpArch::X32 {
            X86_64
        } else {
            *arch as u32
        };
        let numbers = names_of(library);
        let entries = || profile.syscalls().iter().flatten();
        let behind = |multiplexer: &str, name: &str| {
            // A pseudo number below -100 stands for a call that a multiplexer does.
            let resolved = ScmpSyscall::from_name_by_arch_rewrite(name, library);
            let multiplexer = ScmpSyscall::from_name_by_arch(multiplexer, library);
            matches!((resolved, multiplexer), (Ok(one), Ok(other)) if one == other && i32::from(one) > 0)
        };
        let concerns = |syscall: &LinuxSyscall, name: &str| {
            let names = syscall.names();
            names.iter().any(|known| known == name)
                || ["socketcall", "ipc"].contains(&name)
                    && names.iter().any(|known| behind(name, known))
        };
        let named = numbers
            .iter()
            .filter(|(_, name)| entries().any(|entry| concerns(entry, name)));
        let denies = ![
            Action::ScmpActAllow,
            Action::ScmpActLog,
            Action::ScmpActTrace,
        ]
        .contains(&profile.default_action());
        let looks = |name: &str| {
            ["socketcall", "ipc"].contains(&name)
                || entries().any(|entry| entry.args().is_some() && concerns(entry, name))
        };
        Abi {
            library,
            audit,
            named: numbers.keys().copied().collect(),
            newest: named.map(|(number, _)| *number).max().filter(|_| denies),
            conditional: numbers
                .iter()
                .filter(|(_, name)| looks(name))
                .map(|(number, _)| *number)
                .collect(),
        }
    }

    fn owns(&self, data: &Data) -> bool {
        let x32 = data.audit == X86_64 && data.number & X32_BIT != 0;
        self.audit == data.audit && x32 == (self.library == ScmpArch::X32)
    }

    fn is_unknown(&self, number: u32) -> bool {
        let setup = matches!(self.library, ScmpArch::S390 | ScmpArch::S390X) && number == 0;
        self.newest.is_some_and(|newest| number > newest || setup)
    }
}

fn probes(profile: &LinuxSeccomp, abis: &[Abi], random: &mut Random) -> Vec<Data> {
    let mut probes = vec![call(0, 0), call(0xc000_00b7 ^ 0xff, 0)];
    let pool = boundaries(profile);
    for abi in abis {
        let numbers = (0..600).chain(X32_BIT..X32_BIT + 600);
        let named = abi.named.iter().flat_map(|number| [*number, number + 1]);
        let numbers = numbers.chain(named);
        probes.extend(numbers.map(|number| call(abi.audit, number)));
        for edge in [X32_BIT, 2 * X32_BIT, 3 * X32_BIT] {
            probes.extend([edge - 1, edge, edge + 1].map(|number| call(abi.audit, number)));
        }
        probes.extend([u32::MAX - 1, u32::MAX].map(|number| call(abi.audit, number)));
        for number in &abi.conditional {
            for _ in 0..150 {
                let mut args = [0; 6].map(|_| random.pick(&pool));
                if random.below(2) == 0 {
                    args[0] = random.below(25) as u64; // a call behind a multiplexer
                }
                probes.push(Data {
                    args,
                    ..call(abi.audit, *number)
                });
            }
        }
    }
    probes
}

/// What libseccomp makes of the profile, without the ENOSYS rule; fails as it fails.
fn library(profile: &LinuxSeccomp, abis: &[ScmpArch]) -> Vec<Instruction> {
    let default = library_action(profile.default_action(), profile.default_errno_ret());
    // By default it asks the kernel which actions there are.
    libseccomp::set_api(6).unwrap();
    let mut filter = ScmpFilterContext::new(default).unwrap();
    let swapped = abis.iter().all(is_foreign_order);
    if swapped {
        filter.remove_arch(ScmpArch::Native).unwrap();
    }
    for abi in abis {
        filter.add_arch(*abi).unwrap();
    }
    for syscall in profile.syscalls().iter().flatten() {
        let action = library_action(syscall.action(), syscall.errno_ret());
        if action == default {
            continue;
        }
        for name in syscall.names() {
            if let Ok(number) = ScmpSyscall::from_name(name) {
                add_rule(&mut filter, syscall, action, number);
            }
        }
    }
    export(&filter, swapped)
}

/// As the spec's other runtimes do it.
fn add_rule(
    filter: &mut ScmpFilterContext,
    syscall: &LinuxSyscall,
    action: ScmpAction,
    number: ScmpSyscall,
) {
    let args = syscall.args().as_deref().unwrap_or_default();
    let comparators: Vec<_> = args.iter().map(comparator).collect();
    let twice = |arg: &LinuxSeccompArg| {
        let same = args.iter().filter(|other| other.index() == arg.index());
        same.count() > 1
    };
    let size = if args.iter().any(twice) { 1 } else { 6 };
    for comparators in comparators.chunks(size) {
        filter
            .add_rule_conditional(action, number, comparators)
            .unwrap();
    }
    if args.is_empty() {
        filter.add_rule(action, number).unwrap();
    }
}

fn library_action(action: Action, errno: Option<u32>) -> ScmpAction {
    let errno = errno.unwrap_or(1) as i32;
    ScmpAction::from_str(&action.to_string(), Some(errno)).unwrap()
}

fn comparator(arg: &LinuxSeccompArg) -> ScmpArgCompare {
    let (value, two) = (arg.value(), arg.value_two().unwrap_or(0));
    let (op, value) = match arg.op() {
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        Operator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(value), two),
    };
    ScmpArgCompare::new(arg.index() as u32, op, value)
}

/// The program in this machine's byte order, for its layout of arguments.
fn export(filter: &ScmpFilterContext, swapped: bool) -> Vec<Instruction> {
    let mut file = File::from(memfd_create(c"filter", MFdFlags::empty()).unwrap());
    filter.export_bpf(&file).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let instruction = |word: &[u8]| {
        let code = u16::from_ne_bytes(word[..2].try_into().unwrap());
        let k = u32::from_ne_bytes(word[4..].try_into().unwrap());
        let (code, k) = match swapped {
            // libseccomp swaps the second and later copies of a return twice.
            true if word[1] == 6 && is_action(k) => (6, k),
            true if word[1] == 6 => (6, k.swap_bytes()),
            true => (code.swap_bytes(), k.swap_bytes()),
            false => (code, k),
        };
        let other_half = if swapped && code == 0x20 && k >= 16 {
            4
        } else {
            0
        };
        Instruction {
            code,
            jt: word[2],
            jf: word[3],
            k: k ^ other_half,
        }
    };
    bytes.chunks(8).map(instruction).collect()
}

fn is_action(value: u32) -> bool {
    let actions = ACTIONS.iter().map(|(action, _)| kernel_action(*action));
    let mut known = actions.filter(|action| value & 0xffff_0000 == *action);
    known.any(|action| action != KILL || value == KILL)
}

fn is_foreign_order(arch: &ScmpArch) -> bool {
    let big = [
        ScmpArch::Mips,
        ScmpArch::Mips64,
        ScmpArch::Mips64N32,
        ScmpArch::Parisc,
        ScmpArch::Parisc64,
        ScmpArch::Ppc,
        ScmpArch::Ppc64,
        ScmpArch::S390,
        ScmpArch::S390X,
        ScmpArch::M68k,
        ScmpArch::Sheb,
    ];
    big.contains(arch) != cfg!(target_endian = "big")
}

fn is_known(name: &str) -> bool {
    architecture::supported().any(|known| known == name)
}

/// The names of all numbers.
fn names_of(library: ScmpArch) -> BTreeMap<u32, String> {
    let bases = match library {
        ScmpArch::X32 => [X32_BIT, 0],
        ScmpArch::Mips | ScmpArch::Mipsel => [4000, 0],
        ScmpArch::Mips64 | ScmpArch::Mipsel64 => [5000, 0],
        ScmpArch::Mips64N32 | ScmpArch::Mipsel64N32 => [6000, 0],
        ScmpArch::Arm => [0, 0xf_0000],
        _ => [0, 0],
    };
    let first = if bases[0] > 0 { 0..1 } else { 0..2 };
    let numbers = bases[first].iter().flat_map(|base| *base..base + 600);
    let name = |number: u32| {
        ScmpSyscall::from(number as i32)
            .get_name_by_arch(library)
            .ok()
    };
    numbers
        .filter_map(|number| Some((number, name(number)?)))
        .collect()
}

/// xorshift64: a failure is repeated by its seed.
struct Random(u64);

impl Random {
    fn seed(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

#[derive(PartialEq)]
enum Kind {
    /// What libseccomp does rightly.
    Sound,
    /// Everything, with one action for each call.
    Any,
}

fn random_profile(random: &mut Random, names: &[String], kind: Kind) -> LinuxSeccomp {
    let mut spec = match kind {
        Kind::Any => json!({"defaultAction": "SCMP_ACT_TRACE"}),
        Kind::Sound => random_action(random, "defaultAction", "defaultErrnoRet"),
    };
    let some = [
        "X86_64", "X86", "X32", "NATIVE", "AARCH64", "ARM", "MIPSEL", "PPC64LE",
    ];
    let mut architectures: Vec<_> = some[..3 + random.below(6)].to_vec();
    architectures.retain(|_| kind == Kind::Any || random.below(3) > 0);
    let full = architectures.iter().map(|name| format!("SCMP_ARCH_{name}"));
    spec["architectures"] = full.collect();
    let mut syscalls = Vec::new();
    let mut left = names.to_vec();
    for _ in 0..names.len().min(1 + random.below(30)) {
        let name = left.swap_remove(random.below(left.len()));
        let rules = match kind {
            Kind::Any => any_rules(random),
            Kind::Sound => sound_rules(random, &name),
        };
        for mut rule in rules {
            rule["names"] = json!([name]);
            syscalls.insert(random.below(syscalls.len() + 1), rule);
        }
    }
    // Without one plain rule that all architectures have, libseccomp forgets to load the number.
    let plain = match spec["defaultAction"].as_str() {
        Some("SCMP_ACT_ALLOW") => "SCMP_ACT_LOG",
        _ => "SCMP_ACT_ALLOW",
    };
    if kind == Kind::Sound {
        syscalls.push(json!({"names": ["getpid"], "action": plain}));
    }
    spec["syscalls"] = Value::Array(syscalls);
    profile(spec)
}

fn random_action(random: &mut Random, action: &str, errno: &str) -> Value {
    let mut value = json!({action: random.pick(&[
        "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_TRAP",
        "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_ERRNO",
    ])});
    if ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&value[action].as_str().unwrap()) {
        value[errno] = json!(random.pick(&[None, Some(2), Some(38)]));
    }
    value
}

fn any_rules(random: &mut Random) -> Vec<Value> {
    let operators: Vec<&str> = OPERATORS.iter().map(|(_, name)| *name).collect();
    let rule = |random: &mut Random| {
        let args = 1 + random.below(3);
        let args: Vec<_> = (0..args).map(|_| random_arg(random, &operators)).collect();
        json!({"action": "SCMP_ACT_LOG", "args": args})
    };
    (0..1 + random.below(4)).map(|_| rule(random)).collect()
}

/// One of the things that libseccomp does rightly.
fn sound_rules(random: &mut Random, name: &str) -> Vec<Value> {
    let single = [
        "SCMP_CMP_EQ",
        "SCMP_CMP_NE",
        "SCMP_CMP_GT",
        "SCMP_CMP_GE",
        "SCMP_CMP_MASKED_EQ",
    ];
    let all: Vec<&str> = OPERATORS.iter().map(|(_, name)| *name).collect();
    let action = |random: &mut Random| random_action(random, "action", "errnoRet");
    let mut rules = vec![action(random); 1 + random.below(4)];
    match random.below(if is_multiplexed(name) { 1 } else { 6 }) {
        0 => rules.truncate(1),
        // The first of two without arguments wins.
        1 => rules[0] = action(random),
        // A rule without arguments wins over one with.
        2 => {
            rules = vec![action(random), action(random)];
            rules[0]["args"] = json!([random_arg(random, &all)]);
        }
        // One argument each, or the same one several times.
        3 => {
            for rule in &mut rules {
                let mut args = vec![random_arg(random, &single)];
                if random.below(2) == 0 {
                    args.push(random_arg(random, &single));
                    args[1]["index"] = args[0]["index"].clone();
                }
                rule["args"] = json!(args);
            }
        }
        // Several arguments at once.
        4 => {
            rules.truncate(1);
            let mut args: Vec<_> = (0..3).map(|_| random_arg(random, &all)).collect();
            args.sort_by_key(|arg| arg["index"].as_u64());
            args.dedup_by_key(|arg| arg["index"].clone());
            rules[0]["args"] = json!(args);
        }
        // Different actions that overlap.
        _ => {
            rules = (0..3).map(|_| action(random)).collect();
            for (index, rule) in rules.iter_mut().enumerate() {
                rule["args"] = json!([random_arg(random, &["SCMP_CMP_EQ"])]);
                rule["args"][0]["index"] = json!(index);
            }
        }
    }
    rules
}

/// On some architecture, which adds an argument.
fn is_multiplexed(name: &str) -> bool {
    let found = ScmpSyscall::from_name_by_arch(name, ScmpArch::X86);
    found.is_ok_and(|number| (-224..=-101).contains(&i32::from(number)))
}

fn random_arg(random: &mut Random, operators: &[&str]) -> Value {
    let values = [
        0,
        1,
        5,
        6,
        7,
        0xffff_ffff,
        0x1_0000_0000,
        0x1_0000_0005,
        0x2_0000_0006,
        0x5_0000_0005,
        u64::MAX,
    ];
    json!({"index": random.below(3), "op": random.pick(operators),
        "value": random.pick(&values), "valueTwo": random.pick(&values)})
}
