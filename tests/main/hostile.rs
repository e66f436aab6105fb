//! Images, bundles and helpers that mean harm: what belongs to the host stays as it is.

use crate::support::{Bundle, node};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

/// A directory that stands for the /dev of the host.
fn with_host_dev(c: Bundle) -> Bundle {
    fs::create_dir_all(c.path("host/pts")).expect("mkdir");
    fs::create_dir_all(c.path("host/shm")).expect("mkdir");
    fs::create_dir_all(c.path("host/mqueue")).expect("mkdir");
    fs::write(c.path("host/ptmx"), "of the host").expect("write");
    node(&c.path("host/null"), libc::S_IFCHR, 1, 3);
    let null = json!({"type": "c", "path": "/dev/null", "major": 1, "minor": 3, "uid": 7, "gid": 7, "fileMode": 0o640});
    c.push("/linux/devices", null)
        .without("/mounts", "destination", "/dev")
        .asks(&["open /dev/null w"])
}

fn assert_untouched(c: &Bundle) {
    let null = fs::metadata(c.path("host/null")).expect("stat");
    assert_eq!((null.uid(), null.gid()), (0, 0), "owner of the host's node");
    assert_ne!(null.mode() & 0o7777, 0o640, "mode of the host's node");
    assert_eq!(
        fs::read_to_string(c.path("host/ptmx")).expect("read"),
        "of the host"
    );
}

#[test]
fn nodes_of_the_host_behind_a_link_of_the_image_keep_their_owner() {
    let c = with_host_dev(bundle!());
    fs::remove_dir(c.path("rootfs/dev")).expect("rmdir");
    symlink("/data", c.path("rootfs/dev")).expect("symlink");
    let source = c.path("host");
    let c = c.set("/mounts", json!([{"destination": "/data", "type": "bind", "source": source, "options": ["bind"]}]));
    assert_eq!(c.run().ok().answer("open /dev/null w"), "ok");
    assert_untouched(&c);
}

#[test]
fn nodes_of_the_host_mounted_below_the_rootfs_keep_their_owner() {
    let c = with_host_dev(bundle!().with_tmpfs("rootfs/dev", 0));
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(c.path(&format!("rootfs/dev/{name}"))).expect("mkdir");
    }
    node(&c.path("rootfs/dev/null"), libc::S_IFCHR, 1, 3);
    fs::write(c.path("rootfs/dev/ptmx"), "of the host").expect("write");
    c.run().ok();
    let null = fs::metadata(c.path("rootfs/dev/null")).expect("stat");
    assert_eq!((null.uid(), null.gid()), (0, 0), "owner of the host's node");
    assert_eq!(
        fs::read_to_string(c.path("rootfs/dev/ptmx")).expect("read"),
        "of the host"
    );
}
