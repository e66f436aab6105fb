//! Mounts whose destination is `/`: they are the root of the container from then on.

use crate::support::{Bundle, copy_program, mounts_below};
use serde_json::{Value, json};
use std::fs;

const WAYS: [&[&str]; 2] = [&[], &["--no-pivot"]];

/// A second tree beside the rootfs that has the program and a file of its own.
pub fn tree(c: &Bundle) -> String {
    for name in ["proc", "dev", "sys", "data", "tmp"] {
        fs::create_dir_all(c.dir.join("tree").join(name)).expect("mkdir");
    }
    copy_program(&c.rootfs().join("payload"), &c.dir.join("tree/payload"));
    fs::write(c.path("tree/which"), "tree").expect("write");
    c.path("tree")
}

pub fn entry(kind: &str, source: &str, target: &str, options: &[&str]) -> Value {
    json!({"destination": target, "type": kind, "source": source, "options": options})
}

/// Puts the entry before all others.
pub fn first(mut c: Bundle, entry: Value) -> Bundle {
    let list = c.spec["mounts"].as_array_mut().expect("a list");
    list.insert(0, entry);
    c
}

#[test]
fn a_directory_becomes_the_root() {
    for flags in WAYS {
        for user in [false, true] {
            let mut c = bundle!().file("/which", "rootfs");
            let tree = tree(&c);
            if user {
                c = c.in_user_namespace();
                c.give("tree", 100000);
            }
            let c = first(c, entry("bind", &tree, "/", &["rbind"]))
                .flag(flags)
                .mount("tmpfs", "tmpfs", "/data", &[])
                .push("/linux/maskedPaths", json!("/data"))
                .push("/linux/readonlyPaths", json!("/tmp"))
                .asks(&[
                    "read /which",
                    "write /written x",
                    "write /tmp/x y",
                    "write /data/x y",
                    "stat /dev/null",
                    "lstat /dev/ptmx",
                    "mountinfo /proc",
                ]);
            let output = c.run().ok();
            assert_eq!(output.answer("read /which"), "tree", "{flags:?}");
            assert_eq!(output.answer("write /written x"), "ok");
            assert_eq!(output.answer("write /tmp/x y"), "EROFS");
            assert_eq!(output.answer("write /data/x y"), "EROFS");
            assert!(output.answer("stat /dev/null").starts_with("char 1:3"));
            assert_eq!(output.answer("lstat /dev/ptmx"), "link -> pts/ptmx");
            assert!(output.answer("mountinfo /proc").contains(" - proc "));
            assert!(c.dir.join("tree/written").exists());
            assert!(!c.rootfs().join("written").exists());
        }
    }
}

#[test]
fn a_new_filesystem_becomes_the_root() {
    for flags in WAYS {
        let c = bundle!().file("/which", "rootfs");
        let program = c.path("program");
        copy_program(&c.rootfs().join("payload"), &c.dir.join("program"));
        let c = first(c, entry("bind", &program, "/payload", &["bind"]));
        let c = first(c, entry("tmpfs", "tmpfs", "/", &["mode=711", "size=1m"]));
        let c = c.flag(flags).set("/root/readonly", json!(true)).asks(&[
            "stat /",
            "read /which",
            "write /x y",
            "write /dev/shm/x y",
            "mountinfo /",
        ]);
        let output = c.run().ok();
        assert_eq!(output.answer("stat /"), "dir 0711 0:0");
        assert_eq!(output.answer("read /which"), "ENOENT");
        assert_eq!(output.answer("write /x y"), "EROFS");
        assert_eq!(output.answer("write /dev/shm/x y"), "ok");
        assert!(output.answer("mountinfo /").contains(" - tmpfs "));
    }
}

/// Earlier mounts are covered; nodes and links are made in the new root.
#[test]
fn a_late_root_covers_what_came_before() {
    let c = bundle!();
    let tree = tree(&c);
    let c = c
        .mount("bind", &tree, "/", &["bind"])
        .asks(&["read /which", "write /x y", "mounts"]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /which"), "tree");
    assert_eq!(output.answer("write /x y"), "ok");
    assert_eq!(output.answer("mounts"), "");
    assert!(c.dir.join("tree/dev/null").exists());
}

#[test]
fn a_tmpfs_takes_in_the_root() {
    let c = bundle!().file("/which", "rootfs");
    let c = first(c, entry("tmpfs", "tmpfs", "/", &["tmpcopyup"]));
    let c = c.asks(&["read /which", "write /x y"]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /which"), "rootfs");
    assert_eq!(output.answer("write /x y"), "ok");
    assert!(!c.rootfs().join("x").exists());
}

#[test]
fn a_shared_root_is_not_covered_on_the_host() {
    let c = bundle!();
    let tree = tree(&c);
    let c = c.with_tmpfs("rootfs", libc::MS_SHARED);
    let before = mounts_below(&c.dir);
    let c = first(c, entry("bind", &tree, "/", &["rbind"]))
        .set("/linux/rootfsPropagation", json!("shared"))
        .asks(&["read /which", "pause"]);
    c.up();
    assert_eq!(mounts_below(&c.dir), before);
    c.delete(&["--force"]).ok();
    assert_eq!(mounts_below(&c.dir), before);
}

#[test]
fn an_overlay_can_be_covered_too() {
    let mut c = bundle!();
    let tree = tree(&c);
    fs::rename(c.rootfs(), c.dir.join("layer")).expect("rename");
    fs::create_dir(c.rootfs()).expect("mkdir");
    c.spec["annotations"] = json!({"dev.cofferdam.overlay.lower": "layer"});
    let c = first(c, entry("bind", &tree, "/", &["rbind"])).asks(&["read /which", "mountinfo /"]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /which"), "tree");
    assert!(!output.answer("mountinfo /").contains("overlay"));
}

/// Without a mount namespace it lies on the rootfs, until the container is deleted.
#[test]
fn without_a_mount_namespace_the_mount_ends_with_the_container() {
    let c = bundle!();
    let tree = tree(&c);
    let before = mounts_below(&c.dir);
    let c = c
        .without("/linux/namespaces", "type", "mount")
        .set("/mounts", json!([]))
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .mount("bind", &tree, "/", &["bind"])
        .asks(&["read /which"]);
    assert_eq!(c.run().ok().answer("read /which"), "tree");
    assert_eq!(mounts_below(&c.dir), before);
}

/// The root would cover the mount, and nobody would see it.
#[test]
fn a_link_to_the_root_is_no_place_for_a_mount() {
    let c = bundle!();
    std::os::unix::fs::symlink("/", c.rootfs().join("up")).expect("symlink");
    let c = c.mount("tmpfs", "tmpfs", "/up", &[]);
    c.create()
        .fails_naming("leads to the root by a symbolic link; give / as the destination");
    c.assert_gone();
}
