//! The container's cgroup: where it is, what it limits, when it is refused, and that it goes away.

use crate::support::{Bundle, PATIENCE, cgroup_root, has_controller, holds_within};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};

fn value(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file))
        .unwrap_or_else(|e| format!("{file}: {e}"))
        .trim()
        .into()
}

/// The cgroup of a process in the v2 tree.
fn cgroup_of(pid: i32) -> PathBuf {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a cgroup");
    let path = lines
        .lines()
        .find_map(|l| l.strip_prefix("0::/"))
        .expect("v2");
    cgroup_root().join(path)
}

/// A cgroup that the test owns, removed with its process at the end.
struct Foreign {
    dir: PathBuf,
    child: Option<Child>,
}

impl Foreign {
    fn new(dir: PathBuf) -> Foreign {
        fs::create_dir_all(&dir).expect("make a cgroup");
        Foreign { dir, child: None }
    }

    fn populate(&mut self) {
        let child = Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("start sleep");
        fs::write(self.dir.join("cgroup.procs"), child.id().to_string()).expect("join the cgroup");
        self.child = Some(child);
    }

    fn is_alive(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::write(self.dir.join("cgroup.freeze"), "0");
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        holds_within(PATIENCE, || {
            fs::remove_dir(&self.dir).is_ok() || !self.dir.exists()
        });
    }
}

#[test]
fn the_leaf_is_where_the_spec_says() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    assert_eq!(value(&c.cgroup(), "cgroup.procs"), c.pid().to_string());
    assert_eq!(cgroup_of(c.pid()), c.cgroup());
    c.start().ok();
    c.delete(&["--force"]).ok();
    assert!(!c.cgroup().exists());
}

#[test]
fn what_was_made_above_the_leaf_goes_and_what_was_there_stays() {
    let mut c = bundle!().asks(&["pause"]);
    let top = cgroup_root().join(format!("cofferdam-test/{}-there", c.id));
    let there = Foreign::new(top.clone());
    let path = format!("/cofferdam-test/{}-there/a/b/leaf", c.id);
    c = c.set("/linux/cgroupsPath", json!(path));
    for round in 0..3 {
        c.create().ok();
        assert!(c.cgroup().exists());
        if round == 2 {
            c.kill("KILL").ok();
            c.wait_stopped();
            // Somebody else has been faster with the leaf.
            holds_within(PATIENCE, || fs::remove_dir(c.cgroup()).is_ok());
        }
        c.delete(&[]).ok();
        assert!(!top.join("a").exists() && there.dir.exists());
    }
    let before = c.spec.clone();
    c = c.set("/process/args", json!(["/nonesuch"]));
    c.create().fails();
    assert!(!top.join("a").exists() && there.dir.exists());
    c.spec = before;
}

#[test]
fn what_was_made_above_the_leaf_lasts_as_long_as_anybody_is_below() {
    let mut first = bundle!().asks(&["pause"]);
    let mut second = bundle!().asks(&["pause"]);
    let top = format!("/cofferdam-test/{}-shared", first.id);
    first = first.set("/linux/cgroupsPath", json!(format!("{top}/a/first")));
    second = second.set("/linux/cgroupsPath", json!(format!("{top}/a/second")));
    first.create().ok();
    second.create().ok();
    first.delete(&[]).ok();
    assert!(second.cgroup().exists());
    assert_eq!(second.status(), "created");
    second.delete(&[]).ok();
    assert!(!cgroup_root().join(top.trim_start_matches('/')).exists());
}

#[test]
fn a_removal_above_the_leaf_does_not_stop_a_create() {
    let mut c = bundle!().asks(&["exit 3"]);
    let above = format!("cofferdam-test/{}-race", c.id);
    c = c.set("/linux/cgroupsPath", json!(format!("/{above}/a/leaf")));
    let above = cgroup_root().join(above);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = fs::create_dir_all(above.join("a"));
                let _ = fs::remove_dir(above.join("a"));
                let _ = fs::remove_dir(&above);
            }
        });
        let outputs: Vec<_> = (0..30).map(|_| c.run()).collect();
        over.store(true, Ordering::Relaxed);
        outputs.into_iter().for_each(|output| drop(output.exits(3)));
    });
    let _ = fs::remove_dir(&above);
}

