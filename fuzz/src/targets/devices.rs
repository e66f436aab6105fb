//! Device rules: the eBPF program answers as the rules do, each access to each device that they name.

use std::collections::BTreeSet;

use oci_spec::runtime::LinuxDeviceCgroup;

use cofferdam::plan::devices::{self, DeviceRule, DeviceType, MKNOD, READ, WRITE};

/// As many rules as engines write; the time goes with their square.
const MOST: usize = 24;

pub fn devices(data: &[u8]) {
    let Ok(mut list) = serde_json::from_slice::<Vec<LinuxDeviceCgroup>>(data) else {
        return;
    };
    list.truncate(MOST);
    let rules = list.iter().map(|rule| devices::parse(rule, "devices"));
    let Ok(rules) = rules.collect::<Result<Vec<_>, _>>() else {
        return;
    };
    agree(&rules);
    agree(&[rules, devices::defaults()].concat());
}

/// Carries a program out as the kernel would; panics at anything but the few known instructions.
pub fn run(program: &[u64], context: [u32; 3]) -> bool {
    let mut registers = [0u64; 11];
    let mut at = 0;
    for _ in 0..program.len() {
        let [code, pair, low, high, a, b, c, d] = program[at].to_le_bytes();
        let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
        let offset = i16::from_le_bytes([low, high]);
        let value = i32::from_le_bytes([a, b, c, d]);
        let (old, other) = (registers[to], registers[from]);
        let mut jump = false;
        match code {
            0x61 => registers[to] = context[offset as usize / 4].into(),
            0xb4 => registers[to] = (value as u32).into(),
            0xbc => registers[to] = (other as u32).into(),
            0x64 => registers[to] = ((old as u32) << value).into(),
            0x14 => registers[to] = (old as u32).wrapping_sub(value as u32).into(),
            0x17 => registers[to] = old.wrapping_sub(value as u64),
            0x4f => registers[to] = old | other,
            0x05 => jump = true,
            0x46 => jump = old as u32 & value as u32 != 0,
            0xc5 => jump = (old as i64) < i64::from(value),
            0x95 => return registers[0] == 1,
            _ => panic!("unknown code {code:#x} at {at}"),
        }
        at = (at as i64 + 1 + if jump { i64::from(offset) } else { 0 }) as usize;
    }
    panic!("the program does not end");
}

pub struct Probe {
    pub kind: DeviceType,
    pub major: u32,
    pub minor: u32,
    pub access: u8,
}

impl Probe {
    pub fn context(&self) -> [u32; 3] {
        let kind = if self.kind == DeviceType::Block { 1 } else { 2 };
        [u32::from(self.access) << 16 | kind, self.major, self.minor]
    }

    /// The rules as the spec words them: each access is decided by the last rule about it.
    pub fn is_allowed(&self, rules: &[DeviceRule]) -> bool {
        let decided = |bit: u8| {
            let last = rules.iter().rev().find(|rule| {
                rule.access & bit != 0
                    && (rule.kind == DeviceType::All || rule.kind == self.kind)
                    && rule.major.is_none_or(|major| major == self.major)
                    && rule.minor.is_none_or(|minor| minor == self.minor)
            });
            last.is_some_and(|rule| rule.allow)
        };
        [MKNOD, READ, WRITE]
            .into_iter()
            .filter(|bit| self.access & bit != 0)
            .all(decided)
    }
}

/// Asks for every access to every device whose numbers the rules name, and to some others.
/// Gives the size of the program.
pub fn agree(rules: &[DeviceRule]) -> usize {
    let numbers = |pick: fn(&DeviceRule) -> Option<u32>, limit: u32| -> BTreeSet<u32> {
        let named = rules.iter().filter_map(pick).filter(|n| *n < limit);
        named.chain([0, 77, limit - 1]).collect()
    };
    let program = devices::program(rules).unwrap();
    let minors = numbers(|rule| rule.minor, 1 << 20);
    for major in numbers(|rule| rule.major, 1 << 12) {
        for minor in minors.iter().copied() {
            for (access, kind) in (1..=MKNOD | READ | WRITE)
                .flat_map(|access| [(access, DeviceType::Block), (access, DeviceType::Char)])
            {
                let probe = Probe {
                    kind,
                    major,
                    minor,
                    access,
                };
                let got = program
                    .as_ref()
                    .is_none_or(|code| run(code, probe.context()));
                assert_eq!(
                    got,
                    probe.is_allowed(rules),
                    "{kind:?} {major}:{minor} access {access}: {}",
                    listing(rules)
                );
            }
        }
    }
    program.map_or(0, |program| program.len())
}

pub fn listing(rules: &[DeviceRule]) -> String {
    let lines: Vec<String> = rules.iter().map(|rule| rule.to_string()).collect();
    lines.join(", ")
}
