//! What is stopped, frozen or interrupted half-way: the command ends, says why, and leaves nothing.

use crate::support::{Bundle, Running, in_time, lines, send, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

fn shell(line: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", line]})
}

/// A bundle whose create does not end by itself: its hook waits for a file.
fn waiting(c: Bundle) -> Bundle {
    let (begun, go) = (c.path("begun"), c.path("go"));
    let line = format!("touch {begun}; while ! test -e {go}; do sleep 0.01; done");
    let order = c.path("order");
    c.push("/hooks/createRuntime", shell(&line)).push(
        "/hooks/poststop",
        shell(&format!("echo poststop >> {order}")),
    )
}

fn call_until_it_waits(c: &Bundle, verb: &str) -> Running {
    let running = c.call_new(verb, &[]).spawn();
    wait_until("the hook waits", || c.dir.join("begun").exists());
    running
}

#[test]
fn an_interrupted_create_leaves_nothing() {
    let c = waiting(bundle!());
    for (signal, name) in [(libc::SIGTERM, "SIGTERM"), (libc::SIGINT, "SIGINT")] {
        let _ = fs::remove_file(c.path("begun"));
        let creator = call_until_it_waits(&c, "create");
        send(creator.child.id(), signal);
        let output = creator.wait();
        output
            .fails_with(&format!("interrupted by {name}"))
            .exits(128 + signal);
        c.assert_gone();
    }
    assert_eq!(lines(&c.dir.join("order")), ["poststop", "poststop"]);
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let c = waiting(bundle!());
    let running = call_until_it_waits(&c, "run");
    send(running.child.id(), libc::SIGTERM);
    running.wait().exits(128 + libc::SIGTERM);
    c.assert_gone();
}

#[test]
fn a_signal_that_the_caller_ignores_interrupts_nothing() {
    let c = waiting(bundle!());
    let call = c.call_new("create", &[]).setup(|| {
        // SAFETY: SIG_IGN installs no handler.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        Ok(())
    });
    let creator = call.spawn();
    wait_until("the hook waits", || c.dir.join("begun").exists());
    send(creator.child.id(), libc::SIGHUP);
    std::thread::sleep(Duration::from_millis(50));
    fs::write(c.path("go"), "").expect("let the hook go on");
    creator.wait().ok();
    assert_eq!(c.status(), "created");
}

#[test]
fn a_create_whose_init_is_stopped_says_so() {
    let c = bundle!().without("/linux/namespaces", "type", "pid");
    let c = c.push("/hooks/createContainer", shell("kill -STOP $PPID"));
    c.create()
        .fails_with("container init was stopped by a signal");
    c.assert_gone();
}

#[test]
fn a_create_whose_init_is_frozen_says_so() {
    let c = bundle!();
    let file = c.cgroup().join("cgroup.freeze");
    let line = format!("echo 1 > {}", file.display());
    let c = c.push("/hooks/createRuntime", shell(&line));
    c.create().fails_with("container init is frozen");
    c.assert_gone();
}

#[test]
fn a_start_of_a_stopped_init_says_so() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    send(c.pid() as u32, libc::SIGSTOP);
    c.start()
        .fails_with("container init was stopped by a signal");
    assert_eq!(c.status(), "created");
    send(c.pid() as u32, libc::SIGCONT);
    c.start().ok();
    assert_eq!(c.status(), "running");
}

/// A creator that does not run cannot be asked to stop: what it has made goes without it, and it finds that out.
#[test]
fn a_stopped_creator_can_be_deleted_and_fails_when_it_goes_on() {
    let waits = waiting(bundle!());
    let creator = call_until_it_waits(&waits, "create");
    let pid = creator.child.id();
    send(pid, libc::SIGSTOP);
    waits.delete(&[]).fails_with("creating");
    waits.delete(&["--force"]).ok();
    assert!(!waits.state_root().join(&waits.id).exists() && !waits.cgroup().exists());
    fs::write(waits.path("go"), "").expect("let the hook go on");
    send(pid, libc::SIGCONT);
    creator
        .wait()
        .fails_with("deleted by another command while it was being created");
    waits.assert_gone();
    // At other moments: none of them leaves a container that nobody knows, or keeps the id.
    let c = bundle!().asks(&["pause"]);
    for moment in (0..24).map(|step| Duration::from_micros(500 * step)) {
        let creator = c.call_new("create", &[]).spawn();
        std::thread::sleep(moment);
        send(creator.child.id(), libc::SIGSTOP);
        c.delete(&["--force"]).ok();
        send(creator.child.id(), libc::SIGCONT);
        let created = creator.wait().code() == 0;
        // It was stopped before it had begun, or after it had ended.
        let known = c.state_root().join(&c.id).exists();
        assert!(created || !known, "failed, and left a record");
        assert_eq!(c.cgroup().exists(), known, "at {moment:?}");
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}

#[test]
fn a_start_whose_init_dies_says_so_at_once() {
    let c = bundle!().asks(&["pause"]);
    for moment in (0..16).map(|step| Duration::from_micros(250 * step)) {
        c.create().ok();
        let init = c.pid() as u32;
        let start = c.call(&["start", &c.id]).spawn();
        std::thread::sleep(moment);
        send(init, libc::SIGKILL);
        let output = in_time(Duration::from_secs(1), || start.wait());
        let said = output.stderr();
        let fine = output.code() == 0
            || ["has stopped", "already running", "killed by signal"]
                .iter()
                .any(|text| said.contains(text));
        assert!(fine, "{}", output.describe());
        c.wait_stopped();
        c.delete(&[]).ok();
    }
}
