//! Attacks of the past: what an image, a volume or a config tries, and what must not happen.
//! The outside world is a canary: a directory or file next to the rootfs that must stay as it is.

use crate::support::terminal::{Terminal, listen};
use crate::support::{Bundle, node, wait_until};
use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};

/// A directory outside of the rootfs with one file in it. The bundle works before the attack.
fn canary(c: &Bundle) -> String {
    let answer = c.run().ok().stdout();
    assert!(answer.contains(" => "), "the bundle does not run");
    fs::create_dir(c.path("canary")).expect("mkdir");
    fs::write(c.path("canary/ptmx"), "decoy").expect("write");
    c.path("canary")
}

fn assert_untouched(c: &Bundle) {
    let names: Vec<_> = fs::read_dir(c.path("canary"))
        .expect("read")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["ptmx"], "the canary was changed");
    assert_eq!(
        fs::read_to_string(c.path("canary/ptmx")).expect("read"),
        "decoy"
    );
}

/// Replaces /dev by a bind of this directory of the bundle.
fn with_dev(mut c: Bundle, name: &str) -> Bundle {
    let source = c.path(name);
    let mounts = c.spec["mounts"].as_array_mut().expect("mounts");
    mounts[1] = json!({"destination": "/dev", "type": "bind", "source": source, "options": ["rbind", "rw"]});
    c
}

#[test]
fn masked_and_read_only_paths_of_the_default_spec_hold() {
    let mut c = bundle!();
    c.call(&["spec"]).finish().ok();
    let text = fs::read_to_string(c.dir.join("config.json")).expect("a spec");
    let default: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut questions = vec![];
    for list in ["maskedPaths", "readonlyPaths"] {
        c.spec["linux"][list] = default["linux"][list].clone();
        for path in default["linux"][list].as_array().expect("a list") {
            let path = path.as_str().expect("a path");
            questions.extend([
                format!("stat {path}"),
                format!("write {path} 1"),
                format!("write {path}/x 1"),
            ]);
        }
    }
    assert!(questions.len() > 30);
    let c = c.caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    let c = c.asks(&questions.iter().map(String::as_str).collect::<Vec<_>>());
    let output = c.run().ok();
    for question in questions.iter().filter(|q| q.starts_with("write")) {
        let path = question.split(' ').nth(1).expect("a path");
        let masked_file = output
            .stdout()
            .contains(&format!("stat {path} => char 1:3"));
        assert!(masked_file || output.answer(question) != "ok", "{question}");
    }
}

#[test]
fn the_runtime_cannot_be_written_through_the_created_process() {
    let c = bundle!();
    // A copy, as the kernel refuses to write what somebody is executing right now.
    let copy = c.dir.join("runtime");
    crate::support::copy_program(&crate::support::binary(), &copy);
    c.call_new("create", &[]).program(&copy).finish().ok();
    let exe = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(format!("/proc/{}/exe", c.pid()));
    let exe = exe.expect("open the executable");
    c.call(&["delete", "--force", &c.id])
        .program(&copy)
        .finish()
        .ok();
    let path = format!("/proc/self/fd/{}", exe.as_raw_fd());
    let mut opened = Err(io::ErrorKind::Other.into());
    wait_until("nobody executes it", || {
        opened = OpenOptions::new().write(true).open(&path);
        opened.as_ref().err().and_then(io::Error::raw_os_error) != Some(libc::ETXTBSY)
    });
    if opened.is_ok() {
        let (now, own) = (
            exe.metadata().expect("metadata"),
            fs::metadata(&copy).expect("the copy"),
        );
        assert!(
            (now.dev(), now.ino()) != (own.dev(), own.ino()),
            "the binary itself can be written"
        );
        assert!(now.nlink() == 0, "a file with a name can be written");
    }
}

#[test]
fn the_payload_cannot_become_the_runtime() {
    let mut c = bundle!();
    assert_eq!(c.run().ok().report()["pid"], 1);
    for program in [
        "/proc/self/exe",
        "/proc/1/exe",
        "/proc/self/fd/3",
        "/proc/self/fd/6/../../../bin/true",
    ] {
        c = c.set("/process/args", json!([program, "--version"]));
        c.run();
    }
}

