//! What the payload is given: ids, directory, environment, capabilities, limits, files, signals.

use crate::support::{Bundle, Call, mask, node};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io;

fn has(list: &Value, text: &str) -> bool {
    list.as_array()
        .expect("a list")
        .iter()
        .any(|item| item == text)
}

#[test]
fn the_umask_is_022_when_unset() {
    let c = bundle!();
    c.write_config();
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: umask cannot fail.
        unsafe { libc::umask(0o777) };
        Ok(())
    });
    assert_eq!(call.finish().ok().report()["umask"], 0o022);
}

#[test]
fn the_umask_of_the_spec() {
    let c = bundle!().set("/process/user/umask", json!(0o027));
    assert_eq!(c.run().ok().report()["umask"], 0o027);
}

#[test]
fn the_working_directory() {
    let c = bundle!()
        .folder("/some/where")
        .set("/process/cwd", json!("/some/where"));
    assert_eq!(c.run().ok().report()["cwd"], "/some/where");
}

#[test]
fn a_missing_working_directory_is_made() {
    let c = bundle!()
        .set("/process/cwd", json!("/made/for/me"))
        .asks(&["report", "stat /made/for/me"]);
    let output = c.run().ok();
    assert_eq!(output.report()["cwd"], "/made/for/me");
    assert_eq!(output.answer("stat /made/for/me"), "dir 0755 0:0");
}

#[test]
fn a_missing_working_directory_is_made_below_dev_too() {
    let c = bundle!()
        .without("/mounts", "destination", "/dev/shm")
        .set("/process/cwd", json!("/dev/shm"))
        .asks(&["stat /dev/shm"]);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /dev/shm"), "dir 0755 0:0");
}

#[test]
fn a_working_directory_that_only_the_user_may_enter() {
    let c = bundle!()
        .folder("/home/me")
        .set("/process/cwd", json!("/home/me"));
    let home = c.rootfs().join("home/me");
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).expect("chown");
    fs::set_permissions(&home, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let c = c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(c.run().ok().report()["cwd"], "/home/me");
}

#[test]
fn the_working_directory_must_be_absolute() {
    let c = bundle!().set("/process/cwd", json!("relative"));
    c.create().fails_naming("process.cwd");
    c.assert_gone();
}

#[test]
fn a_file_is_no_working_directory() {
    let c = bundle!()
        .file("/plain", "")
        .set("/process/cwd", json!("/plain"));
    c.create().fails();
    c.assert_gone();
}

#[test]
fn the_environment_is_that_of_the_spec() {
    let c = bundle!().set(
        "/process/env",
        json!(["PATH=/bin", "A=1", "EMPTY=", "LONG=a=b=c", "HOME=/root"]),
    );
    let report = c
        .call_new("run", &[])
        .env("LEAK", "yes")
        .finish()
        .ok()
        .report();
    assert_eq!(
        report["env"],
        json!(["PATH=/bin", "A=1", "EMPTY=", "LONG=a=b=c", "HOME=/root"])
    );
}

#[test]
fn of_two_variables_the_last_wins() {
    let c = bundle!()
        .set("/process/env", json!(["A=1", "B=2", "A=3"]))
        .asks(&["env A", "env B"]);
    let output = c.run().ok();
    assert_eq!(
        (
            output.answer("env A").as_str(),
            output.answer("env B").as_str()
        ),
        ("3", "2")
    );
}

#[test]
fn home_comes_from_the_passwd_file_of_the_container() {
    let c = bundle!().asks(&["env HOME"]).file(
        "/etc/passwd",
        "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n",
    );
    assert_eq!(c.run().ok().answer("env HOME"), "/root");
    let c = c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(c.run().ok().answer("env HOME"), "/home/me");
}

#[test]
fn home_of_a_user_without_an_entry_is_the_root() {
    let c = bundle!()
        .asks(&["env HOME"])
        .file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    let c = c.set("/process/user", json!({"uid": 4711, "gid": 1000}));
    assert_eq!(c.run().ok().answer("env HOME"), "/");
}

#[test]
fn home_without_a_passwd_file_is_the_root() {
    let c = bundle!().asks(&["env HOME"]);
    assert_eq!(c.run().ok().answer("env HOME"), "/");
}

