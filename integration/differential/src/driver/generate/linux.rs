//! Namespaces, devices, masks, settings of the kernel, filters.

use serde_json::{Value, json};

use super::{push, set};
use crate::chance::Chance;

/// Adds a user namespace. The files of the bundle belong to root of the host.
pub fn user_namespace(chance: &mut Chance, config: &mut Value) {
    let map = |first: u64, size: u64| json!({"containerID": 0, "hostID": first, "size": size});
    let maps = [
        json!([map(0, 65536)]),
        json!([map(100000, 65536)]),
        json!([map(100000, 1000), {"containerID": 1000, "hostID": 0, "size": 1}, {"containerID": 1001, "hostID": 200000, "size": 64000}]),
        json!([map(0, 1)]),
        json!([map(0, 4294967295)]),
        json!([map(0, 1000)]),
    ];
    let which = chance.below(maps.len());
    let other = if chance.one_in(8) {
        chance.below(maps.len())
    } else {
        which
    };
    push(config, "/linux/namespaces", json!({"type": "user"}));
    set(config, "/linux/uidMappings", maps[which].clone());
    set(config, "/linux/gidMappings", maps[other].clone());
}

/// Removes a namespace of the base, or adds another.
pub fn namespaces(chance: &mut Chance, config: &mut Value) {
    let Some(list) = config["linux"]["namespaces"].as_array_mut() else {
        return;
    };
    let name = chance.of(&["pid", "network", "ipc", "uts", "cgroup", "mount", "time"]);
    let before = list.len();
    list.retain(|namespace| namespace["type"] != name);
    // Without a mount namespace the mounts of this worker would change.
    if before == list.len() || name == "mount" {
        list.retain(|namespace| namespace["type"] != name);
        list.push(json!({"type": name}));
    }
    if name == "time" && chance.one_in(2) {
        set(
            config,
            "/linux/timeOffsets",
            json!({chance.of(&["monotonic", "boottime"]): {"secs": 1000, "nanosecs": 5}}),
        );
    }
}

pub fn joined(chance: &mut Chance, config: &mut Value) {
    let (kind, file) = chance.of(&[
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("network", "ipc"),
        ("uts", "missing"),
    ]);
    let path = format!("/run/d/s/ns/{file}");
    let Some(list) = config["linux"]["namespaces"].as_array_mut() else {
        return;
    };
    list.retain(|namespace| namespace["type"] != kind);
    list.push(json!({"type": kind, "path": path}));
}

pub fn names(chance: &mut Chance, config: &mut Value) {
    let names = json!([
        "",
        "a",
        "name.with.dots",
        "UPPER",
        "a b",
        "0123456789012345678901234567890123456789012345678901234567890123"
    ]);
    let pointer = chance.of(&["/hostname", "/domainname"]);
    set(config, pointer, chance.pick(&names));
}

pub fn devices(chance: &mut Chance, config: &mut Value) {
    let nodes = [
        ("/dev/extra", "c", 1, 3),
        ("/dev/deep/er/zero", "c", 1, 5),
        ("/dev/null", "c", 1, 3),
        ("/dev/kmsg2", "c", 1, 11),
        ("/node", "c", 1, 8),
        ("/dev/block", "b", 7, 0),
        ("/dev/tty", "c", 5, 0),
        ("/dev/pipe", "p", 0, 0),
        ("/dev/u", "u", 1, 9),
        ("/file", "c", 1, 3),
        ("/dev/ptmx", "c", 5, 2),
        ("/data/node", "c", 1, 5),
        ("/dev/fuse", "c", 10, 229),
        ("/link/node", "c", 1, 7),
        ("/dev/console", "c", 5, 1),
        ("/dev/random", "c", 1, 8),
        ("/dev/null", "c", 1, 5),
    ];
    for (path, kind, major, minor) in chance.some(&nodes, 2) {
        let mut device = json!({"path": path, "type": kind, "major": major, "minor": minor});
        for (field, values) in [
            ("fileMode", [0o600, 0o644, 0o20666]),
            ("uid", [0, 1000, 44]),
            ("gid", [0, 1000, 44]),
        ] {
            if chance.one_in(2) {
                device[field] = json!(chance.of(&values));
            }
        }
        if kind == "p" {
            device
                .as_object_mut()
                .map(|device| (device.remove("major"), device.remove("minor")));
        }
        push(config, "/linux/devices", device);
    }
}

