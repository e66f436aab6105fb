//! Processes of the runtime are killed before each of their system calls in turn, or find that it fails: whatever the moment,
//! the container is in a state that the next command can go on from, and nothing is left behind.
//!
//! By default some of the calls, others with each run of the tests; all of them with COFFERDAM_TORTURE=1.

use crate::sandbox::confinement;
use crate::support::trace::{Fault, Kind, Trace, trace};
use crate::support::{Bundle, Call, PATIENCE, holds_within, seed, send, wait_until};
use serde_json::json;
use std::fs;

/// One of so many calls is tried.
const STRIDE: usize = 11;

/// Goes through the calls of a process until it is one more than it makes. `prepare` gives the call to be traced, and
/// `judge` sees what is left.
pub fn sweep(process: usize, prepare: impl Fn() -> Call, judge: impl Fn(&Trace)) {
    sweep_with(|| Kind::Kill, process, prepare, judge);
}

fn sweep_with(
    kind: impl Fn() -> Kind,
    process: usize,
    prepare: impl Fn() -> Call,
    judge: impl Fn(&Trace),
) {
    let all = std::env::var_os("COFFERDAM_TORTURE").is_some();
    let stride = if all { 1 } else { STRIDE };
    let offset = seed() as usize % stride;
    // The first one always: a process that makes no call at all is none.
    for call in std::iter::once(0).chain((offset.max(1)..).step_by(stride)) {
        let prepared = prepare();
        let fault = Fault {
            process,
            call,
            kind: kind(),
        };
        let moment = Moment(fault);
        let traced = trace(prepared, Some(fault));
        judge(&traced);
        std::mem::forget(moment);
        if !traced.reached {
            assert!(call > 0, "process {process} never made a call");
            return;
        }
    }
}

/// Says at which call it was, when the test fails.
pub struct Moment(pub Fault);

impl Drop for Moment {
    fn drop(&mut self) {
        eprintln!("{:?}", self.0);
    }
}

