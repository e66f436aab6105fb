//! `spec`: a config.json to start from.
//!
//! Run by the parent without a container. Writes one new file, and never over one that exists.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, bail};
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use super::features::SPEC_VERSION;
use crate::flags;
use crate::sys;

pub fn run(args: &flags::Spec) -> Result<()> {
    let ids = (geteuid().as_raw(), getegid().as_raw());
    let text = text(&default_spec(args.rootless, ids));
    let path = args.bundle.join("config.json");
    let path = path.strip_prefix(".").unwrap_or(&path);
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            let written = file.write_all(text.as_bytes());
            sys::io(written).with_context(|| format!("write {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} exists; remove it, or choose another --bundle",
                path.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("create {}", path.display())),
    }
}

/// What one changes first comes first.
fn text(spec: &Value) -> String {
    let field = |name: &str| {
        let value = format!("{:#}", spec[name]).replace('\n', "\n  ");
        format!("  {name:?}: {value}")
    };
    let fields = [
        "ociVersion",
        "process",
        "root",
        "hostname",
        "mounts",
        "linux",
    ];
    format!("{{\n{}\n}}\n", fields.map(field).join(",\n"))
}

/// A shell on the terminal, apart from the host in all but users; `ids` are the caller's uid and gid.
pub fn default_spec(rootless: bool, ids: (u32, u32)) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": SPEC_VERSION,
        "root": {"path": "rootfs", "readonly": true},
        "mounts": mounts(rootless),
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "hostname": "cofferdam",
        "linux": if rootless { rootless_linux(ids) } else { linux() },
    })
}

fn linux() -> Value {
    let deny_all = json!({"allow": false, "access": "rwm"});
    json!({
        "resources": {"devices": [deny_all]},
        "namespaces": namespaces(&["pid", "network", "ipc", "uts", "mount", "cgroup"]),
        "maskedPaths": masked_paths(),
        "readonlyPaths": readonly_paths(),
    })
}

/// One who is not root may map only the own ids, and set no limits before cgroups are delegated.
fn rootless_linux((uid, gid): (u32, u32)) -> Value {
    json!({
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
        "namespaces": namespaces(&["pid", "ipc", "uts", "mount", "cgroup", "user"]),
        "maskedPaths": masked_paths(),
        "readonlyPaths": readonly_paths(),
    })
}

fn namespaces(kinds: &[&str]) -> Vec<Value> {
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

fn mounts(rootless: bool) -> Value {
    json!([
        mount("proc", "proc", "/proc", ""),
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            "nosuid strictatime mode=755 size=65536k"
        ),
        devpts(rootless),
        mount(
            "tmpfs",
            "shm",
            "/dev/shm",
            "nosuid noexec nodev mode=1777 size=65536k"
        ),
        mount("mqueue", "mqueue", "/dev/mqueue", "nosuid noexec nodev"),
        sys(rootless),
        mount(
            "cgroup",
            "cgroup",
            "/sys/fs/cgroup",
            "nosuid noexec nodev relatime ro"
        ),
    ])
}

/// The group tty, 5, has no id in a user namespace of one user.
fn devpts(rootless: bool) -> Value {
    let group = if rootless { "" } else { " gid=5" };
    let options = format!("nosuid noexec newinstance ptmxmode=0666 mode=0620{group}");
    mount("devpts", "devpts", "/dev/pts", &options)
}

/// The kernel gives a new sysfs only to those who own the network namespace.
fn sys(rootless: bool) -> Value {
    match rootless {
        true => mount("none", "/sys", "/sys", "rbind nosuid noexec nodev ro"),
        false => mount("sysfs", "sysfs", "/sys", "nosuid noexec nodev ro"),
    }
}

fn mount(kind: &str, source: &str, destination: &str, options: &str) -> Value {
    let mut mount = json!({"destination": destination, "type": kind, "source": source});
    if !options.is_empty() {
        mount["options"] = options.split(' ').collect();
    }
    mount
}

fn masked_paths() -> Value {
    json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
    ])
}

fn readonly_paths() -> Value {
    json!([
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_the_spec_says() {
        for rootless in [false, true] {
            let spec = default_spec(rootless, (1000, 100));
            let text = text(&spec);
            assert_eq!(
                serde_json::from_str::<Value>(&text).unwrap(),
                spec,
                "{text}"
            );
            serde_json::from_str::<oci_spec::runtime::Spec>(&text).unwrap();
            assert!(
                text.contains("\n  \"root\": {\n    \"path\": \"rootfs\",\n"),
                "{text}"
            );
            assert!(text.find("\"process\"") < text.find("\"linux\""));
        }
    }

    #[test]
    fn without_root_the_caller_is_root_inside() {
        let spec = default_spec(true, (1000, 100));
        let mapping = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
        assert_eq!(spec["linux"]["uidMappings"], mapping(1000));
        assert_eq!(spec["linux"]["gidMappings"], mapping(100));
        let kinds = spec["linux"]["namespaces"].to_string();
        assert!(kinds.contains("user") && !kinds.contains("network"));
        assert_eq!(spec["linux"].get("resources"), None);
        assert!(!spec["mounts"].to_string().contains("gid="));
        assert_eq!(spec["mounts"][5]["type"], "none");
    }

    #[test]
    fn no_capability_outlives_a_change_of_user() {
        let spec = default_spec(false, (0, 0));
        let sets = spec["process"]["capabilities"].as_object().unwrap();
        let names: Vec<&String> = sets.keys().collect();
        assert_eq!(names, ["bounding", "effective", "permitted"]);
    }

    #[test]
    fn an_existing_file_stays() {
        let bundle = std::env::temp_dir().join(format!("cofferdam-spec-{}", std::process::id()));
        std::fs::create_dir(&bundle).unwrap();
        let args = flags::Spec {
            bundle: bundle.clone(),
            ..Default::default()
        };
        run(&args).unwrap();
        let before = std::fs::read(bundle.join("config.json")).unwrap();
        let error = format!("{:#}", run(&args).unwrap_err());
        assert!(error.contains("config.json exists"), "{error}");
        assert_eq!(std::fs::read(bundle.join("config.json")).unwrap(), before);
        std::fs::remove_dir_all(bundle).unwrap();
    }
}
