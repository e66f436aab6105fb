//! T24, T28, T33: what the runtime's own processes show to a container in whose pid namespace they appear. An observer inside, with
//! every capability that helps it, looks at all processes before each system call of the runtime.

use super::joining::ALL;
use crate::support::trace::{Fault, Kind, trace_and_look};
use crate::support::{Bundle, Call, Output, in_time, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A container that looks around when it is asked, as root without a user namespace: nothing is hidden from it.
struct Observer {
    c: Bundle,
    output: Output,
}

impl Observer {
    fn new(c: Bundle, caps: &[&str]) -> Observer {
        let c = c.asks(&["watch"]).caps(caps);
        let output = c.create().ok();
        c.start().ok();
        output.wait_for("watching");
        Observer { c, output }
    }

    /// Asks for all that it sees.
    fn look(&self, number: usize) -> Vec<Value> {
        let asked = self.c.dir.join("asked");
        fs::write(&asked, number.to_string()).expect("write");
        fs::rename(&asked, self.c.rootfs().join("ask")).expect("rename");
        let answer = format!("seen {number} ");
        self.output.wait_for(&answer);
        let stdout = self.output.stdout();
        let line = stdout.lines().find_map(|line| line.strip_prefix(&answer));
        serde_json::from_str(line.expect("an answer")).expect("the answer is JSON")
    }

    /// All that is seen before each system call of a command.
    fn watch(&self, call: Call, fault: Option<Fault>) -> Vec<Value> {
        let mut seen = vec![];
        let mut number = 0;
        let begun = Instant::now();
        // After five seconds of silence a command takes note that its init is traced. On a busy machine looks are slow.
        let mut look = || {
            number += 1;
            if begun.elapsed() < Duration::from_secs(2) || number % 16 == 0 {
                seen.extend(self.look(number));
            }
        };
        trace_and_look(call, fault, &mut look).output.ok();
        self.look(0);
        seen
    }

    /// The processes are those of `of`, which may be this container.
    fn assert_nothing_of_the_host(&self, of: &Bundle, seen: &[Value]) {
        let root = node(&of.rootfs());
        let faults: Vec<String> = seen.iter().flat_map(|seen| faults(seen, &root)).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }
}

/// A bundle whose processes are born in the pid namespace of another container.
fn neighbour(of: &Bundle, c: Bundle) -> Bundle {
    let path = format!("/proc/{}/ns/pid", of.pid());
    let pid = json!({"type": "pid", "path": path});
    c.asks(&["exit 0"])
        .without("/linux/namespaces", "type", "pid")
        .push("/linux/namespaces", pid)
}

/// All that a process of the runtime shows beside what its program will have.
fn faults(process: &Value, own: &str) -> Vec<String> {
    let text = |key: &str| process[key].as_str().unwrap_or("?").to_string();
    let gone = |text: &str| ["ENOENT", "ESRCH", ""].contains(&text);
    let mut faults = vec![];
    let mut fault = |key: &str, value: &str| faults.push(format!("{key}: {value} in {process}"));
    let program = |text: &str| text.starts_with("/payload");
    let cmdline = text("cmdline");
    if cmdline != "cofferdam init" && !program(&cmdline) && !gone(&cmdline) {
        fault("cmdline", &cmdline);
    }
    let environ = text("environ");
    if !gone(&environ) && !environ.starts_with("PATH=/bin:/") {
        fault("environ", &environ);
    }
    let exe = text("exe");
    if !is_protected(&exe) && !program(&exe) && !gone(&exe) {
        fault("exe", &exe);
    }
    for key in ["cwd", "root"] {
        let directory = text(key);
        if directory != own && !gone(&directory) {
            fault(key, &directory);
        }
    }
    for path in list(process, "maps") {
        if !is_protected(&path) && !program(&path) && !path.starts_with('[') {
            fault("maps", &path);
        }
    }
    for descriptor in list(process, "fds") {
        let words: Vec<&str> = descriptor.split(' ').collect();
        let is_stream = ["0", "1", "2"].contains(&words[0]) && !is_host_device(words[2]);
        // The procfs that it was made for.
        let is_new_procfs = words[1] == "/" && words[2].ends_with(":1");
        let is_known = is_stream || is_new_procfs && words[2] != node(Path::new("/"));
        let is_own = ["socket:", "anon_inode:[fscontext]"];
        let is_own = is_own.iter().any(|own| words[1].starts_with(own));
        if !is_known && !is_own && !gone(words[1]) {
            fault("fd", &descriptor);
        }
    }
    faults
}

fn list(process: &Value, key: &str) -> Vec<String> {
    let list = process[key].as_array().expect("a list");
    list.iter()
        .map(|item| item.as_str().expect("text").to_string())
        .collect()
}

/// A file of the runtime's own mount, or of its own memory.
fn is_protected(path: &str) -> bool {
    path == "/cofferdam" || path == "/memfd:cofferdam (deleted)"
}

fn is_host_device(found: &str) -> bool {
    let names = ["null", "zero", "full", "random", "urandom"];
    let mut nodes = names.iter().map(|name| node(&Path::new("/dev").join(name)));
    nodes.any(|node| node == found)
}

fn node(path: &Path) -> String {
    let meta = fs::metadata(path).expect("stat");
    format!("{}:{}", meta.dev(), meta.ino())
}

#[test]
fn t24_a_process_that_joins_shows_nothing_of_the_host() {
    for c in [bundle!(), bundle!().in_user_namespace()] {
        let observer = Observer::new(c, &ALL);
        let id = observer.c.id.clone();
        let call = observer.c.call(&["exec", &id, "/payload", "exit", "0"]);
        let seen = observer.watch(call, None);
        assert!(!seen.is_empty(), "nobody was seen");
        // Where it may look at all: not from a user namespace into a process that was executed outside.
        if observer.c.spec["linux"].get("uidMappings").is_none() {
            observer.assert_nothing_of_the_host(&observer.c, &seen);
            let root = node(&observer.c.rootfs());
            let looked_into = |process: &Value| process["root"] == root;
            assert!(seen.iter().any(looked_into), "nobody was looked into");
        }
    }
}

#[test]
fn t24_an_init_in_a_pid_namespace_of_others_shows_nothing_of_the_host() {
    let observer = Observer::new(bundle!(), &ALL);
    let c = neighbour(&observer.c, bundle!());
    for verb in ["run", "create"] {
        let seen = observer.watch(c.call_new(verb, &[]), None);
        assert!(!seen.is_empty(), "nobody was seen");
        observer.assert_nothing_of_the_host(&c, &seen);
        c.delete(&["--force"]).ok();
    }
}

/// A kernel without the option `pidns` of procfs needs a process that is born in the namespace.
fn ways_to_mount_a_procfs() -> [Option<Fault>; 2] {
    let kind = Kind::FailOf(libc::SYS_fsconfig, libc::EINVAL);
    let fault = Fault {
        process: 1,
        call: 0,
        kind,
    };
    [None, Some(fault)]
}

#[test]
fn t24_a_process_that_adds_a_procfs_shows_nothing_of_the_host() {
    let c = bundle!().folder("more");
    let observer = Observer::new(c, &ALL);
    let id = observer.c.id.clone();
    for fault in ways_to_mount_a_procfs() {
        let add = observer
            .c
            .call(&["mounts", "add", &id, "/more", "--type", "proc"]);
        let seen = observer.watch(add, fault);
        observer.assert_nothing_of_the_host(&observer.c, &seen);
        assert_eq!(seen.is_empty(), fault.is_none(), "{seen:?}");
        // It shows the container's processes, not those of the host.
        let shown = observer
            .c
            .call(&["exec", &id, "/payload", "ls", "/more/1/task"]);
        assert_eq!(shown.finish().ok().answer("ls /more/1/task"), "1");
        observer
            .c
            .call(&["mounts", "remove", &id, "/more"])
            .finish()
            .ok();
    }
}

#[test]
fn t24_an_init_in_a_pid_namespace_of_others_has_a_procfs_of_it() {
    let observer = Observer::new(bundle!(), &ALL);
    let c = neighbour(&observer.c, bundle!()).asks(&["read /proc/1/cmdline"]);
    let seen = c.run().ok().answer("read /proc/1/cmdline");
    assert!(seen.contains("/payload"), "{seen}");
    let kind = Kind::FailOf(libc::SYS_fsconfig, libc::EINVAL);
    let fault = Fault {
        process: 1,
        call: 0,
        kind,
    };
    let seen = observer.watch(c.call_new("create", &[]), Some(fault));
    observer.assert_nothing_of_the_host(&c, &seen);
}

/// The command line can be read by everybody, without any capability.
#[test]
fn t33_nobody_reads_the_command_line_of_the_runtime() {
    let observer = Observer::new(bundle!(), &[]);
    let id = observer.c.id.clone();
    let secret = "PASSWORD=of-the-caller";
    let exec = ["exec", "-e", secret, &id, "/payload", "exit", "0"];
    let call = observer.c.call(&exec).env("SECRET", "of-the-caller");
    let mut seen = observer.watch(call, None);
    let c = neighbour(&observer.c, bundle!()).set("/process/args", json!(["/payload", "pause"]));
    let create = c.call_new("create", &[]).env("SECRET", "of-the-caller");
    seen.extend(observer.watch(create, None));
    // One that is created shows it all the time.
    seen.extend(observer.look(1));
    assert!(seen.len() > 1, "nobody was seen");
    // The program itself has been given them.
    for process in seen.iter().filter(|process| process["exe"] != "/payload") {
        let text = process.to_string();
        let own = ["of-the-caller", "--root", "--bundle", "exec"];
        let found = own.iter().find(|word| text.contains(**word));
        assert!(found.is_none(), "{found:?} in {text}");
        let cmdline = process["cmdline"].as_str().expect("text");
        let known = ["cofferdam init", "/payload exit 0", ""].contains(&cmdline);
        assert!(known, "{cmdline}");
    }
}

/// Root inside may stop each process that it sees.
#[test]
fn t28_who_stops_a_process_that_joins_keeps_nobody_waiting() {
    let c = bundle!().folder("more").asks(&["stop-others"]);
    let output = c.create().ok();
    c.start().ok();
    output.wait_for("stopping");
    let limit = Duration::from_secs(60);
    for _ in 0..3 {
        for args in [
            &["mounts", "add", &c.id, "/more", "--type", "proc"][..],
            &["exec", &c.id, "/payload", "exit", "0"],
        ] {
            let output = in_time(limit, || c.call(args).finish());
            if output.code() != 0 {
                output.fails_naming("stopped by a signal");
            }
        }
        c.call(&["mounts", "remove", &c.id, "/more"]).finish();
    }
    let cgroup = c.cgroup().join("cgroup.procs");
    let alone = || {
        fs::read_to_string(&cgroup)
            .unwrap_or_default()
            .lines()
            .count()
            == 1
    };
    wait_until("nobody else is left", alone);
    fs::write(c.rootfs().join("stop"), "").expect("write");
    output.wait_for("stop-others => ");
    assert_ne!(output.answer("stop-others"), "0", "nobody was stopped");
}

/// A tracer inside takes the connection of a process that joins, and speaks in its place: no process but one of the container becomes
/// known by that.
#[test]
fn t24_nobody_speaks_for_a_process_that_joins() {
    let c = bundle!().caps(&ALL).asks(&["forge"]);
    let output = c.create().ok();
    c.start().ok();
    output.wait_for("forging");
    let file = c.path("pid");
    let limit = Duration::from_secs(40);
    for _ in 0..20 {
        fs::remove_file(&file).ok();
        let args = [
            "exec",
            "--detach",
            "--pid-file",
            &file,
            &c.id,
            "/payload",
            "pause",
        ];
        let done = in_time(limit, || c.call(&args).finish());
        if done.code() == 0 {
            let pid = fs::read_to_string(&file).expect("read the pid file");
            let all = fs::read_to_string(c.cgroup().join("cgroup.procs")).expect("read");
            assert!(
                all.lines().any(|line| line == pid),
                "{pid} is none of {all:?}"
            );
        }
    }
    fs::write(c.rootfs().join("stop"), "").expect("write");
    output.wait_for("forge => ");
    let answer = output.answer("forge");
    println!("{answer}");
    assert!(!answer.starts_with("0 stopped"), "{answer}");
}

/// Its init would be born there at once, with the root of the host.
#[test]
fn t24_a_new_user_namespace_goes_with_no_pid_namespace_of_others() {
    let observer = Observer::new(bundle!(), &ALL);
    let c = neighbour(&observer.c, bundle!().in_user_namespace());
    let said = "the processes there would see the host in a container with a new user namespace";
    c.create().fails_naming(said);
    c.assert_gone();
    // The host's own has nobody to be hidden from.
    let path = "/proc/self/ns/pid";
    let c = bundle!()
        .in_user_namespace()
        .asks(&["exit 0"])
        .without("/linux/namespaces", "type", "pid")
        .push("/linux/namespaces", json!({"type": "pid", "path": path}))
        .without("/mounts", "destination", "/proc");
    let c = c
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    c.run().ok();
}

/// One that joins the user namespace of that pid namespace is born last, as without any.
#[test]
fn t24_an_init_in_both_namespaces_of_others_shows_no_more() {
    let other = bundle!().in_user_namespace().asks(&["watch"]);
    let output = other.create().ok();
    other.start().ok();
    output.wait_for("watching");
    let user = json!({"type": "user", "path": format!("/proc/{}/ns/user", other.pid())});
    let c = neighbour(&other, bundle!().owned_in_user_namespace())
        .without("/linux/namespaces", "type", "user")
        .push("/linux/namespaces", user)
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .asks(&["read /proc/1/cmdline"]);
    let observer = Observer { c: other, output };
    let seen = observer.watch(c.call_new("create", &[]), None);
    // Each that it sees has no more than the program's calls left to do.
    let known =
        |process: &Value| process["cmdline"] == "cofferdam init" || process["cmdline"] == "";
    assert!(!seen.is_empty() && seen.iter().all(known), "{seen:?}");
    assert!(
        seen.len() < 150,
        "it was there too early: {} looks",
        seen.len()
    );
    c.delete(&["--force"]).ok();
}
