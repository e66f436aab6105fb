//! Device rules -> the eBPF program (BPF_PROG_TYPE_CGROUP_DEVICE) that judges each mknod and open.
//!
//! The kernel asks with a type, a major, a minor and a set of accesses; all of that set must be
//! allowed. Rules apply in order: for each access the last rule that matches the device decides, and
//! what no rule names is denied. The rules become a table of what each device allows, the table
//! becomes ranges of numbers, the ranges become instructions. Pure and run by the parent: loading and
//! attaching is the part of `sys::bpf`.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, anyhow, bail, ensure};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

pub const MKNOD: u8 = 1;
pub const READ: u8 = 2;
pub const WRITE: u8 = 4;
const NOTHING: u8 = 0;
const EVERYTHING: u8 = MKNOD | READ | WRITE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceType {
    All,
    Block,
    Char,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    pub allow: bool,
    pub kind: DeviceType,
    /// None: any.
    pub major: Option<u32>,
    /// None: any.
    pub minor: Option<u32>,
    /// A set of MKNOD, READ and WRITE.
    pub access: u8,
}

/// One entry of `linux.resources.devices`; `field` names it in errors.
pub fn parse(rule: &LinuxDeviceCgroup, field: &str) -> Result<DeviceRule> {
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => DeviceType::All,
        Some(LinuxDeviceType::B) => DeviceType::Block,
        Some(LinuxDeviceType::C) => DeviceType::Char,
        Some(other) => bail!("{field}.type: {}: must be a, b or c", other.as_str()),
    };
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number(rule.major(), field, "major")?,
        minor: number(rule.minor(), field, "minor")?,
        access: access(rule.access().as_deref().unwrap_or(""), field)?,
    })
}

/// What every container may use, whatever its spec says: make any node, and use the standard
/// devices, the terminals and /dev/net/tun. Goes after the rules of the spec.
pub fn defaults() -> Vec<DeviceRule> {
    let allow = |kind, major, minor, access| DeviceRule {
        allow: true,
        kind,
        major,
        minor,
        access,
    };
    let usable = |major, minor| allow(DeviceType::Char, Some(major), minor, EVERYTHING);
    vec![
        allow(DeviceType::Char, None, None, MKNOD),
        allow(DeviceType::Block, None, None, MKNOD),
        usable(1, Some(3)),
        usable(1, Some(8)),
        usable(1, Some(7)),
        usable(5, Some(0)),
        usable(1, Some(5)),
        usable(1, Some(9)),
        usable(136, None),
        usable(5, Some(2)),
        usable(10, Some(200)),
    ]
}

/// The encoded program, or None if the rules allow every access to every device.
pub fn program(rules: &[DeviceRule]) -> Result<Option<Vec<u64>>> {
    // Each device that rules name is looked up in all of them.
    let count = |major, minor| {
        let fits =
            |rule: &&DeviceRule| (rule.major.is_some(), rule.minor.is_some()) == (major, minor);
        rules.iter().filter(fits).count()
    };
    let devices = count(true, true) + count(true, false) * count(false, true);
    ensure!(
        rules.len() <= MOST && devices <= MAX_INSNS,
        "linux.resources.devices: {} rules: must fit in a program of {MAX_INSNS} instructions",
        rules.len()
    );
    let chars = Table::new(rules, DeviceType::Char);
    let blocks = Table::new(rules, DeviceType::Block);
    if chars.is_open() && blocks.is_open() {
        return Ok(None);
    }
    let code = assemble(&chars, &blocks);
    ensure!(
        code.insns.len() <= MAX_INSNS,
        "linux.resources.devices: {} rules: must fit in a program of {MAX_INSNS} instructions",
        rules.len()
    );
    Ok(Some(code.link()))
}

fn number(value: Option<i64>, field: &str, name: &str) -> Result<Option<u32>> {
    match value {
        None | Some(-1) => Ok(None),
        Some(value) => u32::try_from(value).map(Some).map_err(|_| {
            anyhow!("{field}.{name}: {value}: must be -1 (any), or a {name} device number")
        }),
    }
}

