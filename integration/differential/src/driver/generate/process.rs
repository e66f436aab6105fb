//! The process, its identity and limits, and hooks.

use differential_sys::LIMITS;
use serde_json::{Value, json};

use super::{push, set};
use crate::chance::Chance;

const CAPABILITIES: [&str; 16] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SYS_CHROOT",
    "CAP_MKNOD",
    "CAP_AUDIT_WRITE",
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];
const SETS: [&str; 5] = [
    "bounding",
    "effective",
    "permitted",
    "inheritable",
    "ambient",
];

pub fn user(chance: &mut Chance, config: &mut Value) {
    set(
        config,
        "/process/user/uid",
        json!(chance.of(&[0, 1000, 1, 65534, 12345, 44])),
    );
    set(
        config,
        "/process/user/gid",
        json!(chance.of(&[0, 1000, 1, 65534, 12345, 44])),
    );
}

pub fn groups(chance: &mut Chance, config: &mut Value) {
    let lists = json!([[], [0], [44], [44, 1000, 7], [7, 7, 3], [65534], [1000000]]);
    set(config, "/process/user/additionalGids", chance.pick(&lists));
}

pub fn umask(chance: &mut Chance, config: &mut Value) {
    set(
        config,
        "/process/user/umask",
        json!(chance.of(&[0, 18, 63, 7, 511])),
    );
}

pub fn environment(chance: &mut Chance, config: &mut Value) {
    let words = [
        "A=1",
        "A=2",
        "B=",
        "HOME=/elsewhere",
        "HOME=",
        "PATH=/bin",
        "PATH=/nowhere:/bin",
        "C=a=b",
        "LONG=0123456789 a b",
        "TERM=dumb",
        "HOSTNAME=h",
        "a b=c",
        "U=ü",
    ];
    set(config, "/process/env", json!(chance.some(&words, 5)));
}

pub fn directory(chance: &mut Chance, config: &mut Value) {
    let places = json!([
        "/data",
        "/new/directory",
        "/link",
        "/link/deep",
        "/file",
        "/dangling",
        "/proc",
        "/dev/shm",
        "/data/../tmp",
        "/home/user/new",
        "/./data//",
        "/out",
        "/mnt",
    ]);
    set(config, "/process/cwd", chance.pick(&places));
}

pub fn arguments(chance: &mut Chance, config: &mut Value) {
    let lists = json!([
        ["probe"],
        ["/bin/probe", "exit=7"],
        ["/bin/probe", "signal=9"],
        ["/bin/probe", "signal=15"],
        ["/bin/probe", "exit=255"],
        ["bin/probe"],
        ["./bin/probe"],
        ["/bin/../bin/probe"],
        ["/bin/probe", "", "a b", "exit=0"],
        ["missing"],
        ["/missing"],
        ["/data"],
        ["/file"],
        ["/script"],
        ["../bin/probe"],
        ["probe", "exit=126"],
        ["/bin/probe", "signal=11"],
        ["/bin/probe", "--help"],
    ]);
    set(config, "/process/args", chance.pick(&lists));
}

pub fn capabilities(chance: &mut Chance, config: &mut Value) {
    let mut first = chance.some(&CAPABILITIES, 5);
    if chance.one_in(12) {
        first.push(chance.of(&["CAP_NONE", "KILL", "cap_kill", "CAP_BLOCK_SUSPEND"]));
    }
    for name in SETS {
        let pointer = format!("/process/capabilities/{name}");
        match chance.below(6) {
            0 => set(config, &pointer, json!(chance.some(&CAPABILITIES, 4))),
            1 => set(config, &pointer, json!([])),
            2 => {}
            _ => set(config, &pointer, json!(first)),
        }
    }
    if chance.one_in(3) {
        user(chance, config);
    }
}

pub fn limits(chance: &mut Chance, config: &mut Value) {
    let list: Vec<Value> = chance
        .some(&LIMITS, 4)
        .into_iter()
        .map(|kind| {
            let small = ["NICE", "RTPRIO", "CORE"].contains(&kind);
            let hard: u64 = if small {
                chance.of(&[0, 0, 5])
            } else {
                chance.of(&[1 << 33, 1 << 33, 4096, 4000, u64::MAX])
            };
            // Small limits would cut the report of the probe, or kill it at a random place.
            let hard = match kind {
                "NOFILE" => hard.min(10000),
                "FSIZE" | "STACK" | "AS" | "DATA" => 1 << 33,
                _ => hard,
            };
            let soft = if chance.one_in(2) { hard } else { hard / 2 };
            json!({"type": format!("RLIMIT_{kind}"), "soft": soft, "hard": hard})
        })
        .collect();
    set(config, "/process/rlimits", json!(list));
}

pub fn no_new_privileges(chance: &mut Chance, config: &mut Value) {
    set(config, "/process/noNewPrivileges", json!(chance.one_in(3)));
}

pub fn out_of_memory(chance: &mut Chance, config: &mut Value) {
    set(
        config,
        "/process/oomScoreAdj",
        json!(chance.of(&[0, 1, 500, 1000, 999])),
    );
}

/// Adds hooks. Their log is in the bundle; hooks inside the container have one in its root.
pub fn hooks(chance: &mut Chance, config: &mut Value) {
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ];
    for _ in 0..1 + chance.below(3) {
        let kind = chance.of(&kinds);
        let (path, log) = match kind {
            "startContainer" => ("/bin/probe", "/hooks"),
            _ => ("/run/d/probe", "/run/d/b/hooks"),
        };
        let mut hook = json!({"path": path, "args": ["probe", "hook", log, kind]});
        // A failed poststart hook would kill the program while it reports.
        let change = match kind {
            "poststart" => 3 + chance.below(7),
            _ => chance.below(10),
        };
        match change {
            0 => hook["args"] = json!(["probe", "hook", log, kind, "exit=3"]),
            1 => hook["path"] = json!("/missing/hook"),
            2 => hook["path"] = json!("relative/hook"),
            3 => hook["timeout"] = json!(5),
            4 => drop(hook.as_object_mut().map(|hook| hook.remove("args"))),
            5 | 6 => hook["env"] = json!(["X=1", "PATH=/bin"]),
            _ => {}
        }
        push(config, &format!("/hooks/{kind}"), hook);
    }
}

pub fn annotations(chance: &mut Chance, config: &mut Value) {
    let maps = json!([{}, {"a": "b"}, {"org.example.key": ""}, {"a": "b", "x/y": "ü", "z": "1"}]);
    set(config, "/annotations", chance.pick(&maps));
    if chance.one_in(2) {
        set(
            config,
            "/ociVersion",
            chance.pick(&json!(["1.0.0", "1.0.2-dev", "1.1.0", "1.2.1", "1.0.1"])),
        );
    } else {
        set(config, "/unknown", json!({"field": [1]}));
    }
    if chance.one_in(2) {
        hooks(chance, config);
    }
}
