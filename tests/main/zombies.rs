//! An init that is dead and that nobody has reaped yet: for every verb its container is stopped.

use crate::support::{Bundle, Running, send, wait_until};

/// Returns the exit status and the output of each verb, without the id.
fn answers(c: &Bundle) -> Vec<(String, i32, String)> {
    let id = c.id.as_str();
    let verbs = [
        vec!["state", id],
        vec!["list"],
        vec!["start", id],
        vec!["kill", id, "KILL"],
        vec!["kill", id, "0"],
        vec!["kill", "--all", id, "KILL"],
        vec!["exec", id, "/payload", "exit", "0"],
        vec!["pause", id],
        vec!["resume", id],
        vec!["ps", id],
        vec!["events", "--stats", id],
        vec!["update", "--pids-limit", "9", id],
        vec!["mounts", "list", id],
    ];
    let answers = verbs.iter().map(|verb| {
        let output = c.call(verb).finish();
        let text = output.stdout() + &output.stderr();
        let text = text.replace(id, "ID");
        // How init ended is known until it is reaped.
        let text = text.replace(": its init was killed by signal 9", "");
        (verb.join(" "), output.code(), without_time(&text))
    });
    answers.collect()
}

/// `list` and `state` tell when the container was created.
fn without_time(text: &str) -> String {
    let words = text.split_whitespace();
    let kept = words.filter(|word| !word.contains("20") || !word.contains('T'));
    kept.collect::<Vec<_>>().join(" ")
}

/// A container whose init was killed and reaped.
fn reaped(c: &Bundle) -> Vec<(String, i32, String)> {
    c.up();
    c.kill("KILL").ok();
    c.wait_stopped();
    let answers = answers(c);
    c.delete(&[]).ok().silent();
    c.assert_gone();
    answers
}

fn stop(process: &Running) {
    send(process.child.id(), libc::SIGSTOP);
}

/// Deletes the container while its init is still there.
fn assert_deleted(c: &Bundle, flags: &[&str], init: i32) {
    c.delete(flags).ok().silent();
    let state = c.call(&["state", &c.id]).finish();
    state.fails_with("does not exist");
    assert!(!c.cgroup().exists());
    assert!(std::fs::exists(format!("/proc/{init}")).expect("look"));
}

#[test]
fn an_init_that_is_not_reaped_is_stopped() {
    let c = bundle!().asks(&["signals"]);
    let expected = reaped(&c);
    for force in [&[][..], &["--force"]] {
        let run = c.call_new("run", &[]).spawn();
        wait_until("it runs", || run.stdout().contains("ready"));
        let pid = c.pid();
        stop(&run);
        send(pid as u32, libc::SIGKILL);
        wait_until("init is dead", || c.status() == "stopped");
        assert_eq!(answers(&c), expected);
        assert_deleted(&c, force, pid);
        drop(run);
        c.assert_gone();
    }
}

/// Init cannot end before the other process of its pid namespace is reaped, by a caller that does not do so.
#[test]
fn an_init_that_waits_for_others_to_be_reaped_is_stopped() {
    let c = bundle!().asks(&["signals"]);
    let expected = reaped(&c);
    for force in [&[][..], &["--force"]] {
        c.up();
        let exec = c.call(&["exec", &c.id, "/payload", "signals"]).spawn();
        wait_until("it runs", || exec.stdout().contains("ready"));
        let pid = c.pid();
        stop(&exec);
        c.kill("KILL").ok().silent();
        assert_eq!(c.status(), "stopped");
        assert_eq!(answers(&c), expected);
        assert_deleted(&c, force, pid);
        drop(exec);
        c.assert_gone();
    }
}

#[test]
fn a_force_ends_one_that_waits_for_others_to_be_reaped() {
    let c = bundle!().asks(&["signals"]);
    c.up();
    let exec = c.call(&["exec", &c.id, "/payload", "signals"]).spawn();
    wait_until("it runs", || exec.stdout().contains("ready"));
    let pid = c.pid();
    stop(&exec);
    assert_deleted(&c, &["--force"], pid);
    drop(exec);
    c.assert_gone();
}

#[test]
fn an_init_whose_first_thread_has_ended_runs() {
    let c = bundle!().asks(&["end-first-thread"]);
    let output = c.up();
    output.wait_for("ready");
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok().silent();
    c.wait_stopped();
}
