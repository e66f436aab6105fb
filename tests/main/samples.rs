//! The samples in `config-samples` run as their readers run them. The limits that this machine
//! cannot keep are taken out, and said.

use crate::support::terminal::Terminal;
use crate::support::{Bundle, Runtime, cgroup_root, has_controller, runtime};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

const SAMPLES: [&str; 11] = [
    "devices", "hello", "hooks", "idmap", "limits", "minimal", "overlay", "seccomp", "terminal",
    "timens", "userns",
];

/// The sample of this name, in a bundle of its own; leaves the test on other runtimes.
macro_rules! sample {
    ($name:expr) => {{
        needs!(
            runtime() == Runtime::Cofferdam,
            "on another runtime: roots are overlays by an annotation of this one"
        );
        copied(bundle!(), $name)
    }};
}

#[test]
fn every_sample_is_tested() {
    let entries = fs::read_dir(repository("config-samples")).expect("read");
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, SAMPLES);
    let text = include_str!("samples.rs");
    for name in SAMPLES {
        assert!(text.contains(&format!("sample!({name:?})")), "{name}");
    }
}

#[test]
fn minimal() {
    let c = sample!("minimal");
    assert_eq!(c.run().ok().silent().stdout(), "it runs\n");
}

#[test]
fn hello() {
    let c = sample!("hello");
    let output = c.run().ok().silent();
    let text = output.stdout();
    assert_eq!(text.lines().last(), Some("hello from cofferdam"), "{text}");
    assert!(text.contains("\nhello\n"), "{text}");
    assert!(text.contains("I am process 1 of "), "{text}");
    assert!(text.contains("uid=65534"), "{text}");
    assert!(text.contains("CapEff:\t0000000000000000\nNoNewPrivs:\t1\n"));
    let (_, rest) = text.split_once("/proc/mounts\n").expect("mounts");
    let (mounts, _) = rest.split_once("$ ").expect("the next question");
    assert_eq!(
        without_covers(mounts, &c.spec),
        mounts_of(&c.spec),
        "{text}"
    );
    for (limit, line) in [
        ("/memory", "memory.max:268435456"),
        ("/pids", "pids.max:64"),
        ("/cpu/quota", "cpu.max:50000 100000"),
    ] {
        let given = c.spec["linux"]["resources"].pointer(limit).is_some();
        assert_eq!(text.contains(line), given, "{line}: {text}");
    }
}

/// Masks and read-only paths are mounts too, which have no place in the order of the others.
fn without_covers(mounts: &str, spec: &Value) -> String {
    let paths = ["/linux/maskedPaths", "/linux/readonlyPaths"].map(|list| spec.pointer(list));
    let paths = || paths.iter().flat_map(|list| list.and_then(Value::as_array));
    let covers = |line: &&str| {
        let place = line.split(' ').next().expect("a place");
        paths().flatten().any(|path| path == place)
    };
    let lines = mounts.split_inclusive('\n').filter(|line| !covers(line));
    lines.collect()
}

/// What is mounted, nothing of the host before or between: a line of place and kind each.
fn mounts_of(spec: &Value) -> String {
    let mut lines = "/ overlay\n".to_string();
    for entry in spec["mounts"].as_array().expect("mounts") {
        let kind = entry["type"].as_str().expect("a type");
        let kind = if kind == "cgroup" { "cgroup2" } else { kind };
        lines += &format!(
            "{} {kind}\n",
            entry["destination"].as_str().expect("a path")
        );
    }
    lines
}

#[test]
fn limits() {
    let c = sample!("limits");
    let output = c.run().ok();
    let (text, warnings) = (output.stdout(), output.stderr());
    assert_eq!(warnings.matches("has no meaning in cgroup v2").count(), 2);
    assert!(text.contains("\ncgroup.max.descendants:4\n"), "{text}");
    assert!(text.ends_with("_adj\n500\n"), "{text}");
    assert!(text.contains("$ ulimit -n\n100\n"), "{text}");
    for (limit, line) in [
        ("/memory/limit", "memory.max:268435456"),
        ("/memory/reservation", "memory.low:134217728"),
        ("/unified/memory.high", "memory.high:209715200"),
        ("/pids", "pids.max:64"),
        ("/cpu/quota", "cpu.max:50000 100000"),
        ("/cpu/burst", "cpu.max.burst:20000"),
        ("/cpu/shares", "cpu.weight:59"),
        ("/cpu/cpus", "cpuset.cpus:0"),
        ("/cpu/mems", "cpuset.mems:0"),
        (
            "/blockIO",
            "io.max:7:0 rbps=10485760 wbps=5242880 riops=1000 wiops=500",
        ),
        ("/hugepageLimits", "hugetlb.2MB.max:4194304"),
    ] {
        let given = c.spec["linux"]["resources"].pointer(limit).is_some();
        assert_eq!(text.contains(line), given, "{line}: {text}");
    }
}

