//! Entries of the profile -> for each architecture, what every system call number gets.
//!
//! Run by the parent. Which rule wins is as in libseccomp, for profiles are written and tested
//! against it. The tables become the sections of the BPF program.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::Arch;

use super::super::bpf::{Compare, Range, Rule, Section, Test, Verdict};
use super::Entry;
use super::architecture::{Architecture, Numbers, is_wide, numbers};

/// What libseccomp does with an architecture that the profile does not list.
pub const BAD_ARCHITECTURE: u32 = libc::SECCOMP_RET_KILL_THREAD;

/// What the kernel says to a number that it does not know, and what C libraries look for before
/// they fall back to an older call.
const NO_SUCH_CALL: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// What one architecture's system call numbers get.
pub struct Table {
    arch: Arch,
    verdicts: BTreeMap<u32, Verdict>,
    default: u32,
    newest: Option<u32>,
    /// For numbers above the newest, if not the default.
    beyond: Option<u32>,
}

impl Table {
    pub fn new(architecture: &Architecture, entries: &[Entry], default: u32) -> Result<Table> {
        let mut table = Table {
            arch: architecture.arch,
            verdicts: BTreeMap::new(),
            default,
            newest: None,
            beyond: None,
        };
        for entry in entries {
            for name in entry.names {
                let numbers = numbers(name, architecture);
                table.newest = table.newest.max(numbers.newest());
                // What the default does anyway is no rule: it must not outdo others.
                if entry.action != default {
                    table.add(entry, &numbers).with_context(|| {
                        format!("{}: {name} on {}", entry.field, architecture.name)
                    })?;
                }
            }
        }
        table.sort();
        table.answer_unknown();
        Ok(table)
    }

    fn add(&mut self, entry: &Entry, numbers: &Numbers) -> Result<()> {
        let wide = is_wide(self.arch);
        for tests in &entry.alternatives {
            let tests = tests.iter().filter_map(|test| fit(test, wide));
            if let Some((number, call)) = numbers.multiplexed {
                // The call's own first argument is behind a pointer: out of reach.
                let mut inner: Vec<Test> = tests.clone().filter(|test| test.index > 0).collect();
                inner.insert(0, selects(call, wide));
                self.add_rule(number, inner, entry.action)?;
            }
            if let Some(number) = numbers.direct {
                self.add_rule(number, tests.collect(), entry.action)?;
            }
        }
        Ok(())
    }

    /// A rule without tests outdoes all that have some; of two such the first one stays.
    fn add_rule(&mut self, number: u32, tests: Vec<Test>, action: u32) -> Result<()> {
        let rule = Rule { tests, action };
        match self.verdicts.get_mut(&number) {
            Some(Verdict::Return(_)) => {}
            _ if rule.tests.is_empty() => {
                self.verdicts.insert(number, Verdict::Return(action));
            }
            Some(Verdict::Rules { rules, .. }) => insert(rules, rule)?,
            None => {
                let verdict = Verdict::Rules {
                    rules: vec![rule],
                    otherwise: self.default,
                };
                self.verdicts.insert(number, verdict);
            }
        }
        Ok(())
    }

    fn sort(&mut self) {
        for verdict in self.verdicts.values_mut() {
            if let Verdict::Rules { rules, .. } = verdict {
                rules.sort_by(precedence);
            }
        }
    }

    /// A profile cannot know the calls that came after it. Programs try them and fall back only on
    /// ENOSYS, so a default that denies must not show there.
    fn answer_unknown(&mut self) {
        let permits = [
            libc::SECCOMP_RET_ALLOW,
            libc::SECCOMP_RET_LOG,
            libc::SECCOMP_RET_TRACE,
        ];
        let action = self.default & libc::SECCOMP_RET_ACTION_FULL;
        if self.newest.is_none() || permits.contains(&action) {
            return;
        }
        self.beyond = Some(NO_SUCH_CALL);
        // s390 passes numbers above 255 in a register, and shows those it does not know as 0,
        // which once was setup(2) (arch/s390/kernel/syscall.c).
        if matches!(self.arch, Arch::ScmpArchS390 | Arch::ScmpArchS390x) {
            self.verdicts.insert(0, Verdict::Return(NO_SUCH_CALL));
        }
    }

    /// Writes down the numbers from `first` on.
    fn write(&self, first: u32, ranges: &mut Vec<Range>) {
        begin(ranges, first, Verdict::Return(self.default));
        for (number, verdict) in &self.verdicts {
            begin(ranges, *number, verdict.clone());
            begin(ranges, number + 1, Verdict::Return(self.default));
        }
        if let (Some(newest), Some(beyond)) = (self.newest, self.beyond) {
            begin(ranges, newest + 1, Verdict::Return(beyond));
        }
    }
}

