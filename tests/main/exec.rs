//! `exec`: another process in a running container, with its own ids, environment and terminal.

use crate::support::terminal::{Terminal, listen, receive};
use crate::support::{Bundle, Call, Output, lines, mask, wait_until};
use serde_json::{Value, json};
use std::fs::{self, File};

/// A container that runs.
fn up(c: Bundle) -> Bundle {
    let c = c.asks(&["pause"]);
    c.up();
    c
}

fn call(c: &Bundle, flags: &[&str], command: &str) -> Call {
    let mut args = vec!["exec"];
    args.extend(flags);
    args.extend([c.id.as_str(), "/payload"]);
    args.extend(command.split(' '));
    c.call(&args)
}

fn exec(c: &Bundle, flags: &[&str], command: &str) -> Output {
    call(c, flags, command).finish()
}

/// Writes the process of the spec with these changes to a file.
fn process_file(c: &Bundle, changes: &[(&str, Value)]) -> String {
    let mut process = c.spec["process"].clone();
    for (key, value) in changes {
        process[*key] = value.clone();
    }
    fs::write(c.path("process.json"), process.to_string()).expect("write");
    c.path("process.json")
}

#[test]
fn exec_joins_the_namespaces_and_the_cgroup() {
    let c = up(bundle!());
    let report = exec(&c, &[], "report").ok().silent().report();
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user"] {
        let wanted = fs::read_link(format!("/proc/{}/ns/{kind}", c.pid())).expect("a namespace");
        assert_eq!(report["ns"][kind], wanted.display().to_string(), "{kind}");
    }
    assert_ne!(report["pid"], 1);
    assert!(
        report["cgroup"]
            .as_str()
            .is_some_and(|text| text.contains("0::/"))
    );
    let procs = fs::read_to_string(c.cgroup().join("cgroup.procs")).expect("read");
    assert_eq!(procs.trim(), c.pid().to_string(), "only init is left");
}

#[test]
fn exec_runs_in_the_cgroup_of_the_container() {
    let c = up(bundle!());
    exec(&c, &["--detach"], "pause").ok();
    wait_until("two processes are there", || {
        lines(&c.cgroup().join("cgroup.procs")).len() == 2
    });
}

#[test]
fn exec_gives_the_exit_code() {
    let c = up(bundle!());
    for code in [0, 1, 42, 255] {
        exec(&c, &[], &format!("exit {code}")).exits(code);
    }
    exec(&c, &[], "crash").exits(128 + libc::SIGSEGV);
    assert_eq!(c.status(), "running");
}

#[test]
fn exec_passes_stdio_through() {
    let c = up(bundle!());
    let output = call(&c, &[], "stdin ; stderr to-stderr")
        .stdin("over here\n")
        .finish()
        .ok();
    assert_eq!(output.answer("stdin"), "ok:over here");
    assert_eq!(output.stderr(), "to-stderr\n");
}

#[test]
fn exec_of_a_missing_program_fails_with_255() {
    let c = up(bundle!());
    let output = c.call(&["exec", &c.id, "nonesuch"]).finish();
    let output = output.fails_with("exec: \"nonesuch\": executable file not found in $PATH");
    output.exits(255);
}

#[test]
fn exec_with_flags() {
    let c = up(bundle!().folder("/work").push("/process/env", json!("A=1")));
    let flags = [
        "--env",
        "B=2",
        "--env",
        "A=3",
        "--cwd",
        "/work",
        "--user",
        "1000:1001",
    ];
    let report = exec(&c, &flags, "report").ok().report();
    assert_eq!(
        (&report["uid"], &report["gid"]),
        (&json!(1000), &json!(1001))
    );
    assert_eq!(
        (&report["cwd"], &report["groups"]),
        (&json!("/work"), &json!([]))
    );
    let env = report["env"].to_string();
    assert!(
        env.contains("\"A=3\"") && env.contains("\"B=2\"") && !env.contains("\"A=1\""),
        "{env}"
    );
}

#[test]
fn exec_with_short_flags() {
    let c = up(bundle!());
    let report = exec(&c, &["-e", "A=1", "-e", "B=2", "-u", "5:6"], "report")
        .ok()
        .report();
    assert_eq!((&report["uid"], &report["gid"]), (&json!(5), &json!(6)));
}

#[test]
fn exec_with_additional_groups() {
    let c = up(bundle!());
    let flags = ["--additional-gids", "5", "--additional-gids", "6"];
    assert_eq!(
        exec(&c, &flags, "report").ok().report()["groups"],
        json!([5, 6])
    );
}

