//! T25, T26, T36: hooks as the way around the container's confinement, to the host's files, or past the hook's own end.

use super::ways::each_way;
use crate::hooks::KINDS;
use crate::support::{Bundle, PATIENCE, holds_within, lines, send, wait_until};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A hook that runs these commands of the payload, one after the other.
fn hook(c: &Bundle, kind: &str, commands: &[&str]) -> Value {
    let path = match kind {
        "startContainer" => "/payload".to_string(),
        _ => c.path("rootfs/payload"),
    };
    let words = commands.join(" ; ");
    let args: Vec<&str> = std::iter::once("hook").chain(words.split(' ')).collect();
    json!({"path": path, "args": args})
}

fn with_timeout(mut hook: Value, seconds: u64) -> Value {
    hook["timeout"] = json!(seconds);
    hook
}

/// The path by which a hook of this kind names a file of the rootfs.
fn inside(c: &Bundle, kind: &str, name: &str) -> String {
    match kind {
        "startContainer" => format!("/{name}"),
        _ => c.path(&format!("rootfs/{name}")),
    }
}

fn filter(names: &[&str], action: &str) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": names, "action": action}]})
}

/// Every combination of no_new_privs and user that changes who may load a filter, and what exec makes of capabilities.
fn identities() -> impl Iterator<Item = (bool, u32)> {
    [(true, 0), (true, 1000), (false, 0), (false, 1000)].into_iter()
}

fn identify(c: Bundle, (no_new_privileges, id): (bool, u32)) -> Bundle {
    println!("noNewPrivileges {no_new_privileges}, user {id}");
    c.set("/process/noNewPrivileges", json!(no_new_privileges))
        .set("/process/user", json!({"uid": id, "gid": id}))
}

#[test]
fn t25_a_filter_that_kills_the_program_kills_a_start_hook() {
    for c in each_way!() {
        let hook = hook(&c, "startContainer", &["append /began yes", "mkdir /made"]);
        let c = c
            .file("began", "")
            .asks(&["write /began ran"])
            .set("/hooks/startContainer", json!([hook]))
            .set(
                "/linux/seccomp",
                filter(&["mkdir", "mkdirat"], "SCMP_ACT_KILL_PROCESS"),
            );
        c.run()
            .fails_naming("startContainer")
            .fails_with("killed by signal 31");
        c.create().ok();
        c.start()
            .fails_naming("startContainer")
            .fails_with("killed by signal 31");
        assert_eq!(lines(&c.rootfs().join("began")), ["yes", "yes"]);
        assert!(!c.rootfs().join("made").exists());
        c.assert_gone();
    }
}

#[test]
fn t25_a_start_hook_is_under_the_filter_whoever_the_user_is() {
    let base = bundle!().folder("tmp");
    fs::set_permissions(base.rootfs().join("tmp"), PermissionsExt::from_mode(0o777))
        .expect("chmod");
    let hook = hook(&base, "startContainer", &["mkdir /tmp/made", "exit 9"]);
    let mut c = base
        .set("/hooks/startContainer", json!([hook]))
        .set("/linux/seccomp", filter(&["mkdir"], "SCMP_ACT_ERRNO"));
    for identity in identities() {
        c = identify(c, identity);
        c.run()
            .fails_naming("startContainer")
            .fails_with("mkdir /tmp/made => EPERM");
    }
}

