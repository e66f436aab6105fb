//! create, start, state and delete: states, ids, pid files, the log, texts that engines match.

use crate::support::{Bundle, Running, binary, send, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

#[test]
fn goes_through_all_states() {
    let c = bundle!().asks(&["signals"]);
    let output = c.create().ok().silent();
    assert_eq!(c.status(), "created");
    assert!(
        !output.stdout().contains("ready"),
        "the payload ran before start"
    );
    c.start().ok().silent();
    output.wait_for("ready");
    assert_eq!(c.status(), "running");
    c.kill("TERM").ok().silent();
    c.wait_stopped();
    c.delete(&[]).ok().silent();
    c.assert_gone();
    c.call(&["state", &c.id])
        .finish()
        .fails_with("does not exist");
}

#[test]
fn state_has_the_fields_of_the_spec() {
    let c = bundle!()
        .asks(&["pause"])
        .set("/annotations", json!({"org.example.key": "value"}));
    c.create().ok();
    let state = c.state();
    assert_eq!(state["id"], c.id.as_str());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], c.dir.display().to_string());
    assert_eq!(state["annotations"]["org.example.key"], "value");
    assert!(
        state["ociVersion"]
            .as_str()
            .is_some_and(|v| v.starts_with("1."))
    );
    let root = fs::read_link(format!("/proc/{}/root", c.pid())).expect("the pid is alive");
    assert!(
        root.ends_with("rootfs") || root.to_str() == Some("/"),
        "{root:?}"
    );
    let created = state["created"].as_str().expect("created");
    assert!(is_rfc3339(created), "{created}");
}

#[test]
fn state_tells_the_rootfs() {
    let c = bundle!();
    c.create().ok();
    assert_eq!(c.state()["rootfs"], c.rootfs().display().to_string());
}

#[test]
fn a_stopped_container_has_pid_zero() {
    let c = bundle!().asks(&["exit 3"]);
    c.up();
    c.wait_stopped();
    assert_eq!(c.state()["pid"].as_i64().unwrap_or(0), 0);
}

#[test]
fn a_payload_that_dies_before_start_is_stopped() {
    let c = bundle!();
    c.create().ok();
    send(c.pid() as u32, libc::SIGKILL);
    c.wait_stopped();
    c.start()
        .fails_with("cannot start a container that has stopped");
    c.delete(&[]).ok();
}

#[test]
fn start_needs_a_created_container() {
    let c = bundle!().asks(&["pause"]);
    c.start().fails_with("container does not exist");
    c.up();
    c.start()
        .fails_with("cannot start an already running container");
    assert_eq!(c.status(), "running");
    send(c.pid() as u32, libc::SIGKILL);
    c.wait_stopped();
    c.start()
        .fails_with("cannot start a container that has stopped");
}

#[test]
fn unknown_ids_are_errors() {
    let c = bundle!();
    for args in [
        &["state", "nope"][..],
        &["start", "nope"],
        &["kill", "nope"],
        &["delete", "nope"],
    ] {
        c.call(args)
            .finish()
            .fails_with("container does not exist")
            .exits(1);
    }
}

#[test]
fn a_missing_id_is_an_error() {
    let c = bundle!();
    for verb in ["state", "start", "kill", "delete", "create", "run"] {
        c.call(&[verb]).finish().fails();
    }
}

#[test]
fn one_id_one_container() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let pid = c.pid();
    c.create()
        .fails_with("container with given ID already exists");
    c.run().fails_with("container with given ID already exists");
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
}

#[test]
fn only_one_of_many_creators_wins() {
    let c = bundle!().asks(&["pause"]);
    let calls: Vec<_> = (0..4)
        .map(|_| c.call_new("create", &[]))
        .map(|call| call.spawn())
        .collect();
    let codes: Vec<i32> = calls.into_iter().map(|call| call.wait().code()).collect();
    assert_eq!(
        codes.iter().filter(|code| **code == 0).count(),
        1,
        "{codes:?}"
    );
    assert_eq!(c.status(), "created");
}

