//! What a caller hands on: streams that are closed, full, broken or not read, signals, limits and places of its own.
//! The container gets what was meant for it, and the command ends.

use crate::support::terminal::{Terminal, listen};
use crate::support::{
    Bundle, Call, Output, PATIENCE, holds_within, in_time, mask, send, wait_until,
};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::chown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Ends in time, without a signal.
fn soon(call: Call) -> Output {
    let output = in_time(Duration::from_secs(4), || call.finish());
    assert!(output.code() < 1000, "{}", output.describe());
    output
}

fn is_null(path: &str) -> bool {
    let meta = fs::metadata(path).expect("a stream");
    meta.file_type().is_char_device() && meta.rdev() == libc::makedev(1, 3)
}

#[test]
fn what_is_closed_becomes_null_and_never_a_file_of_the_runtime() {
    let c = bundle!().asks(&["pause"]);
    for mask in 1..8 {
        let closed = |fd: i32| mask & 1 << fd != 0;
        let redirections: String = (0..3)
            .filter(|fd| closed(*fd))
            .map(|fd| format!("exec {fd}<&-; "))
            .collect();
        let script = format!("{redirections} exec \"$0\" \"$@\"");
        soon(c.call_new("create", &[]).through_shell(&script)).ok();
        for started in [false, true] {
            for fd in 0..3 {
                let path = format!("/proc/{}/fd/{fd}", c.pid());
                let leads = fs::read_link(&path).expect("an open stream");
                // As stdin every call of these tests has null.
                assert_eq!(is_null(&path), closed(fd) || fd == 0, "{mask} {leads:?}");
            }
            if !started {
                soon(c.call(&["start", &c.id]).through_shell(&script)).ok();
            }
        }
        let exec = ["exec", &c.id, "/payload", "exit", "3"];
        soon(c.call(&exec).through_shell(&script)).exits(3);
        soon(c.call(&["delete", "--force", &c.id]).through_shell(&script)).ok();
        c.assert_gone();
    }
}

#[test]
fn a_full_device_and_a_pipe_without_a_reader_end_nothing_early() {
    let c = bundle!().asks(&["env PATH", "exit 7"]);
    let full = || File::options().write(true).open("/dev/full").expect("open");
    let broken = || io::pipe().expect("a pipe").1;
    soon(c.call_new("run", &[]).fd(full(), 1).fd(full(), 2)).exits(7);
    soon(c.call_new("run", &[]).fd(broken(), 2)).exits(7);
    for fd in [1, 2] {
        let missing = ["state", "missing"];
        assert_eq!(soon(c.call(&missing).fd(full(), fd)).code(), 1);
        assert_eq!(soon(c.call(&missing).fd(broken(), fd)).code(), 1);
    }
    c.create().ok();
    assert_ne!(soon(c.call(&["state", &c.id]).fd(full(), 1)).code(), 0);
    soon(c.call(&["state", &c.id]).fd(broken(), 1));
    assert_eq!(c.status(), "created");
}

#[test]
fn sockets_and_pipes_that_do_not_wait_arrive_as_they_are() {
    let c = bundle!().asks(&["line", "status PPid"]);
    let (mut own, theirs) = UnixStream::pair().expect("a pair");
    own.write_all(b"typed\n").expect("write");
    own.set_nonblocking(false).expect("set blocking");
    theirs.set_nonblocking(true).expect("set non-blocking");
    let copy = || OwnedFd::from(theirs.try_clone().expect("duplicate"));
    soon(
        c.call_new("run", &[])
            .fd(copy(), 0)
            .fd(copy(), 1)
            .fd(copy(), 2),
    )
    .ok();
    // SAFETY: asks for flags.
    let flags = unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_GETFL) };
    assert_ne!(flags & libc::O_NONBLOCK, 0, "the caller's own was changed");
    drop(theirs);
    let mut said = String::new();
    own.read_to_string(&mut said).expect("read");
    assert_eq!(said, "line => ok:typed\nstatus PPid => 0\n");
}

#[test]
fn an_error_that_nobody_reads_fits_into_a_pipe() {
    let long = "x".repeat(120_000);
    let loud =
        json!({"path": "/bin/sh", "args": ["sh", "-c", "yes loud | head -c 10000000; exit 1"]});
    let cases: [(&str, Value); 4] = [
        ("/process/args", json!([format!("/{long}")])),
        ("/process/cwd", json!(format!("/payload/{long}"))),
        (
            "/linux/cgroupsPath",
            json!(format!("/cofferdam-test/{long}")),
        ),
        ("/hooks/createRuntime", json!([loud])),
    ];
    for (field, value) in cases {
        let c = bundle!().set(field, value);
        let (_reader, writer) = io::pipe().expect("a pipe");
        let copy = writer.try_clone().expect("duplicate");
        soon(c.call_new("create", &[]).fd(writer, 1).fd(copy, 2)).exits(1);
        c.create().fails();
    }
    let c = bundle!().asks(&["pause"]);
    c.up();
    let (_reader, writer) = io::pipe().expect("a pipe");
    let exec = ["exec", &c.id, &long];
    let code = soon(c.call(&exec).fd(writer, 2)).code();
    assert_ne!(code, 0);
}