fn delete_all(c: &Bundle) {
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn a_creator_leaves_what_delete_removes() {
    let plain = bundle!().asks(&["pause"]);
    let user = bundle!().asks(&["pause"]).in_user_namespace();
    for c in [plain, user] {
        let prepare = || c.call_new("create", &[]);
        sweep(0, prepare, |_| delete_all(&c));
        c.up();
    }
}

#[test]
fn a_creator_leaves_no_process_without_a_record() {
    let c = bundle!().asks(&["pause"]);
    let prepare = || c.call_new("create", &[]);
    sweep(0, prepare, |_| {
        wait_until_known(&c, "created");
        delete_all(&c);
    });
}

fn wait_until_known(c: &Bundle, status: &str) {
    let procs = c.cgroup().join("cgroup.procs");
    let is_empty = || fs::read_to_string(&procs).unwrap_or_default().is_empty();
    let status = format!("\"{status}\"");
    let is_known = || {
        let state = c.call(&["state", &c.id]).finish();
        state.stdout().contains(&status)
    };
    wait_until("init is recorded or dead", || is_empty() || is_known());
}

#[test]
fn an_init_that_dies_is_told_and_leaves_nothing() {
    let plain = bundle!().asks(&["pause"]);
    let user = bundle!().asks(&["pause"]).in_user_namespace();
    for c in [plain, user] {
        let prepare = || c.call_new("create", &[]);
        sweep(1, prepare, |traced| {
            if traced.output.code() == 0 {
                // It was killed while it waited to be started, or not at all.
                return delete_all(&c);
            }
            assert_ne!(traced.output.stderr(), "", "an error without a word");
            c.assert_gone();
        });
        c.up();
    }
}

/// One that joins a namespace, for which a process of its own makes init, and has hooks.
fn joining(c: Bundle, other: &Bundle) -> Bundle {
    let path = format!("/proc/{}/ns/net", other.pid());
    c.asks(&["pause"])
        .without("/linux/namespaces", "type", "network")
        .push(
            "/linux/namespaces",
            json!({"type": "network", "path": path}),
        )
        .set("/hooks/createRuntime", json!([{"path": "/bin/true"}]))
        .set("/hooks/poststop", json!([{"path": "/bin/true"}]))
}

#[test]
fn one_that_joins_and_has_hooks_leaves_nothing_either() {
    let other = bundle!().asks(&["pause"]);
    other.up();
    let c = joining(bundle!(), &other);
    for process in [0, 1, 2] {
        sweep(process, || c.call_new("create", &[]), |_| delete_all(&c));
    }
    c.up();
}

#[test]
fn a_runner_leaves_what_delete_removes() {
    let c = bundle!().asks(&["exit 7"]);
    sweep(0, || c.call_new("run", &[]), |_| delete_all(&c));
    c.run().exits(7);
}

/// Without a pid file init starts by itself once it is on record; with one it waits until that is written.
#[test]
fn a_runner_that_does_not_stay_leaves_no_process_without_a_record() {
    let c = bundle!().asks(&["pause"]);
    let file = c.path("pid");
    for flags in [&["--detach"][..], &["--detach", "--pid-file", &file]] {
        let prepare = || c.call_new("run", flags);
        sweep(0, prepare, |_| {
            wait_until_known(&c, "running");
            delete_all(&c);
        });
    }
}

#[test]
fn an_init_that_dies_ends_run_and_leaves_nothing() {
    let plain = bundle!().asks(&["exit 7"]);
    let user = bundle!().asks(&["exit 7"]).in_user_namespace();
    let file = plain.path("pid");
    let told = ["--pid-file", &file];
    for (c, flags) in [(&plain, &[][..]), (&user, &[]), (&plain, &told)] {
        let prepare = || c.call_new("run", flags);
        sweep(1, prepare, |traced| {
            let (code, said) = (traced.output.code(), traced.output.stderr());
            match traced.reached {
                true => assert!(
                    !said.is_empty() && code == 1 || code == 137,
                    "{code}: {said}"
                ),
                false => assert_eq!(code, 7, "{said}"),
            }
            c.assert_gone();
        });
    }
}

/// Either there is a container as it should be, or an error and nothing else. Who is short of memory ends by a signal, as if killed.
#[test]
fn a_call_that_fails_once_is_an_error_that_leaves_nothing() {
    let c = bundle!().asks(&["report", "mounts"]);
    let expected = confinement(&c.run().ok());
    for process in [0, 1] {
        let prepare = || c.call_new("run", &[]);
        let kind = || Kind::Fail(libc::EIO);
        sweep_with(kind, process, prepare, |traced| {
            let (code, said) = (traced.output.code(), traced.output.stderr());
            if code == 0 {
                assert_eq!(confinement(&traced.output), expected);
            }
            if (1..1000).contains(&code) {
                assert_ne!(said, "", "an error without a word");
                assert!(!said.contains("internal error"), "{said}");
                // What cannot be removed after the end stays on record.
                if traced.output.stdout().is_empty() {
                    c.assert_gone();
                }
            }
            delete_all(&c);
        });
    }
}

#[test]
fn a_start_leaves_it_created_or_running() {
    let c = bundle!().asks(&["pause"]);
    let prepare = || {
        c.create().ok();
        c.call(&["start", &c.id])
    };
    sweep(0, prepare, |_| {
        let before = c.status();
        assert!(before == "created" || before == "running", "{before}");
        // It may have been told, and be about to run.
        let again = c.start();
        if again.code() != 0 {
            drop(again.fails_with("already running"));
        }
        wait_until("it runs", || c.status() == "running");
        delete_all(&c);
    });
}

#[test]
fn an_init_that_dies_at_its_start_is_told_or_stopped() {
    let c = bundle!().asks(&["pause"]);
    let prepare = || {
        c.create().ok();
        c.call(&["start", &c.id])
    };
    let kind = || Kind::KillOther(c.pid());
    sweep_with(kind, 0, prepare, |traced| {
        let (code, said) = (traced.output.code(), traced.output.stderr());
        let told = code == 1 && !said.is_empty();
        let before = traced.processes[0].calls.split_last();
        let late = code == 0 && before.is_some_and(|(_, calls)| calls.contains(&libc::SYS_sendmsg));
        assert!(told || late, "{code}: {said}");
        if traced.reached {
            c.wait_stopped();
        }
        delete_all(&c);
    });
}

#[test]
fn a_delete_can_be_repeated() {
    let c = bundle!().asks(&["pause"]);
    let prepare = || {
        c.up();
        c.call(&["delete", "--force", &c.id])
    };
    sweep(0, prepare, |_| delete_all(&c));
}

/// Others than init; one that is to be told of may live.
fn others(c: &Bundle) -> Vec<String> {
    let init = c.pid().to_string();
    let text = fs::read_to_string(c.cgroup().join("cgroup.procs")).unwrap_or_default();
    let pids = text.lines().filter(|pid| *pid != init);
    pids.map(String::from).collect()
}

#[test]
fn an_exec_leaves_no_process_that_nobody_knows() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let file = c.dir.join("exec.pid");
    let prepare = || {
        fs::remove_file(&file).ok();
        let file = file.display().to_string();
        c.call(&[
            "exec",
            "--detach",
            "--pid-file",
            &file,
            &c.id,
            "/payload",
            "pause",
        ])
    };
    for process in [0, 1, 2] {
        sweep(process, prepare, |_| {
            let told = || fs::read_to_string(&file).unwrap_or_default();
            let fine = || others(&c).iter().all(|pid| *pid == told());
            holds_within(PATIENCE, fine);
            assert!(fine(), "{:?} lives, and {:?} is told", others(&c), told());
            for pid in others(&c) {
                send(pid.parse().expect("a pid"), libc::SIGKILL);
            }
            wait_until("the other process is gone", || others(&c).is_empty());
            assert_eq!(c.status(), "running");
        });
    }
}