#[test]
fn home_of_the_spec_is_kept() {
    let c = bundle!()
        .push("/process/env", json!("HOME=/given"))
        .asks(&["env HOME"]);
    let c = c.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    assert_eq!(c.run().ok().answer("env HOME"), "/given");
}

#[test]
fn a_passwd_file_that_is_a_fifo_does_not_hang() {
    let c = bundle!().asks(&["env HOME"]);
    node(&c.path("rootfs/etc/passwd"), libc::S_IFIFO, 0, 0);
    assert_eq!(c.run().ok().answer("env HOME"), "/");
}

#[test]
fn arguments_arrive_as_they_are() {
    let c = bundle!().set(
        "/process/args",
        json!(["/payload", "report", ";", "env", "", "two words", "é\"\\"]),
    );
    let report = c.run().ok().report();
    assert_eq!(
        report["args"],
        json!(["/payload", "report", ";", "env", "", "two words", "é\"\\"])
    );
}

#[test]
fn the_program_is_looked_up_in_the_path_of_the_spec() {
    let c = bundle!().folder("/first").folder("/second");
    fs::rename(c.rootfs().join("payload"), c.rootfs().join("second/tool")).expect("rename");
    fs::write(c.rootfs().join("first/tool"), "not executable").expect("write");
    let c = c.set("/process/env", json!(["PATH=/nowhere:/first:/second"]));
    let c = c.set("/process/args", json!(["tool", "report"]));
    assert_eq!(c.run().ok().report()["args"][0], "tool");
}

#[test]
fn a_program_with_a_slash_is_relative_to_the_working_directory() {
    let c = bundle!().folder("/work");
    fs::rename(c.rootfs().join("payload"), c.rootfs().join("work/tool")).expect("rename");
    let c = c
        .set("/process/cwd", json!("/work"))
        .set("/process/args", json!(["./tool", "report"]));
    assert_eq!(c.run().ok().report()["cwd"], "/work");
}

#[test]
fn a_missing_program_is_reported_by_create() {
    let c = bundle!().set("/process/args", json!(["nonesuch"]));
    c.create()
        .fails_with("exec: \"nonesuch\": executable file not found in $PATH");
    c.assert_gone();
    let c = c.set("/process/args", json!(["/nonesuch"]));
    c.create().fails_with("no such file or directory");
    let c = c
        .remove("/process/env")
        .set("/process/args", json!(["payload"]));
    c.create().fails_with("executable file not found in $PATH");
    c.assert_gone();
}

#[test]
fn a_program_that_may_not_be_executed_is_reported() {
    let c = bundle!()
        .file("/plain", "text")
        .set("/process/args", json!(["/plain"]));
    c.create().fails_with("permission denied");
    c.assert_gone();
}

#[test]
fn empty_arguments_are_refused() {
    let c = bundle!().set("/process/args", json!([]));
    c.create().fails_naming("process.args");
    c.assert_gone();
}

