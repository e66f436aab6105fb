//! Changes to the limits of a container that lives: what is asked for, completed by what its cgroup says now, and
//! in an order that the kernel takes at every step.
//!
//! Pure: the cgroup's files are given as a function. Nothing else is remembered between two changes.

use anyhow::{Result, ensure};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::resources::{Resources, Setting, resources};
use crate::text::fault::coded;

/// The code of a limit below what is in use.
pub const BELOW_USAGE: &str = "limit-below-usage";

/// Fills in the other half of what shares one file, or is counted together. 0 stands for what is not asked for.
pub fn complete(asked: &mut Value, now: impl Fn(&str) -> Option<String>) {
    let number = |value: &Value| value.as_i64().filter(|number| *number != 0);
    let memory = &asked["memory"];
    if number(&memory["swap"]).is_some() && number(&memory["limit"]).is_none() {
        asked["memory"]["limit"] = json!(now("memory.max").map_or(-1, |text| limit_of(&text)));
    }
    let cpu = &asked["cpu"];
    let (quota, period) = (number(&cpu["quota"]), number(&cpu["period"]));
    let burst = cpu["burst"].is_u64();
    let Some(text) = now("cpu.max").filter(|_| quota.is_some() || period.is_some() || burst) else {
        return;
    };
    let mut words = text.split_whitespace();
    let (was, over) = (
        words.next().unwrap_or("max"),
        words.next().unwrap_or("100000"),
    );
    if quota.is_none() {
        asked["cpu"]["quota"] = json!(limit_of(was));
    }
    if period.is_none() {
        asked["cpu"]["period"] = json!(limit_of(over));
    }
}

fn limit_of(text: &str) -> i64 {
    text.trim().parse().unwrap_or(-1)
}

/// What has to be written, without what is so already.
pub fn changes(spec: &LinuxResources, now: impl Fn(&str) -> Option<String>) -> Result<Resources> {
    let mut plan = resources(Some(spec))?;
    check_usage(spec, &now)?;
    check_cpu(spec, &now)?;
    order_memory(&mut plan.settings, &now);
    keep_burst(&mut plan.settings, &now);
    keep_weights(&mut plan.settings, &now);
    plan.settings = without_repetition(plan.settings, now);
    Ok(plan)
}

/// Only where the config asks for it: else the kernel makes room, and kills if it finds none.
fn check_usage(spec: &LinuxResources, now: impl Fn(&str) -> Option<String>) -> Result<()> {
    let Some(memory) = spec
        .memory()
        .as_ref()
        .filter(|memory| memory.check_before_update() == Some(true))
    else {
        return Ok(());
    };
    let Some(usage) = now("memory.current").and_then(|text| text.trim().parse::<i64>().ok()) else {
        return Ok(());
    };
    for (field, what, limit) in [
        ("swap", "memory+swap", memory.swap()),
        ("limit", "memory", memory.limit()),
    ] {
        let limit = limit.unwrap_or(0);
        ensure!(
            limit <= 0 || limit > usage,
            coded(
                BELOW_USAGE,
                format!(
                    "linux.resources.memory.{field}: {limit}: rejecting {what} limit {limit} <= usage {usage}"
                )
            )
        );
    }
    Ok(())
}