#[test]
fn bad_ids_are_refused() {
    let mut c = bundle!();
    let good = c.id.clone();
    let long = "x".repeat(1025);
    for id in [
        "",
        ".",
        "..",
        "a/b",
        "a:b",
        "a b",
        "tab\t",
        "é",
        "../x",
        long.as_str(),
    ] {
        c.id = id.into();
        c.create().fails();
        c.call(&["state", id]).finish().fails();
    }
    c.id = good;
    assert!(!c.state_root().join("b").exists());
}

#[test]
fn ids_may_have_dots_dashes_and_plus() {
    let mut c = bundle!().asks(&["report"]);
    for id in ["a", "A-1", "a.b", "_x", "a+b", "0123456789abcdef"] {
        c.id = id.into();
        assert_eq!(c.run().ok().report()["pid"], 1, "{id}");
        assert!(!c.state_root().join(id).exists());
    }
}

#[test]
fn pid_file_has_the_pid_and_no_newline() {
    let mut c = bundle!().asks(&["pause"]);
    let path = c.path("pid");
    fs::write(&path, "an older and longer content").expect("write");
    c = c.flag(&["--pid-file", &path]);
    c.create().ok();
    assert_eq!(
        fs::read_to_string(&path).expect("read"),
        c.pid().to_string()
    );
    let names = fs::read_dir(&c.dir)
        .expect("read")
        .flatten()
        .map(|e| e.file_name());
    let litter: Vec<_> = names
        .filter(|n| n.to_string_lossy().contains("pid"))
        .collect();
    assert_eq!(litter, ["pid"], "temporary file left");
}

#[test]
fn pid_file_appears_only_on_success() {
    let mut c = bundle!().set("/process/args", json!(["/no/such/file"]));
    let path = c.path("pid");
    c = c.flag(&["--pid-file", &path]);
    c.create().fails();
    assert!(!fs::exists(&path).expect("exists"));
    c.assert_gone();
}

#[test]
fn pid_file_in_a_missing_directory_is_an_error() {
    let mut c = bundle!();
    let path = c.path("missing/pid");
    c = c.flag(&["--pid-file", &path]);
    c.create().fails();
    c.assert_gone();
}

#[test]
fn pid_file_replaces_a_symlink() {
    let mut c = bundle!().asks(&["pause"]);
    fs::write(c.path("target"), "untouched").expect("write");
    std::os::unix::fs::symlink(c.path("target"), c.path("pid")).expect("symlink");
    let path = c.path("pid");
    c = c.flag(&["--pid-file", &path]);
    c.create().ok();
    assert_eq!(
        fs::read_to_string(c.path("pid")).expect("read"),
        c.pid().to_string()
    );
    assert_eq!(
        fs::read_to_string(c.path("target")).expect("read"),
        "untouched"
    );
}

#[test]
fn an_error_is_one_json_object_in_the_log() {
    let mut c = bundle!().set("/process/args", json!(["no-such-program"]));
    let log = c.path("log.json");
    c = c.global(&["--log", &log, "--log-format", "json"]);
    let output = c.create().fails_with("executable file not found in $PATH");
    let text = fs::read_to_string(&log).expect("a log");
    let line: Value = serde_json::from_str(&text).expect("exactly one object");
    assert_eq!(line["level"], "error");
    assert!(is_rfc3339(line["time"].as_str().expect("time")), "{line}");
    let message = line["msg"].as_str().expect("msg");
    assert!(message.contains("no-such-program"), "{message}");
    assert!(
        output.stderr().contains("no-such-program"),
        "not on stderr too"
    );
}

#[test]
fn unknown_flags_reach_the_log() {
    let mut c = bundle!();
    let log = c.path("log.json");
    c = c.global(&["--log", &log, "--log-format=json"]);
    c.create().ok();
    c.call(&["start", "--bogus", &c.id]).finish().fails();
    let line: Value =
        serde_json::from_str(&fs::read_to_string(&log).expect("a log")).expect("one object");
    assert_eq!(line["level"], "error");
    assert!(
        line["msg"].as_str().expect("msg").contains("bogus"),
        "{line}"
    );
}

#[test]
fn success_leaves_the_log_empty() {
    let mut c = bundle!().asks(&["pause"]);
    let log = c.path("log.json");
    c = c.global(&["--log", &log, "--log-format", "json"]);
    c.up();
    c.state();
    c.kill("KILL").ok();
    c.wait_stopped();
    c.delete(&[]).ok();
    assert_eq!(fs::read_to_string(&log).unwrap_or_default(), "");
}

