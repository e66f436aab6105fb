//! What the program may be made of, as deny.toml says: licences, where crates come from, no crate twice, none that is unwanted.
//! cargo-deny judges the same by it, and knows of faults (`make lint-deps`). This needs nothing but cargo, and is always run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What is read of deny.toml.
#[derive(Debug)]
struct Rules {
    licences: BTreeSet<String>,
    twice: BTreeSet<String>,
    unwanted: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None of what lies in this repository.
    source: Option<String>,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    req: String,
}

#[test]
fn crates_are_as_deny_toml_says() {
    let packages = packages();
    assert!(packages.len() > 30, "{}", packages.len());
    assert_eq!(faults(&rules(), &packages), [""; 0]);
}

fn rules() -> Rules {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let names = |key| names(&text, key);
    Rules {
        licences: names("allow"),
        twice: names("skip"),
        unwanted: names("deny"),
    }
}

/// The first text of each entry of a list: a licence, or the name of a crate.
fn names(text: &str, key: &str) -> BTreeSet<String> {
    let (_, list) = text.split_once(&format!("\n{key} = [")).unwrap();
    let (list, _) = list.split_once(']').unwrap();
    let by_crate: Vec<&str> = list.split("crate = ").skip(1).collect();
    let entries = match by_crate.is_empty() {
        true => list.split(',').collect(),
        false => by_crate,
    };
    let name = |entry: &str| entry.split('"').nth(1).map(str::to_string);
    entries.into_iter().filter_map(name).collect()
}

/// What is compiled for Linux; the crates for other systems are not even fetched.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version=1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let metadata: Metadata = serde_json::from_slice(&output.stdout).unwrap();
    metadata.packages
}

fn faults(rules: &Rules, packages: &[Package]) -> Vec<String> {
    let mut versions = BTreeMap::<&str, Vec<&str>>::new();
    let mut faults = Vec::new();
    for package in packages {
        let name = package.name.as_str();
        versions.entry(name).or_default().push(&package.version);
        faults.extend(fault(rules, package).map(|fault| format!("{name}: {fault}")));
    }
    let twice = versions
        .into_iter()
        .filter(|(name, versions)| versions.len() > 1 && !rules.twice.contains(*name));
    faults.extend(twice.map(|(name, versions)| format!("{name}: several versions: {versions:?}")));
    faults
}

fn fault(rules: &Rules, package: &Package) -> Option<String> {
    let licence = package.license.as_deref().unwrap_or("none");
    if !is_allowed(&rules.licences, licence) {
        return Some(format!("licence {licence}"));
    }
    if rules.unwanted.contains(&package.name) {
        return Some("is not wanted".to_string());
    }
    let is_ours = Path::new(&package.manifest_path).starts_with(root());
    match &package.source {
        Some(source) if source != REGISTRY => return Some(format!("comes from {source}")),
        None if !is_ours => return Some(format!("comes from {}", package.manifest_path)),
        _ => {}
    }
    let any = package.dependencies.iter().find(|other| other.req == "*")?;
    Some(format!("takes any version of {}", any.name))
}

/// An SPDX expression, or the older `A/B`: in each part that AND adds, one licence of those between which OR gives the choice.
/// With parentheses otherwise than so it is stricter, and never more lenient.
fn is_allowed(allowed: &BTreeSet<String>, licence: &str) -> bool {
    let words = licence.replace('/', " OR ");
    let words = words.replace(['(', ')'], " ");
    let is_allowed = |name: &str| allowed.contains(name.trim());
    words
        .split(" AND ")
        .all(|part| part.split(" OR ").any(is_allowed))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_rule_sees_its_offence() {
    type Change = fn(&mut Package);
    let rules = rules();
    let package = |change: Change| {
        let mut package = Package {
            name: "a".to_string(),
            version: "1.0.0".to_string(),
            license: Some("(GPL-2.0-only OR MIT) AND Zlib".to_string()),
            source: Some(REGISTRY.to_string()),
            manifest_path: "/a/Cargo.toml".to_string(),
            dependencies: vec![],
        };
        change(&mut package);
        package
    };
    let judged = |packages: &[Package]| faults(&rules, packages).join("; ");
    assert_eq!(judged(&[package(|_| {})]), "");
    let offences: [(Change, &str); 7] = [
        (|p| p.license = None, "a: licence none"),
        (
            |p| p.license = Some("MIT AND GPL-2.0-only".into()),
            "a: licence MIT AND GPL-2.0-only",
        ),
        (
            |p| p.source = Some("git+https://b.example".into()),
            "a: comes from git+https://b.example",
        ),
        (|p| p.source = None, "a: comes from /a/Cargo.toml"),
        (|p| p.name = "tokio".into(), "tokio: is not wanted"),
        (
            |p| p.name = "openssl-sys".into(),
            "openssl-sys: is not wanted",
        ),
        (
            |p| {
                p.dependencies = vec![Dependency {
                    name: "b".into(),
                    req: "*".into(),
                }]
            },
            "a: takes any version of b",
        ),
    ];
    for (change, told) in offences {
        assert_eq!(judged(&[package(change)]), told);
    }
    let other = |p: &mut Package| p.version = "2.0.0".into();
    let both = [package(|_| {}), package(other)];
    assert_eq!(judged(&both), "a: several versions: [\"1.0.0\", \"2.0.0\"]");
    assert_eq!(
        judged(&both.map(|p| Package {
            name: "syn".into(),
            ..p
        })),
        ""
    );
}