#[test]
fn the_executable_of_the_payload_is_its_own() {
    let c = bundle!().asks(&["lstat /proc/self/exe", "lstat /proc/1/exe"]);
    assert_eq!(c.run().ok().answer("lstat /proc/1/exe"), "link -> /payload");
}

#[test]
fn sysctls_do_not_go_into_a_fake_proc() {
    let c = bundle!();
    assert_eq!(c.run().ok().report()["pid"], 1);
    let mut c = c.file("/proc/sys/net/ipv4/ip_forward", "UNTOUCHED");
    c = c.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    c = c
        .without("/mounts", "destination", "/proc")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    c.create();
    let text = fs::read_to_string(c.rootfs().join("proc/sys/net/ipv4/ip_forward")).expect("read");
    assert_eq!(text, "UNTOUCHED");
}

#[test]
fn proc_is_only_ever_procfs() {
    let mut c = bundle!().link("/plink", "proc").folder("/x");
    let before = c.spec.clone();
    for target in [
        "/proc",
        "/proc/",
        "//proc",
        "/./proc",
        "/x/../proc",
        "/plink",
    ] {
        println!("{target}");
        c.spec = before.clone();
        c.spec["mounts"][0] = json!({"destination": target, "type": "tmpfs", "source": "tmpfs"});
        c.create().fails_with("proc");
        c.assert_gone();
    }
}

#[test]
fn a_symlink_is_no_place_for_proc_or_sys() {
    let c = bundle!();
    let outside = canary(&c);
    let mut c = c.folder("/evil");
    for (name, mount) in [("proc", 0), ("sys", 5)] {
        for target in [
            "/evil",
            outside.as_str(),
            "/nonexist",
            "../../../../../../../evil",
        ] {
            c = c.link(&format!("/{name}"), target);
            assert_eq!(c.spec["mounts"][mount]["destination"], format!("/{name}"));
            c.create().fails();
            c.assert_gone();
        }
        fs::remove_file(c.rootfs().join(name)).expect("remove");
        c = c.folder(&format!("/{name}"));
    }
    assert!(!c.rootfs().join("nonexist").exists());
    assert_untouched(&c);
}

#[test]
fn the_working_directory_is_never_outside() {
    let mut c = bundle!().asks(&["ls ../../../../../../../..", "report"]);
    let outside = canary(&c);
    let question = format!("ls ../../../../../../..{outside}");
    c = c.asks(&[&question]);
    for number in 3..14 {
        for cwd in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/1/fd/{number}/../.."),
            "/w".into(),
        ] {
            c = c
                .link("/w", &format!("/proc/self/fd/{number}"))
                .set("/process/cwd", json!(cwd));
            let output = c.run();
            assert!(
                output.code() != 0 || output.answer(&question) == "ENOENT",
                "{cwd}: {}",
                output.describe()
            );
        }
    }
}

#[test]
fn the_program_is_never_outside() {
    let mut c = bundle!();
    for number in 3..14 {
        for program in [
            format!("/proc/self/fd/{number}"),
            format!("/proc/self/fd/{number}/bin/true"),
            format!("/proc/self/fd/{number}/../../../../../bin/true"),
        ] {
            c = c.set("/process/args", json!([program]));
            assert_ne!(c.run().code(), 0, "{program}");
        }
    }
}

#[test]
fn no_directory_of_the_host_is_open_while_created() {
    let c = bundle!();
    c.create().ok();
    let pid = c.pid();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("open files")
        .flatten()
    {
        let target = fs::read_link(entry.path()).expect("a target");
        let is_dir = fs::metadata(entry.path()).is_ok_and(|m| m.is_dir());
        assert!(!is_dir, "{:?} -> {target:?}", entry.file_name());
    }
}

