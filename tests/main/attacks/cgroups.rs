//! T34: mounts of the config that would change options of a filesystem of the host, of cgroup2 above all: a new mount from the
//! initial cgroup namespace sets them for the whole host (cgroups(7), "Cgroup namespaces").

use super::ways::each_way;
use crate::support::{Bundle, cgroup_root};
use serde_json::json;
use std::fs;

/// Type, source and options of the superblock that is mounted there on the host.
fn hosts(place: &str) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let line = table
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(place));
    superblock(line.expect("it is mounted"))
}

fn superblock(line: &str) -> String {
    line.split_once(" - ").map_or(line, |(_, rest)| rest).into()
}

fn hosts_cgroup2() -> String {
    hosts(&cgroup_root().display().to_string())
}

fn without_namespace(c: Bundle) -> Bundle {
    c.without("/linux/namespaces", "type", "cgroup")
}

#[test]
fn t34_without_a_cgroup_namespace_the_hosts_own_mount_is_shown() {
    let question = "mountinfo /sys/fs/cgroup";
    for kind in ["cgroup", "cgroup2"] {
        for c in each_way!() {
            let before = hosts_cgroup2();
            let c = without_namespace(c)
                .without("/mounts", "destination", "/sys/fs/cgroup")
                .mount(kind, "false", "/sys/fs/cgroup", &["ro", "nosuid", "nodev"])
                .asks(&[question, "mkdir /sys/fs/cgroup/x"]);
            let output = c.run().ok();
            let line = output.answer(question);
            // A new mount would have the source of the config.
            assert_eq!(superblock(&line), before, "{line}");
            assert!(line.starts_with("/ /sys/fs/cgroup ro,"), "{line}");
            assert!(line.contains("nosuid") && line.contains("nodev"), "{line}");
            assert_eq!(output.answer("mkdir /sys/fs/cgroup/x"), "EROFS");
            assert_eq!(hosts_cgroup2(), before);
        }
    }
}

/// The mount of the host stays as it is, whatever the container's may do.
#[test]
fn t34_one_that_may_be_written_is_the_hosts_too() {
    let question = "mountinfo /sys/fs/cgroup";
    let c = without_namespace(bundle!())
        .without("/mounts", "destination", "/sys/fs/cgroup")
        .mount("cgroup", "false", "/sys/fs/cgroup", &["rw", "noexec"])
        .asks(&[question]);
    let output = c.run().ok();
    let line = output.answer(question);
    assert_eq!(superblock(&line), hosts_cgroup2());
    assert!(line.starts_with("/ /sys/fs/cgroup rw,"), "{line}");
}

#[test]
fn t34_nor_does_a_mount_that_is_added_later_change_the_host() {
    let c = without_namespace(bundle!())
        .folder("/added")
        .asks(&["pause"]);
    c.up();
    let before = hosts_cgroup2();
    let args = ["mounts", "add", &c.id, "-t", "cgroup2", "false", "/added"];
    c.call(&args).finish().ok();
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", c.pid())).expect("mountinfo");
    let line = table.lines().find(|line| line.contains(" /added "));
    assert_eq!(superblock(line.expect("it is mounted")), before);
    assert_eq!(hosts_cgroup2(), before);
}

/// A path may lead to the namespace of the host, where a new mount would be the host's.
#[test]
fn t34_the_cgroup_namespace_of_the_host_is_joined_for_no_mount() {
    let c = without_namespace(bundle!());
    let namespace = json!({"type": "cgroup", "path": "/proc/self/ns/cgroup"});
    let c = c.push("/linux/namespaces", namespace);
    c.create()
        .fails_naming("would change the host: linux.namespaces[5].path");
    c.assert_gone();
    let c = c.without("/mounts", "destination", "/sys/fs/cgroup");
    c.asks(&["exit 0"]).run().ok();
}

/// A bind shows a filesystem of the host: its mount can be changed, its superblock is the host's.
#[test]
fn t34_a_remount_gives_no_options_to_a_filesystem_of_the_host() {
    for c in each_way!() {
        let c = c.with_tmpfs("mounted", 0).folder("/t");
        let path = c.path("mounted");
        let before = hosts(&path);
        let c = c.mount("bind", &path, "/t", &["bind"]).mount(
            "none",
            "none",
            "/t",
            &["remount", "size=64k"],
        );
        c.create()
            .fails_naming("mounts[8]: remount /t (size=64k): this config has not mounted");
        assert_eq!(hosts(&path), before);
    }
    let c = without_namespace(bundle!());
    // None that cgroup2 has: the refusal comes before the kernel is asked.
    let options = ["remount", "ro", "option=1"];
    let c = c.mount("cgroup", "cgroup", "/sys/fs/cgroup", &options);
    c.create().fails_naming("mounts[7]: remount /sys/fs/cgroup");
    c.assert_gone();
    // Through a link to the root.
    let c = bundle!().link("/link", "/");
    let c = c.mount("none", "none", "/link", &["remount", "option=1"]);
    c.create().fails_naming("this config has not mounted");
}

/// From a namespace of its own a new mount sets nothing, even what it names, nor does a remount of it. In a user namespace the
/// kernel refuses the remount.
#[test]
fn t34_in_a_cgroup_namespace_of_its_own_options_are_ignored() {
    let question = "mountinfo /sys/fs/cgroup";
    for c in each_way!() {
        let before = hosts_cgroup2();
        let c = c
            .without("/mounts", "destination", "/sys/fs/cgroup")
            .mount("cgroup", "own", "/sys/fs/cgroup", &["nsdelegate"])
            .asks(&[question]);
        let c = match c.spec.pointer("/linux/uidMappings") {
            None => c.mount("none", "none", "/sys/fs/cgroup", &["remount", "nsdelegate"]),
            Some(_) => c,
        };
        let output = c.run().ok();
        let line = output.answer(question);
        let (own, options) = (superblock(&line), before.rsplit(' ').next());
        assert_eq!(own, format!("cgroup2 own {}", options.unwrap_or_default()));
        assert_eq!(hosts_cgroup2(), before);
    }
}
