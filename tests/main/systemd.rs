//! The systemd driver, with a stand-in for systemd on the bus: what is asked for, and that nothing stays behind
//! when the other side refuses, fails, hangs or goes away.

use crate::support::broker::{Broker, Whim, property};
use crate::support::{Bundle, Call, Output, cgroup_root, has_controller, send, wait_until};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists: Unit x.scope already exists.";
const START: &str = "StartTransientUnit";

/// A container whose scope this bus is asked for.
struct Scope {
    c: Bundle,
    bus: Broker,
    /// Of the scope, whether there is one or not.
    dir: PathBuf,
}

impl Scope {
    fn new(c: Bundle, whims: &[Whim]) -> Scope {
        let number = c.id.rsplit_once('-').map_or("", |(_, number)| number);
        let slice = format!("cofferdamtest{}x{number}.slice", std::process::id());
        let path = format!("{slice}:p:{}", c.id);
        let dir = cgroup_root().join(format!("{slice}/p-{}.scope", c.id));
        let bus = Broker::new(&c.dir, &slice, whims);
        let c = c.set("/linux/cgroupsPath", json!(path));
        Scope { c, bus, dir }
    }

    fn call(&self, args: &[&str]) -> Call {
        self.c.write_config();
        let args = [&["--systemd-cgroup"], args].concat();
        self.bus.seen_by(self.c.call(&args))
    }

    fn made_by(&self, verb: &str) -> Output {
        let args = [verb, "--bundle", &self.c.path(""), &self.c.id];
        self.call(&args).finish()
    }

    fn later(&self, verb: &str, more: &[&str]) -> Output {
        let args = [&[verb][..], more].concat();
        self.bus.seen_by(self.c.call(&args)).finish()
    }

    fn delete(&self) -> Output {
        self.later("delete", &["--force", &self.c.id])
    }

    fn update(&self, resources: Value) -> Output {
        let call = self.c.call(&["update", "--resources", "-", &self.c.id]);
        let call = self.bus.seen_by(call.stdin(&resources.to_string()));
        call.finish()
    }

    fn create(&self) -> Output {
        self.made_by("create")
    }

    fn assert_gone(&self) {
        assert!(!self.dir.exists(), "{:?} is left", self.dir);
        self.c.assert_gone();
    }

    /// And until it is made, if that is the whim.
    fn wait_until_asked(&self, whim: Whim) {
        wait_until("the scope is asked for", || !self.bus.called().is_empty());
        let is_filled = || fs::read(self.dir.join("cgroup.procs")).is_ok_and(|text| text.len() > 1);
        wait_until("the scope is made", || {
            whim == Whim::Hangs(START) || is_filled()
        });
    }

    fn procs(&self) -> String {
        let text = fs::read_to_string(self.dir.join("cgroup.procs"));
        text.expect("a scope").trim().to_string()
    }
}

#[test]
fn a_scope_is_made_around_init_and_ends_with_the_container() {
    let c = bundle!()
        .asks(&["pause"])
        .set("/linux/resources/pids", json!(null))
        .set(
            "/annotations",
            json!({"org.systemd.property.TimeoutStopSec": "7"}),
        );
    let scope = Scope::new(c, &[]);
    scope.create().ok().silent();
    let asked = scope.bus.last(START);
    let pid = scope.c.pid();
    assert_eq!(asked[0], format!("p-{}.scope", scope.c.id));
    let slice = scope.dir.parent().and_then(Path::file_name);
    let slice = slice.and_then(OsStr::to_str);
    let description = format!("cofferdam container {}", scope.c.id);
    for (name, value) in [
        ("PIDs", json!([pid])),
        ("Description", json!(description)),
        ("Slice", json!(slice)),
        ("Delegate", json!(true)),
        ("CPUAccounting", json!(true)),
        ("IOAccounting", json!(true)),
        ("MemoryAccounting", json!(true)),
        ("TasksAccounting", json!(true)),
        ("DefaultDependencies", json!(false)),
        ("TimeoutStopUSec", json!(7_000_000)),
        ("TasksMax", Value::Null),
    ] {
        assert_eq!(property(&asked, name), &value, "{name}");
    }
    assert_eq!(scope.procs(), pid.to_string());
    scope.c.start().ok();
    assert_eq!(scope.c.status(), "running");
    scope.delete().ok().silent();
    assert_eq!(scope.bus.called(), [START, "StopUnit", "ResetFailedUnit"]);
    scope.assert_gone();
}

