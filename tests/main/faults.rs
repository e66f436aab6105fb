//! Faults: the runtime is killed half-way, its records are broken, its limits are tiny.

use crate::support::{Bundle, send, wait_until};
use std::fs;
use std::time::{Duration, Instant};

/// Kills a call after this time, if it has not ended by itself.
fn kill_after(call: crate::support::Call, time: Duration) {
    let begin = Instant::now();
    let mut running = call.spawn();
    while begin.elapsed() < time && matches!(running.child.try_wait(), Ok(None)) {
        std::hint::spin_loop();
    }
    let _ = running.child.kill();
    let _ = running.child.wait();
}

/// Moments from the start of a process to well after its work is done.
fn moments() -> impl Iterator<Item = Duration> {
    (0..30).map(|i| Duration::from_micros(300 + i * i * 20))
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

#[test]
fn a_killed_create_can_be_deleted() {
    let c = bundle!().asks(&["pause"]);
    for moment in moments() {
        kill_after(c.call_new("create", &[]), moment);
        c.delete(&["--force"]).ok();
        wait_until("nothing is left", || !c.cgroup().exists());
        c.assert_gone();
    }
    c.up();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_killed_create_leaves_no_process_without_a_record() {
    let c = bundle!().asks(&["pause"]);
    for moment in moments() {
        kill_after(c.call_new("create", &[]), moment);
        let procs = c.cgroup().join("cgroup.procs");
        let known = || c.call(&["state", &c.id]).finish().code() == 0;
        wait_until("init is recorded or dead", || {
            fs::read_to_string(&procs).unwrap_or_default().is_empty() || known()
        });
        c.delete(&["--force"]).ok();
    }
    c.up();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_killed_start_leaves_it_created_or_running() {
    let c = bundle!().asks(&["pause"]);
    for moment in moments().step_by(3) {
        c.create().ok();
        kill_after(c.call(&["start", &c.id]), moment);
        let status = c.status();
        assert!(status == "created" || status == "running", "{status}");
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}

#[test]
fn a_killed_delete_can_be_repeated() {
    let c = bundle!().asks(&["pause"]);
    for moment in moments().step_by(3) {
        c.up();
        assert_eq!(c.status(), "running");
        kill_after(c.call(&["delete", "--force", &c.id]), moment);
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}

/// Overwrites every file that the runtime keeps about the container.
fn break_state(c: &Bundle, text: &str) {
    for entry in fs::read_dir(c.state_root().join(&c.id))
        .expect("a state directory")
        .flatten()
    {
        if entry.file_type().is_ok_and(|t| t.is_file()) {
            fs::write(entry.path(), text).expect("write");
        }
    }
}

#[test]
fn a_broken_record_is_never_a_silent_leak() {
    let c = bundle!().asks(&["pause"]);
    for text in ["", "garbage", "{}", "null", "{\"pid\": \"x\"}", "\0\0\0"] {
        c.up();
        let pid = c.pid();
        break_state(&c, text);
        let state = c.call(&["state", &c.id]).finish();
        let output = c.delete(&["--force"]);
        let leaked = is_alive(pid);
        if leaked {
            send(pid as u32, libc::SIGKILL);
        }
        wait_until("init is dead", || !is_alive(pid));
        let _ = fs::remove_dir_all(c.state_root().join(&c.id));
        wait_until("the cgroup can go", || {
            !c.cgroup().exists() || fs::remove_dir(c.cgroup()).is_ok()
        });
        assert!(
            output.code() != 0 || !leaked,
            "{text:?}: rc 0 and init lived"
        );
        state.fails();
    }
}

#[test]
fn few_open_files_are_enough() {
    let c = bundle!().asks(&["exit 7"]).remove("/process/rlimits");
    let call = c.call_new("run", &[]).setup(|| {
        let few = libc::rlimit {
            rlim_cur: 32,
            rlim_max: 32,
        };
        // SAFETY: the limit is copied.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &few) };
        Ok(())
    });
    call.finish().exits(7);
}

#[test]
fn a_bundle_that_changed_does_not_stop_delete() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    assert_eq!(c.status(), "running");
    fs::remove_dir_all(c.rootfs().join("tmp")).expect("remove");
    fs::rename(c.dir.join("config.json"), c.dir.join("moved.json")).expect("rename");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn a_container_whose_cgroup_vanished_can_be_deleted() {
    let c = bundle!().asks(&["exit 0"]);
    c.up();
    c.wait_stopped();
    wait_until("the cgroup is empty", || fs::remove_dir(c.cgroup()).is_ok());
    c.delete(&[]).ok();
    c.assert_gone();
}
