//! The filter against libseccomp's own, instruction by instruction interpreted.

use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::Arch;

use super::*;

/// `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug)]
struct Data {
    nr: u32,
    arch: u32,
    args: [u64; 6],
}

/// Runs a program as the kernel would; panics on what the kernel's checker refuses.
fn run(program: &[Instruction], data: &Data) -> u32 {
    let mut accumulator = 0;
    let mut pc = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[pc];
        pc += 1;
        let holds = match code {
            0x20 => {
                accumulator = load(data, k);
                continue;
            }
            0x54 => {
                accumulator &= k;
                continue;
            }
            0x05 => {
                pc += k as usize;
                continue;
            }
            0x06 => return k,
            0x15 => accumulator == k,
            0x25 => accumulator > k,
            0x35 => accumulator >= k,
            _ => panic!("instruction {}: code {code:#x}", pc - 1),
        };
        pc += usize::from(if holds { jt } else { jf });
    }
}

fn load(data: &Data, offset: u32) -> u32 {
    match offset {
        0 => data.nr,
        4 => data.arch,
        16..64 if offset % 4 == 0 => {
            let argument = data.args[(offset as usize - 16) / 8];
            let upper = (offset % 8 == 4) == cfg!(target_endian = "little");
            if upper { (argument >> 32) as u32 } else { argument as u32 }
        }
        _ => panic!("load of offset {offset}"),
    }
}

/// What libseccomp makes of the profile, fed like runc feeds it; without the ENOSYS rule.
fn library(profile: &LinuxSeccomp) -> Option<Vec<Instruction>> {
    let default = library_action(profile.default_action(), profile.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default).unwrap();
    for arch in profile.architectures().iter().flatten() {
        filter.add_arch(arch.to_string().parse().unwrap()).unwrap();
    }
    for syscall in profile.syscalls().iter().flatten() {
        let action = library_action(syscall.action(), syscall.errno_ret());
        if action == default {
            continue;
        }
        for name in syscall.names() {
            let Ok(number) = ScmpSyscall::from_name(name) else {
                continue;
            };
            let args: Vec<_> = syscall.args().iter().flatten().map(comparator).collect();
            let twice = |arg: &LinuxSeccompArg| {
                let args = syscall.args().iter().flatten();
                args.filter(|other| other.index() == arg.index()).count() > 1
            };
            if syscall.args().iter().flatten().any(twice) {
                for arg in &args {
                    filter.add_rule_conditional(action, number, &[*arg]).ok()?;
                }
            } else {
                filter.add_rule_conditional(action, number, &args).ok()?;
            }
        }
    }
    Some(export(&filter))
}

fn export(filter: &ScmpFilterContext) -> Vec<Instruction> {
    let mut file = File::from(memfd_create(c"filter", MFdFlags::empty()).unwrap());
    filter.export_bpf(&file).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
        .chunks(8)
        .map(|word| Instruction {
            code: u16::from_ne_bytes([word[0], word[1]]),
            jt: word[2],
            jf: word[3],
            k: u32::from_ne_bytes([word[4], word[5], word[6], word[7]]),
        })
        .collect()
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

/// A small generator of its own (xorshift64), so that a failure can be repeated by its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}

fn random_arg(random: &mut Random, ops: &[Operator]) -> LinuxSeccompArg {
    let values = [0, 1, 5, 6, 7, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0005, 0x2_0000_0006, u64::MAX];
    let op = random.pick(ops);
    let two = (op == Operator::ScmpCmpMaskedEq).then(|| random.pick(&values));
    serde_json::from_value(serde_json::json!({
        "index": random.below(3), "op": op, "value": random.pick(&values), "valueTwo": two,
    }))
    .unwrap()
}

#[test]
fn explore() {
    let mode = std::env::var("MODE").unwrap_or_default();
    let count: usize = std::env::var("COUNT").map_or(2000, |c| c.parse().unwrap());
    let ops: Vec<Operator> = match std::env::var("OPS").ok().as_deref() {
        Some("eq") => vec![Operator::ScmpCmpEq],
        Some("eqne") => vec![Operator::ScmpCmpEq, Operator::ScmpCmpNe],
        Some("eqm") => vec![Operator::ScmpCmpEq, Operator::ScmpCmpMaskedEq],
        Some("gt") => vec![Operator::ScmpCmpGt, Operator::ScmpCmpGe],
        Some("lt") => vec![Operator::ScmpCmpLt, Operator::ScmpCmpLe],
        _ => OPERATORS.iter().map(|o| o.0).collect(),
    };
    let nargs: usize = std::env::var("NARGS").map_or(1, |c| c.parse().unwrap());
    let (mut same, mut differ, mut both_err, mut lib_err, mut our_err) = (0, 0, 0, 0, 0);
    for seed in 1..=count as u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut profile = LinuxSeccomp::default();
        profile.set_default_action(Action::ScmpActAllow);
        let mut syscalls = vec![];
        for i in 0..1 + random.below(3) {
            let mut s = LinuxSyscall::default();
            s.set_names(vec!["mmap".into()]);
            s.set_action(Action::ScmpActErrno);
            s.set_errno_ret(Some(if mode == "conflict" { 10 + i as u32 } else { 10 }));
            let mut args = vec![];
            for _ in 0..1 + random.below(nargs) {
                let arg = random_arg(&mut random, &ops);
                if args.iter().all(|a: &LinuxSeccompArg| a.index() != arg.index()) {
                    args.push(arg);
                }
            }
            s.set_args(Some(args));
            syscalls.push(s);
        }
        profile.set_syscalls(Some(syscalls));
        let arch = if std::env::var("X86").is_ok() { 0x4000_0003 } else { 0xc000_003e };
        let nr = if arch == 0x4000_0003 { 90 } else { 9 };
        profile.set_architectures(Some(vec![Arch::ScmpArchX86]));
        let (ours, theirs) = match (compile(&profile), library(&profile)) {
            (Ok(o), Some(t)) => (o, t),
            (Err(_), None) => { both_err += 1; continue }
            (Err(e), Some(_)) => { our_err += 1; if our_err < 4 { println!("OURS {e:#} {}", serde_json::to_string(profile.syscalls()).unwrap()); } continue }
            (Ok(_), None) => { lib_err += 1; if lib_err < 4 { println!("THEIRS {}", serde_json::to_string(profile.syscalls()).unwrap()); } continue }
        };
        let values = [0, 1, 4, 5, 6, 7, 8, 0xffff_fffe, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0004, 0x1_0000_0005, 0x1_0000_0006, 0x2_0000_0005, 0x2_0000_0006, 0x2_0000_0007, u64::MAX-1, u64::MAX];
        let mut bad = None;
        for _ in 0..400 {
            let mut args = [0; 6];
            for a in args.iter_mut().take(3) { *a = random.pick(&values); }
            let d = Data { nr, arch, args };
            let (o, t) = (run(&ours.program, &d), run(&theirs, &d));
            if o != t { bad = Some((d, o, t)); break; }
        }
        match bad { None => same += 1, Some((d, o, t)) => { differ += 1; if differ < 6 { println!("DIFF {d:x?} ours {o:x} theirs {t:x} {}", serde_json::to_string(profile.syscalls()).unwrap()); } } }
    }
    println!("{mode} nargs {nargs}: same {same} differ {differ} both refuse {both_err} only libseccomp refuses {lib_err} only we refuse {our_err}");
}
