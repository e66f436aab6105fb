//! The terminal of a container: through the console socket, or in the foreground.

use crate::support::terminal::{Terminal, create, listen, receive};
use crate::support::{Bundle, Call, wait_until};
use serde_json::json;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;

#[test]
fn the_console_socket_gets_one_terminal_and_a_name() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["tty", "pause"]);
    let path = c.dir.join("console.sock");
    let listener = listen(&path);
    let socket = path.display().to_string();
    c.call_new("create", &["--console-socket", &socket])
        .finish()
        .ok()
        .silent();
    let mut received = receive(&listener);
    assert!(
        !received.text.is_empty() && received.text.len() < 4096,
        "{:?}",
        received.text
    );
    assert_eq!(received.files.len(), 1);
    c.start().ok();
    let mut terminal = Terminal::new(received.files.pop().expect("a terminal"));
    assert!(
        terminal.answer("tty").starts_with("ttt /dev/"),
        "{}",
        terminal.answer("tty")
    );
}

#[test]
fn the_payload_has_a_controlling_terminal() {
    let c = bundle!().set("/process/terminal", json!(true)).asks(&[
        "report",
        "lstat /dev/console",
        "mountinfo /dev/console",
        "pause",
    ]);
    let mut terminal = create(&c);
    c.start().ok();
    let report: serde_json::Value = serde_json::from_str(&terminal.answer("report")).expect("JSON");
    assert_ne!(report["tty_nr"], 0);
    assert_eq!(report["sid"], 1);
    assert!(
        terminal
            .answer("lstat /dev/console")
            .starts_with("char 136:0")
    );
    assert!(
        terminal
            .answer("mountinfo /dev/console")
            .contains(" - devpts ")
    );
}

#[test]
fn the_terminal_belongs_to_the_container() {
    let c = bundle!().set("/process/terminal", json!(true)).asks(&[
        "ls /dev/pts",
        "mountinfo /dev/pts",
        "pause",
    ]);
    let mut terminal = create(&c);
    c.start().ok();
    assert_eq!(terminal.answer("ls /dev/pts"), "0,ptmx");
}

#[test]
fn the_terminal_belongs_to_the_user() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .asks(&[
            "stat /proc/self/fd/0",
            "open /dev/tty rw",
            "open /dev/pts/0 rw",
            "pause",
        ]);
    let mut terminal = create(&c);
    c.start().ok();
    let owner = terminal.answer("stat /proc/self/fd/0");
    assert!(owner.contains(" 1000:"), "{owner}");
    assert_eq!(terminal.answer("open /dev/tty rw"), "ok");
    assert_eq!(terminal.answer("open /dev/pts/0 rw"), "ok");
}

#[test]
fn the_console_size_of_the_spec() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .set("/process/consoleSize", json!({"width": 111, "height": 33}))
        .asks(&["tty", "pause"]);
    let mut terminal = create(&c);
    c.start().ok();
    assert!(
        terminal.answer("tty").ends_with(" 111x33"),
        "{}",
        terminal.answer("tty")
    );
}

#[test]
fn the_console_size_without_a_terminal_is_ignored() {
    let c = bundle!()
        .set("/process/consoleSize", json!({"width": 111, "height": 33}))
        .asks(&["exit 3"]);
    c.run().exits(3);
}

#[test]
fn input_and_signals_reach_the_payload() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["line", "signals"]);
    let mut terminal = create(&c);
    c.start().ok();
    terminal.write("hello there\n");
    assert_eq!(terminal.answer("line"), "ok:hello there");
    terminal.read_until("ready");
    terminal.write("\x03");
    terminal.read_until("signal 2");
    terminal.resize(60, 20);
    terminal.read_until("signal 28");
}

#[test]
fn a_terminal_in_a_user_namespace() {
    let c = bundle!()
        .in_user_namespace()
        .set("/process/terminal", json!(true))
        .asks(&["tty", "pause"]);
    let mut terminal = create(&c);
    c.start().ok();
    assert!(
        terminal.answer("tty").starts_with("ttt"),
        "{}",
        terminal.answer("tty")
    );
}

#[test]
fn a_terminal_needs_a_socket_when_detached() {
    let c = bundle!().set("/process/terminal", json!(true));
    c.create().fails_with("console socket");
    c.assert_gone();
    c.call_new("run", &["--detach"])
        .finish()
        .fails_with("console socket");
    c.assert_gone();
}

#[test]
fn a_socket_needs_a_terminal() {
    let c = bundle!();
    let path = c.dir.join("console.sock");
    let _listener = listen(&path);
    let socket = path.display().to_string();
    c.call_new("create", &["--console-socket", &socket])
        .finish()
        .fails_with("console socket");
    c.assert_gone();
}

#[test]
fn nobody_needs_to_accept() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["pause"]);
    let path = c.dir.join("console.sock");
    let _listener = listen(&path);
    let socket = path.display().to_string();
    c.call_new("create", &["--console-socket", &socket])
        .finish()
        .ok();
    assert_eq!(c.status(), "created");
}

#[test]
fn a_long_path_of_a_console_socket() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["pause"]);
    let folder = c.dir.join("x".repeat(120));
    fs::create_dir(&folder).expect("mkdir");
    let handle = fs::File::open(&folder).expect("open");
    let short = format!("/proc/self/fd/{}/console.sock", handle.as_raw_fd());
    let listener = listen(std::path::Path::new(&short));
    let long = folder.join("console.sock").display().to_string();
    c.call_new("create", &["--console-socket", &long])
        .finish()
        .ok();
    assert_eq!(receive(&listener).files.len(), 1);
}

