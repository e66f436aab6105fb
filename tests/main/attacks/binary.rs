//! T21: a watcher inside keeps a descriptor of the runtime's program, and makes it writable by whatever its capabilities allow.
//! CVE-2019-5736 by way of a mount whose read-only flag is taken off.

use super::joining::own_program;
use super::post::World;
use crate::support::{Bundle, Call};
use serde_json::json;
use std::fs;

/// How often each command runs beside the watcher.
fn times() -> usize {
    match std::env::var_os("COFFERDAM_TORTURE") {
        Some(_) => 2000,
        None => 50,
    }
}

/// The two ways to enough rights: CAP_SYS_ADMIN, and CAP_SYS_PTRACE with a user namespace of the watcher's own.
const WATCHERS: [&[&str]; 3] = [
    &["CAP_SYS_ADMIN"],
    &["CAP_SYS_PTRACE"],
    &[
        "CAP_SYS_ADMIN",
        "CAP_SYS_PTRACE",
        "CAP_DAC_OVERRIDE",
        "CAP_SYS_CHROOT",
    ],
];

fn assert_never_writable(join: impl Fn(&Bundle, &dyn Fn(&[&str]) -> Call)) {
    for caps in WATCHERS {
        let c = bundle!().caps(caps).folder("more").asks(&["hunt"]);
        let program = own_program(&c);
        let mut world = World::new(&c);
        let call = |args: &[&str]| c.call(args).program(&program);
        let create = c.call_new("create", &[]).program(&program).finish().ok();
        call(&["start", &c.id]).finish().ok();
        create.wait_for("prowling");
        join(&c, &call);
        fs::write(c.rootfs().join("stop"), "").expect("write");
        create.wait_for("hunt => ");
        let answer = create.answer("hunt");
        println!("{caps:?}: {answer}");
        assert!(
            !answer.contains("program overwritten"),
            "{caps:?}: {answer}"
        );
        world.assert_after(&c, &answer);
    }
}

#[test]
fn t21_exec_leaves_no_writable_program() {
    assert_never_writable(|c, call| {
        for _ in 0..times() {
            call(&["exec", &c.id, "/payload", "exit", "0"])
                .finish()
                .ok();
        }
    });
}

#[test]
fn t21_create_in_the_same_pid_namespace_leaves_no_writable_program() {
    assert_never_writable(|c, _| {
        let path = format!("/proc/{}/ns/pid", c.pid());
        let pid = json!({"type": "pid", "path": path});
        let other = Bundle::new("t21::neighbour")
            .asks(&["exit 0"])
            .without("/linux/namespaces", "type", "pid")
            .push("/linux/namespaces", pid);
        let program = own_program(c);
        for _ in 0..times() {
            other
                .call_new("create", &[])
                .program(&program)
                .finish()
                .ok();
            other.delete(&["--force"]).ok();
        }
    });
}

#[test]
fn t21_mounts_add_leaves_no_writable_program() {
    assert_never_writable(|c, call| {
        for _ in 0..times() {
            let add = ["mounts", "add", &c.id, "/more", "--type", "proc"];
            call(&add).finish().ok();
            call(&["mounts", "remove", &c.id, "/more"]).finish().ok();
        }
        // On Linux 6.18 nobody comes by for that.
        for _ in 0..20 {
            call(&["exec", &c.id, "/payload", "exit", "0"])
                .finish()
                .ok();
        }
    });
}

/// The file that a created container runs from, seen from the host: no flag that can be cleared protects it.
#[test]
fn t21_the_program_of_a_created_container_is_on_a_read_only_superblock_or_sealed() {
    let c = bundle!().asks(&["pause"]);
    let program = own_program(&c);
    c.call_new("create", &[]).program(&program).finish().ok();
    let exe = format!("/proc/{}/exe", c.pid());
    let target = fs::read_link(&exe).expect("a link").display().to_string();
    let opened = fs::File::options().write(true).open(&exe);
    let errno = opened.expect_err("open it for writing").raw_os_error();
    match target.starts_with("/memfd:") {
        true => assert_eq!(errno, Some(libc::EPERM), "{target}"),
        false => assert_eq!(errno, Some(libc::EROFS), "{target}"),
    }
}
