//! The check of commit messages, .githooks/commit-msg: good and bad messages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const GOOD: [&str; 5] = [
    "mounts: refuse a bind without a source\n\nThe kernel's error names no path.\n\nTested: unit test.\n",
    "docs, tests: describe the check\n\nA body.\n# a comment of git\n",
    "sys/path: open by descriptor: no second lookup\n\nA body.\n",
    "Merge branch 'topic'\n",
    "Revert \"mounts: refuse a bind without a source\"\n",
];

/// A message and a part of the complaint.
const BAD: [(&str, &str); 8] = [
    (
        "refuse a bind without a source\n\nA body.\n",
        "area: summary",
    ),
    ("Mounts: refuse a bind\n\nA body.\n", "area: summary"),
    ("mounts: Refuse a bind\n\nA body.\n", "capital letter"),
    ("mounts: refused a bind\nA body.\n", "second line"),
    ("mounts: fixes a bind\n\nA body.\n", "imperative"),
    ("mounts: refuse a bind.\n\nA body.\n", "full stop"),
    (
        "mounts: refuse a bind\n\n# a comment of git\nSigned-off-by: A <a@b>\n",
        "no body",
    ),
    ("\n# only a comment\n", "area: summary"),
];

#[test]
fn good_messages_pass() {
    for (number, message) in GOOD.iter().enumerate() {
        let output = check(&format!("good-{number}"), message);
        assert!(output.status.success(), "{message}: {}", said(&output));
    }
}

#[test]
fn bad_messages_are_refused_with_the_reason() {
    for (number, (message, reason)) in BAD.iter().enumerate() {
        let output = check(&format!("bad-{number}"), message);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            said(&output).contains(reason),
            "{message}: {}",
            said(&output)
        );
    }
}

#[test]
fn a_subject_has_at_most_72_columns() {
    let message = |columns: usize| format!("a: {}\n\nA body.\n", "ä".repeat(columns - 3));
    assert!(check("longest", &message(72)).status.success());
    let output = check("too-long", &message(73));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("72 columns"), "{}", said(&output));
}

fn check(name: &str, message: &str) -> Output {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("message-{name}"));
    fs::write(&file, message).unwrap();
    Command::new(hooks().join("commit-msg"))
        .arg(&file)
        .output()
        .unwrap()
}

fn hooks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".githooks")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
