//! Mounts and the root filesystem.

use serde_json::{Value, json};

use super::{mount, push, set};
use crate::chance::Chance;

const PLACES: [&str; 26] = [
    "/mnt",
    "/data",
    "/data/deep",
    "/new/deeper/place",
    "/file",
    "/link/below",
    "/link",
    "/dangling",
    "/tmp",
    "/dev/shm",
    "/dev/new",
    "/etc/passwd",
    "/new-file",
    "relative/place",
    "/data/../up",
    "/mnt/",
    "//double//slash",
    "/var/run/app",
    "/out/x",
    "/home/user",
    "/sys/new",
    "/proc/uptime",
    "/bin",
    "/data/file",
    "/dev",
    "/with space",
];
const FLAGS: [&str; 34] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "nodiratime",
    "diratime",
    "sync",
    "async",
    "dirsync",
    "defaults",
    "mand",
    "nomand",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "silent",
    "iversion",
    "noiversion",
    "remount",
];
const SOURCES: [&str; 10] = [
    "plain",
    "plain/inside",
    "plain/deep",
    "plain/link",
    "tree",
    "tree/sub",
    "noexec",
    "ro",
    "shared",
    "missing",
];

pub fn add(chance: &mut Chance, config: &mut Value) {
    let place = chance.of(&PLACES);
    let mount = any(chance, place);
    push(config, "/mounts", mount);
}

fn any(chance: &mut Chance, place: &str) -> Value {
    match chance.below(10) {
        0..5 => bind(chance, place),
        5..8 => tmpfs(chance, place),
        8 => overlay(chance, place),
        _ => special(chance, place),
    }
}

/// Mixes options that suit the kind with flags of mount(2) that suit every kind.
fn mixed<'a>(chance: &mut Chance, own: &[&'a str], flags: &[&'a str]) -> Vec<&'a str> {
    let mut options = own.to_vec();
    for flag in flags {
        options.insert(chance.below(options.len() + 1), flag);
    }
    options
}

fn bind(chance: &mut Chance, place: &str) -> Value {
    let source = format!("/run/d/s/{}", chance.of(&SOURCES));
    let mut own = vec![chance.of(&["bind", "rbind"])];
    if chance.one_in(12) {
        own.push(chance.of(&[
            "bind",
            "rbind",
            "rro",
            "rnosuid",
            "rnoexec",
            "rnodev",
            "rrelatime",
            "rnoatime",
        ]));
    }
    let flags = chance.some(&FLAGS, 3);
    let options = mixed(chance, &own, &flags);
    let kind = chance.of(&["bind", "none", "", "tmpfs"]);
    let mut mount = mount(place, kind, &source, &options);
    if chance.one_in(4) {
        mount.as_object_mut().map(|mount| mount.remove("type"));
    }
    if chance.one_in(8) {
        // Relative sources begin at the bundle.
        mount["source"] = json!("../s/plain");
    }
    mount
}

fn tmpfs(chance: &mut Chance, place: &str) -> Value {
    let data = [
        "size=64k",
        "mode=755",
        "mode=1777",
        "uid=1000",
        "gid=44",
        "nr_inodes=100",
        "size=10%",
        "mode=0775",
    ];
    let data = chance.some(&data, 3);
    let flags = chance.some(&FLAGS, 3);
    let mut options = mixed(chance, &data, &flags);
    if chance.one_in(10) {
        options.push("tmpcopyup");
    }
    mount(
        place,
        "tmpfs",
        chance.of(&["tmpfs", "any", "none"]),
        &options,
    )
}

fn overlay(chance: &mut Chance, place: &str) -> Value {
    let own: &[&str] = chance.of(&[
        &["lowerdir=/run/d/s/plain"] as &[&str],
        &["lowerdir=/run/d/s/plain:/run/d/s/tree"],
        &["lowerdir=/run/d/s/plain:/run/d/s/ro", "xino=off"],
        &["lowerdir=/run/d/s/missing"],
    ]);
    let flags = chance.some(&FLAGS[..12], 2);
    let options = mixed(chance, own, &flags);
    mount(place, "overlay", "overlay", &options)
}

fn special(chance: &mut Chance, place: &str) -> Value {
    let flags = chance.some(&FLAGS, 2);
    match chance.below(6) {
        0 => mount(place, "mqueue", "mqueue", &flags),
        1 => mount(place, "ramfs", "ramfs", &flags),
        2 => mount("/sys", "sysfs", "sysfs", &flags),
        3 => {
            let data = chance.some(
                &[
                    "newinstance",
                    "ptmxmode=0600",
                    "mode=0666",
                    "gid=44",
                    "max=8",
                ],
                3,
            );
            let options = mixed(chance, &data, &flags);
            mount(
                chance.of(&["/dev/pts", "/mnt"]),
                "devpts",
                "devpts",
                &options,
            )
        }
        4 => {
            let data = chance.some(&["hidepid=2", "subset=pid", "gid=44"], 1);
            let options = mixed(chance, &data, &flags);
            mount(chance.of(&["/proc", "/mnt"]), "proc", "proc", &options)
        }
        _ => mount(
            place,
            chance.of(&["nofs", "ext4", "autofs"]),
            "none",
            &flags,
        ),
    }
}

/// Adds several mounts on one place, or below one another.
pub fn over_one_another(chance: &mut Chance, config: &mut Value) {
    let places = chance.of(&[
        ["/mnt", "/mnt"],
        ["/mnt", "/mnt/sub"],
        ["/mnt/sub", "/mnt"],
        ["/data", "/link/deep"],
        ["/tmp", "/tmp/a/b"],
        ["/dev/shm", "/dev/shm/x"],
        ["/new", "/new/file"],
    ]);
    for place in places {
        let mount = any(chance, place);
        push(config, "/mounts", mount);
    }
}

/// Removes a mount of the base, or moves it to the end.
pub fn remove(chance: &mut Chance, config: &mut Value) {
    let Some(mounts) = config["mounts"]
        .as_array_mut()
        .filter(|mounts| !mounts.is_empty())
    else {
        return;
    };
    let mount = mounts.remove(chance.below(mounts.len()));
    if chance.one_in(2) {
        mounts.push(mount);
    }
}

pub fn root(chance: &mut Chance, config: &mut Value) {
    match chance.below(4) {
        0..2 => set(config, "/root/readonly", json!(true)),
        2 => {
            let paths = json!([
                "/run/d/b/rootfs",
                "rootfs/",
                "./rootfs",
                "../b/rootfs",
                "rootfs/data/.."
            ]);
            set(config, "/root/path", chance.pick(&paths));
        }
        _ => {
            let mount = mount("/etc", "bind", "/run/d/s/plain", &["bind", "ro"]);
            push(config, "/mounts", mount);
            set(config, "/root/readonly", json!(true));
        }
    }
}

pub fn propagation(chance: &mut Chance, config: &mut Value) {
    let all = json!([
        "private",
        "rprivate",
        "slave",
        "rslave",
        "shared",
        "rshared",
        "unbindable",
        "runbindable",
        ""
    ]);
    set(config, "/linux/rootfsPropagation", chance.pick(&all));
    if chance.one_in(2) {
        let mount = mount(
            "/mnt",
            "bind",
            "/run/d/s/shared",
            &["rbind", chance.of(&["rslave", "rshared", "rprivate"])],
        );
        push(config, "/mounts", mount);
    }
}
