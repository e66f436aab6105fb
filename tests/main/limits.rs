//! Each limit of memory, processors, processes and disks, changed while the container lives; for hosts that have
//! these controllers in cgroup v2.

use crate::support::{Bundle, has_controller};
use crate::update::{by_flags, up, update, value};
use serde_json::{Value, json};
use std::fs;

/// Flags, and what files say after them.
type Rows<'a> = &'a [(&'a str, &'a str)];

fn check(c: &Bundle, rows: Rows) {
    for (flags, files) in rows {
        let words: Vec<&str> = flags.split(' ').collect();
        by_flags(c, &words).ok().silent();
        for (file, want) in files.split("; ").filter_map(|f| f.split_once('=')) {
            assert_eq!(value(c, file), want, "{flags}: {file}");
        }
    }
}

#[test]
fn memory_and_swap() {
    needs!(has_controller("memory"), "needs the memory controller");
    let rows: Rows = &[
        (
            "--memory 64m --memory-swap 128m",
            "memory.max=67108864; memory.swap.max=67108864",
        ),
        ("--memory-swap 96m", "memory.swap.max=33554432"),
        (
            "--memory 1.5mb --memory-swap 1.5MiB",
            "memory.max=1572864; memory.swap.max=0",
        ),
        (
            "--memory=32M --memory-swap=-1",
            "memory.max=33554432; memory.swap.max=max",
        ),
        (
            "--memory-swap 48m",
            "memory.max=33554432; memory.swap.max=16777216",
        ),
        (
            "--memory 64m",
            "memory.max=67108864; memory.swap.max=16777216",
        ),
        ("--memory -1", "memory.max=max; memory.swap.max=max"),
        ("--memory-reservation 16m", "memory.low=16777216"),
        ("--memory-reservation -1", "memory.low=max"),
    ];
    check(&up(bundle!()), rows);
}

#[test]
fn cpu_time_and_weight() {
    needs!(has_controller("cpu"), "needs the cpu controller");
    let rows: Rows = &[
        (
            "--cpu-quota 50000 --cpu-period 200000",
            "cpu.max=50000 200000",
        ),
        ("--cpu-quota 60000", "cpu.max=60000 200000"),
        ("--cpu-period 100000", "cpu.max=60000 100000"),
        (
            "--cpu-burst 40000",
            "cpu.max=60000 100000; cpu.max.burst=40000",
        ),
        (
            "--cpu-quota 30000 --cpu-burst 20000",
            "cpu.max=30000 100000; cpu.max.burst=20000",
        ),
        (
            "--cpu-quota 50000 --cpu-burst 45000",
            "cpu.max=50000 100000; cpu.max.burst=45000",
        ),
        (
            "--cpu-quota=-1 --cpu-burst=0",
            "cpu.max=max 100000; cpu.max.burst=0",
        ),
        ("--cpu-share 2048", "cpu.weight=174; cpu.idle=0"),
        ("--cpu-idle 1", "cpu.idle=1"),
        ("--cpu-idle 0 --cpu-share 512", "cpu.idle=0; cpu.weight=59"),
    ];
    check(&up(bundle!()), rows);
}

#[test]
fn processors_and_memory_nodes() {
    needs!(has_controller("cpuset"), "needs the cpuset controller");
    let c = up(bundle!());
    check(
        &c,
        &[(
            "--cpuset-cpus 0 --cpuset-mems 0",
            "cpuset.cpus=0; cpuset.mems=0",
        )],
    );
    by_flags(&c, &["--cpuset-cpus", "zero"])
        .fails_naming("--cpuset-cpus: write \"zero\" to cpuset.cpus: ");
    assert_eq!(value(&c, "cpuset.cpus"), "0");
}

#[test]
fn numbers_of_processes() {
    needs!(has_controller("pids"), "needs the pids controller");
    let rows: Rows = &[
        ("--pids-limit 33", "pids.max=33"),
        ("--pids-limit 0", "pids.max=1"),
        ("--pids-limit=-1", "pids.max=max"),
    ];
    check(&up(bundle!()), rows);
}

