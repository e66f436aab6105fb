//! T23: standard streams and masks that are nodes of the host. A test has a node of its own in the place of the host's.

use crate::support::{Bundle, Call};
use serde_json::json;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A null device of the test, on a filesystem of its own.
struct Node {
    path: PathBuf,
    before: String,
}

impl Node {
    fn new(c: &Bundle) -> Node {
        let path = c.dir.join("nodes").join("null");
        let name = CString::new(path.display().to_string()).expect("a path");
        let device = libc::makedev(1, 3);
        // SAFETY: the path is a C string.
        let made = unsafe { libc::mknod(name.as_ptr(), libc::S_IFCHR | 0o666, device) };
        assert_eq!(made, 0, "mknod {path:?}");
        // SAFETY: the same.
        unsafe { libc::chmod(name.as_ptr(), 0o666) };
        let before = facts(&path);
        Node { path, before }
    }

    /// Gives it to a command as all its streams.
    fn streams_of(&self, call: Call) -> Call {
        let file = || {
            File::options()
                .read(true)
                .write(true)
                .open(&self.path)
                .expect("open")
        };
        call.fd(file(), 0).fd(file(), 1).fd(file(), 2)
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(facts(&self.path), self.before, "{what}");
    }
}

fn facts(path: &PathBuf) -> String {
    let meta = fs::metadata(path).expect("stat");
    let time = (meta.mtime(), meta.mtime_nsec());
    format!("{:o} {} {} {time:?}", meta.mode(), meta.uid(), meta.gid())
}

/// Its output is the null device; what it says goes to a file.
fn changing(c: Bundle) -> Bundle {
    let commands = [
        "fchmod 0 0",
        "fchmod 1 0",
        "fchmod 2 0",
        "futimens 0",
        "futimens 1",
        "fchown 0 7",
        "fchown 2 7",
    ];
    let script = commands.join(" ; ");
    let words: Vec<&str> = script.split(' ').collect();
    c.set(
        "/process/args",
        json!([&["/payload"], &words[..], &[";", "write", "/done", "yes"]].concat()),
    )
}

fn ends(c: &Bundle) {
    crate::support::wait_until("the payload is done", || c.rootfs().join("done").exists());
    fs::remove_file(c.rootfs().join("done")).expect("remove");
}

#[test]
fn t23_a_container_does_not_hold_the_null_device_of_the_host() {
    for caps in [&[][..], &["CAP_CHOWN", "CAP_FOWNER"]] {
        let c = changing(bundle!().with_tmpfs("nodes", 0).caps(caps));
        let node = Node::new(&c);
        node.streams_of(c.call_new("run", &[])).finish();
        ends(&c);
        node.assert_untouched("run");
        node.streams_of(c.call_new("create", &[])).finish().ok();
        c.start().ok();
        ends(&c);
        node.assert_untouched("create and start");
        c.delete(&["--force"]).ok();
    }
}

#[test]
fn t23_a_process_that_joins_does_not_hold_the_null_device_of_the_host() {
    for c in [bundle!(), bundle!().in_user_namespace()] {
        let c = c
            .with_tmpfs("nodes", 0)
            .asks(&["pause"])
            .caps(&["CAP_CHOWN"]);
        let node = Node::new(&c);
        c.up();
        for command in [
            ["fchmod", "0", "0"],
            ["fchmod", "2", "0"],
            ["futimens", "1", ""],
            ["fchown", "0", "7"],
        ] {
            for detach in [false, true] {
                let flags: &[&str] = if detach { &["--detach"] } else { &[] };
                let args = [
                    &["exec"],
                    flags,
                    &[&c.id, "/payload"],
                    &command,
                    &[";", "write", "/tmp/done", "yes"],
                ]
                .concat();
                node.streams_of(c.call(&args)).finish().ok();
                let done = c.rootfs().join("tmp/done");
                crate::support::wait_until("the payload is done", || done.exists() || detach);
                fs::remove_file(done).ok();
                node.assert_untouched(&format!("{args:?}"));
            }
        }
    }
}

