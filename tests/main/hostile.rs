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
    let c = c.set(
        "/mounts",
        json!([{"destination": "/data", "type": "bind", "source": source, "options": ["bind"]}]),
    );
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

fn put_record(c: &Bundle, text: &str) -> std::path::PathBuf {
    let dir = c.state_root().join("other");
    fs::create_dir_all(&dir).expect("mkdir");
    fs::write(dir.join("state"), text).expect("write");
    dir
}

#[test]
fn a_record_of_another_user_is_not_believed() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let proof = c.path("proof");
    let hook = json!({"path": "/bin/touch", "args": ["touch", proof], "env": []});
    let record = json!({"id": "other", "bundle": "/", "hooks": {"poststop": [hook]}});
    let dir = put_record(&c, &format!("{record}\n"));
    std::os::unix::fs::chown(&dir, Some(1234), Some(1234)).expect("chown");
    for verb in ["state", "delete"] {
        c.call(&[verb, "other"])
            .finish()
            .fails_with("belongs to user 1234, who could have put anything there");
    }
    c.call(&["delete", "--force", "other"]).finish().fails();
    assert!(!fs::exists(&proof).expect("stat"), "the hook has run");
    let list = c.call(&["list", "--quiet"]).finish().ok();
    assert_eq!(list.stdout().trim(), c.id);
    fs::remove_dir_all(dir).expect("remove");
}

#[test]
fn records_that_are_no_plain_files_are_damaged_and_can_be_deleted() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let path = c.state_root().join("other/state");
    let make: [fn(&std::path::Path); 3] = [
        |path| {
            let file = fs::File::create(path).expect("create");
            file.set_len(1 << 40).expect("grow");
        },
        |path| {
            fs::remove_file(path).expect("remove");
            node(path.to_str().expect("a path"), libc::S_IFIFO, 0, 0);
        },
        |path| {
            fs::remove_file(path).expect("remove");
            symlink("/dev/zero", path).expect("symlink");
        },
    ];
    for make in make {
        let dir = put_record(&c, "");
        make(&path);
        c.call(&["state", "other"])
            .finish()
            .fails_with("is damaged; end and remove what is left with \"delete --force\"");
        c.call(&["list"]).finish().ok();
        c.call(&["delete", "--force", "other"]).finish().ok();
        assert!(!dir.exists());
    }
}

#[test]
fn a_link_is_no_container() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let link = c.state_root().join("other");
    symlink(c.state_root().join(&c.id), &link).expect("symlink");
    c.call(&["state", "other"])
        .finish()
        .fails_with("container does not exist");
    fs::remove_file(&link).expect("remove");
}

/// Each command ends as soon as every other one has to.
#[test]
fn large_lists_do_not_take_long() {
    let names: Vec<String> = (0..100_000).map(|number| format!("A{number}=1")).collect();
    let c = bundle!()
        .set("/process/env", json!(names))
        .asks(&["env A99999"]);
    let output = c.run().ok();
    assert_eq!(output.answer("env A99999"), "1");
    let rule = |number: u32| json!({"allow": true, "type": "c", "major": number, "minor": number, "access": "r"});
    let rules: Vec<_> = (0..100_000).map(rule).collect();
    let c = bundle!().set("/linux/resources/devices", json!(rules));
    c.create().fails_with("linux.resources.devices: 100");
    let mut rules: Vec<_> = (0..2000)
        .map(|number| json!({"allow": true, "type": "c", "major": number, "access": "r"}))
        .collect();
    rules.extend(
        (0..2000)
            .map(|number| json!({"allow": false, "type": "c", "minor": number, "access": "r"})),
    );
    let c = bundle!().set("/linux/resources/devices", json!(rules));
    c.create().fails_with("must fit in a program of");
}

#[test]
fn a_config_without_end_is_refused() {
    let mut c = bundle!();
    c.raw = Some(format!("{{\"ociVersion\": \"{}\"}}", "x".repeat(40 << 20)));
    c.create().fails_with("and no config is that long");
    c.raw = Some(format!("{{\"ociVersion\": \"{}\"}}", "x".repeat(1 << 20)));
    let output = c.create().fails();
    assert!(
        output.stderr().len() < 20_000,
        "{} bytes",
        output.stderr().len()
    );
}

#[test]
fn a_hostname_has_no_nul() {
    let c = bundle!().set("/hostname", json!("a\0b"));
    c.create()
        .fails_with("hostname: \"a\\0b\": must not contain a NUL");
}

/// What is printed of a config: one line for one thing, and nothing that a terminal obeys.
#[test]
fn a_config_cannot_write_to_the_terminal() {
    let evil = "x\nexec [\"/bin/good\"]\u{1b}]0;title\u{7}\u{9b}2J\u{202e}";
    let c = bundle!()
        .set("/process/cwd", json!(format!("/{evil}")))
        .set("/process/env", json!([format!("A={evil}")]))
        .set("/process/apparmorProfile", json!(evil))
        .set("/process/selinuxLabel", json!(evil))
        .set("/hostname", json!(evil))
        .mount("bind", &format!("/{evil}"), &format!("/{evil}"), &["bind"]);
    let check = |text: String| {
        let bad = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!text.contains(bad), "{text:?}");
        assert!(!text.contains("\nexec [\"/bin/good\"]"), "{text}");
    };
    check(c.call_new("create", &["--dry-run"]).finish().ok().stdout());
    check(c.create().fails().stderr());
    let c = c
        .remove("/process/apparmorProfile")
        .remove("/process/selinuxLabel");
    check(c.create().fails().stderr());
}

#[test]
fn a_device_without_end_is_no_config() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    for args in [
        &["update", "--resources", "/dev/zero", &c.id][..],
        &["exec", "--process", "/dev/zero", &c.id],
        &["mounts", "add", "--config", "/dev/zero", &c.id],
        &[
            "create",
            "--config",
            "/dev/zero",
            "--bundle",
            &c.path(""),
            "x",
        ],
    ] {
        c.call(args)
            .finish()
            .fails_with("and no config is that long");
    }
}

/// Without a mount namespace its mounts are among those of the host, and its directories can be moved meanwhile.
#[test]
fn no_mount_of_the_host_is_taken_away_by_delete() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "mount")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .with_tmpfs("host/place", 0)
        .link("/link", "/linked")
        .mount("tmpfs", "tmpfs", "/dir/place", &[])
        .mount("tmpfs", "tmpfs", "/link", &[])
        .asks(&["pause"]);
    let (host, moved) = (c.path("host"), c.path("rootfs/moved"));
    c.create().ok();
    fs::rename(c.path("rootfs/dir"), &moved).expect("rename");
    symlink(&host, c.path("rootfs/dir")).expect("symlink");
    c.delete(&["--force"]).ok();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let is_mounted = |path: &str| mounts.contains(&format!(" {path} "));
    let own = format!("{moved}/place");
    let found =
        [&format!("{host}/place"), &own, &c.path("rootfs/linked")].map(|path| is_mounted(path));
    let path = std::ffi::CString::new(own).expect("a path");
    // SAFETY: the path is a C string that outlives the call.
    let unmounted = unsafe { libc::umount(path.as_ptr()) };
    assert_eq!((found, unmounted), ([true, true, false], 0));
}
