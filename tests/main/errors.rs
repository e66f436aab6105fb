//! Errors that explain: what was tried, why it failed, what to do; and what engines make of the words.
//! docs/errors.md has the table.

use crate::support::{Bundle, Call, Output};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Runs it with a JSON log; gives the one line that is in there.
fn failure(c: &Bundle) -> Value {
    failure_of(c, |call| call)
}

/// The same for a call that is changed.
pub fn failure_of(c: &Bundle, change: impl Fn(Call) -> Call) -> Value {
    let log = c.path("log.json");
    let words = [
        "--log",
        &log,
        "--log-format",
        "json",
        "run",
        "--bundle",
        &c.path(""),
        &c.id,
    ];
    c.write_config();
    let output = change(c.call(&words)).finish();
    logged(c, &output)
}

fn logged(c: &Bundle, output: &Output) -> Value {
    assert_eq!(output.code(), 1, "{}", output.describe());
    let text = fs::read_to_string(c.path("log.json")).expect("a log");
    fs::remove_file(c.path("log.json")).expect("remove the log");
    let line: Value = serde_json::from_str(&text).expect("one JSON object, as podman reads it");
    assert_eq!(line["level"], "error");
    assert_eq!(
        output.stderr().trim_end(),
        line["msg"].as_str().expect("a text"),
        "the same on stderr"
    );
    let hint = line["hint"].as_str().unwrap_or_default();
    assert!(
        output.stderr().trim_end().ends_with(hint),
        "the hint comes last: {line}"
    );
    line
}

fn program(c: Bundle, content: &[u8], mode: u32) -> Bundle {
    let path = c.rootfs().join("app");
    fs::write(&path, content).expect("write");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    c.set("/process/args", json!(["/app"]))
}

/// The exit code that Docker gives for a text (moby, daemon/errors.go).
fn docker(text: &str, command: &str) -> i32 {
    let text = text.to_lowercase();
    let missing = [
        "executable file not found",
        "no such file or directory",
        "failed to run runc create/exec call",
    ];
    if text.contains(command) && missing.iter().any(|phrase| text.contains(phrase)) {
        return 127;
    }
    if text.contains("permission denied") || text.contains("is a directory") {
        return 126;
    }
    if text.contains("not a directory") {
        127
    } else {
        128
    }
}

/// The exit code that podman gives (libpod, oci_util.go).
fn podman(text: &str) -> i32 {
    let text = text.to_lowercase();
    let any = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    if any(&["permission denied", "operation not permitted"]) {
        return 126;
    }
    if any(&[
        "executable file not found in",
        "no such file or directory",
        "open executable",
    ]) {
        return 127;
    }
    126
}

struct Row {
    content: &'static [u8],
    mode: u32,
    says: &'static str,
    code: &'static str,
    errno: &'static str,
    docker: i32,
    podman: i32,
}

const ROW: Row = Row {
    content: b"#!/payload\n",
    mode: 0o755,
    says: "",
    code: "",
    errno: "",
    docker: 127,
    podman: 127,
};

const INTERPRETER: Row = Row {
    code: "exec-interpreter-missing",
    errno: "ENOENT",
    ..ROW
};

const FORMAT: Row = Row {
    code: "exec-format",
    errno: "ENOEXEC",
    docker: 128,
    podman: 126,
    ..ROW
};

/// The magic of a 64-bit program for aarch64, and nothing else.
const FOREIGN: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0";

/// A program for x86_64 that is a header, one program header (PT_INTERP), and the loader's name.
const LOADED: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0\
\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\
\x03\0\0\0\x04\0\0\0\x78\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
\x12\0\0\0\0\0\0\0\x12\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0/lib/ld-none.so.1\0";