/// There is no agent before the program runs, and nobody waits for one.
#[test]
fn t25_a_call_that_an_agent_would_judge_is_refused_to_a_start_hook() {
    let c = bundle!();
    let hook = hook(&c, "startContainer", &["mkdir /made", "exit 9"]);
    let mut profile = filter(&["mkdir"], "SCMP_ACT_NOTIFY");
    profile["listenerPath"] = json!(c.path("agent"));
    profile["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]);
    let mut c = c
        .set("/hooks/startContainer", json!([hook]))
        .set("/linux/seccomp", profile);
    for identity in identities() {
        c = identify(c, identity);
        c.create().ok();
        c.start()
            .fails_naming("startContainer")
            .fails_with("mkdir /made => ENOSYS");
        c.assert_gone();
    }
}

/// Neither for its program nor for its end.
#[test]
fn t25_a_filter_that_refuses_a_start_hook_all_it_needs_keeps_nobody_waiting() {
    for allowed in [
        vec![],
        vec!["write"],
        vec!["write", "exit_group"],
        vec!["execve"],
    ] {
        let names: Vec<&str> = std::iter::once("lseek").chain(allowed).collect();
        let filter = json!({"defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]});
        let c = bundle!();
        let hook = hook(&c, "startContainer", &["exit 0"]);
        let c = c
            .set("/hooks/startContainer", json!([hook]))
            .set("/linux/seccomp", filter);
        c.create().ok();
        c.start().fails_naming("startContainer");
        c.assert_gone();
    }
}

#[test]
fn t25_a_missing_program_of_a_start_hook_is_told_under_a_filter() {
    let c = bundle!()
        .push("/hooks/startContainer", json!({"path": "/no/such"}))
        .set("/linux/seccomp", filter(&["mkdir"], "SCMP_ACT_ERRNO"));
    c.run()
        .fails_naming("startContainer")
        .fails_with("execute \"/no/such\": No such file or directory");
    c.assert_gone();
}

/// The part of all that the program reports about itself: what tells one process from another, and what the program alone has.
fn confinement(report: &Value) -> Value {
    let mut all = report.clone();
    for own in ["pid", "ppid", "sid", "args", "fds", "cwd", "cpus", "tty_nr"] {
        all.as_object_mut().expect("an object").remove(own);
    }
    let kept = [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "SigBlk",
        "SigIgn",
    ];
    let status: Map<String, Value> = kept
        .iter()
        .map(|name| (name.to_string(), report["status"][name].clone()))
        .collect();
    all["status"] = status.into();
    all["env"]
        .as_array_mut()
        .expect("a list")
        .sort_by_key(Value::to_string);
    all
}

#[test]
fn t25_a_start_hook_has_the_credentials_limits_and_home_of_the_program() {
    let passwd = "root:x:0:0::/home/of-root:/bin/sh\nuser:x:1000:1000::/home/of-user:/bin/sh\n";
    for user_namespace in [false, true] {
        let mut c = bundle!().file("etc/passwd", passwd).file("reports", "");
        if user_namespace {
            c = c.owned_in_user_namespace();
        }
        fs::set_permissions(c.rootfs().join("reports"), PermissionsExt::from_mode(0o666))
            .expect("chmod");
        let hook = hook(&c, "startContainer", &["report-to /reports"]);
        c = c
            .asks(&["report-to /reports"])
            .set("/hooks/startContainer", json!([hook]))
            .set("/process/user/umask", json!(0o27))
            .set(
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}, {"type": "RLIMIT_CORE", "soft": 1, "hard": 2}]),
            )
            .set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 19}))
            .set("/linux/seccomp", filter(&["mkdir"], "SCMP_ACT_ERRNO"));
        for (identity, home) in identities().zip(["root", "user"].into_iter().cycle()) {
            c = identify(c, identity).set("/process/user/umask", json!(0o27));
            fs::write(c.rootfs().join("reports"), "").expect("write");
            c.run().ok();
            let reports: Vec<Value> = lines(&c.rootfs().join("reports"))
                .iter()
                .map(|line| serde_json::from_str(line).expect("a report"))
                .collect();
            let [hook, program] = &reports[..] else {
                panic!("{} reports", reports.len())
            };
            assert_eq!(confinement(hook), confinement(program));
            assert_eq!(hook["status"]["Seccomp"], "2");
            assert_eq!(hook["rlimits"]["NOFILE"], json!([77, 88]));
            let home = json!(format!("HOME=/home/of-{home}"));
            assert!(
                hook["env"].as_array().expect("a list").contains(&home),
                "{home}"
            );
        }
    }
}

/// A line for each kind of hook: whether it is in the container's namespaces and cgroup, its working directory, whether it has
/// the program's capabilities and limits, the umask, the owner of its environment.
fn expected(c: &Bundle, kind: &str) -> Value {
    let (inside, cwd, confined, umask, env) = match kind {
        "createContainer" => (true, c.path("rootfs"), false, 0o22, "create"),
        "startContainer" => (true, "/".to_string(), true, 0o27, "process"),
        "poststart" => (false, c.path(""), false, 0o22, "start"),
        "poststop" => (false, c.path(""), false, 0o22, "delete"),
        _ => (false, c.path(""), false, 0o22, "create"),
    };
    let (limits, seccomp, privileges) = match confined {
        true => (json!([77, 88]), "2", "1"),
        false => (Value::Null, "0", "0"),
    };
    json!({"inside": inside, "cwd": cwd.trim_end_matches('/'), "confined": confined, "umask": umask, "env": env,
        "limits": limits, "seccomp": seccomp, "privileges": privileges, "streams": ["0", "1", "2"]})
}

