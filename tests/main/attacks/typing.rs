//! T18: no process of a container types into the terminal of its caller, or takes it over. CVE-2017-5226, CVE-2016-10124.

use super::post::World;
use super::ways::{each_way, runs_at_all};
use crate::support::terminal::{Terminal, listen, receive};
use crate::support::{Bundle, Call, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

/// ioctl_tty(2): TIOCSTI types a byte, TIOCLINUX pastes on a console, TIOCSCTTY takes the terminal over.
const IOCTLS: [&str; 3] = ["0x5412", "0x541c", "0x540e"];

fn questions() -> Vec<String> {
    let ioctls = IOCTLS.map(|number| format!("ioctl 0 {number}"));
    let all = ioctls
        .into_iter()
        .chain(["report".into(), "open /dev/tty rw".into()]);
    all.collect()
}

/// Has it run on a terminal that is its caller's own, and sees what came of it.
fn on_a_terminal(call: impl FnOnce(OwnedFd) -> Call) {
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let keep = slave.try_clone().expect("duplicate");
    let running = call(slave).spawn();
    for number in IOCTLS {
        assert_ne!(
            terminal.answer(&format!("ioctl 0 {number}")),
            "ok",
            "{number}"
        );
    }
    let report: Value = serde_json::from_str(&terminal.answer("report")).expect("JSON");
    assert_eq!(report["tty_nr"], 0, "has the terminal of its caller");
    assert_eq!(
        report["sid"], report["pid"],
        "has the session of its caller"
    );
    assert_eq!(terminal.answer("open /dev/tty rw"), "ENXIO");
    running.wait().ok();
    assert_nothing_typed(&keep, &mut terminal);
}

#[test]
fn t18_run_leaves_the_terminal_of_its_caller_alone() {
    for c in each_way!() {
        runs_at_all(&c);
        let mut world = World::new(&c);
        let c = c.asks(&questions().iter().map(String::as_str).collect::<Vec<_>>());
        on_a_terminal(|slave| c.call_new("run", &[]).on_terminal(slave));
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t18_exec_leaves_the_terminal_of_its_caller_alone() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = c.asks(&["pause"]);
        c.up();
        let words = questions().join(" ; ");
        let args = ["exec", &c.id, "/payload"]
            .into_iter()
            .chain(words.split(' '));
        let args: Vec<&str> = args.collect();
        on_a_terminal(|slave| c.call(&args).on_terminal(slave));
        world.assert_after(&c, "afterwards");
    }
}

/// A terminal of a container is one of its own devpts: no name of it is one of the host's.
fn assert_own(pid: i32) {
    let stdin = fs::metadata(format!("/proc/{pid}/fd/0")).expect("stdin");
    let host = fs::metadata("/dev/pts").expect("the terminals of the host");
    assert_eq!(libc::major(stdin.rdev()), 136, "is no terminal");
    assert_ne!(stdin.dev(), host.dev(), "is a terminal of the host");
    let devpts = fs::metadata(format!("/proc/{pid}/root/dev/pts")).expect("its terminals");
    assert_eq!(stdin.dev(), devpts.dev(), "is a terminal of somebody else");
}

#[test]
fn t18_a_terminal_of_a_container_is_its_own() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = c
            .set("/process/terminal", json!(true))
            .asks(&["report", "pause"]);
        let (listener, flag) = socket(&c);
        c.call_new("create", &[&flag]).finish().ok();
        let mut terminal = Terminal::new(receive(&listener).files.remove(0));
        assert_own(c.pid());
        c.start().ok();
        let report: Value = serde_json::from_str(&terminal.answer("report")).expect("JSON");
        assert_ne!(report["tty_nr"], 0);
        assert_own(c.pid());
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t18_a_terminal_of_exec_is_the_containers() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = c.asks(&["pause"]);
        c.up();
        let (listener, flag) = socket(&c);
        let file = c.path("exec.pid");
        let args = [
            "exec",
            "--tty",
            "--detach",
            "--pid-file",
            &file,
            &flag,
            &c.id,
            "/payload",
            "pause",
        ];
        c.call(&args).finish().ok();
        let _terminal = Terminal::new(receive(&listener).files.remove(0));
        let pid = fs::read_to_string(&file)
            .expect("a pid")
            .trim()
            .parse()
            .expect("a number");
        assert_own(pid);
        world.assert_after(&c, "afterwards");
    }
}

/// In the foreground the runtime stands between: what is typed inside stays there.
#[test]
fn t18_what_is_typed_inside_does_not_come_out() {
    for c in each_way!() {
        runs_at_all(&c);
        let mut world = World::new(&c);
        let c = c
            .set("/process/terminal", json!(true))
            .asks(&["ioctl 0 0x5412", "exit 0"]);
        let (mut terminal, slave) = Terminal::pair(80, 24);
        let keep = slave.try_clone().expect("duplicate");
        let running = c.call_new("run", &[]).on_terminal(slave).spawn();
        wait_until("it has tried", || terminal.read_some().contains(" => "));
        running.wait().ok();
        assert_nothing_typed(&keep, &mut terminal);
        world.assert_after(&c, "afterwards");
    }
}

/// Nor would it be missed: what is typed now is there.
fn assert_nothing_typed(slave: &OwnedFd, terminal: &mut Terminal) {
    assert_eq!(
        unread(slave),
        0,
        "the terminal of the caller was typed into"
    );
    terminal.write("x");
    wait_until("it has come", || unread(slave) == 1);
}

/// Bytes that somebody has typed and nobody has read; those of an unfinished line count in raw mode only.
fn unread(slave: &OwnedFd) -> i32 {
    let (fd, mut count) = (slave.as_raw_fd(), 0);
    // SAFETY: termios is plain data that tcgetattr fills; FIONREAD fills one int.
    let results = unsafe {
        let mut modes = std::mem::zeroed();
        let read = libc::tcgetattr(fd, &mut modes);
        libc::cfmakeraw(&mut modes);
        let set = libc::tcsetattr(fd, libc::TCSANOW, &modes);
        [read, set, libc::ioctl(fd, libc::FIONREAD, &mut count)]
    };
    assert_eq!(results, [0; 3], "tcgetattr, tcsetattr, FIONREAD");
    count
}

fn socket(c: &Bundle) -> (std::os::unix::net::UnixListener, String) {
    let path = c.dir.join("console.sock");
    let listener = listen(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
    (listener, format!("--console-socket={}", path.display()))
}