pub fn device_rules(chance: &mut Chance, config: &mut Value) {
    let rules = [
        json!({"allow": false, "access": "rwm"}),
        json!({"allow": true, "access": "rwm"}),
        json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}),
        json!({"allow": false, "type": "c", "major": 1, "minor": 5, "access": "rw"}),
        json!({"allow": true, "type": "c", "major": 1, "access": "rwm"}),
        json!({"allow": false, "type": "c", "major": 1, "minor": 8, "access": "w"}),
        json!({"allow": true, "type": "b", "major": 7, "access": "rm"}),
        json!({"allow": false, "type": "c", "minor": 9, "access": "r"}),
        json!({"allow": true, "type": "a", "access": "rwm"}),
        json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}),
    ];
    let mut list = if chance.one_in(4) {
        vec![]
    } else {
        vec![rules[0].clone()]
    };
    for _ in 0..chance.below(4) {
        list.push(rules[chance.below(rules.len())].clone());
    }
    set(config, "/linux/resources/devices", json!(list));
}

pub fn masks(chance: &mut Chance, config: &mut Value) {
    let paths = [
        "/proc/kcore",
        "/proc/keys",
        "/proc/acpi",
        "/proc/scsi",
        "/sys/firmware",
        "/data",
        "/data/file",
        "/file",
        "/link",
        "/missing",
        "/proc/sys",
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sysrq-trigger",
        "/sys",
        "/dev/shm",
        "/dev/null",
        "/data/deep",
        "/dangling",
        "/proc/uptime",
        "/tmp",
        "/mnt",
    ];
    let pointer = chance.of(&["/linux/maskedPaths", "/linux/readonlyPaths"]);
    set(config, pointer, json!(chance.some(&paths, 4)));
}

/// Sets sysctls. Those of the last row belong to the host; they are set to their usual value.
pub fn sysctl(chance: &mut Chance, config: &mut Value) {
    let all = [
        ("kernel.shmmax", "4096"),
        ("kernel.msgmax", "8192"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.sem", "250 32000 100 128"),
        ("fs.mqueue.msg_max", "12"),
        ("fs.mqueue.queues_max", "100"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "0 1000"),
        ("net/ipv4/ip_forward", "1"),
        ("net.ipv4.conf.lo.rp_filter", "2"),
        ("net.ipv4.missing", "1"),
        ("kernel.domainname", "d"),
        ("kernel.hostname", "h"),
        ("kernel.shmmax", "no number"),
        ("net.ipv4.conf/lo/forwarding", "1"),
        ("net.core.somaxconn", "128"),
        ("vm.swappiness", "60"),
        ("kernel.panic", "0"),
        ("", "1"),
    ];
    for (key, value) in chance.some(&all, 2) {
        if !config["linux"]["sysctl"].is_object() {
            set(config, "/linux/sysctl", json!({}));
        }
        config["linux"]["sysctl"][key] = json!(value);
    }
}

pub fn seccomp(chance: &mut Chance, config: &mut Value) {
    let actions = [
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_LOG",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRAP",
    ];
    let rules: Vec<Value> = (0..1 + chance.below(2))
        .map(|_| {
            let mut names = chance.some(&["sethostname", "chdir", "mkdir", "unshare", "personality", "no_such_call"], 2);
            names.push("setpriority");
            let mut rule = json!({"names": names, "action": chance.of(&actions)});
            if chance.one_in(3) {
                rule["errnoRet"] = json!(chance.of(&[1, 2, 38, 0, 133]));
            }
            if chance.one_in(3) {
                let mut argument = json!({"index": chance.of(&[0, 1]), "value": chance.of(&[8u64, 9, 1, 0xffff_ffff])});
                argument["op"] = json!(chance.of(&[
                    "SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_GE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
                ]));
                if argument["op"] == "SCMP_CMP_MASKED_EQ" {
                    argument["valueTwo"] = json!(chance.of(&[8u64, 1, 0]));
                }
                rule["args"] = json!([argument]);
            }
            rule
        })
        .collect();
    let mut filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    if chance.one_in(2) {
        filter["architectures"] = chance.pick(&json!([
            ["SCMP_ARCH_X86_64"],
            ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            ["SCMP_ARCH_AARCH64"]
        ]));
    }
    if chance.one_in(4) {
        filter["flags"] = chance.pick(&json!([
            ["SECCOMP_FILTER_FLAG_LOG"],
            ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            ["SECCOMP_FILTER_FLAG_TSYNC"],
            []
        ]));
    }
    if chance.one_in(8) {
        filter["defaultAction"] = json!("SCMP_ACT_LOG");
    }
    set(config, "/linux/seccomp", filter);
}

pub fn kernel(chance: &mut Chance, config: &mut Value) {
    match chance.below(3) {
        0 => set(config, "/linux/personality", chance.pick(&json!([{"domain": "LINUX"}, {"domain": "LINUX32"}]))),
        1 => set(config, "/linux/cgroupsPath", chance.pick(&json!(["relative", "/deep/er", "/c/../d", "//c", "/a.b"]))),
        _ => set(config, "/linux/resources", chance.pick(&json!([{}, {"devices": []}, {"memory": {}}, {"unified": {}}, {"cpu": {}, "pids": null}]))),
    }
}
