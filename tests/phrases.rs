//! Engines turn parts of a message into exit codes, or into "it is gone already". Such a part may stand in a message
//! of the source only where it is meant: every place is listed here with its reason, and no place more.

use std::fs;
use std::path::Path;

/// What Docker, containerd, podman, CRI-O and buildah look for, in lower case.
const PHRASES: [&str; 16] = [
    "/attr/",
    "container not running",
    "does not exist",
    "executable file not found",
    "failed to run runc",
    "flag needs an argument",
    "invalid process",
    "is a directory",
    "no such file or directory",
    "no such process",
    "not a directory",
    "open executable",
    "operation not permitted",
    "permission denied",
    "process already finished",
    "requires an argument",
];

/// File, phrase, how often, why.
const MEANT: [(&str, &str, usize, &str); 9] = [
    (
        "src/cli/normalize.rs",
        "flag needs an argument",
        1,
        "podman's probe for flags",
    ),
    (
        "src/cli/mod.rs",
        "flag needs an argument",
        1,
        "the same, as clap finds it",
    ),
    (
        "src/commands/check/kernel.rs",
        "/attr/",
        3,
        "paths that are read; no message",
    ),
    (
        "src/state/container.rs",
        "container not running",
        1,
        "containerd and CRI-O: gone already",
    ),
    (
        "src/state/store.rs",
        "does not exist",
        1,
        "containerd: deleted already",
    ),
    (
        "src/init/exec.rs",
        "executable file not found",
        1,
        "exit code 127",
    ),
    (
        "src/init/explain.rs",
        "no such file or directory",
        3,
        "exit code 127: execve(2) gives ENOENT for it too",
    ),
    (
        "src/init/steps.rs",
        "not a directory",
        1,
        "Docker asks about a directory on a file",
    ),
    (
        "src/facility/lsm.rs",
        "/attr/",
        1,
        "podman explains SELinux",
    ),
];

#[test]
fn phrases_of_engines_stand_only_where_they_are_meant() {
    let mut found = vec![];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    collect(&root.join("src"), &mut |path, text| {
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_string();
        for phrase in PHRASES {
            let count = messages(text).matches(phrase).count();
            let meant = MEANT.iter().find(|row| row.0 == name && row.1 == phrase);
            let allowed = meant.map_or(0, |row| row.2);
            if count != allowed {
                found.push(format!(
                    "{name}: {phrase:?}: {count} times, {allowed} are listed"
                ));
            }
        }
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn every_code_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("docs/errors.md")).unwrap();
    let mut codes = vec![];
    collect(&root.join("src"), &mut |path, text| {
        let program = text.split("#[cfg(test)]").next().unwrap();
        for marker in ["coded(", "refusal("] {
            let after = program.split(marker).skip(1);
            let literal =
                after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            codes.extend(
                literal
                    .filter(|code| code.contains('-'))
                    .map(|code| (path.to_path_buf(), code.to_string())),
            );
        }
    });
    assert!(codes.len() > 20, "{codes:?}");
    for (path, code) in codes {
        assert!(
            table.contains(&format!("| `{code}` |")),
            "{}: {code} has no row",
            path.display()
        );
    }
}

#[test]
fn comments_and_tests_do_not_count() {
    let text = "// permission denied\nfail(\"Permission denied\")\n#[cfg(test)]\nmod tests {\n\"permission denied\"\n";
    assert_eq!(messages(text).matches("permission denied").count(), 1);
}

/// The program without its comments and its tests, in lower case, literals of several lines in one piece.
fn messages(text: &str) -> String {
    let program = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let lines = program
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("//"));
    let joined: Vec<&str> = lines.map(|line| line.trim_end_matches('\\')).collect();
    joined.join(" ").to_lowercase().replace("  ", " ")
}

fn collect(folder: &Path, see: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, see);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            see(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