/// The same of what a hook has reported; `own` is the report of a process beside the runtime, `program` that of the program.
fn found(hook: &Value, own: &Value, program: &Value) -> Value {
    let of = |report: &Value, field: &str| {
        let all: Vec<Value> = ["mnt", "pid", "uts", "ipc", "net", "cgroup"]
            .iter()
            .map(|kind| report["ns"][kind].clone())
            .chain([report["cgroup"].clone(), report["oom"].clone()])
            .collect();
        match field {
            "place" => json!(all),
            _ => json!(
                ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
                    .map(|set| report["status"][set].clone())
            ),
        }
    };
    let is = |field: &str| match of(hook, field) {
        value if value == of(own, field) => json!(false),
        value if value == of(program, field) => json!(true),
        other => other,
    };
    let env = hook["env"].as_array().expect("a list").iter();
    let mut env = env.filter_map(|entry| entry.as_str()?.strip_prefix("OF="));
    let limits = &hook["rlimits"]["NOFILE"];
    let same = *limits == own["rlimits"]["NOFILE"];
    json!({"inside": is("place"), "cwd": hook["cwd"].as_str().expect("a path").trim_end_matches('/'),
        "confined": is("capabilities"), "umask": hook["umask"], "env": env.next(),
        "limits": if same { &Value::Null } else { limits },
        "seccomp": hook["status"]["Seccomp"], "privileges": hook["status"]["NoNewPrivs"],
        "streams": hook["fds"].as_object().expect("an object").keys().collect::<Vec<_>>()})
}

#[test]
fn t26_each_kind_of_hook_is_where_it_is_to_be_and_has_what_it_is_to_have() {
    let c = bundle!().folder("reports");
    let file = |kind: &str| inside(&c, kind, &format!("reports/{kind}"));
    let lists = KINDS.iter().map(|kind| {
        let report = format!("report-to {}", file(kind));
        (kind.to_string(), json!([hook(&c, kind, &[&report])]))
    });
    let lists: Map<String, Value> = lists.collect();
    let c = c
        .asks(&["report-to /reports/program", "pause"])
        .set("/hooks", lists.into())
        .push("/process/env", json!("OF=process"))
        .set("/process/user/umask", json!(0o27))
        .set("/process/oomScoreAdj", json!(500))
        .set(
            "/process/rlimits",
            json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]),
        )
        .set("/linux/seccomp", filter(&["mkdir"], "SCMP_ACT_ERRNO"))
        .flag(&["--preserve-fds", "1"]);
    let of_host = || File::open("/").expect("open");
    let create = c.call_new("create", &[]).env("OF", "create");
    create.fd(of_host(), 3).fd(of_host(), 9).finish().ok();
    let call = |verb: &str| c.call(&[verb, &c.id]).env("OF", verb).fd(of_host(), 9);
    call("start").finish().ok();
    let read = |name: &str| lines(&c.rootfs().join("reports").join(name)).pop();
    wait_until("the program has reported", || read("program").is_some());
    c.kill("KILL").ok();
    c.wait_stopped();
    call("delete").finish().ok();
    let report = |name: &str| -> Value {
        let line = read(name).unwrap_or_else(|| panic!("{name} has not run"));
        serde_json::from_str(&line).expect("a report")
    };
    let own = std::process::Command::new(c.path("rootfs/payload"))
        .args(["report-to", &c.path("rootfs/reports/own")])
        .status();
    assert!(own.expect("run the payload").success());
    for kind in KINDS {
        let found = found(&report(kind), &report("own"), &report("program"));
        assert_eq!(found, expected(&c, kind), "{kind}");
    }
}

#[test]
fn t26_a_relative_path_of_a_create_hook_leads_into_the_rootfs() {
    for c in each_way!() {
        let name = format!("cofferdam-hook-{}", c.id.replace(':', "-"));
        let write = format!("write tmp/{name} yes");
        let hook = hook(&c, "createContainer", &[&write]);
        let mut c = c.set("/hooks/createContainer", json!([hook]));
        for flags in [vec![], vec!["--no-pivot".to_string()]] {
            c.flags = flags;
            c.run().ok();
            let of_host = PathBuf::from("/tmp").join(&name);
            let escaped = of_host.exists();
            fs::remove_file(of_host).ok();
            assert!(!escaped, "the hook has written to the host's /tmp");
            assert_eq!(lines(&c.rootfs().join("tmp").join(&name)), ["yes"]);
            fs::remove_file(c.rootfs().join("tmp").join(&name)).expect("remove");
        }
    }
}

/// Processes of the host with this word on their command line.
fn marked(word: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_marked = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|arg| arg == word.as_bytes())
    };
    pids.filter(is_marked).collect()
}

fn end(word: &str) {
    marked(word)
        .into_iter()
        .for_each(|pid| send(pid as u32, libc::SIGKILL));
    wait_until("they have ended", || marked(word).is_empty());
}

