//! `run`: exit codes, signals, standard streams, detached and kept containers; relative paths.

use crate::support::{send, wait_until};
use serde_json::json;

#[test]
fn run_gives_the_exit_code() {
    let c = bundle!();
    for code in [0, 1, 7, 42, 255] {
        let c = bundle!().asks(&[&format!("exit {code}")]);
        c.run().exits(code).silent();
        c.assert_gone();
    }
    drop(c);
}

#[test]
fn run_gives_128_and_the_signal() {
    let c = bundle!().asks(&["crash"]);
    c.run().exits(128 + libc::SIGSEGV);
    c.assert_gone();
}

#[test]
fn run_forwards_signals() {
    let c = bundle!().asks(&["signals"]);
    let running = c.call_new("run", &[]).spawn();
    wait_until("the payload is ready", || {
        running.stdout().contains("ready")
    });
    send(running.child.id(), libc::SIGUSR1);
    wait_until("the signal arrives", || {
        running.stdout().contains("signal 10")
    });
    send(running.child.id(), libc::SIGTERM);
    running.wait().ok();
    c.assert_gone();
}

#[test]
fn run_passes_stdio_through() {
    let c = bundle!()
        .asks(&["stdin", "stderr to-stderr"])
        .stdin("over here\n");
    let output = c.run().ok();
    assert_eq!(output.answer("stdin"), "ok:over here");
    assert_eq!(output.stderr(), "to-stderr\n");
}

#[test]
fn run_detached_leaves_it_running() {
    let c = bundle!().asks(&["signals"]).flag(&["--detach"]);
    let output = c.run().ok().silent();
    output.wait_for("ready");
    assert_eq!(c.status(), "running");
    assert_ne!(c.pid(), 0);
}

#[test]
fn run_can_keep_the_container() {
    let c = bundle!().asks(&["exit 4"]).flag(&["--keep"]);
    c.run().exits(4);
    assert_eq!(c.status(), "stopped");
    c.delete(&[]).ok();
}

#[test]
fn run_fails_without_a_trace() {
    let c = bundle!().set("/process/args", json!(["nonesuch"]));
    c.run()
        .fails_with("executable file not found in $PATH")
        .exits(1);
    c.assert_gone();
}

#[test]
fn a_relative_bundle_and_the_working_directory_do() {
    let c = bundle!().asks(&["exit 5"]);
    c.write_config();
    c.call(&["run", &c.id]).finish().exits(5);
    c.call(&["run", "--bundle", ".", &c.id]).finish().exits(5);
    c.call(&["run", "-b", "rootfs/..", &c.id]).finish().exits(5);
}

#[test]
fn a_relative_state_root_does() {
    let mut c = bundle!().asks(&["pause"]);
    c = c.global(&["--root", "state"]);
    c.create().ok();
    c.start().ok();
    assert_eq!(c.status(), "running");
    assert!(c.state_root().join(&c.id).exists());
}

/// Between its being made and its program it is the host's program in the host's root.
#[test]
fn nobody_joins_one_whose_program_does_not_run_yet() {
    let mut c = bundle!().asks(&["pause"]);
    for number in 0..1500 {
        c = c.mount("tmpfs", "tmpfs", &format!("/m/{number}"), &[]);
    }
    // On a busy machine it may be made before anybody looks.
    let early = (0..30).any(|_| {
        let running = c.call_new("run", &[]).spawn();
        let mut early = false;
        let joined = loop {
            let output = c.call(&["exec", &c.id, "/payload", "exit", "7"]).finish();
            let said = output.stderr();
            early |= said.contains("that is being created");
            if !said.contains("does not exist") && !said.contains("that is being created") {
                break output;
            }
        };
        joined.exits(7).silent();
        assert_eq!(c.status(), "running");
        c.delete(&["--force"]).ok();
        running.wait().exits(128 + libc::SIGKILL);
        early
    });
    assert!(early, "it was always made before anybody looked");
}

#[test]
fn one_that_is_being_made_can_be_deleted_by_force() {
    let mut c = bundle!();
    for number in 0..1500 {
        c = c.mount("tmpfs", "tmpfs", &format!("/m/{number}"), &[]);
    }
    // On a busy machine it may be made before it is deleted.
    let in_between = (0..30).any(|_| {
        let running = c.call_new("run", &[]).spawn();
        wait_until("there is a record", || c.state_root().join(&c.id).exists());
        c.delete(&["--force"]).ok();
        let said = running.wait().fails().stderr();
        c.assert_gone();
        said.contains("deleted by another command while it was being created")
    });
    assert!(in_between, "it was never deleted while it was being made");
}
