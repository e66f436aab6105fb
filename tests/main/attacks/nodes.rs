//! T13, T14: something else in the place of /dev/null, of the multiplexer of terminals, of a terminal, of the console.
//! CVE-2025-31133, CVE-2025-62161, CVE-2025-52565.

use super::post::{World, attack};
use super::ways::each_way;
use crate::support::terminal::{Terminal, listen, receive};
use crate::support::{Bundle, node};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, symlink};

/// A directory of the host for the container's /dev, with what the mounts below it need.
pub fn dev_of_the_host(mut c: Bundle) -> Bundle {
    for name in ["dev", "dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(c.path(name)).expect("mkdir");
    }
    c.spec["mounts"][1] = json!({"destination": "/dev", "type": "bind", "source": c.path("dev"), "options": ["rbind", "rw"]});
    c
}

/// Masks with this in the place of /dev/null.
fn masks_with(c: Bundle, make: fn(&str)) {
    let c = dev_of_the_host(c)
        .file("/etc/tomask", "SECRET")
        .file("/etc/canary", "CANARY");
    let mut world = World::new(&c);
    make(&c.path("dev/null"));
    let masked = ["/etc/tomask", "/proc/kcore", "/proc/timer_list"];
    let mut questions = masked.map(|path| format!("stat {path}")).to_vec();
    questions.push("write /etc/tomask PWN".into());
    let c = c
        .set("/linux/maskedPaths", json!(masked))
        .caps(&["CAP_DAC_OVERRIDE"])
        .asks(&questions.iter().map(String::as_str).collect::<Vec<_>>());
    let output = attack(&c, &mut world, "a mask");
    for question in &questions[..masked.len()] {
        if output.code() == 0 {
            let answer = output.answer(question);
            let covered = answer.starts_with("char 1:3") || answer == "ENOENT";
            assert!(covered, "{question}: {}", output.describe());
        }
    }
    let read = |path: &str| fs::read_to_string(c.rootfs().join(path)).expect("read");
    let files = (read("etc/canary"), read("etc/tomask"));
    assert_eq!(files, ("CANARY".into(), "SECRET".into()));
}

#[test]
fn t13_i_a_link_in_the_place_of_null_is_not_bound() {
    for c in each_way!() {
        masks_with(c, |null| symlink("/etc/canary", null).expect("symlink"));
    }
}

#[test]
fn t13_ii_without_null_masks_hold() {
    for c in each_way!() {
        masks_with(c, |_| {});
    }
}

#[test]
fn t13_iii_a_file_in_the_place_of_null_is_not_bound() {
    for c in each_way!() {
        masks_with(c, |null| fs::write(null, "EVIL").expect("write"));
    }
}

#[test]
fn t13_iv_a_link_to_proc_in_the_place_of_null_is_not_bound() {
    for c in each_way!() {
        masks_with(c, |null| symlink("/proc/kcore", null).expect("symlink"));
    }
}

#[test]
fn t13_v_another_device_in_the_place_of_null_is_not_bound() {
    for c in each_way!() {
        masks_with(c, |null| node(null, libc::S_IFCHR, 1, 5));
    }
}

#[test]
fn t13_vi_a_fifo_in_the_place_of_null_does_not_hang() {
    for c in each_way!() {
        masks_with(c, |null| node(null, libc::S_IFIFO, 0, 0));
    }
}

/// Where the device number is all that is compared, what has none is like a pipe.
#[test]
fn t13_a_false_null_does_not_take_the_streams() {
    let kinds: [fn(&str); 3] = [
        |null| fs::write(null, "EVIL").expect("write"),
        |null| node(null, libc::S_IFIFO, 0, 0),
        |null| symlink("/etc/canary", null).expect("symlink"),
    ];
    for kind in kinds {
        for c in each_way!() {
            let mut world = World::new(&c);
            let c = dev_of_the_host(c)
                .file("/etc/canary", "CANARY")
                .remove("/linux/maskedPaths");
            kind(&c.path("dev/null"));
            let c = c.asks(&["stdin", "stderr here"]);
            let call = c.call_new("run", &[]).stdin("typed");
            let output = call.setup(small_files).finish();
            if output.code() == 0 {
                assert_eq!(output.answer("stdin"), "ok:typed");
                assert!(output.stderr().ends_with("here\n"), "{}", output.describe());
            }
            let null = fs::symlink_metadata(c.path("dev/null")).expect("stat");
            assert!(null.len() <= 11, "{} bytes were written", null.len());
            assert_eq!(
                fs::read_to_string(c.rootfs().join("etc/canary")).expect("read"),
                "CANARY"
            );
            world.assert_after(&c, "afterwards");
        }
    }
}

/// For a runtime that writes without end.
fn small_files() -> std::io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: 1 << 20,
        rlim_max: 1 << 20,
    };
    // SAFETY: the limit is copied.
    match unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Whoever opens the file is noticed, on whichever mount.
pub struct Watched {
    events: File,
}

impl Watched {
    pub fn new(path: &std::path::Path) -> Watched {
        let path = std::ffi::CString::new(path.to_str().expect("text")).expect("a path");
        // SAFETY: the path is a C string; nobody else knows the new descriptor.
        let events = unsafe {
            let events = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            assert!(libc::inotify_add_watch(events, path.as_ptr(), libc::IN_OPEN) > 0);
            OwnedFd::from_raw_fd(events)
        };
        Watched {
            events: events.into(),
        }
    }

