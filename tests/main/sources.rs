//! Sources of binds that lie in the container's own root: they show what the mounts before them have made.

use crate::joined_user::{joining, owner};
use crate::paths::Elsewhere;
use crate::support::{Bundle, private_mounts};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

/// A directory goes on /mnt. The binds on /one and /final have as sources what only that mount shows below the rootfs. The maps
/// are for these two.
fn in_order(c: Bundle, root: &str, maps: Option<Value>) -> Bundle {
    fs::create_dir_all(c.path("first/x/sub")).expect("mkdir");
    fs::write(c.path("first/x/file"), "of the first").expect("write");
    let later = |target: &str, source: &str, option: &str| {
        let mut entry =
            json!({"destination": target, "type": "bind", "source": source, "options": [option]});
        if let Some(maps) = &maps {
            entry["uidMappings"] = maps.clone();
            entry["gidMappings"] = maps.clone();
        }
        entry
    };
    let (first, file) = (c.path("first"), format!("{root}/mnt/x/file"));
    c.mount("bind", &first, "/mnt", &["bind"])
        .push("/mounts", later("/one", &file, "bind"))
        .mount("tmpfs", "tmpfs", "/mnt/x/sub", &[])
        .push(
            "/mounts",
            later("/final", &format!("{root}/mnt/x"), "rbind"),
        )
        .asks(&["read /one", "stat /final/file", "mountinfo /final/sub"])
}

fn assert_in_order(c: &Bundle, owner: u32) {
    let output = c.run().ok();
    assert_eq!(output.answer("read /one"), "of the first");
    assert_eq!(
        output.answer("stat /final/file"),
        format!("file 0644 {owner}:{owner}")
    );
    let below = output.answer("mountinfo /final/sub");
    assert!(below.contains(" - tmpfs "), "{below}");
}

#[test]
fn a_source_in_the_root_shows_earlier_mounts() {
    let c = bundle!();
    let root = c.path("rootfs");
    assert_in_order(&in_order(c, &root, None), 0);
}

#[test]
fn a_source_in_the_root_shows_earlier_mounts_in_a_user_namespace() {
    let c = bundle!().in_user_namespace();
    let root = c.path("rootfs");
    assert_in_order(&in_order(c, &root, None), 65534);
}

/// A directory that the root of the user namespace may not pass leads to the rootfs.
#[test]
fn a_source_in_a_root_that_the_user_cannot_reach_shows_earlier_mounts() {
    let c = bundle!().in_user_namespace();
    let root = c.path("rootfs");
    let c = in_order(c, &root, None);
    fs::set_permissions(&c.dir, PermissionsExt::from_mode(0o700)).expect("chmod");
    assert_in_order(&c, 65534);
}

/// Before the mounts are made, the path leads to an empty directory of the image.
#[test]
fn a_source_that_a_link_leads_into_the_root_shows_earlier_mounts() {
    let c = bundle!().folder("/mnt/x").file("/mnt/x/file", "image");
    let c = c.in_user_namespace();
    symlink(c.rootfs(), c.path("link")).expect("symlink");
    let root = c.path("link");
    assert_in_order(&in_order(c, &root, None), 65534);
}

fn maps() -> Value {
    json!([{"containerID": 0, "hostID": 5000, "size": 10}])
}

#[test]
fn an_idmapped_source_in_the_root_shows_earlier_mounts() {
    let c = bundle!();
    let root = c.path("rootfs");
    assert_in_order(&in_order(c, &root, Some(maps())), 5000);
}

#[test]
fn a_source_on_a_new_filesystem_can_be_idmapped() {
    let c = bundle!();
    let source = c.path("rootfs/t");
    let c = c
        .mount("tmpfs", "tmpfs", "/t", &["mode=711"])
        .push(
            "/mounts",
            json!({"destination": "/mapped", "type": "bind", "source": source, "options": ["bind", "idmap"],
                "uidMappings": maps(), "gidMappings": maps()}),
        )
        .asks(&["stat /mapped", "stat /t"]);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /mapped"), "dir 0711 5000:5000");
    assert_eq!(output.answer("stat /t"), "dir 0711 0:0");
}

