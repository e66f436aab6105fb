//! Everything that is kept in the corpus goes through its target once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::TARGETS;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let mut files: Vec<PathBuf> = list.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_corpus_is_taken() {
    for target in &TARGETS {
        let files = files(&corpus().join(target.name));
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for file in files {
            eprintln!("{}", file.display());
            let begun = Instant::now();
            (target.run)(&fs::read(&file).unwrap());
            // Only what does not end is a fault.
            assert!(begun.elapsed().as_secs() < 60, "{file:?}");
        }
    }
}

#[test]
fn the_corpus_is_small_and_has_targets() {
    let mut bytes = 0;
    for directory in files(&corpus()) {
        let name = directory.file_name().unwrap().to_string_lossy();
        let known = TARGETS.iter().any(|target| target.name == name);
        assert!(known, "{name}: no target has this name");
        let sizes = files(&directory).into_iter();
        bytes += sizes
            .map(|file| fs::metadata(file).unwrap().len())
            .sum::<u64>();
    }
    assert!(bytes < 500_000, "{bytes} bytes");
}