#[test]
fn userns() {
    let c = sample!("userns");
    let text = c.run().ok().stdout();
    assert!(text.contains("\nuid=0"), "{text}");
    assert!(words(&text).contains(" 0 100000 65536 "), "{text}");
    assert!(text.contains("/bin/sh belongs to 65534:65534\n"), "{text}");
    assert!(text.contains("/mine belongs to 0:0\n"), "{text}");
    assert!(text.contains("\nnone /here tmpfs"), "{text}");
    assert!(text.ends_with("\nnot even root in here may do that\n"));
}

#[test]
fn terminal() {
    let c = sample!("terminal");
    // A terminal without a size, and a pipe for the output.
    let (_user, other) = Terminal::pair(0, 0);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let call = c.call_new("run", &[]).on_terminal(other);
    call.fd(writer, 1).finish().ok();
    let text = std::io::read_to_string(&mut reader).expect("read");
    assert!(text.contains("$ tty\n/dev/pts/0\n"), "{text:?}");
    assert!(text.contains("$ stty size\n30 100\n"), "{text:?}");
    assert!(text.contains("character special file 0:0\n"), "{text:?}");
    assert!(text.ends_with("> /dev/tty\nwritten to the controlling terminal\n"));

    let (mut user, other) = Terminal::pair(120, 40);
    let call = c.call_new("run", &[]).on_terminal(other).spawn();
    user.read_until("$ stty size\r\n40 120\r\n");
    call.wait().ok();
}

#[test]
fn seccomp() {
    let c = sample!("seccomp");
    needs!(cfg!(target_arch = "x86_64"), "the profile is for x86_64");
    let blocked = ["no new user namespace\n", "no mount, whatever"];
    let allowed = "\nthe usual calls pass\n";
    let text = c.run().ok().stdout();
    assert!(text.contains("Seccomp:\t2\n"), "{text}");
    for line in blocked {
        assert!(text.contains(&format!("\n{line}")), "{text}");
    }
    assert!(text.ends_with(allowed), "{text}");

    let text = c.remove("/linux/seccomp").run().ok().stdout();
    assert!(text.contains("Seccomp:\t0\n"), "{text}");
    for line in blocked {
        assert!(!text.contains(&format!("\n{line}")), "{text}");
    }
}

#[test]
fn hooks() {
    let c = sample!("hooks");
    let text = c.run().ok().silent().stdout();
    let story = [
        "prestart \"status\":\"creating\"",
        "createRuntime \"status\":\"creating\"",
        "createContainer \"status\":\"creating\"",
        "startContainer \"status\":\"created\"",
        "poststart \"status\":\"running\"",
    ];
    assert!(text.ends_with(&(story.join("\n") + "\n")), "{text}");
    assert!(!c.dir.join("story").exists(), "poststop takes it away");
}

#[test]
fn overlay() {
    let c = sample!("overlay");
    let before = tree(&c.dir.join("layers"));
    let text = c.run().ok().silent().stdout();
    let changed = "$ cat /etc/motd\nchanged\n$ ls /etc/app.d\napp\n";
    assert!(text.starts_with("$ cat /etc/motd\nthe app layer lies on top\n"));
    assert!(text.contains("$ ls /etc/app.d\napp\nbase\n"), "{text}");
    assert!(text.contains(changed), "{text}");
    assert_eq!(tree(&c.dir.join("layers")), before);
    assert!(!Path::new("/usr/etc/motd").exists());
}

