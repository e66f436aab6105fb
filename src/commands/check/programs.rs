//! `check`, what is not the kernel: the directory of records, systemd and its buses, programs that are called.
//!
//! Run by the parent. Connects to a bus and hangs up; must not make the directory, nor ask a bus for anything.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::anyhow;
use nix::sys::socket::SockType;
use nix::unistd::{AccessFlags, eaccess};

use super::users::Caller;
use super::{Finding, has_systemd};
use crate::programs::output;
use crate::state::root_dir;
use crate::state::store::Store;
use crate::sys::wait;

pub fn findings(caller: &Caller, store: &Store) -> Vec<Finding> {
    let mut found = vec![states(caller, store.root())];
    found.push(systemd());
    found.push(system_bus());
    if caller.uid != 0 {
        found.push(user_bus(caller));
    }
    found.push(ps());
    found.push(criu());
    found
}

/// Where records are kept; the part of the path that is missing is made by the first container.
fn states(caller: &Caller, root: &Path) -> Finding {
    let name = "state directory";
    let there = root.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("/"));
    let allowed = eaccess(there, AccessFlags::W_OK | AccessFlags::X_OK);
    let refused = match allowed {
        Ok(()) => root_dir::check(root).map(drop),
        Err(errno) => Err(anyhow!("{}: {}", there.display(), errno.desc())),
    };
    let finding = match refused {
        Ok(()) => Finding::ok(name, root.display().to_string()),
        Err(error) => Finding::missing(name, error.to_string()).fix(match caller.uid {
            0 => "use --root DIR".to_string(),
            uid => format!(
                "set XDG_RUNTIME_DIR=/run/user/{uid} where that is there, or use --root DIR"
            ),
        }),
    };
    finding.needed()
}

fn systemd() -> Finding {
    match has_systemd() {
        true => Finding::ok("systemd", "runs this host"),
        false => Finding::missing(
            "systemd",
            "does not run this host; cgroups are made without it",
        ),
    }
}

fn system_bus() -> Finding {
    let name = "system bus";
    let path = Path::new("/run/dbus/system_bus_socket");
    match wait::connect(path, SockType::Stream) {
        Ok(_) => Finding::ok(name, format!("answers at {}", path.display())),
        Err(error) => Finding::missing(name, format!("{error:#}"))
            .fix("for the systemd cgroup driver: apt-get install dbus, systemctl start dbus"),
    }
}

/// Without root the systemd driver talks to the systemd of the user's session.
fn user_bus(caller: &Caller) -> Finding {
    let name = "user bus";
    let path = address(caller.uid);
    match wait::connect(&path, SockType::Stream) {
        Ok(_) => Finding::ok(name, format!("answers at {}", path.display())),
        Err(error) => Finding::missing(name, format!("{error:#}")).fix(format!(
            "for the systemd cgroup driver: loginctl enable-linger {}, log in anew, and set XDG_RUNTIME_DIR=/run/user/{}",
            caller.name, caller.uid
        )),
    }
}

/// sd-bus looks at the address, then at the runtime directory.
fn address(uid: u32) -> PathBuf {
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let named = address.strip_prefix("unix:path=");
    if let Some(path) = named.and_then(|path| path.split([',', ';']).next()) {
        return PathBuf::from(path);
    }
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime_dir = runtime_dir.unwrap_or_else(|| format!("/run/user/{uid}").into());
    runtime_dir.join("bus")
}

fn ps() -> Finding {
    match find("ps") {
        Some(path) => Finding::ok("ps", path.display().to_string()),
        None => Finding::limited("ps", "not installed; `cofferdam ps` has --format json only")
            .fix("apt-get install procps"),
    }
}

fn criu() -> Finding {
    let name = "criu";
    let Some(path) = find(name) else {
        return Finding::missing(name, "not installed; checkpoints need it")
            .fix("apt-get install criu");
    };
    let output = output::output(Command::new(&path).arg("--version"));
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = text.as_deref().unwrap_or_default().lines().next();
    match version.and_then(|line| line.strip_prefix("Version: ")) {
        Some(version) => Finding::ok(name, format!("{version}, {}", path.display())),
        None => Finding::limited(
            name,
            format!("{} does not tell its version", path.display()),
        ),
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    let mut places = std::env::split_paths(&path).map(|place| place.join(program));
    places.find(|path| {
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}
