//! What is fuzzed: a function for each kind of text that others write. It is given any bytes, and panics where the program
//! does, or where an answer contradicts a second, simpler way to it.
//! libFuzzer calls these (../src/main.rs); `cargo test` gives them what is kept in ../corpus.

pub mod cbpf;
pub mod config;
pub mod devices;
mod files;
pub mod seccomp;
#[cfg(test)]
mod tests;
mod words;

use std::path::PathBuf;

use crate::host::{Hierarchy, Host};
use crate::plan::Flags;

pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Whether its text is JSON.
    pub json: bool,
}

pub const TARGETS: [Target; 13] = [
    json("config", config::config),
    json("process", config::process),
    json("state", config::state),
    json("resources", config::resources),
    json("devices", devices::devices),
    json("seccomp", seccomp::seccomp),
    text("mounts", words::mounts),
    text("idmap", words::idmap),
    text("words", words::words),
    text("args", words::args),
    text("users", words::users),
    text("files", files::files),
    text("bus", files::bus),
];

const fn json(name: &'static str, run: fn(&[u8])) -> Target {
    Target {
        name,
        run,
        json: true,
    }
}

const fn text(name: &'static str, run: fn(&[u8])) -> Target {
    Target {
        name,
        run,
        json: false,
    }
}

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
