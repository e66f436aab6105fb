//! A kernel, or a sandbox around the runtime, without one of the newer calls: a command works as it would elsewhere, or fails
//! at once and says from which Linux on there is that call. What a call would have shown is never taken for granted.

use crate::support::{Bundle, Output, node};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// The calls, and the first kernels that have them, by their man pages.
const NEWER: [(&str, i64, &str); 18] = [
    ("clone3", libc::SYS_clone3, "5.3"),
    ("close_range", libc::SYS_close_range, "5.9"),
    ("execveat", libc::SYS_execveat, "3.19"),
    ("fsconfig", libc::SYS_fsconfig, "5.2"),
    ("fsmount", libc::SYS_fsmount, "5.2"),
    ("fsopen", libc::SYS_fsopen, "5.2"),
    ("fspick", libc::SYS_fspick, "5.2"),
    ("getrandom", libc::SYS_getrandom, "3.17"),
    ("memfd_create", libc::SYS_memfd_create, "3.17"),
    ("mount_setattr", libc::SYS_mount_setattr, "5.12"),
    ("move_mount", libc::SYS_move_mount, "5.2"),
    ("open_tree", libc::SYS_open_tree, "5.2"),
    ("openat2", libc::SYS_openat2, "5.6"),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, "5.6"),
    ("pidfd_open", libc::SYS_pidfd_open, "5.3"),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, "5.1"),
    ("seccomp", libc::SYS_seccomp, "3.17"),
    ("statx", libc::SYS_statx, "4.11"),
];

/// Without these no container is made.
const NEEDED: [&str; 13] = [
    "clone3",
    "close_range",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "openat2",
    "pidfd_open",
    "seccomp",
    "statx",
];

/// What takes all of these calls: a filter, a remount, a terminal's worth of mounts.
fn demanding(c: Bundle) -> Bundle {
    let allow = json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]});
    c.set("/linux/seccomp", allow)
        .mount("tmpfs", "tmpfs", "/t", &["size=64k"])
        .mount("tmpfs", "tmpfs", "/t", &["remount", "size=128k"])
}

/// Each verb, without that call of the kernel.
fn each_verb(number: i64, errno: i32, judge: impl Fn(&str, &Output)) {
    let short = demanding(Bundle::new("short").asks(&["exit 0"]));
    let c = demanding(Bundle::new("long").asks(&["pause"]));
    for (c, verb) in [(&short, "run"), (&c, "create")] {
        let call = c.call_new(verb, &[]);
        judge(verb, &call.without(number, errno).finish());
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
    c.create().ok();
    let (id, limits) = (c.id.as_str(), c.path("limits.json"));
    fs::write(&limits, "{}").expect("write");
    let verbs: [&[&str]; 13] = [
        &["start", id],
        &["state", id],
        &["list"],
        &["ps", id],
        &["exec", id, "/payload", "exit", "0"],
        &["pause", id],
        &["resume", id],
        &["update", "--resources", &limits, id],
        &["events", "--stats", id],
        &["mounts", "add", "-t", "tmpfs", id, "tmpfs", "/new"],
        &["mounts", "remove", id, "/new"],
        &["kill", id, "KILL"],
        &["delete", "--force", id],
    ];
    for words in verbs {
        let output = c.call(words).without(number, errno).finish();
        judge(words[0], &output);
        if output.code() != 0 {
            // For the next verb.
            c.call(words).finish().ok();
        }
    }
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn a_newer_call_that_is_missing_is_told_with_the_kernel_that_has_it() {
    drop(bundle!());
    for (name, number, version) in NEWER {
        let want = format!("{name} needs Linux {version}; ");
        each_verb(number, libc::ENOSYS, |verb, output| {
            let told = output.stderr().contains(&want);
            let fails = output.code() != 0;
            println!("{name} {verb}: {fails} {told}");
            assert_eq!(fails, told, "{name}: {}", output.describe());
            let needed = verb == "run" && NEEDED.contains(&name);
            assert!(!needed || fails, "{name}: {}", output.describe());
        });
    }
}

#[test]
fn a_newer_call_that_is_forbidden_is_named() {
    drop(bundle!());
    for (name, number, _) in NEWER {
        each_verb(number, libc::EPERM, |_, output| {
            let told = output.stderr().contains(name);
            assert_eq!(output.code() != 0, told, "{name}: {}", output.describe());
        });
    }
}

/// Whether a file is the image's own, to be changed, or the host's, statx(2) says.
#[test]
fn without_the_numbers_of_mounts_no_file_of_the_host_is_taken_for_one_of_the_image() {
    let c = bundle!().asks(&["exit 0"]);
    let source = c.path("source");
    fs::create_dir(&source).expect("mkdir");
    let there = c.path("source/null");
    node(&there, libc::S_IFCHR, 1, 3);
    let facts = || {
        let meta = fs::metadata(&there).expect("stat");
        (meta.uid(), meta.mode())
    };
    let before = facts();
    let device = json!({"path": "/data/null", "type": "c", "major": 1, "minor": 3, "uid": 7, "fileMode": 0o600});
    let c = c
        .mount("bind", &source, "/data", &["bind"])
        .set("/linux/devices", json!([device]));
    c.run().ok();
    assert_eq!(facts(), before, "with all calls");
    for errno in [libc::ENOSYS, libc::EPERM] {
        let call = c.call_new("run", &[]);
        let output = call.without(libc::SYS_statx, errno).finish();
        assert_eq!(facts(), before, "without statx");
        output.fails_naming("statx(");
    }
    c.assert_gone();
}
