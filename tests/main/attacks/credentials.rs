//! T15, T17, T19: the payload is who it was to be, with no capability that nobody listed, and confined as its container is.
//! CVE-2026-30892.

use super::post::World;
use super::ways::each_way;
use crate::support::{Bundle, Output, Runtime, runtime};
use serde_json::{Value, json};
use std::fs;

fn up(c: Bundle) -> Bundle {
    let c = c.asks(&["pause"]);
    c.up();
    c
}

/// What a process that joins says of itself.
fn exec(c: &Bundle, flags: &[&str]) -> Output {
    let args = [&["exec"], flags, &[&c.id, "/payload", "report"]].concat();
    c.call(&args).finish()
}

/// The same for one of a file: the process of the container with this change.
fn exec_file(c: &Bundle, field: &str, value: Option<Value>) -> Output {
    let mut process = c.spec["process"].clone();
    process["args"] = json!(["/payload", "report"]);
    match value {
        Some(value) => process[field] = value,
        None => drop(process.as_object_mut().expect("an object").remove(field)),
    }
    fs::write(c.path("process.json"), process.to_string()).expect("write");
    c.call(&["exec", "--process", &c.path("process.json"), &c.id])
        .finish()
}

/// In a user namespace with one id there is no other user, and nobody may become root instead.
#[test]
fn t15_exec_runs_as_the_user_that_was_named() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let maps = c.spec.pointer("/linux/uidMappings").cloned();
        let only_root = maps.is_some_and(|maps| maps[0]["size"] == 1);
        let c = up(c.file(
            "/etc/passwd",
            "1:x:0:0::/:/x\n0:x:1:1::/:/x\n65534:x:0:0::/:/x\n",
        ));
        for (user, uid, gid) in [
            ("1", 1, 0),
            ("1:2", 1, 2),
            ("65534", 65534, 0),
            ("65534:65534", 65534, 65534),
            ("0:5", 0, 5),
            ("0", 0, 0),
        ] {
            let output = exec(&c, &["--user", user]);
            if only_root && (uid, gid) != (0, 0) {
                output.fails();
                continue;
            }
            let report = output.ok().report();
            let lines = [("Uid", uid), ("Gid", gid)].map(|(line, id)| {
                let ids = report["status"][line].as_str().expect("ids");
                (line, ids.split('\t').all(|one| one == id.to_string()))
            });
            assert_eq!(
                lines,
                [("Uid", true), ("Gid", true)],
                "{user}: {}",
                report["status"]
            );
            assert_eq!(report["groups"], json!([]), "{user}");
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t15_a_process_file_runs_as_its_user() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let maps = c.spec.pointer("/linux/uidMappings").cloned();
        let only_root = maps.is_some_and(|maps| maps[0]["size"] == 1);
        let c = up(c);
        for (uid, gid) in [(1, 0), (1, 2), (65534, 65534), (0, 5)] {
            let user = json!({"uid": uid, "gid": gid});
            let output = exec_file(&c, "user", Some(user));
            if only_root {
                output.fails();
                continue;
            }
            let report = output.ok().report();
            let ids = (&report["uid"], &report["euid"], &report["gid"]);
            assert_eq!(ids, (&json!(uid), &json!(uid), &json!(gid)));
        }
        world.assert_after(&c, "afterwards");
    }
}

const SETS: [&str; 5] = [
    "inheritable",
    "permitted",
    "effective",
    "bounding",
    "ambient",
];

/// The five sets of the payload, in that order.
fn sets(output: &Output) -> [u64; 5] {
    let report = output.report();
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| {
        let text = report["status"][name].as_str().expect("a set");
        u64::from_str_radix(text, 16).expect("hex")
    })
}

const KILL: u64 = 1 << 5;
const CHOWN: u64 = 1;

/// capabilities(7): what execve(2) makes of these sets for root, who would get all of the bounding and the inheritable set, and
/// under no_new_privs no more than was permitted.
fn after_exec(given: &Value, lenient: bool) -> [u64; 5] {
    let mask = |set: &str| {
        let names = given[set].as_array().cloned().unwrap_or_default();
        let bit = |name: &Value| match name.as_str() {
            Some("CAP_KILL") => KILL,
            Some("cap_kill" | "KILL") if lenient => KILL,
            Some("CAP_CHOWN") => CHOWN,
            _ => 0,
        };
        names.iter().fold(0, |mask, name| mask | bit(name))
    };
    let bounding = mask("bounding");
    let inheritable = mask("inheritable") & bounding;
    let ambient = mask("ambient") & mask("permitted") & inheritable;
    let permitted = (bounding | inheritable) & mask("permitted");
    [inheritable, permitted, permitted, bounding, ambient]
}