#[test]
fn programs_that_cannot_be_executed() {
    let rows = [
        Row {
            content: b"#!/bin/bash\necho\n",
            says: "exec: \"/app\": no such file or directory: its interpreter \"/bin/bash\" (first line) is missing",
            ..INTERPRETER
        },
        Row {
            content: b"#!/payload\r\necho\r\n",
            says: "its first line ends in a carriage return, so its interpreter is \"/payload\\r\"; save the script",
            ..INTERPRETER
        },
        Row {
            content: b"#! /payload\r\n",
            says: "so its interpreter is \"/payload\\r\"; save the script",
            ..INTERPRETER
        },
        Row {
            content: LOADED,
            says: "its dynamic loader \"/lib/ld-none.so.1\" is missing in the container; is it built for another C library?",
            ..INTERPRETER
        },
        Row {
            content: b"",
            says: "exec: \"/app\": exec format error: the file is empty (0 bytes)",
            ..FORMAT
        },
        Row {
            content: b"echo hi\n",
            says: "exec format error: a text without \"#!\" in its first line; begin it with #!/bin/sh",
            ..FORMAT
        },
        Row {
            content: FOREIGN,
            says: "exec format error: built for aarch64, this machine is x86_64; use an image for this one",
            ..FORMAT
        },
        Row {
            mode: 0o644,
            says: "exec: \"/app\": permission denied",
            code: "exec-not-executable",
            errno: "EACCES",
            docker: 126,
            podman: 126,
            ..ROW
        },
    ];
    for row in rows {
        let c = program(bundle!(), row.content, row.mode);
        check(&failure(&c), "/app", &row);
        c.assert_gone();
    }
}

#[test]
fn programs_that_are_not_there() {
    for (command, says, docker, podman, code, errno) in [
        (
            "nosuch",
            "exec: \"nosuch\": executable file not found in $PATH",
            127,
            127,
            "exec-not-found",
            "ENOENT",
        ),
        (
            "/nosuch",
            "exec: \"/nosuch\": no such file or directory",
            127,
            127,
            "exec-not-found",
            "ENOENT",
        ),
        (
            "/etc",
            "exec: \"/etc\": is a directory",
            126,
            126,
            "exec-not-executable",
            "EISDIR",
        ),
    ] {
        let c = bundle!().set("/process/args", json!([command]));
        let row = Row {
            says,
            docker,
            podman,
            code,
            errno,
            ..ROW
        };
        check(&failure(&c), command, &row);
    }
}

#[test]
fn exec_gives_the_same_keys_as_run() {
    let missing = bundle!().set("/process/args", json!(["nosuch"]));
    let wanted = failure(&missing);
    let c = bundle!().asks(&["pause"]);
    c.up();
    let log = c.path("log.json");
    let words = [
        "--log",
        &log,
        "--log-format",
        "json",
        "exec",
        &c.id,
        "nosuch",
    ];
    c.call(&words).finish().exits(255);
    let text = fs::read_to_string(&log).expect("a log");
    let line: Value = serde_json::from_str(&text).expect("one JSON object");
    for key in ["code", "field", "errno", "hint"] {
        assert!(line[key].is_string(), "{key}: {line}");
        assert_eq!(line[key], wanted[key], "{key}");
    }
}

fn check(line: &Value, command: &str, row: &Row) {
    let text = line["msg"].as_str().expect("a text");
    assert!(text.contains(row.says), "{text}");
    assert_eq!(
        (&line["code"], &line["errno"]),
        (&json!(row.code), &json!(row.errno)),
        "{text}"
    );
    assert_eq!(docker(text, command), row.docker, "{text}");
    assert_eq!(podman(text), row.podman, "{text}");
}

#[test]
fn a_directory_on_a_file_and_the_other_way_round() {
    for (source, target) in [("directory", "file"), ("file", "directory")] {
        let c = bundle!().file("/etc/file", "").folder("/etc/directory");
        fs::create_dir(c.path("directory")).expect("mkdir");
        fs::write(c.path("file"), "").expect("write");
        let target_path = format!("/etc/{target}");
        let mount = json!({"destination": target_path, "source": c.path(source), "type": "bind", "options": ["bind"]});
        let c = c.push("/mounts", mount);
        let line = failure(&c);
        let text = line["msg"].as_str().expect("a text");
        assert!(
            text.contains(&format!("bind {} on {target_path}", c.path(source))),
            "{text}"
        );
        assert!(
            text.contains(&format!(
                "a {source} as source does not go onto the {target}"
            )),
            "{text}"
        );
        assert_eq!(
            (&line["code"], &line["field"]),
            (&json!("mount-mismatch"), &json!("mounts[7]"))
        );
        assert_eq!(
            docker(text, "/payload"),
            127,
            "with its own question about a directory on a file"
        );
    }
}