/// Keeps everybody else from taking the lock of a directory.
fn lock(directory: &Path) -> fs::File {
    let open = fs::File::open(directory).expect("open the cgroup");
    open.try_lock().expect("lock the cgroup");
    open
}

#[test]
fn a_cgroup_in_which_a_container_is_being_created_is_refused() {
    let c = bundle!().asks(&["exit 3"]);
    let _foreign = Foreign::new(c.cgroup());
    let lock = lock(&c.cgroup());
    c.create().fails_with("container's cgroup is not empty");
    // Not by closing it: a child that another test forks may hold a copy for a moment.
    lock.unlock().expect("unlock the cgroup");
    c.run().exits(3);
}

#[test]
fn of_creates_in_one_cgroup_at_once_one_wins() {
    let mut bundles = [bundle!(), bundle!(), bundle!()];
    let path = bundles[0].spec["linux"]["cgroupsPath"].clone();
    for c in &mut bundles {
        c.spec["linux"]["cgroupsPath"] = path.clone();
    }
    let _foreign = Foreign::new(bundles[0].cgroup());
    let calls: Vec<_> = bundles
        .iter()
        .map(|c| c.call_new("create", &[]).spawn())
        .collect();
    let outputs: Vec<_> = calls.into_iter().map(|call| call.wait()).collect();
    let (good, bad): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.code() == 0);
    assert_eq!(good.len(), 1);
    for output in bad {
        let text = output.stderr();
        assert!(text.contains("container's cgroup is not empty"), "{text}");
    }
    for c in &bundles {
        c.delete(&["--force"]).ok();
    }
}

#[test]
fn without_a_path_the_runtime_chooses_one() {
    let c = bundle!().remove("/linux/cgroupsPath").asks(&["pause"]);
    c.create().ok();
    let cgroup = cgroup_of(c.pid());
    assert!(cgroup.ends_with(&c.id), "{cgroup:?}");
    c.delete(&["--force"]).ok();
    assert!(!cgroup.exists());
}

#[test]
fn a_relative_path() {
    let mut c = bundle!().asks(&["pause"]);
    let path = format!("cofferdam-test/{}-relative", c.id);
    c = c.set("/linux/cgroupsPath", json!(path));
    c.create().ok();
    let cgroup = cgroup_of(c.pid());
    assert!(cgroup.ends_with(&path), "{cgroup:?}");
    c.delete(&["--force"]).ok();
    assert!(!cgroup.exists());
}

#[test]
fn paths_with_dots_are_refused() {
    let mut c = bundle!();
    for path in [
        "/cofferdam-test/../escaped",
        "../../escaped",
        "/a/../../../escaped",
        "/..",
    ] {
        c = c.set("/linux/cgroupsPath", json!(path));
        c.create().fails_naming("linux.cgroupsPath");
    }
}

#[test]
fn a_sibling_survives() {
    let c = bundle!().asks(&["exit 3"]);
    let sibling = Foreign::new(cgroup_root().join(format!("cofferdam-test/{}-sibling", c.id)));
    c.run().exits(3);
    assert!(sibling.dir.exists());
}

#[test]
fn a_frozen_cgroup_is_refused_and_stays_frozen() {
    let c = bundle!();
    let foreign = Foreign::new(c.cgroup());
    fs::write(foreign.dir.join("cgroup.freeze"), "1").expect("freeze");
    c.create()
        .fails_naming("container's cgroup unexpectedly frozen");
    assert_eq!(value(&foreign.dir, "cgroup.freeze"), "1");
}

