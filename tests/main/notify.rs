//! Messages for the service manager (sd_notify(3)): NOTIFY_SOCKET of the caller.

use crate::support::{Bundle, Call, wait_until};
use serde_json::json;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

/// Stands in for the service manager.
struct Manager {
    socket: UnixDatagram,
    address: String,
}

impl Manager {
    fn new(c: &Bundle) -> Manager {
        let path = c.dir.join("manager.sock");
        std::fs::remove_file(&path).ok();
        let socket = UnixDatagram::bind(&path).expect("bind");
        Manager::of(socket, path.display().to_string())
    }

    fn with_abstract_name(c: &Bundle) -> Manager {
        let address = SocketAddr::from_abstract_name(&c.id).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("bind");
        Manager::of(socket, format!("@{}", c.id))
    }

    fn of(socket: UnixDatagram, address: String) -> Manager {
        let limit = Some(Duration::from_secs(60));
        socket.set_read_timeout(limit).expect("set a limit");
        Manager { socket, address }
    }

    fn call(&self, call: Call) -> Call {
        call.env("NOTIFY_SOCKET", &self.address)
    }

    /// Returns the next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 9000];
        let length = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    fn hears_nothing(&self) {
        self.socket.set_nonblocking(true).expect("set");
        assert!(self.socket.recv(&mut [0; 9]).is_err(), "a message came");
        self.socket.set_nonblocking(false).expect("set");
    }
}

/// Whatever stands between the two lines of a message, or in two messages.
fn hears_ready_of(manager: &Manager, pid: i32) {
    let mut heard = manager.hears();
    if !heard.contains("MAINPID") {
        heard += &format!("\n{}", manager.hears());
    }
    let mut lines: Vec<&str> = heard.lines().filter(|line| !line.is_empty()).collect();
    lines.sort_unstable();
    assert_eq!(lines, [format!("MAINPID={pid}"), "READY=1".to_string()]);
}

#[test]
fn a_start_waits_until_the_container_is_ready() {
    let c = bundle!().asks(&["line", "notify READY=1", "signals"]);
    let (mut release, input) = UnixStream::pair().expect("a pair");
    let manager = Manager::new(&c);
    let create = c.call_new("create", &[]).fd(input, 0);
    let output = manager.call(create).finish().ok();
    let start = manager.call(c.call(&["start", &c.id])).spawn();
    wait_until("the program runs", || c.status() == "running");
    manager.hears_nothing();
    release.write_all(b"go\n").expect("write");
    hears_ready_of(&manager, c.pid());
    start.wait().ok().silent();
    output.wait_for("ready");
    assert_eq!(c.status(), "running");
}

#[test]
fn a_detached_run_waits_until_the_container_is_ready() {
    for user in [0, 1000] {
        let c = bundle!()
            .asks(&["env NOTIFY_SOCKET", "notify READY=1", "signals"])
            .set("/process/user", json!({"uid": user, "gid": user}))
            .flag(&["--detach"]);
        let manager = Manager::new(&c);
        let output = manager.call(c.call_new("run", &[])).finish().ok();
        assert_eq!(
            output.answer("env NOTIFY_SOCKET"),
            "/run/notify/notify.sock"
        );
        assert_eq!(output.answer("notify READY=1"), "ok");
        hears_ready_of(&manager, c.pid());
    }
}

#[test]
fn a_user_namespace_reaches_the_socket() {
    let c = bundle!()
        .asks(&["notify READY=1", "signals"])
        .in_user_namespace()
        .flag(&["--detach"]);
    let manager = Manager::new(&c);
    let output = manager.call(c.call_new("run", &[])).finish().ok();
    output.wait_for("ready");
    assert_eq!(output.answer("notify READY=1"), "ok");
    hears_ready_of(&manager, c.pid());
}

/// systemd ignores such a message, too.
#[test]
fn a_message_that_is_too_long_is_dropped() {
    let long = format!("notify STATUS={},READY=1", "x".repeat(5000));
    let c = bundle!().asks(&[&long, "notify READY=1", "exit 3"]);
    let manager = Manager::new(&c);
    let output = manager.call(c.call_new("run", &[])).finish().exits(3);
    assert_eq!(manager.hears(), "READY=1");
    assert!(
        output.stderr().contains("more than 4096 bytes"),
        "{}",
        output.stderr()
    );
}

#[test]
fn a_run_in_the_foreground_forwards_all_messages() {
    let c = bundle!().asks(&[
        "notify STATUS=a = b,FDSTORE=1",
        "notify READY=1,MAINPID=1",
        "notify BARRIER=1",
        "notify WATCHDOG=1",
        "exit 3",
    ]);
    let manager = Manager::with_abstract_name(&c);
    manager.call(c.call_new("run", &[])).finish().exits(3);
    assert_eq!(manager.hears(), "STATUS=a = b");
    assert_eq!(manager.hears(), "READY=1");
    assert_eq!(manager.hears(), "WATCHDOG=1");
    manager.hears_nothing();
    c.assert_gone();
}

#[test]
fn a_container_that_ends_before_it_is_ready_ends_the_wait() {
    let c = bundle!().asks(&["exit 4"]).flag(&["--detach"]);
    let manager = Manager::new(&c);
    manager.call(c.call_new("run", &[])).finish().ok();
    manager.hears_nothing();
    c.wait_stopped();
}

#[test]
fn without_a_manager_at_the_start_nobody_waits() {
    let c = bundle!().asks(&["env NOTIFY_SOCKET", "signals"]);
    let manager = Manager::new(&c);
    let output = manager.call(c.call_new("create", &[])).finish().ok();
    c.start().ok().silent();
    output.wait_for("ready");
    assert_eq!(
        output.answer("env NOTIFY_SOCKET"),
        "/run/notify/notify.sock"
    );
    c.delete(&["--force"]).ok();
    // The other way round.
    let output = c.create().ok();
    manager.call(c.call(&["start", &c.id])).finish().ok();
    output.wait_for("ready");
    assert_eq!(output.answer("env NOTIFY_SOCKET"), "unset");
}

#[test]
fn the_socket_of_the_caller_is_not_in_the_container() {
    let c = bundle!()
        .asks(&["mountinfo /run/notify", "env NOTIFY_SOCKET"])
        .set("/process/env", json!(["NOTIFY_SOCKET=/from/the/config"]));
    let manager = Manager::new(&c);
    let output = manager.call(c.call_new("run", &[])).finish().ok();
    assert!(output.answer("mountinfo /run/notify").contains("tmpfs"));
    assert_eq!(
        output.answer("env NOTIFY_SOCKET"),
        "/run/notify/notify.sock"
    );
    assert_eq!(c.run().ok().answer("env NOTIFY_SOCKET"), "/from/the/config");
}

#[test]
fn other_addresses_are_refused() {
    let c = bundle!();
    for value in ["vsock:2:1", "relative"] {
        let create = c.call_new("create", &[]).env("NOTIFY_SOCKET", value);
        let text = format!("NOTIFY_SOCKET: {value:?}: must be an absolute path, or @ and a name");
        create.finish().fails_with(&text);
        c.assert_gone();
    }
    let create = c.call_new("run", &[]).env("NOTIFY_SOCKET", "/no/where");
    create.finish().fails_with("NOTIFY_SOCKET: \"/no/where\"");
    c.assert_gone();
}