#[test]
fn unknown_log_formats_are_refused() {
    let c = bundle!().global(&["--log-format", "yaml"]);
    c.create().fails();
    c.assert_gone();
}

#[test]
fn a_created_container_can_be_deleted() {
    let c = bundle!();
    c.create().ok();
    let pid = c.pid();
    c.delete(&[]).ok().silent();
    c.assert_gone();
    assert!(!fs::exists(format!("/proc/{pid}/exe")).expect("exists") || is_zombie(pid));
}

#[test]
fn a_running_container_needs_force_to_be_deleted() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let text = format!(
        "cannot delete container {} that is not stopped: running",
        c.id
    );
    c.delete(&[]).fails_with(&text).exits(1);
    assert_eq!(c.status(), "running");
    c.delete(&["--force"]).ok().silent();
    c.assert_gone();
}

#[test]
fn delete_by_force_forgives_a_missing_id() {
    let c = bundle!();
    c.delete(&["--force"]).ok().silent();
    c.delete(&["-f"]).ok().silent();
    c.delete(&[]).fails_with("container does not exist");
}

#[test]
fn an_id_can_be_used_again() {
    let c = bundle!().asks(&["exit 0"]);
    for _ in 0..3 {
        c.up();
        c.wait_stopped();
        c.delete(&[]).ok();
    }
    c.assert_gone();
}

#[test]
fn later_changes_of_the_config_have_no_effect() {
    let c = bundle!().set(
        "/process/args",
        json!(["/payload", "env", "WHEN", ";", "pause"]),
    );
    let c = c.push("/process/env", json!("WHEN=create"));
    let output = c.create().ok();
    fs::write(c.dir.join("config.json"), "{}").expect("write");
    c.start().ok();
    output.wait_for("WHEN => create");
    fs::remove_file(c.dir.join("config.json")).expect("remove");
    assert_eq!(c.status(), "running");
    c.kill("KILL").ok();
    c.wait_stopped();
    c.delete(&[]).ok();
}

#[test]
fn create_does_not_start_the_payload() {
    let c = bundle!().asks(&["write /started yes", "pause"]);
    c.create().ok();
    assert!(!c.rootfs().join("started").exists());
    c.start().ok();
    wait_until("it started", || c.rootfs().join("started").exists());
}

#[test]
fn init_is_not_a_child_of_the_test_and_leads_its_session() {
    let c = bundle!().asks(&["report", "pause"]);
    let output = c.up();
    output.wait_for("report =>");
    let report = output.report();
    assert_eq!(
        (&report["pid"], &report["sid"], &report["ppid"]),
        (&json!(1), &json!(1), &json!(0))
    );
    assert_eq!(report["tty_nr"], 0);
}

#[test]
fn the_runtime_ends_when_the_container_is_created() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let pid = c.pid();
    c.start().ok();
    // Nobody of the runtime may stay between: the parent is the host's init or a subreaper.
    let parent = parent_of(pid);
    let exe = fs::canonicalize(binary()).expect("the binary");
    assert_ne!(fs::read_link(format!("/proc/{parent}/exe")).ok(), Some(exe));
}

#[test]
fn the_state_directory_is_private() {
    let c = bundle!();
    c.create().ok();
    let meta = fs::metadata(c.state_root().join(&c.id)).expect("a state directory");
    assert_eq!(
        meta.permissions().mode() & 0o022,
        0,
        "others can write the state"
    );
    assert_eq!(meta.uid(), 0);
}

/// Starts a create whose hook waits until the returned file is there.
fn held_in_create(c: Bundle) -> (Bundle, Running, String) {
    let (begun, go) = (c.path("begun"), c.path("go"));
    let line = format!("touch {begun}; while ! test -e {go}; do sleep 0.01; done");
    let c = c.push(
        "/hooks/createRuntime",
        json!({"path": "/bin/sh", "args": ["sh", "-c", line]}),
    );
    let creator = c.call_new("create", &[]).spawn();
    wait_until("the hook runs", || fs::exists(&begun).unwrap_or(false));
    (c, creator, go)
}

