//! Replays the corpus of the fuzz targets, each file once.

#[path = "../fuzz/src/targets/mod.rs"]
#[allow(dead_code, reason = "the unit tests call some of it")]
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

type Target = (&'static str, fn(&[u8]));

/// The name of each program in fuzz/fuzz_targets, and the function that it calls.
const TARGETS: [Target; 18] = [
    ("config", targets::config::config),
    ("process", targets::config::process),
    ("state", targets::config::state),
    ("resources", targets::config::resources),
    ("devices", targets::devices::devices),
    ("seccomp", targets::seccomp::seccomp),
    ("mounts", targets::words::mounts),
    ("idmap", targets::words::idmap),
    ("words", targets::words::words),
    ("args", targets::words::args),
    ("users", targets::words::users),
    ("files", targets::files::files),
    ("bus", targets::files::bus),
    ("program", targets::lookups::program),
    ("home", targets::lookups::home),
    ("subids", targets::lookups::subids),
    ("netlink", targets::lookups::netlink),
    ("resctrl", targets::lookups::resctrl),
];

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut files: Vec<PathBuf> = list.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_taken() {
    for (name, run) in TARGETS {
        let files = files(&directory("corpus").join(name));
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            eprintln!("{}", file.display());
            let begun = Instant::now();
            run(&fs::read(&file).unwrap());
            // Only what does not end is a fault.
            assert!(begun.elapsed().as_secs() < 60, "{file:?}");
        }
    }
}

#[test]
fn every_program_is_replayed() {
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut names = TARGETS.map(|(name, _)| name.to_string());
    names.sort_unstable();
    for place in ["corpus", "fuzz_targets"] {
        let found: Vec<String> = files(&directory(place)).iter().map(stem).collect();
        assert_eq!(found, names, "fuzz/{place}");
    }
}

#[test]
fn the_corpus_is_small() {
    let seeds = files(&directory("corpus"))
        .into_iter()
        .flat_map(|target| files(&target));
    let bytes: u64 = seeds.map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes < 500_000, "{bytes} bytes");
}