fn access(text: &str, field: &str) -> Result<u8> {
    let mut access = NOTHING;
    for letter in text.chars() {
        access |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            _ => bail!("{field}.access: {text:?}: must be made of r, w and m"),
        };
    }
    ensure!(
        access != NOTHING,
        "{field}.access: {text:?}: must have at least one of r, w and m"
    );
    Ok(access)
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let act = if self.allow { "allow" } else { "deny" };
        let kind = match self.kind {
            DeviceType::All => 'a',
            DeviceType::Block => 'b',
            DeviceType::Char => 'c',
        };
        let number = |value: Option<u32>| value.map_or("*".to_string(), |value| value.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        write!(out, "{act} {kind} {major}:{minor} ")?;
        [(READ, "r"), (WRITE, "w"), (MKNOD, "m")]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .try_for_each(|(_, letter)| out.write_str(letter))
    }
}

impl DeviceRule {
    fn speaks_of(&self, kind: DeviceType) -> bool {
        self.kind == DeviceType::All || self.kind == kind
    }

    /// A dev_t of the kernel has 12 bits of major and 20 of minor: a rule beyond matches nothing.
    fn is_possible(&self) -> bool {
        self.major.is_none_or(|major| major < 1 << 12)
            && self.minor.is_none_or(|minor| minor < 1 << MINOR_BITS)
    }
}

const MINOR_BITS: u32 = 20;

/// What the rules come to for one type of device: the accesses that each device allows. The first
/// entry that fits decides, `rest` if none does. An entry that would change nothing is left out, so
/// shadowed, repeated and pointless rules cost no instruction.
#[derive(PartialEq)]
struct Table {
    entries: Vec<Entry>,
    rest: u8,
}

#[derive(PartialEq)]
struct Entry {
    device: Numbers,
    access: u8,
}

/// Major and minor. In a rule None means any; in a device, a number that no rule names.
type Numbers = (Option<u32>, Option<u32>);

impl Table {
    fn new(rules: &[DeviceRule], kind: DeviceType) -> Table {
        let rules: Vec<DeviceRule> = rules
            .iter()
            .filter(|rule| rule.speaks_of(kind) && rule.is_possible())
            .copied()
            .collect();
        let mut table = Table {
            entries: Vec::new(),
            rest: allowed(&rules, (None, None)),
        };
        // A later layer is looked up before the earlier ones, so the single devices come last here.
        for layer in layers(&rules) {
            let mut entries: Vec<Entry> = layer
                .into_iter()
                .map(|device| Entry {
                    device,
                    access: allowed(&rules, device),
                })
                .filter(|entry| entry.access != table.look_up(entry.device))
                .collect();
            entries.append(&mut table.entries);
            table.entries = entries;
        }
        table
    }

    fn look_up(&self, device: Numbers) -> u8 {
        let entry = self
            .entries
            .iter()
            .find(|entry| covers(entry.device, device));
        entry.map_or(self.rest, |entry| entry.access)
    }

    fn is_open(&self) -> bool {
        self.entries.is_empty() && self.rest == EVERYTHING
    }
}

/// The devices on which the rules can differ: whole majors, whole minors, and single devices, which
/// are those that a rule names and those where a whole major meets a whole minor.
fn layers(rules: &[DeviceRule]) -> [BTreeSet<Numbers>; 3] {
    let named: BTreeSet<Numbers> = rules.iter().map(|rule| (rule.major, rule.minor)).collect();
    let pick = |major: bool, minor: bool| -> BTreeSet<Numbers> {
        let fits = |device: &&Numbers| (device.0.is_some(), device.1.is_some()) == (major, minor);
        named.iter().filter(fits).copied().collect()
    };
    let (majors, minors, mut single) = (pick(true, false), pick(false, true), pick(true, true));
    for (major, _) in &majors {
        single.extend(minors.iter().map(|(_, minor)| (*major, *minor)));
    }
    [majors, minors, single]
}

