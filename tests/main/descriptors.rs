//! Open files: which of them a container, its init and its hooks have, and how few the runtime needs.

use crate::support::terminal::create;
use crate::support::{Bundle, Output, lines};
use serde_json::json;
use std::fs::{self, File};

/// What a process has open beside its streams, by what it leads to.
fn beside_streams(pid: i32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("open files");
    let mut found = vec![];
    for entry in entries.flatten() {
        let number: i32 = entry
            .file_name()
            .to_string_lossy()
            .parse()
            .expect("a number");
        let target = fs::read_link(entry.path()).expect("a target");
        if number > 2 {
            found.push(target.display().to_string());
        }
    }
    found
}

/// Of the caller's files none, and of the runtime's own nothing that leads to the host's file systems.
fn assert_few(c: &Bundle) {
    let found = beside_streams(c.pid());
    let known = |name: &String| name.starts_with("socket:") || name.starts_with("anon_inode:");
    assert!(found.iter().all(known) && found.len() < 4, "{found:?}");
}

#[test]
fn a_created_container_holds_no_files_of_the_host() {
    let hook = json!([{"path": "/bin/true"}]);
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}]});
    let plain = bundle!();
    let user = bundle!().in_user_namespace();
    let rich = bundle!()
        .set("/linux/seccomp", filter)
        .set("/hooks/createContainer", hook.clone())
        .set(
            "/hooks/startContainer",
            json!([{"path": "/payload", "args": ["/payload", "exit", "0"]}]),
        )
        .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "0"}));
    for c in [plain, user, rich] {
        let c = c.asks(&["pause"]);
        let secret = |name: &str| File::create(c.path(name)).expect("create");
        let call = c.call_new("create", &[]).fd(secret("one"), 3);
        call.fd(secret("two"), 30).finish().ok();
        assert_few(&c);
        c.start().ok();
        assert_eq!(beside_streams(c.pid()), Vec::<String>::new());
        let exec = [
            "exec",
            "--detach",
            "--pid-file",
            &c.path("pid"),
            &c.id,
            "/payload",
            "pause",
        ];
        c.call(&exec).fd(secret("three"), 5).finish().ok();
        let pid = lines(&c.dir.join("pid"))[0].parse().expect("a pid");
        assert_eq!(beside_streams(pid), Vec::<String>::new());
    }
}

#[test]
fn a_created_container_with_a_terminal_holds_no_files_of_the_host() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["pause"]);
    let _terminal = create(&c);
    assert_few(&c);
    c.start().ok();
    assert_eq!(beside_streams(c.pid()), Vec::<String>::new());
}

#[test]
fn hooks_have_nothing_but_their_streams() {
    let c = bundle!().asks(&["pause"]);
    // Of a shell, as ls(1) would open the directory.
    let line = |kind: &str| {
        let file = c.path(kind);
        format!(
            "touch {file}; for fd in /proc/$$/fd/*; do [ ${{fd##*/}} -le 2 ] || readlink $fd >> {file}; done; true"
        )
    };
    let hook = |kind: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", line(kind)]}]);
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    let hooks: serde_json::Map<_, _> = kinds.iter().map(|k| (k.to_string(), hook(k))).collect();
    let c = c.set("/hooks", hooks.into());
    let call = c
        .call_new("create", &[])
        .fd(File::open("/").expect("open"), 9);
    call.finish().ok();
    c.start().ok();
    c.delete(&["--force"]).ok();
    for kind in kinds {
        let found = lines(&c.dir.join(kind));
        assert!(c.dir.join(kind).exists(), "{kind} has not run");
        assert!(found.is_empty(), "{kind}: {found:?}");
    }
}

/// With no more than so many open files.
fn with_files(c: &Bundle, count: u32, args: &[&str]) -> Output {
    let script = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
    c.call(args).through_shell(&script).finish()
}

/// Who took it for stopped would delete it.
#[test]
fn who_has_too_few_files_to_look_ends_nothing() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    for count in 3..12 {
        let state = with_files(&c, count, &["state", &c.id]);
        assert!(
            !state.stdout().contains("stopped"),
            "{count}: {}",
            state.describe()
        );
        let delete = with_files(&c, count, &["delete", &c.id]);
        assert_ne!(delete.code(), 0, "{count}");
    }
    assert_eq!(c.status(), "running");
}

#[test]
fn sixteen_open_files_are_enough_and_fewer_are_told() {
    let c = bundle!().asks(&["pause"]).remove("/process/rlimits");
    c.write_config();
    let dir = c.path("");
    for count in [4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 32] {
        let create = with_files(&c, count, &["create", "--bundle", &dir, &c.id]);
        if create.code() != 0 {
            assert!(count < 16, "{count}: {}", create.describe());
            drop(create.fails_naming("oo many open files"));
            c.assert_gone();
            continue;
        }
        for (args, code) in [
            (&["start", &c.id][..], 0),
            (&["state", &c.id], 0),
            (&["list"], 0),
            (&["exec", &c.id, "/payload", "exit", "3"], 3),
            (&["kill", &c.id, "USR1"], 0),
            (&["delete", "--force", &c.id], 0),
        ] {
            let output = with_files(&c, count, args);
            let told = output.stderr().contains("oo many open files");
            let fine = output.code() == code || count < 16 && told;
            assert!(fine, "{count}: {}", output.describe());
        }
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}

#[test]
fn many_mounts_need_no_more_files() {
    let mut c = bundle!().asks(&["mounts"]).remove("/process/rlimits");
    fs::create_dir(c.path("source")).expect("mkdir");
    let source = c.path("source");
    for number in 0..100 {
        c = c.mount("bind", &source, &format!("/m/{number}"), &["bind", "ro"]);
    }
    c.write_config();
    let output = with_files(&c, 24, &["run", "--bundle", &c.path(""), &c.id]).ok();
    assert!(output.stdout().contains("/m/99"));
}
