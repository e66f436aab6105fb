//! `--timings`: a report of each step on standard error, nothing of it in the container or the log.

use crate::support::Bundle;
use serde_json::Value;
use std::fs;

fn report(c: &Bundle, words: &[&str]) -> Value {
    let output = c
        .call(&[&["--timings", "json"], words].concat())
        .finish()
        .ok();
    serde_json::from_str(&output.stderr()).expect("one JSON object")
}

fn steps(report: &Value) -> Vec<(&str, u64, bool)> {
    let steps = report["steps"].as_array().expect("steps");
    let step = |step: &'_ Value| {
        (
            step["microseconds"].as_u64().expect("a number"),
            step["init"] == true,
        )
    };
    let named = steps
        .iter()
        .map(|one| (one["step"].as_str().expect("a name"), step(one)));
    named
        .map(|(name, (time, init))| (name, time, init))
        .collect()
}

#[test]
fn each_step_of_both_sides_is_timed() {
    let c = bundle!().asks(&["env COFFERDAM_TIMINGS_BEGUN"]);
    c.write_config();
    let created = report(&c, &["create", "--bundle", &c.path(""), &c.id]);
    assert_eq!(created["command"], "create");
    let all = steps(&created);
    let has = |name: &str, init: bool| {
        all.iter()
            .any(|step| step.0.starts_with(name) && step.2 == init)
    };
    for name in [
        "run from a protected copy",
        "read the config",
        "plan",
        "clone init",
        "write the record",
    ] {
        assert!(has(name, false), "{name}: {all:?}");
    }
    assert!(has("mounts[0]: mount proc", true), "{all:?}");
    let of_parent: u64 = all.iter().filter(|step| !step.2).map(|step| step.1).sum();
    let total = created["microseconds"].as_u64().expect("a number");
    assert!(
        of_parent <= total && total - of_parent < 1000 + total / 10,
        "{of_parent} of {total}"
    );
    let started = report(&c, &["start", &c.id]);
    assert!(steps(&started).iter().any(|step| step.0.contains("exec")));
    c.wait_stopped();
    let deleted = report(&c, &["delete", &c.id]);
    assert!(
        steps(&deleted)
            .iter()
            .any(|step| step.0 == "remove the cgroup")
    );
}

#[test]
fn the_report_for_people_is_lines_and_the_container_knows_nothing_of_it() {
    let c = bundle!()
        .asks(&["env COFFERDAM_TIMINGS_BEGUN"])
        .global(&["--timings", "text"]);
    let output = c.run().ok();
    assert_eq!(output.answer("env COFFERDAM_TIMINGS_BEGUN"), "unset");
    let text = output.stderr();
    assert!(text.lines().all(|line| line.contains(" us  ")), "{text}");
    assert!(
        text.contains("  init: mount") || text.contains("  init: mounts[0]"),
        "{text}"
    );
    assert!(text.trim_end().ends_with("in all"), "{text}");
}

#[test]
fn a_failed_command_is_timed_too_and_the_log_holds_its_error_only() {
    let c = bundle!();
    let log = c.path("log");
    let words = [
        "--log",
        &log,
        "--log-format",
        "json",
        "--timings",
        "text",
        "state",
        "nobody",
    ];
    let output = c.call(&words).finish().fails_with("does not exist");
    assert!(output.stderr().contains("in all"));
    assert_eq!(fs::read_to_string(log).expect("a log").lines().count(), 1);
}

#[test]
fn an_unknown_format_is_refused() {
    let c = bundle!();
    c.call(&["--timings", "xml", "list"])
        .finish()
        .fails_naming("--timings");
}
