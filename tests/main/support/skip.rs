//! Which runtime is under test, and whether a test applies to it. A skipped test is reported as ignored, with the reason.

use super::mask;
use crate::harness::skipped;
use std::path::PathBuf;

/// The bundle of this test; leaves the test when it does not apply here.
macro_rules! bundle {
    () => {{
        fn here() {}
        let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
        if $crate::support::skips(test) {
            return;
        }
        $crate::support::Bundle::new(test)
    }};
}

/// Leaves the test with a reason when a fact of the host is missing.
macro_rules! needs {
    ($fact:expr, $reason:expr) => {
        if !$fact {
            $crate::harness::skipped($reason);
            return;
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Runtime {
    Cofferdam,
    Runc,
    Crun,
}

impl Runtime {
    fn name(self) -> &'static str {
        match self {
            Runtime::Cofferdam => "cofferdam",
            Runtime::Runc => "runc",
            Runtime::Crun => "crun",
        }
    }
}

pub fn binary() -> PathBuf {
    std::env::var_os("RUNTIME")
        .filter(|path| !path.is_empty())
        .map_or_else(|| env!("CARGO_BIN_EXE_cofferdam").into(), PathBuf::from)
}

pub fn runtime() -> Runtime {
    match binary().file_name().and_then(|n| n.to_str()) {
        Some("runc") => Runtime::Runc,
        Some("crun") => Runtime::Crun,
        _ => Runtime::Cofferdam,
    }
}

/// crun raises its locked memory limit before it loads device rules, and stops when it may not.
pub fn cannot_load_device_rules() -> bool {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:\t"))
        .unwrap_or("0");
    runtime() == Runtime::Crun && mask(effective) & SYS_RESOURCE == 0
}

/// Whether this test must not run; `test` is its full path, `main::module::name`. With `COFFERDAM_CONTROL` those of the table
/// run too: to see that they can fail.
pub fn skips(test: &str) -> bool {
    let test = test.split_once("::").map_or(test, |(_, rest)| rest);
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } != 0 {
        skipped("needs root");
        return true;
    }
    let reason = differences()
        .into_iter()
        .find_map(|(name, runtimes, reason)| {
            let applies = test.ends_with(&format!("::{name}"))
                || name.ends_with("::") && test.starts_with(name);
            (applies && runtimes.split(',').any(|r| r == runtime().name())).then_some(reason)
        });
    let Some(reason) = reason.filter(|_| std::env::var_os("COFFERDAM_CONTROL").is_none()) else {
        return false;
    };
    skipped(&format!("on {}: {reason}", runtime().name()));
    true
}

/// The lines of the file: test, runtimes, reason.
fn differences() -> Vec<(&'static str, &'static str, &'static str)> {
    table(include_str!("../differences")).collect()
}

#[test]
fn every_difference_names_one_test() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/main");
    let folders = [folder.join("attacks"), folder];
    let files = folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).expect("read tests").flatten());
    let text: String = files
        .filter_map(|f| std::fs::read_to_string(f.path()).ok())
        .collect();
    for (name, runtimes, reason) in differences() {
        let wanted = match name.strip_suffix("::") {
            Some(module) => format!("\nmod {module};"),
            None => format!("#[test]\nfn {name}()"),
        };
        assert_eq!(text.matches(&wanted).count(), 1, "{name}");
        assert!(
            ["runc", "crun", "runc,crun"].contains(&runtimes) && !reason.is_empty(),
            "{name}"
        );
    }
}

/// A line of `expected_skips`.
pub struct ExpectedSkip {
    pub test: &'static str,
    /// The kind of machine on which the test is skipped.
    pub machine: &'static str,
    /// A part of the reason that the test gives.
    pub reason: &'static str,
}

pub fn expected_skips() -> Vec<ExpectedSkip> {
    table(include_str!("../expected_skips"))
        .map(|(test, machine, reason)| ExpectedSkip {
            test,
            machine,
            reason,
        })
        .collect()
}

/// The lines of a file with three columns; the last one may contain blanks.
fn table(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (first, rest) = line.split_once(' ').expect("a first column");
        let (second, third) = rest.trim_start().split_once(' ').expect("a second column");
        (first, second, third.trim_start())
    })
}