#[test]
fn limits() {
    let limit = |name: &str, soft: u64, hard: u64| json!({"type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard});
    let cases = [
        ("AS", 1u64 << 32, 1u64 << 33),
        ("CORE", 0, 1000),
        ("CPU", 100, 200),
        ("DATA", 1 << 30, 1 << 31),
        ("FSIZE", 1 << 20, 1 << 21),
        ("LOCKS", 10, 20),
        ("MEMLOCK", 4096, 8192),
        ("MSGQUEUE", 1000, 2000),
        ("NICE", 0, 0),
        ("NOFILE", 100, 200),
        ("NPROC", 500, 600),
        ("RSS", 1 << 20, 1 << 21),
        ("RTPRIO", 0, 0),
        ("RTTIME", 1000, 2000),
        ("SIGPENDING", 100, 200),
        ("STACK", 1 << 20, 1 << 23),
    ];
    let list: Vec<Value> = cases.iter().map(|(n, s, h)| limit(n, *s, *h)).collect();
    let c = bundle!().set("/process/rlimits", json!(list));
    let report = c.run().ok().report();
    for (name, soft, hard) in cases {
        assert_eq!(report["rlimits"][name], json!([soft, hard]), "{name}");
    }
}

#[test]
fn unknown_limits_are_refused() {
    let mut c = bundle!();
    let limit = |name: &str| json!({"type": name, "soft": 10, "hard": 10});
    let cases = [
        json!([limit("RLIMIT_NOPE")]),
        json!([limit("NOFILE")]),
        json!([{"soft": 1, "hard": 1}]),
    ];
    for given in cases {
        c = c.set("/process/rlimits", given);
        c.create().fails_naming("process.rlimits");
        c.assert_gone();
    }
}

#[test]
fn duplicate_limits_are_refused() {
    let limit = json!({"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10});
    let c = bundle!().set("/process/rlimits", json!([limit, limit]));
    c.create().fails_naming("process.rlimits");
    c.assert_gone();
}

#[test]
fn a_soft_limit_above_the_hard_one_is_refused() {
    let c = bundle!().set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]),
    );
    c.create().fails();
    c.assert_gone();
}

#[test]
fn the_out_of_memory_score() {
    let c = bundle!().set("/process/oomScoreAdj", json!(321));
    assert_eq!(c.run().ok().report()["oom"], "321");
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("read");
    let c = c.remove("/process/oomScoreAdj");
    assert_eq!(c.run().ok().report()["oom"], own.trim());
}

#[test]
fn only_stdio_is_open() {
    let c = bundle!();
    let secret = || File::open("/").expect("open");
    let call = c
        .call_new("run", &[])
        .fd(secret(), 3)
        .fd(secret(), 17)
        .fd(secret(), 63);
    let report = call.finish().ok().report();
    let names: Vec<&String> = report["fds"].as_object().expect("files").keys().collect();
    assert_eq!(names, ["0", "1", "2"], "{}", report["fds"]);
}

#[test]
fn preserved_files_are_open() {
    let c = bundle!();
    let file = |name: &str| File::create(c.path(name)).expect("create");
    let call = c
        .call_new("run", &["--preserve-fds", "2"])
        .fd(file("one"), 3)
        .fd(file("two"), 4)
        .fd(file("three"), 5);
    let files = call.finish().ok().report()["fds"].clone();
    assert!(
        files["3"].as_str().is_some_and(|p| p.ends_with("one")),
        "{files}"
    );
    assert!(
        files["4"].as_str().is_some_and(|p| p.ends_with("two")),
        "{files}"
    );
    assert!(files["5"].is_null(), "{files}");
}

#[test]
fn a_missing_preserved_file_is_an_error() {
    let c = bundle!();
    for count in ["1", "40"] {
        // Whoever runs the tests may have left it open.
        let call = c.call_new("run", &["--preserve-fds", count]);
        let call = call.through_shell("exec 3>&-; exec \"$0\" \"$@\"");
        call.finish().fails_naming("unable to stat preserved-fd 3");
        c.assert_gone();
    }
}

#[test]
fn sockets_of_socket_activation_are_passed() {
    let c = bundle!();
    let file = |name: &str| File::create(c.path(name)).expect("create");
    let call = c.call_new("run", &["--preserve-fds", "1"]);
    let call = call.through_shell("LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"");
    let report = call
        .fd(file("listen"), 3)
        .fd(file("kept"), 4)
        .finish()
        .ok()
        .report();
    assert!(
        report["fds"]["3"]
            .as_str()
            .is_some_and(|p| p.ends_with("listen")),
        "{report}"
    );
    assert!(
        report["fds"]["4"]
            .as_str()
            .is_some_and(|p| p.ends_with("kept")),
        "{report}"
    );
    assert!(
        has(&report["env"], "LISTEN_FDS=1") && has(&report["env"], "LISTEN_PID=1"),
        "{report}"
    );
}

/// sd_listen_fds(3): what is not for this process is for another one, which has handed its environment on.
#[test]
fn sockets_of_socket_activation_that_are_for_another_are_not_passed() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let other = bundle!();
    for variables in [
        "LISTEN_FDS=1 LISTEN_PID=1",
        "LISTEN_FDS=1",
        "LISTEN_FDS=1 LISTEN_PID=",
        "LISTEN_FDS=40 LISTEN_PID=1",
    ] {
        let script = format!("{variables} exec \"$0\" \"$@\"");
        let report = |call: Call| {
            let file = File::create(c.path("listen")).expect("create");
            let call = call.through_shell(&script).fd(file, 3);
            call.finish().ok().report()
        };
        let exec = c.call(&["exec", &c.id, "/payload", "report"]);
        for report in [report(other.call_new("run", &[])), report(exec)] {
            let env = report["env"].to_string();
            assert!(!env.contains("LISTEN_"), "{variables}: {env}");
            let fds = report["fds"].to_string();
            assert!(!fds.contains("listen"), "{variables}: {fds}");
        }
    }
}

#[test]
fn signals_are_reset() {
    let c = bundle!();
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: plain calls on local memory.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGUSR1);
            libc::sigaddset(&mut set, libc::SIGRTMAX());
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            libc::signal(libc::SIGUSR2, libc::SIG_IGN);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        }
        Ok(())
    });
    let status = call.finish().ok().report()["status"].clone();
    // Two signals belong to the C library and cannot be set through it.
    let signals = |name: &str| mask(status[name].as_str().expect("a mask")) & !(3 << 31);
    assert_eq!((signals("SigBlk"), signals("SigIgn")), (0, 0));
}

