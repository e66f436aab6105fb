//! The layers of the source, as a test: what a file names of this crate lies in its own layer or in a lower one.

use std::fs;
use std::path::{Path, PathBuf};

/// From top to bottom. A layer is a folder of src, or a file.
const LAYERS: [&str; 18] = [
    "main",
    "commands",
    "lifecycle",
    "init",
    "facility",
    "supervise",
    "state",
    "cgroup",
    "systemd",
    "programs",
    "channel",
    "plan",
    "bundle",
    "cli",
    "host",
    "protect",
    "text",
    "sys",
];

#[test]
fn imports_point_down() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&source, &mut files);
    assert!(files.len() > 100, "{}", files.len());
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| upward(&source, file))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

/// Returns the lines of a file that name a layer above its own. Tests may name any.
fn upward(source: &Path, file: &Path) -> Vec<String> {
    let name = file.strip_prefix(source).unwrap().with_extension("");
    let own = name.iter().next().unwrap().to_str().unwrap();
    if own == "lib" || name.ends_with("tests") || name.ends_with("golden") {
        return Vec::new();
    }
    let rank = rank(own).unwrap_or_else(|| panic!("src/{own} is in no layer"));
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let names = code.lines().enumerate().flat_map(|(number, line)| {
        let named = line.split("crate::").skip(1).map(first_word);
        named.map(move |layer| (number + 1, layer))
    });
    let is_above = |layer: &&str| self::rank(layer).is_none_or(|other| other < rank);
    names
        .filter(|(_, layer)| !layer.is_empty() && is_above(layer))
        .map(|(number, layer)| {
            format!(
                "src/{}.rs:{number}: {own} may not use {layer}",
                name.display()
            )
        })
        .collect()
}

fn first_word(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
    &text[..end.unwrap_or(text.len())]
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|name| *name == layer)
}