/// The accesses that the rules, taken in order, leave allowed.
fn allowed(rules: &[DeviceRule], device: Numbers) -> u8 {
    rules
        .iter()
        .filter(|rule| covers((rule.major, rule.minor), device))
        .fold(NOTHING, |access, rule| match rule.allow {
            true => access | rule.access,
            false => access & !rule.access,
        })
}

fn covers(rule: Numbers, device: Numbers) -> bool {
    (rule.0.is_none() || rule.0 == device.0) && (rule.1.is_none() || rule.1 == device.1)
}

/// More rules than these make no program that is loaded in sensible time.
const MOST: usize = 4096;

/// A branch reaches no further.
const MAX_INSNS: usize = i16::MAX as usize;

// Operation codes: class, operation and operand as in linux/bpf_common.h and linux/bpf.h. Of those
// that exist in two widths, the ones named WIDE work on 64 bits, the others on 32.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb4;
const MOVE_REGISTER: u8 = 0xbc;
const SHIFT_LEFT: u8 = 0x64;
const SUBTRACT: u8 = 0x14;
const WIDE_SUBTRACT: u8 = 0x17;
const WIDE_OR_REGISTER: u8 = 0x4f;
const JUMP: u8 = 0x05;
const JUMP_IF_ANY_BIT: u8 = 0x46;
const WIDE_JUMP_IF_LESS: u8 = 0xc5;
const EXIT: u8 = 0x95;

// Registers. The kernel passes the context in r1 and takes the verdict, 1 or 0, from r0. Once the
// context is read, its register is free.
const VERDICT: u8 = 0;
const CONTEXT: u8 = 1;
const SCRATCH: u8 = 1;
const REQUEST: u8 = 2;
const NUMBER: u8 = 3;
const MINOR: u8 = 4;
const FOUND: u8 = 5;

/// `access_type` of the context: the type in the low half, the access in the high half.
const TYPE_BLOCK: i32 = 1;
const ACCESS_SHIFT: u32 = 16;

/// A place to jump to: up to EVERYTHING, the end for a device that allows just this access.
type Label = usize;
const BLOCKS: Label = EVERYTHING as Label + 1;
/// Where no label is: the program's first instruction.
const UNPLACED: usize = 0;

/// A table without entries takes no code, and equal ones share it.
fn assemble(chars: &Table, blocks: &Table) -> Code {
    let mut code = Code::default();
    code.load();
    let split = chars != blocks && !blocks.entries.is_empty();
    if split {
        code.branch(JUMP_IF_ANY_BIT, REQUEST, TYPE_BLOCK, BLOCKS);
    } else if chars != blocks {
        code.branch(JUMP_IF_ANY_BIT, REQUEST, TYPE_BLOCK, blocks.rest.into());
    }
    code.compare(chars);
    if split {
        code.branch(JUMP, 0, 0, chars.rest.into());
        code.place(BLOCKS);
        code.compare(blocks);
    }
    code.ends(if split { blocks.rest } else { chars.rest });
    code
}

/// Neighbours in a register: NUMBER holds `major << 20 | minor`, so a whole major is one range.
struct Range {
    register: u8,
    low: u32,
    count: u32,
    access: u8,
}

fn ranges(table: &Table) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    for entry in &table.entries {
        let (register, low, count) = match entry.device {
            (Some(major), Some(minor)) => (NUMBER, major << MINOR_BITS | minor, 1),
            (Some(major), None) => (NUMBER, major << MINOR_BITS, 1 << MINOR_BITS),
            (None, minor) => (MINOR, minor.unwrap_or_default(), 1),
        };
        match ranges.last_mut() {
            Some(last) if last.goes_on(register, low, entry.access) => last.count += count,
            _ => ranges.push(Range {
                register,
                low,
                count,
                access: entry.access,
            }),
        }
    }
    ranges
}

impl Range {
    /// Whether what starts at `low` is its next neighbour, and there is room: `count` becomes an i32.
    fn goes_on(&self, register: u8, low: u32, access: u8) -> bool {
        (self.register, self.access) == (register, access)
            && self.low.checked_add(self.count) == Some(low)
            && self.count < 1 << 30
    }
}