/// A container with these limits from the start, so that their controllers are there.
fn limited(c: Bundle, resources: Value) -> Bundle {
    let mut c = c;
    for (key, value) in resources.as_object().expect("an object") {
        c = c.set(&format!("/linux/resources/{key}"), value.clone());
    }
    up(c)
}

#[test]
fn what_the_scheduler_refuses_is_explained() {
    needs!(has_controller("cpu"), "needs the cpu controller");
    let c = up(bundle!());
    by_flags(&c, &["--cpu-quota", "50000", "--cpu-burst", "40000"]).ok();
    by_flags(&c, &["--cpu-quota", "30000"])
        .fails_naming("--cpu-quota: 30000: below the burst of 40000; set --cpu-burst with it");
    by_flags(&c, &["--cpu-burst", "60000"])
        .fails_naming("--cpu-burst: 60000: must not be above --cpu-quota, 50000");
    by_flags(&c, &["--cpu-quota", "1", "--cpu-burst", "0"])
        .fails_naming("--cpu-quota: write \"1 100000\" to cpu.max, which takes quotas from 1000");
    assert_eq!(value(&c, "cpu.max.burst"), "40000");
    by_flags(&c, &["--cpu-idle", "1"]).ok();
    by_flags(&c, &["--cpu-share", "512"]).fails_naming("--cpu-share: 512: the container is idle");
    assert_eq!(value(&c, "cpu.max"), "50000 100000");
}

/// Major and minor number of some whole disk.
fn disk() -> Option<(u32, u32)> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    let mut numbers = disks.filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok());
    let number = numbers.next()?;
    let (major, minor) = number.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn rates_of_a_disk() {
    needs!(has_controller("io"), "needs the io controller");
    let disk = disk();
    needs!(disk.is_some(), "needs a disk");
    let (major, minor) = disk.expect("a disk");
    let c = up(bundle!());
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let read = json!({"blockIO": {"throttleReadBpsDevice": rate(1048576), "throttleWriteIOPSDevice": rate(50)}});
    update(&c, &read).ok().silent();
    let line = |rates: &str| format!("{major}:{minor} {rates}");
    assert_eq!(
        value(&c, "io.max"),
        line("rbps=1048576 wbps=max riops=max wiops=50")
    );
    let other = json!({"blockIO": {"throttleWriteBpsDevice": rate(2097152), "throttleReadBpsDevice": rate(0)}});
    update(&c, &other).ok();
    assert_eq!(
        value(&c, "io.max"),
        line("rbps=max wbps=2097152 riops=max wiops=50")
    );
    let wrong = json!({"blockIO": {"throttleReadBpsDevice": rate(7)}, "unified": {"cgroup.max.depth": "deep"}});
    update(&c, &wrong).fails_with("cgroup.max.depth");
    assert_eq!(
        value(&c, "io.max"),
        line("rbps=max wbps=2097152 riops=max wiops=50")
    );
}

#[test]
fn the_weight_of_io() {
    needs!(has_controller("io"), "needs the io controller");
    let c = up(bundle!());
    let flags: &[&str] = &["--blkio-weight", "500"];
    let (file, want) = match c.cgroup().join("io.bfq.weight").exists() {
        true => ("io.bfq.weight", "500"),
        false => ("io.weight", "4950"),
    };
    by_flags(&c, flags).ok().silent();
    assert_eq!(value(&c, file).trim_start_matches("default "), want);
    let Some((major, minor)) = disk() else { return };
    let weight = json!({"major": major, "minor": minor, "weight": 300});
    let output = update(&c, &json!({"blockIO": {"weightDevice": [weight]}})).ok();
    match file {
        "io.bfq.weight" => assert!(value(&c, file).contains(&format!("{major}:{minor} 300"))),
        _ => assert!(
            output
                .stderr()
                .contains("the kernel has no io.bfq.weight, ignored")
        ),
    }
}

