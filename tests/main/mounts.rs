//! The mounts of the spec: options, propagation, order, sources, and targets that are refused.

use crate::support::Bundle;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Mounts a tmpfs with these options and returns the mount's and the file system's options.
fn tmpfs(c: Bundle, options: &[&str]) -> (Vec<String>, Vec<String>) {
    let c = c
        .mount("tmpfs", "tmpfs", "/mnt", options)
        .asks(&["mountinfo /mnt"]);
    options_of(&c.run().ok().answer("mountinfo /mnt"))
}

/// From a line of mountinfo that begins at the root field.
pub fn options_of(line: &str) -> (Vec<String>, Vec<String>) {
    let list = |text: &str| text.split(',').map(String::from).collect();
    let (mount, filesystem) = line.split_once(" - ").expect("a separator");
    let mount = mount.split(' ').nth(2).expect("options");
    (
        list(mount),
        list(filesystem.split(' ').nth(2).expect("options")),
    )
}

/// The propagation fields of a line of mountinfo, without numbers.
fn propagation(line: &str) -> String {
    let (mount, _) = line.split_once(" - ").expect("a separator");
    let fields = mount.split(' ').skip(3).filter(|f| !f.is_empty());
    fields
        .map(|f| f.split(':').next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn has(list: &[String], option: &str) -> bool {
    list.iter().any(|o| o == option)
}

#[test]
fn a_later_option_overrides_an_earlier_one() {
    let (options, _) = tmpfs(
        bundle!(),
        &["ro", "noexec", "nosuid", "rw", "exec", "suid", "nosuid"],
    );
    assert!(
        has(&options, "rw") && !has(&options, "noexec") && has(&options, "nosuid"),
        "{options:?}"
    );
}

#[test]
fn options_of_the_whole_file_system() {
    let (_, options) = tmpfs(bundle!(), &["sync", "dirsync"]);
    assert!(
        has(&options, "sync") && has(&options, "dirsync"),
        "{options:?}"
    );
}

#[test]
fn lazytime_silent_and_mand() {
    let (_, options) = tmpfs(bundle!(), &["lazytime", "silent", "nomand", "noiversion"]);
    assert!(has(&options, "lazytime"), "{options:?}");
}

#[test]
fn positive_options_that_need_no_flag() {
    let words = [
        "async",
        "loud",
        "nolazytime",
        "noiversion",
        "norelatime",
        "nostrictatime",
        "nomand",
    ];
    let (options, _) = tmpfs(bundle!(), &words);
    assert!(has(&options, "rw"), "{options:?}");
}

#[test]
fn nosymfollow() {
    let c = bundle!().mount("tmpfs", "tmpfs", "/mnt", &["nosymfollow"]);
    let c = c.asks(&["link /payload /mnt/link", "stat /mnt/link"]);
    assert_eq!(c.run().ok().answer("stat /mnt/link"), "ELOOP");
}

#[test]
fn defaults_is_no_data() {
    let (options, _) = tmpfs(bundle!(), &["defaults"]);
    assert!(has(&options, "rw"), "{options:?}");
}

#[test]
fn other_words_are_data_of_the_file_system() {
    let (_, options) = tmpfs(
        bundle!(),
        &["size=64k", "mode=0711", "nr_inodes=100", "uid=5"],
    );
    for option in ["size=64k", "mode=711", "nr_inodes=100", "uid=5"] {
        assert!(has(&options, option), "{option}: {options:?}");
    }
}

#[test]
fn bad_data_is_an_error_that_names_the_mount() {
    let c = bundle!().mount("tmpfs", "tmpfs", "/mnt", &["nonsense=1"]);
    c.create().fails_with("/mnt");
    c.assert_gone();
}

#[test]
fn an_unknown_file_system_is_an_error() {
    let c = bundle!().mount("nonsensefs", "none", "/mnt", &[]);
    c.create().fails_naming("nonsensefs");
    c.assert_gone();
}

#[test]
fn propagation_of_a_mount() {
    let cases = [
        ("private", ""),
        ("rprivate", ""),
        ("slave", ""),
        ("shared", "shared"),
        ("rshared", "shared"),
        ("unbindable", "unbindable"),
        ("runbindable", "unbindable"),
    ];
    let mut c = bundle!();
    for (given, shown) in cases {
        c.spec["mounts"]
            .as_array_mut()
            .expect("mounts")
            .retain(|m| m["destination"] != "/mnt");
        c = c
            .mount("tmpfs", "tmpfs", "/mnt", &[given])
            .asks(&["mountinfo /mnt"]);
        assert_eq!(
            propagation(&c.run().ok().answer("mountinfo /mnt")),
            shown,
            "{given}"
        );
    }
}

#[test]
fn propagation_of_the_root() {
    let mut c = bundle!().asks(&["mountinfo /"]);
    for (given, shown) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared"),
        ("unbindable", "unbindable"),
    ] {
        c = c.set("/linux/rootfsPropagation", json!(given));
        let line = c.run().ok().answer("mountinfo /");
        assert_eq!(
            propagation(&line).replace(" master", ""),
            shown,
            "{given}: {line}"
        );
    }
}

#[test]
fn an_unknown_root_propagation_is_refused() {
    let c = bundle!().set("/linux/rootfsPropagation", json!("sideways"));
    c.create().fails_naming("linux.rootfsPropagation");
    c.assert_gone();
}

#[test]
fn tmpfs_gets_a_copy_of_what_it_covers() {
    let c = bundle!()
        .file("/data/one", "1")
        .file("/data/sub/two", "2")
        .link("/data/link", "one");
    fs::set_permissions(
        c.rootfs().join("data/one"),
        PermissionsExt::from_mode(0o640),
    )
    .expect("chmod");
    std::os::unix::fs::chown(c.rootfs().join("data/sub"), Some(7), Some(8)).expect("chown");
    let questions = [
        "stat /data/one",
        "read /data/sub/two",
        "lstat /data/link",
        "stat /data/sub",
        "write /data/one changed",
    ];
    let c = c
        .mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"])
        .asks(&questions);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /data/one"), "file 0640 0:0");
    assert_eq!(output.answer("read /data/sub/two"), "2");
    assert_eq!(output.answer("lstat /data/link"), "link -> one");
    assert_eq!(output.answer("stat /data/sub"), "dir 0755 7:8");
    assert_eq!(
        fs::read_to_string(c.rootfs().join("data/one")).expect("read"),
        "1"
    );
}

#[test]
fn a_tmpfs_keeps_the_mode_of_its_target() {
    let c = bundle!().folder("/data");
    fs::set_permissions(c.rootfs().join("data"), PermissionsExt::from_mode(0o710)).expect("chmod");
    let c = c
        .mount("tmpfs", "tmpfs", "/data", &[])
        .asks(&["stat /data", "stat /other"]);
    let c = c.mount("tmpfs", "tmpfs", "/other", &["mode=1700"]);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /data"), "dir 0710 0:0");
    assert_eq!(output.answer("stat /other"), "dir 1700 0:0");
}

#[test]
fn a_read_only_tmpfs_for_dev_still_gets_its_devices() {
    let mut c = bundle!().asks(&["stat /dev/null", "write /dev/x y", "mountinfo /dev"]);
    c.spec["mounts"][1]["options"] = json!(["nosuid", "strictatime", "mode=755", "ro"]);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /dev/null"), "char 1:3 0666 0:0");
    assert_eq!(output.answer("write /dev/x y"), "EROFS");
}

#[test]
fn mounts_are_made_in_order() {
    let c = bundle!()
        .mount("tmpfs", "tmpfs", "/a", &[])
        .mount("tmpfs", "tmpfs", "/a/b/c", &[])
        .mount("tmpfs", "tmpfs", "/a/b", &["mode=700"])
        .asks(&["mounts", "ls /a/b"]);
    let output = c.run().ok();
    assert!(
        output.answer("mounts").contains("/a,/a/b/c,/a/b"),
        "{}",
        output.answer("mounts")
    );
    assert_eq!(output.answer("ls /a/b"), "");
}

#[test]
fn a_relative_destination_is_below_the_root() {
    let c = bundle!()
        .mount("tmpfs", "tmpfs", "mnt/here", &[])
        .asks(&["mountinfo /mnt/here"]);
    assert_ne!(c.run().ok().answer("mountinfo /mnt/here"), "none");
}

#[test]
fn a_destination_through_a_symlink_stays_inside() {
    let c = bundle!()
        .link("/link", "/real")
        .folder("/real")
        .link("/up", "../../../../tmp");
    let c = c
        .mount("tmpfs", "tmpfs", "/link/sub", &[])
        .mount("tmpfs", "tmpfs", "/up/sub", &[]);
    let output = c.asks(&["mounts"]);
    let mounts = output.run().ok().answer("mounts");
    assert!(
        mounts.contains("/real/sub") && mounts.contains("/tmp/sub"),
        "{mounts}"
    );
}

#[test]
fn the_cgroup_mount_shows_the_own_cgroup() {
    let c = bundle!().asks(&[
        "mountinfo /sys/fs/cgroup",
        "read /sys/fs/cgroup/cgroup.procs",
        "mkdir /sys/fs/cgroup/x",
    ]);
    let output = c.run().ok();
    let line = output.answer("mountinfo /sys/fs/cgroup");
    assert!(line.contains(" - cgroup2 "), "{line}");
    assert_eq!(output.answer("read /sys/fs/cgroup/cgroup.procs"), "1");
    assert_eq!(output.answer("mkdir /sys/fs/cgroup/x"), "EROFS");
}

#[test]
fn without_mounts_the_container_still_starts() {
    let c = bundle!()
        .set("/mounts", json!([]))
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    let c = c.asks(&["ls /proc", "stat /dev/null"]);
    let output = c.run().ok();
    assert_eq!(output.answer("ls /proc"), "");
    assert_eq!(output.answer("stat /dev/null"), "char 1:3 0666 0:0");
}

#[test]
fn hundreds_of_mounts() {
    let c = (0..300).fold(bundle!(), |c, i| {
        c.mount("tmpfs", "tmpfs", &format!("/many/{i}"), &["size=4k"])
    });
    let mounts = c.asks(&["mounts"]).run().ok().answer("mounts");
    assert_eq!(mounts.matches("/many/").count(), 300);
}
