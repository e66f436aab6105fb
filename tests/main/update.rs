//! Limits that change while the container lives: what is not asked for stays, what fails is taken back.

use crate::support::{Bundle, Output, has_controller};
use serde_json::{Value, json};
use std::fs;

fn up(c: Bundle) -> Bundle {
    let c = c.asks(&["pause"]);
    c.up();
    c
}

fn update(c: &Bundle, resources: &Value) -> Output {
    let args = ["update", "--resources", "-", &c.id];
    c.call(&args).stdin(&resources.to_string()).finish()
}

fn by_flags(c: &Bundle, flags: &[&str]) -> Output {
    let args: Vec<&str> = ["update"]
        .iter()
        .chain(flags)
        .copied()
        .chain([c.id.as_str()])
        .collect();
    c.call(&args).finish()
}

fn value(c: &Bundle, file: &str) -> String {
    let text = fs::read_to_string(c.cgroup().join(file)).expect(file);
    text.trim().to_string()
}

fn pages(bytes: u64) -> Value {
    json!({"hugepageLimits": [{"pageSize": "2MB", "limit": bytes}]})
}

#[test]
fn a_limit_changes_and_others_stay() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    let c = up(bundle!().set("/linux/resources/unified", json!({"cgroup.max.depth": "7"})));
    update(&c, &pages(4194304)).ok().silent();
    assert_eq!(value(&c, "hugetlb.2MB.max"), "4194304");
    assert_eq!(value(&c, "cgroup.max.depth"), "7");
    update(&c, &json!({"unified": {"cgroup.max.depth": "5"}})).ok();
    assert_eq!(value(&c, "cgroup.max.depth"), "5");
    assert_eq!(value(&c, "hugetlb.2MB.max"), "4194304");
}

#[test]
fn resources_come_from_a_file_too() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    let c = up(bundle!());
    fs::write(c.path("limits"), pages(2097152).to_string()).expect("write");
    // A file given, flags do not count.
    let file = format!("--resources={}", c.path("limits"));
    by_flags(&c, &[&file, "--pids-limit", "1"]).ok().silent();
    assert_eq!(value(&c, "hugetlb.2MB.max"), "2097152");
}

#[test]
fn created_and_paused_containers_take_limits() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    update(&c, &pages(2097152)).ok();
    assert_eq!(value(&c, "hugetlb.2MB.max"), "2097152");
    c.start().ok();
    c.call(&["pause", &c.id]).finish().ok();
    update(&c, &pages(4194304)).ok();
    assert_eq!(value(&c, "hugetlb.2MB.max"), "4194304");
    assert_eq!(c.status(), "paused");
}

#[test]
fn a_failed_change_is_taken_back() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    let c = up(bundle!());
    update(&c, &pages(2097152)).ok();
    let mut wrong = pages(4194304);
    wrong["unified"] = json!({"cgroup.max.depth": "deep"});
    update(&c, &wrong).fails_with("linux.resources.unified[\"cgroup.max.depth\"]: write \"deep\"");
    assert_eq!(value(&c, "hugetlb.2MB.max"), "2097152");
}

#[test]
fn nothing_asked_for_is_nothing_changed() {
    let c = up(bundle!());
    for nothing in [
        json!({}),
        json!({"memory": {}, "cpu": {}, "pids": {}, "devices": null}),
    ] {
        update(&c, &nothing).ok().silent();
    }
    by_flags(&c, &[]).ok().silent();
}

#[test]
fn device_rules_never_change() {
    let node = json!({"type": "c", "path": "/dev/loopy", "major": 10, "minor": 237});
    let c = up(bundle!()
        .push("/linux/devices", node)
        .caps(&["CAP_DAC_OVERRIDE"]));
    update(&c, &json!({"devices": [{"allow": true, "access": "rwm"}]})).ok();
    let args = ["exec", &c.id, "/payload", "open", "/dev/loopy", "r"];
    let output = c.call(&args).finish().ok();
    assert_eq!(output.answer("open /dev/loopy r"), "EPERM");
}

#[test]
fn only_the_living_take_limits() {
    let c = bundle!().asks(&["exit 0"]);
    c.up();
    c.wait_stopped();
    update(&c, &json!({})).fails_with("container not running");
    c.call(&["update", "--pids-limit", "5", "nobody"])
        .finish()
        .fails_with("does not exist");
}