#[test]
fn exec_with_a_process_file() {
    let c = up(bundle!().folder("/work"));
    let file = process_file(
        &c,
        &[
            ("args", json!(["/payload", "report"])),
            ("cwd", json!("/work")),
            ("env", json!(["ONLY=this", "HOME=/"])),
            (
                "user",
                json!({"uid": 12, "gid": 34, "additionalGids": [56]}),
            ),
            (
                "rlimits",
                json!([{"type": "RLIMIT_RSS", "soft": 1000, "hard": 2000}]),
            ),
        ],
    );
    let report = c
        .call(&["exec", "--process", &file, &c.id])
        .finish()
        .ok()
        .report();
    assert_eq!(
        (&report["uid"], &report["gid"], &report["groups"]),
        (&json!(12), &json!(34), &json!([56]))
    );
    assert_eq!(
        (&report["cwd"], &report["env"]),
        (&json!("/work"), &json!(["ONLY=this", "HOME=/"]))
    );
    assert_eq!(report["rlimits"]["RSS"], json!([1000, 2000]));
}

#[test]
fn a_process_file_without_capabilities_gets_no_more_than_the_container() {
    let c = up(bundle!());
    let file = process_file(
        &c,
        &[
            ("args", json!(["/payload", "caps", "Eff"])),
            ("capabilities", Value::Null),
        ],
    );
    let output = c.call(&["exec", "-p", &file, &c.id]).finish().ok();
    let effective = mask(&output.answer("caps Eff"));
    assert_eq!(effective & !0x2000_0420, 0, "{effective:x}");
}

#[test]
fn added_capabilities_are_not_inheritable() {
    let c = up(bundle!());
    let output = exec(
        &c,
        &["--cap", "CAP_NET_ADMIN"],
        "caps Eff ; caps Inh ; caps Amb",
    )
    .ok();
    let caps = |set: &str| mask(&output.answer(&format!("caps {set}")));
    assert_eq!(
        (caps("Eff") & 1 << 12, caps("Inh"), caps("Amb")),
        (1 << 12, 0, 0)
    );
}

#[test]
fn exec_inherits_no_new_privileges_and_seccomp() {
    let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16}]);
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let c = up(bundle!().set("/linux/seccomp", filter));
    let output = exec(
        &c,
        &[],
        "status NoNewPrivs ; status Seccomp ; syscall 140 0 0",
    )
    .ok();
    assert_eq!(output.answer("status NoNewPrivs"), "1");
    assert_eq!(output.answer("status Seccomp"), "2");
    assert_eq!(output.answer("syscall 140 0 0"), "EBUSY");
}

#[test]
fn bad_users_are_refused() {
    let c = up(bundle!().file(
        "/etc/passwd",
        "4294967297:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n",
    ));
    assert_eq!(
        exec(&c, &["--user", "1000"], "report").ok().report()["uid"],
        1000
    );
    for user in ["4294967297", "-1", "4294967295", "1:x", "root"] {
        let output = exec(&c, &["--user", user], "write /ran yes");
        assert_ne!(output.code(), 0, "{user}");
        assert!(!c.rootfs().join("ran").exists(), "{user} ran");
    }
}

#[test]
fn exec_detached_writes_its_pid() {
    let c = up(bundle!());
    exec(&c, &["--detach", "--pid-file", &c.path("pid")], "pause")
        .ok()
        .silent();
    let pid: i32 = fs::read_to_string(c.path("pid"))
        .expect("a pid")
        .parse()
        .expect("no newline");
    let root = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).expect("alive");
    assert_eq!(root(pid), root(c.pid()));
    assert_ne!(pid, c.pid());
}

#[test]
fn a_failed_exec_writes_no_pid() {
    let c = up(bundle!());
    c.call(&[
        "exec",
        "--detach",
        "--pid-file",
        &c.path("pid"),
        &c.id,
        "nonesuch",
    ])
    .finish()
    .fails();
    assert!(!fs::exists(c.path("pid")).expect("exists"));
}

#[test]
fn exec_with_a_console_socket() {
    let c = up(bundle!());
    let path = c.dir.join("console.sock");
    let listener = listen(&path);
    let socket = path.display().to_string();
    exec(
        &c,
        &["--detach", "--tty", "--console-socket", &socket],
        "tty ; pause",
    )
    .ok();
    let mut received = receive(&listener);
    assert_eq!(received.files.len(), 1);
    let mut terminal = Terminal::new(received.files.pop().expect("a terminal"));
    assert!(
        terminal.answer("tty").starts_with("ttt"),
        "{}",
        terminal.answer("tty")
    );
}

#[test]
fn exec_on_a_terminal_in_the_foreground() {
    let c = up(bundle!());
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let keep = slave.try_clone().expect("duplicate");
    let before = terminal.modes();
    let running = call(&c, &["--tty"], "tty ; line ; exit 5")
        .on_terminal(slave)
        .spawn();
    assert!(terminal.answer("tty").starts_with("ttt"));
    terminal.write("typed\n");
    assert_eq!(terminal.answer("line"), "ok:typed");
    running.wait().exits(5);
    assert_eq!(terminal.modes(), before);
    drop(keep);
}