/// Adds a rule unless one is there that covers it. Where two entries contradict each other so that
/// no order could serve both, libseccomp refuses the profile.
fn insert(rules: &mut Vec<Rule>, rule: Rule) -> Result<()> {
    // Each rule needs an instruction at least, and is compared with all others.
    ensure!(
        rules.len() < libc::BPF_MAXINSNS as usize,
        "the filter needs more instructions than the kernel takes, {} at most; name fewer syscalls, arguments or architectures",
        libc::BPF_MAXINSNS
    );
    for known in rules.iter() {
        let equal = known.tests == rule.tests;
        let narrowed = known.tests.starts_with(&rule.tests);
        ensure!(
            !narrowed || known.action == rule.action,
            "an earlier entry has another action for {} arguments",
            if equal { "the same" } else { "some of these" }
        );
        if rule.tests.starts_with(&known.tests) {
            return Ok(());
        }
    }
    rules.retain(|known| !known.tests.starts_with(&rule.tests));
    rules.push(rule);
    Ok(())
}

/// libseccomp's order of the rules for one call, test by test: the last argument first; equality,
/// then less, then greater; then the greater value. It only matters where rules with different
/// actions overlap.
fn precedence(one: &Rule, other: &Rule) -> Ordering {
    let tests = one.tests.iter().zip(&other.tests);
    let first_difference = tests
        .map(|(one, other)| test_precedence(one, other))
        .find(|order| order.is_ne());
    first_difference.unwrap_or_else(|| one.tests.len().cmp(&other.tests.len()))
}

fn test_precedence(one: &Test, other: &Test) -> Ordering {
    let class = |test: &Test| match (test.compare, test.negated) {
        (Compare::Equal, _) => 0,
        (_, true) => 1,
        (_, false) => 2,
    };
    let values = match class(one) {
        // Below a small value is also below a greater one: the narrower test comes first.
        1 => one.value.cmp(&other.value),
        _ => other.value.cmp(&one.value),
    };
    let places = other.index.cmp(&one.index);
    places.then(class(one).cmp(&class(other))).then(values)
}

/// The test as this architecture can do it; None if it always holds.
fn fit(test: &Test, wide: bool) -> Option<Test> {
    let reach = if wide { u64::MAX } else { u32::MAX.into() };
    let mask = test.mask & reach;
    (mask != 0).then(|| Test {
        mask,
        value: test.value & reach,
        wide,
        ..test.clone()
    })
}

/// Holds for one of the calls behind a multiplexer.
fn selects(call: u32, wide: bool) -> Test {
    Test {
        index: 0,
        compare: Compare::Equal,
        negated: false,
        mask: if wide { u64::MAX } else { u32::MAX.into() },
        value: call.into(),
        wide,
    }
}

/// One section for each AUDIT_ARCH_ value, in the order of the tables.
pub fn sections(tables: &[Table], default: u32) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for table in tables {
        let audit = audit(table.arch);
        if sections.iter().any(|section| section.audit == audit) {
            continue;
        }
        let mut ranges = Vec::new();
        if audit == AUDIT_X86_64 {
            let find = |arch| tables.iter().find(|table| table.arch == arch);
            let (long, x32) = (find(Arch::ScmpArchX86_64), find(Arch::ScmpArchX32));
            write_x86_64(long, x32, default, &mut ranges);
        } else {
            table.write(0, &mut ranges);
        }
        sections.push(Section { audit, ranges });
    }
    sections
}

const AUDIT_X86_64: u32 = Arch::ScmpArchX86_64 as u32;

fn audit(arch: Arch) -> u32 {
    match arch {
        Arch::ScmpArchX32 => AUDIT_X86_64,
        arch => arch as u32,
    }
}

/// x32 calls come as x86_64 ones with this bit in the number.
const X32_BIT: u32 = 0x4000_0000;

/// Numbers below zero, where no call is.
const NEGATIVE: u32 = 0x8000_0000;

/// Negative numbers go by the same bit, as in libseccomp. An exception is -1, with which a tracer
/// skips a call (seccomp(2)): it must not count as a call of an x32 that is not listed.
fn write_x86_64(long: Option<&Table>, x32: Option<&Table>, default: u32, ranges: &mut Vec<Range>) {
    let negative = match (long, x32) {
        (Some(long), None) => long.beyond.unwrap_or(BAD_ARCHITECTURE),
        (Some(long), Some(_)) => long.beyond.unwrap_or(default),
        (None, _) => default,
    };
    let (negative_x32, skipped) = match x32.map(|x32| x32.beyond.unwrap_or(default)) {
        Some(beyond) => (beyond, beyond),
        None => (BAD_ARCHITECTURE, default),
    };
    match long {
        Some(long) => long.write(0, ranges),
        None => begin(ranges, 0, Verdict::Return(BAD_ARCHITECTURE)),
    }
    match x32 {
        Some(x32) => x32.write(X32_BIT, ranges),
        None => begin(ranges, X32_BIT, Verdict::Return(BAD_ARCHITECTURE)),
    }
    begin(ranges, NEGATIVE, Verdict::Return(negative));
    begin(ranges, NEGATIVE | X32_BIT, Verdict::Return(negative_x32));
    begin(ranges, u32::MAX, Verdict::Return(skipped));
}

/// Lets `verdict` hold from `first` on; ranges of one verdict become one.
fn begin(ranges: &mut Vec<Range>, first: u32, verdict: Verdict) {
    if ranges.last().is_some_and(|last| last.first == first) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|last| last.verdict != verdict) {
        ranges.push(Range { first, verdict });
    }
}
