//! What a process that joins has from its container, what from the command line: the place, the user,
//! the limits; and that the command's own flags are left to it.

use crate::support::terminal::{listen, receive};
use crate::support::{Bundle, Output, cgroup_root, has_controller, lines, wait_until};
use serde_json::{Value, json};
use std::fs;

fn up(c: Bundle) -> Bundle {
    let c = c.asks(&["pause"]);
    c.up();
    c
}

/// What the payload says in the container.
fn exec(c: &Bundle, flags: &[&str], command: &str) -> Output {
    let mut args = [&["exec"], flags, &[&c.id, "/payload"]].concat();
    args.extend(command.split(' '));
    c.call(&args).finish()
}

#[test]
fn the_flags_of_a_command_are_its_own() {
    let c = up(bundle!());
    let command = "report ; env -e A=1 --tty -c CAP_KILL --user=5 -- --help";
    let report = exec(&c, &["-e", "B=2"], command).ok().report();
    let words: Vec<&str> = ["/payload"].into_iter().chain(command.split(' ')).collect();
    assert_eq!(
        (&report["args"], &report["uid"]),
        (&json!(words), &json!(0))
    );
}

#[test]
fn dashes_may_stand_before_a_command() {
    let c = up(bundle!());
    let output = c.call(&["exec", &c.id, "--", "/payload", "env", "HOME"]);
    assert_eq!(output.finish().ok().answer("env HOME"), "/");
}

#[test]
fn limits_score_umask_and_keyring_are_those_of_the_config() {
    let limit = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
    let c = up(bundle!()
        .set("/process/rlimits", limit)
        .set("/process/oomScoreAdj", json!(99))
        .set("/process/user/umask", json!(0o77))
        .set(
            "/process/scheduler",
            json!({"policy": "SCHED_BATCH", "nice": 7}),
        )
        .set("/linux/personality", json!({"domain": "LINUX32"})));
    let report = exec(&c, &[], "report").ok().report();
    assert_eq!(report["rlimits"]["NOFILE"], json!([77, 88]));
    assert_eq!(
        (&report["oom"], &report["umask"]),
        (&json!("99"), &json!(0o77))
    );
    assert_eq!((&report["policy"], &report["nice"]), (&json!(3), &json!(7)));
    assert_eq!(report["personality"], 8);
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING): the same for all, not one for each.
    let session = || {
        exec(&c, &[], "syscall 250 0 -3")
            .ok()
            .answer("syscall 250 0 -3")
    };
    let keyring = exec(&c, &[], "keyring").ok().answer("keyring");
    assert!(keyring.contains(&format!(";_ses.{}", c.id)), "{keyring}");
    assert_eq!(session(), session());
}

#[test]
fn what_the_bundle_says_by_now_does_not_count() {
    let c = up(bundle!());
    fs::write(c.path("config.json"), "no config").expect("write");
    exec(&c, &[], "exit 3").exits(3);
}

#[test]
fn names_of_users_and_groups_are_the_containers() {
    let c = up(bundle!()
        .file(
            "/etc/passwd",
            "root:x:0:0::/root:/x\napp:x:1000:1001::/home/app:/x\n",
        )
        .file(
            "/etc/group",
            "audio:x:29:other,app\nvideo:x:44:app\nstaff:x:50:apps\n",
        ));
    for (user, uid, gid, groups) in [
        ("app", 1000, 1001, json!([29, 44])),
        ("app:staff", 1000, 50, json!([29, 44])),
        ("app:7", 1000, 7, json!([29, 44])),
        ("1000:video", 1000, 44, json!([])),
        ("1000", 1000, 0, json!([])),
    ] {
        let report = exec(&c, &["--user", user], "report").ok().report();
        let ids = (&report["uid"], &report["gid"]);
        assert_eq!(ids, (&json!(uid), &json!(gid)), "{user}");
        assert_eq!(report["groups"], groups, "{user}");
    }
    let more = exec(&c, &["-u", "app", "-g", "5"], "report").ok().report();
    assert_eq!(more["groups"], json!([5, 29, 44]));
    for (user, fault) in [
        ("nobody", "--user: \"nobody\": no such user"),
        ("app:nobody", "--user: \"nobody\": no such group"),
        ("app:", "--user: a user or group is missing"),
    ] {
        exec(&c, &["--user", user], "report")
            .fails_naming(fault)
            .exits(255);
    }
}

#[test]
fn a_capability_that_cannot_be_added_is_warned_about() {
    let c = up(bundle!());
    let output = exec(&c, &["--cap", "CAP_FROM_THE_FUTURE"], "exit 3").exits(3);
    assert!(
        output.stderr().contains("CAP_FROM_THE_FUTURE"),
        "{}",
        output.describe()
    );
}

