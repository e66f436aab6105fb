//! Device nodes and links in /dev, `linux.devices`, and the device rules of the cgroup.

use crate::support::terminal::create;
use crate::support::{Bundle, node};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

const EVERY_CAPABILITY: &[&str] = &[
    "CAP_MKNOD",
    "CAP_DAC_OVERRIDE",
    "CAP_CHOWN",
    "CAP_FOWNER",
    "CAP_SYS_ADMIN",
];

fn device(kind: &str, path: &str, major: u32, minor: u32) -> Value {
    json!({"type": kind, "path": path, "major": major, "minor": minor})
}

#[test]
fn default_nodes() {
    let nodes = [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ];
    let questions: Vec<String> = nodes
        .iter()
        .map(|(name, _)| format!("lstat /dev/{name}"))
        .collect();
    let c = bundle!().asks(&questions.iter().map(String::as_str).collect::<Vec<_>>());
    let output = c.run().ok();
    for ((name, number), question) in nodes.iter().zip(&questions) {
        assert_eq!(
            output.answer(question),
            format!("char {number} 0666 0:0"),
            "{name}"
        );
    }
}

#[test]
fn default_links() {
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    let questions: Vec<String> = links
        .iter()
        .map(|(name, _)| format!("lstat /dev/{name}"))
        .collect();
    let c = bundle!().asks(&questions.iter().map(String::as_str).collect::<Vec<_>>());
    let output = c.run().ok();
    for ((name, target), question) in links.iter().zip(&questions) {
        assert_eq!(
            output.answer(question),
            format!("link -> {target}"),
            "{name}"
        );
    }
}

#[test]
fn default_nodes_work() {
    let c = bundle!().asks(&[
        "write /dev/null x",
        "open /dev/zero r",
        "open /dev/urandom r",
        "write /dev/full x",
        "open /dev/ptmx rw",
    ]);
    let output = c.run().ok();
    for question in [
        "write /dev/null x",
        "open /dev/zero r",
        "open /dev/urandom r",
        "open /dev/ptmx rw",
    ] {
        assert_eq!(output.answer(question), "ok", "{question}");
    }
    assert_eq!(output.answer("write /dev/full x"), "ENOSPC");
}

#[test]
fn there_is_no_console_without_a_terminal() {
    let c = bundle!().asks(&["lstat /dev/console"]);
    assert_eq!(c.run().ok().answer("lstat /dev/console"), "ENOENT");
}

#[test]
fn devices_of_the_spec() {
    let mut owned = device("c", "/dev/mine", 10, 229);
    owned["fileMode"] = json!(0o640);
    owned["uid"] = json!(12);
    owned["gid"] = json!(34);
    let c = bundle!()
        .push("/linux/devices", owned)
        .push("/linux/devices", device("b", "/dev/block", 7, 0))
        .push("/linux/devices", device("u", "/dev/unbuffered", 1, 3))
        .push(
            "/linux/devices",
            json!({"type": "p", "path": "/dev/pipe", "fileMode": 0o600}),
        )
        .push("/linux/devices", device("c", "/dev/deep/down/node", 1, 5))
        .asks(&[
            "stat /dev/mine",
            "stat /dev/block",
            "stat /dev/unbuffered",
            "stat /dev/pipe",
            "stat /dev/deep/down/node",
        ]);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /dev/mine"), "char 10:229 0640 12:34");
    assert_eq!(output.answer("stat /dev/block"), "block 7:0 0666 0:0");
    assert_eq!(output.answer("stat /dev/unbuffered"), "char 1:3 0666 0:0");
    assert_eq!(output.answer("stat /dev/pipe"), "fifo 0600 0:0");
    assert_eq!(
        output.answer("stat /dev/deep/down/node"),
        "char 1:5 0666 0:0"
    );
}

#[test]
fn large_device_numbers() {
    let c = bundle!()
        .push("/linux/devices", device("b", "/dev/big", 259, 70000))
        .asks(&["stat /dev/big"]);
    assert_eq!(
        c.run().ok().answer("stat /dev/big"),
        "block 259:70000 0666 0:0"
    );
}

#[test]
fn the_umask_does_not_change_a_device() {
    let c = bundle!()
        .push("/linux/devices", device("c", "/dev/mine", 1, 3))
        .asks(&["stat /dev/mine"]);
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: umask cannot fail.
        unsafe { libc::umask(0o777) };
        Ok(())
    });
    assert_eq!(
        call.finish().ok().answer("stat /dev/mine"),
        "char 1:3 0666 0:0"
    );
}

