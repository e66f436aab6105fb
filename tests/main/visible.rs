//! What others see while a container is made: no mount without all of its flags, and nothing that a config names is
//! waited for, followed or believed because of what it is: FIFOs and ends of processes in the place of namespaces,
//! user databases and devices that the payload has made.

use crate::support::{Bundle, Output, in_time, node, wait_until};
use serde_json::json;
use std::ffi::CString;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The file system at a path, and the flags of its mount, in one answer.
fn look(path: &CString) -> Option<(u64, u64)> {
    // SAFETY: plain integers, for which zero is a value.
    let mut seen: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string; the structure outlives the call.
    let result = unsafe { libc::statvfs(path.as_ptr(), &raw mut seen) };
    (result == 0).then_some((seen.f_fsid, seen.f_flag))
}

/// Looks there as often as it can while the work lasts: which flags the mounts had that were seen.
fn seen_while(path: &str, work: impl FnOnce()) -> Vec<u64> {
    let (path, done) = (CString::new(path).expect("a path"), AtomicBool::new(false));
    let before = look(&path).expect("a directory").0;
    std::thread::scope(|threads| {
        let watch = threads.spawn(|| {
            let mut flags = vec![];
            while !done.load(Ordering::Relaxed) {
                match look(&path) {
                    Some((id, flag)) if id != before && !flags.contains(&flag) => flags.push(flag),
                    _ => {}
                }
            }
            flags
        });
        work();
        done.store(true, Ordering::Relaxed);
        watch.join().expect("flags")
    })
}

#[test]
fn no_mount_is_seen_without_its_flags() {
    let c = bundle!().folder("/mnt").with_tmpfs("source", 0);
    let source = c.path("source");
    let options = ["ro", "nosuid", "nodev", "noexec"];
    let bind = [&["bind"][..], &options].concat();
    let c = c
        .without("/linux/namespaces", "type", "mount")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .set("/mounts", json!([]))
        .asks(&["pause"]);
    let few = libc::ST_NOSUID | libc::ST_NODEV | libc::ST_NOEXEC;
    let all = few | libc::ST_RDONLY;
    let mut c = c;
    // A new file system gets the places of what is mounted in it before it becomes read-only.
    for (kind, options, all) in [("bind", &bind[..], all), ("tmpfs", &options, few)] {
        c = c.set("/mounts", json!([]));
        c = c.mount(kind, &source, "/mnt", options);
        let flags = seen_while(&c.path("rootfs/mnt"), || {
            for _ in 0..5 {
                c.create().ok();
                c.delete(&["--force"]).ok();
            }
        });
        assert!(!flags.is_empty(), "the {kind} was never seen");
        let lacks = |flags: &&u64| *flags & all != all;
        let lacking: Vec<_> = flags.iter().filter(lacks).collect();
        assert!(lacking.is_empty(), "{kind}: seen with {lacking:x?}");
    }
}

/// Ends soon, as an error.
fn refused(c: &Bundle) -> Output {
    let output = in_time(Duration::from_secs(3), || c.create()).fails();
    c.assert_gone();
    output
}

#[test]
fn what_is_no_namespace_keeps_nobody_waiting_and_is_joined_by_nobody() {
    let other = bundle!().asks(&["pause"]);
    other.up();
    let dead = format!("/proc/{}/ns/net", other.pid());
    other.delete(&["--force"]).ok();
    let c = bundle!();
    node(&c.path("fifo"), libc::S_IFIFO, 0, 0);
    std::os::unix::fs::symlink("/proc/self/ns/uts", c.path("link")).expect("symlink");
    let paths = [
        c.path("fifo"),
        c.path("link"),
        c.path("rootfs"),
        dead,
        "/dev/zero".into(),
    ];
    for (kind, field) in [
        ("network", "net"),
        ("user", "user"),
        ("mount", "mnt"),
        ("pid", "pid"),
    ] {
        for path in &paths {
            let mut c = Bundle::new("joining");
            if kind != "user" {
                c = c.without("/linux/namespaces", "type", kind);
            }
            let c = c.push("/linux/namespaces", json!({"type": kind, "path": path}));
            let output = refused(&c);
            assert!(
                !output.stderr().contains("panic"),
                "{field}: {}",
                output.describe()
            );
        }
    }
}

/// It comes from a user who owns nothing of the rest.
#[test]
fn a_user_namespace_of_another_user_gives_no_rights() {
    let c = bundle!();
    let owner = std::process::Command::new("setpriv")
        .args(["--reuid", "4242", "--regid", "4242", "--clear-groups"])
        .args(["unshare", "--user", "sleep", "100"])
        .spawn();
    let mut owner = owner.expect("run unshare");
    let path = format!("/proc/{}/ns/user", owner.id());
    let own = fs::read_link("/proc/self/ns/user").expect("a link");
    wait_until("it has its namespace", || {
        fs::read_link(&path).is_ok_and(|link| link != own)
    });
    let c = c.push("/linux/namespaces", json!({"type": "user", "path": path}));
    // Nobody is mapped there: no id of the container exists.
    refused(&c);
    owner.kill().expect("kill");
    owner.wait().expect("wait");
}

fn exec(c: &Bundle, args: &[&str]) -> Output {
    let all = [&["exec"][..], args].concat();
    in_time(Duration::from_secs(3), || c.call(&all).finish())
}

#[test]
fn what_the_payload_makes_of_its_files_keeps_no_exec_waiting() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    for name in ["passwd", "group"] {
        let path = c.path(&format!("rootfs/etc/{name}"));
        let huge = fs::File::create(&path).expect("create");
        huge.set_len(4 << 30).expect("grow");
        exec(&c, &["--user", "7:8", &c.id, "/payload", "exit", "3"]).exits(3);
        exec(&c, &["--user", "ann", &c.id, "/payload", "exit", "3"]).fails();
        fs::remove_file(&path).expect("remove");
        node(&path, libc::S_IFIFO, 0, 0);
        exec(&c, &["--user", "7:8", &c.id, "/payload", "exit", "3"]).exits(3);
        exec(&c, &["--user", "ann", &c.id, "/payload", "exit", "3"]).fails();
        fs::remove_file(&path).expect("remove");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("symlink");
        exec(&c, &["--user", "7:8", &c.id, "/payload", "exit", "3"]).exits(3);
        exec(&c, &["--user", "ann", &c.id, "/payload", "exit", "3"]).fails();
        fs::remove_file(&path).expect("remove");
    }
}

#[test]
fn a_container_that_has_covered_its_own_files_can_still_be_joined() {
    let c = bundle!()
        .caps(&["CAP_SYS_ADMIN", "CAP_MKNOD"])
        .folder("/new")
        .asks(&[
            "rm /dev/null",
            "mknod /dev/null p",
            "mount tmpfs /proc 0",
            "mount tmpfs /sys 0",
            "mount tmpfs /etc 0",
            "write /ready yes",
            "pause",
        ]);
    let c = c
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    c.up();
    wait_until("it has covered them", || c.rootfs().join("ready").exists());
    exec(&c, &[&c.id, "/payload", "exit", "3"]).exits(3);
    exec(&c, &["--detach", &c.id, "/payload", "exit", "0"]);
    assert_eq!(c.status(), "running");
}
