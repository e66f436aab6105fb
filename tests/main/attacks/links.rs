//! T12, T16: links of the image at each place where a runtime makes something, to a directory of the host.
//! CVE-2025-24965, CVE-2026-41579, CVE-2026-47766, CVE-2026-87766.

use super::post::World;
use super::ways::{each_way, run_and_start};
use crate::support::terminal::{Terminal, listen};
use crate::support::{Bundle, Runtime, runtime};
use serde_json::json;
use std::fs;

const NODES: [&str; 13] = [
    "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin", "stdout",
    "stderr", "core",
];

/// All mounts below /dev, and a device besides the usual ones.
pub fn without_dev(mut c: Bundle) -> Bundle {
    let mounts = c.spec["mounts"].as_array_mut().expect("mounts");
    mounts.retain(|m| {
        m["destination"]
            .as_str()
            .is_some_and(|d| !d.starts_with("/dev"))
    });
    c
}

fn with_a_device(c: Bundle) -> Bundle {
    c.push(
        "/linux/devices",
        json!({"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}),
    )
}

#[test]
fn t16_a_link_at_dev_changes_nothing_on_the_host() {
    for mut c in each_way!() {
        let mut world = World::with(&c, &["ptmx"]);
        let base = c.spec.clone();
        for target in [
            world.outside.dir.clone(),
            world.outside.upwards(),
            "/first".into(),
            "first/../second".into(),
        ] {
            for with_mounts in [true, false] {
                c.spec = base.clone();
                c = c.asks(&["exit 0"]).folder("/first");
                c = c
                    .link("/second", &world.outside.upwards())
                    .link("/first", &world.outside.dir)
                    .link("/dev", &target);
                if !with_mounts {
                    c = without_dev(c);
                }
                run_and_start(&c);
                world.assert_untouched(&format!("/dev -> {target}, its mounts: {with_mounts}"));
            }
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t16_a_device_behind_a_link_at_dev_is_not_made_on_the_host() {
    for mut c in each_way!() {
        let mut world = World::with(&c, &["ptmx", "fuse"]);
        c = with_a_device(without_dev(c)).asks(&["exit 0"]);
        for target in [world.outside.dir.clone(), world.outside.upwards()] {
            c = c.link("/dev", &target);
            run_and_start(&c);
            world.assert_untouched(&target);
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t16_a_link_below_dev_changes_nothing_on_the_host() {
    for mut c in each_way!() {
        let mut world = World::with(&c, &["ptmx"]);
        let base = c.spec.clone();
        let targets = [world.outside.dir.clone(), world.outside.upwards()];
        let names = ["pts", "shm", "mqueue"].iter();
        for (name, target) in names.flat_map(|name| targets.each_ref().map(|to| (name, to))) {
            let _ = fs::remove_dir_all(c.rootfs().join("dev"));
            for with_mounts in [true, false] {
                c.spec = base.clone();
                c = c
                    .asks(&["exit 0"])
                    .folder("/dev")
                    .link(&format!("/dev/{name}"), target);
                c = match with_mounts {
                    true => c.without("/mounts", "destination", "/dev"),
                    false => without_dev(c),
                };
                run_and_start(&c);
                let what = format!("/dev/{name} -> {target}, its mounts: {with_mounts}");
                world.assert_untouched(&what);
            }
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t12_links_in_the_place_of_devices_lead_nowhere() {
    for mut c in each_way!() {
        // Every second one is there.
        let mut world = World::with(
            &c,
            &[
                "null", "full", "urandom", "console", "fd", "stdout", "core", "fuse",
            ],
        );
        c = with_a_device(without_dev(c)).asks(&["exit 0"]);
        for name in NODES.iter().chain(&["fuse"]) {
            for target in [world.outside.dir.clone(), world.outside.upwards()] {
                let _ = fs::remove_dir_all(c.rootfs().join("dev"));
                c = c
                    .folder("/dev")
                    .link(&format!("/dev/{name}"), &format!("{target}/{name}"));
                c.run();
                world.assert_untouched(&format!("/dev/{name} -> {target}"));
            }
        }
        let _ = fs::remove_dir_all(c.rootfs().join("dev"));
        c = c.folder("/dev");
        for name in NODES {
            c = c.link(
                &format!("/dev/{name}"),
                &format!("{}/{name}", world.outside.dir),
            );
        }
        run_and_start(&c);
        world.assert_untouched("all at once");
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t12_a_link_in_the_place_of_the_console_leads_nowhere() {
    for mut c in each_way!() {
        let mut world = World::with(&c, &["there"]);
        let devpts = c.spec["mounts"][2].clone();
        c = without_dev(c)
            .push("/mounts", devpts)
            .set("/process/terminal", json!(true));
        c = c.asks(&["exit 0"]).folder("/dev");
        let path = c.dir.join("console.sock");
        let _listener = listen(&path);
        let flag = format!("--console-socket={}", path.display());
        if c.spec.pointer("/linux/uidMappings").is_some() {
            c.give("console.sock", super::ways::USER);
        }
        for target in
            ["there", "missing", "new/missing"].map(|name| format!("{}/{name}", world.outside.dir))
        {
            c = c.link("/dev/console", &target);
            c.call_new("create", &[&flag]).finish();
            c.delete(&["--force"]).ok();
            world.assert_untouched(&target);
            let (_terminal, slave) = Terminal::pair(80, 24);
            c.call_new("run", &[]).on_terminal(slave).finish();
            world.assert_untouched(&target);
        }
        world.assert_after(&c, "afterwards");
    }
}

/// The working directory, what is masked or read-only, and targets of mounts: the last name is a link, or one on the way.
#[test]
fn t12_links_on_the_way_to_what_is_made_lead_nowhere() {
    let kinds: [fn(Bundle, &str, &str) -> Bundle; 4] = [
        |c, _, to| c.mount("tmpfs", "tmpfs", to, &[]),
        |c, file, to| c.mount("bind", file, to, &["bind"]),
        |c, _, to| c.mount("bind", "/tmp", to, &["rbind", "ro"]),
        |c, _, to| {
            c.set("/process/cwd", json!(to))
                .push("/linux/maskedPaths", json!(to))
                .push("/linux/readonlyPaths", json!(to))
        },
    ];
    let targets = [
        "/evil/made",
        "/evil/deep/made",
        "/evil/there",
        "/file",
        "/new",
        "/new/deep",
        "/up/made",
        "/up",
    ];
    for c in each_way!() {
        let mut world = World::with(&c, &["there"]);
        let source = c.path("source");
        fs::write(&source, "text").expect("write");
        let mut c = c
            .asks(&["exit 0"])
            .link("/evil", &world.outside.dir)
            .link("/up", &world.outside.upwards())
            .link("/file", &format!("{}/there", world.outside.dir))
            .link("/new", &format!("{}/new", world.outside.dir));
        let base = c.spec.clone();
        for (kind, target) in kinds
            .iter()
            .flat_map(|kind| targets.map(|target| (kind, target)))
        {
            c.spec = base.clone();
            c = kind(c, &source, target);
            c.run();
            world.assert_untouched(target);
        }
        world.assert_after(&c, "afterwards");
    }
}

/// What joins a container meets the links that the container has made since.
#[test]
fn t12_links_in_a_running_container_lead_nowhere() {
    for c in each_way!() {
        let mut world = World::with(&c, &["there"]);
        let c = c
            .asks(&["pause"])
            .link("/evil", &world.outside.dir)
            .link("/up", &world.outside.upwards());
        c.up();
        for cwd in ["/evil", "/evil/new", "/up", "/up/new"] {
            let args = ["exec", "--cwd", cwd, &c.id, "/payload", "ls", "."];
            let output = c.call(&args).finish();
            assert!(
                !output.stdout().contains("there"),
                "{cwd}: {}",
                output.describe()
            );
            world.assert_untouched(cwd);
        }
        if runtime() != Runtime::Cofferdam {
            continue;
        }
        for to in ["/evil/made", "/evil/there", "/up/made", "/up"] {
            for more in [&["-t", "tmpfs"][..], &["/tmp"], &["/bin/sh"]] {
                let args = [&["mounts", "add", &c.id], more, &[to]].concat();
                c.call(&args).finish();
                world.assert_untouched(to);
            }
        }
        world.assert_after(&c, "afterwards");
    }
}
