//! Golden plans: the samples, and what engines have really sent, give exactly the text that is kept beside them.
//!
//! Tests only. They plan for a host that is written down here, so that the texts are the same everywhere.
//! `COFFERDAM_ACCEPT_PLANS=1 cargo test golden` writes the texts anew; `git diff` then shows what has changed.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::{Flags, Plan};
use crate::bundle::Bundle;
use crate::host::{Hierarchy, Host};

#[test]
fn every_sample_gives_its_plan() {
    let root = host(false);
    let compare = |directory: &PathBuf| {
        let id = directory
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let flags = Flags {
            id,
            ..Flags::default()
        };
        let plan = Plan::create(&load(&directory.join("config.json")), &root, &flags);
        difference(&directory.join("plan"), &plan.unwrap().to_string())
    };
    let samples = entries(&repository("config-samples"));
    let samples: Vec<PathBuf> = samples.into_iter().filter(|path| path.is_dir()).collect();
    assert!(samples.len() >= 11, "{samples:?}");
    report(samples.iter().filter_map(compare).collect());
}

/// Engines' configs with something of everything.
const KEPT: [&str; 4] = [
    "ctr/004-create",
    "docker/005-create",
    "podman/003-create",
    "podman-rootless/003-create",
];

#[test]
fn every_captured_config_is_planned() {
    let mut differences = Vec::new();
    let captures = captures();
    assert_eq!(captures.len(), 16, "{captures:?}");
    for config in &captures {
        let plan = plan_of(config).to_string();
        let stem = config.to_string_lossy().replace(".config.json", "");
        if KEPT.iter().any(|name| stem.ends_with(name)) {
            differences.extend(difference(Path::new(&(stem + ".plan")), &plan));
        }
    }
    report(differences);
}

#[test]
fn a_difference_shows_the_lines_around_it() {
    let old = "1\n2\n3\n4\n5\n";
    assert_eq!(compare(old, "1\n2\n3\n4\n5\n"), None);
    let changed = compare(old, "1\n2\n3\nfour\n5\n").unwrap();
    assert_eq!(changed, "    3\n  - 4\n  + four\n    5\n");
    assert_eq!(compare(old, "2\n3\n4\n5\n").unwrap(), "  - 1\n    2\n");
    assert_eq!(compare("1\n", "1").unwrap(), "    1\n  - \n");
}

fn host(in_user_namespace: bool) -> Host {
    let cgroup = Hierarchy {
        mount: PathBuf::from("/sys/fs/cgroup"),
        own: PathBuf::from("/"),
    };
    Host {
        euid: 0,
        egid: 0,
        in_user_namespace,
        denies_setgroups: false,
        capabilities: u64::MAX,
        cgroup,
    }
}

fn load(config: &Path) -> Bundle {
    let spec: Result<Spec, _> = serde_json::from_str(&read(config));
    let spec = spec.unwrap_or_else(|error| panic!("{}: {error}", config.display()));
    Bundle::new(PathBuf::from("/bundle"), Box::new(spec))
        .unwrap_or_else(|error| panic!("{}: {error:#}", config.display()))
}

/// As the engine called: its argv lies beside the config.
fn plan_of(config: &Path) -> Plan {
    let argv = read(Path::new(
        &config.to_string_lossy().replace(".config.json", ".argv"),
    ));
    let id = argv.split_whitespace().last().unwrap().to_string();
    let flags = Flags {
        id,
        systemd_cgroup: argv.contains("--systemd-cgroup"),
        ..Flags::default()
    };
    // Without root podman runs its runtime as the root of a user namespace.
    let host = host(config.to_string_lossy().contains("/podman-rootless/"));
    let plan = Plan::create(&load(config), &host, &flags);
    plan.unwrap_or_else(|error| panic!("{}: {error:#}", config.display()))
}

fn captures() -> Vec<PathBuf> {
    let engines = entries(&repository("tests/data/captures"));
    let files = engines.iter().flat_map(|engine| entries(engine));
    files
        .filter(|file| file.to_string_lossy().ends_with(".config.json"))
        .collect()
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let list =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut paths: Vec<PathBuf> = list.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"))
}

/// What differs from the text that is kept, unless the new one is to be kept.
fn difference(file: &Path, plan: &str) -> Option<String> {
    if std::env::var_os("COFFERDAM_ACCEPT_PLANS").is_some_and(|value| value == "1") {
        std::fs::write(file, plan).unwrap();
    }
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    compare(&kept, plan).map(|lines| format!("{}\n{lines}", file.display()))
}

fn report(differences: Vec<String>) {
    assert!(
        differences.is_empty(),
        "plans differ from those that are kept (-), and are now (+):\n\n{}\n\
         If they are right: COFFERDAM_ACCEPT_PLANS=1 cargo test golden",
        differences.join("\n")
    );
}

/// `None` if equal; else the lines that went and came, each with its neighbours.
fn compare(old: &str, new: &str) -> Option<String> {
    if old == new {
        return None;
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let lines = merge(&old, &new);
    let changed = |index: &usize| lines.get(*index).is_some_and(|(mark, _)| *mark != ' ');
    let near = |index: usize| {
        [index.wrapping_sub(1), index, index + 1]
            .iter()
            .any(changed)
    };
    let shown = lines.iter().enumerate().filter(|(index, _)| near(*index));
    Some(
        shown
            .map(|(_, (mark, line))| format!("  {mark} {line}\n"))
            .collect(),
    )
}

/// Every line with ' ' if both have it, '-' if only the old one, '+' if only the new one has it.
fn merge<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    // longest[i][j]: how many lines old[i..] and new[j..] have in common, in order.
    let mut longest = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let skip = longest[i + 1][j].max(longest[i][j + 1]);
            longest[i][j] = if old[i] == new[j] {
                longest[i + 1][j + 1] + 1
            } else {
                skip
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        let (mark, line) = match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if a == b => (' ', a),
            (Some(a), Some(_)) if longest[i + 1][j] >= longest[i][j + 1] => ('-', a),
            (Some(a), None) => ('-', a),
            (_, Some(b)) => ('+', b),
            (None, None) => break,
        };
        i += usize::from(mark != '+');
        j += usize::from(mark != '-');
        lines.push((mark, *line));
    }
    lines
}
