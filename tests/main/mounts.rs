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

#[test]
fn behind_a_dangling_link_the_target_is_made_inside() {
    let c = bundle!()
        .link("/absolute", "/made/one")
        .folder("/sub")
        .link("/sub/relative", "../made/two/three")
        .link("/out", "../../../../../tmp/cofferdam-canary/four")
        .link("/first", "second")
        .link("/second", "/made/five");
    fs::write(c.path("file"), "text").expect("write");
    let file = c.path("file");
    let c = c
        .mount("tmpfs", "tmpfs", "/absolute", &[])
        .mount("tmpfs", "tmpfs", "/sub/relative/deeper", &[])
        .mount("tmpfs", "tmpfs", "/out/x", &[])
        .mount("bind", &file, "/first", &["bind"])
        .asks(&["mounts", "read /made/five"]);
    let output = c.run().ok();
    let mounts = output.answer("mounts");
    for target in [
        "/made/one",
        "/made/two/three/deeper",
        "/tmp/cofferdam-canary/four/x",
    ] {
        assert!(mounts.split(',').any(|m| m == target), "{target}: {mounts}");
    }
    assert_eq!(output.answer("read /made/five"), "text");
    assert!(!std::path::Path::new("/tmp/cofferdam-canary").exists());
}

#[test]
fn links_in_a_circle_lead_nowhere() {
    let c = bundle!().link("/one", "two/x").link("/two", "one/y");
    let c = c.mount("tmpfs", "tmpfs", "/one", &[]);
    c.create().fails();
    c.assert_gone();
}

#[test]
fn a_dangling_link_is_no_way_into_proc() {
    let c = bundle!().link("/link", "/proc/sys/nonesuch");
    let c = c.mount("tmpfs", "tmpfs", "/link", &[]);
    c.create().fails();
    c.assert_gone();
}

#[test]
fn what_is_mounted_below_is_copied_up_too() {
    let c = bundle!().folder("/data/sub").file("/data/f", "below");
    fs::write(c.path("file"), "text").expect("write");
    let file = c.path("file");
    let c = c
        .mount("tmpfs", "tmpfs", "/data/sub", &["mode=0711"])
        .mount("bind", &file, "/data/sub/file", &["bind"])
        .mount("bind", &file, "/data/f", &["bind"])
        .mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"]);
    let c = c.asks(&[
        "read /data/sub/file",
        "read /data/f",
        "stat /data/sub",
        "ls /data",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /data/sub/file"), "text");
    assert_eq!(output.answer("read /data/f"), "text");
    assert_eq!(output.answer("stat /data/sub"), "dir 0711 0:0");
    assert_eq!(output.answer("ls /data"), "f,sub");
}

#[test]
fn owners_that_have_no_id_inside_become_root() {
    let c = bundle!().file("/data/mine", "1").file("/data/foreign", "2");
    let map = json!([{"containerID": 0, "hostID": 100000, "size": 1000}]);
    let c = c.in_user_namespace();
    let c = c
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    c.give("rootfs/data/foreign", 55);
    let foreign = c.rootfs().join("data/foreign");
    fs::set_permissions(foreign, PermissionsExt::from_mode(0o6755)).expect("chmod");
    c.give("rootfs/data/mine", 100007);
    let c = c.mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"]);
    let c = c.asks(&[
        "stat /data/mine",
        "stat /data/foreign",
        "read /data/foreign",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /data/mine"), "file 0644 7:7");
    assert_eq!(output.answer("stat /data/foreign"), "file 0755 0:0");
    assert_eq!(output.answer("read /data/foreign"), "2");
}

/// A volume that is shared on the host, in a container that runs and may mount.
fn with_volume(c: Bundle, word: &str) -> Bundle {
    let c = c.with_tmpfs("volume", libc::MS_SHARED);
    for name in ["volume/outside", "volume/inside"] {
        fs::create_dir(c.path(name)).expect("mkdir");
    }
    let source = c.path("volume");
    c.mount("bind", &source, "/mnt", &["rbind", "rshared"])
        .set("/linux/rootfsPropagation", json!(word))
        .caps(&["CAP_SYS_ADMIN"])
        .folder("/twice")
}

#[test]
fn propagation_of_the_root_decides_over_its_volumes() {
    for (word, inwards, outwards) in [
        ("shared", true, true),
        ("slave", true, false),
        ("private", false, false),
        ("unbindable", false, false),
    ] {
        let c = with_volume(bundle!(), word);
        let questions = ["mount tmpfs /mnt/inside 0", "line", "mounts"];
        let c = c.asks(&questions);
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let call = c.call_new("run", &[]).fd(reader, 0);
        let running = call.spawn();
        crate::support::wait_until("it has mounted", || running.stdout().contains("inside"));
        let host = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let seen = host.contains(&c.path("volume/inside"));
        let c = c.with_tmpfs("volume/outside", 0);
        drop(writer);
        let output = running.wait().ok();
        assert_eq!(output.answer("mount tmpfs /mnt/inside 0"), "ok", "{word}");
        assert_eq!(seen, outwards, "{word}, outwards");
        let mounts = output.answer("mounts");
        assert_eq!(mounts.contains("/mnt/outside"), inwards, "{word}: {mounts}");
        if seen {
            unmount(&c.path("volume/inside"));
        }
    }
}

fn unmount(path: &str) {
    let path = std::ffi::CString::new(path).expect("a path");
    // SAFETY: the path is a C string.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

#[test]
fn an_unbindable_root_cannot_be_bound() {
    let bind = libc::MS_BIND.to_string();
    let question = format!("syscall 165 s:/ s:/twice z {bind} 0");
    for (word, answer) in [("unbindable", "EINVAL"), ("private", "0")] {
        let c = with_volume(bundle!(), word).asks(&[&question]);
        assert_eq!(c.run().ok().answer(&question), answer, "{word}");
    }
}

#[test]
fn sys_and_cgroup_with_and_without_namespaces_of_their_own() {
    for user in [false, true] {
        for missing in ["none", "network", "cgroup"] {
            let mut c = bundle!();
            if missing != "none" {
                c = c.without("/linux/namespaces", "type", missing);
            }
            if user {
                c = c.in_user_namespace();
            }
            let c = c.asks(&[
                "mountinfo /sys",
                "mountinfo /sys/fs/cgroup",
                "write /sys/kernel/profiling 0",
                "mkdir /sys/fs/cgroup/x",
                "ls /sys/class/net",
            ]);
            let what = format!("user {user}, without {missing}");
            let output = c.run().ok();
            for (target, kind) in [("/sys", "sysfs"), ("/sys/fs/cgroup", "cgroup2")] {
                let line = output.answer(&format!("mountinfo {target}"));
                assert!(line.contains(&format!(" - {kind} ")), "{what}: {line}");
                for flag in ["ro", "nosuid", "nodev", "noexec"] {
                    assert!(has(&options_of(&line).0, flag), "{what}: {line}");
                }
            }
            for question in ["write /sys/kernel/profiling 0", "mkdir /sys/fs/cgroup/x"] {
                assert_eq!(output.answer(question), "EROFS", "{what}");
            }
            let only_loopback = output.answer("ls /sys/class/net") == "lo";
            assert!(missing == "network" || only_loopback, "{what}");
        }
    }
}