#[test]
fn a_cgroup_below_the_containers() {
    let c = up(bundle!());
    fs::create_dir_all(c.cgroup().join("sub/deep")).expect("mkdir");
    let place = |flags: &[&str]| -> Value {
        let report = exec(&c, flags, "report").ok().report();
        let text = report["cgroup"].as_str().expect("cgroups").to_string();
        json!(text.lines().find_map(|line| line.strip_prefix("0::")))
    };
    assert_eq!(place(&[]), "/");
    for path in ["sub", "/sub", ":sub", "memory:sub", "cpu,memory:/sub/"] {
        assert_eq!(place(&["--cgroup", path]), "/sub", "{path}");
    }
    assert_eq!(place(&["--cgroup", "/"]), "/");
    assert_eq!(
        place(&["--cgroup", "cpu:sub/deep", "--cgroup", "memory:sub/deep"]),
        "/sub/deep"
    );
    for path in ["..", "sub/../..", "a:b:sub", "nosuch"] {
        exec(&c, &["--cgroup", path], "write /ran yes").fails_naming("--cgroup: ");
    }
    exec(
        &c,
        &["--cgroup", "a:sub", "--cgroup", "b:/"],
        "write /ran yes",
    )
    .fails_naming("--cgroup: ");
    assert!(!c.rootfs().join("ran").exists());
    for below in ["sub/deep", "sub"] {
        wait_until("the cgroup is empty", || {
            fs::remove_dir(c.cgroup().join(below)).is_ok()
        });
    }
}

/// As systemd in a container does.
#[test]
fn an_init_that_hands_on_controllers_is_followed() {
    needs!(has_controller("hugetlb"), "needs a controller of cgroup v2");
    let c = up(bundle!());
    let enable = |dir: &std::path::Path| fs::write(dir.join("cgroup.subtree_control"), "+hugetlb");
    let mut level = cgroup_root();
    for name in ["cofferdam-test", &c.id] {
        enable(&level).expect("enable");
        level = level.join(name);
    }
    let scope = c.cgroup().join("init.scope");
    fs::create_dir(&scope).expect("mkdir");
    fs::write(scope.join("cgroup.procs"), c.pid().to_string()).expect("move init");
    let where_it_runs = |flags: &[&str]| {
        let report = exec(&c, flags, "report").ok().report();
        report["cgroup"]
            .as_str()
            .expect("cgroups")
            .lines()
            .last()
            .map(str::to_string)
    };
    assert_eq!(where_it_runs(&[]).as_deref(), Some("0::/"));
    enable(&c.cgroup()).expect("enable");
    assert_eq!(where_it_runs(&[]).as_deref(), Some("0::/init.scope"));
    exec(&c, &["--cgroup", "/"], "report").fails();
    c.delete(&["--force"]).ok();
}

/// A process of a container in the host's cgroup namespace may move, and may remove the cgroup that it has left.
#[test]
fn an_init_that_has_left_its_cgroup_is_followed() {
    let c = up(bundle!().without("/linux/namespaces", "type", "cgroup"));
    let place = || {
        let report = exec(&c, &[], "report").ok().report();
        let text = report["cgroup"].as_str().expect("cgroups").to_string();
        text.lines()
            .find_map(|line| line.strip_prefix("0::/").map(str::to_string))
    };
    let own = format!("cofferdam-test/{}", c.id);
    assert_eq!(place(), Some(own.clone()));
    let other = cgroup_root().join(format!("{own}-other"));
    fs::create_dir(&other).expect("mkdir");
    fs::write(other.join("cgroup.procs"), c.pid().to_string()).expect("move init");
    wait_until("the cgroup is empty", || fs::remove_dir(c.cgroup()).is_ok());
    assert_eq!(place(), Some(format!("{own}-other")));
    exec(&c, &["--cgroup", "/"], "report").fails_naming("--cgroup: the container's cgroup is gone");
    c.delete(&["--force"]).ok();
    wait_until("the other one is empty", || fs::remove_dir(&other).is_ok());
}

/// No limit would hold there.
#[test]
fn an_init_that_has_gone_to_the_top_of_the_cgroups_is_not_followed() {
    let c = up(bundle!().without("/linux/namespaces", "type", "cgroup"));
    let top = cgroup_root().join("cgroup.procs");
    fs::write(top, c.pid().to_string()).expect("move init");
    wait_until("the cgroup is empty", || fs::remove_dir(c.cgroup()).is_ok());
    exec(&c, &[], "write /ran yes").fails_naming("the container's cgroup is gone");
    assert!(!c.rootfs().join("ran").exists());
    c.delete(&["--force"]).ok();
}

#[test]
fn in_a_paused_container_a_process_waits() {
    let c = up(bundle!());
    c.call(&["pause", &c.id]).finish().ok();
    let call = ["exec", "--ignore-paused", &c.id, "/payload", "exit", "4"];
    let running = c.call(&call).spawn();
    wait_until("it is in the container", || {
        lines(&c.cgroup().join("cgroup.procs")).len() == 2
    });
    c.call(&["resume", &c.id]).finish().ok();
    running.wait().exits(4);
}

#[test]
fn a_pidfd_of_the_process_is_sent() {
    let c = up(bundle!());
    let path = c.path("pidfd.sock");
    let listener = listen(path.as_ref());
    exec(&c, &["--detach", "--pidfd-socket", &path], "pause").ok();
    assert_eq!(receive(&listener).files.len(), 1);
}
