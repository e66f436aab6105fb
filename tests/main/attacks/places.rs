//! C55: places that the runtime uses by name become links and files again while it runs: /dev, the null device, the
//! multiplexer, the console, read-only paths, sockets of the caller. CVE-2025-31133, CVE-2025-52565, CVE-2026-41579.

use super::links::without_dev;
use super::nodes::{Watched, dev_of_the_host, socket, with_false_terminals};
use super::races::{link, outside, place, race, race_by};
use super::ways::each_way;
use crate::support::refused::may_end;
use crate::support::terminal::Terminal;
use crate::support::{Bundle, Output, node};
use serde_json::json;
use std::fs;

#[test]
fn c55_dev_becomes_a_link() {
    let kinds: [fn(Bundle) -> Bundle; 2] = [|c| c, without_dev];
    for kind in kinds {
        for c in each_way!() {
            let c = kind(c).asks(&["status CapEff"]);
            link(&c, "rootfs/other", &outside(&c));
            race(&c, "rootfs/dev", "rootfs/other", |_| ());
        }
    }
}

/// In a directory of the host that others may change.
fn with_canary(c: Bundle) -> Bundle {
    let c = dev_of_the_host(c).file("/etc/canary", "CANARY");
    node(&c.path("dev/null"), libc::S_IFCHR, 1, 3);
    link(&c, "dev/other", "/etc/canary");
    c
}

fn assert_canary(c: &Bundle) {
    let text = fs::read_to_string(c.rootfs().join("etc/canary"));
    assert_eq!(text.expect("read"), "CANARY");
}

#[test]
fn c55_null_becomes_a_link() {
    let questions = ["read /etc/tomask", "write /etc/tomask PWN"];
    for c in each_way!() {
        let c = with_canary(c)
            .file("/etc/tomask", "SECRET")
            .set("/linux/maskedPaths", json!(["/etc/tomask"]))
            .asks(&questions);
        race(&c, "dev/null", "dev/other", |output| {
            if output.code() == 0 {
                let read = output.answer(questions[0]);
                assert!(read.is_empty() || read == "EACCES", "{read}");
            }
            assert_canary(&c);
            let text = fs::read_to_string(c.rootfs().join("etc/tomask"));
            assert_eq!(text.expect("read"), "SECRET");
        });
    }
}

fn on_a_terminal(c: &Bundle) -> Output {
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let call = c.call(&["run", "--bundle", &c.path(""), &c.id]);
    let output = call.on_terminal(slave).finish();
    if output.code() != 0 {
        // Its words are on the terminal.
        may_end(output.code(), terminal.read_some());
    }
    output
}

#[test]
fn c55_the_multiplexer_becomes_a_link() {
    for c in each_way!() {
        let c = with_false_terminals(c)
            .set("/process/terminal", json!(true))
            .asks(&["exit 0"]);
        fs::rename(c.path("pts/ptmx"), c.path("pts/other")).expect("rename");
        link(&c, "pts/ptmx", "pts/ptmx");
        let mut canary = Watched::new(&c.rootfs().join("etc/canary"));
        race_by(&c, "pts/ptmx", "pts/other", || on_a_terminal(&c), |_| ());
        canary.assert_not_opened();
    }
}

#[test]
fn c55_the_console_becomes_a_link() {
    for c in each_way!() {
        let c = with_canary(c)
            .set("/process/terminal", json!(true))
            .asks(&["exit 0"]);
        fs::write(c.path("dev/console"), "").expect("write");
        let mut canary = Watched::new(&c.rootfs().join("etc/canary"));
        race_by(&c, "dev/console", "dev/other", || on_a_terminal(&c), |_| ());
        canary.assert_not_opened();
        assert_canary(&c);
    }
}

#[test]
fn c55_what_is_read_only_and_worked_in_becomes_a_link() {
    for c in each_way!() {
        place(&c, "rootfs/a/b");
        link(&c, "rootfs/other", &outside(&c));
        let c = c
            .set("/linux/readonlyPaths", json!(["/a/b", "/a"]))
            .set("/process/cwd", json!("/a"))
            .asks(&["ls ."]);
        race(&c, "rootfs/a", "rootfs/other", |output| {
            assert!(!output.stdout().contains("ptmx"), "{}", output.describe());
        });
    }
}

#[test]
fn c55_a_socket_of_the_caller_becomes_a_link() {
    for c in each_way!() {
        let c = c.set("/process/terminal", json!(true)).asks(&["pause"]);
        let (listener, path) = socket(&c);
        link(&c, "other", &format!("{}/ptmx", outside(&c)));
        let create = || {
            let flag = format!("--console-socket={path}");
            let dir = c.path("");
            let output = c.call(&["create", &flag, "--bundle", &dir, &c.id]).finish();
            // Makes room for the next one.
            while listener.accept().is_ok() {}
            output
        };
        race_by(&c, "console.sock", "other", create, |_| ());
    }
}

#[test]
fn c55_the_socket_of_an_agent_becomes_a_link() {
    for c in each_way!() {
        if c.spec["linux"].get("cgroupsPath").is_none() {
            // An ordinary user may not take the listener from a process that cannot be dumped.
            continue;
        }
        let (listener, path) = socket(&c);
        link(&c, "other", &format!("{}/ptmx", outside(&c)));
        let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]);
        let filter =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": path});
        let c = c.set("/linux/seccomp", filter).asks(&["status CapEff"]);
        race(&c, "console.sock", "other", |_| {
            while listener.accept().is_ok() {}
        });
    }
}
