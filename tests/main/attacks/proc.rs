//! T05, T06: what stands in for /proc, and places of /proc and /sys that lead elsewhere.
//! CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-52881, CVE-2025-54867, CVE-2025-62596.

use super::post::{World, attack};
use super::ways::each_way;
use crate::support::{Bundle, skipped};
use serde_json::json;
use std::fs;
use std::path::Path;

const SYSCTL: &str = "/proc/sys/net/ipv4/ip_forward";

/// Without what else would be done below /proc.
fn bare(c: Bundle) -> Bundle {
    c.remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
}

fn mounted_at(mut c: Bundle, target: &str) -> Bundle {
    let mounts = c.spec["mounts"].as_array_mut().expect("mounts");
    let proc = mounts.iter_mut().find(|m| m["destination"] == "/proc");
    proc.expect("a proc")["destination"] = json!(target);
    c
}

#[test]
fn t05_a_sysctl_is_not_written_into_a_fake_proc() {
    for c in each_way!() {
        let mut c = bare(c).set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        let mut world = World::new(&c);
        let question = format!("read {SYSCTL}");
        c = c.asks(&[&question]);
        assert_eq!(
            attack(&c, &mut world, "the real one").answer(&question),
            "1"
        );
        c = c
            .without("/mounts", "destination", "/proc")
            .file(SYSCTL, "UNTOUCHED");
        let fake = c.rootfs().join(&SYSCTL[1..]);
        attack(&c, &mut world, "a file of the image");
        assert_eq!(fs::read_to_string(&fake).expect("read"), "UNTOUCHED");
        fs::remove_file(&fake).expect("remove");
        c = c.link(SYSCTL, "/etc/canary").file("/etc/canary", "CANARY");
        attack(&c, &mut world, "a link to a file of the image");
        let canary = fs::read_to_string(c.rootfs().join("etc/canary"));
        assert_eq!(canary.expect("read"), "CANARY");
        let outside = format!("{}/ptmx", world.outside.dir);
        c = c.link(SYSCTL, &outside);
        attack(&c, &mut world, "a link to a file of the host");
    }
}

/// The real procfs is somewhere else, so that what is at /proc has to be believed or not.
#[test]
fn t05_a_sysctl_does_not_follow_a_covered_proc() {
    for c in each_way!() {
        let c = bare(c).set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        let mut world = World::new(&c);
        fs::create_dir_all(c.path("fake/sys/net/ipv4")).expect("mkdir");
        fs::create_dir_all(c.path("fake/self")).expect("mkdir");
        let fake = c.path("fake/sys/net/ipv4/ip_forward");
        fs::write(&fake, "UNTOUCHED").expect("write");
        let source = c.path("fake");
        let question = format!("read {SYSCTL}");
        let c = c.asks(&[&question]);
        let base = c.spec.clone();
        let mut c = c;
        for target in ["/proc", "/proc/sys", "/proc/sys/net/ipv4"] {
            c.spec = base.clone();
            c = c.mount("bind", &source, target, &["rbind"]);
            attack(&c, &mut world, target);
            assert_eq!(fs::read_to_string(&fake).expect("read"), "UNTOUCHED");
        }
    }
}

#[test]
fn t05_proc_is_procfs_however_it_is_spelled() {
    for c in each_way!() {
        let mut c = c.link("/plink", "proc").folder("/x");
        let mut world = World::new(&c);
        let base = c.spec.clone();
        let targets = [
            "/proc",
            "/proc/",
            "//proc",
            "/./proc",
            "/x/../proc",
            "/plink",
        ];
        for (target, kind) in targets
            .iter()
            .flat_map(|target| [(target, "tmpfs"), (target, "bind")])
        {
            c.spec = base.clone();
            c = c.without("/mounts", "destination", "/proc");
            let source = match kind {
                "bind" => c.path("outside"),
                _ => kind.into(),
            };
            let options: &[&str] = if kind == "bind" { &["rbind"] } else { &[] };
            c = c.mount(kind, &source, target, options);
            let what = format!("{kind} on {target}");
            attack(&c, &mut world, &what).fails_with("proc");
        }
    }
}

#[test]
fn t05_nothing_is_mounted_below_proc() {
    for c in each_way!() {
        let mut c = c.link("/self", "/proc/self").asks(&["status CapEff"]);
        let mut world = World::new(&c);
        let base = c.spec.clone();
        let outside = format!("{}/ptmx", world.outside.dir);
        let cases = [
            ("tmpfs", "tmpfs", "/proc/self/attr"),
            ("tmpfs", "tmpfs", "/proc/thread-self/attr"),
            ("tmpfs", "tmpfs", "/proc/1/attr"),
            ("tmpfs", "tmpfs", "/self/attr"),
            ("tmpfs", "tmpfs", "/proc/sys"),
            ("tmpfs", "tmpfs", "/proc/1"),
            ("tmpfs", "tmpfs", "/proc/self"),
            ("bind", &outside, "/proc/sys/kernel/core_pattern"),
            ("bind", &outside, "/proc/self/attr/exec"),
            ("bind", &outside, "/proc/self/attr/apparmor/exec"),
            ("bind", &outside, "/proc/self/oom_score_adj"),
            (
                "bind",
                "/proc/sys/kernel/core_pattern",
                "/proc/self/attr/exec",
            ),
        ];
        for (kind, source, target) in cases {
            c.spec = base.clone();
            let options: &[&str] = if kind == "bind" { &["bind"] } else { &[] };
            c = c.mount(kind, source, target, options);
            let what = format!("{source} on {target}");
            attack(&c, &mut world, &what).fails_with("proc");
        }
    }
}