#[test]
fn signals_that_the_caller_blocks_or_ignores_are_its_own_affair() {
    let c = bundle!().asks(&["report"]);
    // Without the C library, which keeps some of them for itself.
    let deaf = || {
        let (ignore, all, old) = (
            [libc::SIG_IGN as u64, 0, 0, 0],
            u64::MAX,
            std::ptr::null::<u64>(),
        );
        // SAFETY: SIG_IGN installs no handler; what is pointed to outlives the calls.
        unsafe {
            for signal in 1..=64 {
                libc::syscall(libc::SYS_rt_sigaction, signal, ignore.as_ptr(), old, 8);
            }
            libc::syscall(
                libc::SYS_rt_sigprocmask,
                libc::SIG_BLOCK,
                &raw const all,
                old,
                8,
            );
        }
        Ok(())
    };
    let report = soon(c.call_new("run", &[]).setup(deaf)).ok().report();
    for name in ["SigBlk", "SigIgn", "SigPnd"] {
        let text = report["status"][name].as_str().expect("a mask");
        assert_eq!(mask(text), 0, "{name}");
    }
    let c = c.asks(&["pause"]);
    soon(c.call_new("create", &[]).setup(deaf)).ok();
    soon(c.call(&["start", &c.id]).setup(deaf)).ok();
    let exec = ["exec", &c.id, "/payload", "status", "SigIgn"];
    let output = soon(c.call(&exec).setup(deaf)).ok();
    assert_eq!(mask(&output.answer("status SigIgn")), 0);
    soon(c.call(&["delete", "--force", &c.id]).setup(deaf)).ok();
    c.assert_gone();
}

#[test]
fn the_mask_the_directory_and_the_priority_of_the_caller_do_no_harm() {
    let c = bundle!().asks(&["report"]);
    let strange = || {
        // SAFETY: plain calls.
        unsafe {
            libc::umask(0o777);
            libc::setpriority(libc::PRIO_PROCESS, 0, 7);
        }
        Ok(())
    };
    let gone = c.dir.join("gone");
    fs::create_dir(&gone).expect("mkdir");
    let script = "rmdir ../gone; echo 321 > /proc/self/oom_score_adj; exec \"$0\" \"$@\"";
    let call = c.call_new("run", &[]).cwd(&gone).setup(strange);
    let report = soon(call.through_shell(script)).ok().report();
    assert_eq!(
        (&report["umask"], &report["cwd"]),
        (&json!(0o022), &json!("/"))
    );
    assert_eq!(report["nice"], 7, "what the spec does not say is inherited");
    assert_eq!(report["oom"], "321");
    c.assert_gone();
}

#[test]
fn a_caller_who_may_write_no_files_is_told() {
    let c = bundle!().asks(&["exit 7"]);
    let none = || {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the limit is copied.
        unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &none) };
        Ok(())
    };
    let (reader, writer) = io::pipe().expect("a pipe");
    let output = c.call_new("run", &[]).setup(none).fd(writer, 2);
    assert_eq!(soon(output).code(), 1);
    let mut said = String::new();
    io::BufReader::new(reader)
        .read_to_string(&mut said)
        .expect("read");
    assert!(said.contains("File too large"), "{said}");
    c.assert_gone();
}

/// Stops and continues it, and sends what nobody has asked for, until it ends.
fn under_signals(call: Call) -> Output {
    let mut running = call.spawn();
    let pid = running.child.id() as i32;
    let storm = [
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGWINCH,
        libc::SIGURG,
        libc::SIGSTOP,
        libc::SIGCONT,
    ];
    let mut next = storm.iter().cycle();
    let mut status = None;
    let ended = holds_within(PATIENCE, || {
        for signal in next.by_ref().take(30) {
            // SAFETY: kill touches no memory; the process has not been waited for.
            unsafe { libc::kill(pid, *signal) };
        }
        status = running.child.try_wait().expect("wait");
        status.is_some()
    });
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };
    assert!(ended, "it does not end");
    running.output(status.expect("a status"))
}