#[test]
fn a_device_may_repeat_a_default_one() {
    let c = bundle!()
        .push("/linux/devices", device("c", "/dev/null", 1, 3))
        .asks(&["stat /dev/null"]);
    assert_eq!(c.run().ok().answer("stat /dev/null"), "char 1:3 0666 0:0");
}

#[test]
fn another_file_at_the_path_of_a_device_is_an_error() {
    let c = bundle!()
        .file("/mine", "a file")
        .push("/linux/devices", device("c", "/mine", 1, 3));
    c.create().fails_naming("linux.devices");
    c.assert_gone();
}

#[test]
fn unknown_device_types_are_refused() {
    let c = bundle!().push("/linux/devices", device("x", "/dev/mine", 1, 3));
    c.create().fails();
    c.assert_gone();
}

#[test]
fn devices_need_their_numbers() {
    let c = bundle!().push(
        "/linux/devices",
        json!({"type": "c", "path": "/dev/nothing"}),
    );
    c.create()
        .fails_naming("linux.devices[0].major: 0: no device has major and minor 0");
    c.assert_gone();
}

#[test]
fn a_user_namespace_gets_its_devices_too() {
    let c = bundle!().in_user_namespace().asks(&[
        "stat /dev/null",
        "write /dev/null x",
        "lstat /dev/ptmx",
        "lstat /dev/fd",
    ]);
    let output = c.run().ok();
    assert!(output.answer("stat /dev/null").starts_with("char 1:3 0666"));
    assert_eq!(output.answer("write /dev/null x"), "ok");
    assert_eq!(output.answer("lstat /dev/ptmx"), "link -> pts/ptmx");
    assert_eq!(output.answer("lstat /dev/fd"), "link -> /proc/self/fd");
}

/// As in a config that is made from all nodes of the host's /dev.
#[test]
fn the_multiplexer_and_the_console_may_be_listed() {
    for user in [false, true] {
        let mut c = bundle!().set("/process/terminal", json!(true));
        if user {
            c = c.in_user_namespace();
        }
        let c = c
            .push("/linux/devices", device("c", "/dev/ptmx", 5, 2))
            .push("/linux/devices", device("c", "/dev/tty", 5, 0))
            .push("/linux/devices", device("c", "/dev/full", 1, 7))
            .asks(&[
                "lstat /dev/ptmx",
                "open /dev/ptmx rw",
                "stat /dev/full",
                "mountinfo /dev/console",
                "pause",
            ]);
        let c = match user {
            // The console of the host cannot be bound where there is none.
            true => c,
            false => c.push("/linux/devices", device("c", "/dev/console", 5, 1)),
        };
        let mut terminal = create(&c);
        c.start().ok();
        for (question, answer) in [
            ("lstat /dev/ptmx", "link -> pts/ptmx"),
            ("open /dev/ptmx rw", "ok"),
            ("stat /dev/full", "char 1:7"),
        ] {
            let said = terminal.answer(question);
            assert!(said.starts_with(answer), "{user}: {question}: {said}");
        }
        let console = terminal.answer("mountinfo /dev/console");
        assert!(console.contains(" - devpts "), "{console}");
        c.delete(&["--force"]).ok();
    }
}

/// The container finds the mount of the config on the path of a default node, a link or a listed device.
#[test]
fn a_mount_on_the_path_of_a_device_stays() {
    for user in [false, true] {
        let mut c = bundle!();
        if user {
            c = c.in_user_namespace();
        }
        let file = c.path("file");
        fs::write(&file, "of the config").expect("write");
        let paths = [
            "/dev/random",
            "/dev/tty",
            "/dev/fd",
            "/dev/stdin",
            "/dev/core",
            "/dev/ptmx",
            "/dev/listed",
        ];
        let mount = |c: Bundle, path: &&str| c.mount("bind", &file, path, &["bind"]);
        let questions = paths.map(|path| format!("read {path}"));
        let c = paths
            .iter()
            .fold(c, mount)
            .push("/linux/devices", device("c", "/dev/listed", 1, 5))
            .asks(&questions.each_ref().map(String::as_str));
        let output = c.run().ok();
        for question in questions {
            assert_eq!(
                output.answer(&question),
                "of the config",
                "{user}: {question}"
            );
        }
    }
}

