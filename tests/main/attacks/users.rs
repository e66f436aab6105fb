//! T02, T09: users that look like numbers, and capabilities that pass from one program to the next.
//! CVE-2016-3697, CVE-2022-24769, CVE-2022-27650, CVE-2022-29162, CVE-2025-27612, CVE-2026-46680.

use super::post::{World, attack};
use super::ways::each_way;
use crate::support::{Bundle, Output, mask};
use serde_json::{Value, json};
use std::fs;

/// Each line makes root of a number.
const PASSWD: &str = "4294967297:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n-1:x:0:0::/:/bin/sh\n\
    4294967295:x:0:0::/:/bin/sh\n18446744073709551616:x:0:0::/:/bin/sh\n0x3e8:x:0:0::/:/bin/sh\n\
    1000 :x:0:0::/:/bin/sh\n";
const GROUP: &str =
    "4294967297:x:0:\n1000:x:0:\n-1:x:0:\n4294967295:x:0:\nx:x:4294967296:\n0x3e8:x:0:\n";

fn exec(c: &Bundle, flags: &[&str], command: &str) -> Output {
    let words: Vec<&str> = command.split(' ').collect();
    let args = [&["exec"], flags, &[&c.id, "/payload"], &words].concat();
    c.call(&args).finish()
}

#[test]
fn t02_a_number_is_never_looked_up_as_a_name() {
    for c in each_way!() {
        let c = c
            .file("/etc/passwd", PASSWD)
            .file("/etc/group", GROUP)
            .asks(&["pause"]);
        let mut world = World::new(&c);
        c.up();
        let rootless = c.spec["linux"].get("cgroupsPath").is_none();
        for (user, uid, gid) in [
            ("1000", 1000, 0),
            ("1000:1000", 1000, 1000),
            ("0:1000", 0, 1000),
        ] {
            let output = exec(&c, &["--user", user], "report");
            // An ordinary user has no other ids.
            if rootless {
                output.fails();
                continue;
            }
            let report = output.ok().report();
            assert_eq!((&report["uid"], &report["gid"]), (&json!(uid), &json!(gid)));
            assert_eq!(report["euid"], uid, "{user}");
        }
        for user in [
            "4294967297",
            "4294967295",
            "4294967296",
            "18446744073709551616",
            "-1",
            "-0",
            "+0",
            "0x3e8",
            "1000 ",
            " 0",
            "",
            ":",
            "1:",
            "1:x",
            "0:-1",
            "0:4294967295",
            "0:4294967297",
            "0:x",
            "0:0:0",
        ] {
            let output = exec(&c, &["--user", user], "write /ran yes").fails();
            assert!(!output.stdout().contains("=>"), "{user:?} ran");
            assert!(!c.rootfs().join("ran").exists(), "{user:?} ran");
        }
        world.assert_after(&c, "users");
    }
}

#[test]
fn t02_an_id_out_of_range_is_refused_at_create() {
    for c in each_way!() {
        let mut c = c
            .file("/etc/passwd", PASSWD)
            .file("/etc/group", GROUP)
            .asks(&["status CapEff"]);
        let mut world = World::new(&c);
        let base = c.spec.clone();
        for field in ["uid", "gid"] {
            for id in [
                json!(4294967295u32),
                json!(4294967296u64),
                json!(-1),
                json!("1000"),
            ] {
                c.spec = base.clone();
                c = c.set(&format!("/process/user/{field}"), id.clone());
                attack(&c, &mut world, &format!("{field} {id}")).fails();
            }
        }
        c.spec = base.clone();
        c = c.set("/process/user/additionalGids", json!([4294967295u32]));
        attack(&c, &mut world, "an additional group").fails();
    }
}

/// Inherited by the programs that it executes, and what it can get.
fn sets(output: &Output) -> [u64; 4] {
    ["Inh", "Amb", "Eff", "Bnd"].map(|set| mask(&output.answer(&format!("caps {set}"))))
}

const SETS: &str = "caps Inh ; caps Amb ; caps Eff ; caps Bnd";

#[test]
fn t09_no_capability_of_exec_is_inheritable() {
    const NET_ADMIN: u64 = 1 << 12;
    const OF_THE_CONTAINER: u64 = 1 << 29 | 1 << 10 | 1 << 5;
    for c in each_way!() {
        let c = c
            .asks(&["pause"])
            .set("/process/noNewPrivileges", json!(false));
        let mut world = World::new(&c);
        c.up();
        let [inheritable, ambient, effective, _] = sets(&exec(&c, &[], SETS).ok());
        assert_eq!((inheritable, ambient), (0, 0), "as the container");
        assert_eq!(effective, OF_THE_CONTAINER);
        let added = exec(&c, &["--cap", "CAP_NET_ADMIN"], SETS).ok();
        let [inheritable, ambient, effective, _] = sets(&added);
        assert_eq!((inheritable, ambient), (0, 0), "with one more");
        // Added, or alone.
        assert_eq!(effective & !OF_THE_CONTAINER, NET_ADMIN);
        let words: Vec<&str> = ["/payload"].into_iter().chain(SETS.split(' ')).collect();
        let process = json!({"args": words, "cwd": "/", "user": {"uid": 0, "gid": 0}});
        fs::write(c.path("process.json"), process.to_string()).expect("write");
        fs::write(c.path("null.json"), with(&process, Value::Null)).expect("write");
        fs::write(c.path("empty.json"), with(&process, json!({}))).expect("write");
        for file in ["process.json", "null.json", "empty.json"] {
            let args = ["exec", "--process", &c.path(file), &c.id];
            let [inheritable, ambient, effective, bounding] = sets(&c.call(&args).finish().ok());
            assert_eq!((inheritable, ambient), (0, 0), "{file}");
            assert_eq!((effective | bounding) & !OF_THE_CONTAINER, 0, "{file}");
        }
        world.assert_after(&c, "capabilities");
    }
}

fn with(process: &Value, capabilities: Value) -> String {
    let mut process = process.clone();
    process["capabilities"] = capabilities;
    process.to_string()
}

#[test]
fn t09_no_capability_of_the_default_config_is_inheritable() {
    for c in each_way!() {
        let mut world = World::new(&c);
        for flags in [&[][..], &["--rootless"]] {
            let _ = fs::remove_file(c.dir.join("config.json"));
            c.call(&[&["spec"], flags].concat()).finish().ok();
            let text = fs::read_to_string(c.dir.join("config.json")).expect("a config");
            let config: Value = serde_json::from_str(&text).expect("JSON");
            let list = &config["process"]["capabilities"]["inheritable"];
            assert!(list.as_array().is_none_or(Vec::is_empty), "{list}");
        }
        // What is asked of a program with its own capabilities, and then of one that it executes.
        let c = c.asks(&[
            "caps Inh",
            "exec /payload caps Inh",
            "exec /payload caps Amb",
        ]);
        let output = c.run().ok();
        let none = "0000000000000000";
        assert_eq!(output.answer("caps Inh"), none);
        for set in ["Inh", "Amb"] {
            let question = format!("exec /payload caps {set}");
            assert!(output.answer(&question).ends_with(&format!("=> {none}")));
        }
        world.assert_same(&c, &output, "the default config");
    }
}