#[test]
fn faults_of_the_config_and_of_the_call() {
    let c = bundle!().set("/process/oomScoreAdj", json!(5000));
    let line = failure(&c);
    assert_eq!(
        (&line["code"], &line["field"]),
        (&json!("config-invalid"), &json!("process.oomScoreAdj"))
    );
    let log = c.path("log.json");
    for (words, code) in [
        (&["state", "nobody"][..], "container-unknown"),
        (&["start"], "usage"),
        (&["create", "--nonsense"], "usage"),
        (&["exec", "nobody", "x"], "container-unknown"),
    ] {
        let globals = ["--log", &log, "--log-format", "json"];
        c.call(&[&globals[..], words].concat()).finish().fails();
        let text = fs::read_to_string(&log).expect("a log");
        let line: Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(line["code"], code, "{text}");
        fs::remove_file(&log).expect("remove the log");
    }
}

#[test]
fn states_have_a_code_too() {
    let c = bundle!().asks(&["exit 0"]);
    c.up();
    c.wait_stopped();
    let log = c.path("log.json");
    for words in [
        ["start"],
        ["kill"],
        ["pause"],
        ["resume"],
        ["ps"],
        ["update"],
    ] {
        let globals = ["--log", &log, "--log-format", "json"];
        let id = [c.id.as_str()];
        c.call(&[&globals[..], &words, &id].concat())
            .finish()
            .fails();
        let text = fs::read_to_string(&log).expect("a log");
        let line: Value = serde_json::from_str(&text).expect("one JSON object");
        assert_eq!(line["code"], "container-state", "{words:?}: {text}");
        fs::remove_file(&log).expect("remove the log");
    }
}

#[test]
fn a_filter_that_kills_the_program_at_once_is_named() {
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"},
    ]});
    let c = bundle!().set("/linux/seccomp", filter);
    c.run()
        .exits(128 + 31)
        .says("killed by signal 31 (SIGSYS): the filter of linux.seccomp");
    c.create().ok();
    let log = c.path("log.json");
    let words = ["--log", &log, "--log-format", "json", "start", &c.id];
    let line = logged(&c, &c.call(&words).finish());
    assert_eq!(line["code"], "seccomp-killed", "{line}");
    assert_eq!(c.status(), "stopped");
}

#[test]
fn an_init_out_of_memory_tells_limit_and_peak() {
    needs!(
        crate::support::has_controller("memory"),
        "needs the memory controller"
    );
    let c = bundle!().set(
        "/linux/resources/memory",
        json!({"limit": 65536, "swap": 65536}),
    );
    let line = failure(&c);
    assert_eq!(line["code"], "oom-killed", "{line}");
    let text = line["msg"].as_str().expect("a text");
    assert!(text.contains("is 65536 bytes, it used "), "{text}");
    assert!(
        line["hint"]
            .as_str()
            .is_some_and(|hint| hint.contains("linux.resources.memory.limit"))
    );
}

/// The same words for every verb: podman probes flags by them, and its users must see which flag it was.
#[test]
fn flags_are_refused_in_the_words_that_engines_expect() {
    let c = bundle!();
    let verbs = [
        "create",
        "start",
        "run",
        "state",
        "kill",
        "delete",
        "exec",
        "pause",
        "resume",
        "ps",
        "list",
        "update",
        "events",
        "stats",
        "check",
        "completion",
        "spec",
        "features",
    ];
    for verb in verbs {
        let line = refused(&c, &[verb, "--bogus"]);
        assert_eq!(
            line["msg"], "flag provided but not defined: -bogus",
            "{verb}"
        );
    }
    for (verb, flag) in [
        ("create", "--bundle"),
        ("run", "--console-socket"),
        ("exec", "--process"),
        ("update", "--resources"),
        ("events", "--interval"),
        ("stats", "--format"),
        ("ps", "--format"),
        ("spec", "--bundle"),
    ] {
        let line = refused(&c, &[verb, flag]);
        assert_eq!(
            line["msg"],
            format!("flag needs an argument: {flag}"),
            "{verb}"
        );
        assert_eq!(line["field"], flag, "{verb}");
    }
    for verb in ["start", "state", "delete", "pause", "resume", "update"] {
        let line = refused(&c, &[verb]);
        let text = line["msg"].as_str().expect("a text");
        assert!(text.contains("requires exactly 1 argument(s)"), "{text}");
    }
}