/// The program that is executed ends by itself; whoever does not come to it must not stay.
#[test]
fn an_exec_that_waits_leaves_no_process_either() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let prepare = || c.call(&["exec", &c.id, "/payload", "exit", "5"]);
    for process in [0, 1, 2] {
        sweep(process, prepare, |traced| {
            wait_until("nobody but init lives", || others(&c).is_empty());
            let (code, said) = (traced.output.code(), traced.output.stderr());
            match traced.reached {
                false => assert_eq!(code, 5, "{said}"),
                true if process == 0 => assert!(code > 1000, "{code}: {said}"),
                true => assert!(
                    !said.is_empty() && code == 255 || [5, 137].contains(&code),
                    "{code}: {said}"
                ),
            }
            assert_eq!(c.status(), "running");
        });
    }
}

#[test]
fn a_pause_leaves_it_running_or_paused() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    for verb in ["pause", "resume"] {
        let prepare = || {
            let other = if verb == "pause" { "resume" } else { "pause" };
            c.call(&[other, &c.id]).finish();
            c.call(&[verb, &c.id])
        };
        sweep(0, prepare, |_| {
            let frozen = fs::read_to_string(c.cgroup().join("cgroup.freeze")).expect("read");
            let expected = if frozen.trim() == "1" {
                "paused"
            } else {
                "running"
            };
            assert_eq!(c.status(), expected);
        });
    }
}

#[test]
fn an_update_leaves_old_or_new_limits() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let file = c.cgroup().join("cgroup.max.descendants");
    let text = c.dir.join("limits.json");
    let limits = |limit: &str| json!({"unified": {"cgroup.max.descendants": limit}}).to_string();
    let prepare = || {
        fs::write(&file, "5").expect("write the limit");
        fs::write(&text, limits("7")).expect("write");
        c.call(&["update", "--resources", &text.display().to_string(), &c.id])
    };
    sweep(0, prepare, |traced| {
        let now = fs::read_to_string(&file).expect("read");
        let right = match now.trim() {
            "7" => true,
            "5" => traced.reached,
            _ => false,
        };
        assert!(right, "{now}");
        assert_eq!(c.status(), "running");
    });
}