    pub fn assert_not_opened(&mut self) {
        let read = self.events.read(&mut [0u8; 256]);
        let nothing = read.is_err_and(|e| e.kind() == ErrorKind::WouldBlock);
        assert!(nothing, "it was opened");
    }
}

/// A multiplexer whose terminals are not where their names say: the kernel makes them in the devpts below, and links of the
/// image have the names.
pub fn with_false_terminals(mut c: Bundle) -> Bundle {
    fs::create_dir_all(c.path("pts/pts")).expect("mkdir");
    node(&c.path("pts/ptmx"), libc::S_IFCHR, 5, 2);
    for number in 0..10 {
        symlink("/etc/canary", c.path(&format!("pts/{number}"))).expect("symlink");
    }
    c.spec["mounts"][2] = json!({"destination": "/dev/pts", "type": "bind", "source": c.path("pts"), "options": ["bind", "rw", "dev"]});
    let options = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    c.mount("devpts", "devpts", "/dev/pts/pts", &options)
        .file("/etc/canary", "CANARY")
}

/// A console socket where everybody may connect.
pub fn socket(c: &Bundle) -> (std::os::unix::net::UnixListener, String) {
    let path = c.dir.join("console.sock");
    let _ = fs::remove_file(&path);
    let listener = listen(&path);
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(&path, all).expect("chmod");
    (listener, path.display().to_string())
}

#[test]
fn t14_a_link_in_the_place_of_a_terminal_is_not_opened() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = with_false_terminals(c)
            .set("/process/terminal", json!(true))
            .asks(&["pause"]);
        let mut canary = Watched::new(&c.rootfs().join("etc/canary"));
        let (_listener, path) = socket(&c);
        let created = c.call_new("create", &["--console-socket", &path]).finish();
        if created.code() == 0 {
            let stdin = fs::metadata(format!("/proc/{}/fd/0", c.pid())).expect("stdin");
            assert_eq!(libc::major(stdin.rdev()), 136);
            c.start();
        }
        canary.assert_not_opened();
        c.delete(&["--force"]).ok();
        let (_terminal, slave) = Terminal::pair(80, 24);
        let c = c.asks(&["exit 0"]);
        c.call_new("run", &[]).on_terminal(slave).finish();
        canary.assert_not_opened();
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t14_a_terminal_for_exec_is_the_true_one() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = with_false_terminals(c).asks(&["pause"]);
        let mut canary = Watched::new(&c.rootfs().join("etc/canary"));
        c.up();
        let (listener, path) = socket(&c);
        let args = [
            "exec",
            "--tty",
            "--detach",
            "--console-socket",
            &path,
            &c.id,
            "/payload",
            "tty",
            ";",
            "pause",
        ];
        if c.call(&args).finish().code() == 0 {
            let tty = Terminal::new(receive(&listener).files.remove(0)).answer("tty");
            assert!(tty.starts_with("ttt /dev/"), "{tty}");
        }
        let (_terminal, slave) = Terminal::pair(80, 24);
        let args = ["exec", "--tty", &c.id, "/payload", "exit", "0"];
        c.call(&args).on_terminal(slave).finish();
        canary.assert_not_opened();
        world.assert_after(&c, "afterwards");
    }
}

/// With this at /dev/console when the terminal comes.
fn console_is(c: Bundle, make: fn(&str, &str), options: Value) {
    let mut world = World::with(&c, &["console"]);
    let c = dev_of_the_host(c).set("/process/terminal", json!(true));
    let c = c.set("/mounts/1/options", options);
    node(&c.path("dev/null"), libc::S_IFCHR, 1, 3);
    symlink("pts/ptmx", c.path("dev/ptmx")).expect("symlink");
    make(&c.path("dev/console"), &world.outside.dir);
    let c = c.asks(&["lstat /dev/console"]);
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let keep = slave.try_clone().expect("duplicate");
    let output = c.call_new("run", &[]).on_terminal(slave).finish();
    if output.code() == 0 {
        let console = terminal.answer("lstat /dev/console");
        assert!(console.starts_with("char 136:"), "{console}");
    }
    drop(keep);
    world.assert_after(&c, "the console");
}

#[test]
fn t14_a_console_that_is_a_link_leads_nowhere() {
    let to: [fn(&str, &str); 3] = [
        |console, outside| symlink(format!("{outside}/console"), console).expect("symlink"),
        |console, outside| symlink(format!("{outside}/missing"), console).expect("symlink"),
        |console, _| symlink("/proc/sys/kernel/core_pattern", console).expect("symlink"),
    ];
    for make in to {
        for c in each_way!() {
            console_is(c, make, json!(["rbind", "rw"]));
        }
    }
}

#[test]
fn t14_a_console_that_is_something_else_is_covered_or_refused() {
    let kinds: [fn(&str, &str); 4] = [
        |console, _| node(console, libc::S_IFIFO, 0, 0),
        |console, _| fs::create_dir(console).expect("mkdir"),
        |console, _| fs::write(console, "EVIL").expect("write"),
        |console, _| node(console, libc::S_IFCHR, 1, 5),
    ];
    for make in kinds {
        for c in each_way!() {
            console_is(c, make, json!(["rbind", "rw"]));
        }
    }
}

#[test]
fn t14_a_console_in_a_read_only_dev_is_the_terminal_or_refused() {
    let kinds: [fn(&str, &str); 3] = [
        |_, _| {},
        |console, _| fs::write(console, "").expect("write"),
        |console, outside| symlink(format!("{outside}/console"), console).expect("symlink"),
    ];
    for make in kinds {
        for c in each_way!() {
            console_is(c, make, json!(["rbind", "ro"]));
        }
    }
}
