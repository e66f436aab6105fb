//! T08: values longer than the numbers that count them. CVE-2021-43784.

use super::post::{World, attack};
use super::ways::each_way;
use crate::support::{Bundle, Output, Runtime, runtime};
use serde_json::{Value, json};
use std::fs;

const KINDS: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

/// The payload is in the namespaces of the config, and in no other: whatever was long has changed none.
fn assert_confined(c: &Bundle, output: &Output, what: &str) {
    let report = output.report();
    let listed = c.spec["linux"]["namespaces"].as_array().expect("a list");
    let own = |file: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{file}"));
        link.expect("a namespace").display().to_string()
    };
    for (kind, file) in KINDS.into_iter().chain([("user", "user")]) {
        let entry = listed.iter().find(|entry| entry["type"] == kind);
        let new = entry.is_some_and(|entry| entry.get("path").is_none());
        assert_eq!(report["ns"][file] != own(file), new, "{what}: {kind}");
    }
}

fn is_short(output: &Output, limit: usize) -> bool {
    runtime() != Runtime::Cofferdam || output.stderr().len() < limit
}

fn refused_or_confined(c: &Bundle, output: &Output, what: &str) {
    match output.code() {
        0 => assert_confined(c, output, what),
        _ => assert!(is_short(output, 20_000), "{what}: a long error"),
    }
}

#[test]
fn t08_a_path_of_a_namespace_as_long_as_a_counter() {
    for c in each_way!() {
        let mut c = c.asks(&["report"]);
        let mut world = World::new(&c);
        let base = c.spec.clone();
        // Two bytes each: to the limit of paths, to that of a counter of 16 bits, beyond both.
        for times in [2000, 2040, 32_760, 32_768, 70_000] {
            let path = format!("/proc/self{}/ns/net", "/.".repeat(times));
            c.spec = base.clone();
            c = c.without("/linux/namespaces", "type", "network").push(
                "/linux/namespaces",
                json!({"type": "network", "path": path}),
            );
            let what = format!("{times} times /.");
            let output = attack(&c, &mut world, &what);
            assert!(times < 2040 || output.code() != 0, "{what}");
            refused_or_confined(&c, &output, &what);
        }
    }
}

/// So many ids, each with a line of its own. The kernel takes 340 if they are less than a page (user_namespaces(7)).
fn maps(count: u32) -> Value {
    let map = |id| json!({"containerID": id, "hostID": id, "size": 1});
    json!((0..count).map(map).collect::<Vec<_>>())
}

#[test]
fn t08_as_many_lines_of_id_maps_as_the_kernel_takes_and_more() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let mut c = c.asks(&["report"]);
        // Only root has that many ids, and gives them.
        let rootless = c.spec["linux"].get("cgroupsPath").is_none();
        if c.spec["linux"].get("uidMappings").is_none() {
            c = c.in_user_namespace();
        }
        for count in [340, 341, 400, 6000] {
            c = c
                .set("/linux/uidMappings", maps(count))
                .set("/linux/gidMappings", maps(count));
            let what = format!("{count} lines");
            let output = attack(&c, &mut world, &what);
            let taken = count == 340 && !rootless;
            let output = if taken { output.ok() } else { output.fails() };
            let short = rootless || is_short(&output, 500);
            assert!(short, "{what}: a long error");
            refused_or_confined(&c, &output, &what);
            if taken {
                let report = output.report();
                let map = report["uid_map"].as_str().expect("a map");
                assert_eq!(map.lines().count(), 340);
            }
        }
    }
}

#[test]
fn t08_strings_of_megabytes() {
    for c in each_way!() {
        let mut c = c.asks(&["report"]);
        let mut world = World::new(&c);
        let base = c.spec.clone();
        let long = "x".repeat(65_536 + 5);
        let huge = "x".repeat(2 << 20);
        let many: Vec<String> = (0..30)
            .map(|i| format!("V{i}={}", &long[..50_000]))
            .collect();
        let mut args = vec!["/payload".to_string(), "report".into(), ";".into()];
        args.push("env".into());
        args.extend((0..30).map(|_| long[..50_000].to_string()));
        let cases = [
            (
                "/annotations",
                json!({"org.example.long": huge, "org.example.64k": long}),
            ),
            ("/process/env", json!([format!("A={long}")])),
            ("/process/env", json!([format!("A={huge}")])),
            ("/process/env", json!(many)),
            (
                "/process/args",
                json!(["/payload", "report", ";", "env", long]),
            ),
            (
                "/process/args",
                json!(["/payload", "report", ";", "env", huge]),
            ),
            ("/process/args", json!(args)),
            ("/process/cwd", json!(format!("/{long}"))),
            ("/hostname", json!(long)),
            (
                "/root/path",
                json!(format!("{}rootfs", "./".repeat(40_000))),
            ),
            (
                "/linux/cgroupsPath",
                json!(format!("/cofferdam-test/{long}")),
            ),
        ];
        for (pointer, value) in cases {
            let size = value.to_string().len();
            c.spec = base.clone();
            if pointer == "/linux/cgroupsPath" && c.spec["linux"].get("cgroupsPath").is_none() {
                continue;
            }
            c = c.set(pointer, value);
            let what = format!("{pointer} of {size} bytes");
            let output = attack(&c, &mut world, &what);
            refused_or_confined(&c, &output, &what);
        }
    }
}

#[test]
fn t08_hundreds_of_mounts_and_a_large_environment() {
    for mut c in each_way!() {
        let mut world = World::new(&c);
        for number in 0..600 {
            c = c.mount("tmpfs", "tmpfs", &format!("/m/{number}"), &["size=4k"]);
        }
        let env: Vec<String> = (0..30)
            .map(|number| format!("V{number}={}", "x".repeat(50_000)))
            .collect();
        c = c
            .set("/process/env", json!(env))
            .asks(&["env V29", "ls /m", "mounts"]);
        let output = attack(&c, &mut world, "600 mounts").ok();
        assert_eq!(output.answer("env V29").len(), 50_000);
        assert_eq!(output.answer("ls /m").split(',').count(), 600);
        let mounts = output.answer("mounts");
        let below = mounts.split(',').filter(|place| place.starts_with("/m/"));
        assert_eq!(below.count(), 600);
    }
}
