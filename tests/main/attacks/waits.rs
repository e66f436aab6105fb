//! T27: a process of the container, or a helper of a command, is stopped, frozen or traced. Each command ends all the same.

use crate::support::trace::{Fault, Kind, trace};
use crate::support::{Bundle, Call, in_time, seed, send, wait_until};
use serde_json::json;
use std::fs;
use std::time::Duration;

/// A command looks at a process after 5 s of silence. What is stopped or traced is an error then.
const LIMIT: Duration = Duration::from_secs(40);

fn all() -> bool {
    std::env::var_os("COFFERDAM_TORTURE").is_some()
}

/// How often each verb is called.
fn times() -> usize {
    if all() { 200 } else { 10 }
}

fn ends_in_time(call: Call) -> i32 {
    let output = in_time(LIMIT, || call.finish());
    let is_told = output.code() == 0 || !output.stderr().trim().is_empty();
    assert!(is_told, "fails without a word: {}", output.describe());
    output.code()
}

/// Each verb that can be called beside a container again and again.
fn call_all(c: &Bundle) {
    let limits = c.path("limits.json");
    fs::write(
        &limits,
        json!({"unified": {"cgroup.max.depth": "7"}}).to_string(),
    )
    .expect("write");
    let id = c.id.as_str();
    let verbs: [&[&str]; 11] = [
        &["state", id],
        &["list"],
        &["ps", id],
        &["kill", id, "0"],
        &["events", "--stats", id],
        &["stats", id],
        &["update", "--resources", &limits, id],
        &["mounts", "list", id],
        &["mounts", "add", id, "/more", "--type", "tmpfs"],
        &["mounts", "remove", id, "/more"],
        &[
            "exec",
            "--ignore-paused",
            "--detach",
            id,
            "/payload",
            "exit",
            "0",
        ],
    ];
    for args in verbs {
        for _ in 0..times() {
            ends_in_time(c.call(args));
        }
    }
}

#[test]
fn t27_verbs_end_beside_a_created_init_that_is_stopped() {
    let c = bundle!().asks(&["pause"]).folder("more");
    c.create().ok();
    send(c.pid() as u32, libc::SIGSTOP);
    // A stopped init takes no connections, and their queue must not fill up.
    for _ in 0..300 {
        assert_eq!(c.status(), "created");
    }
    call_all(&c);
    for _ in 0..3 {
        c.start().fails_naming("stopped by a signal");
    }
    assert_eq!(ends_in_time(c.call(&["delete", "--force", &c.id])), 0);
}

#[test]
fn t27_verbs_end_beside_a_running_init_that_is_stopped() {
    let c = bundle!().asks(&["pause"]).folder("more");
    c.up();
    send(c.pid() as u32, libc::SIGSTOP);
    call_all(&c);
    assert_eq!(c.status(), "running");
    assert_eq!(ends_in_time(c.call(&["delete", "--force", &c.id])), 0);
}

#[test]
fn t27_verbs_end_beside_an_init_that_is_traced() {
    let c = bundle!().asks(&["pause"]).folder("more");
    c.create().ok();
    let pid = c.pid();
    let tracer = std::thread::spawn(move || {
        // SAFETY: no memory is passed; the process is this test's.
        unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0) };
        std::thread::park();
    });
    let is_traced = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains(") t ")
    };
    wait_until("it is traced", is_traced);
    call_all(&c);
    c.start().fails_naming("stopped by who traces it");
    assert_eq!(ends_in_time(c.call(&["delete", "--force", &c.id])), 0);
    tracer.thread().unpark();
    tracer.join().expect("join");
}

/// Frozen from outside, not by `pause`.
#[test]
fn t27_verbs_end_beside_a_cgroup_that_is_frozen() {
    for is_started in [false, true] {
        let c = bundle!().asks(&["pause"]).folder("more");
        c.create().ok();
        if is_started {
            c.start().ok();
        }
        fs::write(c.cgroup().join("cgroup.freeze"), "1").expect("freeze");
        wait_until("it is frozen", || c.status() == "paused");
        let id = c.id.as_str();
        for args in [
            &["state", id][..],
            &["list"],
            &["ps", id],
            &["start", id],
            &["mounts", "list", id],
        ] {
            for _ in 0..times() {
                ends_in_time(c.call(args));
            }
        }
        c.call(&["exec", id, "/payload", "exit", "0"])
            .finish()
            .fails_naming("paused");
        assert_eq!(ends_in_time(c.call(&["delete", "--force", id])), 0);
    }
}

/// Connections of callers that have ended do not keep a later one out.
#[test]
fn t27_an_init_that_goes_on_can_be_started() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    send(c.pid() as u32, libc::SIGSTOP);
    c.start().fails_naming("stopped by a signal");
    send(c.pid() as u32, libc::SIGCONT);
    c.start().ok();
    wait_until("it runs", || c.status() == "running");
}

/// A caller that is stopped after it has connected does not keep others from starting the container.
#[test]
fn t27_a_start_that_is_stopped_keeps_no_other_out() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let gate = c.state_root().join(&c.id).join("gate");
    let socket = crate::support::connect_to_packets(&gate);
    assert_eq!(ends_in_time(c.call(&["start", &c.id])), 0);
    drop(socket);
}

/// Each process of a command but the first one is held at one of its system calls after the other.
fn hold_each(c: &Bundle, process: usize, call: impl Fn() -> Call) {
    let untroubled = trace(call(), None);
    c.delete(&["--force"]);
    let count = untroubled.processes[process].calls.len();
    let stride = if all() { 5 } else { usize::MAX };
    for at in (seed() as usize % count..count).step_by(stride) {
        let fault = Fault {
            process,
            call: at,
            kind: Kind::Hold,
        };
        println!("{fault:?}");
        let traced = in_time(LIMIT, || trace(call(), Some(fault)));
        c.delete(&["--force"]);
        // The last ones are made or not, as it comes.
        assert!(
            traced.reached || at + 20 > count,
            "{fault:?} of {count} calls"
        );
    }
}

#[test]
fn t27_a_helper_that_is_held_keeps_no_create_waiting() {
    for c in [bundle!(), bundle!().in_user_namespace()] {
        let c = c.asks(&["pause"]);
        hold_each(&c, 1, || c.call_new("create", &[]));
        c.assert_gone();
    }
}

#[test]
fn t27_a_helper_that_is_held_keeps_no_exec_waiting() {
    let c = bundle!().asks(&["pause"]);
    for process in [1, 2] {
        hold_each(&c, process, || {
            c.delete(&["--force"]);
            c.up();
            c.call(&["exec", &c.id, "/payload", "exit", "0"])
        });
    }
}

#[test]
fn t27_a_helper_that_is_held_keeps_no_mounts_waiting() {
    let c = bundle!().asks(&["pause"]).folder("more");
    hold_each(&c, 1, || {
        c.delete(&["--force"]);
        c.up();
        c.call(&["mounts", "add", &c.id, "/more", "--type", "proc"])
    });
}
