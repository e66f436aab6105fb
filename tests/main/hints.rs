//! Slips and habits of people: a misspelt field, the names of other programs, a flag, an output that nobody reads.

use crate::support::{Bundle, Call};
use serde_json::json;
use std::fs::File;
use std::os::fd::OwnedFd;

#[test]
fn names_of_other_programs_are_recognised() {
    let c = bundle!();
    for (word, verb) in [
        ("ls", "list"),
        ("rm", "delete"),
        ("stop", "kill"),
        ("lst", "list"),
    ] {
        let text = format!("unknown command {word:?}; did you mean {verb:?}?");
        c.call(&[word]).finish().fails_with(&text).exits(3);
    }
}

#[test]
fn logs_that_are_no_files_are_refused() {
    let c = bundle!();
    for log in ["journald:box", "syslog:box"] {
        let text = format!("--log: {log:?}: only files are supported");
        c.call(&["--log", log, "list"]).finish().fails_with(&text);
        assert!(!c.dir.join(log).exists());
        let file = format!("./{log}");
        c.call(&["--log", &file, "list"]).finish().ok().silent();
        assert!(c.dir.join(log).exists());
    }
}

/// Returns a pipe that nobody reads.
fn broken() -> OwnedFd {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn output_that_nobody_reads_ends_a_command_in_silence() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let commands = [
        vec!["state", &c.id],
        vec!["list"],
        vec!["ps", &c.id],
        vec!["features"],
        vec!["--help"],
        vec!["events", "--interval", "1ms", &c.id],
    ];
    for args in commands {
        let output = c.call(&args).fd(broken(), 1).finish();
        output.silent().exits(128 + libc::SIGPIPE);
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let c = bundle!();
    let full = File::options().write(true).open("/dev/full").expect("open");
    c.call(&["list"])
        .fd(full, 1)
        .finish()
        .fails_with("write to stdout: No space left");
}

#[test]
fn a_user_without_a_directory_for_records_is_told_what_to_set() {
    let c = bundle!().of_user(1000).asks(&["pause"]);
    let create = c.call_new("create", &[]).finish();
    drop(create);
    let program = c.dir.join("cofferdam");
    let bundle = c.dir.display().to_string();
    let call = Call::new(&c.dir, vec!["create", "--bundle", &bundle, &c.id]);
    let output = call.program(&program).by_user(1000).finish();
    output
        .fails_with(
            "Permission denied; XDG_RUNTIME_DIR is not set: set it to a directory of the caller",
        )
        .fails_with("/run/user/1000, or give --root");
}

#[test]
fn without_a_cgroup_nothing_is_counted_and_nothing_frozen() {
    let c = bundle!().of_user(1000).asks(&["pause"]);
    c.up();
    let stats = c.call(&["stats", "--no-stream", &c.id]).finish().ok();
    let row = stats.stdout().lines().nth(1).expect("a row").to_string();
    assert!(!row.contains('%') && row.contains('-'), "{row}");
    let pause = c.call(&["pause", &c.id]).finish();
    pause.fails_with("the container has no cgroup that could be frozen: its creator may make none");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_misspelt_field_is_told_with_the_nearest_one() {
    let base = || Bundle::new("a_misspelt_field_is_told_with_the_nearest_one").asks(&["exit 0"]);
    drop(bundle!());
    let slips = [
        ("/proces", "proces", "process"),
        ("/process/evn", "process.evn", "env"),
        ("/linux/resorces", "linux.resorces", "resources"),
        (
            "/linux/resources/memory/limits",
            "linux.resources.memory.limits",
            "limit",
        ),
        (
            "/process/user/additionalGid",
            "process.user.additionalGid",
            "additionalGids",
        ),
    ];
    for (pointer, place, near) in slips {
        let c = base().set(pointer, json!(null));
        let text =
            format!("{place}: is no field of the spec and has no effect; did you mean {near}?");
        c.run().ok().says(&text);
    }
    for pointer in ["/annotations/proces", "/x-vendor", "/process/extension"] {
        base().set(pointer, json!("")).run().ok().silent();
    }
    let c = base().asks(&["pause"]);
    c.up();
    let file = c.dir.join("process.json");
    let process = json!({"args": ["/payload", "exit", "0"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "enviro": []});
    std::fs::write(&file, process.to_string()).expect("write");
    let file = file.display().to_string();
    let exec = c.call(&["exec", "--process", &file, &c.id]).finish();
    exec.ok().silent();
    std::fs::write(&file, process.to_string().replace("enviro", "envi")).expect("write");
    let exec = c.call(&["exec", "--process", &file, &c.id]).finish();
    exec.ok()
        .says("process.envi: is no field of the spec and has no effect; did you mean env?");
}

#[test]
fn types_that_are_no_filesystems_are_told_with_what_to_do() {
    for (kind, reason, advice) in [
        (
            "none",
            "type none is no filesystem",
            "add the option bind or rbind",
        ),
        (
            "exfoo",
            "the kernel has no filesystem exfoo",
            "modprobe exfoo",
        ),
    ] {
        let mount = json!({"destination": "/x", "type": kind, "source": "/tmp"});
        let c = bundle!().push("/mounts", mount);
        c.create().fails_with(reason).fails_with(advice);
        c.assert_gone();
    }
}

#[test]
fn an_error_of_exec_names_the_flag() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let slips = [
        (["--cwd", "/no"], "--cwd: /no: "),
        (["--cwd", "no"], "--cwd: \"no\": must be absolute"),
        (["--env", "=x"], "--env: \"=x\": must be NAME=value"),
    ];
    for (flag, text) in slips {
        let exec = c
            .call(&["exec", flag[0], flag[1], &c.id, "/payload", "exit", "0"])
            .finish();
        let output = exec.fails_with(text).exits(255);
        assert!(!output.stderr().contains("process."), "{}", output.stderr());
    }
    assert_eq!(c.status(), "running");
}
