//! Annotations that engines send, the seccomp listener, and the cgroup that is given to its user.

use crate::hotplug::USER;
use crate::support::{Bundle, wait_until};
use serde_json::{Value, json};
use std::io::{IoSliceMut, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::{fs, mem};

fn annotated(mut c: Bundle, name: &str, value: &str) -> Bundle {
    c.spec["annotations"][name] = json!(value);
    c
}

/// A connection, which must come soon.
fn accepted(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).expect("non-blocking");
    let mut stream = None;
    wait_until("somebody connects", || {
        stream = listener.accept().ok();
        stream.is_some()
    });
    let (stream, _) = stream.expect("a connection");
    stream
}

/// The text of one message, and how many descriptors came with it.
fn receive(stream: &UnixStream) -> (String, usize) {
    let mut text = vec![0; 1 << 16];
    let mut control = [0u64; 16];
    let mut parts = [IoSliceMut::new(&mut text)];
    // SAFETY: msghdr is plain data; the buffers outlive the call.
    let (length, bytes) = unsafe {
        let mut message: libc::msghdr = mem::zeroed();
        message.msg_iov = parts.as_mut_ptr().cast();
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control) as _;
        let length = libc::recvmsg(stream.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
        let header = libc::CMSG_FIRSTHDR(&message);
        let bytes = if header.is_null() {
            0
        } else {
            (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize
        };
        (length, bytes)
    };
    assert!(length > 0, "no message");
    text.truncate(length as usize);
    (String::from_utf8(text).expect("text"), bytes / 4)
}

/// A profile that asks an agent about one call that the payload never makes.
fn notifying(listener: Option<&str>) -> Value {
    let mut profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_NOTIFY"}],
    });
    if let Some(path) = listener {
        profile["listenerPath"] = json!(path);
        profile["listenerMetadata"] = json!("for the agent");
    }
    profile
}

fn is_handed_over(c: &Bundle, agent: &UnixListener, metadata: &str) {
    let run = c.call_new("run", &[]).spawn();
    is_told(c, agent, metadata);
    run.wait().exits(5);
}

fn is_told(c: &Bundle, agent: &UnixListener, metadata: &str) {
    let stream = accepted(agent);
    let (text, descriptors) = receive(&stream);
    assert_eq!(descriptors, 1);
    let message: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(message["fds"], json!(["seccompFd"]));
    assert_eq!(message["metadata"], metadata);
    assert_eq!(message["state"]["id"], c.id.as_str());
    assert_eq!(message["state"]["pid"], message["pid"]);
    let rest = (&stream).read(&mut [0]).expect("read");
    assert_eq!(rest, 0, "one message and no more");
}

#[test]
fn a_seccomp_listener_goes_to_its_agent() {
    let c = bundle!().asks(&["exit 5"]);
    let path = c.path("agent");
    let agent = UnixListener::bind(&path).expect("bind");
    let c = c.set("/linux/seccomp", notifying(Some(&path)));
    is_handed_over(&c, &agent, "for the agent");
}

#[test]
fn the_agent_may_be_named_by_an_annotation() {
    let c = bundle!().asks(&["exit 5"]);
    let path = c.path("agent");
    let agent = UnixListener::bind(&path).expect("bind");
    let c = c.set("/linux/seccomp", notifying(None));
    c.create().fails_naming("linux.seccomp.listenerPath");
    is_handed_over(&annotated(c, "run.oci.seccomp.receiver", &path), &agent, "");
}

#[test]
fn without_an_agent_start_fails() {
    let c = bundle!();
    let c = c.set("/linux/seccomp", notifying(Some("/nowhere/agent")));
    c.create().ok();
    c.start().fails_naming("linux.seccomp.listenerPath");
    c.wait_stopped();
}

#[test]
fn a_pidfd_goes_to_its_receiver() {
    let c = bundle!().asks(&["exit 5"]);
    let path = c.path("receiver");
    let receiver = UnixListener::bind(&path).expect("bind");
    let c = annotated(c, "run.oci.pidfd_receiver", &path);
    c.run().exits(5);
    assert_eq!(receive(&accepted(&receiver)).1, 1);
}

#[test]
fn the_output_of_hooks_goes_to_files() {
    let c = bundle!().asks(&["exit 0"]);
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2"]}]);
    let c = c.set("/hooks", json!({"createRuntime": hook, "poststop": hook}));
    let (out, err) = (c.path("out"), c.path("err"));
    let c = annotated(c, "run.oci.hooks.stdout", &out);
    let c = annotated(c, "run.oci.hooks.stderr", &err);
    c.run().ok();
    wait_until("both hooks have written", || {
        fs::read_to_string(&err).is_ok_and(|text| text == "err\nerr\n")
    });
    assert_eq!(fs::read_to_string(&out).expect("read"), "out\nout\n");
}