#[test]
fn devices() {
    let c = sample!("devices");
    let text = c.run().ok().stdout();
    for node in [
        "brw-rw---- 1 0 6 7, 0 ",
        "crw-rw-rw- 1 0 0 1, 3 ",
        "crw------- 1 0 0 1, 11 ",
        "prw-r--r-- 1 65534 65534 0 ",
    ] {
        assert!(words(&text).contains(node), "{node}: {text}");
    }
    for line in [
        "written to a node of our own",
        "a rule allows to write there",
        "and not to read",
        "no rule allows this device",
        "a node can be made of any device",
        "but that opens nothing",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
}

#[test]
fn idmap() {
    let c = sample!("idmap");
    let text = c.run().ok().silent().stdout();
    assert!(text.contains("/plain/file belongs to 65534:65534\n"));
    assert!(text.contains("/mapped/file belongs to 0:0\n"), "{text}");
    assert!(text.ends_with("/shifted/file belongs to 1000:1000\n"));
}

#[test]
fn timens() {
    let c = sample!("timens");
    let before = uptime();
    let text = c.run().ok().silent().stdout();
    assert!(words(&text).contains(" monotonic 86400 500000000 boottime 864000 0 "));
    let inside = text.lines().find_map(|line| line.parse::<u64>().ok());
    let inside = inside.expect("the uptime") - 864000;
    assert!((before..before + 60).contains(&inside), "{text}");
}

#[test]
fn a_dry_run_prints_the_plan_and_touches_nothing() {
    needs!(
        runtime() == Runtime::Cofferdam,
        "on another runtime: there is no dry run"
    );
    for name in SAMPLES {
        let c = bundle!();
        let folder = repository("config-samples").join(name);
        let before = tree(&folder);
        let plan = fs::read_to_string(folder.join("plan")).expect("read the plan");
        for verb in ["create", "run"] {
            let bundle = folder.display().to_string();
            let call = c.call(&[verb, "--dry-run", "--bundle", &bundle, name]);
            let text = call.finish().ok().silent().stdout();
            assert_eq!(text, here(&plan, name, &folder), "{verb} {name}");
        }
        assert!(!c.state_root().exists(), "{name}: makes a state directory");
        assert!(!cgroup(name).exists(), "{name}: makes a cgroup");
        assert_eq!(tree(&folder), before, "{name}: changes its bundle");
    }
}

/// The plan on this host: its mount point of cgroup v2, and the bundle where it is.
fn here(plan: &str, name: &str, folder: &Path) -> String {
    let bundle = format!("{}/", folder.display());
    let own = format!("cgroup {}\n", cgroup(name).display());
    plan.replace("/bundle/", &bundle)
        .replace(&format!("cgroup /sys/fs/cgroup/{name}\n"), &own)
}

/// Where a container without a path gets its cgroup: beside that of its caller.
fn cgroup(name: &str) -> PathBuf {
    let own = fs::read_to_string("/proc/self/cgroup").expect("read");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let beside = Path::new(own.expect("a cgroup")).parent();
    cgroup_root()
        .join(beside.unwrap_or(Path::new("")))
        .join(name)
}

/// The sample with its files, in the bundle of a test.
fn copied(mut c: Bundle, name: &str) -> Bundle {
    let folder = repository("config-samples").join(name);
    for (path, text) in tree(&folder) {
        let copy = c.dir.join(path.strip_prefix(&folder).expect("below"));
        fs::create_dir_all(copy.parent().expect("a parent")).expect("mkdir");
        fs::write(copy, text).expect("write");
    }
    let ours = std::mem::replace(&mut c.spec, parse(&folder.join("config.json")));
    c.spec["linux"]["cgroupsPath"] = ours["linux"]["cgroupsPath"].clone();
    say_without(&format!("samples::{name}"), &limit_to_host(&mut c.spec));
    c
}

/// Takes out the limits whose controllers are not to be had here, and names them.
pub fn limit_to_host(spec: &mut Value) -> Vec<String> {
    let mut missing = possible(spec.pointer_mut("/linux/resources"), |key| match key {
        "memory" | "pids" | "rdma" => key,
        "blockIO" => "io",
        "hugepageLimits" => "hugetlb",
        _ => "cgroup",
    });
    let cpu = spec.pointer_mut("/linux/resources/cpu");
    missing.extend(possible(cpu, |key| match key {
        "cpus" | "mems" => "cpuset",
        _ => "cpu",
    }));
    let unified = spec.pointer_mut("/linux/resources/unified");
    missing.extend(possible(unified, |key| {
        key.split('.').next().unwrap_or(key)
    }));
    missing
}

/// Keeps the keys of an object whose controllers are there; gives the others.
fn possible(limits: Option<&mut Value>, controller: fn(&str) -> &str) -> Vec<String> {
    let mut missing = vec![];
    if let Some(limits) = limits.and_then(Value::as_object_mut) {
        limits.retain(|key, _| {
            let name = controller(key);
            let there = name == "cgroup" || has_controller(name);
            missing.extend((!there).then(|| key.clone()));
            there
        });
    }
    missing
}

/// In one piece, past the capture of the test runner.
pub fn say_without(what: &str, missing: &[String]) {
    if !missing.is_empty() {
        let line = format!("{what}: runs without {}\n", missing.join(", "));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

pub fn repository(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    path.canonicalize().expect("a path of the repository")
}

pub fn parse(config: &Path) -> Value {
    let text = fs::read_to_string(config).expect("read the config");
    serde_json::from_str(&text).expect("JSON")
}

/// All files below a directory with their contents, in order.
pub fn tree(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut files = vec![];
    for entry in fs::read_dir(directory).expect("read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            let text = fs::read_to_string(&path).expect("read");
            files.push((path, text));
        }
    }
    files.sort();
    files
}

/// With one space between all words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn uptime() -> u64 {
    let text = fs::read_to_string("/proc/uptime").expect("read");
    text.split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .expect("seconds")
}
