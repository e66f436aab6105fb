//! Credentials: users, groups, the five sets of capabilities, no new privileges.

use crate::support::mask;
use serde_json::{Value, json};

/// The five sets of the payload, in the order of /proc/self/status: Inh Prm Eff Bnd Amb.
fn sets(report: &Value) -> Vec<u64> {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|name| mask(report["status"][name].as_str().expect("a set")))
        .to_vec()
}

#[test]
fn user_group_and_additional_groups() {
    let c = bundle!().set(
        "/process/user",
        json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 6, 70000]}),
    );
    let report = c.run().ok().report();
    assert_eq!(
        (&report["uid"], &report["euid"], &report["gid"]),
        (&json!(1000), &json!(1000), &json!(1001))
    );
    assert_eq!(report["groups"], json!([5, 6, 70000]));
    for line in ["Uid", "Gid"] {
        let ids = report["status"][line].as_str().expect("ids");
        let all: Vec<&str> = ids.split('\t').collect();
        assert!(all.windows(2).all(|w| w[0] == w[1]), "{line}: {ids}");
    }
}

#[test]
fn no_groups_are_inherited() {
    let c = bundle!();
    assert_eq!(c.run().ok().report()["groups"], json!([]));
}

#[test]
fn capabilities_of_all_sets() {
    let c = bundle!().caps(&["CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"]);
    let mask = 1 | 1 << 5 | 1 << 18;
    assert_eq!(sets(&c.run().ok().report()), [mask, mask, mask, mask, mask]);
}

#[test]
fn capability_matrix() {
    let (chown, kill) = (1, 1 << 5);
    let cases: &[(Value, [u64; 5])] = &[
        (json!({}), [0, 0, 0, 0, 0]),
        (json!({"bounding": ["CAP_CHOWN"]}), [0, 0, 0, chown, 0]),
        (
            json!({"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}),
            [0, chown, chown, chown, 0],
        ),
        (
            json!({"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]}),
            [0, kill, kill, chown | kill, 0],
        ),
        (
            json!({"bounding": ["CAP_KILL"], "effective": [], "permitted": [], "inheritable": ["CAP_KILL"]}),
            [kill, 0, 0, kill, 0],
        ),
    ];
    let mut c = bundle!();
    // A program that root executes gets all of bounding and inheritable: so as another user.
    c = c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    for (given, [inheritable, _, _, bounding, ambient]) in cases {
        c = c.set("/process/capabilities", given.clone());
        let report = c.run().ok().report();
        assert_eq!(
            sets(&report),
            [*inheritable, 0, 0, *bounding, *ambient],
            "{given}"
        );
    }
}

#[test]
fn absent_capabilities_are_none() {
    let c = bundle!().remove("/process/capabilities");
    assert_eq!(sets(&c.run().ok().report()), [0; 5]);
}

#[test]
fn an_absent_bounding_set_is_empty() {
    let c = bundle!().set("/process/capabilities", json!({"inheritable": []}));
    assert_eq!(sets(&c.run().ok().report())[3], 0);
}

#[test]
fn ambient_capabilities_reach_another_user() {
    let c = bundle!()
        .caps(&["CAP_NET_BIND_SERVICE"])
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let mask = 1 << 10;
    assert_eq!(sets(&c.run().ok().report()), [mask; 5]);
}

#[test]
fn ambient_without_inheritable_is_only_a_warning() {
    let c = bundle!()
        .caps(&["CAP_KILL"])
        .set("/process/capabilities/inheritable", json!([]));
    let c = c.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(sets(&c.run().ok().report())[4], 0);
}

#[test]
fn a_filter_without_no_new_privileges_costs_no_capability() {
    let filter = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["swapon"], "action": "SCMP_ACT_ERRNO"},
    ]});
    let c = bundle!()
        .caps(&["CAP_KILL", "CAP_NET_BIND_SERVICE"])
        .set("/process/capabilities/permitted", json!(["CAP_KILL"]))
        .set("/process/capabilities/effective", json!(["CAP_KILL"]))
        .set("/process/capabilities/ambient", json!(["CAP_KILL"]))
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .set("/process/noNewPrivileges", json!(false))
        .set("/linux/seccomp", filter);
    let (kill, bind) = (1 << 5, 1 << 10);
    // Inheritable, permitted, effective, bounding, ambient.
    assert_eq!(
        sets(&c.run().ok().report()),
        [kill | bind, kill, kill, kill | bind, kill]
    );
}

#[test]
fn unknown_capabilities_are_ignored() {
    let c = bundle!().caps(&["CAP_KILL", "CAP_FROM_THE_FUTURE"]);
    assert_eq!(sets(&c.run().ok().report())[3], 1 << 5);
}

#[test]
fn no_new_privileges() {
    let c = bundle!();
    assert_eq!(c.run().ok().report()["status"]["NoNewPrivs"], "1");
    let c = c.set("/process/noNewPrivileges", json!(false));
    assert_eq!(c.run().ok().report()["status"]["NoNewPrivs"], "0");
    let c = c.remove("/process/noNewPrivileges");
    assert_eq!(c.run().ok().report()["status"]["NoNewPrivs"], "0");
}

#[test]
fn stdio_belongs_to_the_user() {
    let c = bundle!()
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .asks(&["stat /proc/self/fd/0", "stat /proc/self/fd/1"]);
    let (reader, _writer) = std::io::pipe().expect("pipe");
    let output = c.call_new("run", &[]).fd(reader, 0).finish().ok();
    let pipe = output.answer("stat /proc/self/fd/0");
    assert!(pipe.contains(" 1000:"), "{pipe}");
    // The file of the caller that is open for writing.
    let file = output.answer("stat /proc/self/fd/1");
    assert!(file.contains(" 1000:"), "{file}");
}
