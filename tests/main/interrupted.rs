//! Signals that are handled, a stopped and continued process, a frozen cgroup: each call of the runtime that these can
//! interrupt is interrupted once, in all of its processes, and every verb does what it does without.

use crate::support::trace::{Fault, Kind, Trace, trace};
use crate::support::{Call, wait_until};
use serde_json::json;
use std::fs;

/// Something must have been interrupted, and nobody may notice.
fn interrupted(call: Call) -> Trace {
    let traced = trace(call, Some(Fault::INTERRUPT));
    let count: usize = traced.processes.iter().map(|p| p.interrupted.0).sum();
    assert!(
        count > 0,
        "{count} interrupted: {}",
        traced.output.describe()
    );
    assert_eq!(traced.output.code(), 0, "{}", traced.output.describe());
    assert_eq!(traced.output.stderr(), "");
    traced
}

#[test]
fn interrupted_calls_are_made_again() {
    let c = bundle!().asks(&["pause"]);
    interrupted(c.call_new("create", &[]));
    let call = |args: &[&str]| interrupted(c.call(args)).output.stdout();
    let state = |status: &str| assert!(call(&["state", &c.id]).contains(status), "{status}");
    state("\"created\"");
    call(&["start", &c.id]);
    state("\"running\"");
    assert!(call(&["list"]).contains(&c.id));
    let said = call(&["exec", &c.id, "/payload", "env", "PATH"]);
    assert!(said.contains("env PATH => /bin:/"), "{said}");
    call(&["pause", &c.id]);
    state("\"paused\"");
    call(&["resume", &c.id]);
    assert!(call(&["ps", "--format", "json", &c.id]).contains(&c.pid().to_string()));
    assert!(call(&["events", "--stats", &c.id]).contains("\"pids\""));
    call(&["kill", &c.id, "KILL"]);
    c.wait_stopped();
    call(&["delete", &c.id]);
    c.assert_gone();
    call(&["features"]);
}

#[test]
fn interrupted_calls_of_larger_containers_are_made_again() {
    let other = bundle!().asks(&["pause"]);
    other.up();
    let path = format!("/proc/{}/ns/net", other.pid());
    let hook = json!([{"path": "/bin/true", "timeout": 60}]);
    let limits = json!({"unified": {"cgroup.max.depth": "5"}});
    let joining = bundle!()
        .without("/linux/namespaces", "type", "network")
        .push(
            "/linux/namespaces",
            json!({"type": "network", "path": path}),
        );
    for c in [joining, bundle!().in_user_namespace()] {
        let c = c
            .asks(&["pause"])
            .set("/hooks/createRuntime", hook.clone())
            .set("/hooks/createContainer", hook.clone())
            .set("/hooks/poststop", hook.clone())
            .set("/linux/resources/unified", limits["unified"].clone());
        interrupted(c.call_new("create", &["--pid-file", &c.path("pid")]));
        interrupted(c.call(&["start", &c.id]));
        fs::write(c.path("limits.json"), limits.to_string()).expect("write");
        interrupted(c.call(&["update", "--resources", &c.path("limits.json"), &c.id]));
        interrupted(c.call(&["mounts", "add", "-t", "tmpfs", &c.id, "/tmp"]));
        interrupted(c.call(&["mounts", "remove", &c.id, "/tmp"]));
        interrupted(c.call(&["delete", "--force", &c.id]));
        c.assert_gone();
    }
}

#[test]
fn an_interrupted_run_gives_the_exit_code() {
    let c = bundle!().asks(&["report"]);
    interrupted(c.call_new("run", &[])).output.report();
    c.assert_gone();
}

/// A signal that is pending, or a freeze, makes the kernel give up the check of a program with EAGAIN.
#[test]
fn a_device_program_whose_check_was_given_up_is_loaded_again() {
    let c = bundle!().asks(&["pause"]);
    let fault = Fault {
        process: 0,
        call: 0,
        kind: Kind::FailOf(libc::SYS_bpf, libc::EAGAIN),
    };
    let traced = trace(c.call_new("create", &[]), Some(fault));
    assert!(traced.reached);
    assert_eq!(traced.output.code(), 0, "{}", traced.output.describe());
    wait_until("it is created", || c.status() == "created");
}

#[test]
fn a_device_program_that_cannot_be_loaded_or_attached_leaves_no_container() {
    let c = bundle!().asks(&["pause"]);
    for (call, errno) in [
        (0, libc::ENOMEM),
        (1, libc::ENOMEM),
        (1, libc::EPERM),
        (1, libc::E2BIG),
        (1, libc::EINVAL),
    ] {
        let fault = Fault {
            process: 0,
            call,
            kind: Kind::FailOf(libc::SYS_bpf, errno),
        };
        let traced = trace(c.call_new("create", &[]), Some(fault));
        assert!(traced.reached, "call {call} of bpf");
        let output = traced.output.fails_naming("linux.resources.devices: ");
        output.says("device program");
        c.assert_gone();
    }
}