#[test]
fn the_container_sees_its_scope_as_the_root_of_all_cgroups() {
    let scope = Scope::new(bundle!().asks(&["read /proc/self/cgroup"]), &[]);
    let output = scope.made_by("run").ok().silent();
    assert!(output.answer("read /proc/self/cgroup").contains("0::/"));
    let answer = output.answer("read /proc/self/cgroup");
    assert!(!answer.contains(".scope"), "{answer}");
    scope.assert_gone();
}

#[test]
fn annotations_lead_below_the_scope() {
    let c = bundle!().asks(&["pause"]).set(
        "/annotations",
        json!({"run.oci.systemd.subgroup": "sub", "run.oci.delegate-cgroup": "own"}),
    );
    let scope = Scope::new(c.set("/process/user", json!({"uid": 7, "gid": 7})), &[]);
    scope.create().ok().silent();
    scope.c.start().ok();
    let own = scope.dir.join("sub/own");
    let procs = || fs::read_to_string(own.join("cgroup.procs")).expect("a cgroup");
    assert_eq!(procs().trim(), scope.c.pid().to_string());
    let owner = |path: PathBuf| std::os::unix::fs::MetadataExt::uid(&fs::metadata(path).unwrap());
    assert_eq!(owner(own.clone()), 7);
    assert_eq!(owner(own.join("cgroup.procs")), 7);
    assert_eq!(owner(scope.dir.join("sub")), 0);
    let exec = ["--detach", &scope.c.id, "/payload", "pause"];
    scope.later("exec", &exec).ok();
    assert_eq!(procs().lines().count(), 2);
    assert!(
        !scope
            .bus
            .called()
            .contains(&"AttachProcessesToUnit".to_string())
    );
    // One who may not write to what belongs to another has systemd move the process.
    let confined = "exec setpriv --bounding-set -dac_override,-dac_read_search \"$0\" \"$@\"";
    let call = scope.c.call(&[&["exec"], &exec[..]].concat());
    scope
        .bus
        .seen_by(call.through_shell(confined))
        .finish()
        .ok();
    assert_eq!(procs().lines().count(), 3);
    assert!(
        scope
            .bus
            .called()
            .contains(&"AttachProcessesToUnit".to_string())
    );
    scope.delete().ok().silent();
    scope.assert_gone();
}

#[test]
fn one_of_the_name_that_has_failed_is_forgotten_and_one_that_lives_is_not_touched() {
    let scope = Scope::new(
        bundle!().asks(&["exit 3"]),
        &[Whim::Refuses(START, EXISTS, 1)],
    );
    scope.made_by("run").exits(3);
    let called = scope.bus.called();
    assert_eq!(called[..3], [START, "ResetFailedUnit", START]);
    scope.bus.whims(&[Whim::Refuses(START, EXISTS, 2)]);
    scope
        .create()
        .fails_with("choose another linux.cgroupsPath: StartTransientUnit: Unit x.scope already");
    assert_eq!(
        scope.bus.called()[called.len()..],
        [START, "ResetFailedUnit", START]
    );
    scope.assert_gone();
}

#[test]
fn a_property_that_an_old_systemd_does_not_know_is_left_out() {
    let unknown = "org.freedesktop.DBus.Error.PropertyReadOnly: Cannot set property IOAccounting, or unknown property.";
    let asked = json!({"org.systemd.property.IOAccounting": "true"});
    let scope = Scope::new(
        bundle!().asks(&["exit 3"]),
        &[Whim::Refuses(START, unknown, 1)],
    );
    scope.made_by("run").exits(3);
    assert_eq!(
        property(&scope.bus.last(START), "IOAccounting"),
        &Value::Null
    );
    let c = bundle!().set("/annotations", asked);
    let scope = Scope::new(c, &[Whim::Refuses(START, unknown, 1)]);
    scope
        .create()
        .fails_with("Cannot set property IOAccounting");
    scope.assert_gone();
}