#[test]
fn a_populated_cgroup_is_refused_and_its_processes_live() {
    let c = bundle!();
    let mut foreign = Foreign::new(c.cgroup());
    foreign.populate();
    c.create().fails_with("not empty");
    c.delete(&["--force"]).ok();
    assert!(foreign.is_alive());
}

#[test]
fn an_empty_cgroup_that_exists_can_be_used() {
    let c = bundle!().asks(&["exit 3"]);
    let _foreign = Foreign::new(c.cgroup());
    c.run().exits(3);
}

#[test]
fn a_container_in_sub_cgroups_is_deleted() {
    let mut c = bundle!();
    for mount in c.spec["mounts"].as_array_mut().expect("mounts") {
        if mount["destination"] == "/sys/fs/cgroup" {
            mount["options"] = json!(["rw"]);
        }
    }
    let c = c.asks(&[
        "mkdir /sys/fs/cgroup/sub",
        "mkdir /sys/fs/cgroup/sub/deep",
        "children 2",
        "write /sys/fs/cgroup/sub/deep/cgroup.procs 1",
        "pause",
    ]);
    let output = c.up();
    output.wait_for("cgroup.procs 1 => ok");
    c.delete(&["--force"]).ok();
    assert!(!c.cgroup().exists());
}

/// The kernel kills no threaded cgroup as a whole, and lists no processes of one.
#[test]
fn a_container_in_a_threaded_cgroup_is_deleted() {
    let c = bundle!().asks(&["pause"]);
    // A parent of its own, in which no other process is.
    let path = format!("/cofferdam-test/{}-threads/leaf", c.id);
    let c = c.set("/linux/cgroupsPath", json!(path));
    let _above = Foreign::new(c.cgroup().parent().expect("a parent").to_path_buf());
    let leaf = Foreign::new(c.cgroup());
    fs::write(leaf.dir.join("cgroup.type"), "threaded").expect("a threaded cgroup");
    c.create().ok();
    c.start().ok();
    assert_eq!(c.status(), "running");
    let exec = ["exec", "--detach", &c.id, "/payload", "pause"];
    c.call(&exec).finish().ok();
    c.delete(&["--force"]).ok();
    assert!(!c.cgroup().exists());
    c.assert_gone();
}

#[test]
fn pause_and_resume() {
    let c = bundle!().asks(&["signals"]);
    let output = c.up();
    output.wait_for("ready");
    c.call(&["pause", &c.id]).finish().ok().silent();
    assert_eq!(c.status(), "paused");
    assert_eq!(value(&c.cgroup(), "cgroup.freeze"), "1");
    c.start().fails();
    c.call(&["resume", &c.id]).finish().ok().silent();
    assert_eq!(c.status(), "running");
    c.call(&["resume", &c.id])
        .finish()
        .fails_with("container not paused");
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    c.call(&["pause", &c.id]).finish().ok();
    c.delete(&["--force"]).ok();
    c.assert_gone();
    c.up();
    c.call(&["pause", &c.id]).finish().ok();
    c.kill("KILL").ok();
    c.wait_stopped();
}

#[test]
fn only_a_living_container_can_be_paused() {
    let c = bundle!().asks(&["exit 0"]);
    c.up();
    c.wait_stopped();
    c.call(&["pause", &c.id])
        .finish()
        .fails_with("container not running");
    c.call(&["resume", &c.id])
        .finish()
        .fails_with("container not paused");
}

#[test]
fn a_living_container_without_its_cgroup_is_not_called_ended() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let pid = c.pid().to_string();
    fs::write(cgroup_root().join("cgroup.procs"), pid).expect("leave the cgroup");
    fs::remove_dir(c.cgroup()).expect("rmdir");
    assert_eq!(c.status(), "running");
    let paused = c.call(&["pause", &c.id]).finish();
    paused.fails_with("the container's cgroup is gone");
}

#[test]
fn a_limit_of_huge_pages() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    assert_limits_huge_pages(bundle!(), "hugetlb.2MB.max");
}

#[test]
fn reserved_huge_pages_are_limited_too() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    assert_limits_huge_pages(bundle!(), "hugetlb.2MB.rsvd.max");
}

