//! `kill`: signals by name and number, to one process or to all, and to whom it may be sent.

use crate::support::{Bundle, wait_until};
use serde_json::json;
use std::fs;

#[test]
fn kill_sends_names_and_numbers() {
    let c = bundle!().asks(&["signals"]);
    let output = c.up();
    output.wait_for("ready");
    for (given, number) in [
        ("USR1", 10),
        ("SIGUSR2", 12),
        ("1", 1),
        ("SIGINT", 2),
        ("WINCH", 28),
    ] {
        c.kill(given).ok().silent();
        output.wait_for(&format!("signal {number}\n"));
    }
    c.call(&["kill", &c.id]).finish().ok();
    output.wait_for("terminated");
    c.wait_stopped();
}

#[test]
fn kill_takes_lower_case_names() {
    let c = bundle!().asks(&["signals"]);
    let output = c.up();
    output.wait_for("ready");
    for (given, number) in [("hup", 1), ("sigusr1", 10), ("40", 40)] {
        c.kill(given).ok();
        output.wait_for(&format!("signal {number}\n"));
    }
}

#[test]
fn kill_takes_realtime_names() {
    let c = bundle!().asks(&["signals"]);
    let output = c.up();
    output.wait_for("ready");
    for (given, number) in [("RTMIN+3", 37), ("SIGRTMIN", 34), ("RTMAX", 64)] {
        c.kill(given).ok();
        output.wait_for(&format!("signal {number}\n"));
    }
}

#[test]
fn kill_zero_only_asks() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    c.kill("0").ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn kill_needs_a_living_container() {
    let c = bundle!().asks(&["exit 0"]);
    c.up();
    c.wait_stopped();
    let before = c.state();
    c.kill("TERM").fails_with("container not running").exits(1);
    c.kill("KILL").fails_with("container not running");
    assert_eq!(c.state(), before);
}

#[test]
fn one_that_ends_before_the_signal_comes_is_not_running() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let call = c.call(&["kill", &c.id, "TERM"]);
    let call = call.without(libc::SYS_pidfd_send_signal, libc::ESRCH);
    call.finish().fails_with("container not running");
}

#[test]
fn unknown_signals_are_refused() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    for signal in ["NOPE", "SIGNOPE", "SIG", "9x"] {
        c.kill(signal).fails_with("unknown signal");
    }
    assert_eq!(c.status(), "running");
}

#[test]
fn kill_all_reaches_every_process_and_forgives_the_stopped() {
    let c = bundle!().asks(&["children 3", "pause"]);
    let output = c.up();
    output.wait_for("children 3 => ok");
    c.call(&["kill", "--all", &c.id, "KILL"]).finish().ok();
    c.wait_stopped();
    c.call(&["kill", "--all", &c.id, "KILL"]).finish().ok();
    c.call(&["kill", "-a", &c.id, "9"]).finish().ok();
}

#[test]
fn kill_without_a_pid_namespace_kills_them_all() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "pid")
        .asks(&["children 3", "pause"]);
    let output = c.up();
    output.wait_for("children 3 => ok");
    c.kill("KILL").ok();
    c.wait_stopped();
    let procs = c.cgroup().join("cgroup.procs");
    wait_until("all are dead", || {
        fs::read_to_string(&procs).unwrap_or_default().is_empty()
    });
    c.delete(&[]).ok();
}

/// Without a pid namespace of the container the end of its init ends nobody else.
#[test]
fn processes_that_outlive_init_can_be_killed() {
    let procs = |c: &Bundle| fs::read_to_string(c.cgroup().join("cgroup.procs"));
    let living = |c: &Bundle| procs(c).unwrap_or_default().lines().count();
    for flags in [&[][..], &["--all"]] {
        let c = bundle!()
            .without("/linux/namespaces", "type", "pid")
            .asks(&["children 3", "exit 0"]);
        c.up().wait_for("children 3 => ok");
        c.wait_stopped();
        assert_eq!(living(&c), 3, "{flags:?}");
        c.kill("USR1").fails_with("container not running");
        let args = [&["kill"], flags, &[&c.id, "KILL"]].concat();
        c.call(&args).finish().ok().silent();
        wait_until("all are dead", || living(&c) == 0);
        c.kill("KILL").fails_with("container not running");
        c.delete(&[]).ok();
    }
}

