//! The six kinds of hooks: when, where, with which state, and what their failure does.

use crate::support::{Bundle, in_time, lines, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

pub const KINDS: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// A hook that reads its state and then runs the payload with this command.
fn hook(c: &Bundle, kind: &str, command: &str) -> Value {
    let reads = if command.starts_with("hook ") {
        ""
    } else {
        "stdin ; "
    };
    deaf_hook(c, kind, &format!("{reads}{command}"))
}

/// A hook that only runs this command. It sees the host's paths, but in startContainer.
fn deaf_hook(c: &Bundle, kind: &str, command: &str) -> Value {
    let path = if kind == "startContainer" {
        "/payload".into()
    } else {
        c.path("rootfs/payload")
    };
    let args: Vec<&str> = std::iter::once("hook-of-test")
        .chain(command.split(' '))
        .collect();
    json!({"path": path, "args": args})
}

/// Where a hook of this kind writes so that the host finds it in the rootfs.
fn record(c: &Bundle, kind: &str) -> String {
    if kind == "startContainer" {
        "/record".into()
    } else {
        c.path("rootfs/record")
    }
}

/// Adds hooks of all kinds that record what they are given.
fn recorded(mut c: Bundle) -> Bundle {
    for kind in KINDS {
        let command = format!("hook {} {kind}", record(&c, kind));
        let hook = hook(&c, kind, &command);
        c = c.push(&format!("/hooks/{kind}"), hook);
    }
    c
}

fn records(c: &Bundle) -> Vec<Value> {
    let lines = lines(&c.rootfs().join("record"));
    lines
        .iter()
        .map(|l| serde_json::from_str(l).expect("a record"))
        .collect()
}

fn tags(c: &Bundle) -> Vec<String> {
    records(c)
        .iter()
        .map(|r| r["tag"].as_str().expect("a tag").to_string())
        .collect()
}

#[test]
fn hooks_run_in_order() {
    let c = recorded(bundle!().asks(&["append /record {\"tag\":\"process\"}"]));
    c.create().ok().silent();
    assert_eq!(tags(&c), ["prestart", "createRuntime", "createContainer"]);
    c.start().ok();
    c.wait_stopped();
    let mut after = tags(&c);
    after.truncate(4);
    assert_eq!(
        after,
        [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer"
        ]
    );
    assert!(
        tags(&c).contains(&"poststart".to_string()) && !tags(&c).contains(&"poststop".to_string())
    );
    c.delete(&[]).ok();
    assert_eq!(tags(&c).last().map(String::as_str), Some("poststop"));
    assert_eq!(tags(&c).len(), 7);
}

#[test]
fn run_runs_all_hooks() {
    let c = recorded(bundle!().asks(&["exit 0"]));
    c.run().ok();
    let mut found = tags(&c);
    found.sort();
    let mut all = KINDS.to_vec();
    all.sort();
    assert_eq!(found, all);
}

#[test]
fn hooks_get_the_state() {
    let c = recorded(
        bundle!()
            .asks(&["pause"])
            .set("/annotations", json!({"org.example.key": "value"})),
    );
    c.create().ok();
    let pid = c.pid();
    c.start().ok();
    c.delete(&["--force"]).ok();
    let records = records(&c);
    assert_eq!(records.len(), 6);
    for record in &records {
        let (tag, state) = (record["tag"].as_str().expect("a tag"), &record["state"]);
        assert_eq!(state["id"], c.id.as_str(), "{tag}");
        assert_eq!(state["bundle"], c.dir.display().to_string(), "{tag}");
        assert_eq!(state["annotations"]["org.example.key"], "value", "{tag}");
        assert!(state["ociVersion"].is_string(), "{tag}");
        let wanted = match tag {
            "createContainer" | "startContainer" | "poststop" => continue,
            _ => pid,
        };
        assert_eq!(state["pid"], wanted, "{tag}");
    }
}

#[test]
fn the_status_in_the_state_of_hooks() {
    let c = recorded(bundle!().asks(&["pause"]));
    c.up();
    c.delete(&["--force"]).ok();
    let found: Vec<String> = records(&c)
        .iter()
        .map(|r| format!("{}={}", r["tag"], r["state"]["status"]).replace('"', ""))
        .collect();
    let wanted = [
        "prestart=creating",
        "createRuntime=creating",
        "createContainer=creating",
        "startContainer=created",
        "poststart=running",
        "poststop=stopped",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn the_pid_in_hooks_of_the_container_is_as_the_container_sees_it() {
    let c = recorded(bundle!().asks(&["pause"]));
    c.up();
    assert_eq!(tags(&c).len(), 5);
    for record in records(&c) {
        if record["tag"] == "createContainer" || record["tag"] == "startContainer" {
            assert_eq!(record["state"]["pid"], 1, "{}", record["tag"]);
        }
    }
}

#[test]
fn hooks_run_in_their_namespaces() {
    let c = recorded(bundle!().asks(&["pause"]));
    c.create().ok();
    let pid = c.pid();
    c.start().ok();
    c.delete(&["--force"]).ok();
    let host = fs::read_link("/proc/self/ns/net")
        .expect("a namespace")
        .display()
        .to_string();
    for record in records(&c) {
        let inside = record["tag"] == "createContainer" || record["tag"] == "startContainer";
        assert_eq!(
            record["ns"]["net"] != host.as_str(),
            inside,
            "{} of {pid}",
            record["tag"]
        );
    }
}

#[test]
fn the_environment_and_arguments_of_a_hook() {
    let c = bundle!().asks(&["exit 0"]);
    let mut first = hook(
        &c,
        "createRuntime",
        &format!("hook {} env", c.path("rootfs/record")),
    );
    first["env"] = json!(["ONE=1", "TWO=2"]);
    first["args"][0] = json!("other-name");
    let c = c.push("/hooks/createRuntime", first);
    c.create().ok();
    let record = &records(&c)[0];
    assert_eq!(record["env"], json!(["ONE=1", "TWO=2"]));
    assert_eq!(record["argv0"], "other-name");
}

#[test]
fn hooks_of_one_kind_run_in_their_order() {
    let mut c = bundle!();
    for name in ["first", "second", "third"] {
        let hook = hook(
            &c,
            "createRuntime",
            &format!("append {} {name}", c.path("order")),
        );
        c = c.push("/hooks/createRuntime", hook);
    }
    c.create().ok();
    assert_eq!(lines(&c.dir.join("order")), ["first", "second", "third"]);
}

#[test]
fn a_failing_hook_of_create_stops_it() {
    let mut c = bundle!();
    let before = c.spec.clone();
    for kind in ["prestart", "createRuntime", "createContainer"] {
        c.spec = before.clone();
        let fails = hook(&c, kind, "fail-loudly");
        let next = hook(&c, kind, &format!("append {} next", c.path("order")));
        let stop = hook(
            &c,
            "poststop",
            &format!("append {} poststop", c.path("order")),
        );
        c = c
            .push(&format!("/hooks/{kind}"), fails)
            .push(&format!("/hooks/{kind}"), next)
            .push("/hooks/poststop", stop);
        c.create().fails_naming(kind);
        c.call(&["state", &c.id]).finish().fails();
        c.assert_gone();
        assert!(
            !lines(&c.dir.join("order")).contains(&"next".into()),
            "{kind}: the next hook ran"
        );
    }
}

#[test]
fn the_error_of_a_hook_tells_its_output_and_code() {
    let c = bundle!();
    let fails = hook(&c, "createRuntime", "fail-loudly");
    let c = c.push("/hooks/createRuntime", fails);
    let output = c.create().fails_naming("createRuntime hook #0");
    for text in ["exit status 7", "to-stderr", "to-stdout"] {
        assert!(
            output.stderr().contains(text),
            "{text}: {}",
            output.describe()
        );
    }
}

#[test]
fn a_failed_create_runs_poststop() {
    let c = bundle!();
    let fails = hook(&c, "createRuntime", "exit 1");
    let stop = hook(
        &c,
        "poststop",
        &format!("append {} poststop", c.path("order")),
    );
    let c = c
        .push("/hooks/createRuntime", fails)
        .push("/hooks/poststop", stop);
    c.create().fails();
    assert_eq!(lines(&c.dir.join("order")), ["poststop"]);
}

#[test]
fn a_failing_start_container_hook_is_seen_by_start() {
    let c = bundle!().asks(&["write /ran yes"]);
    let fails = hook(&c, "startContainer", "exit 1");
    let c = c.push("/hooks/startContainer", fails);
    c.create().ok();
    c.start().fails_naming("startContainer");
    assert!(!c.rootfs().join("ran").exists(), "the payload ran");
}

#[test]
fn the_payload_does_not_run_after_a_failing_start_container_hook() {
    let c = bundle!().asks(&["write /ran yes"]);
    let fails = hook(&c, "startContainer", "exit 1");
    let c = c.push("/hooks/startContainer", fails);
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start();
    wait_until("it ended", || {
        c.call(&["state", &c.id]).finish().stdout().is_empty() || c.status() == "stopped"
    });
    assert!(!c.rootfs().join("ran").exists(), "the payload ran");
}

#[test]
fn a_failing_poststart_hook_stops_the_container() {
    let c = bundle!().asks(&["pause"]);
    let fails = hook(&c, "poststart", "exit 1");
    let c = c.push("/hooks/poststart", fails);
    c.create().ok();
    let pid = c.pid();
    c.start().fails();
    wait_until("init is dead", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    });
}

#[test]
fn failing_poststop_hooks_are_only_warnings() {
    let c = bundle!().asks(&["exit 0"]);
    let fails = hook(&c, "poststop", "exit 1");
    let next = hook(&c, "poststop", &format!("append {} next", c.path("order")));
    let c = c
        .push("/hooks/poststop", fails)
        .push("/hooks/poststop", next);
    c.up();
    c.wait_stopped();
    c.delete(&[]).ok();
    c.assert_gone();
    assert_eq!(lines(&c.dir.join("order")), ["next"]);
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    let c = bundle!();
    let mut slow = hook(&c, "createRuntime", "pause");
    slow["timeout"] = json!(1);
    let c = c.push("/hooks/createRuntime", slow);
    in_time(Duration::from_secs(5), || c.create()).fails();
    c.assert_gone();
}

#[test]
fn a_hook_that_is_in_time_is_fine() {
    let c = bundle!();
    let mut quick = hook(
        &c,
        "createRuntime",
        &format!("append {} quick", c.path("order")),
    );
    quick["timeout"] = json!(60);
    let c = c.push("/hooks/createRuntime", quick);
    c.create().ok();
    assert_eq!(lines(&c.dir.join("order")), ["quick"]);
}

#[test]
fn a_timeout_must_be_positive() {
    let mut c = bundle!();
    for timeout in [0, -1] {
        let mut hook = hook(&c, "createRuntime", "exit 0");
        hook["timeout"] = json!(timeout);
        c = c.set("/hooks/createRuntime", json!([hook]));
        c.create().fails_naming("timeout");
        c.assert_gone();
    }
}

#[test]
fn a_missing_hook_is_an_error() {
    let c = bundle!().push("/hooks/createRuntime", json!({"path": "/no/such/hook"}));
    c.create().fails_with("/no/such/hook");
    c.assert_gone();
}

#[test]
fn the_path_of_a_hook_must_be_absolute() {
    let c = bundle!().push("/hooks/createRuntime", json!({"path": "hook"}));
    c.create().fails_naming("hooks.createRuntime");
    c.assert_gone();
}

#[test]
fn a_hook_that_does_not_read_its_state_does_no_harm() {
    let long: String = "x".repeat(200_000);
    let c = bundle!().set("/annotations", json!({"org.example.long": long}));
    let quick = deaf_hook(&c, "createRuntime", "exit 0");
    let reads = hook(
        &c,
        "createRuntime",
        &format!("hook {} long", c.path("rootfs/record")),
    );
    let c = c
        .push("/hooks/createRuntime", quick)
        .push("/hooks/createRuntime", reads);
    c.create().ok();
    assert_eq!(
        records(&c)[0]["state"]["annotations"]["org.example.long"]
            .as_str()
            .map(str::len),
        Some(200_000)
    );
}

#[test]
fn a_hook_may_ask_the_runtime_for_the_state() {
    let c = bundle!();
    let runtime = crate::support::binary().display().to_string();
    let root = c.state_root().display().to_string();
    let asks = json!({"path": runtime, "args": ["runtime", "--root", root, "list"], "timeout": 60});
    let c = c.push("/hooks/createRuntime", asks);
    c.create().ok();
    assert_eq!(c.status(), "created");
}

#[test]
fn the_network_namespace_is_there_for_prestart_hooks() {
    let c = recorded(bundle!().asks(&["pause"]));
    c.create().ok();
    let records = records(&c);
    let record = records
        .iter()
        .find(|r| r["tag"] == "prestart")
        .expect("prestart");
    assert_eq!(record["state"]["pid"], c.pid());
}

/// A hook that is a line of shell.
fn shell(line: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", line]})
}

#[test]
fn a_poststop_hook_that_ends_the_runtime_runs_once() {
    let c = bundle!().asks(&["exit 0"]);
    let line = format!("echo ran >> {}; kill -KILL $PPID", c.path("order"));
    let c = c.push("/hooks/poststop", shell(&line));
    c.up();
    c.wait_stopped();
    assert_eq!(c.delete(&[]).code(), 1000 + libc::SIGKILL);
    assert_eq!(c.status(), "stopped");
    c.delete(&[]).ok();
    c.assert_gone();
    assert_eq!(lines(&c.dir.join("order")), ["ran"]);
}

#[test]
fn a_poststop_hook_may_delete_its_container() {
    let c = bundle!().asks(&["exit 0"]);
    let runtime = crate::support::binary().display().to_string();
    let root = c.state_root().display().to_string();
    let order = c.path("order");
    let line = format!(
        "echo ran >> {order}; {runtime} --root {root} delete {} >> {order}",
        c.id
    );
    let c = c
        .push("/hooks/poststop", shell(&line))
        .push("/hooks/poststop", shell(&format!("echo next >> {order}")));
    c.up();
    c.wait_stopped();
    c.delete(&[]).ok();
    c.assert_gone();
    assert_eq!(lines(&c.dir.join("order")), ["ran", "next"]);
}

#[test]
fn poststop_hooks_of_a_failed_create_find_nobody_alive() {
    let c = bundle!().flag(&["--pid-file", "/no/such/directory/pid"]);
    let procs = c.cgroup().join("cgroup.procs");
    let line = format!("cat {} > {}; true", procs.display(), c.path("order"));
    let c = c.push("/hooks/poststop", shell(&line));
    c.create().fails();
    assert_eq!(lines(&c.dir.join("order")), Vec::<String>::new());
    assert!(c.dir.join("order").exists());
}

#[test]
fn the_environment_of_the_caller_reaches_hooks_and_nobody_else() {
    let c = bundle!();
    let look = "s/.*\"pid\":\\([0-9]*\\).*/\\1/";
    let runtime_side = format!(
        "cat /proc/$(sed '{look}')/environ > {}; echo $SECRET >> {}",
        c.path("seen"),
        c.path("given")
    );
    let inside = format!("echo $SECRET >> {}", c.path("given"));
    let c = c
        .push("/hooks/createRuntime", shell(&runtime_side))
        .push("/hooks/createContainer", shell(&inside));
    let call = c.call_new("create", &[]).env("SECRET", "of-the-engine");
    call.finish().ok();
    let later = fs::read(format!("/proc/{}/environ", c.pid())).expect("read");
    for seen in [fs::read(c.path("seen")).expect("read"), later] {
        let text = String::from_utf8_lossy(&seen);
        assert!(!text.contains("of-the-engine"), "{text:?}");
    }
    assert_eq!(
        lines(&c.dir.join("given")),
        ["of-the-engine", "of-the-engine"]
    );
}

#[test]
fn a_failing_hook_of_start_takes_the_container_down() {
    let mut c = bundle!().asks(&["pause"]);
    let before = c.spec.clone();
    for kind in ["startContainer", "poststart"] {
        c.spec = before.clone();
        let fails = hook(&c, kind, "exit 1");
        let order = c.path("order");
        c = c
            .push(&format!("/hooks/{kind}"), fails)
            .push("/hooks/poststop", shell(&format!("echo {kind} >> {order}")));
        c.create().ok();
        c.start().fails_naming(&format!("{kind} hook #0"));
        c.assert_gone();
        c.call(&["state", &c.id]).finish().fails();
    }
    let found = lines(&c.dir.join("order"));
    assert_eq!(found, ["startContainer", "poststart"]);
}

#[test]
fn the_environment_of_hooks_without_their_own() {
    let c = recorded(bundle!().asks(&["pause"])).push("/process/env", json!("OF=process"));
    let call = |verb: &str| c.call(&[verb, &c.id]).env("OF", verb);
    c.call_new("create", &[]).env("OF", "create").finish().ok();
    call("start").finish().ok();
    c.kill("KILL").ok();
    c.wait_stopped();
    call("delete").finish().ok();
    let found: Vec<String> = records(&c)
        .iter()
        .map(|record| {
            let env = record["env"].as_array().expect("a list").iter();
            let mut of = env.filter_map(|entry| entry.as_str()?.strip_prefix("OF="));
            let tag = record["tag"].as_str().expect("a tag");
            format!("{tag}={}", of.next().unwrap_or("none"))
        })
        .collect();
    let wanted = [
        "prestart=create",
        "createRuntime=create",
        "createContainer=create",
        "startContainer=process",
        "poststart=start",
        "poststop=delete",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn the_mount_and_pid_namespaces_of_hooks() {
    let c = recorded(bundle!().asks(&["pause"]));
    c.create().ok();
    let of = |pid: &str, kind: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
        link.display().to_string()
    };
    let init = c.pid().to_string();
    let container = ["mnt", "pid", "uts", "ipc"].map(|kind| (kind, of(&init, kind)));
    c.start().ok();
    c.delete(&["--force"]).ok();
    let records = records(&c);
    assert_eq!(records.len(), 6);
    for record in &records {
        let tag = record["tag"].as_str().expect("a tag");
        let inside = tag == "createContainer" || tag == "startContainer";
        for (kind, theirs) in &container {
            let wanted = if inside { theirs } else { &of("self", kind) };
            assert_eq!(record["ns"][kind], wanted.as_str(), "{tag}: {kind}");
        }
    }
}

#[test]
fn every_kind_of_hook_has_its_timeout() {
    let mut c = bundle!().asks(&["pause"]);
    let before = c.spec.clone();
    for kind in ["prestart", "createContainer", "startContainer", "poststart"] {
        c.spec = before.clone();
        let mut slow = hook(&c, kind, "pause");
        slow["timeout"] = json!(1);
        c = c.push(&format!("/hooks/{kind}"), slow);
        let created = c.create();
        let refused = match kind.starts_with("start") || kind == "poststart" {
            true => c.start(),
            false => created,
        };
        refused
            .fails_naming(kind)
            .fails_with("hook ran past specified timeout of 1.0s");
        c.assert_gone();
    }
    let mut slow = hook(&c, "poststop", "pause");
    slow["timeout"] = json!(1);
    c.spec = before;
    c = c.push("/hooks/poststop", slow);
    c.create().ok();
    let output = c.delete(&[]).ok();
    assert!(output.stderr().contains("past specified timeout of 1.0s"));
    c.assert_gone();
}

#[test]
fn a_start_container_hook_begins_in_the_directory_of_the_process() {
    let c = recorded(bundle!().asks(&["exit 0"])).set("/process/cwd", json!("/tmp"));
    c.run().ok();
    let records = records(&c);
    let start = records
        .iter()
        .find(|record| record["tag"] == "startContainer");
    assert_eq!(start.expect("a record")["cwd"], "/tmp");
}
