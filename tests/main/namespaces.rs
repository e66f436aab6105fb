//! Namespaces: new ones, joined ones, inherited ones, id maps and clock offsets.

use crate::support::Bundle;
use serde_json::{Value, json};
use std::fs;
use std::io;

const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

/// Our own namespace, as the link says it.
fn own(file: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{file}"))
        .expect("a namespace")
        .display()
        .to_string()
}

fn of(pid: i32, file: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{file}"))
        .expect("a namespace")
        .display()
        .to_string()
}

fn join(c: Bundle, kind: &str, path: &str) -> Bundle {
    c.without("/linux/namespaces", "type", kind)
        .push("/linux/namespaces", json!({"type": kind, "path": path}))
}

/// A second bundle whose container runs and owns namespaces.
fn owner(test: &str, spec: impl Fn(Bundle) -> Bundle) -> Bundle {
    let c = spec(Bundle::new(test)).asks(&["pause"]);
    c.up();
    c
}

#[test]
fn listed_namespaces_are_new() {
    let c = bundle!();
    let report = c.run().ok().report();
    for (kind, file) in KINDS {
        assert_ne!(report["ns"][file], own(file).as_str(), "{kind}");
    }
    assert_eq!(report["ns"]["user"], own("user").as_str());
    assert_eq!(report["pid"], 1);
}

#[test]
fn namespaces_that_are_not_listed_are_inherited() {
    let mut c = bundle!().remove("/hostname").set("/mounts", json!([]));
    c = c
        .mount("proc", "proc", "/proc", &[])
        .mount("tmpfs", "tmpfs", "/dev", &[]);
    let before = c.spec.clone();
    for (kind, file) in KINDS.iter().filter(|(kind, _)| *kind != "mount") {
        c.spec = before.clone();
        c = c.without("/linux/namespaces", "type", kind);
        let report = c.run().ok().report();
        assert_eq!(report["ns"][file], own(file).as_str(), "{kind}");
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    let c = bundle!();
    let owner = owner("owner", |c| c);
    let pid = owner.pid();
    let joined = ["network", "ipc", "uts"]
        .iter()
        .fold(c.remove("/hostname"), |c, kind| {
            let file = KINDS.iter().find(|(k, _)| k == kind).expect("a kind").1;
            join(c, kind, &format!("/proc/{pid}/ns/{file}"))
        });
    let report = joined.run().ok().report();
    for file in ["net", "ipc", "uts"] {
        assert_eq!(report["ns"][file], of(pid, file).as_str(), "{file}");
    }
    assert_eq!(report["hostname"], "cofferdam-test");
}

#[test]
fn a_pid_namespace_is_joined() {
    let c = bundle!();
    let owner = owner("owner", |c| c);
    let c = join(c, "pid", &format!("/proc/{}/ns/pid", owner.pid()));
    let report = c.run().ok().report();
    assert_eq!(report["ns"]["pid"], of(owner.pid(), "pid").as_str());
    assert_ne!(report["pid"], 1);
}

#[test]
fn a_namespace_of_the_wrong_type_is_refused() {
    let c = bundle!();
    let c = join(c, "network", "/proc/self/ns/uts");
    c.create().fails();
    c.assert_gone();
}

#[test]
fn a_path_that_is_no_namespace_is_refused() {
    let mut c = bundle!();
    for path in ["/etc/passwd", "/no/such/file", "/dev/null", "/"] {
        c = join(c, "network", path);
        c.create().fails();
        c.assert_gone();
    }
}

#[test]
fn a_relative_namespace_path_is_refused() {
    let c = join(bundle!(), "network", "ns/net");
    c.create().fails_naming("linux.namespaces");
    c.assert_gone();
}

#[test]
fn duplicate_namespaces_are_refused() {
    let c = bundle!().push("/linux/namespaces", json!({"type": "ipc"}));
    c.create().fails_naming("linux.namespaces");
    c.assert_gone();
}

#[test]
fn unknown_namespaces_are_refused() {
    let c = bundle!().push("/linux/namespaces", json!({"type": "imaginary"}));
    c.create().fails_with("imaginary");
    c.assert_gone();
}

#[test]
fn the_hostname() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let c = bundle!().set("/hostname", json!("inside"));
    assert_eq!(c.run().ok().report()["hostname"], "inside");
    assert_eq!(
        fs::read_to_string("/proc/sys/kernel/hostname").expect("a name"),
        host
    );
}

#[test]
fn the_domainname() {
    let c = bundle!().set("/domainname", json!("example.org"));
    assert_eq!(c.run().ok().report()["domainname"], "example.org");
}

#[test]
fn a_hostname_needs_a_namespace() {
    let c = bundle!().without("/linux/namespaces", "type", "uts");
    c.create().fails_naming("hostname");
    c.assert_gone();
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    let c = bundle!().asks(&["read /proc/net/route", "read /sys/class/net/lo/flags"]);
    let output = c.run().ok();
    // IFF_UP is bit 0.
    assert_eq!(output.answer("read /sys/class/net/lo/flags"), "0x9");
}