#[test]
fn an_idmapped_source_in_a_user_namespace_shows_earlier_mounts() {
    let c = bundle!().in_user_namespace();
    let source = c.path("rootfs/mnt/x");
    fs::create_dir_all(c.path("first/x")).expect("mkdir");
    fs::write(c.path("first/x/file"), "of the first").expect("write");
    let first = c.path("first");
    let c = c
        .mount("bind", &first, "/mnt", &["bind"])
        .mount("bind", &source, "/final", &["rbind", "ridmap"])
        .asks(&["stat /final/file"]);
    assert_eq!(c.run().ok().answer("stat /final/file"), "file 0644 0:0");
}

#[test]
fn a_source_in_an_overlay_root_shows_earlier_mounts() {
    for user in [false, true] {
        let mut c = bundle!();
        if user {
            c = c.in_user_namespace();
        }
        fs::rename(c.rootfs(), c.dir.join("layer")).expect("rename");
        fs::create_dir(c.rootfs()).expect("mkdir");
        c.spec["annotations"] = json!({"dev.cofferdam.overlay.lower": "layer"});
        let root = c.path("rootfs");
        let owner = if user { 65534 } else { 0 };
        assert_in_order(&in_order(c, &root, None), owner);
    }
}

#[test]
fn a_source_in_the_root_of_a_joined_mount_namespace_shows_earlier_mounts() {
    for (maps, owner) in [(None, 0), (Some(maps()), 5000)] {
        let c = bundle!();
        let elsewhere = Elsewhere::new(&c, "true");
        let root = c.path("rootfs");
        assert_in_order(&in_order(elsewhere.join(c), &root, maps), owner);
        drop(elsewhere);
    }
}

/// A tree with a file on which a mount namespace is kept. The kernel lets nobody attach that in the namespace or in an older one.
pub fn with_namespace_kept(c: Bundle) -> Bundle {
    fs::create_dir(c.path("tree")).expect("mkdir");
    let c = c.with_tmpfs("tree", 0);
    let kept = c.path("tree/kept");
    fs::write(c.path("tree/file"), "text").expect("write");
    fs::write(&kept, "").expect("write");
    let succeeds = |words: &[&str]| {
        let done = Command::new(words[0]).args(&words[1..]).status();
        done.expect("run").success()
    };
    assert!(succeeds(&["mount", "--make-private", &c.path("tree")]));
    // Which namespace is the older one is told by numbers of which each processor has a supply of its own.
    let place = format!("--mount={kept}");
    let on = |cpu: i32| succeeds(&["taskset", "-c", &cpu.to_string(), "unshare", &place, "true"]);
    assert!((0..1024).any(on), "keep a mount namespace");
    c
}

#[test]
fn a_tree_in_which_a_mount_namespace_is_kept_can_be_bound() {
    for (option, user) in [
        ("rbind", false),
        ("idmap", false),
        ("ridmap", false),
        ("rbind", true),
        ("ridmap", true),
    ] {
        let mut c = with_namespace_kept(bundle!());
        if user {
            c = c.in_user_namespace();
        }
        let mut entry = json!({"destination": "/data", "type": "bind", "source": c.path("tree"), "options": ["rbind", option]});
        if option != "rbind" && !user {
            entry["uidMappings"] = maps();
            entry["gidMappings"] = maps();
        }
        let c = c.push("/mounts", entry).asks(&["read /data/file"]);
        let answer = c.run().ok().answer("read /data/file");
        assert_eq!(answer, "text", "{option}, {user}");
    }
}

/// A process in a chroot cannot make a user namespace, but join one.
#[test]
fn a_caller_in_a_chroot_has_its_own_sources_in_a_joined_user_namespace() {
    let c = bundle!();
    let owner = owner("owner", Bundle::in_user_namespace);
    let source = c.path("rootfs/etc");
    let c = joining(c.with_tmpfs("host", 0), &owner)
        .mount("bind", &source, "/data", &["bind"])
        .asks(&["read /data/file"]);
    c.write_config();
    let script = "cd \"$PWD/host\" && mkdir -p proc sys dev .SOURCE && mount --rbind /proc proc && mount --rbind /sys sys
        for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 dev/${node%:*} c 1 ${node#*:}; done
        mknod -m 666 dev/tty c 5 0 && cp \"$0\" program && cp -a ../rootfs ../config.json . || exit 99
        echo near > .SOURCE/file; shift 2; exec chroot . /program --root /state \"$@\"";
    let script = script.replace("SOURCE", &source);
    let call = c.call(&["run", "--bundle", "/", &c.id]).cwd(&c.dir);
    let call = call.through_shell(&script);
    let answer = call.setup(private_mounts).finish().ok();
    assert_eq!(answer.answer("read /data/file"), "near");
}