/// Also where /dev of the container is one of the host's, here a directory of the test.
#[test]
fn t23_a_container_with_a_dev_of_the_host_has_streams_of_its_own() {
    let c = bundle!().with_tmpfs("nodes", 0);
    let node = Node::new(&c);
    let dev = c.path("nodes");
    let c = changing(c)
        .without("/mounts", "destination", "/dev")
        .without("/mounts", "destination", "/dev/pts")
        .without("/mounts", "destination", "/dev/shm")
        .without("/mounts", "destination", "/dev/mqueue")
        .mount("bind", &dev, "/dev", &["bind", "ro"]);
    node.streams_of(c.call_new("run", &[])).finish();
    ends(&c);
    node.assert_untouched("run");
}

/// The streams work as those that they replace.
#[test]
fn t23_streams_of_its_own_read_and_write_as_the_hosts() {
    let questions = [
        "stdin",
        "read /proc/self/fd/0",
        "open /proc/self/fd/0 r",
        "stat /proc/self/fd/0",
    ];
    for uid in [0, 1000] {
        let c = bundle!()
            .asks(&questions)
            .set("/process/user", json!({"uid": uid, "gid": uid}));
        let output = c.run().ok();
        let answers = questions.map(|question| output.answer(question));
        assert_eq!(answers, ["ok:", "", "ok", "char 1:3 0666 0:0"], "{uid}");
    }
    let c = bundle!().asks(&["read-some /proc/self/fd/0"]);
    for (device, answer) in [("zero", "0000"), ("full", "0000")] {
        let file = File::open(format!("/dev/{device}")).expect("open");
        let output = c.call_new("run", &[]).fd(file, 0).finish().ok();
        assert_eq!(
            output.answer("read-some /proc/self/fd/0"),
            answer,
            "{device}"
        );
    }
}

/// CAP_SYS_ADMIN takes the read-only flag off a mask. The node below it must be the container's own, also where its /dev/null is none
/// that can be bound.
#[test]
fn t23_a_masked_file_is_not_the_null_device_of_the_host() {
    let nodes = bundle!().with_tmpfs("nodes", 0);
    Node::new(&nodes);
    let dev = nodes.path("nodes");
    let without_dev = |c: Bundle| {
        let below = ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"];
        let without = |c: Bundle, place| c.without("/mounts", "destination", place);
        below.into_iter().fold(c, without)
    };
    let zero = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 5});
    let cases = [
        bundle!(),
        bundle!().push("/linux/devices", zero),
        without_dev(bundle!()).mount("tmpfs", "tmpfs", "/dev", &["nosuid", "nodev", "mode=755"]),
        without_dev(bundle!()).mount("bind", &dev, "/dev", &["bind", "ro"]),
    ];
    let host = fs::metadata("/dev/null").expect("stat");
    let below = fs::metadata(format!("{dev}/null")).expect("stat");
    for (number, c) in cases.into_iter().enumerate() {
        let mode = "stat /proc/timer_list";
        let c = c.caps(&["CAP_SYS_ADMIN", "CAP_FOWNER"]).asks(&[
            "inode /proc/timer_list",
            "remount-rw /proc/timer_list",
            "chmod /proc/timer_list 438",
            mode,
            "read /proc/timer_list",
            "mounts",
        ]);
        let output = c.run().ok();
        let inode = output.answer("inode /proc/timer_list");
        for host in [&host, &below] {
            assert_ne!(inode, format!("{}:{}", host.dev(), host.ino()), "{number}");
        }
        assert_eq!(output.answer(mode), "char 1:3 0666 0:0", "{number}");
        assert_eq!(output.answer("read /proc/timer_list"), "", "{number}");
        // The tmpfs that the node was made on is gone.
        let places = output.answer("mounts");
        let roots = places.split(',').filter(|place| *place == "/").count();
        assert_eq!(roots, 1, "{number}: {places}");
    }
}
