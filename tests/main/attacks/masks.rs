//! T01: paths of /proc and /sys that the default config hides or protects, and links that a container leaves for the next.
//! CVE-2015-3627, CVE-2015-3629, CVE-2015-3630, CVE-2015-3631.

use super::post::{World, attack};
use super::ways::each_way;
use crate::support::Bundle;
use serde_json::{Value, json};
use std::fs;

/// The lists of the config that `spec` writes.
fn with_the_default_lists(mut c: Bundle) -> Bundle {
    let _ = fs::remove_file(c.dir.join("config.json"));
    let rootless = c.spec["linux"].get("cgroupsPath").is_none();
    let flags: &[&str] = if rootless { &["--rootless"] } else { &[] };
    let args = [&["spec"], flags].concat();
    c.call(&args).finish().ok();
    let text = fs::read_to_string(c.dir.join("config.json")).expect("a config");
    let default: Value = serde_json::from_str(&text).expect("JSON");
    for list in ["maskedPaths", "readonlyPaths"] {
        c.spec["linux"][list] = default["linux"][list].clone();
    }
    c
}

fn paths(c: &Bundle, list: &str) -> Vec<String> {
    let list = c.spec["linux"][list].as_array().expect("a list");
    let text = |path: &Value| path.as_str().expect("a path").to_string();
    list.iter().map(text).collect()
}

#[test]
fn t01_what_the_default_config_hides_is_hidden_and_the_rest_is_read_only() {
    for c in each_way!() {
        let c = with_the_default_lists(c).caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
        let mut world = World::new(&c);
        let (masked, protected) = (paths(&c, "maskedPaths"), paths(&c, "readonlyPaths"));
        assert!(masked.len() > 5 && protected.len() > 4, "{masked:?}");
        let mut questions = vec![];
        for path in masked.iter().chain(&protected) {
            let each = [
                "stat P",
                "ls P",
                "mountinfo P",
                "write P 1",
                "write P/x 1",
                "mkdir P/y",
            ];
            questions.extend(each.map(|question| question.replace('P', path)));
        }
        let all: Vec<&str> = questions.iter().map(String::as_str).collect();
        let c = c.asks(&all);
        let output = attack(&c, &mut world, "the default config").ok();
        let answer = |question: String| output.answer(&question);
        for path in &masked {
            match answer(format!("stat {path}")) {
                stat if stat.starts_with("char 1:3 ") || stat == "ENOENT" => {}
                stat => {
                    assert!(stat.starts_with("dir "), "{path}: {stat}");
                    assert_eq!(answer(format!("ls {path}")), "", "{path}");
                    assert_eq!(answer(format!("write {path}/x 1")), "EROFS");
                    assert_eq!(answer(format!("mkdir {path}/y")), "EROFS");
                }
            }
        }
        for path in &protected {
            let file = ["write P 1", "write P/x 1", "mkdir P/y"];
            for question in file.map(|question| question.replace('P', path)) {
                assert_ne!(answer(question.clone()), "ok", "{question}");
            }
            if answer(format!("stat {path}")) != "ENOENT" {
                let mount = answer(format!("mountinfo {path}"));
                let options = mount.split(' ').nth(2).unwrap_or_default();
                assert!(options.starts_with("ro,"), "{path}: {mount}");
            }
        }
    }
}

/// The next container of the same image finds links where its mounts and its files are to be.
#[test]
fn t01_a_container_leaves_no_link_for_the_next() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let (outside, upwards) = (world.outside.dir.clone(), world.outside.upwards());
        fs::write(c.path("hosts"), "hosts").expect("write");
        let source = c.path("hosts");
        let links = [
            format!("link {outside}/hosts /etc/hosts"),
            format!("link {upwards} /data"),
            format!("link {outside}/ptmx /etc/passwd"),
            format!("link {outside} /work"),
        ];
        let all: Vec<&str> = links.iter().map(String::as_str).collect();
        let first = c.asks(&all);
        let output = attack(&first, &mut world, "the first").ok();
        assert!(links.iter().all(|link| output.answer(link) == "ok"));
        let second = first
            .asks(&["status CapEff"])
            .mount("bind", &source, "/etc/hosts", &["bind"])
            .mount("tmpfs", "tmpfs", "/data/made", &[])
            .mount("tmpfs", "tmpfs", "/etc/passwd", &[])
            .set("/process/cwd", json!("/work/deep"))
            .push("/linux/maskedPaths", json!("/data/ptmx"))
            .push("/linux/readonlyPaths", json!("/data"));
        attack(&second, &mut world, "the second");
    }
}

/// Two names of one place: nothing that is masked may be so before the volume is there that it is in.
#[test]
fn t01_a_link_of_the_image_takes_no_mask_off_a_volume() {
    for (volume, place) in [("/run", "/var/run"), ("/var/run", "/run")] {
        let c = bundle!()
            .folder("/run")
            .folder("/var")
            .link("/var/run", "/run");
        let secrets = c.path("secrets");
        fs::create_dir_all(format!("{secrets}/protected")).expect("mkdir");
        fs::write(format!("{secrets}/secret"), "TOP").expect("write");
        let [secret, protected] = ["secret", "protected"].map(|name| format!("{place}/s/{name}"));
        let written = format!("write {protected}/x 1");
        let c = c
            .mount("bind", &secrets, &format!("{volume}/s"), &["bind"])
            .set("/linux/maskedPaths", json!([secret]))
            .set("/linux/readonlyPaths", json!([protected]))
            .asks(&[&format!("read {secret}"), &written]);
        let output = c.run().ok();
        assert_eq!(output.answer(&format!("read {secret}")), "", "{volume}");
        assert_eq!(output.answer(&written), "EROFS", "{volume}");
    }
}