fn assert_limits_huge_pages(c: Bundle, file: &str) {
    let limit = json!([{"pageSize": "2MB", "limit": 4194304u64}]);
    let c = c
        .set("/linux/resources/hugepageLimits", limit)
        .asks(&["pause"]);
    c.create().ok();
    assert_eq!(value(&c.cgroup(), file), "4194304");
}

#[test]
fn an_unknown_size_of_huge_pages_is_refused() {
    let mut c = bundle!();
    c = c.set(
        "/linux/resources/hugepageLimits",
        json!([{"pageSize": "3MB", "limit": 0}]),
    );
    c.create().fails_naming("linux.resources.hugepageLimits[0].pageSize: 3MB: the kernel has no huge pages of this size");
    for size in ["3MB", "2mb", "", "2MB/../x"] {
        c = c.set(
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": size, "limit": 0}]),
        );
        c.create().fails_naming("hugepageLimits");
        c.assert_gone();
    }
}

#[test]
fn files_by_their_own_name() {
    needs!(has_controller("hugetlb"), "needs the hugetlb controller");
    let c = bundle!()
        .set(
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "2MB", "limit": 4194304u64}]),
        )
        .set(
            "/linux/resources/unified",
            json!({"hugetlb.2MB.max": "6291456", "cgroup.max.depth": "7"}),
        )
        .asks(&["pause"]);
    c.create().ok();
    assert_eq!(value(&c.cgroup(), "hugetlb.2MB.max"), "6291456");
    assert_eq!(value(&c.cgroup(), "cgroup.max.depth"), "7");
}

#[test]
fn bad_names_of_files_are_refused() {
    let mut c = bundle!();
    for key in [
        "../cgroup.freeze",
        "a/b",
        "nonsense.max",
        "hugetlb.nonsense.max",
    ] {
        c = c.set("/linux/resources/unified", json!({key: "1"}));
        c.create().fails_naming("linux.resources.unified");
        c.assert_gone();
    }
}

/// A limit, the controller it needs, the file and the value to find there.
fn limits() -> Vec<(Value, &'static str, &'static str, &'static str)> {
    vec![
        (
            json!({"memory": {"limit": 67108864}}),
            "memory",
            "memory.max",
            "67108864",
        ),
        (
            json!({"memory": {"reservation": 33554432}}),
            "memory",
            "memory.low",
            "33554432",
        ),
        (
            json!({"memory": {"limit": 67108864, "swap": 67108864}}),
            "memory",
            "memory.swap.max",
            "0",
        ),
        (
            json!({"memory": {"limit": 67108864, "swap": -1}}),
            "memory",
            "memory.swap.max",
            "max",
        ),
        (json!({"pids": {"limit": 42}}), "pids", "pids.max", "42"),
        (json!({"pids": {"limit": -1}}), "pids", "pids.max", "max"),
        (json!({"cpu": {"shares": 1024}}), "cpu", "cpu.weight", "100"),
        (
            json!({"cpu": {"quota": 50000, "period": 100000}}),
            "cpu",
            "cpu.max",
            "50000 100000",
        ),
        (
            json!({"cpu": {"quota": -1}}),
            "cpu",
            "cpu.max",
            "max 100000",
        ),
        (json!({"cpu": {"cpus": "0"}}), "cpuset", "cpuset.cpus", "0"),
        (
            json!({"blockIO": {"weight": 100}}),
            "io",
            "io.weight",
            "default 910",
        ),
    ]
}

fn limited(mut c: Bundle, limit: &Value) -> Bundle {
    for (key, value) in limit.as_object().expect("an object") {
        c = c.set(&format!("/linux/resources/{key}"), value.clone());
    }
    c
}