#[derive(Default)]
struct Code {
    insns: Vec<Insn>,
    branches: Vec<(usize, Label)>,
    labels: [usize; BLOCKS + 1],
}

struct Insn {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    value: i32,
}

impl Code {
    fn load(&mut self) {
        self.emit_from(LOAD_WORD, REQUEST, CONTEXT, 0);
        self.emit_from(LOAD_WORD, NUMBER, CONTEXT, 4);
        self.emit_from(LOAD_WORD, MINOR, CONTEXT, 8);
        self.emit(SHIFT_LEFT, NUMBER, MINOR_BITS as i32);
        self.emit_from(WIDE_OR_REGISTER, NUMBER, MINOR, 0);
    }

    /// Loading is most of what a device program costs, and there a branch, whose two ways the
    /// verifier follows, takes as long as five plain instructions. Hence one branch for all ranges
    /// that give the same access. With x 32 bits wide, `x - low` is below `count` inside the range
    /// and not outside, so `x - low - count` in 64 bits has its sign set inside only; the signs of
    /// all ranges are or-ed.
    fn compare(&mut self, table: &Table) {
        for run in ranges(table).chunk_by(|a, b| a.access == b.access) {
            for (index, range) in run.iter().enumerate() {
                let into = if index == 0 { FOUND } else { SCRATCH };
                self.emit_from(MOVE_REGISTER, into, range.register, 0);
                self.emit(SUBTRACT, into, range.low as i32);
                self.emit(WIDE_SUBTRACT, into, range.count as i32);
                if into == SCRATCH {
                    self.emit_from(WIDE_OR_REGISTER, FOUND, SCRATCH, 0);
                }
            }
            self.branch(WIDE_JUMP_IF_LESS, FOUND, 0, run[0].access.into());
        }
    }

    /// The ends that are jumped to, after `first`, into which the last compare falls. No others: the
    /// verifier refuses instructions that nothing reaches.
    fn ends(&mut self, first: u8) {
        self.end(first);
        for access in (NOTHING + 1..=EVERYTHING).chain([NOTHING]) {
            let label = Label::from(access);
            let wanted = self.branches.iter().any(|(_, to)| *to == label);
            if wanted && self.labels[label] == UNPLACED {
                self.end(access);
            }
        }
    }

    /// A device that allows nothing is refused even to access(2) with F_OK, which asks for nothing.
    fn end(&mut self, access: u8) {
        self.place(access.into());
        if access != NOTHING && access != EVERYTHING {
            let others = i32::from(EVERYTHING & !access) << ACCESS_SHIFT;
            self.branch(JUMP_IF_ANY_BIT, REQUEST, others, NOTHING.into());
            self.place(EVERYTHING.into());
        }
        self.emit(MOVE, VERDICT, i32::from(access != NOTHING));
        self.emit(EXIT, 0, 0);
    }

    fn place(&mut self, label: Label) {
        self.labels[label] = self.insns.len();
    }

    fn branch(&mut self, code: u8, register: u8, value: i32, to: Label) {
        self.branches.push((self.insns.len(), to));
        self.emit(code, register, value);
    }

    fn emit(&mut self, code: u8, to: u8, value: i32) {
        self.insns.push(Insn {
            code,
            to,
            from: 0,
            offset: 0,
            value,
        });
    }

    fn emit_from(&mut self, code: u8, to: u8, from: u8, offset: i16) {
        self.insns.push(Insn {
            code,
            to,
            from,
            offset,
            value: 0,
        });
    }

    /// An offset counts from the next instruction; MAX_INSNS keeps it small.
    fn link(mut self) -> Vec<u64> {
        for (at, to) in self.branches {
            self.insns[at].offset = (self.labels[to] as i64 - at as i64 - 1) as i16;
        }
        self.insns.iter().map(Insn::encode).collect()
    }
}