#[test]
fn a_storm_of_signals_changes_no_result() {
    let c = bundle!().asks(&["pause"]);
    for _ in 0..3 {
        under_signals(c.call_new("create", &[])).ok().silent();
        under_signals(c.call(&["start", &c.id])).ok().silent();
        let state = under_signals(c.call(&["state", &c.id])).ok();
        assert!(state.stdout().contains("\"running\""), "{}", state.stdout());
        let exec = ["exec", &c.id, "/payload", "exit", "3"];
        under_signals(c.call(&exec)).exits(3).silent();
        under_signals(c.call(&["delete", "--force", &c.id]))
            .ok()
            .silent();
        c.assert_gone();
    }
    let c = c.asks(&["signals"]);
    let running = c.call_new("run", &[]).spawn();
    wait_until("it is ready", || running.stdout().contains("ready"));
    for signal in [libc::SIGUSR1, libc::SIGHUP, libc::SIGUSR2, libc::SIGTERM] {
        send(running.child.id(), signal);
    }
    let output = running.wait().ok();
    let mut got: Vec<String> = output.stdout().lines().map(String::from).collect();
    got.retain(|line| ["signal 10", "signal 1", "signal 12", "signal 15"].contains(&line.as_str()));
    got.sort();
    assert_eq!(got, ["signal 1", "signal 10", "signal 12", "signal 15"]);
}

#[test]
fn a_console_socket_that_misbehaves_keeps_nobody_waiting() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .asks(&["pause"]);
    let path = c.dir.join("console.sock");
    let socket = path.display().to_string();
    let create = || c.call_new("create", &["--console-socket", &socket]);
    soon(create()).fails();
    c.assert_gone();
    fs::write(&path, "").expect("write");
    soon(create()).fails();
    c.assert_gone();
    fs::remove_file(&path).expect("remove");
    // Nobody listens any more.
    drop(listen(&path));
    soon(create()).fails();
    c.assert_gone();
    fs::remove_file(&path).expect("remove");
    // Closes what it accepts, with or without some words of its own.
    for words in ["", "junk junk junk"] {
        let listener = listen(&path);
        listener.set_nonblocking(false).expect("set blocking");
        let closes = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let _ = stream.write_all(words.as_bytes());
        });
        let output = soon(create());
        if output.code() != 0 {
            output.fails_naming("--console-socket");
            c.assert_gone();
        }
        closes.join().expect("an end");
        c.delete(&["--force"]).ok();
        c.assert_gone();
        fs::remove_file(&path).expect("remove");
    }
}

#[test]
fn a_socket_at_which_nobody_accepts_keeps_nobody_waiting_for_long() {
    let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]);
    let c = bundle!();
    let path = c.dir.join("some.sock");
    let socket = path.display().to_string();
    let filter =
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": socket});
    let with_agent = bundle!().asks(&["pause"]).set("/linux/seccomp", filter);
    let with_terminal = c.set("/process/terminal", json!(true)).asks(&["pause"]);
    let flags = ["--detach", "--console-socket", &socket];
    let cases = [
        (&with_terminal, &flags[..], "--console-socket"),
        (&with_agent, &flags[..1], "linux.seccomp.listenerPath"),
    ];
    for (c, flags, field) in cases {
        // There is room in the queue: whoever listens may come back to it.
        let listener = listen(&path);
        soon(c.call_new("run", flags)).ok();
        assert_eq!(c.status(), "running");
        c.delete(&["--force"]).ok();
        // The connection that was made is still waiting: now there is room for no other (listen(2)).
        // SAFETY: listen touches no memory.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let call = c.call_new("run", flags);
        let output = in_time(Duration::from_secs(8), || call.finish());
        let output = output.fails_naming(field);
        output.fails_naming("nobody has accepted a connection within 5 s");
        c.assert_gone();
        drop(listener);
        fs::remove_file(&path).expect("remove");
    }
}

#[test]
fn a_pid_file_that_cannot_be_written_leaves_no_container() {
    let c = bundle!().asks(&["pause"]).with_tmpfs("ro", libc::MS_RDONLY);
    fs::create_dir(c.path("folder")).expect("mkdir");
    fs::write(c.path("folder/file"), "").expect("write");
    for name in [
        "ro/pid",
        "folder",
        "missing/pid",
        "config.json/pid",
        "/dev/full/pid",
    ] {
        let file = c.dir.join(name).display().to_string();
        let output = soon(c.call_new("create", &["--pid-file", &file])).fails();
        output.fails_naming(&format!("--pid-file: write {file:?}"));
        assert!(!c.state_root().join(&c.id).exists() && !c.cgroup().exists());
    }
    let names = |dir: &str| fs::read_dir(c.path(dir)).expect("read").flatten().count();
    assert_eq!((names("folder"), names("ro")), (1, 0));
    c.up();
    let file = c.path("ro/pid");
    let exec = [
        "exec",
        "--detach",
        "--pid-file",
        &file,
        &c.id,
        "/payload",
        "pause",
    ];
    soon(c.call(&exec)).fails();
    let procs = c.cgroup().join("cgroup.procs");
    wait_until("only init is left", || {
        fs::read_to_string(&procs).expect("read").lines().count() == 1
    });
}

