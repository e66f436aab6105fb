//! Makes configs: a base, and a few fields of the schema of the runtime specification changed. Most of them are valid.

mod linux;
mod mounts;
mod process;

use serde_json::{Value, json};

use crate::chance::Chance;

type Feature = fn(&mut Chance, &mut Value);

/// The changes that a config is made of. A feature that stands here twice is drawn twice as often.
const FEATURES: [Feature; 36] = [
    mounts::add,
    mounts::add,
    mounts::add,
    mounts::add,
    mounts::add,
    mounts::over_one_another,
    mounts::remove,
    mounts::root,
    mounts::propagation,
    process::user,
    process::user,
    process::groups,
    process::umask,
    process::environment,
    process::directory,
    process::arguments,
    process::capabilities,
    process::capabilities,
    process::limits,
    process::no_new_privileges,
    process::out_of_memory,
    process::hooks,
    process::hooks,
    process::annotations,
    linux::user_namespace,
    linux::user_namespace,
    linux::namespaces,
    linux::joined,
    linux::names,
    linux::devices,
    linux::devices,
    linux::device_rules,
    linux::masks,
    linux::sysctl,
    linux::seccomp,
    linux::kernel,
];

pub fn config(seed: u64, number: u64) -> Value {
    let mut chance = Chance::new(seed, number);
    let mut config = if chance.one_in(6) { bare() } else { usual() };
    for _ in 0..1 + chance.below(4) {
        chance.of(&FEATURES)(&mut chance, &mut config);
    }
    if chance.one_in(12) {
        absent(&mut chance, &mut config);
    }
    config
}

/// Returns the smallest config that all three run.
fn bare() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/probe"], "cwd": "/"},
        "root": {"path": "rootfs"},
        "mounts": [mount("/proc", "proc", "proc", &[])],
        "linux": {"cgroupsPath": "/c", "namespaces": [{"type": "mount"}, {"type": "pid"}]},
    })
}

/// Returns a small config of the kind that engines write.
fn usual() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let namespaces =
        ["pid", "network", "ipc", "uts", "mount", "cgroup"].map(|name| json!({"type": name}));
    let quiet = ["nosuid", "noexec", "nodev"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/probe"],
            "env": ["PATH=/bin:/", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs"},
        "hostname": "box",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &quiet),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
        ],
        "linux": {
            "cgroupsPath": "/c",
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn mount(place: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({"destination": place, "type": kind, "source": source, "options": options})
}

/// Removes an optional field, or sets it to null or to an empty value.
fn absent(chance: &mut Chance, config: &mut Value) {
    let pointers = [
        "/process/user",
        "/process/env",
        "/process/capabilities",
        "/process/rlimits",
        "/process/noNewPrivileges",
        "/hostname",
        "/mounts",
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/linux/resources",
        "/linux/devices",
        "/linux/seccomp",
        "/linux/sysctl",
        "/process/capabilities/effective",
        "/mounts/0/options",
        "/mounts/1/source",
        "/mounts/1/type",
        "/annotations",
        "/hooks",
        "/linux/uidMappings",
        "/process/user/additionalGids",
        "/root/readonly",
    ];
    let pointer = chance.of(&pointers);
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    let Some(Value::Object(fields)) = config.pointer_mut(parent) else {
        return;
    };
    match chance.below(3) {
        0 => drop(fields.remove(key)),
        1 => drop(fields.insert(key.into(), Value::Null)),
        _ => {
            let empty = match fields.get(key) {
                Some(Value::Array(_)) | None => json!([]),
                Some(Value::Object(_)) => json!({}),
                Some(Value::String(_)) => json!(""),
                Some(other) => other.clone(),
            };
            fields.insert(key.into(), empty);
        }
    }
}

/// Sets a value; objects on the way are made.
fn set(config: &mut Value, pointer: &str, value: Value) {
    let mut at = config;
    for key in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[key];
    }
    *at = value;
}

fn push(config: &mut Value, pointer: &str, value: Value) {
    if config.pointer(pointer).is_none_or(|list| !list.is_array()) {
        set(config, pointer, json!([]));
    }
    config
        .pointer_mut(pointer)
        .and_then(Value::as_array_mut)
        .expect("a list")
        .push(value);
}