/// Nothing, every set for itself, all of them, and names that are none.
fn matrix() -> Vec<Option<Value>> {
    let names = |text: &str| json!([text, "CAP_CHOWN"]);
    let all = |list: Value| {
        SETS.iter().fold(json!({}), |mut sets, set| {
            sets[*set] = list.clone();
            sets
        })
    };
    let mut matrix = vec![
        None,
        Some(json!({})),
        Some(all(json!([]))),
        Some(all(json!(["CAP_KILL"]))),
    ];
    matrix.extend(SETS.map(|set| Some(json!({set: ["CAP_KILL"]}))));
    matrix.extend(SETS.map(|set| {
        let mut others = all(json!(["CAP_KILL"]));
        others[set] = json!([]);
        Some(others)
    }));
    let unknown = [
        "CAP_FROM_THE_FUTURE",
        "cap_kill",
        "CAP_41",
        "41",
        "KILL",
        "",
        "ALL",
    ];
    matrix.extend(unknown.map(|name| Some(all(names(name)))));
    matrix
}

/// Names that are none may be refused, or taken for the one that is meant, but give nothing else. Others refuse sets too that
/// do not fit together.
fn judge(given: &Option<Value>, output: Output) {
    let listed = given.as_ref().unwrap_or(&Value::Null);
    let may_fail = listed.to_string().contains("CHOWN") || runtime() != Runtime::Cofferdam;
    if may_fail && output.code() != 0 {
        return;
    }
    let (seen, exact) = (sets(&output.ok()), after_exec(listed, false));
    let meant = after_exec(listed, true);
    assert!(
        seen == exact || seen == meant,
        "{given:?}: {seen:?} is not {exact:?}"
    );
}

#[test]
fn t17_no_capability_is_there_that_was_not_listed() {
    for mut c in each_way!() {
        let mut world = World::new(&c);
        for given in matrix() {
            c = c.remove("/process/capabilities");
            if let Some(sets) = &given {
                c = c.set("/process/capabilities", sets.clone());
            }
            judge(&given, c.run());
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t17_exec_has_what_its_container_has() {
    for mut c in each_way!() {
        let mut world = World::new(&c);
        for given in matrix() {
            c = c.asks(&["pause"]).remove("/process/capabilities");
            if let Some(sets) = &given {
                c = c.set("/process/capabilities", sets.clone());
            }
            if c.create().code() != 0 {
                continue;
            }
            c.start().ok();
            judge(&given, exec(&c, &[]));
            let same = exec_file(&c, "capabilities", None);
            judge(&given, same);
            c.delete(&["--force"]).ok();
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t17_a_process_file_has_what_it_lists() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = up(c.caps(&["CAP_KILL", "CAP_CHOWN"]));
        for given in matrix().into_iter().flatten() {
            let output = exec_file(&c, "capabilities", Some(given.clone()));
            judge(&Some(given), output);
        }
        world.assert_after(&c, "afterwards");
    }
}

/// The filter refuses getpriority(2).
fn confined(c: Bundle) -> Bundle {
    let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16}]);
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    c.set("/linux/seccomp", filter)
}

fn confinement(output: Output) -> (String, String) {
    let report = output.ok().report();
    let line = |name: &str| {
        report["status"][name]
            .as_str()
            .expect("a value")
            .to_string()
    };
    (line("NoNewPrivs"), line("Seccomp"))
}

#[test]
fn t19_exec_is_confined_as_its_container_is() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = up(confined(c));
        let all = ("1".to_string(), "2".to_string());
        assert_eq!(confinement(exec(&c, &[])), all);
        assert_eq!(confinement(exec(&c, &["--no-new-privs"])), all);
        assert_eq!(
            confinement(exec(&c, &["--user", "0", "--cap", "CAP_SYS_ADMIN"])),
            all
        );
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t19_a_process_file_does_not_lift_what_confines_its_container() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = up(confined(c));
        for value in [
            None,
            Some(json!(false)),
            Some(Value::Null),
            Some(json!(true)),
        ] {
            let seen = confinement(exec_file(&c, "noNewPrivileges", value.clone()));
            assert_eq!(seen, ("1".to_string(), "2".to_string()), "{value:?}");
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t19_exec_can_confine_itself_more_than_its_container() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = up(c.set("/process/noNewPrivileges", json!(false)));
        let privileges = |output: Output| confinement(output).0;
        assert_eq!(privileges(exec(&c, &[])), "0");
        assert_eq!(privileges(exec(&c, &["--no-new-privs"])), "1");
        assert_eq!(
            privileges(exec_file(&c, "noNewPrivileges", Some(json!(true)))),
            "1"
        );
        assert_eq!(privileges(exec_file(&c, "noNewPrivileges", None)), "0");
        world.assert_after(&c, "afterwards");
    }
}

/// A switch that says no is no way to lift it either.
#[test]
fn t19_a_flag_does_not_lift_what_confines_its_container() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let c = up(confined(c));
        let output = exec(&c, &["--no-new-privs=false"]);
        if output.code() == 0 || runtime() == Runtime::Cofferdam {
            assert_eq!(confinement(output).0, "1");
        }
        world.assert_after(&c, "afterwards");
    }
}