const AGAIN: [&str; 3] = [
    "open /proc/self/fd/0 r",
    "open /proc/self/fd/1 w",
    "open /proc/self/fd/2 w",
];

/// A file that nobody but its owner may open.
fn private(c: &Bundle, name: &str) -> File {
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(c.dir.join(name)).expect("make a file")
}

/// Returns the answers of a program that opens its streams again. They are pipes; with `files`, all but the first are files.
fn reopened(c: &Bundle, call: Call, files: bool) -> String {
    let (input, _writer) = io::pipe().expect("a pipe");
    let (mut reader, output) = io::pipe().expect("a pipe");
    let call = call.fd(input, 0);
    let call = match files {
        true => call.fd(private(c, "out"), 1).fd(private(c, "err"), 2),
        false => call
            .fd(output.try_clone().expect("duplicate"), 1)
            .fd(output, 2),
    };
    call.finish().ok();
    if c.state_root().join(&c.id).exists() && c.status() == "created" {
        c.start().ok();
        c.wait_stopped();
    }
    let mut said = String::new();
    match files {
        true => said = fs::read_to_string(c.dir.join("out")).expect("read"),
        false => drop(reader.read_to_string(&mut said).expect("read")),
    }
    said
}

#[test]
fn the_containers_user_opens_its_streams_again() {
    let expected = AGAIN.map(|question| format!("{question} => ok\n")).concat();
    for (in_user_namespace, uid) in [(false, 1000), (true, 0), (true, 1000)] {
        let user = json!({"uid": uid, "gid": uid});
        let c = match in_user_namespace {
            true => bundle!().in_user_namespace(),
            false => bundle!(),
        };
        let c = c.set("/process/user", user).asks(&AGAIN);
        for files in [false, true] {
            let case = format!("{in_user_namespace} {uid} {files}");
            assert_eq!(
                reopened(&c, c.call_new("run", &[]), files),
                expected,
                "run {case}"
            );
            assert_eq!(
                reopened(&c, c.call_new("create", &[]), files),
                expected,
                "{case}"
            );
            c.delete(&["--force"]).ok();
        }
        let c = c
            .set("/process/user", json!({"uid": 5, "gid": 5}))
            .asks(&["pause"]);
        c.up();
        let (script, user) = (AGAIN.join(" ; "), uid.to_string());
        let mut exec = vec!["exec", "--user", &user, &c.id, "/payload"];
        exec.extend(script.split(' '));
        for files in [false, true] {
            let said = reopened(&c, c.call(&exec), files);
            assert_eq!(said, expected, "exec {in_user_namespace} {uid} {files}");
        }
    }
}

/// The owner of a file may change its mode, and write to it even if it was opened for reading.
#[test]
fn streams_that_are_not_for_the_container_alone_keep_their_owner() {
    for user_namespace in [false, true] {
        let c = match user_namespace {
            true => bundle!().in_user_namespace(),
            false => bundle!(),
        };
        let user = json!({"uid": 1000, "gid": 1000});
        let c = c.set("/process/user", user).asks(&["exit 3"]);
        let (input, other) = (private(&c, "input"), private(&c, "other"));
        chown(c.dir.join("other"), Some(5000), Some(5000)).expect("chown");
        let read = File::open(c.dir.join("input")).expect("open");
        let (_terminal, slave) = Terminal::pair(80, 24);
        let slave = File::from(slave);
        let copy = slave.try_clone().expect("duplicate");
        let copies = (other.try_clone().expect("duplicate"), copy);
        let call = c.call_new("run", &[]).fd(read, 0);
        call.fd(copies.0, 1).fd(copies.1, 2).finish().exits(3);
        let owner = |file: &File| file.metadata().expect("stat").uid();
        let owners = [owner(&input), owner(&other), owner(&slave)];
        assert_eq!(owners, [0, 5000, 0], "{user_namespace}");
    }
}

/// A FIFO has a name on the host, so it may be for others.
#[test]
fn a_named_fifo_of_another_user_keeps_its_owner() {
    for (owner, wanted) in [(0, 1000), (5000, 5000)] {
        let c = bundle!()
            .set("/process/user", json!({"uid": 1000, "gid": 1000}))
            .asks(&["exit 3"]);
        let path = c.dir.join("fifo");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).expect("mkfifo");
        chown(&path, Some(owner), None).expect("chown");
        // Open at both ends, so nothing waits.
        let fifo = File::options().read(true).write(true).open(&path);
        let fifo = fifo.expect("open");
        let copy = fifo.try_clone().expect("duplicate");
        c.call_new("run", &[]).fd(copy, 1).finish().exits(3);
        let found = fifo.metadata().expect("stat").uid();
        assert_eq!(found, wanted, "of {owner}");
    }
}