#[test]
fn limits_are_written() {
    let mut c = bundle!().asks(&["pause"]);
    let before = c.spec.clone();
    let (here, missing): (Vec<_>, Vec<_>) = limits().into_iter().partition(|l| has_controller(l.1));
    let missing: BTreeSet<&str> = missing.iter().map(|limit| limit.1).collect();
    for controller in missing {
        crate::support::skipped(&format!("in part: no controller {controller}"));
    }
    for (limit, _, file, wanted) in here {
        c.spec = before.clone();
        c = limited(c, &limit);
        c.create().ok();
        assert_eq!(value(&c.cgroup(), file), wanted, "{limit}");
        c.delete(&[]).ok();
    }
}

#[test]
fn a_limit_without_its_controller_is_refused() {
    let mut c = bundle!();
    let before = c.spec.clone();
    let missing: Vec<_> = limits()
        .into_iter()
        .filter(|l| !has_controller(l.1))
        .collect();
    needs!(!missing.is_empty(), "all controllers are here");
    for (limit, controller, _, wanted) in missing
        .iter()
        .filter(|l| l.3 != "max" && !l.3.starts_with("max "))
    {
        println!("{limit} -> {wanted}");
        c.spec = before.clone();
        c = limited(c, limit);
        c.create().fails_naming(controller);
        c.assert_gone();
    }
}

#[test]
fn an_idle_cpu_share() {
    let c = bundle!()
        .set("/linux/resources/cpu", json!({"idle": 1}))
        .asks(&["pause"]);
    let output = c.create();
    if has_controller("cpu") {
        output.ok();
        assert_eq!(value(&c.cgroup(), "cpu.idle"), "1");
    } else {
        output.fails_naming("cpu");
        c.assert_gone();
    }
}

#[test]
fn the_error_says_where_a_missing_controller_is() {
    needs!(
        fs::exists("/sys/fs/cgroup/memory/cgroup.procs").unwrap_or(false),
        "memory is not in a v1 tree here"
    );
    let c = bundle!().set("/linux/resources/memory", json!({"limit": 67108864}));
    c.create().fails_naming("/sys/fs/cgroup/memory");
    c.assert_gone();
}

#[test]
fn fields_of_v1_that_ask_for_nothing_are_tolerated() {
    let c = bundle!()
        .set(
            "/linux/resources/memory",
            json!({"disableOOMKiller": false, "limit": 0}),
        )
        .set("/linux/resources/network", json!({"priorities": []}))
        .set("/linux/resources/cpu", json!({"shares": 0}))
        .set("/linux/resources/blockIO", json!({}))
        .asks(&["exit 3"]);
    c.run().exits(3);
}

#[test]
fn wrong_limits_are_refused() {
    let mut c = bundle!();
    let cases = [
        ("memory", json!({"limit": -5})),
        ("memory", json!({"limit": 1000000, "swap": 1000})),
        ("memory", json!({"swap": 1000})),
        ("cpu", json!({"cpus": "nonsense"})),
    ];
    let before = c.spec.clone();
    for (key, value) in cases {
        c.spec = before.clone();
        c = c.set(&format!("/linux/resources/{key}"), value);
        c.create().fails_naming(&format!("linux.resources.{key}"));
        c.assert_gone();
    }
}

#[test]
fn below_a_frozen_cgroup_nothing_is_created() {
    let c = bundle!();
    let parent = c.cgroup().with_extension("parent");
    fs::create_dir_all(&parent).expect("mkdir");
    fs::write(parent.join("cgroup.freeze"), "1").expect("freeze");
    let path = c.spec["linux"]["cgroupsPath"].as_str().expect("a path");
    let below = format!("{path}.parent/leaf");
    let mut c = c;
    c.spec["linux"]["cgroupsPath"] = json!(below);
    c.create().fails_naming("frozen");
    assert!(!parent.join("leaf").exists());
    fs::remove_dir(&parent).expect("rmdir");
}