#[test]
fn exec_needs_a_living_container() {
    let c = bundle!().asks(&["exit 0"]);
    c.up();
    c.wait_stopped();
    exec(&c, &[], "report").fails_with("cannot exec in a stopped container");
    c.call(&["exec", "nope", "/payload"])
        .finish()
        .fails_with("does not exist");
}

#[test]
fn exec_in_a_paused_container_is_refused() {
    let c = up(bundle!());
    c.call(&["pause", &c.id]).finish().ok();
    exec(&c, &[], "report").fails_with("cannot exec in a paused container");
    c.call(&["resume", &c.id]).finish().ok();
    exec(&c, &[], "report").ok();
}

#[test]
fn exec_in_a_created_container() {
    let c = bundle!();
    c.create().ok();
    assert_ne!(exec(&c, &[], "report").ok().report()["pid"], 1);
    assert_eq!(c.status(), "created");
}

#[test]
fn exec_in_a_user_namespace() {
    let c = up(bundle!().in_user_namespace());
    let report = exec(&c, &["--user", "7:8"], "report").ok().report();
    assert_eq!((&report["uid"], &report["gid"]), (&json!(7), &json!(8)));
    assert!(
        report["uid_map"]
            .as_str()
            .is_some_and(|m| m.contains("100000"))
    );
}

#[test]
fn only_stdio_is_open_in_exec_and_what_is_preserved() {
    let c = up(bundle!());
    let secret = || File::open("/").expect("open");
    let files = call(&c, &[], "report")
        .fd(secret(), 3)
        .fd(secret(), 9)
        .finish()
        .ok()
        .report()["fds"]
        .clone();
    assert_eq!(
        files.as_object().map(serde_json::Map::len),
        Some(3),
        "{files}"
    );
    let kept = File::create(c.path("kept")).expect("create");
    let files = call(&c, &["--preserve-fds", "1"], "report")
        .fd(kept, 3)
        .finish()
        .ok()
        .report()["fds"]
        .clone();
    assert!(
        files["3"].as_str().is_some_and(|p| p.ends_with("kept")),
        "{files}"
    );
}

#[test]
fn exec_never_leads_outside() {
    let c = up(bundle!());
    exec(&c, &["--cwd", "/tmp"], "report").ok();
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let output = exec(&c, &["--cwd", &cwd], "ls ../../../../../../../usr");
        let escaped =
            output.code() == 0 && output.answer("ls ../../../../../../../usr") != "ENOENT";
        assert!(!escaped, "{cwd}: {}", output.describe());
    }
}

#[test]
fn signals_reach_the_process_of_a_foreground_exec() {
    let c = up(bundle!());
    let running = call(&c, &[], "signals").spawn();
    wait_until("it is ready", || running.stdout().contains("ready"));
    crate::support::send(running.child.id(), libc::SIGUSR1);
    wait_until("the signal arrives", || {
        running.stdout().contains("signal 10")
    });
    crate::support::send(running.child.id(), libc::SIGTERM);
    running.wait().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_process_that_joins_runs_on_its_processors() {
    let processors = std::thread::available_parallelism().expect("a count");
    needs!(processors.get() > 1, "needs two processors");
    let c = up(bundle!().set("/process/execCPUAffinity", json!({"final": "1"})));
    let allowed = |flags: &[&str]| exec(&c, flags, "status Cpus_allowed_list").ok().stdout();
    // init is not meant, and what a file does not say is as in the config.
    let init = fs::read_to_string(format!("/proc/{}/status", c.pid())).expect("status");
    assert!(!init.contains("Cpus_allowed_list:\t1\n"));
    assert!(allowed(&[]).ends_with("=> 1\n"));
    for (affinity, want) in [
        (json!({"initial": "0"}), "=> 0\n"),
        (json!({"initial": "0", "final": "1"}), "=> 1\n"),
        (json!({"initial": "0", "final": ""}), "=> 0\n"),
        (Value::Null, "=> 1\n"),
    ] {
        let changes = [
            ("execCPUAffinity", affinity.clone()),
            ("args", json!(["/payload", "status", "Cpus_allowed_list"])),
        ];
        let file = process_file(&c, &changes);
        let output = c.call(&["exec", "--process", &file, &c.id]).finish().ok();
        assert!(
            output.stdout().ends_with(want),
            "{affinity}: {}",
            output.stdout()
        );
    }
}

#[test]
fn bad_lists_of_processors_are_refused() {
    let mut c = bundle!();
    for (name, list) in [
        ("initial", "1-"),
        ("final", "a"),
        ("final", "3-1"),
        ("initial", "99999"),
    ] {
        c = c.set("/process/execCPUAffinity", json!({name: list}));
        c.create()
            .fails_naming(&format!("process.execCPUAffinity.{name}: "));
        c.assert_gone();
    }
}