/// A mount on a place above covers what was mounted there.
#[test]
fn a_covered_mount_on_a_device_does_not_count() {
    let c = bundle!();
    let file = c.path("file");
    fs::write(&file, "of the config").expect("write");
    let mut c = c.asks(&["stat /dev/random"]);
    let entry =
        json!({"destination": "/dev/random", "type": "bind", "source": file, "options": ["bind"]});
    c.spec["mounts"]
        .as_array_mut()
        .expect("a list")
        .insert(1, entry);
    let answer = c.run().ok().answer("stat /dev/random");
    assert!(answer.starts_with("char 1:8"), "{answer}");
}

#[test]
fn a_bound_dev_of_the_host_stays_as_it_is() {
    let c = bundle!();
    fs::create_dir(c.path("dev")).expect("mkdir");
    fs::write(c.path("dev/ptmx"), "decoy").expect("write");
    fs::create_dir(c.path("dev/pts")).expect("mkdir");
    node(&c.path("dev/null"), libc::S_IFCHR, 1, 3);
    let source = c.path("dev");
    let mut c = c.set("/mounts", json!([]));
    c = c
        .mount("proc", "proc", "/proc", &[])
        .mount("bind", &source, "/dev", &["rbind", "rw"])
        .asks(&["ls /dev"]);
    assert_eq!(c.run().ok().answer("ls /dev"), "null,ptmx,pts");
    assert_eq!(
        fs::read_to_string(c.path("dev/ptmx")).expect("read"),
        "decoy"
    );
}

#[test]
fn a_denied_device_cannot_be_opened() {
    let c = bundle!()
        .push("/linux/devices", device("c", "/dev/loopy", 10, 237))
        .caps(EVERY_CAPABILITY)
        .asks(&["open /dev/loopy r", "open /dev/null r"]);
    let output = c.run().ok();
    assert_eq!(output.answer("open /dev/loopy r"), "EPERM");
    assert_eq!(output.answer("open /dev/null r"), "ok");
}

#[test]
fn an_allowed_device_can_be_opened() {
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"});
    let c = bundle!()
        .push("/linux/resources/devices", rule)
        .push("/linux/devices", device("c", "/dev/kmsg", 1, 11))
        .caps(&["CAP_SYSLOG", "CAP_DAC_OVERRIDE"])
        .asks(&["open /dev/kmsg r", "open /dev/kmsg w", "open /dev/kmsg rw"]);
    let output = c.run().ok();
    assert_ne!(output.answer("open /dev/kmsg r"), "EPERM");
    assert_eq!(output.answer("open /dev/kmsg w"), "EPERM");
    assert_eq!(output.answer("open /dev/kmsg rw"), "EPERM");
}

#[test]
fn later_device_rules_override_earlier_ones() {
    let rule = |allow: bool, major: Value, minor: Value| json!({"allow": allow, "type": "c", "major": major, "minor": minor, "access": "rwm"});
    let c = bundle!()
        .push(
            "/linux/resources/devices",
            rule(true, json!(10), Value::Null),
        )
        .push(
            "/linux/resources/devices",
            rule(false, json!(10), json!(237)),
        )
        .push("/linux/devices", device("c", "/dev/loopy", 10, 237))
        .push("/linux/devices", device("c", "/dev/other", 10, 254))
        .caps(&["CAP_DAC_OVERRIDE"])
        .asks(&["open /dev/loopy r", "open /dev/other r"]);
    let output = c.run().ok();
    assert_eq!(output.answer("open /dev/loopy r"), "EPERM");
    // There need not be such a device; but it may be asked for.
    assert_ne!(output.answer("open /dev/other r"), "EPERM");
}

