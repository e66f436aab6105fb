//! Masked paths, read-only paths, and a read-only root.

use crate::support::{Bundle, exchange, lines, wait_until};
use serde_json::json;
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn masked_files_read_as_nothing() {
    let c = bundle!()
        .file("/etc/secret", "SECRET")
        .push("/linux/maskedPaths", json!("/etc/secret"));
    let c = c.asks(&[
        "read /etc/secret",
        "stat /etc/secret",
        "write /etc/secret x",
        "read /proc/keys",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /etc/secret"), "");
    assert!(output.answer("stat /etc/secret").starts_with("char 1:3"));
    assert_eq!(output.answer("read /proc/keys"), "");
    assert_eq!(
        std::fs::read_to_string(c.rootfs().join("etc/secret")).expect("read"),
        "SECRET"
    );
}

#[test]
fn masked_directories_are_empty_and_read_only() {
    let c = bundle!()
        .file("/data/deep/file", "x")
        .push("/linux/maskedPaths", json!("/data"));
    let c = c.asks(&[
        "ls /data",
        "write /data/new x",
        "stat /data",
        "ls /sys/firmware",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("ls /data"), "");
    assert_eq!(output.answer("write /data/new x"), "EROFS");
    assert!(output.answer("stat /data").starts_with("dir"));
    assert_eq!(output.answer("ls /sys/firmware"), "");
}

#[test]
fn many_masked_directories() {
    let mut c = bundle!();
    for index in 0..40 {
        c = c
            .file(&format!("/m{index}/f"), "x")
            .push("/linux/maskedPaths", json!(format!("/m{index}")));
    }
    assert_eq!(
        c.asks(&["ls /m0", "ls /m39"]).run().ok().answer("ls /m39"),
        ""
    );
}

#[test]
fn missing_paths_are_passed_over() {
    let c = bundle!()
        .set("/linux/maskedPaths", json!(["/no/such/path"]))
        .set("/linux/readonlyPaths", json!(["/no/such/path"]))
        .asks(&["stat /no"]);
    assert_eq!(c.run().ok().answer("stat /no"), "ENOENT");
}

#[test]
fn a_path_below_a_file_is_passed_over() {
    let c = bundle!()
        .file("/file", "text")
        .set("/linux/maskedPaths", json!(["/file/below"]))
        .set("/linux/readonlyPaths", json!(["/file/below"]))
        .asks(&["read /file"]);
    assert_eq!(c.run().ok().answer("read /file"), "text");
}

#[test]
fn the_same_path_twice() {
    let c = bundle!().folder("/data").set(
        "/linux/maskedPaths",
        json!(["/data", "/data", "/proc/keys", "/proc/keys"]),
    );
    assert_eq!(c.asks(&["ls /data"]).run().ok().answer("ls /data"), "");
}

#[test]
fn read_only_paths() {
    let c = bundle!().file("/data/file", "x").file("/single", "x");
    let c = c.set(
        "/linux/readonlyPaths",
        json!(["/data", "/single", "/proc/sys"]),
    );
    let questions = [
        "read /data/file",
        "write /data/file y",
        "write /data/new y",
        "write /single y",
        "write /proc/sys/kernel/domainname y",
        "write /other y",
    ];
    let c = c.asks(&questions);
    let output = c.run().ok();
    assert_eq!(output.answer("read /data/file"), "x");
    for question in &questions[1..5] {
        assert_eq!(output.answer(question), "EROFS", "{question}");
    }
    assert_eq!(output.answer("write /other y"), "ok");
}

#[test]
fn read_only_paths_keep_other_flags() {
    let c = bundle!().mount("tmpfs", "tmpfs", "/mnt", &["nosuid", "nodev", "noexec"]);
    let c = c
        .push("/linux/readonlyPaths", json!("/mnt"))
        .asks(&["mountinfo /mnt"]);
    let line = c.run().ok().answer("mountinfo /mnt");
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(
            line.split([',', ' ']).any(|o| o == option),
            "{option}: {line}"
        );
    }
}

#[test]
fn a_read_only_root() {
    let c = bundle!()
        .set("/root/readonly", json!(true))
        .mount("tmpfs", "tmpfs", "/tmp", &[]);
    let c = c.asks(&[
        "write /x y",
        "mkdir /tmp/x",
        "write /dev/shm/x y",
        "write /dev/null y",
        "mountinfo /",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("write /x y"), "EROFS");
    for question in ["mkdir /tmp/x", "write /dev/shm/x y", "write /dev/null y"] {
        assert_eq!(output.answer(question), "ok", "{question}");
    }
    assert!(
        output.answer("mountinfo /").contains(" / ro,"),
        "{}",
        output.answer("mountinfo /")
    );
}

#[test]
fn a_read_only_root_gets_its_mount_points() {
    let c =
        bundle!()
            .set("/root/readonly", json!(true))
            .mount("tmpfs", "tmpfs", "/new/target", &[]);
    assert_eq!(
        c.asks(&["write /new/target/x y"])
            .run()
            .ok()
            .answer("write /new/target/x y"),
        "ok"
    );
}

#[test]
fn a_user_namespace_has_masked_and_read_only_paths_too() {
    let c = bundle!()
        .file("/etc/secret", "SECRET")
        .in_user_namespace()
        .set("/root/readonly", json!(true));
    let c = c.push("/linux/maskedPaths", json!("/etc/secret"));
    let c = c.asks(&[
        "read /etc/secret",
        "write /x y",
        "write /proc/sys/kernel/domainname x",
        "read /proc/keys",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /etc/secret"), "");
    assert_eq!(output.answer("write /x y"), "EROFS");
    assert_eq!(
        output.answer("write /proc/sys/kernel/domainname x"),
        "EROFS"
    );
}

#[test]
fn paths_must_be_absolute() {
    let mut c = bundle!();
    for list in ["maskedPaths", "readonlyPaths"] {
        let before = c.spec.clone();
        c = c.push(&format!("/linux/{list}"), json!("relative/path"));
        c.create().fails_naming(&format!("linux.{list}"));
        c.spec = before;
    }
}

#[test]
fn a_masked_file_is_no_way_to_the_device_of_the_host() {
    use std::os::unix::fs::PermissionsExt;
    let c = bundle!().set(
        "/process/args",
        json!(["/payload", "chown", "/proc/keys", "1"]),
    );
    let mode = || {
        std::fs::metadata("/dev/null")
            .expect("stat")
            .permissions()
            .mode()
    };
    let before = mode();
    let answer = c.run().stdout();
    assert!(answer.contains("EROFS"), "{answer}");
    assert_eq!(mode(), before);
}

#[test]
fn masked_directories_share_one_file_system() {
    let mut c = bundle!();
    for index in 0..3 {
        c = c
            .folder(&format!("/m{index}"))
            .push("/linux/maskedPaths", json!(format!("/m{index}")));
    }
    let c = c.asks(&["pause"]);
    c.up();
    let info = lines(Path::new(&format!("/proc/{}/mountinfo", c.pid())));
    let device = |target: &str| {
        let fields = info.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        let mut found = fields.filter(|fields| fields[4] == target);
        found.next().expect("a mask")[2].to_string()
    };
    assert_eq!(device("/m0"), device("/m1"));
    assert_eq!(device("/m0"), device("/m2"));
    assert_eq!(device("/m0"), device("/sys/firmware"));
}

/// The volume came with its own filesystem below, of which the config says nothing.
#[test]
fn read_only_paths_take_in_what_came_with_a_mount() {
    let c = bundle!();
    fs::create_dir(c.path("data")).expect("mkdir");
    let c = c.with_tmpfs("data/sub", libc::MS_NOEXEC);
    let data = c.path("data");
    let c = c
        .mount("bind", &data, "/data", &["rbind"])
        .set("/linux/readonlyPaths", json!(["/data"]))
        .asks(&[
            "write /data/x y",
            "write /data/sub/x y",
            "mountinfo /data/sub",
        ]);
    let output = c.run().ok();
    assert_eq!(output.answer("write /data/x y"), "EROFS");
    assert_eq!(output.answer("write /data/sub/x y"), "EROFS");
    let line = output.answer("mountinfo /data/sub");
    assert!(line.contains("noexec"), "{line}");
}

/// runc and crun make the place alone read-only.
#[test]
fn a_mount_that_lies_below_a_read_only_path_by_a_link_is_as_its_options_say() {
    for (mount, path) in [("/data/deep", "/link"), ("/link/deep", "/data")] {
        let c = bundle!()
            .folder("/data")
            .link("/link", "data")
            .mount("tmpfs", "tmpfs", mount, &[])
            .set("/linux/readonlyPaths", json!([path]))
            .asks(&["write /data/deep/x y", "write /data/x y"]);
        let output = c.run().ok();
        assert_eq!(output.answer("write /data/deep/x y"), "ok", "{mount}");
        assert_eq!(output.answer("write /data/x y"), "EROFS", "{mount}");
    }
}

#[test]
fn a_mount_below_a_read_only_path_is_as_its_options_say() {
    for user in [false, true] {
        let mut c = bundle!();
        if user {
            c = c.owned_in_user_namespace();
        }
        fs::create_dir(c.path("volume")).expect("mkdir");
        fs::set_permissions(c.path("volume"), PermissionsExt::from_mode(0o777)).expect("chmod");
        let volume = c.path("volume");
        let c = c
            .folder("/data/rootfs")
            .mount("bind", &volume, "/data/volume", &["rbind", "rw"])
            .mount("bind", &volume, "/data/ro", &["bind", "ro"])
            .mount("tmpfs", "tmpfs", "/data/new/deep", &[])
            .set("/linux/readonlyPaths", json!(["/data", "/data/rootfs"]))
            .asks(&[
                "write /data/volume/x y",
                "write /data/new/deep/x y",
                "write /data/ro/x y",
                "write /data/x y",
                "write /data/new/x y",
                "write /data/rootfs/x y",
            ]);
        let output = c.run().ok();
        for written in ["/data/volume/x", "/data/new/deep/x"] {
            assert_eq!(output.answer(&format!("write {written} y")), "ok", "{user}");
        }
        for kept in ["/data/ro/x", "/data/x", "/data/new/x", "/data/rootfs/x"] {
            let answer = output.answer(&format!("write {kept} y"));
            assert_eq!(answer, "EROFS", "{user}: {kept}");
        }
    }
}

/// A mount namespace of the host's mounts, with this done in it; ends with this value.
pub struct Elsewhere {
    process: Child,
}

impl Elsewhere {
    pub fn new(c: &Bundle, script: &str) -> Elsewhere {
        let ready = c.path("ready");
        let script = format!("{script}; touch {ready}; exec sleep 60");
        let mut command = Command::new("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-c", &script]);
        let process = command.spawn().expect("unshare");
        wait_until("the namespace is there", || Path::new(&ready).exists());
        Elsewhere { process }
    }

    pub fn join(&self, c: Bundle) -> Bundle {
        let path = format!("/proc/{}/ns/mnt", self.process.id());
        c.without("/linux/namespaces", "type", "mount")
            .push("/linux/namespaces", json!({"type": "mount", "path": path}))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_joined_mount_namespace_takes_masks_and_needs_no_proc() {
    let c = bundle!()
        .file("/etc/secret", "SECRET")
        .file("/data/file", "x");
    let elsewhere = Elsewhere::new(&c, "mount -t tmpfs none /proc");
    let c = elsewhere.join(c);
    let device = json!({"type": "c", "path": "/dev/mine", "major": 1, "minor": 3,
        "fileMode": 0o640, "uid": 5, "gid": 6});
    let c = c
        .push("/linux/maskedPaths", json!("/etc/secret"))
        .set("/linux/readonlyPaths", json!(["/etc"]))
        .push("/linux/devices", device)
        .mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"])
        .asks(&[
            "read /etc/secret",
            "write /etc/new x",
            "stat /dev/mine",
            "read /data/file",
            "ls /sys/firmware",
        ]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /etc/secret"), "");
    assert_eq!(output.answer("write /etc/new x"), "EROFS");
    assert_eq!(output.answer("stat /dev/mine"), "char 1:3 0640 5:6");
    assert_eq!(output.answer("read /data/file"), "x");
    assert_eq!(output.answer("ls /sys/firmware"), "");
    drop(elsewhere);
}

/// Somebody exchanges a directory of the image with a link to the host for as long as this lives.
fn swapping<T>(c: &Bundle, act: impl FnOnce() -> T) -> T {
    let paths = ["a", "swapped"]
        .map(|name| CString::new(c.rootfs().join(name).display().to_string()).expect("a path"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                exchange(&paths);
            }
        });
        let done = act();
        stop.store(true, Ordering::Relaxed);
        done
    })
}

#[test]
fn a_target_that_is_swapped_never_leads_out() {
    let c = bundle!().folder("/a").file("/etc/text", "text");
    let (outside, text) = (c.path("outside"), c.path("rootfs/etc/text"));
    std::fs::create_dir(&outside).expect("mkdir");
    let mut c = c.link("/swapped", &outside).asks(&["stat /a"]);
    for index in 0..20 {
        c = c
            .mount("tmpfs", "tmpfs", &format!("/a/d{index}"), &[])
            .mount("bind", &text, &format!("/a/f{index}"), &["bind"])
            .push("/linux/maskedPaths", json!(format!("/a/m{index}")));
    }
    let tries = swapping(&c, || {
        let end = Instant::now() + Duration::from_secs(1);
        (0..).find(|_| {
            c.run();
            Instant::now() > end
        })
    });
    assert!(tries.is_some());
    let left = std::fs::read_dir(&outside).expect("read").count();
    assert_eq!(left, 0, "made outside");
}

#[test]
fn a_joined_mount_namespace_of_the_host_takes_none() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "mount")
        .set("/mounts", json!([]))
        .push(
            "/linux/namespaces",
            json!({"type": "mount", "path": "/proc/self/ns/mnt"}),
        );
    c.create().fails_naming("would change the host");
    c.assert_gone();
}

#[test]
fn the_root_of_a_joined_mount_namespace_stays_as_it_is() {
    let c = bundle!();
    let elsewhere = Elsewhere::new(&c, "true");
    let c = elsewhere.join(c).set("/root/readonly", json!(true));
    c.create()
        .fails_naming("root.readonly: true: needs a new mount namespace");
    c.assert_gone();
}