/// The number of its parent (proc_pid_stat(5)).
fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, after) = stat.rsplit_once(") ").expect("a name");
    after
        .split(' ')
        .nth(1)
        .expect("a parent")
        .parse()
        .expect("a number")
}

/// The word that marks a hook of this kind, and the hook, which leaves a daemon and does not end by itself.
fn lingering(c: &Bundle, kind: &str) -> (String, Value) {
    let word = format!("mark-{kind}-{}", c.id);
    let hook = hook(c, kind, &["daemon", &format!("env {word}"), "pause"]);
    (word, hook)
}

/// Takes the container through the verbs up to that in which hooks of this kind run; gives that verb's output.
fn reach(c: &Bundle, kind: &str) -> crate::support::Output {
    let created = c.create();
    if !["startContainer", "poststart", "poststop"].contains(&kind) {
        return created;
    }
    created.ok();
    match kind {
        "poststop" => c.delete(&[]),
        _ => c.start(),
    }
}

#[test]
fn t36_a_hook_that_is_too_late_ends_with_what_has_left_its_session() {
    for own_pids in [true, false] {
        let mut c = bundle!().asks(&["pause"]);
        if !own_pids {
            c = c.without("/linux/namespaces", "type", "pid");
        }
        for kind in KINDS {
            println!("{kind}, pid namespace {own_pids}");
            let (word, hook) = lingering(&c, kind);
            let mut hooks = Map::new();
            hooks.insert(kind.to_string(), json!([with_timeout(hook, 1)]));
            c = c.set("/hooks", hooks.into());
            let output = reach(&c, kind);
            let told = output.stderr().contains("past specified timeout of 1.0s");
            assert!(told, "{}", output.describe());
            assert_eq!(
                output.code() == 0,
                kind == "poststop",
                "{}",
                output.describe()
            );
            let left = !holds_within(PATIENCE, || marked(&word).is_empty());
            end(&word);
            assert!(!left, "{kind}: its daemon lives");
            c.assert_gone();
        }
    }
}

#[test]
fn t36_what_a_hook_has_left_that_was_in_time_lives_on() {
    let mut c = bundle!().asks(&["pause"]);
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        let word = format!("daemon-of-{kind}-{}", c.id);
        let leaves = hook(&c, kind, &["daemon", &format!("env {word}")]);
        let (late_word, late) = lingering(&c, kind);
        for second in [None, Some(with_timeout(late, 1))] {
            println!("{kind}, and one that is too late: {}", second.is_some());
            let mut list = vec![with_timeout(leaves.clone(), 60)];
            let succeeds = second.is_none() || kind == "poststop";
            list.extend(second);
            let mut hooks = Map::new();
            hooks.insert(kind.to_string(), json!(list));
            c = c.set("/hooks", hooks.into());
            let output = reach(&c, kind);
            c.delete(&["--force"]).ok();
            let (left, late) = (marked(&word), marked(&late_word));
            let parents: Vec<i32> = left.iter().map(|pid| parent(*pid)).collect();
            end(&word);
            end(&late_word);
            assert_eq!(output.code() == 0, succeeds, "{}", output.describe());
            assert_eq!((left.len(), late.len()), (1, 0));
            // The runtime has ended, and adopts nobody any more.
            assert!(!parents.contains(&0) && !marked(&word).contains(&parents[0]));
        }
    }
}

/// Not startContainer: init runs these, and goes on without the command that has started it.
#[test]
fn t36_a_hook_that_is_interrupted_ends_with_what_has_left_its_session() {
    let mut c = bundle!().asks(&["pause"]);
    let kinds = KINDS.into_iter().filter(|kind| *kind != "startContainer");
    for kind in kinds {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            println!("{kind}, signal {signal}");
            let (word, hook) = lingering(&c, kind);
            let mut hooks = Map::new();
            hooks.insert(kind.to_string(), json!([hook]));
            c = c.set("/hooks", hooks.into());
            let verb = match kind {
                "poststart" => "start",
                "poststop" => "delete",
                _ => "create",
            };
            let call = match verb {
                "create" => c.call_new("create", &[]),
                _ => {
                    c.create().ok();
                    c.call(&[verb, &c.id])
                }
            };
            let running = call.spawn();
            wait_until("the hook and its daemon live", || marked(&word).len() == 2);
            send(running.child.id(), signal);
            let output = running.wait();
            let left = !holds_within(PATIENCE, || marked(&word).is_empty());
            end(&word);
            assert!(!left, "{kind}: what it has started lives");
            let code = if verb == "delete" { 0 } else { 128 + signal };
            assert_eq!(output.code(), code, "{}", output.describe());
            let told = output.stderr().contains("interrupted by SIG");
            assert!(told, "{}", output.describe());
            c.assert_gone();
        }
    }
}
