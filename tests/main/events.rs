//! `events`: one report, the stream and its end, and what it says when memory runs out.

use crate::support::{Bundle, Output, Running, has_controller, wait_until};
use serde_json::{Value, json};

fn events(c: &Bundle, flags: &[&str]) -> Output {
    c.call(&[&["events"], flags, &[c.id.as_str()]].concat())
        .finish()
}

fn stream(c: &Bundle, interval: &str) -> Running {
    c.call(&["events", "--interval", interval, &c.id]).spawn()
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect()
}

fn one_report(c: &Bundle) -> Value {
    let output = events(c, &["--stats"]).ok().silent();
    let mut all = lines(&output.stdout());
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["type"], "stats");
    assert_eq!(all[0]["id"], json!(c.id));
    all[0]["data"].take()
}

#[test]
fn one_report_has_the_names_that_engines_know() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let data = one_report(&c);
    let names: Vec<&String> = data.as_object().expect("an object").keys().collect();
    let wanted = [
        "blkio",
        "cpu",
        "cpuset",
        "hugetlb",
        "intel_rdt",
        "memory",
        "network_interfaces",
        "pids",
    ];
    assert_eq!(names, wanted);
    assert_eq!(data["pids"]["current"], 1);
    assert_eq!(
        data["memory"]["kernelTCP"],
        json!({"limit": 0, "failcnt": 0})
    );
    assert_eq!(data["network_interfaces"], Value::Null);
}

#[test]
fn cpu_time_is_in_nanoseconds() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let counted = || {
        let text = std::fs::read_to_string(c.cgroup().join("cpu.stat")).expect("cpu.stat");
        let usage = text.lines().find_map(|l| l.strip_prefix("usage_usec "));
        usage.expect("a usage").parse::<u64>().expect("a number")
    };
    let before = counted();
    let total = one_report(&c)["cpu"]["usage"]["total"].as_u64();
    let total = total.expect("a total");
    assert!(total.is_multiple_of(1000), "{total}");
    assert!((before..=counted()).contains(&(total / 1000)), "{total}");
}

#[test]
fn huge_pages_are_reported_by_size() {
    needs!(has_controller("hugetlb"), "no controller hugetlb");
    let c = bundle!()
        .set(
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 2097152}]),
        )
        .asks(&["pause"]);
    c.up();
    assert_eq!(one_report(&c)["hugetlb"]["2MB"], json!({"failcnt": 0}));
}

#[test]
fn a_created_and_a_paused_container_report_too() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    assert_eq!(one_report(&c)["pids"]["current"], 1);
    c.start().ok();
    c.call(&["pause", &c.id]).finish().ok();
    assert_eq!(one_report(&c)["pids"]["current"], 1);
}

#[test]
fn a_stopped_container_has_no_events() {
    let c = bundle!().asks(&["exit 0"]);
    events(&c, &[]).fails_with("does not exist");
    c.up();
    c.wait_stopped();
    let wanted = format!("container with id {} is not running", c.id);
    events(&c, &["--stats"]).fails_with(&wanted);
    events(&c, &[]).fails_with(&wanted);
}

#[test]
fn the_stream_ends_with_the_last_process() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let stream = stream(&c, "1h");
    wait_until("the stream watches", || watches(&stream, "cgroup.events"));
    c.kill("KILL").ok();
    let output = stream.wait().ok().silent();
    assert_eq!(output.stdout(), "");
}

#[test]
fn the_stream_reports_at_its_interval() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let stream = stream(&c, "20ms");
    wait_until("three reports have come", || {
        stream.stdout().lines().count() >= 3
    });
    c.delete(&["--force"]).ok();
    let output = stream.wait().ok().silent();
    for event in lines(&output.stdout()) {
        assert_eq!(event["type"], "stats");
    }
}

#[test]
fn intervals_without_a_unit_or_of_no_length_are_refused() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    for interval in ["0s", "-1s"] {
        let flag = format!("--interval={interval}");
        events(&c, &[&flag]).fails_with("must be greater than 0");
    }
    for interval in ["5", "soon"] {
        events(&c, &["--interval", interval]).fails_naming("--interval");
    }
}

#[test]
fn running_out_of_memory_is_an_event() {
    needs!(has_controller("memory"), "no controller memory");
    let c = bundle!()
        .set(
            "/linux/resources/memory",
            json!({"limit": 32 << 20, "swap": 32 << 20}),
        )
        .asks(&["line", "read /dev/zero"]);
    let (input, writer) = std::io::pipe().expect("a pipe");
    c.call_new("create", &[]).fd(input, 0).finish().ok();
    c.start().ok();
    let stream = stream(&c, "1h");
    wait_until("the stream watches", || watches(&stream, "memory.events"));
    drop(writer);
    let output = stream.wait().ok();
    assert_eq!(
        lines(&output.stdout()),
        [json!({"type": "oom", "id": c.id})]
    );
}

/// Only what happens after the stream has begun is its matter.
fn watches(stream: &Running, file: &str) -> bool {
    let fds = format!("/proc/{}/fd", stream.child.id());
    let entries = std::fs::read_dir(fds).into_iter().flatten().flatten();
    let mut links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.any(|link| link.ends_with(file))
}

#[test]
fn memory_is_reported_with_its_limit() {
    needs!(has_controller("memory"), "no controller memory");
    let c = bundle!()
        .set("/linux/resources/memory", json!({"limit": 64 << 20}))
        .asks(&["pause"]);
    c.up();
    let memory = &one_report(&c)["memory"];
    assert_eq!(memory["usage"]["limit"], 64 << 20);
    assert!(memory["usage"]["usage"].as_u64() > Some(0));
    assert!(memory["raw"]["anon"].is_u64());
    assert!(memory["swap"]["usage"].as_u64() >= memory["usage"]["usage"].as_u64());
}