#[test]
fn the_own_cgroup_is_the_root_of_the_cgroup_namespace() {
    let c = bundle!();
    let report = c.run().ok().report();
    let lines = report["cgroup"].as_str().expect("lines");
    assert!(lines.lines().any(|l| l == "0::/"), "{lines}");
}

#[test]
fn without_a_cgroup_namespace_the_path_is_seen() {
    let c = bundle!().without("/linux/namespaces", "type", "cgroup");
    let report = c.run().ok().report();
    let lines = report["cgroup"].as_str().expect("lines");
    assert!(
        lines.contains(&format!("/cofferdam-test/{}", c.id)),
        "{lines}"
    );
}

#[test]
fn a_user_namespace_with_maps() {
    let c = bundle!().in_user_namespace().asks(&[
        "report",
        "stat /payload",
        "stat /dev/null",
        "write /new text",
    ]);
    let output = c.run().ok();
    let report = output.report();
    assert_eq!((&report["uid"], &report["gid"]), (&json!(0), &json!(0)));
    let map: Vec<&str> = report["uid_map"]
        .as_str()
        .expect("a map")
        .split_whitespace()
        .collect();
    assert_eq!(map, ["0", "100000", "65536"]);
    assert_eq!(report["uid_map"], report["gid_map"]);
    assert_ne!(report["ns"]["user"], own("user").as_str());
    assert!(output.answer("stat /payload").ends_with(" 0:0"));
    assert!(output.answer("stat /dev/null").starts_with("char 1:3 0666"));
    let owner = fs::metadata(c.rootfs().join("new")).expect("written");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 100000);
}

#[test]
fn several_ranges_of_ids() {
    let map = json!([
        {"containerID": 0, "hostID": 100000, "size": 1000},
        {"containerID": 1000, "hostID": 300000, "size": 1},
        {"containerID": 5000, "hostID": 400000, "size": 10},
    ]);
    let c = bundle!()
        .in_user_namespace()
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    let c = c.set(
        "/process/user",
        json!({"uid": 1000, "gid": 5003, "additionalGids": [1, 5009]}),
    );
    let report = c.run().ok().report();
    assert_eq!(
        (&report["uid"], &report["gid"]),
        (&json!(1000), &json!(5003))
    );
    assert_eq!(report["groups"], json!([1, 5009]));
    assert_eq!(
        report["uid_map"].as_str().expect("a map").lines().count(),
        3
    );
}

#[test]
fn message_queues_belong_to_the_root_of_the_user_namespace() {
    let c = bundle!()
        .in_user_namespace()
        .asks(&["stat /dev/mqueue", "stat /dev/shm"]);
    let output = c.run().ok();
    assert_eq!(output.answer("stat /dev/mqueue"), "dir 1777 0:0");
    assert_eq!(output.answer("stat /dev/shm"), "dir 1777 0:0");
}

#[test]
fn an_id_without_a_map_is_refused() {
    let c = bundle!()
        .in_user_namespace()
        .set("/process/user", json!({"uid": 70000, "gid": 0}));
    c.create().fails();
    c.assert_gone();
}

#[test]
fn a_user_namespace_needs_maps_and_maps_need_it() {
    let c = bundle!().push("/linux/namespaces", json!({"type": "user"}));
    c.create().fails_naming("linux.uidMappings");
    c.assert_gone();
    let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    let c = c.without("/linux/namespaces", "type", "user");
    let c = c
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    c.create().fails_naming("linux.uidMappings");
    c.assert_gone();
}

#[test]
fn clock_offsets() {
    let c = bundle!().push("/linux/namespaces", json!({"type": "time"}));
    let offsets =
        json!({"boottime": {"secs": 1000000, "nanosecs": 5}, "monotonic": {"secs": 500000}});
    let c =
        c.set("/linux/timeOffsets", offsets)
            .asks(&["clock boottime", "clock monotonic", "report"]);
    let output = c.run().ok();
    let clock = |name: &str| {
        output
            .answer(&format!("clock {name}"))
            .parse::<i64>()
            .expect("seconds")
    };
    let uptime = fs::read_to_string("/proc/uptime").expect("uptime");
    let uptime: f64 = uptime
        .split(' ')
        .next()
        .and_then(|s| s.parse().ok())
        .expect("seconds");
    assert!((clock("boottime") - uptime as i64 - 1_000_000).abs() < 60);
    assert!((clock("monotonic") - uptime as i64 - 500_000).abs() < 60);
    assert_ne!(output.report()["ns"]["time"], own("time").as_str());
}

#[test]
fn clock_offsets_need_the_namespace() {
    let c = bundle!().set(
        "/linux/timeOffsets",
        json!({"monotonic": {"secs": 1, "nanosecs": 0}}),
    );
    c.create().fails_naming("linux.timeOffsets");
    c.assert_gone();
}