/// The kernel would say EINVAL to both without a reason.
fn check_cpu(spec: &LinuxResources, now: impl Fn(&str) -> Option<String>) -> Result<()> {
    let Some(cpu) = spec.cpu() else { return Ok(()) };
    let number = |file: &str| {
        now(file)
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    if let Some(shares) = cpu
        .shares()
        .filter(|shares| *shares != 0 && cpu.idle().is_none())
    {
        ensure!(
            number("cpu.idle") == 0,
            "linux.resources.cpu.shares: {shares}: the container is idle, which has no shares; set linux.resources.cpu.idle \
             to 0 with it"
        );
    }
    if let Some(quota) = cpu
        .quota()
        .filter(|quota| *quota > 0 && cpu.burst().is_none())
    {
        let burst = number("cpu.max.burst");
        ensure!(
            burst <= quota.unsigned_abs(),
            "linux.resources.cpu.quota: {quota}: below the burst of {burst}; set linux.resources.cpu.burst with it"
        );
    }
    Ok(())
}

/// Whoever gives up swap needs the memory first, and whoever gives up memory the swap.
fn order_memory(settings: &mut [Setting], now: impl Fn(&str) -> Option<String>) {
    let at = |file: &str| settings.iter().position(|setting| setting.file == file);
    let (Some(swap), Some(max)) = (at("memory.swap.max"), at("memory.max")) else {
        return;
    };
    let size = |text: &str| text.trim().parse().unwrap_or(u64::MAX);
    let before = now("memory.swap.max").map_or(u64::MAX, |text| size(&text));
    if size(&settings[swap].value) < before && swap < max {
        settings.swap(swap, max);
    }
}

/// The burst is taken away before the quota changes only where the new quota could not hold the old burst.
fn keep_burst(settings: &mut Vec<Setting>, now: impl Fn(&str) -> Option<String>) {
    let at = |file: &str| settings.iter().position(|setting| setting.file == file);
    let (Some(none), Some(max)) = (at("cpu.max.burst"), at("cpu.max")) else {
        return;
    };
    let quota = settings[max].value.split(' ').next().unwrap_or_default();
    let quota = quota.parse().unwrap_or(u64::MAX);
    let burst = now("cpu.max.burst").map_or(0, |text| text.trim().parse().unwrap_or(0));
    if none < max && settings[none].value == "0" && burst <= quota {
        settings.remove(none);
    }
}

/// With its default weight BFQ forgets those of devices (block/bfq-cgroup.c, bfq_io_set_weight_legacy).
fn keep_weights(settings: &mut Vec<Setting>, now: impl Fn(&str) -> Option<String>) {
    const FILE: &str = "io.bfq.weight";
    let is_default = |setting: &Setting| match &setting.alternative {
        Some((file, _)) => file == FILE,
        None => setting.file == FILE && !setting.value.contains(':'),
    };
    let Some(last) = settings.iter().rposition(is_default) else {
        return;
    };
    let text = now(FILE).unwrap_or_default();
    let devices = text.lines().filter(|line| line.contains(':'));
    let kept: Vec<Setting> = devices
        .map(|line| Setting {
            file: FILE.to_string(),
            value: line.to_string(),
            optional: true,
            alternative: None,
            ..settings[last].clone()
        })
        .collect();
    settings.splice(last + 1..last + 1, kept);
}

/// A file may be written several times, so each value is compared with the one before it.
fn without_repetition(
    settings: Vec<Setting>,
    now: impl Fn(&str) -> Option<String>,
) -> Vec<Setting> {
    let mut written: Vec<(String, String)> = Vec::new();
    let mut kept = Vec::new();
    for setting in settings {
        let last = written.iter().rev().find(|(file, _)| *file == setting.file);
        let same = match last {
            Some((_, value)) => *value == setting.value,
            None => now(&setting.file).is_some_and(|text| text.trim() == setting.value),
        };
        if !same || setting.alternative.is_some() {
            written.push((setting.file.clone(), setting.value.clone()));
            kept.push(setting);
        }
    }
    kept
}

/// The files that a write changes; the last is to be restored first.
pub fn changed<'a>(file: &'a str, value: &str) -> Vec<&'a str> {
    match (file, value) {
        // kernel/sched/fair.c, sched_group_set_idle: who becomes idle loses its weight.
        ("cpu.idle", "1") => vec!["cpu.weight", file],
        _ => vec![file],
    }
}