#[test]
fn processes_that_outlive_init_get_the_signal_that_is_for_all() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "pid")
        .asks(&["children 1", "exit 0"]);
    c.up().wait_for("children 1 => ok");
    c.wait_stopped();
    let pid = fs::read_to_string(c.cgroup().join("cgroup.procs")).expect("read");
    c.call(&["kill", "--all", &c.id, "STOP"]).finish().ok();
    let stat = format!("/proc/{}/stat", pid.trim());
    wait_until("it is stopped", || {
        fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T "))
    });
}

#[test]
fn a_created_container_can_be_killed() {
    let c = bundle!();
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_stopped();
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn a_created_container_dies_of_sigterm() {
    let c = bundle!();
    c.create().ok();
    c.kill("TERM").ok();
    c.wait_stopped();
}

#[test]
fn after_kill_the_state_is_stopped() {
    for pid_namespace in [true, false] {
        let mut c = bundle!().asks(&["children 20", "pause"]);
        if !pid_namespace {
            c = c.without("/linux/namespaces", "type", "pid");
        }
        for _ in 0..5 {
            let output = c.up();
            output.wait_for("children 20 => ok");
            c.kill("KILL").ok();
            assert_eq!(c.status(), "stopped");
            c.delete(&[]).ok();
        }
    }
}

/// More containers in the root of `c`.
fn create_named(c: &mut Bundle, names: &[&str]) {
    for name in names {
        c.id = name.to_string();
        let unique = c.dir.file_name().expect("a name").to_string_lossy();
        let path = format!("/cofferdam-test/{unique}-{name}");
        c.spec["linux"]["cgroupsPath"] = json!(path);
        c.create().ok();
    }
}

fn listed(c: &Bundle) -> Vec<String> {
    let text = c.call(&["list", "--quiet"]).finish().ok().stdout();
    text.lines().map(String::from).collect()
}

#[test]
fn kill_and_delete_take_a_pattern_for_the_whole_name() {
    let mut c = bundle!();
    create_named(&mut c, &["web-1", "web-2", "web-2x", "db"]);
    let act = |args: &[&str]| c.call(args).finish();
    act(&["kill", "--regex", "web-[0-9]", "KILL"]).ok().silent();
    let status = |id: &str| {
        let state = c.call(&["state", id]).finish().ok().stdout();
        let state: serde_json::Value = serde_json::from_str(&state).expect("a state");
        state["status"].as_str().unwrap_or_default().to_string()
    };
    assert_eq!(
        ["web-1", "web-2", "web-2x", "db"].map(status),
        ["stopped", "stopped", "created", "created"]
    );
    // One of them is dead already, and the others get the signal all the same.
    act(&["kill", "--regex", "web-1|db", "KILL"])
        .fails_with("web-1: container not running")
        .exits(1);
    assert_eq!(status("db"), "stopped");
    act(&["delete", "--regex", "web-.|d"]).ok().silent();
    assert_eq!(listed(&c), ["db", "web-2x"]);
    act(&["delete", "--regex", "nothing.*"]).ok().silent();
    act(&["kill", "-r", "nothing.*"]).ok().silent();
    for verb in ["kill", "delete"] {
        act(&[verb, "--regex", "web-("])
            .fails_with("--regex")
            .exits(1);
    }
    act(&["delete", "-r", ".*"]).ok();
    assert_eq!(listed(&c).len(), 0);
}

#[test]
fn delete_by_pattern_goes_on_after_a_failure() {
    let mut c = bundle!().asks(&["pause"]);
    create_named(&mut c, &["a", "b", "c"]);
    c.call(&["start", "b"]).finish().ok();
    c.call(&["delete", "--regex", "[abc]"])
        .finish()
        .fails_with("cannot delete container b that is not stopped: running")
        .exits(1);
    assert_eq!(listed(&c), ["b"]);
    c.call(&["delete", "--force", "--regex", "."]).finish().ok();
    assert_eq!(listed(&c).len(), 0);
}
