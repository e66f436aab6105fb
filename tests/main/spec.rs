//! `spec` with flags: what it writes runs as it is, and a wrong value is refused before anything is written.

use crate::support::Bundle;
use serde_json::{Value, json};
use std::fs;

fn config(c: &Bundle) -> Value {
    let text = fs::read_to_string(c.dir.join("config.json")).expect("a config");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn a_command_runs_without_an_edit() {
    let c = bundle!();
    let spec = ["spec", "--", "/payload", "tty", ";", "exit", "7"];
    c.call(&spec).finish().ok().silent();
    assert_eq!(config(&c)["process"]["terminal"], false);
    c.call(&["run", &c.id]).finish().exits(7);
}

#[test]
fn every_flag_reaches_the_program() {
    let c = bundle!();
    fs::rename(c.rootfs(), c.path("tree")).expect("rename");
    let spec = [
        "spec",
        "--hostname=box",
        "--rootfs=tree",
        "--env=A=b",
        "-e",
        "PATH=/nowhere",
        "--cwd=/tmp",
        "--user=5:6",
        "--args=/payload",
        "--args=report",
    ];
    c.call(&spec).finish().ok().silent();
    assert_eq!(
        config(&c)["root"],
        json!({"path": "tree", "readonly": true})
    );
    let report = c.call(&["run", &c.id]).finish().ok().report();
    let text = report.to_string();
    assert!(text.contains("A=b"), "{text}");
    assert_eq!((&report["uid"], &report["gid"]), (&json!(5), &json!(6)));
    assert_eq!(report["cwd"], "/tmp", "{text}");
    assert_eq!(report["hostname"], "box", "{text}");
    assert!(
        text.contains("/nowhere") && !text.contains("/usr/sbin"),
        "{text}"
    );
}

#[test]
fn without_root_a_command_runs_in_a_user_namespace() {
    let c = bundle!();
    let spec = ["spec", "--rootless", "--", "/payload", "report"];
    c.call(&spec).finish().ok().silent();
    let report = c.call(&["run", &c.id]).finish().ok().report();
    let map = report["uid_map"].as_str().expect("a map");
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "0", "1"]);
}

#[test]
fn wrong_values_are_one_line_and_nothing_is_written() {
    let c = bundle!();
    let table: [(&[&str], &str); 8] = [
        (&["--hostname="], "--hostname: "),
        (&["--rootfs="], "--rootfs: "),
        (&["--env=A"], "--env: \"A\": must be NAME=VALUE"),
        (&["--cwd=tmp"], "--cwd: \"tmp\": must be an absolute path"),
        (&["--user=ann"], "--user: must be UID[:GID], by number"),
        (&["--user=4294967295"], "--user: "),
        (&["--user=7", "--rootless"], "--user: 7: --rootless maps"),
        (&["--args=a", "--", "b"], "--args: \"a\": cannot be used"),
    ];
    for (flags, words) in table {
        let args: Vec<&str> = ["spec"].iter().chain(flags).copied().collect();
        let output = c.call(&args).finish().exits(1).fails_naming(words);
        assert_eq!(output.stderr().lines().count(), 1, "{}", output.describe());
        assert!(!c.dir.join("config.json").exists(), "{flags:?}");
    }
}