/// As a resize of a pod does it.
#[test]
fn unified_files_of_memory() {
    needs!(has_controller("memory"), "needs the memory controller");
    let c = limited(
        bundle!(),
        json!({"memory": {"limit": 134217728}, "pids": {"limit": 40}}),
    );
    let files = json!({"memory": {"limit": 67108864}, "cpu": {}, "pids": {"limit": 30},
        "unified": {"memory.high": "50331648", "memory.min": "4194304", "memory.oom.group": "1"}});
    update(&c, &files).ok().silent();
    for (file, want) in [
        ("memory.max", "67108864"),
        ("memory.high", "50331648"),
        ("memory.min", "4194304"),
        ("memory.oom.group", "1"),
        ("pids.max", "30"),
    ] {
        assert_eq!(value(&c, file), want, "{file}");
    }
    // It is written only, and so cannot be read before.
    let reclaim = json!({"unified": {"memory.reclaim": "4096"}});
    let told = update(&c, &reclaim).describe();
    assert!(!told.contains("read memory.reclaim"), "{told}");
    update(&c, &json!({"unified": {"memory.hihg": "1"}}))
        .fails_with("write \"1\" to memory.hihg, which this kernel does not have");
}

#[test]
fn all_of_many_limits_are_taken_back() {
    for controller in ["memory", "cpu", "pids"] {
        needs!(
            has_controller(controller),
            "needs the controllers memory, cpu and pids"
        );
    }
    let before = json!({"memory": {"limit": 134217728, "swap": 268435456}, "pids": {"limit": 40},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 40000}});
    let c = limited(bundle!(), before);
    let files = [
        "memory.max",
        "memory.swap.max",
        "pids.max",
        "cpu.idle",
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
    ];
    let all = || files.map(|file| value(&c, file));
    let saved = all();
    update(
        &c,
        &json!({"memory": {"limit": 67108864, "swap": 67108864}, "pids": {"limit": 20},
        "cpu": {"idle": 1, "quota": 20000, "burst": 10000}, "unified": {"pids.max": "some"}}),
    )
    .fails_with("linux.resources.unified[\"pids.max\"]: write \"some\" to pids.max");
    assert_eq!(all(), saved);
    assert_eq!(c.status(), "running");
}

#[test]
fn a_limit_of_memory_that_comes_late_is_warned_of() {
    needs!(has_controller("memory"), "needs the memory controller");
    let mut c = bundle!();
    let path = format!("/cofferdam-test/{}-late/c", c.id);
    c = up(c.set("/linux/cgroupsPath", json!(path)));
    let output = by_flags(&c, &["--memory", "64m"]).ok();
    let told = output.stderr();
    assert!(
        told.contains("what it uses already is not counted"),
        "{told}"
    );
    by_flags(&c, &["--memory", "32m"]).ok().silent();
    assert_eq!(value(&c, "memory.max"), "33554432");
    c.delete(&["--force"]).ok();
    let _ = fs::remove_dir(c.cgroup().parent().expect("a parent"));
}

#[test]
fn a_limit_below_the_usage_can_be_refused() {
    needs!(has_controller("memory"), "needs the memory controller");
    let c = limited(bundle!(), json!({"memory": {"limit": 67108864}}));
    for (low, words) in [
        (
            json!({"limit": 4096}),
            "rejecting memory limit 4096 <= usage",
        ),
        (
            json!({"limit": 4096, "swap": 4096}),
            "rejecting memory+swap limit 4096 <= usage",
        ),
    ] {
        let mut low = json!({"memory": low});
        low["memory"]["checkBeforeUpdate"] = json!(true);
        update(&c, &low).fails_with(words);
    }
    assert_eq!(value(&c, "memory.max"), "67108864");
    assert_eq!(c.status(), "running");
}