impl Insn {
    /// `struct bpf_insn`; its two register fields are bit fields, whose order follows the machine's.
    fn encode(&self) -> u64 {
        let registers = if cfg!(target_endian = "little") {
            self.from << 4 | self.to
        } else {
            self.to << 4 | self.from
        };
        let [low, high] = self.offset.to_ne_bytes();
        let [a, b, c, d] = self.value.to_ne_bytes();
        u64::from_ne_bytes([self.code, registers, low, high, a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::oracle::devices::{Probe, agree, listing, run};

    fn verdict(rules: &[DeviceRule], probe: &Probe) -> bool {
        match program(rules).unwrap() {
            Some(program) => run(&program, probe.context()),
            None => true,
        }
    }

    fn rules(json: &str) -> Vec<DeviceRule> {
        let list: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        list.iter()
            .map(|rule| parse(rule, "linux.resources.devices[0]").unwrap())
            .chain(defaults())
            .collect()
    }

    fn refusal(json: &str) -> String {
        let rule: LinuxDeviceCgroup = serde_json::from_str(json).unwrap();
        parse(&rule, "linux.resources.devices[3]")
            .unwrap_err()
            .to_string()
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % limit
        }

        fn number(&mut self, far: u32) -> Option<u32> {
            match self.below(8) {
                0..3 => None,
                7 => Some(far - self.below(3) as u32),
                small => Some(small as u32 - 3),
            }
        }

        fn rule(&mut self) -> DeviceRule {
            let kinds = [DeviceType::All, DeviceType::Block, DeviceType::Char];
            DeviceRule {
                allow: self.below(2) == 0,
                kind: kinds[self.below(3) as usize],
                major: self.number((1 << 12) + 1),
                minor: self.number((1 << 20) + 1),
                access: if self.below(3) == 0 {
                    EVERYTHING
                } else {
                    1 + self.below(7) as u8
                },
            }
        }
    }

    #[test]
    fn any_list_is_judged_rule_by_rule() {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        for _ in 0..400 {
            let count = random.below(9);
            let list: Vec<DeviceRule> = (0..count).map(|_| random.rule()).collect();
            agree(&list);
            agree(&[list, defaults()].concat());
        }
    }

    /// name, list, instructions.
    const LISTS: [(&str, &str, usize); 5] = [
        ("none", "[]", 39),
        ("deny all", r#"[{"allow": false, "access": "rwm"}]"#, 39),
        ("docker", DOCKER, 39),
        (
            "containerd",
            r#"[{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                {"allow": true, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
                {"allow": true, "type": "c", "major": 136, "access": "rwm"}]"#,
            35,
        ),
        (
            "a disk, read only",
            r#"[{"allow": true, "type": "b", "major": 8, "minor": 0, "access": "r"}]"#,
            47,
        ),
    ];

    const DOCKER: &str = r#"[
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
        {"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
        {"allow": true, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
        {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]"#;

    #[test]
    fn the_lists_of_engines_are_small_programs() {
        for (name, json, size) in LISTS {
            let count = agree(&rules(json));
            println!("{name}: {count} instructions");
            assert_eq!(count, size, "{name}");
        }
    }

    #[test]
    fn all_that_is_allowed_needs_no_program() {
        let privileged = r#"[{"allow": false, "access": "rwm"}, {"allow": true, "access": "rwm"}]"#;
        assert_eq!(program(&rules(privileged)).unwrap(), None);
        let halves = r#"[{"allow": true, "type": "b", "access": "rwm"},
            {"allow": true, "type": "c", "access": "rw"}]"#;
        assert_eq!(program(&rules(halves)).unwrap(), None);
        assert!(program(&rules("[]")).unwrap().is_some());
        assert!(program(&[]).unwrap().is_some());
    }

    #[test]
    fn each_requested_access_must_be_allowed() {
        let list = rules(r#"[{"allow": true, "type": "c", "major": 10, "access": "r"}]"#);
        let probe = |access| Probe {
            kind: DeviceType::Char,
            major: 10,
            minor: 7,
            access,
        };
        assert!(verdict(&list, &probe(READ)));
        assert!(verdict(&list, &probe(READ | MKNOD)));
        assert!(!verdict(&list, &probe(WRITE)));
        assert!(!verdict(&list, &probe(READ | WRITE)));
        assert!(verdict(&list, &probe(NOTHING)));
        assert!(!verdict(&[], &probe(NOTHING)));
    }

    #[test]
    fn defaults_are_the_standard_devices() {
        let text = "allow c *:* m, allow b *:* m, allow c 1:3 rwm, allow c 1:8 rwm, allow c 1:7 rwm, \
            allow c 5:0 rwm, allow c 1:5 rwm, allow c 1:9 rwm, allow c 136:* rwm, allow c 5:2 rwm, \
            allow c 10:200 rwm";
        assert_eq!(listing(&defaults()), text);
    }

    #[test]
    fn defaults_cannot_be_denied() {
        let list = rules(r#"[{"allow": false, "type": "c", "major": 1, "access": "rwm"}]"#);
        let null = Probe {
            kind: DeviceType::Char,
            major: 1,
            minor: 3,
            access: EVERYTHING,
        };
        assert!(verdict(&list, &null));
        assert!(!verdict(&list, &Probe { minor: 4, ..null }));
    }

    #[test]
    fn a_number_beyond_the_kernels_is_no_other_device() {
        let far = r#"[{"allow": true, "type": "c", "major": 4097, "minor": 1, "access": "rwm"},
            {"allow": true, "type": "c", "major": 9, "minor": 2097152, "access": "rwm"}]"#;
        assert_eq!(program(&rules(far)).unwrap(), program(&defaults()).unwrap());
    }

    #[test]
    fn a_range_is_no_longer_than_an_instruction_can_say() {
        let rule = |major| DeviceRule {
            allow: true,
            kind: DeviceType::Char,
            major: Some(major),
            minor: None,
            access: READ,
        };
        let list: Vec<DeviceRule> = (0..2048).map(rule).collect();
        let probe = |major| Probe {
            kind: DeviceType::Char,
            major,
            minor: 5,
            access: READ,
        };
        let got = [0, 1023, 1024, 2047, 2048].map(|major| verdict(&list, &probe(major)));
        assert_eq!(got, [true, true, true, true, false]);
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let rule = |major, minor, access| DeviceRule {
            allow: true,
            kind: DeviceType::Char,
            major,
            minor,
            access,
        };
        let list: Vec<DeviceRule> = (0..100)
            .flat_map(|n| [rule(Some(n), None, READ), rule(None, Some(2 * n), WRITE)])
            .collect();
        let text = program(&list).unwrap_err().to_string();
        assert!(
            text.contains("linux.resources.devices: 200 rules"),
            "{text}"
        );
    }

    #[test]
    fn rules_are_parsed_and_printed() {
        let list = rules(
            r#"[{"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 42, "minor": -1, "access": "mr"},
                {"allow": true, "type": "b", "major": -1, "minor": 7, "access": "w"}]"#,
        );
        let text: Vec<String> = list.iter().take(3).map(|rule| rule.to_string()).collect();
        assert_eq!(text, ["deny a *:* rwm", "allow c 42:* rm", "allow b *:7 w"]);
    }

    #[test]
    fn faults_name_field_and_value() {
        let table = [
            (
                r#"{"allow": true, "type": "p", "access": "r"}"#,
                "linux.resources.devices[3].type: p: must be a, b or c",
            ),
            (
                r#"{"allow": true, "major": -2, "access": "r"}"#,
                "linux.resources.devices[3].major: -2: must be -1 (any), or a major device number",
            ),
            (
                r#"{"allow": true, "minor": 4294967296, "access": "r"}"#,
                "linux.resources.devices[3].minor: 4294967296: must be -1 (any), or a minor device number",
            ),
            (
                r#"{"allow": true, "access": "rx"}"#,
                "linux.resources.devices[3].access: \"rx\": must be made of r, w and m",
            ),
            (
                r#"{"allow": true}"#,
                "linux.resources.devices[3].access: \"\": must have at least one of r, w and m",
            ),
        ];
        for (json, text) in table {
            assert_eq!(refusal(json), text);
        }
    }
}
