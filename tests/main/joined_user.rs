//! User namespaces that are joined by their path: the maps, the clock, and those that cannot be.

use crate::support::Bundle;
use serde_json::json;
use std::fs;

/// A namespace of a process, as its link says it.
fn of(pid: i32, file: &str) -> String {
    let link = fs::read_link(format!("/proc/{pid}/ns/{file}"));
    link.expect("a namespace").display().to_string()
}

/// A second bundle whose container runs and owns namespaces.
pub fn owner(test: &str, spec: impl Fn(Bundle) -> Bundle) -> Bundle {
    let c = spec(Bundle::new(test)).asks(&["pause"]);
    c.up();
    c
}

/// With maps as the owner has them.
pub fn joining(c: Bundle, owner: &Bundle) -> Bundle {
    let path = format!("/proc/{}/ns/user", owner.pid());
    c.in_user_namespace()
        .without("/linux/namespaces", "type", "user")
        .push("/linux/namespaces", json!({"type": "user", "path": path}))
}

#[test]
fn a_user_namespace_is_joined() {
    let c = bundle!();
    let owner = owner("owner", Bundle::in_user_namespace);
    let c = joining(c, &owner);
    let c = c
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .set("/mounts", json!([]));
    let c = c
        .mount("proc", "proc", "/proc", &[])
        .mount("tmpfs", "tmpfs", "/dev", &[]);
    let report = c.run().ok().report();
    assert_eq!(report["ns"]["user"], of(owner.pid(), "user").as_str());
    assert_eq!(report["uid"], 0);
}

#[test]
fn a_joined_user_namespace_with_equal_maps() {
    let c = bundle!();
    let owner = owner("owner", Bundle::in_user_namespace);
    let c = joining(c, &owner);
    assert_eq!(
        c.run().ok().report()["ns"]["user"],
        of(owner.pid(), "user").as_str()
    );
}

#[test]
fn streams_are_given_to_a_user_of_a_joined_user_namespace() {
    let c = bundle!();
    let owner = owner("owner", Bundle::in_user_namespace);
    let c = joining(c, &owner)
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings")
        .set("/mounts", json!([]))
        .mount("proc", "proc", "/proc", &[])
        .mount("tmpfs", "tmpfs", "/dev", &[])
        .asks(&["open /proc/self/fd/2 w"]);
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    let output = c.call_new("run", &[]).fd(writer, 2).finish().ok();
    assert_eq!(output.answer("open /proc/self/fd/2 w"), "ok");
}

#[test]
fn maps_that_a_joined_user_namespace_does_not_have_are_refused() {
    let c = bundle!();
    let owner = owner("owner", Bundle::in_user_namespace);
    let path = format!("/proc/{}/ns/user", owner.pid());
    let mut c = c
        .in_user_namespace()
        .without("/linux/namespaces", "type", "user")
        .push("/linux/namespaces", json!({"type": "user", "path": path}));
    let equal = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    let other = json!([{"containerID": 0, "hostID": 100000, "size": 1000}]);
    for (uids, gids, field) in [
        (&other, &equal, "linux.uidMappings: [0 100000 1000]"),
        (&equal, &other, "linux.gidMappings: [0 100000 1000]"),
    ] {
        c = c
            .set("/linux/uidMappings", uids.clone())
            .set("/linux/gidMappings", gids.clone());
        c.create().fails_naming(field);
        c.assert_gone();
    }
}

/// Whose owner may be in it: the file for offsets is opened before.
#[test]
fn clock_offsets_in_a_joined_user_namespace() {
    let c = bundle!();
    let owner = owner("owner", Bundle::in_user_namespace);
    let path = format!("/proc/{}/ns/user", owner.pid());
    let c = c
        .push("/linux/namespaces", json!({"type": "user", "path": path}))
        .push("/linux/namespaces", json!({"type": "time"}))
        .set(
            "/linux/timeOffsets",
            json!({"boottime": {"secs": 1_000_000}}),
        )
        .asks(&["clock boottime", "report"]);
    c.give("rootfs", 100_000);
    let output = c.run().ok();
    let seconds: f64 = output.answer("clock boottime").parse().expect("a number");
    assert!(seconds > 1_000_000.0, "{seconds}");
    assert_ne!(
        output.report()["ns"]["time"],
        of(std::process::id() as i32, "time").as_str()
    );
}

#[test]
fn a_user_namespace_that_cannot_be_joined_is_refused_with_maps_too() {
    let map = json!([{"containerID": 0, "hostID": 0, "size": 4294967295u32}]);
    // setns(2) refuses the own one.
    let c = bundle!()
        .push(
            "/linux/namespaces",
            json!({"type": "user", "path": "/proc/self/ns/user"}),
        )
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map);
    c.create().fails_naming("].path: setns(");
    c.assert_gone();
}

/// Neither the mount nor the container has maps of its own: those of the namespace serve.
#[test]
fn an_idmapped_mount_takes_the_maps_of_a_joined_user_namespace() {
    let c = bundle!();
    let owner = owner("owner", Bundle::in_user_namespace);
    fs::create_dir_all(c.path("source/sub")).expect("mkdir");
    let c = joining(c.with_tmpfs("source/sub", 0), &owner)
        .remove("/linux/uidMappings")
        .remove("/linux/gidMappings");
    for (name, id) in [("source/file", 0), ("source/sub/file", 7)] {
        fs::write(c.path(name), "x").expect("write");
        std::os::unix::fs::chown(c.path(name), Some(id), Some(id)).expect("chown");
    }
    let (source, later) = (c.path("source"), c.path("rootfs/top/file"));
    let c = c
        .mount("bind", &source, "/top", &["rbind", "idmap"])
        .mount("bind", &source, "/all", &["rbind", "ridmap"])
        .mount("bind", &later, "/later", &["bind"])
        .asks(&[
            "stat /top/file",
            "stat /all/file",
            "stat /all/sub/file",
            "stat /later",
        ]);
    let output = c.run().ok();
    for (question, id) in [
        ("/top/file", 0),
        ("/all/file", 0),
        ("/all/sub/file", 7),
        ("/later", 0),
    ] {
        let answer = output.answer(&format!("stat {question}"));
        assert_eq!(answer, format!("file 0644 {id}:{id}"), "{question}");
    }
}