#[test]
fn without_a_cgroup_the_container_stays_where_its_caller_is() {
    let c = bundle!()
        .global(&["--cgroup-manager", "disabled"])
        .asks(&["children 2", "pause"]);
    let output = c.up();
    output.wait_for("children 2 => ok");
    assert!(!c.cgroup().exists());
    assert_eq!(cgroup_of(c.pid()), cgroup_of(std::process::id() as i32));
    // Later calls do not get the flag.
    let mut c = c;
    c.globals.clear();
    assert_eq!(c.status(), "running");
    let pids = c.call(&["ps", "--format", "json", &c.id]).finish().ok();
    let pids: Vec<i32> = serde_json::from_str(&pids.stdout()).expect("a list");
    assert!(pids.len() == 3 && pids.contains(&c.pid()), "{pids:?}");
    let execute = c.call(&["exec", &c.id, "/payload", "exit", "5"]);
    execute.finish().exits(5);
    c.call(&["pause", &c.id])
        .finish()
        .fails_with("--cgroup-manager disabled");
    assert_eq!(c.status(), "running");
    c.call(&["kill", "--all", &c.id, "KILL"]).finish().ok();
    assert_eq!(c.status(), "stopped");
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn without_a_cgroup_a_signal_reaches_the_whole_pid_namespace() {
    let c = bundle!()
        .global(&["--cgroup-manager=disabled"])
        .asks(&["children 3", "signals"]);
    let output = c.up();
    output.wait_for("ready");
    let pids = c.call(&["ps", "--format=json", &c.id]).finish().ok();
    let pids: Vec<i32> = serde_json::from_str(&pids.stdout()).expect("a list");
    c.call(&["kill", "--all", &c.id, "USR1"]).finish().ok();
    output.wait_for("signal 10");
    // The children die of it, and init does not reap them.
    let is_dead = |pid: &&i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z")
    };
    assert!(holds_within(PATIENCE, || {
        pids.iter().filter(is_dead).count() == 3
    }));
}

#[test]
fn without_a_cgroup_limits_are_refused() {
    let c = bundle!()
        .global(&["--cgroup-manager", "disabled"])
        .set("/linux/resources/pids", json!({"limit": 5}));
    c.create()
        .fails_naming("linux.resources.pids.limit")
        .fails_with("without a cgroup");
    c.assert_gone();
}

#[test]
fn without_cgroup_and_pid_namespace_only_init_is_known() {
    let c = bundle!()
        .global(&["--cgroup-manager", "disabled"])
        .without("/linux/namespaces", "type", "pid")
        .asks(&["pause"]);
    c.up();
    let output = c.call(&["ps", "--format", "json", &c.id]).finish().ok();
    assert_eq!(output.stdout(), format!("[{}]\n", c.pid()));
    assert!(output.stderr().contains("only its init is known"));
    c.kill("KILL").ok();
    let output = c.delete(&[]).ok();
    assert!(output.stderr().contains("are not found"));
}

/// Engines read statistics of a container without limits from the files of controllers.
#[test]
fn every_controller_of_the_host_reaches_a_container_without_limits() {
    let words = |directory: &Path| {
        let text = fs::read_to_string(directory.join("cgroup.controllers")).expect("controllers");
        text.split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let offered = words(&cgroup_root());
    needs!(!offered.is_empty(), "the host has no controllers");
    let mut c = bundle!().asks(&["pause"]);
    let path = format!("/{}/a/b", c.id);
    c = c.set("/linux/cgroupsPath", json!(path));
    c.create().ok();
    assert_eq!(words(&c.cgroup()), offered);
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn a_cgroup_that_takes_no_more_below_it_is_named() {
    let c = bundle!();
    let full = c.cgroup().with_extension("full");
    fs::create_dir_all(&full).expect("mkdir");
    fs::write(full.join("cgroup.max.descendants"), "0").expect("write");
    let name = full.file_name().expect("a name").display();
    let path = format!("/cofferdam-test/{name}/below");
    let c = c.set("/linux/cgroupsPath", json!(path));
    let place = full.display();
    c.create()
        .fails_naming(&format!("cgroup.max.descendants of {place} is reached"));
    fs::remove_dir(&full).expect("rmdir");
    c.assert_gone();
}