#[test]
fn links_in_the_image_do_not_lead_the_runtime_out() {
    let c = bundle!();
    let outside = canary(&c);
    let c = c
        .link("/evil", &outside)
        .link("/up", "../../../../../../../../tmp")
        .mount("tmpfs", "tmpfs", "/evil/made", &[])
        .set("/process/cwd", json!("/evil/cwd"))
        .push("/linux/maskedPaths", json!("/evil/ptmx"))
        .push("/linux/readonlyPaths", json!("/evil"))
        .push(
            "/linux/devices",
            json!({"type": "c", "path": "/evil/node", "major": 1, "minor": 3}),
        );
    c.run();
    assert_untouched(&c);
}

#[test]
fn the_source_of_a_mask_is_the_real_null() {
    let mut c = bundle!()
        .file("/etc/tomask", "SECRET")
        .file("/etc/canary", "CANARY");
    for name in ["dev", "dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(c.path(name)).expect("mkdir");
    }
    let null = c.path("dev/null");
    let base = c.spec.clone();
    for variant in 0..6 {
        let _ = fs::remove_file(&null);
        match variant {
            0 => symlink("/etc/canary", &null).expect("symlink"),
            1 => {}
            2 => fs::write(&null, "EVIL").expect("write"),
            3 => symlink("/proc/keys", &null).expect("symlink"),
            4 => node(&null, libc::S_IFCHR, 1, 5),
            _ => node(&null, libc::S_IFIFO, 0, 0),
        }
        c.spec = base.clone();
        c = with_dev(c, "dev")
            .set("/linux/maskedPaths", json!(["/etc/tomask"]))
            .caps(&["CAP_DAC_OVERRIDE"]);
        c = c.asks(&["stat /etc/tomask", "write /etc/tomask PWN"]);
        let output = c.run();
        let answer = || output.answer("stat /etc/tomask");
        assert!(
            output.code() != 0 || answer().starts_with("char 1:3"),
            "{variant}: {}",
            output.describe()
        );
        let read = |path: &str| fs::read_to_string(c.rootfs().join(path)).expect("read");
        assert_eq!(
            (read("etc/canary").as_str(), read("etc/tomask").as_str()),
            ("CANARY", "SECRET"),
            "{variant}"
        );
    }
}

#[test]
fn stdio_is_not_taken_by_a_fake_null() {
    let c = bundle!().asks(&["stat /payload"]);
    for name in ["dev", "dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(c.path(name)).expect("mkdir");
    }
    fs::write(c.path("dev/null"), "EVIL").expect("write");
    let c = with_dev(c, "dev").remove("/linux/maskedPaths");
    let output = c.run();
    assert!(
        output.code() != 0 || output.answer("stat /payload").starts_with("file"),
        "{}",
        output.describe()
    );
    assert_eq!(
        fs::read_to_string(c.path("dev/null")).expect("read"),
        "EVIL"
    );
}

