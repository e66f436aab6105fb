//! What is measured: the configs. The base is what `spec` of a runtime writes, with a cgroup namespace as engines ask
//! for. The variants change one thing each. Recorded configs of engines are made to fit this host and root filesystem.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::calls::array;

pub struct Variant {
    pub name: String,
    pub what: &'static str,
    pub config: Value,
    /// Mounts that the host has in addition.
    pub host_mounts: usize,
}

const CAPTURES: [(&str, &str); 3] = [
    ("docker", "docker/001-create"),
    ("podman", "podman/000-create"),
    ("containerd", "ctr/004-create"),
];

pub struct Place<'a> {
    pub repository: &'a Path,
    pub work: &'a Path,
    pub controllers: &'a [String],
    /// Whether RLIMIT_MEMLOCK can be raised, which some runtimes want before they load a device filter.
    pub device_rules: bool,
}

pub fn variants(place: &Place) -> Result<Vec<Variant>> {
    let base = base(place);
    let mut variants = Vec::new();
    let mut add = |name: &str, what, config: Value, host_mounts| {
        let name = name.to_string();
        variants.push(Variant {
            name,
            what,
            config,
            host_mounts,
        });
    };
    add("base", "a default config, no seccomp", base.clone(), 0);
    add(
        "seccomp",
        "Docker's default seccomp profile",
        seccomp(&base, place)?,
        0,
    );
    add(
        "host-network",
        "no network namespace",
        host_network(&base),
        0,
    );
    add("userns", "a user namespace", userns(&base), 0);
    add("mounts-20", "20 mounts more", mounts(&base, place, 20), 0);
    add(
        "mounts-100",
        "100 mounts more",
        mounts(&base, place, 100),
        0,
    );
    add(
        "limits",
        "limits, 20 device rules, 3 devices",
        limits(&base, place),
        0,
    );
    for (engine, file) in CAPTURES {
        let name = format!("{engine}-config");
        add(&name, "a recorded config", captured(place, file)?, 0);
    }
    add("host-300", "300 mounts more on the host", base.clone(), 300);
    add("host-3000", "3000 mounts more on the host", base, 3000);
    Ok(variants)
}

fn base(place: &Place) -> Value {
    let deny = json!([{"allow": false, "access": "rwm"}]);
    let rules = if place.device_rules { deny } else { json!([]) };
    let caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["/true"], "env": ["PATH=/"], "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": place.work.join("rootfs"), "readonly": true},
        "hostname": "bench",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
                "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
                "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": rules},
            "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

fn seccomp(base: &Value, place: &Place) -> Result<Value> {
    let mut config = base.clone();
    config["linux"]["seccomp"] = read(&place.repository.join("tests/data/seccomp/docker.json"))?;
    Ok(config)
}

fn host_network(base: &Value) -> Value {
    let mut config = base.clone();
    keep(&mut config["linux"]["namespaces"], |entry| {
        entry["type"] != "network"
    });
    config
}

fn userns(base: &Value) -> Value {
    let mut config = base.clone();
    let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    config["linux"]["uidMappings"] = map.clone();
    config["linux"]["gidMappings"] = map;
    push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
    config
}

/// The directories are made with the root filesystem.
fn mounts(base: &Value, place: &Place, count: usize) -> Value {
    let mut config = base.clone();
    for number in 0..count {
        let source = place.work.join("volume");
        let mount = json!({"destination": format!("/mnt/{number}"), "type": "bind", "source": source,
            "options": ["rbind", "rprivate", "ro"]});
        push(&mut config["mounts"], mount);
    }
    config
}

fn limits(base: &Value, place: &Place) -> Value {
    let mut config = base.clone();
    config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"}]);
    for minor in 0..20 {
        let rule =
            json!({"allow": true, "type": "c", "major": 240, "minor": minor, "access": "rwm"});
        push(&mut config["linux"]["resources"]["devices"], rule);
    }
    config["linux"]["devices"] = (0..3)
        .map(|minor| {
            json!({"path": format!("/dev/bench{minor}"), "type": "c", "major": 240, "minor": minor,
            "fileMode": 0o666, "uid": 0, "gid": 0})
        })
        .collect();
    let resources = &mut config["linux"]["resources"];
    let has = |name: &str| place.controllers.iter().any(|known| known == name);
    if has("hugetlb") {
        resources["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": 4194304}]);
    }
    if has("memory") {
        resources["memory"] = json!({"limit": 268435456});
    }
    if has("pids") {
        resources["pids"] = json!({"limit": 100});
    }
    config
}

