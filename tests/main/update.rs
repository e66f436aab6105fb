//! Limits that change while the container lives: what is not asked for stays, what fails is taken back.

use crate::hotplug::{USER, as_user, of_user};
use crate::support::{Bundle, Output, has_controller};
use serde_json::{Value, json};
use std::fs;

pub fn up(c: Bundle) -> Bundle {
    let c = c.asks(&["pause"]);
    c.up();
    c
}

pub fn update(c: &Bundle, resources: &Value) -> Output {
    let args = ["update", "--resources", "-", &c.id];
    c.call(&args).stdin(&resources.to_string()).finish()
}

pub fn by_flags(c: &Bundle, flags: &[&str]) -> Output {
    let args: Vec<&str> = ["update"]
        .iter()
        .chain(flags)
        .copied()
        .chain([c.id.as_str()])
        .collect();
    c.call(&args).finish()
}

pub fn value(c: &Bundle, file: &str) -> String {
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
fn the_state_has_no_record_of_limits() {
    let c = up(bundle!());
    let files = || {
        let names = fs::read_dir(c.state_root().join(&c.id))
            .expect("the state")
            .flatten();
        let mut texts: Vec<_> = names
            .map(|f| (f.file_name(), fs::read(f.path()).ok()))
            .collect();
        texts.sort();
        texts
    };
    let (state, before) = (c.state(), files());
    update(&c, &json!({"unified": {"cgroup.max.depth": "5"}})).ok();
    assert_eq!(value(&c, "cgroup.max.depth"), "5");
    assert_eq!(c.state(), state);
    assert_eq!(files(), before);
    let args = ["exec", &c.id, "/payload", "exit", "0"];
    c.call(&args).finish().ok();
}

#[test]
fn limits_of_the_first_version_are_refused() {
    let c = up(bundle!());
    by_flags(&c, &["--kernel-memory", "0", "--cpu-rt-runtime", "0"])
        .ok()
        .silent();
    for (flags, told) in [
        (
            ["--kernel-memory", "5m"],
            "--kernel-memory: 5242880: cgroup v2 has no such limit",
        ),
        (
            ["--kernel-memory-tcp", "5m"],
            "--kernel-memory-tcp: 5242880: cgroup v2 has no such limit",
        ),
        (
            ["--cpu-rt-runtime", "9"],
            "--cpu-rt-runtime: 9: cgroup v2 has no such limit",
        ),
    ] {
        by_flags(&c, &flags).fails_naming(told);
    }
}

#[test]
fn other_settings_of_the_first_version_are_warned_of() {
    let c = up(bundle!());
    let text = by_flags(&c, &["--cpu-rt-period", "9"]).ok().stderr();
    assert!(
        text.contains("--cpu-rt-period: 9: has no meaning"),
        "{text}"
    );
    let old = json!({"memory": {"swappiness": 60}, "network": {"classID": 7}, "cpu": {"realtimePeriod": 0}});
    let text = update(&c, &old).ok().stderr();
    assert!(
        text.contains("linux.resources.memory.swappiness: 60: has no meaning"),
        "{text}"
    );
    assert!(
        text.contains("linux.resources.network.classID: 7: has no meaning"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 2, "{text}");
}

fn free_huge_pages() -> u64 {
    let text = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    text.map_or(0, |text| text.trim().parse().unwrap_or(0))
}

#[test]
fn huge_pages_in_use_cannot_be_taken_away() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    needs!(
        free_huge_pages() > 0,
        "needs a free huge page (vm.nr_hugepages)"
    );
    // mmap of one page: readable and writable; private, of no file, huge, and made at once.
    let map = "syscall 9 0 2097152 3 0x48022 -1 0";
    let c = bundle!().set(
        "/linux/resources/hugepageLimits",
        pages(4194304)["hugepageLimits"].clone(),
    );
    let c = c.asks(&[map, "pause"]);
    c.up();
    crate::support::wait_until("the page is in use", || {
        value(&c, "hugetlb.2MB.current") == "2097152"
    });
    let output = update(&c, &pages(0)).fails_naming(
        "linux.resources.hugepageLimits[0].limit: write \"0\" to hugetlb.2MB.rsvd.max, which says 4194304 while \
         2097152 are in use: ",
    );
    assert!(
        output.stderr().contains("; end what uses them"),
        "{}",
        output.stderr()
    );
    assert_eq!(value(&c, "hugetlb.2MB.max"), "4194304");
    update(&c, &pages(2097152)).ok();
}

#[test]
fn without_a_cgroup_there_is_nothing_to_limit() {
    let (c, binary) = of_user(bundle!().asks(&["pause"]));
    c.write_config();
    c.give("", USER);
    let call = |args: &[&str]| c.call(args).program(&binary).setup(as_user).finish();
    let dir = c.dir.display().to_string();
    call(&["create", "--bundle", &dir, &c.id]).ok();
    call(&["update", "--pids-limit", "5", &c.id]).fails_with("the container has no cgroup");
    call(&["update", &c.id]).fails_with("no limit given");
    call(&["delete", "--force", &c.id]).ok();
}

#[test]
fn an_update_of_nothing_is_refused_but_for_an_empty_object() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let output = c.call(&["update", &c.id]).finish();
    output.fails_with("no limit given; give --memory");
    let call = c.call(&["update", "--resources", "-", &c.id]);
    call.stdin("{}").finish().ok().silent();
}