#[test]
fn the_console_is_the_true_terminal() {
    let mut c = bundle!()
        .file("/etc/canary", "CANARY")
        .set("/process/terminal", json!(true));
    fs::create_dir(c.path("pts")).expect("mkdir");
    fs::create_dir(c.path("pts/pts")).expect("mkdir");
    node(&c.path("pts/ptmx"), libc::S_IFCHR, 5, 2);
    for number in 0..10 {
        symlink("/etc/canary", c.path(&format!("pts/{number}"))).expect("symlink");
    }
    let source = c.path("pts");
    c.spec["mounts"][2] = json!({"destination": "/dev/pts", "type": "bind", "source": source, "options": ["bind", "rw", "dev"]});
    let options = [
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    c = c
        .mount("devpts", "devpts", "/dev/pts/pts", &options)
        .asks(&["lstat /dev/console"]);
    let path = c.dir.join("console.sock");
    let _listener = listen(&path);
    let socket = path.display().to_string();
    let output = c
        .call_new("create", &["--console-socket", &socket])
        .finish();
    if output.code() == 0 {
        let console = fs::read_link(format!("/proc/{}/fd/0", c.pid())).expect("stdin");
        assert!(!console.ends_with("canary"), "{console:?}");
    }
    assert_eq!(
        fs::read_to_string(c.rootfs().join("etc/canary")).expect("read"),
        "CANARY"
    );
}

#[test]
fn a_prepared_console_does_not_lead_out() {
    let c = bundle!().asks(&["stat /payload"]);
    let outside = canary(&c);
    let c = c.set("/process/terminal", json!(true));
    for name in ["dev", "dev/pts", "dev/shm", "dev/mqueue"] {
        fs::create_dir(c.path(name)).expect("mkdir");
    }
    node(&c.path("dev/null"), libc::S_IFCHR, 1, 3);
    symlink(format!("{outside}/console"), c.path("dev/console")).expect("symlink");
    symlink("pts/ptmx", c.path("dev/ptmx")).expect("symlink");
    let c = with_dev(c, "dev");
    let (_terminal, slave) = Terminal::pair(80, 24);
    c.call_new("run", &[]).on_terminal(slave).finish();
    assert_untouched(&c);
}

#[test]
fn a_dev_that_is_a_link_does_not_lead_out() {
    let mut c = bundle!().asks(&["stat /payload"]);
    let outside = canary(&c);
    let relative = format!("../../../../../../../..{outside}");
    let base = c.spec.clone();
    for target in [outside.as_str(), relative.as_str(), "/first"] {
        for with_mounts in [true, false] {
            c.spec = base.clone();
            c = c.link("/first", &outside).link("/dev", target);
            if !with_mounts {
                let mounts = c.spec["mounts"].as_array_mut().expect("mounts");
                mounts.retain(|m| {
                    m["destination"]
                        .as_str()
                        .is_some_and(|d| !d.starts_with("/dev"))
                });
            }
            c.run();
            assert_untouched(&c);
        }
    }
}

#[test]
fn links_below_dev_do_not_lead_out() {
    let mut c = bundle!().asks(&["stat /payload"]);
    let outside = canary(&c);
    for name in ["pts", "shm", "mqueue"] {
        c = c.folder("/dev").link(&format!("/dev/{name}"), &outside);
        let mut spec = c.spec.clone();
        spec["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|m| m["destination"] != "/dev");
        std::mem::swap(&mut c.spec, &mut spec);
        c.run();
        assert_untouched(&c);
        c.spec = spec;
    }
}

#[test]
fn the_payload_cannot_type_into_the_terminal_of_the_caller() {
    let c = bundle!().asks(&["ioctl 0 0x5412", "exit 0"]);
    let (mut terminal, slave) = Terminal::pair(80, 24);
    let keep = slave.try_clone().expect("duplicate");
    let running = c.call_new("run", &[]).on_terminal(slave).spawn();
    assert_ne!(terminal.answer("ioctl 0 0x5412"), "ok");
    running.wait().ok();
    assert!(!terminal.read_some().replace("0x5412", "").contains('x'));
    drop(keep);
}

#[test]
fn a_mount_option_is_there_before_the_mount_is_seen() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    node(&c.path("source/zero"), libc::S_IFCHR, 1, 5);
    let source = c.path("source");
    let c = c
        .mount("bind", &source, "/mnt", &["bind", "nodev"])
        .asks(&["open /mnt/zero r"]);
    assert_eq!(c.run().ok().answer("open /mnt/zero r"), "EACCES");
}

#[test]
fn nothing_in_the_user_namespace_can_undo_a_mask() {
    let c = bundle!().file("/etc/secret", "SECRET").in_user_namespace();
    let c = c
        .push("/linux/maskedPaths", json!("/etc/secret"))
        .caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    // A second user namespace with a mount namespace: whose mounts are locked.
    let c = c.asks(&[
        "syscall 272 0x10020000",
        "umount /etc/secret",
        "umount /proc/keys",
        "read /etc/secret",
    ]);
    let output = c.run().ok();
    assert_ne!(output.answer("umount /etc/secret"), "ok");
    assert_ne!(output.answer("read /etc/secret"), "SECRET");
}