#[test]
fn start_waits_for_a_create_that_is_at_work() {
    let (c, creator, go) = held_in_create(bundle!().asks(&["pause"]));
    // The hook goes on only after the command has begun.
    let script = format!("(sleep 0.2; touch {go}) & exec \"$0\" \"$@\"");
    let start = c.call(&["start", &c.id]).through_shell(&script);
    start.finish().ok();
    creator.wait().ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn a_create_whose_container_is_deleted_says_so() {
    let (c, creator, go) = held_in_create(bundle!());
    assert_eq!(c.status(), "creating");
    c.delete(&[]).fails_with("creating");
    c.delete(&["--force"]).ok();
    assert!(!c.state_root().join(&c.id).exists() && !c.cgroup().exists());
    fs::write(&go, "").expect("let the hook go on");
    let output = creator.wait();
    output.fails_with("deleted by another command while it was being created");
    c.assert_gone();
}

#[test]
fn directories_of_another_runtime_are_left_alone() {
    let c = bundle!();
    c.create().ok();
    let foreign = c.state_root().join("foreign");
    fs::create_dir(&foreign).expect("mkdir");
    fs::write(foreign.join("state.json"), "{}").expect("write");
    let listed = c.call(&["list", "--quiet"]).finish().ok().stdout();
    assert_eq!(listed, format!("{}\n", c.id));
    for args in [&["state", "foreign"][..], &["delete", "--force", "foreign"]] {
        c.call(args)
            .finish()
            .fails_with("belongs to another program");
    }
    assert!(foreign.join("state.json").exists());
}

/// Kills this process if it makes another, the programs that it executes included.
fn forbid_processes() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let line = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let calls = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_vfork];
    let [clone, clone3, vfork] = calls.map(|call| call as u32);
    let mut filter = [
        line(LOAD, 0, 0),
        line(EQUAL, 3, clone),
        line(EQUAL, 2, clone3),
        line(EQUAL, 1, vfork),
        line(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        line(RETURN, 0, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter outlives the call, which copies it.
    match unsafe { libc::prctl(libc::PR_SET_SECCOMP, 2, &raw const program) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[test]
fn later_commands_read_no_config_and_make_no_process() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    fs::remove_file(c.dir.join("config.json")).expect("remove the config");
    let record = c.state_root().join(&c.id).join("state");
    let record = fs::read_to_string(record).expect("a record");
    for number in 1..100 {
        let dir = c.state_root().join(format!("copy-{number}"));
        fs::create_dir(&dir).expect("mkdir");
        let copy = record.replace(&c.id, &format!("copy-{number}"));
        fs::write(dir.join("state"), copy).expect("write");
    }
    let act = |args: &[&str]| c.call(args).setup(forbid_processes).finish().ok();
    let listed = act(&["list", "--format", "json"]).stdout();
    let listed: Value = serde_json::from_str(&listed).expect("a list");
    assert_eq!(listed.as_array().map(Vec::len), Some(100));
    assert!(act(&["state", &c.id]).stdout().contains("created"));
    for args in [
        &["start", &c.id][..],
        &["kill", &c.id, "KILL"],
        &["delete", &c.id],
    ] {
        act(args).silent();
    }
    c.assert_gone();
    let refused = c.call(&["ps", "copy-1"]).setup(forbid_processes).finish();
    assert_ne!(refused.code(), 0, "the filter forbids nothing");
}

fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = stat.rsplit_once(") ")?.1.to_string();
    rest.split(' ').nth(index).map(String::from)
}

fn parent_of(pid: i32) -> String {
    stat_field(pid, 1).expect("a parent")
}

fn is_zombie(pid: i32) -> bool {
    stat_field(pid, 0).is_none_or(|state| state == "Z")
}

/// `2006-01-02T15:04:05`, perhaps a fraction, then `Z` or an offset.
fn is_rfc3339(text: &str) -> bool {
    let shape: String = text
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    let rest = shape.strip_prefix("0000-00-00T00:00:00").unwrap_or("?");
    let zone = rest
        .strip_prefix('.')
        .map_or(rest, |r| r.trim_start_matches('0'));
    matches!(zone, "Z" | "+00:00" | "-00:00")
}
