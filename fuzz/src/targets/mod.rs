//! The fuzz targets: a function for each format that others write. Each takes any bytes. It panics where the program
//! panics, or where an answer contradicts a simpler model.
//! fuzz_targets has a program for each; tests/corpus.rs of the library replays the corpus.

pub mod cbpf;
pub mod config;
pub mod devices;
pub mod files;
pub mod lookups;
pub mod seccomp;
pub mod words;

use std::path::PathBuf;

use cofferdam::host::{Hierarchy, Host};
use cofferdam::plan::Flags;

/// Root with an own systemd, root of a user namespace, and an ordinary user.
fn callers() -> [(Host, Flags); 3] {
    let host = |euid, in_user_namespace, capabilities| Host {
        euid,
        egid: euid,
        in_user_namespace,
        denies_setgroups: euid != 0,
        capabilities,
        cgroup: Hierarchy {
            mount: PathBuf::from("/sys/fs/cgroup"),
            own: PathBuf::from("/user.slice/user-1000.slice/user@1000.service/app.slice"),
        },
    };
    let flags = |systemd_cgroup| Flags {
        id: "c".to_string(),
        systemd_cgroup,
        ..Flags::default()
    };
    [
        (host(0, false, u64::MAX), flags(true)),
        (host(0, true, u64::MAX), flags(false)),
        (host(1000, false, 0), flags(false)),
    ]
}

/// What is printed has only what a terminal shows.
fn assert_printable(text: &str) {
    let steers = |c: char| c != '\n' && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
    assert!(!text.contains(steers), "{text:?}");
}