/// What a file has to be given to say again what it said before `value` was written to it; files of several
/// lines have one for each device, which is the first word.
pub fn undo(file: &str, value: &str, before: &str) -> String {
    const BY_DEVICE: [(&str, &str); 7] = [
        ("io.max", "rbps=max wbps=max riops=max wiops=max"),
        ("io.weight", "default"),
        ("io.bfq.weight", "default"),
        ("io.latency", "target=0"),
        ("rdma.max", "hca_handle=max hca_object=max"),
        ("misc.max", "max"),
        ("dmem.max", "max"),
    ];
    let Some((_, none)) = BY_DEVICE.iter().find(|(name, _)| *name == file) else {
        // cpuset(7): an empty list is written as an empty line.
        return format!("{}\n", before.trim_end());
    };
    let mut words = value.split_whitespace();
    let device = match (words.next(), words.next()) {
        (Some(device), Some(_)) => device,
        // A weight alone is the default one.
        _ => "default",
    };
    let line = before
        .lines()
        .find(|line| line.split_whitespace().next() == Some(device));
    line.map_or(format!("{device} {none}"), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cgroup with these files.
    fn cgroup<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + Copy + 'a {
        move |name| {
            let found = files.iter().find(|(file, _)| *file == name);
            found.map(|(_, text)| format!("{text}\n"))
        }
    }

    fn planned(asked: Value, files: &[(&str, &str)]) -> Result<Vec<String>> {
        let mut asked = asked;
        complete(&mut asked, cgroup(files));
        let spec = crate::bundle::resources(&asked)?;
        let plan = changes(&spec, cgroup(files))?;
        let line = |setting: &Setting| format!("{}={}", setting.file, setting.value);
        Ok(plan.settings.iter().map(line).collect())
    }

    #[test]
    fn weights_of_devices_outlive_the_default_one() {
        let files = [("io.bfq.weight", "default 500\n8:0 300\n8:16 40")];
        for (asked, wanted) in [
            (
                json!({"blockIO": {"weight": 10}}),
                vec![
                    "io.weight=1",
                    "io.bfq.weight=8:0 300",
                    "io.bfq.weight=8:16 40",
                ],
            ),
            (
                json!({"unified": {"io.bfq.weight": "8:0 50"}}),
                vec!["io.bfq.weight=8:0 50"],
            ),
            (
                json!({"unified": {"io.bfq.weight": "default 50"}}),
                vec![
                    "io.bfq.weight=default 50",
                    "io.bfq.weight=8:0 300",
                    "io.bfq.weight=8:16 40",
                ],
            ),
        ] {
            assert_eq!(planned(asked, &files).unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_not_asked_for_stays() {
        let files = [
            ("cpu.max", "50000 100000"),
            ("memory.max", "1000"),
            ("memory.swap.max", "500"),
        ];
        for (asked, want) in [
            (json!({}), vec![]),
            (json!({"pids": {}}), vec![]),
            (
                json!({"cpu": {"quota": 20000}}),
                vec!["cpu.max=20000 100000"],
            ),
            (
                json!({"cpu": {"period": 50000}}),
                vec!["cpu.max=50000 50000"],
            ),
            (json!({"cpu": {"quota": -1}}), vec!["cpu.max=max 100000"]),
            (json!({"cpu": {"quota": 50000}}), vec![]),
            (
                json!({"cpu": {"burst": 10000}}),
                vec!["cpu.max.burst=10000"],
            ),
            (
                json!({"cpu": {"quota": 20000, "burst": 10000}}),
                vec!["cpu.max=20000 100000", "cpu.max.burst=10000"],
            ),
            (json!({"memory": {"limit": 2000}}), vec!["memory.max=2000"]),
            (
                json!({"memory": {"swap": 3000}}),
                vec!["memory.swap.max=2000"],
            ),
            (json!({"memory": {"swap": -1}}), vec!["memory.swap.max=max"]),
            (
                json!({"memory": {"limit": -1}}),
                vec!["memory.swap.max=max", "memory.max=max"],
            ),
            (json!({"pids": {"limit": -1}}), vec!["pids.max=max"]),
        ] {
            assert_eq!(planned(asked.clone(), &files).unwrap(), want, "{asked}");
        }
    }

    #[test]
    fn memory_and_swap_never_lack_both() {
        let files = [("memory.max", "1000"), ("memory.swap.max", "500")];
        let more_swap = json!({"memory": {"limit": 500, "swap": 1500}});
        assert_eq!(
            planned(more_swap, &files).unwrap(),
            ["memory.swap.max=1000", "memory.max=500"]
        );
        let less_swap = json!({"memory": {"limit": 2000, "swap": 2000}});
        assert_eq!(
            planned(less_swap, &files).unwrap(),
            ["memory.max=2000", "memory.swap.max=0"]
        );
    }

    #[test]
    fn limits_below_the_usage_are_refused_where_that_is_asked_for() {
        let files = [("memory.current", "1000")];
        let checked = |limit: i64, swap: i64| json!({"memory": {"limit": limit, "swap": swap, "checkBeforeUpdate": true}});
        let error = |asked| planned(asked, &files).unwrap_err().to_string();
        assert_eq!(
            error(checked(1000, 5000)),
            "linux.resources.memory.limit: 1000: rejecting memory limit 1000 <= usage 1000"
        );
        assert_eq!(
            error(checked(900, 900)),
            "linux.resources.memory.swap: 900: rejecting memory+swap limit 900 <= usage 1000"
        );
        assert!(planned(checked(1001, 1001), &files).is_ok());
        assert!(planned(checked(-1, -1), &files).is_ok());
        assert!(planned(checked(5, 5), &[]).is_ok());
        assert!(planned(json!({"memory": {"limit": 5}}), &files).is_ok());
    }

    #[test]
    fn what_the_kernel_would_refuse_without_a_word_is_explained() {
        let idle = [("cpu.idle", "1")];
        let error = planned(json!({"cpu": {"shares": 512}}), &idle)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("linux.resources.cpu.shares: 512: the container is idle"),
            "{error}"
        );
        assert!(planned(json!({"cpu": {"shares": 512, "idle": 0}}), &idle).is_ok());
        let burst = [("cpu.max", "50000 100000"), ("cpu.max.burst", "40000")];
        let error = planned(json!({"cpu": {"quota": 30000}}), &burst)
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("linux.resources.cpu.quota: 30000: below the burst of 40000"),
            "{error}"
        );
        let less = json!({"cpu": {"quota": 30000, "burst": 20000}});
        assert_eq!(
            planned(less, &burst).unwrap(),
            [
                "cpu.max.burst=0",
                "cpu.max=30000 100000",
                "cpu.max.burst=20000"
            ]
        );
        let still = json!({"cpu": {"quota": 60000, "burst": 40000}});
        assert_eq!(planned(still, &burst).unwrap(), ["cpu.max=60000 100000"]);
        let none = json!({"cpu": {"quota": 30000, "burst": 0}});
        assert_eq!(
            planned(none, &burst).unwrap(),
            ["cpu.max.burst=0", "cpu.max=30000 100000"]
        );
    }

    #[test]
    fn every_file_can_be_given_what_it_said() {
        for (file, value, before, want) in [
            ("memory.max", "5", "max\n", "max\n"),
            ("cpuset.cpus", "0", "\n", "\n"),
            ("cpu.max", "5 6", "max 100000\n", "max 100000\n"),
            (
                "io.max",
                "8:0 rbps=5",
                "8:16 rbps=1 wbps=max\n8:0 rbps=9 wbps=7\n",
                "8:0 rbps=9 wbps=7",
            ),
            (
                "io.max",
                "8:0 rbps=5",
                "",
                "8:0 rbps=max wbps=max riops=max wiops=max",
            ),
            ("io.weight", "50", "default 100\n", "default 100"),
            ("io.bfq.weight", "8:0 50", "default 100\n", "8:0 default"),
            (
                "rdma.max",
                "mlx5_0 hca_handle=1",
                "mlx5_0 hca_handle=2 hca_object=max\n",
                "mlx5_0 hca_handle=2 hca_object=max",
            ),
        ] {
            assert_eq!(undo(file, value, before), want, "{file} {value}");
        }
    }

    #[test]
    fn who_stops_being_idle_has_the_weight_of_before() {
        assert_eq!(changed("cpu.idle", "1"), ["cpu.weight", "cpu.idle"]);
        assert_eq!(changed("cpu.idle", "0"), ["cpu.idle"]);
        assert_eq!(changed("pids.max", "1"), ["pids.max"]);
    }
}