#[test]
fn sysctls_of_own_namespaces() {
    let c = bundle!().set("/linux/sysctl", json!({
        "net.ipv4.ip_forward": "1", "kernel.msgmax": "4242", "net/ipv4/ip_default_ttl": "33", "kernel.shm_rmid_forced": "1",
    }));
    let c = c.asks(&[
        "read /proc/sys/net/ipv4/ip_forward",
        "read /proc/sys/kernel/msgmax",
        "read /proc/sys/net/ipv4/ip_default_ttl",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /proc/sys/net/ipv4/ip_forward"), "1");
    assert_eq!(output.answer("read /proc/sys/kernel/msgmax"), "4242");
    assert_eq!(
        output.answer("read /proc/sys/net/ipv4/ip_default_ttl"),
        "33"
    );
}

#[test]
fn sysctls_of_the_host_are_refused() {
    let mut c = bundle!();
    let before = c.spec.clone();
    for key in [
        "kernel.core_pattern",
        "vm.swappiness",
        "fs.file-max",
        "net/../kernel/core_pattern",
        "user.max_user_namespaces",
    ] {
        c.spec = before.clone();
        c.spec["linux"]["sysctl"] = json!({key: "1"});
        c.create().fails_naming("linux.sysctl");
        c.assert_gone();
    }
    for (kind, key) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.msgmax"),
        ("ipc", "fs.mqueue.msg_max"),
    ] {
        c.spec = before.clone();
        c = c
            .without("/linux/namespaces", "type", kind)
            .set("/linux/sysctl", json!({key: "1"}));
        c.create().fails_naming("linux.sysctl");
        c.assert_gone();
    }
}

#[test]
fn a_joined_time_namespace() {
    let c = bundle!();
    let owner = owner("owner", |c| {
        let c = c.push("/linux/namespaces", json!({"type": "time"}));
        c.set(
            "/linux/timeOffsets",
            json!({"monotonic": {"secs": 777000, "nanosecs": 0}}),
        )
    });
    let path = format!("/proc/{}/ns/time", owner.pid());
    let c = c
        .push("/linux/namespaces", json!({"type": "time", "path": path}))
        .asks(&["clock monotonic"]);
    let clock: i64 = c
        .run()
        .ok()
        .answer("clock monotonic")
        .parse()
        .expect("seconds");
    assert!(clock > 777_000, "{clock}");
}

#[test]
fn all_namespaces_at_once() {
    let c = bundle!()
        .in_user_namespace()
        .push("/linux/namespaces", json!({"type": "time"}));
    let report: Value = c.run().ok().report();
    for file in ["pid", "net", "ipc", "uts", "mnt", "cgroup", "user", "time"] {
        assert_ne!(report["ns"][file], own(file).as_str(), "{file}");
    }
}

#[test]
fn without_a_mount_namespace_the_root_is_only_changed() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "mount")
        .set("/mounts", json!([]));
    let c = c
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .asks(&["ls /"]);
    // In a mount namespace of the call's own, so that nothing can reach the host.
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: unshare and mount touch no memory of ours.
        let result = unsafe {
            libc::unshare(libc::CLONE_NEWNS);
            libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    });
    let output = call.finish();
    assert!(
        output.code() != 0 || output.answer("ls /").contains("payload"),
        "{}",
        output.describe()
    );
}

#[test]
fn without_a_mount_namespace_no_mount_stays() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "mount")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .asks(&["stat /proc/1"]);
    let stays = |c: &Bundle| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        mounts.contains(&c.rootfs().display().to_string())
    };
    c.run().ok();
    assert!(!stays(&c), "after run");
    c.create().ok();
    assert!(stays(&c), "while created");
    c.delete(&[]).ok();
    assert!(!stays(&c), "after delete");
    let c = c.set("/process/args", json!(["/nonesuch"]));
    c.create().fails();
    assert!(!stays(&c), "after a failed create");
}

#[test]
fn joined_host_namespaces_are_not_changed() {
    let path = "/proc/self/ns/net";
    let c = bundle!()
        .without("/linux/namespaces", "type", "network")
        .push(
            "/linux/namespaces",
            json!({"type": "network", "path": path}),
        )
        .set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "63"}));
    c.create().fails_naming("net.ipv4.ip_default_ttl");
    c.assert_gone();
    let ttl = fs::read_to_string("/proc/sys/net/ipv4/ip_default_ttl").expect("read");
    assert_ne!(ttl.trim(), "63");
}

/// As an ordinary user: whoever makes the user namespace first has the right to the clock of the container.
#[test]
fn clock_offsets_in_a_user_namespace() {
    let c = bundle!()
        .in_user_namespace()
        .push("/linux/namespaces", json!({"type": "time"}))
        .set(
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}}),
        )
        .asks(&["clock boottime"]);
    let seconds: f64 = c
        .run()
        .ok()
        .answer("clock boottime")
        .parse()
        .expect("a number");
    assert!(seconds > 1_000_000.0, "{seconds}");
}