#[test]
fn t05_a_label_is_not_written_into_a_fake_proc() {
    let profiles = Path::new("/sys/kernel/security/apparmor/profiles");
    if !profiles.exists() {
        skipped("in part: this kernel has no AppArmor");
    }
    let apparmor = profiles.exists();
    for c in each_way!() {
        let mut c = bare(c)
            .set("/process/apparmorProfile", json!("container-default"))
            .without("/mounts", "destination", "/proc")
            .asks(&["lstat /proc/self/attr/exec"]);
        let mut world = World::new(&c);
        for file in ["exec", "apparmor/exec", "current"] {
            c = c.file(&format!("/proc/self/attr/{file}"), "UNTOUCHED");
        }
        let output = attack(&c, &mut world, "a label");
        // Either the profile is missing, or it is and the container too: nobody runs unconfined.
        assert!(!apparmor || output.code() != 0, "{}", output.describe());
        for file in ["exec", "apparmor/exec", "current"] {
            let text = fs::read_to_string(c.rootfs().join("proc/self/attr").join(file));
            assert_eq!(text.expect("read"), "UNTOUCHED", "{file}");
        }
    }
}

#[test]
fn t06_proc_and_sys_are_no_links() {
    for c in each_way!() {
        let mut c = c.folder("/evil").asks(&["stat /payload"]);
        let mut world = World::new(&c);
        let outside = world.outside.dir.clone();
        let upwards = world.outside.upwards();
        for name in ["/proc", "/sys"] {
            for target in ["/evil", "evil", &outside, &upwards, "/nonexist", "/", "."] {
                c = c.link(name, target);
                let what = format!("{name} -> {target}");
                attack(&c, &mut world, &what).fails();
                let evil = fs::read_dir(c.rootfs().join("evil")).expect("read");
                assert_eq!(evil.count(), 0, "{what}");
                fs::remove_file(c.rootfs().join(&name[1..])).expect("remove");
            }
            c = c.folder(name);
        }
        assert!(!c.rootfs().join("nonexist").exists());
    }
}

/// A procfs behind a link is one whose masks are somewhere else.
#[test]
fn t06_a_link_on_the_way_to_proc_takes_no_mask_off() {
    for c in each_way!() {
        let questions = ["read /proc/keys", "write /proc/sys/kernel/domainname x"];
        let mut c = c.link("/a", "/").folder("/b").asks(&questions);
        let mut world = World::new(&c);
        let base = c.spec.clone();
        for target in ["/a/proc", "/b/../a/proc"] {
            c.spec = base.clone();
            c = mounted_at(c, target);
            let output = attack(&c, &mut world, target);
            if output.code() == 0 {
                let answers = questions.map(|question| output.answer(question));
                let masked = answers == ["", "EROFS"];
                let elsewhere = answers == ["ENOENT", "ENOENT"];
                assert!(masked || elsewhere, "{target}: {answers:?}");
            }
        }
    }
}

#[test]
fn t06_no_place_for_proc_or_sys_is_made_behind_a_link() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let mut c = c
            .link("/out", &world.outside.dir)
            .link("/up", &world.outside.upwards())
            .asks(&["stat /payload"]);
        for (kind, target) in [
            ("proc", "/out/new/proc"),
            ("proc", "/up/new"),
            ("sysfs", "/out/sys"),
            ("sysfs", "/up/new/sys"),
        ] {
            let base = c.spec.clone();
            c = c.mount(kind, kind, target, &[]);
            attack(&c, &mut world, target).fails();
            c.spec = base;
        }
    }
}

/// Two containers share a volume, into which the image of one has its /proc lead.
#[test]
fn t06_proc_does_not_land_in_a_volume() {
    for c in each_way!() {
        fs::create_dir_all(c.path("volume/proc")).expect("mkdir");
        let volume = c.path("volume");
        let mut world = World::new(&c);
        let mut c = c
            .link("/proc", "/volume/proc")
            .folder("/volume")
            .asks(&["stat /payload"]);
        let mut mounts = vec![
            json!({"destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"]}),
        ];
        mounts.extend(c.spec["mounts"].as_array().expect("mounts").clone());
        c = c.set("/mounts", json!(mounts));
        attack(&c, &mut world, "a volume").fails();
        let left = fs::read_dir(c.path("volume/proc")).expect("read").count();
        assert_eq!(left, 0);
    }
}