/// Keeps what an engine asks for of mounts, rights, filter and paths. What belongs to its host goes: hooks, names
/// of programs and cgroups, limits, security modules; its files become files of this benchmark.
fn captured(place: &Place, file: &str) -> Result<Value> {
    let directory = place.repository.join("tests/data/captures");
    let mut config = read(&directory.join(format!("{file}.config.json")))?;
    let plain = base(place);
    config["root"] = plain["root"].clone();
    config["ociVersion"] = plain["ociVersion"].clone();
    let resources = array(&config["linux"]["resources"]["devices"]);
    let devices: Vec<Value> = resources.filter(|_| place.device_rules).cloned().collect();
    config["linux"]["resources"] = json!({"devices": devices});
    config["process"]["args"] = json!(["/true"]);
    config["process"]["user"] = json!({"uid": 0, "gid": 0});
    config["process"]["terminal"] = json!(false);
    remove(
        &mut config["process"],
        &["apparmorProfile", "selinuxLabel", "oomScoreAdj"],
    );
    remove(
        &mut config["linux"],
        &["sysctl", "rootfsPropagation", "mountLabel"],
    );
    remove(&mut config, &["hooks", "annotations"]);
    for limit in config["process"]["rlimits"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        limit["soft"] = json!(1024);
        limit["hard"] = json!(1024);
    }
    for entry in config["linux"]["namespaces"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        remove(entry, &["path"]);
    }
    for entry in config["mounts"].as_array_mut().into_iter().flatten() {
        adapt_mount(entry, place.work)?;
    }
    Ok(config)
}

fn adapt_mount(entry: &mut Value, work: &Path) -> Result<()> {
    let copies = ["tmpcopyup", "notmpcopyup", "gid=5"];
    keep(&mut entry["options"], |option| {
        !copies.iter().any(|word| option == word)
    });
    if array(&entry["options"]).any(|option| option == "bind" || option == "rbind") {
        let destination = entry["destination"].as_str().unwrap_or_default();
        let file = ["/etc/", "/run/."]
            .iter()
            .any(|start| destination.starts_with(start));
        entry["source"] = json!(work.join(if file { "file" } else { "volume" }));
    }
    let destination = entry["destination"]
        .as_str()
        .context("a mount without destination")?;
    let on_root = !["/dev/", "/sys/", "/proc/"]
        .iter()
        .any(|start| destination.starts_with(start));
    let target = work
        .join("rootfs")
        .join(destination.trim_start_matches('/'));
    if on_root && entry["source"] == json!(work.join("file")) {
        fs::create_dir_all(target.parent().context("a mount on /")?)?;
        fs::write(&target, "")?;
    } else if on_root {
        fs::create_dir_all(&target)?;
    }
    Ok(())
}

/// Writes the bundle of one container, with the floor's lists beside the config.
pub fn write_bundle(directory: &Path, config: &Value, filter: Option<&[u8]>) -> Result<PathBuf> {
    fs::create_dir_all(directory)?;
    fs::write(
        directory.join("config.json"),
        serde_json::to_vec_pretty(config)?,
    )?;
    let cgroup = config["linux"]["cgroupsPath"]
        .as_str()
        .context("no cgroup")?;
    let lists = crate::calls::lists(config, &format!("/sys/fs/cgroup{cgroup}"), filter)?;
    fs::write(directory.join("floor.calls"), lists.create)?;
    fs::write(directory.join("floor.exec"), lists.exec)?;
    Ok(directory.to_path_buf())
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}

fn push(list: &mut Value, entry: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(entry);
    }
}

fn keep(list: &mut Value, wanted: impl Fn(&Value) -> bool) {
    if let Some(list) = list.as_array_mut() {
        list.retain(wanted);
    }
}

fn remove(object: &mut Value, keys: &[&str]) {
    for key in keys {
        object
            .as_object_mut()
            .map(|object| object.shift_remove(*key));
    }
}
