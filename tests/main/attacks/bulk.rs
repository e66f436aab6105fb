//! T38, T39: more of something than the runtime has room or time for.

use super::ways::each_way;
use crate::support::Bundle;
use serde_json::{Value, json};
use std::fs;

/// Runs with few open files. The limits of the container would be raised before the directory is copied.
fn with_few_files(c: Bundle) -> Bundle {
    c.remove("/process/rlimits")
        .mount("tmpfs", "tmpfs", "/data", &["tmpcopyup", "size=16m"])
}

const FEW: &str = "ulimit -n 32; exec \"$0\" \"$@\"";

#[test]
fn t38_more_directories_than_open_files_are_copied() {
    for c in each_way!() {
        for number in 0..100 {
            let dir = c.rootfs().join(format!("data/{number:02}/below"));
            fs::create_dir_all(&dir).expect("mkdir");
            fs::write(dir.join("file"), number.to_string()).expect("write");
        }
        let c = with_few_files(c).asks(&[
            "ls /data",
            "read /data/00/below/file",
            "read /data/99/below/file",
        ]);
        let output = c.call_new("run", &[]).through_shell(FEW).finish().ok();
        assert_eq!(output.answer("ls /data").split(',').count(), 100);
        assert_eq!(output.answer("read /data/00/below/file"), "0");
        assert_eq!(output.answer("read /data/99/below/file"), "99");
    }
}

#[test]
fn t38_directories_inside_each_other_are_copied() {
    let path = "data".to_string() + &"/d".repeat(1000);
    let c = with_few_files(bundle!()).file(&path, "deep");
    let question = format!("read /{path}");
    let c = c.asks(&[&question]);
    let output = c.call_new("run", &[]).through_shell(FEW).finish().ok();
    assert_eq!(output.answer(&question), "deep");
}

/// No path is long enough to open them.
#[test]
fn t38_directories_deeper_than_a_path_are_told() {
    let c = with_few_files(bundle!()).asks(&["exit 0"]);
    let half = (0..10)
        .map(|_| "n".repeat(250))
        .collect::<Vec<_>>()
        .join("/");
    for name in ["data", "other"] {
        fs::create_dir_all(c.rootfs().join(name).join(&half)).expect("mkdir");
    }
    let (from, to) = (
        c.rootfs().join("other"),
        c.rootfs().join("data").join(&half),
    );
    fs::rename(from, to.join("other")).expect("rename");
    c.create()
        .fails_naming("deeper than a path can be long, 4095 bytes");
}

/// The names of the list as they may be written, and how often something is mounted there.
fn assert_mounted_once(c: Bundle, list: &str, paths: Vec<Value>, place: &str) {
    let c = c.set(list, json!(paths)).asks(&["mounts"]);
    let mounts = c.run().ok().answer("mounts");
    let there = mounts.split(',').filter(|mount| *mount == place).count();
    assert_eq!(there, 1, "{list}");
}

#[test]
fn t39_what_is_hidden_or_protected_again_and_again_is_so_once() {
    let written = [
        "/etc/secret",
        "/etc//secret",
        "/etc/./secret",
        "/etc/x/../secret",
        "/etc/secret/",
    ];
    let paths: Vec<Value> = (0..1000)
        .flat_map(|_| written.map(|path| json!(path)))
        .collect();
    for list in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
        for c in each_way!() {
            assert_mounted_once(
                c.file("/etc/secret", "SECRET"),
                list,
                paths.clone(),
                "/etc/secret",
            );
        }
    }
}

/// A directory is masked by another mount than a file.
#[test]
fn t39_a_directory_that_is_hidden_again_and_again_is_so_once() {
    let paths = vec![json!("/etc/dir"); 1000];
    let c = bundle!().folder("/etc/dir");
    assert_mounted_once(c, "/linux/maskedPaths", paths, "/etc/dir");
}

/// A node of the host is bound where none can be made.
#[test]
fn t39_a_device_that_is_listed_again_and_again_is_bound_once() {
    let device = |path| json!({"type": "c", "path": path, "major": 1, "minor": 3});
    let devices = ["/dev/null", "/dev//null"].map(device);
    let devices: Vec<Value> = (0..500).flat_map(|_| devices.clone()).collect();
    for c in each_way!().skip(1) {
        assert_mounted_once(c, "/linux/devices", devices.clone(), "/dev/null");
    }
}

/// Each rule is compared with those before it: there is an end to that where no program could hold them.
#[test]
fn t39_more_rules_for_a_call_than_a_filter_can_hold_are_told() {
    let rule = |value: u32| {
        let args = json!([{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]);
        json!({"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "args": args})
    };
    let rules: Vec<Value> = (0..5000).map(rule).collect();
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let c = bundle!().set("/linux/seccomp", filter);
    c.create().fails_naming(
        "linux.seccomp.syscalls[4096]: getpid on SCMP_ARCH_X86_64: the filter needs more instructions",
    );
    c.assert_gone();
}
