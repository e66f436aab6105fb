//! `kill`: signals by name and number, to one process or to all, and to whom it may be sent.

use crate::support::wait_until;
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
