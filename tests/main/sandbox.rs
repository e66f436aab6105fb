//! A caller who is confined: calls that never fail elsewhere do, and nobody reads what is said.

use crate::support::trace::trace;
use crate::support::{Output, answer, cgroup_root, wait_until};
use libseccomp::ScmpSyscall;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::{fs, io};

/// From now on this call of the process fails with EPERM.
fn refuse(number: libc::c_long) -> io::Result<()> {
    answer(number, libc::EPERM)
}

#[test]
fn calls_that_a_sandbox_refuses_make_no_panic() {
    let c = bundle!();
    let call = c.call_new("run", &[]);
    let output = call.setup(|| refuse(libc::SYS_umask)).finish();
    let output = output.fails_with("umask(0o0): Operation not permitted");
    assert!(!output.stderr().contains("panic"), "{}", output.describe());
    c.assert_gone();
    let call = c.call_new("run", &[]);
    call.setup(|| refuse(libc::SYS_getrandom)).finish().ok();
}

#[test]
fn nobody_has_to_read_the_timings() {
    let c = bundle!().asks(&["exit 5"]);
    c.write_config();
    let dir = c.dir.display().to_string();
    let (reader, writer) = io::pipe().expect("pipe");
    drop(reader);
    let call = ["--timings", "text", "run", "--bundle", &dir, &c.id];
    c.call(&call).fd(writer, 2).finish().exits(5);
}

/// Without these no program runs, whatever it does about it.
const NEEDED: [&str; 9] = [
    "poll",
    "read",
    "close",
    "execve",
    "exit_group",
    "mmap",
    "brk",
    "arch_prctl",
    "write",
];

/// What the container sees of its confinement, but for numbers that differ each time and the filter of this test.
pub fn confinement(output: &Output) -> Value {
    let report = output.report();
    let own = |name: &str| {
        let path = format!("/proc/self/ns/{name}");
        let link = fs::read_link(path).expect("a namespace");
        json!(report["ns"][name] == link.display().to_string())
    };
    let namespaces = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"].map(own);
    let mut facts = json!({
        "mounts": output.answer("mounts"),
        "fds": report["fds"].as_object().expect("descriptors").len(),
        "namespaces of the host": namespaces,
    });
    for name in [
        "uid", "gid", "groups", "umask", "cwd", "env", "hostname", "cgroup", "uid_map", "rlimits",
        "dumpable",
    ] {
        facts[name] = report[name].clone();
    }
    for name in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "SigIgn",
    ] {
        facts[name] = report["status"][name].clone();
    }
    facts
}

/// Each call that the runtime makes is refused in turn, as by an old kernel and as by a sandbox: the container is as it
/// would be, or there is none.
#[test]
fn a_call_that_is_refused_changes_no_confinement() {
    let c = bundle!().asks(&["report", "mounts"]);
    let traced = trace(c.call_new("run", &[]), None);
    let expected = confinement(&traced.output);
    let calls = traced.processes.iter().flat_map(|process| &process.calls);
    let calls: BTreeSet<i64> = calls.copied().collect();
    for (number, errno) in calls
        .iter()
        .flat_map(|call| [(call, libc::ENOSYS), (call, libc::EPERM)])
    {
        let name = ScmpSyscall::from(*number as i32)
            .get_name()
            .expect("a name");
        if NEEDED.contains(&name.as_str()) {
            continue;
        }
        let output = c.call_new("run", &[]).without(*number, errno).finish();
        let told = format!("{name}, errno {errno}: {}", output.describe());
        assert!(!output.stderr().contains("internal error"), "{told}");
        if output.code() == 0 {
            let mut seen = confinement(&output);
            if (name.as_str(), errno) == ("mknodat", libc::EPERM) {
                // As in a user namespace: the nodes are bound from the host.
                seen["mounts"] = expected["mounts"].clone();
            }
            assert_eq!(seen, expected, "{told}");
        } else {
            assert_ne!(output.stderr(), "", "{told}");
        }
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}

/// As it may know one way to make namespaces, and not the other.
#[test]
fn without_unshare_a_container_has_a_network_of_its_own() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "cgroup")
        .asks(&["report", "mounts"]);
    let expected = confinement(&c.run().ok());
    for errno in [libc::EPERM, libc::ENOSYS] {
        let call = c.call_new("run", &[]).without(libc::SYS_unshare, errno);
        assert_eq!(confinement(&call.finish().ok()), expected);
    }
    assert_eq!(expected["namespaces of the host"][2], json!(false));
}

#[test]
fn a_cgroup_tree_that_is_read_only_is_told() {
    let c = bundle!();
    let root = cgroup_root().display().to_string();
    let script = format!(
        "exec unshare -m sh -c 'mount -o remount,bind,ro {root} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    );
    let output = c.call_new("run", &[]).through_shell(&script).finish();
    let output = output.fails_with("the tree is mounted read-only: mkdirat(");
    output.says("; remount it, or run where it can be written");
    c.assert_gone();
}

#[test]
fn how_a_stopped_container_ended_is_told_while_it_is_known() {
    let c = bundle!().asks(&["exit 7"]);
    c.write_config();
    // The shell adopts init, and becomes a program that waits for no child.
    let (dir, root, id) = (c.path(""), c.state_root(), &c.id);
    let script = format!(
        "call() {{ \"$0\" --root {} \"$@\"; }}
        call create --bundle {dir} {id} </dev/null && call start {id} && \
        {{ sleep 1; call start {id} 2>{dir}/said; echo $? >{dir}/code; }} & exec sleep 3",
        root.display()
    );
    let adopts = || {
        // SAFETY: a plain call.
        match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    let running = c.call(&[]).through_shell(&script).setup(adopts).spawn();
    let read = |name: &str| fs::read_to_string(c.path(name)).unwrap_or_default();
    wait_until("start has ended", || read("code").ends_with('\n'));
    let want = "cannot start a container that has stopped: its init exited with status 7; delete it, and create it again\n";
    assert_eq!(
        (read("said").as_str(), read("code").as_str()),
        (want, "1\n")
    );
    running.wait();
}

#[test]
fn a_sysctl_of_a_namespace_that_belongs_to_others_names_the_file() {
    let owner = bundle!().asks(&["pause"]);
    owner.up();
    let ipc = format!("/proc/{}/ns/ipc", owner.pid());
    let c = bundle!()
        .in_user_namespace()
        .without("/linux/namespaces", "type", "ipc")
        .push("/linux/namespaces", json!({"type": "ipc", "path": ipc}))
        .set("/linux/sysctl", json!({"kernel.msgmax": "9000"}));
    let log = c.path("log.json");
    let c = c.global(&["--log", &log, "--log-format", "json"]);
    let output = c.run().fails_with("linux.sysctl.kernel.msgmax: 9000: ");
    let text = fs::read_to_string(&log).expect("a log");
    assert!(text.contains("\"errno\":\"E"), "{text}");
    output.says("kernel/msgmax");
    c.assert_gone();
}