#[test]
fn nodes_can_be_made_but_not_opened() {
    let c = bundle!().caps(EVERY_CAPABILITY).asks(&[
        "mknod /dev/n c 10 237",
        "open /dev/n r",
        "mknod /dev/z c 1 5",
        "open /dev/z r",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("mknod /dev/n c 10 237"), "ok");
    assert_eq!(output.answer("open /dev/n r"), "EPERM");
    assert_eq!(output.answer("open /dev/z r"), "ok");
}

#[test]
fn without_rules_only_the_usual_devices_are_allowed() {
    let c = bundle!()
        .remove("/linux/resources")
        .push("/linux/devices", device("c", "/dev/loopy", 10, 237))
        .asks(&["open /dev/null rw", "stat /dev/loopy"]);
    assert_eq!(c.run().ok().answer("open /dev/null rw"), "ok");
}

#[test]
fn a_list_that_allows_everything() {
    let c = bundle!()
        .set(
            "/linux/resources/devices",
            json!([{"allow": true, "access": "rwm"}]),
        )
        .push("/linux/devices", device("c", "/dev/kmsg", 1, 11))
        .caps(&["CAP_SYSLOG", "CAP_DAC_OVERRIDE"])
        .asks(&["open /dev/kmsg r"]);
    assert_ne!(c.run().ok().answer("open /dev/kmsg r"), "EPERM");
}

#[test]
fn unknown_access_letters_are_refused() {
    let mut c = bundle!();
    let cases = [
        json!({"allow": true, "type": "c", "major": 1, "minor": 1, "access": "x"}),
        json!({"allow": true, "type": "q", "major": 1, "minor": 1, "access": "r"}),
    ];
    for rule in cases {
        c = c.set("/linux/resources/devices", json!([rule]));
        c.create().fails_naming("linux.resources.devices");
        c.assert_gone();
    }
}

#[test]
fn a_hook_inside_the_container_is_under_its_rules() {
    let c = bundle!();
    let (out, loopy) = (c.path("out"), c.path("loopy"));
    node(&loopy, libc::S_IFCHR, 10, 237);
    let script = format!("(: <{loopy}) 2>{out}");
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    let c = c.push("/hooks/createContainer", hook).asks(&["exit 0"]);
    c.run();
    let said = fs::read_to_string(out).expect("read");
    assert!(said.contains("Operation not permitted"), "{said:?}");
}

/// A loop device with an ext4; detached on drop.
struct Disk {
    device: String,
}

impl Disk {
    fn new(image: &str) -> Option<Disk> {
        let said = |words: &[&str]| Command::new(words[0]).args(&words[1..]).output().ok();
        said(&["truncate", "-s", "4M", image])?;
        said(&["mkfs.ext4", "-q", image]).filter(|output| output.status.success())?;
        let output = said(&["losetup", "--find", "--show", image])?;
        let device = String::from_utf8_lossy(&output.stdout).trim().to_string();
        output.status.success().then_some(Disk { device })
    }

    fn minor(&self) -> u32 {
        let number = self.device.trim_start_matches("/dev/loop");
        number.parse().expect("a number")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

/// The mounts are made before the rules hold; hooks that run in the container, and its program, come after.
#[test]
fn a_filesystem_on_a_denied_device_is_mounted() {
    let mut c = bundle!();
    let disk = Disk::new(&c.path("image"));
    needs!(disk.is_some(), "no loop device, or no mkfs.ext4");
    let disk = disk.expect("a disk");
    let (own, out) = (c.path("own"), c.path("out"));
    node(&own, libc::S_IFBLK, 7, disk.minor());
    let script = format!("(: <{own}) 2>{out} || true");
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script]});
    c = c
        .mount("ext4", &own, "/disk", &[])
        .push("/linux/devices", device("b", "/dev/disk", 7, disk.minor()))
        .caps(EVERY_CAPABILITY)
        .asks(&[
            "mountinfo /disk",
            "open /dev/disk r",
            "write /disk/x y",
            "open /dev/null r",
        ]);
    for hooks in [
        json!({}),
        json!({"createContainer": [hook]}),
        json!({"createRuntime": [{"path": "/bin/true"}]}),
    ] {
        let _ = fs::remove_file(&out);
        c = c.set("/hooks", hooks);
        let output = c.run().ok();
        let line = output.answer("mountinfo /disk");
        assert!(line.contains(" - ext4 "), "{line}");
        assert_eq!(output.answer("open /dev/disk r"), "EPERM");
        assert_eq!(output.answer("write /disk/x y"), "ok");
        assert_eq!(output.answer("open /dev/null r"), "ok");
        if c.spec["hooks"]["createContainer"].is_array() {
            let said = fs::read_to_string(&out).expect("read");
            assert!(said.contains("Operation not permitted"), "{said:?}");
        }
    }
}