#[test]
fn an_ignored_child_signal_does_not_confuse_run() {
    let c = bundle!().asks(&["exit 7"]);
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: sets a disposition.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        Ok(())
    });
    call.finish().exits(7);
}

#[test]
fn the_affinity_of_the_caller_is_not_inherited() {
    let c = bundle!();
    let all = c.run().ok().report()["cpus"].clone();
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: a zeroed cpu_set_t is an empty one.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &set);
        }
        Ok(())
    });
    assert_eq!(call.finish().ok().report()["cpus"], all);
}

#[test]
fn a_session_keyring_of_its_own() {
    let c = bundle!().asks(&["keyring"]);
    let keyring = c.run().ok().answer("keyring");
    assert!(keyring.contains(&format!(";_ses.{}", c.id)), "{keyring}");
}

#[test]
fn without_a_new_keyring_the_session_is_that_of_the_caller() {
    let c = bundle!().asks(&["keyring"]).flag(&["--no-new-keyring"]);
    let keyring = c.run().ok().answer("keyring");
    assert!(!keyring.contains(&c.id), "{keyring}");
}

#[test]
fn closed_stdio_does_no_harm() {
    let c = bundle!().asks(&["write /done yes"]);
    let call = c.call_new("run", &[]).setup(|| {
        for fd in 0..3 {
            // SAFETY: closes the caller's stdio in the child.
            unsafe { libc::close(fd) };
        }
        Ok::<(), io::Error>(())
    });
    call.finish().ok();
    assert_eq!(
        fs::read_to_string(c.rootfs().join("done")).expect("it ran"),
        "yes"
    );
}

#[test]
fn scheduler_and_io_priority() {
    let c: Bundle = bundle!()
        .set(
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 5}),
        )
        .set(
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}),
        );
    let report = c.run().ok().report();
    assert_eq!((&report["policy"], &report["nice"]), (&json!(3), &json!(5)));
    assert_eq!(report["ioprio"], 3 << 13);
}

#[test]
fn personality() {
    let c = bundle!().set("/linux/personality", json!({"domain": "LINUX32"}));
    assert_eq!(c.run().ok().report()["personality"], 8);
}

#[test]
fn a_spec_without_a_process_can_be_created_but_not_started() {
    let c = bundle!().remove("/process");
    c.create().ok();
    assert_eq!(c.status(), "created");
    c.start().fails();
}

#[test]
fn a_program_on_a_mount_without_exec_is_told_with_the_option() {
    let c = bundle!().folder("/programs");
    fs::copy(c.rootfs().join("payload"), c.rootfs().join("programs/p")).expect("copy");
    let source = c.path("rootfs/programs");
    let wanted = "permission denied: it is on a mount with the option noexec";
    for program in ["/m/p", "p"] {
        let mut c = bundle!()
            .mount("bind", &source, "/m", &["bind", "noexec"])
            .set("/process/env", json!(["PATH=/m"]));
        c.spec["process"]["args"] = json!([program]);
        c.run().fails_naming(wanted);
        c.assert_gone();
    }
}