#[test]
fn what_systemd_does_not_do_is_an_error_and_nothing_stays() {
    for (whim, text) in [
        (
            Whim::Refuses(
                START,
                "a.B.AccessDenied: Interactive authentication required.",
                9,
            ),
            "StartTransientUnit: Interactive authentication required. (a.B.AccessDenied)",
        ),
        (
            Whim::Ends(START, "failed"),
            "the job has ended with \"failed\"",
        ),
        (Whim::Drops(START), "the bus has closed the connection"),
        (
            Whim::Drops("Subscribe"),
            "the bus has closed the connection",
        ),
        (Whim::Forgets, "and not in /cofferdamtest"),
    ] {
        let scope = Scope::new(bundle!(), &[whim]);
        let output = scope.create().fails_with(text);
        assert!(
            output.stderr().contains("systemd: start p-"),
            "{}",
            output.describe()
        );
        let reset = scope.bus.called().contains(&"ResetFailedUnit".to_string());
        assert!(reset || !matches!(whim, Whim::Ends(..)), "{text}");
        scope.assert_gone();
    }
}

#[test]
fn a_bus_that_ends_while_it_is_waited_for_ends_the_wait() {
    let scope = Scope::new(bundle!(), &[Whim::Hangs(START)]);
    std::thread::scope(|threads| {
        let creating = threads.spawn(|| scope.create());
        wait_until("the scope is asked for", || !scope.bus.called().is_empty());
        scope.bus.end();
        creating
            .join()
            .expect("a result")
            .fails_with("wait for the answer to StartTransientUnit: the bus has closed");
    });
    scope.assert_gone();
}

/// In real time, as only the kernel's clock tells the runtime how long it has waited: a part of `make torture`.
#[test]
fn a_job_whose_end_is_never_told_is_waited_for_half_a_minute() {
    let torture = std::env::var_os("COFFERDAM_TORTURE").is_some();
    needs!(torture, "waits: make torture");
    let scope = Scope::new(bundle!(), &[Whim::NoJob(START)]);
    let call = scope.call(&["create", "--bundle", &scope.c.path(""), &scope.c.id]);
    let begun = Instant::now();
    let mut running = call.spawn();
    let status = running.child.wait().expect("wait");
    running
        .output(status)
        .fails_with("wait for the end of StartTransientUnit: no answer from the bus in time");
    let waited = begun.elapsed().as_secs();
    assert!((29..40).contains(&waited), "{waited} s");
    assert!(scope.bus.called().contains(&"StopUnit".to_string()));
    scope.assert_gone();
}

#[test]
fn a_create_that_waits_for_systemd_can_be_interrupted() {
    for whim in [Whim::Hangs(START), Whim::NoJob(START)] {
        let scope = Scope::new(bundle!(), &[whim]);
        let call = scope.call(&["create", "--bundle", &scope.c.path(""), &scope.c.id]);
        let running = call.spawn();
        scope.wait_until_asked(whim);
        send(running.child.id(), libc::SIGTERM);
        running.wait().exits(143);
        assert_eq!(scope.bus.called(), [START, "StopUnit", "ResetFailedUnit"]);
        scope.assert_gone();
    }
}

#[test]
fn a_creator_that_is_killed_while_it_waits_for_systemd_leaves_what_delete_ends() {
    for whim in [Whim::NoJob(START), Whim::Hangs(START)] {
        let scope = Scope::new(bundle!(), &[whim]);
        let call = scope.call(&["create", "--bundle", &scope.c.path(""), &scope.c.id]);
        let running = call.spawn();
        scope.wait_until_asked(whim);
        let pid = property(&scope.bus.last(START), "PIDs")[0].clone();
        send(running.child.id(), libc::SIGKILL);
        running.wait();
        wait_until("init ends", || {
            !fs::exists(format!("/proc/{pid}")).unwrap_or(true)
        });
        scope.delete().ok().silent();
        scope.assert_gone();
    }
}