#[test]
fn a_writable_cgroup_belongs_to_its_user() {
    let user = json!({"uid": 1234, "gid": 1234});
    let writable = bundle!()
        .without("/mounts", "destination", "/sys/fs/cgroup")
        .set("/process/user", user);
    let read_only = bundle!().set("/process/user", json!({"uid": 1234, "gid": 1234}));
    let read_only = read_only.without("/mounts", "destination", "/sys/fs/cgroup");
    let mounts = [
        (&writable, vec!["nosuid"], 1234),
        (&read_only, vec!["ro"], 0),
    ];
    for (c, options, owner) in mounts {
        let mut spec = c.spec.clone();
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options});
        spec["mounts"].as_array_mut().expect("mounts").push(mount);
        fs::write(c.dir.join("config.json"), spec.to_string()).expect("write");
        c.call(&["create", "--bundle", &c.path("."), &c.id])
            .finish()
            .ok();
        let meta = |name: &str| fs::metadata(c.cgroup().join(name)).expect("metadata").uid();
        assert_eq!((meta("."), meta("cgroup.procs")), (owner, owner));
        assert_eq!(meta("cgroup.freeze"), 0);
    }
}

#[test]
fn a_process_that_joins_brings_the_state_of_the_container() {
    let c = bundle!().asks(&["pause"]);
    let path = c.path("agent");
    let agent = UnixListener::bind(&path).expect("bind");
    let c = c.set("/linux/seccomp", notifying(Some(&path)));
    c.create().ok();
    let start = c.call(&["start", &c.id]).spawn();
    let first = accepted(&agent);
    receive(&first);
    start.wait().ok();
    let exec = c.call(&["exec", &c.id, "/payload", "exit", "3"]).spawn();
    let (text, files) = receive(&accepted(&agent));
    assert_eq!(files, 1);
    let message: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&message["state"]["pid"], &message["state"]["status"]),
        (&json!(c.pid()), &json!("running"))
    );
    assert_ne!(message["pid"], message["state"]["pid"]);
    exec.wait().exits(3);
}

/// Who is not root may not look into an init that is not dumpable, and gets its listener all the same.
#[test]
fn the_listener_of_an_ordinary_user_goes_to_its_agent() {
    // What the runtime itself could send it with is refused to the program.
    let refused = "syscall 46 -1 0 0";
    let c = bundle!().asks(&[refused, "status Threads", "status Seccomp", "exit 5"]);
    let mut c = c.of_user(USER);
    let path = c.path("agent");
    let agent = UnixListener::bind(&path).expect("bind");
    let mut profile = notifying(Some(&path));
    let deny =
        json!({"names": ["sendmsg", "prctl", "wait4"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95});
    profile["syscalls"]
        .as_array_mut()
        .expect("rules")
        .push(deny);
    for (flags, no_more) in [
        (json!([]), true),
        (json!(["SECCOMP_FILTER_FLAG_TSYNC"]), false),
    ] {
        profile["flags"] = flags;
        c = c
            .set("/linux/seccomp", profile.clone())
            .set("/process/noNewPrivileges", json!(no_more));
        let run = c.call_new("run", &[]).spawn();
        is_told(&c, &agent, "for the agent");
        let output = run.wait().exits(5);
        assert_eq!(output.answer(refused), "EOPNOTSUPP");
        assert_eq!(output.answer("status Threads"), "1");
        assert_eq!(output.answer("status Seccomp"), "2");
    }
}

#[test]
fn a_listener_that_cannot_be_handed_over_names_its_field() {
    let c = bundle!().of_user(USER);
    let path = c.path("agent");
    let _agent = UnixListener::bind(&path).expect("bind");
    let c = c.set("/linux/seccomp", notifying(Some(&path)));
    let call = c.call_new("run", &[]);
    let without_help = call.without(libc::SYS_eventfd2, libc::EMFILE).finish();
    without_help.fails_naming("linux.seccomp.listenerPath");
    c.assert_gone();
}

#[test]
fn the_listeners_of_create_and_exec_of_an_ordinary_user_go_to_their_agent() {
    let c = bundle!().asks(&["pause"]).of_user(USER);
    let path = c.path("agent");
    let agent = UnixListener::bind(&path).expect("bind");
    let c = c.set("/linux/seccomp", notifying(Some(&path)));
    c.create().ok();
    let start = c.call(&["start", &c.id]).spawn();
    is_told(&c, &agent, "for the agent");
    start.wait().ok();
    let exec = c.call(&["exec", &c.id, "/payload", "exit", "3"]).spawn();
    let (text, files) = receive(&accepted(&agent));
    assert_eq!(files, 1);
    let message: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(message["state"]["pid"], json!(c.pid()));
    exec.wait().exits(3);
}

/// Of others, or of parts of this runtime that the call does not use.
#[test]
fn annotations_without_a_use_here_do_no_harm() {
    let mut c = bundle!().asks(&["exit 5"]);
    for (name, value) in [
        ("org.criu.config", "/etc/criu/no-such-file"),
        ("org.systemd.property.TimeoutStopUSec", "uint64 5000000"),
        ("org.systemd.property.CollectMode", "'inactive-or-failed'"),
        ("run.oci.systemd.subgroup", "container"),
        ("run.oci.delegate-cgroup", "inner"),
        ("run.oci.handler", "crun"),
        ("com.example.empty", ""),
    ] {
        c = annotated(c, name, value);
    }
    c.run().exits(5).silent();
    assert_eq!(
        c.spec["annotations"].as_object().map(|all| all.len()),
        Some(7)
    );
}

#[test]
fn an_annotation_needs_a_name() {
    let c = annotated(bundle!(), "", "value");
    c.create().fails_naming("annotations: a name is empty");
    c.assert_gone();
}