#[test]
fn faults_name_the_flag_or_the_field() {
    let c = up(bundle!());
    for (flags, want) in [
        (
            &["--memory", "lots"][..],
            "--memory: \"lots\": must be a number of bytes",
        ),
        (
            &["--memory", "-7"][..],
            "--memory: -7: must be -1 (unlimited), or a number of bytes",
        ),
        (
            &["--blkio-weight", "5"][..],
            "--blkio-weight: 5: must be from 10 to 1000",
        ),
        (&["--cpu-idle", "2"][..], "--cpu-idle: 2: must be 0 or 1"),
        (
            &["--memory", "2m", "--memory-swap", "1m"][..],
            "--memory-swap: 1048576: must not be below --memory, 2097152",
        ),
        (
            &["--resources", "/nonexistent"][..],
            "--resources: read \"/nonexistent\"",
        ),
        (
            &["--l3-cache-schema", "L3:0=f"][..],
            "--l3-cache-schema, --mem-bw-schema: the container was created without",
        ),
    ] {
        by_flags(&c, flags).fails_naming(want);
    }
    for (text, want) in [
        ("[]", "--resources: \"-\": must be a JSON object"),
        ("{", "--resources: \"-\": "),
        (
            "{\"memory\": {\"limit\": \"1g\"}}",
            "linux.resources.memory.limit",
        ),
        (
            "{\"unified\": {\"a/b\": \"1\"}}",
            "linux.resources.unified[\"a/b\"]",
        ),
    ] {
        c.call(&["update", "--resources", "-", &c.id])
            .stdin(text)
            .finish()
            .fails_naming(want);
    }
}

#[test]
fn a_controller_that_is_missing_is_named() {
    needs!(
        !has_controller("memory"),
        "on a host that has the memory controller"
    );
    let c = up(bundle!());
    by_flags(&c, &["--memory", "64m"]).fails_naming("--memory: controller memory is not available");
}

#[test]
fn every_flag_is_written() {
    for controller in ["memory", "cpu", "cpuset", "pids"] {
        needs!(
            has_controller(controller),
            "needs the controllers memory, cpu, cpuset and pids"
        );
    }
    let c = up(bundle!());
    for (flags, file, want) in [
        (
            &["--memory", "64m", "--memory-swap", "128m"][..],
            "memory.max",
            "67108864",
        ),
        (&[], "memory.swap.max", "67108864"),
        (&["--memory-swap", "96m"], "memory.swap.max", "33554432"),
        (&["--memory", "-1"], "memory.max", "max"),
        (&[], "memory.swap.max", "max"),
        (&["--memory-reservation", "16m"], "memory.low", "16777216"),
        (
            &["--cpu-quota", "50000", "--cpu-period", "200000"],
            "cpu.max",
            "50000 200000",
        ),
        (&["--cpu-quota", "60000"], "cpu.max", "60000 200000"),
        (&["--cpu-period", "100000"], "cpu.max", "60000 100000"),
        (&["--cpu-burst", "10000"], "cpu.max.burst", "10000"),
        (
            &["--cpu-quota=-1", "--cpu-burst=0"],
            "cpu.max",
            "max 100000",
        ),
        (&["--cpu-share", "2048"], "cpu.weight", "174"),
        (&["--cpu-idle", "1"], "cpu.idle", "1"),
        (&["--cpu-idle", "0"], "cpu.idle", "0"),
        (&["--cpuset-cpus", "0"], "cpuset.cpus", "0"),
        (&["--cpuset-mems", "0"], "cpuset.mems", "0"),
        (&["--pids-limit", "33"], "pids.max", "33"),
        (&["--pids-limit", "-1"], "pids.max", "max"),
    ] {
        if !flags.is_empty() {
            by_flags(&c, flags).ok().silent();
        }
        assert_eq!(value(&c, file), want, "{flags:?}");
    }
}

#[test]
fn a_limit_below_the_usage_can_be_refused() {
    needs!(has_controller("memory"), "needs the memory controller");
    let c = up(bundle!());
    by_flags(&c, &["--memory", "64m"]).ok();
    let low = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}});
    update(&c, &low).fails_with("rejecting memory limit 4096 <= usage");
    assert_eq!(value(&c, "memory.max"), "67108864");
    assert_eq!(c.status(), "running");
}