#[test]
fn the_foreground_terminal_works_and_is_restored() {
    let c =
        bundle!()
            .set("/process/terminal", json!(true))
            .asks(&["winch 90x30", "line", "exit 5"]);
    let (mut terminal, slave) = Terminal::pair(90, 30);
    let before = terminal.modes();
    let keep = slave.try_clone().expect("duplicate");
    let running = c.call_new("run", &[]).on_terminal(slave).spawn();
    let tty = terminal.answer("winch 90x30");
    assert!(tty.starts_with("ttt"), "{tty}");
    assert_eq!(
        terminal.modes() as libc::tcflag_t & libc::ICANON,
        0,
        "the caller's terminal is not raw"
    );
    terminal.write("typed\n");
    assert_eq!(terminal.answer("line"), "ok:typed");
    running.wait().exits(5);
    assert_eq!(
        terminal.modes(),
        before,
        "the caller's terminal is not restored"
    );
    drop(keep);
}

#[test]
fn the_foreground_terminal_follows_the_size() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["winch 132x50"]);
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let running = c.call_new("run", &[]).on_terminal(slave).spawn();
    terminal.read_until("waiting");
    terminal.resize(132, 50);
    assert!(terminal.answer("winch 132x50").ends_with(" 132x50"));
    running.wait().ok();
}

#[test]
fn keys_become_signals_in_the_container_only() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["signals"]);
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let running = c.call_new("run", &[]).on_terminal(slave).spawn();
    terminal.read_until("ready");
    terminal.write("\x03");
    terminal.read_until("signal 2");
    assert_eq!(c.status(), "running");
    c.kill("TERM").ok();
    running.wait().ok();
}

#[test]
fn all_output_arrives_before_run_ends() {
    let c = bundle!().set("/process/terminal", json!(true));
    let text = "z".repeat(3000);
    let c = c.set(
        "/process/args",
        json!(["/payload", "env", &text, ";", "exit", "0"]),
    );
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let keep = slave.try_clone().expect("duplicate");
    let running = c.call_new("run", &[]).on_terminal(slave).spawn();
    let mut seen = 0;
    wait_until("all has come", || {
        seen = terminal.read_some().matches('z').count();
        seen >= 3000
    });
    running.wait().ok();
    drop(keep);
    assert_eq!(seen, 3000);
}

#[test]
fn without_a_terminal_the_payload_has_a_session_of_its_own() {
    let c = bundle!().asks(&["report", "open /dev/tty rw"]);
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let keep = slave.try_clone().expect("duplicate");
    let running = c.call_new("run", &[]).on_terminal(slave).spawn();
    let report: serde_json::Value = serde_json::from_str(&terminal.answer("report")).expect("JSON");
    assert_eq!((&report["sid"], &report["tty_nr"]), (&json!(1), &json!(0)));
    assert_eq!(terminal.answer("open /dev/tty rw"), "ENXIO");
    running.wait();
    drop(keep);
}

/// The command for which a terminal is asked: of the config, of a flag, and of a process file.
fn foreground(c: &Bundle, number: usize, words: &[&str]) -> Call {
    let args = [&["/payload"], words].concat();
    let process = c.path("process.json");
    let text = json!({"args": args, "cwd": "/", "terminal": true, "user": {"uid": 0, "gid": 0}});
    fs::write(&process, text.to_string()).expect("write");
    match number {
        0 => c.call_new("run", &[]),
        1 => c.call(&[&["exec", "--tty", &c.id], &args[..]].concat()),
        _ => c.call(&["exec", "--process", &process, &c.id]),
    }
}

/// Makes the container that the number's command needs.
fn prepared(c: Bundle, number: usize, words: &[&str]) -> Bundle {
    if number == 0 {
        return c
            .set("/process/terminal", json!(true))
            .asks(&[&words.join(" ")]);
    }
    let c = c.asks(&["pause"]);
    c.up();
    c
}

#[test]
fn a_foreground_terminal_needs_one_as_stdin() {
    let words = ["write", "/ran", "yes"];
    for number in 0..3 {
        let c = prepared(bundle!(), number, &words);
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let (other, _) = std::io::pipe().expect("a pipe");
        let stdin = ["exec \"$0\" \"$@\"", "exec \"$0\" \"$@\" <&-"];
        for (script, pipe) in stdin.iter().zip([reader, other]) {
            let call = || foreground(&c, number, &words).through_shell(script);
            for output in [call().finish(), call().fd(pipe, 0).finish()] {
                output
                    .fails_naming("process.terminal: stdin is not a terminal")
                    .exits(if number == 0 { 1 } else { 255 });
                assert!(!c.rootfs().join("ran").exists());
            }
        }
        if number == 0 {
            c.assert_gone();
        }
    }
}

/// The user's terminal translates, or nobody does.
#[test]
fn lines_for_a_pipe_end_without_a_carriage_return() {
    for number in 0..3 {
        let c = prepared(bundle!(), number, &["env", "HOME"]);
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let (_terminal, slave) = Terminal::pair(80, 24);
        let call = foreground(&c, number, &["env", "HOME"]);
        call.on_terminal(slave).fd(writer, 1).finish().ok();
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("read");
        assert_eq!(said, "env HOME => /\n", "{number}");
    }
}