/// A usage error with a JSON log.
fn refused(c: &Bundle, words: &[&str]) -> Value {
    let log = c.path("log.json");
    let globals = ["--log", &log, "--log-format", "json"];
    let output = c.call(&[&globals[..], words].concat()).finish();
    let line = logged(c, &output);
    assert_eq!(line["code"], "usage", "{line}");
    line
}

#[test]
fn a_terminal_without_a_place_for_it_is_of_its_field() {
    let c = bundle!().set("/process/terminal", json!(true));
    let log = c.path("log.json");
    let c = c.global(&["--log", &log, "--log-format", "json"]);
    let line = logged(&c, &c.create());
    assert_eq!(
        (&line["code"], &line["field"]),
        (&json!("config-invalid"), &json!("process.terminal"))
    );
}

#[test]
fn the_start_of_what_has_stopped_tells_what_to_do() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_stopped();
    let log = c.path("log.json");
    let words = ["--log", &log, "--log-format", "json", "start", &c.id];
    let line = logged(&c, &c.call(&words).finish());
    let text = line["msg"].as_str().expect("a text");
    assert!(
        text.starts_with("cannot start a container that has stopped"),
        "{text}"
    );
    assert_eq!(line["hint"], "delete it, and create it again");
}

#[test]
fn a_cgroup_of_others_names_them() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let path = c.spec["linux"]["cgroupsPath"].clone();
    let other = bundle!().set("/linux/cgroupsPath", path);
    let line = failure(&other);
    let text = line["msg"].as_str().expect("a text");
    assert!(
        text.contains(&format!("process(es) found ({} payload)", c.pid())),
        "{text}"
    );
    c.delete(&["--force"]).ok();
}

/// Scripts and engines look for these words.
#[test]
fn texts_that_scripts_match_are_in_the_line() {
    let hooks = || json!([{"path": "/bin/true"}, {"path": "/bin/false"}]);
    for kind in ["createRuntime", "poststart"] {
        let c = bundle!().set(&format!("/hooks/{kind}"), hooks());
        let says = format!("error running {kind} hook #1: ");
        c.call_new("run", &[]).finish().fails_naming(&says);
        c.assert_gone();
    }
    let c = bundle!()
        .file("/run.sh", "#!/nosuch\n")
        .set("/process/args", json!(["/run.sh"]));
    fs::set_permissions(c.rootfs().join("run.sh"), PermissionsExt::from_mode(0o755))
        .expect("chmod");
    let output = c
        .run()
        .fails_naming("exec /run.sh: no such file or directory");
    assert_eq!(output.stderr().trim().lines().count(), 1);
    bundle!()
        .link("/proc", "tmp")
        .run()
        .fails_naming("must be mounted on ordinary directory");
    let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]);
    bundle!()
        .set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": "/nosuch"}),
        )
        .run()
        .fails_naming("failed to connect with seccomp agent");
}

/// Which process with which rights goes where, but not the name of the keyring.
#[test]
fn exec_says_with_debug_what_it_does() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let args = [
        "--debug", "exec", "--user", "5:6", &c.id, "/payload", "keyring",
    ];
    let output = c.call(&args).finish().ok();
    let cgroup = c.cgroup().display().to_string();
    for text in ["user 5:6", "exec [\"/payload\", \"keyring\"]", &cgroup] {
        assert!(
            output.stderr().contains(text),
            "{text}: {}",
            output.describe()
        );
    }
    let said = output.answer("keyring");
    let name = said.split(';').next_back().expect("a name");
    assert!(name.starts_with("_ses."), "{said}");
    assert!(
        !output.stderr().contains(name),
        "{name}: {}",
        output.describe()
    );
}