#[test]
fn a_container_that_cannot_be_set_up_leaves_no_scope() {
    let c = bundle!().set("/process/args", json!(["/nonesuch"]));
    let scope = Scope::new(c, &[]);
    scope.create().fails_with("/nonesuch");
    assert!(scope.bus.called().contains(&"StopUnit".to_string()));
    scope.assert_gone();
}

#[test]
fn without_a_bus_the_error_says_so_and_delete_removes_the_cgroup_itself() {
    let scope = Scope::new(bundle!().asks(&["pause"]), &[]);
    scope.create().ok();
    scope.bus.end();
    scope.delete().ok().says("is removed without systemd");
    scope.assert_gone();
    scope.create().fails_with(
        "--systemd-cgroup: the bus of systemd was not found (connect(\"/run/dbus/system_bus_socket\"): ",
    );
    scope.assert_gone();
}

#[test]
fn a_confined_caller_without_limits_does_without_a_scope() {
    let scope = Scope::new(bundle!().asks(&["exit 3"]), &[]);
    scope.bus.end();
    let call = |rootless: &str| {
        let dir = scope.c.path("");
        let args = ["--rootless", rootless, "run", "--bundle", &dir, &scope.c.id];
        scope.call(&args).finish()
    };
    call("false").fails_with("was not found");
    call("true").exits(3).silent();
    scope.assert_gone();
}

#[test]
fn what_is_left_of_a_failed_scope_is_forgotten_at_delete() {
    let scope = Scope::new(bundle!().asks(&["pause"]), &[]);
    scope.create().ok();
    scope.c.kill("KILL").ok();
    scope.c.wait_stopped();
    // systemd removes what has become empty.
    wait_until("the scope is removed", || {
        fs::remove_dir(&scope.dir).is_ok()
    });
    scope.delete().ok().silent();
    assert_eq!(scope.bus.called(), [START, "ResetFailedUnit"]);
    scope.assert_gone();
}

#[test]
fn an_update_of_what_systemd_does_not_know_is_nothing_to_it() {
    let scope = Scope::new(bundle!().asks(&["pause"]), &[]);
    scope.create().ok();
    let limit = json!({"unified": {"cgroup.max.depth": "5"}});
    scope.update(limit).ok();
    let depth = fs::read_to_string(scope.dir.join("cgroup.max.depth"));
    assert_eq!(depth.expect("a limit").trim(), "5");
    assert_eq!(scope.bus.called(), [START]);
    scope.delete().ok();
}

#[test]
fn an_update_tells_systemd_and_takes_back_what_it_refuses() {
    needs!(has_controller("pids"), "needs the pids controller");
    let scope = Scope::new(bundle!().asks(&["pause"]), &[]);
    scope.create().ok();
    scope.update(json!({"pids": {"limit": 44}})).ok();
    let asked = scope.bus.last("SetUnitProperties");
    assert_eq!(asked[1], true);
    assert_eq!(property(&asked, "TasksMax"), 44);
    scope
        .bus
        .whims(&[Whim::Refuses("SetUnitProperties", "a.B: no", 1)]);
    scope
        .update(json!({"pids": {"limit": 55}}))
        .fails_with("systemd: set properties of p-");
    let limit = fs::read_to_string(scope.dir.join("pids.max"));
    assert_eq!(limit.expect("a limit").trim(), "44");
    scope.delete().ok();
}

#[test]
fn names_of_scopes_are_checked() {
    for (path, text) in [
        ("/a/b", "with --systemd-cgroup it must be slice:prefix:name"),
        ("a.slice:b:c.slice", "a container cannot be a slice"),
    ] {
        let mut scope = Scope::new(bundle!(), &[]);
        scope.c = scope.c.set("/linux/cgroupsPath", json!(path));
        scope.create().fails_with(text);
        assert_eq!(scope.bus.called(), [""; 0]);
    }
}
