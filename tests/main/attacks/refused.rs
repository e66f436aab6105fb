//! The attacks once more, each with one call refused to the runtime, as by an old kernel or a sandbox: what it cannot do as
//! usual it does not do in a weaker way. A command may fail, in good order; no attack may come of it, and nothing may be left.

use crate::support::refused::{LOG, REFUSED};
use crate::support::{SEED, seed};
use std::fs;
use std::process::Command;

/// What a kernel or a sandbox may lack.
const CALLS: [(&str, i64); 23] = [
    ("bpf", libc::SYS_bpf),
    ("clone3", libc::SYS_clone3),
    ("close_range", libc::SYS_close_range),
    ("execveat", libc::SYS_execveat),
    ("fchmodat2", libc::SYS_fchmodat2),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("fsopen", libc::SYS_fsopen),
    ("fspick", libc::SYS_fspick),
    ("getrandom", libc::SYS_getrandom),
    ("keyctl", libc::SYS_keyctl),
    ("memfd_create", libc::SYS_memfd_create),
    ("mknodat", libc::SYS_mknodat),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("openat2", libc::SYS_openat2),
    ("pidfd_getfd", libc::SYS_pidfd_getfd),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("seccomp", libc::SYS_seccomp),
    ("statx", libc::SYS_statx),
    ("unshare", libc::SYS_unshare),
];

/// An old kernel's, and a sandbox's.
const ERRORS: [i32; 2] = [libc::ENOSYS, libc::EPERM];

/// Links, devices and false files, in places that these calls are there for.
const SOME: [&str; 3] = [
    "attacks::links::t16",
    "attacks::nodes::t13_i",
    "attacks::proc::t05_a_sysctl",
];

#[test]
fn what_is_refused_makes_no_attack_work() {
    drop(bundle!());
    if std::env::var_os(REFUSED).is_some() {
        return;
    }
    // Another one with each run.
    let turn = seed() as usize;
    let errno = ERRORS[turn / CALLS.len() % 2];
    let (name, number) = CALLS[turn % CALLS.len()];
    if std::env::var_os("COFFERDAM_TORTURE").is_none() {
        attacks_without(name, number, errno, &SOME);
        return attacks_without("openat2", libc::SYS_openat2, libc::ENOSYS, &SOME);
    }
    for (name, number) in CALLS {
        for errno in ERRORS {
            attacks_without(name, number, errno, &SOME);
        }
    }
    attacks_without(name, number, errno, &["attacks::"]);
}

/// In a process of its own, whose tests note what has ended them early.
fn attacks_without(name: &str, number: i64, errno: i32, tests: &[&str]) {
    let dir = std::env::temp_dir().join(format!("cofferdam-refused-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("mkdir");
    let log = dir.join("log");
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(tests)
        .args(["--test-threads=2", "--skip", "attacks::refused"])
        .env(REFUSED, format!("{number} {errno}"))
        .env(LOG, &log)
        .env(SEED, seed().to_string())
        .env("TMPDIR", &dir)
        .env("RUST_BACKTRACE", "0")
        .env_remove("COFFERDAM_TORTURE")
        .output()
        .expect("run the tests");
    let notes = fs::read_to_string(&log).unwrap_or_default();
    fs::remove_dir_all(&dir).expect("remove");
    let said = String::from_utf8_lossy(&output.stdout);
    judge(&format!("without {name}, errno {errno}"), &said, &notes);
}

fn judge(what: &str, said: &str, notes: &str) {
    let tests = || said.lines().filter_map(|line| line.strip_prefix("test "));
    let ended = |name: &str| {
        notes
            .lines()
            .any(|line| line.starts_with(&format!("ended {name} ")))
    };
    let failed = tests().filter_map(|line| line.strip_suffix(" ... FAILED"));
    let worked: Vec<&str> = failed.filter(|name| !ended(name)).collect();
    assert!(worked.is_empty(), "{what}: {worked:?} fail: {said}");
    let left: Vec<&str> = notes
        .lines()
        .filter(|line| line.starts_with("left "))
        .collect();
    assert!(left.is_empty(), "{what}: {left:?}");
    let results = tests().filter(|line| line.contains(" ... ")).count();
    let early = notes
        .lines()
        .filter(|line| line.starts_with("ended "))
        .count();
    println!("{what}: {results} attacks, {early} of them ended by an error");
    assert!(results > 5, "{what}: {said}");
}

/// One that sees nothing would pass as well.
#[test]
fn an_attack_that_works_is_seen() {
    let ok = "test a::b ... ok\n".repeat(6);
    judge("all well", &ok, "");
    judge(
        "an error",
        &format!("{ok}test a::c ... FAILED\n"),
        "ended a::c openat2\n",
    );
    for (said, notes) in [
        ("test a::c ... FAILED\n", ""),
        ("test a::c ... FAILED\n", "ended a::cd openat2\n"),
        ("", "left a::c outside\n"),
    ] {
        let judged = std::panic::catch_unwind(|| judge("one", &format!("{ok}{said}"), notes));
        assert!(judged.is_err(), "{said}{notes}");
    }
}
