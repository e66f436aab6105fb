//! `linux.resources` -> what is written below the container's cgroup (v2), and its device rules.
//!
//! Pure; create and update both use it. The spec speaks the language of cgroup v1, so most values
//! are converted; what v2 has no file for becomes a warning. A value is checked here as far as its
//! conversion needs it; limits that depend on the machine are the kernel's to judge, at the write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;

use anyhow::{Result, ensure};
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxHugepageLimit, LinuxMemory, LinuxPids,
    LinuxRdma, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice,
};

use crate::plan::devices::{self, DeviceRule};
use crate::plan::ignored_v1;

#[derive(Debug, Default)]
pub struct Resources {
    /// In the order in which the kernel wants them.
    pub settings: Vec<Setting>,
    /// The rules of the spec; `devices::defaults` go after them.
    pub devices: Vec<DeviceRule>,
    /// What the spec asks for and cgroup v2 does not know.
    pub warnings: Vec<String>,
}

/// One write below the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Must be enabled for the file to exist; `cgroup` is always there.
    pub controller: String,
    pub file: String,
    pub value: String,
    /// Where in the spec it comes from, for errors.
    pub field: String,
    /// Whether the file may be missing although its controller is there.
    pub optional: bool,
    /// Another file and its value, to be written instead where that file exists.
    pub alternative: Option<(String, String)>,
}

pub fn resources(spec: Option<&LinuxResources>) -> Result<Resources> {
    let Some(spec) = spec else {
        return Ok(Resources::default());
    };
    ignored_v1::check(spec)?;
    let mut plan = Resources {
        warnings: ignored_v1::warnings(spec),
        devices: device_rules(spec.devices().as_deref().unwrap_or_default())?,
        ..Resources::default()
    };
    if let Some(limits) = spec.pids() {
        plan.settings.push(pids(limits));
    }
    if let Some(limits) = spec.memory() {
        plan.settings.extend(memory(limits)?);
    }
    if let Some(limits) = spec.block_io() {
        plan.settings.extend(io(limits)?);
    }
    if let Some(limits) = spec.cpu() {
        plan.settings.extend(cpu(limits)?);
        plan.settings.extend(cpuset(limits));
    }
    let hugepages = spec.hugepage_limits().as_deref().unwrap_or_default();
    plan.settings.extend(hugetlb(hugepages)?);
    if let Some(limits) = spec.rdma() {
        plan.settings.extend(rdma(limits)?);
    }
    // Last, because these override what was converted.
    if let Some(files) = spec.unified() {
        plan.settings.extend(unified(files)?);
    }
    Ok(plan)
}

impl Resources {
    /// The controllers that the settings need, sorted.
    pub fn controllers(&self) -> Vec<&str> {
        let names = self.settings.iter().map(|setting| &*setting.controller);
        let distinct: BTreeSet<&str> = names.filter(|name| *name != "cgroup").collect();
        distinct.into_iter().collect()
    }
}

impl Resources {
    /// The sizes of huge pages that are limited, and the fields that name them.
    pub fn page_sizes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.settings.iter().filter_map(|setting| {
            let size = setting
                .file
                .strip_prefix("hugetlb.")?
                .strip_suffix(".max")?;
            let field = setting.field.strip_suffix(".limit")?;
            Some((size.trim_end_matches(".rsvd"), field))
        })
    }
}

impl Setting {
    fn new(file: &str, value: impl ToString, field: &str) -> Setting {
        Setting {
            controller: controller(file).to_string(),
            file: file.to_string(),
            value: value.to_string(),
            field: field.to_string(),
            optional: false,
            alternative: None,
        }
    }

    fn optional_if(self, optional: bool) -> Setting {
        Setting { optional, ..self }
    }
}

fn controller(file: &str) -> &str {
    file.split_once('.').map_or(file, |(name, _)| name)
}

fn check(holds: bool, field: &str, value: impl Display, rule: &str) -> Result<()> {
    ensure!(holds, "{field}: {value}: {rule}");
    Ok(())
}

fn device_rules(list: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>> {
    let parse = |(index, rule)| devices::parse(rule, &format!("linux.resources.devices[{index}]"));
    list.iter().enumerate().map(parse).collect()
}

/// Any negative limit is none. 0 is a limit since version 1.3 of the spec, and 1 is the nearest that
/// a container can run with, as its init counts.
fn pids(limits: &LinuxPids) -> Setting {
    let value = match limits.limit() {
        ..0 => "max".to_string(),
        limit => limit.max(1).to_string(),
    };
    Setting::new("pids.max", value, "linux.resources.pids.limit")
}

/// Swap goes before max: a memory.max below the usage reclaims at once, and then the swap limit that
/// this must keep to has to be there.
fn memory(limits: &LinuxMemory) -> Result<Vec<Setting>> {
    let file = |name, field: &str, value: Option<i64>| -> Result<Option<Setting>> {
        let field = format!("linux.resources.memory.{field}");
        let text = bytes_or_max(value.unwrap_or(0), &field)?;
        Ok(text.map(|text| Setting::new(name, text, &field)))
    };
    let max = file("memory.max", "limit", limits.limit())?;
    let low = file("memory.low", "reservation", limits.reservation())?;
    Ok([swap(limits)?, max, low].into_iter().flatten().collect())
}

/// The spec counts memory and swap together, the kernel swap alone. A kernel without swap has no
/// such file, and then needs none to have no swap, or as much as there is.
fn swap(limits: &LinuxMemory) -> Result<Option<Setting>> {
    let field = "linux.resources.memory.swap";
    let (limit, total) = (limits.limit().unwrap_or(0), limits.swap().unwrap_or(0));
    let value = match bytes_or_max(total, field)? {
        None if limit == -1 => "max".to_string(),
        None => return Ok(None),
        Some(value) if limit == -1 || total == -1 => value,
        Some(_) => {
            let rule = "needs linux.resources.memory.limit, which is part of it";
            check(limit != 0, field, total, rule)?;
            let rule = format!("must not be below linux.resources.memory.limit, {limit}");
            check(total >= limit, field, total, &rule)?;
            (total - limit).to_string()
        }
    };
    let harmless = value == "max" || value == "0";
    // Without a wish for swap it is the wish for memory.
    let field = if total == 0 {
        "linux.resources.memory.limit"
    } else {
        field
    };
    let setting = Setting::new("memory.swap.max", value, field).optional_if(harmless);
    Ok(Some(setting))
}

/// 0 stands for a value that is not set.
fn bytes_or_max(value: i64, field: &str) -> Result<Option<String>> {
    let rule = "must be -1 (unlimited), or a number of bytes";
    check(value >= -1, field, value, rule)?;
    Ok(match value {
        0 => None,
        -1 => Some("max".to_string()),
        _ => Some(value.to_string()),
    })
}

/// The key in io.max and the field in the spec.
const THROTTLES: [(&str, &str); 4] = [
    ("rbps", "throttleReadBpsDevice"),
    ("wbps", "throttleWriteBpsDevice"),
    ("riops", "throttleReadIOPSDevice"),
    ("wiops", "throttleWriteIOPSDevice"),
];

fn io(limits: &LinuxBlockIo) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    if let Some(weight) = limits.weight().filter(|weight| *weight != 0) {
        settings.push(io_weight(weight)?);
    }
    for (index, device) in limits.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        settings.extend(io_weight_of_device(device, &field)?);
    }
    let throttles = [
        limits.throttle_read_bps_device(),
        limits.throttle_write_bps_device(),
        limits.throttle_read_iops_device(),
        limits.throttle_write_iops_device(),
    ];
    for ((key, name), list) in THROTTLES.into_iter().zip(throttles) {
        for (index, device) in list.iter().flatten().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{index}]");
            settings.push(io_max(key, device, &field)?);
        }
    }
    Ok(settings)
}

/// BFQ takes the weight of the spec as it is; io.weight, of the cost model, has a wider scale.
fn io_weight(weight: u16) -> Result<Setting> {
    let field = "linux.resources.blockIO.weight";
    check_weight(weight, field)?;
    let wide = 1 + (u32::from(weight) - 10) * 9999 / 990;
    let mut setting = Setting::new("io.weight", wide, field);
    setting.alternative = Some(("io.bfq.weight".to_string(), weight.to_string()));
    Ok(setting)
}

/// Only BFQ has weights per device for whoever asks; io.weight has them for devices that the
/// administrator has enabled the cost model for.
fn io_weight_of_device(device: &LinuxWeightDevice, field: &str) -> Result<Option<Setting>> {
    let Some(weight) = device.weight().filter(|weight| *weight != 0) else {
        return Ok(None);
    };
    check_weight(weight, &format!("{field}.weight"))?;
    let number = device_number(device.major(), device.minor(), field)?;
    let setting = Setting::new("io.bfq.weight", format!("{number} {weight}"), field);
    Ok(Some(setting.optional_if(true)))
}

fn check_weight(weight: u16, field: &str) -> Result<()> {
    let fits = (10..=1000).contains(&weight);
    check(fits, field, weight, "must be from 10 to 1000")
}

/// In cgroup v1 a rate of 0 lifts the limit; io.max refuses a 0.
fn io_max(key: &str, device: &LinuxThrottleDevice, field: &str) -> Result<Setting> {
    let number = device_number(device.major(), device.minor(), field)?;
    let rate = match device.rate() {
        0 => "max".to_string(),
        rate => rate.to_string(),
    };
    let value = format!("{number} {key}={rate}");
    Ok(Setting::new("io.max", value, field))
}

fn device_number(major: i64, minor: i64, field: &str) -> Result<String> {
    for (name, value) in [("major", major), ("minor", minor)] {
        let field = format!("{field}.{name}");
        let fits = u32::try_from(value).is_ok();
        check(fits, &field, value, "must be the number of a device")?;
    }
    Ok(format!("{major}:{minor}"))
}

/// Idle goes before weight: the kernel takes no weight for a group that is idle.
fn cpu(limits: &LinuxCpu) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    let idle = limits.idle();
    if let Some(idle) = idle {
        let field = "linux.resources.cpu.idle";
        check(idle == 0 || idle == 1, field, idle, "must be 0 or 1")?;
        settings.push(Setting::new("cpu.idle", idle, field));
    }
    let shares = limits.shares().unwrap_or(0);
    if shares != 0 && idle != Some(1) {
        let field = "linux.resources.cpu.shares";
        settings.push(Setting::new("cpu.weight", cpu_weight(shares), field));
    }
    settings.extend(cpu_max(limits)?);
    Ok(settings)
}

/// From shares, 2 to 262144, to weight, 1 to 10000, so that the defaults, 1024 and 100, meet: a
/// parabola through the three points with both axes logarithmic.
fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    10f64.powf(exponent).ceil() as u64
}

/// The kernel refuses a burst above the quota, whichever of them is written. A fresh cgroup has no
/// burst, so quota first and burst second always works there; an older burst may be above the new
/// quota, as an older quota may be below the new burst, so it is taken away first.
fn cpu_max(limits: &LinuxCpu) -> Result<Vec<Setting>> {
    let quota = limits.quota().unwrap_or(0);
    let period = limits.period().unwrap_or(0);
    let burst = burst(limits, quota)?;
    if quota == 0 && period == 0 {
        return Ok(burst.into_iter().collect());
    }
    let time = match quota {
        1.. => quota.to_string(),
        _ => "max".to_string(),
    };
    let period = if period == 0 { 100_000 } else { period };
    let field = match quota {
        0 => "linux.resources.cpu.period",
        _ => "linux.resources.cpu.quota",
    };
    let max = Setting::new("cpu.max", format!("{time} {period}"), field);
    let none = burst.clone().map(|burst| Setting {
        value: "0".to_string(),
        ..burst
    });
    Ok([none, Some(max), burst].into_iter().flatten().collect())
}

fn burst(limits: &LinuxCpu, quota: i64) -> Result<Option<Setting>> {
    let Some(burst) = limits.burst() else {
        return Ok(None);
    };
    let field = "linux.resources.cpu.burst";
    let rule = format!("must not be above linux.resources.cpu.quota, {quota}");
    let fits = quota <= 0 || burst <= quota.unsigned_abs();
    check(fits, field, burst, &rule)?;
    Ok(Some(Setting::new("cpu.max.burst", burst, field)))
}

fn cpuset(limits: &LinuxCpu) -> Vec<Setting> {
    let lists = [("cpus", limits.cpus()), ("mems", limits.mems())];
    let setting = |(name, list): (&str, &Option<String>)| {
        let list = list.as_deref().filter(|list| !list.is_empty())?;
        let field = format!("linux.resources.cpu.{name}");
        Some(Setting::new(&format!("cpuset.{name}"), list, &field))
    };
    lists.into_iter().filter_map(setting).collect()
}

/// Reservations first, as the spec prefers them; kernels without their limits have no such file.
fn hugetlb(limits: &[LinuxHugepageLimit]) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let (size, bytes) = (limit.page_size(), limit.limit());
        ensure!(
            is_page_size(size),
            "{field}.pageSize: {size:?}: must be a size such as 64KB, 2MB or 1GB"
        );
        let field = format!("{field}.limit");
        check(bytes >= 0, &field, bytes, "must be a number of bytes")?;
        let reserved = format!("hugetlb.{size}.rsvd.max");
        settings.push(Setting::new(&reserved, bytes, &field).optional_if(true));
        settings.push(Setting::new(&format!("hugetlb.{size}.max"), bytes, &field));
    }
    Ok(settings)
}

fn is_page_size(text: &str) -> bool {
    let units = ["KB", "MB", "GB"];
    let Some(number) = units.iter().find_map(|unit| text.strip_suffix(unit)) else {
        return false;
    };
    !number.is_empty() && !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit())
}

fn rdma(limits: &HashMap<String, LinuxRdma>) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (device, limit) in limits.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("linux.resources.rdma[{device:?}]");
        // The file reads words and lines: with white space a name would say more than a name.
        let is_word = !device.is_empty() && !device.contains(char::is_whitespace);
        ensure!(is_word, "{field}: must be the name of a device");
        let words = [
            ("hca_handle", limit.hca_handles()),
            ("hca_object", limit.hca_objects()),
        ];
        let words: String = words
            .iter()
            .filter_map(|(word, count)| count.map(|count| format!(" {word}={count}")))
            .collect();
        if !words.is_empty() {
            let value = format!("{device}{words}");
            settings.push(Setting::new("rdma.max", value, &field));
        }
    }
    Ok(settings)
}

/// These act on processes and would be no limit: they could stop or end the runtime's own work.
const NO_RESOURCES: [&str; 5] = [
    "cgroup.freeze",
    "cgroup.kill",
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.type",
];

/// The kernel takes one line a write.
fn unified(files: &HashMap<String, String>) -> Result<Vec<Setting>> {
    let mut settings = Vec::new();
    for (file, value) in files.iter().collect::<BTreeMap<_, _>>() {
        let field = format!("linux.resources.unified[{file:?}]");
        check_name(file, &field)?;
        settings.extend(lines(value).map(|line| Setting::new(file, line, &field)));
    }
    Ok(settings)
}

fn check_name(file: &str, field: &str) -> Result<()> {
    let (controller, name) = file.split_once('.').unwrap_or_default();
    let is_file = !file.contains('/');
    let is_parameter = !controller.is_empty() && !name.is_empty();
    let is_resource = !NO_RESOURCES.contains(&file);
    ensure!(is_file, "{field}: must be the name of a file, without /");
    ensure!(is_parameter, "{field}: must be CONTROLLER.PARAMETER");
    ensure!(is_resource, "{field}: acts on processes, no resource");
    Ok(())
}

/// Without the empty ones: many files take an empty text for 0.
pub fn lines(value: &str) -> impl Iterator<Item = &str> {
    value.split('\n').filter(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Resources {
        let spec: LinuxResources = serde_json::from_str(json).unwrap();
        resources(Some(&spec)).unwrap()
    }

    /// `file = value`, in order.
    fn writes(json: &str) -> Vec<String> {
        let settings = plan(json).settings;
        let line = |setting: &Setting| format!("{} = {}", setting.file, setting.value);
        settings.iter().map(line).collect()
    }

    fn refusal(json: &str) -> String {
        let spec: LinuxResources = serde_json::from_str(json).unwrap();
        resources(Some(&spec)).unwrap_err().to_string()
    }

    #[test]
    fn nothing_asked_is_nothing_written() {
        let empty = resources(None).unwrap();
        assert!(empty.settings.is_empty() && empty.devices.is_empty());
        for json in [
            "{}",
            r#"{"memory": {}, "cpu": {}, "blockIO": {}, "network": {}, "hugepageLimits": [],
                "rdma": {}, "unified": {}}"#,
            r#"{"memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0, "kernelTCP": 0,
                "swappiness": 0, "disableOOMKiller": false, "useHierarchy": false},
                "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0,
                "realtimePeriod": 0, "cpus": "", "mems": ""},
                "blockIO": {"weight": 0, "leafWeight": 0},
                "network": {"classID": 0, "priorities": []}}"#,
        ] {
            assert_eq!(writes(json), [""; 0], "{json}");
            assert_eq!(plan(json).warnings, [""; 0], "{json}");
        }
    }

    #[test]
    fn the_kernels_order_is_kept() {
        let json = r#"{
            "unified": {"memory.max": "7", "cpu.max": "max 5000"},
            "rdma": {"mlx5_1": {"hcaHandles": 2, "hcaObjects": 2000}, "a": {"hcaObjects": 1}, "z": {}},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "cpu": {"cpus": "0-1,3", "mems": "0", "idle": 0, "shares": 1024, "quota": 50000,
                "period": 200000, "burst": 1000},
            "blockIO": {"weight": 100,
                "weightDevice": [{"major": 8, "minor": 16, "weight": 500}, {"major": 8, "minor": 0}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1048576}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 3}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 4}]},
            "memory": {"limit": 100, "swap": 300, "reservation": 50},
            "pids": {"limit": 10}}"#;
        let expected = [
            "pids.max = 10",
            "memory.swap.max = 200",
            "memory.max = 100",
            "memory.low = 50",
            "io.weight = 910",
            "io.bfq.weight = 8:16 500",
            "io.max = 8:0 rbps=1048576",
            "io.max = 8:0 wbps=max",
            "io.max = 8:0 riops=3",
            "io.max = 8:0 wiops=4",
            "cpu.idle = 0",
            "cpu.weight = 100",
            "cpu.max.burst = 0",
            "cpu.max = 50000 200000",
            "cpu.max.burst = 1000",
            "cpuset.cpus = 0-1,3",
            "cpuset.mems = 0",
            "hugetlb.2MB.rsvd.max = 4194304",
            "hugetlb.2MB.max = 4194304",
            "rdma.max = a hca_object=1",
            "rdma.max = mlx5_1 hca_handle=2 hca_object=2000",
            "cpu.max = max 5000",
            "memory.max = 7",
        ];
        assert_eq!(writes(json), expected);
        let all = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];
        assert_eq!(plan(json).controllers(), all);
        assert_eq!(plan(json).warnings, [""; 0]);
    }

    #[test]
    fn values_are_converted() {
        let table: [(&str, &[&str]); 25] = [
            (r#"{"pids": {"limit": -1}}"#, &["pids.max = max"]),
            (r#"{"pids": {"limit": -7}}"#, &["pids.max = max"]),
            (r#"{"pids": {"limit": 0}}"#, &["pids.max = 1"]),
            (r#"{"pids": {"limit": 1}}"#, &["pids.max = 1"]),
            (
                r#"{"memory": {"limit": -1}}"#,
                &["memory.swap.max = max", "memory.max = max"],
            ),
            (r#"{"memory": {"limit": 5}}"#, &["memory.max = 5"]),
            (
                r#"{"memory": {"limit": -1, "swap": 9}}"#,
                &["memory.swap.max = 9", "memory.max = max"],
            ),
            (
                r#"{"memory": {"limit": 5, "swap": 5}}"#,
                &["memory.swap.max = 0", "memory.max = 5"],
            ),
            (
                r#"{"memory": {"limit": 5, "swap": -1}}"#,
                &["memory.swap.max = max", "memory.max = 5"],
            ),
            (r#"{"memory": {"swap": -1}}"#, &["memory.swap.max = max"]),
            (r#"{"memory": {"reservation": -1}}"#, &["memory.low = max"]),
            (r#"{"cpu": {"quota": -1}}"#, &["cpu.max = max 100000"]),
            (r#"{"cpu": {"quota": 5000}}"#, &["cpu.max = 5000 100000"]),
            (r#"{"cpu": {"period": 5000}}"#, &["cpu.max = max 5000"]),
            (r#"{"cpu": {"burst": 5}}"#, &["cpu.max.burst = 5"]),
            (
                r#"{"cpu": {"burst": 5, "quota": -1}}"#,
                &[
                    "cpu.max.burst = 0",
                    "cpu.max = max 100000",
                    "cpu.max.burst = 5",
                ],
            ),
            (r#"{"cpu": {"idle": 1, "shares": 512}}"#, &["cpu.idle = 1"]),
            (
                r#"{"cpu": {"idle": 0, "shares": 2}}"#,
                &["cpu.idle = 0", "cpu.weight = 1"],
            ),
            (r#"{"blockIO": {"weight": 10}}"#, &["io.weight = 1"]),
            (r#"{"blockIO": {"weight": 500}}"#, &["io.weight = 4950"]),
            (r#"{"blockIO": {"weight": 1000}}"#, &["io.weight = 10000"]),
            (
                r#"{"hugepageLimits": [{"pageSize": "64KB", "limit": 0}]}"#,
                &["hugetlb.64KB.rsvd.max = 0", "hugetlb.64KB.max = 0"],
            ),
            (
                r#"{"unified": {"io.max": "8:0 rbps=1\n8:16 rbps=2\n", "a.b": "1"}}"#,
                &["a.b = 1", "io.max = 8:0 rbps=1", "io.max = 8:16 rbps=2"],
            ),
            (
                r#"{"unified": {"cgroup.max.depth": "3"}}"#,
                &["cgroup.max.depth = 3"],
            ),
            (r#"{"unified": {"memory.max": ""}}"#, &[]),
        ];
        for (json, expected) in table {
            assert_eq!(writes(json), expected, "{json}");
        }
    }

    #[test]
    fn shares_become_weights() {
        let table = [
            (1, 1),
            (2, 1),
            (3, 2),
            (10, 4),
            (100, 17),
            (102, 17),
            (128, 21),
            (256, 35),
            (512, 59),
            (1000, 99),
            (1024, 100),
            (2048, 174),
            (4096, 303),
            (8192, 532),
            (10_000, 627),
            (65_536, 3023),
            (131_072, 5478),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ];
        for (shares, weight) in table {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
    }

    #[test]
    fn a_setting_says_where_it_comes_from() {
        let settings = plan(r#"{"memory": {"limit": 5}, "unified": {"misc.max": "x 1"}}"#).settings;
        let fields: Vec<&str> = settings.iter().map(|setting| &*setting.field).collect();
        assert_eq!(
            fields,
            [
                "linux.resources.memory.limit",
                "linux.resources.unified[\"misc.max\"]"
            ]
        );
        assert_eq!(settings[1].controller, "misc");
    }

    #[test]
    fn a_file_may_be_missing_only_where_its_absence_does_no_harm() {
        let optional = |json: &str| -> Vec<bool> {
            plan(json)
                .settings
                .iter()
                .map(|setting| setting.optional)
                .collect()
        };
        assert_eq!(
            optional(r#"{"memory": {"limit": 5, "swap": 5}}"#),
            [true, false]
        );
        assert_eq!(
            optional(r#"{"memory": {"limit": 5, "swap": -1}}"#),
            [true, false]
        );
        assert_eq!(
            optional(r#"{"memory": {"limit": 5, "swap": 6}}"#),
            [false, false]
        );
        let huge = r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}"#;
        assert_eq!(optional(huge), [true, false]);
        let io = r#"{"blockIO": {"weight": 10, "weightDevice": [{"major": 1, "minor": 1, "weight": 10}]}}"#;
        assert_eq!(optional(io), [false, true]);
        let bfq = Some(("io.bfq.weight".to_string(), "10".to_string()));
        assert_eq!(plan(io).settings[0].alternative, bfq);
    }

    #[test]
    fn core_files_need_no_controller() {
        let json =
            r#"{"unified": {"cgroup.max.depth": "3", "pids.max": "3"}, "pids": {"limit": 1}}"#;
        assert_eq!(plan(json).controllers(), ["pids"]);
    }

    #[test]
    fn rules_of_devices_are_in_order_and_without_defaults() {
        let json = r#"{"devices": [{"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}]}"#;
        let rules: Vec<String> = plan(json)
            .devices
            .iter()
            .map(|rule| rule.to_string())
            .collect();
        assert_eq!(rules, ["deny a *:* rwm", "allow c 10:229 rw"]);
    }

    #[test]
    fn what_has_no_meaning_is_a_warning() {
        let json = r#"{
            "memory": {"kernel": -1, "kernelTCP": -1, "swappiness": 60, "disableOOMKiller": true,
                "useHierarchy": true},
            "blockIO": {"leafWeight": 20,
                "weightDevice": [{"major": 8, "minor": 0, "leafWeight": 30}]},
            "cpu": {"realtimePeriod": 1000000, "idle": 1, "shares": 4},
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500},
                {"name": "eth1", "priority": 1000}]},
            "unified": {"memory.high": "\n"}}"#;
        let expected = [
            "memory.kernel: -1: has no meaning in cgroup v2, ignored",
            "memory.kernelTCP: -1: has no meaning in cgroup v2, ignored",
            "memory.swappiness: 60: has no meaning in cgroup v2, ignored",
            "memory.disableOOMKiller: true: has no meaning in cgroup v2, ignored",
            "memory.useHierarchy: true: has no meaning in cgroup v2, ignored",
            "blockIO.weightDevice[0].leafWeight: 30: has no meaning in cgroup v2, ignored",
            "blockIO.leafWeight: 20: has no meaning in cgroup v2, ignored",
            "cpu.realtimePeriod: 1000000: has no meaning in cgroup v2, ignored",
            "network.classID: 1048577: has no meaning in cgroup v2, ignored",
            "network.priorities: eth0 eth1: has no meaning in cgroup v2, ignored",
            "cpu.shares: 4: has no meaning beside cpu.idle 1, ignored",
            "unified[\"memory.high\"]: is empty, ignored",
        ];
        let expected = expected.map(|line| format!("linux.resources.{line}"));
        assert_eq!(plan(json).warnings, expected);
        assert_eq!(writes(json), ["cpu.idle = 1"]);
    }

    #[test]
    fn faults_name_field_and_value() {
        let table = [
            (
                r#"{"memory": {"kernel": 5}}"#,
                "memory.kernel: 5: cgroup v2 has no such limit; remove it",
            ),
            (
                r#"{"memory": {"kernelTCP": 7}}"#,
                "memory.kernelTCP: 7: cgroup v2 has no such limit; remove it",
            ),
            (
                r#"{"cpu": {"realtimeRuntime": 9}}"#,
                "cpu.realtimeRuntime: 9: cgroup v2 has no such limit; remove it",
            ),
            (
                r#"{"memory": {"limit": -5}}"#,
                "memory.limit: -5: must be -1 (unlimited), or a number of bytes",
            ),
            (
                r#"{"memory": {"limit": 9, "reservation": -2}}"#,
                "memory.reservation: -2: must be -1 (unlimited), or a number of bytes",
            ),
            (
                r#"{"memory": {"limit": -9223372036854775808, "swap": 1}}"#,
                "memory.limit: -9223372036854775808: must be -1 (unlimited), or a number of bytes",
            ),
            (
                r#"{"memory": {"limit": 9, "swap": -2}}"#,
                "memory.swap: -2: must be -1 (unlimited), or a number of bytes",
            ),
            (
                r#"{"memory": {"swap": 5}}"#,
                "memory.swap: 5: needs linux.resources.memory.limit, which is part of it",
            ),
            (
                r#"{"memory": {"limit": 9, "swap": 5}}"#,
                "memory.swap: 5: must not be below linux.resources.memory.limit, 9",
            ),
            (
                r#"{"blockIO": {"weight": 9}}"#,
                "blockIO.weight: 9: must be from 10 to 1000",
            ),
            (
                r#"{"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 1001}]}}"#,
                "blockIO.weightDevice[0].weight: 1001: must be from 10 to 1000",
            ),
            (
                r#"{"blockIO": {"throttleReadIOPSDevice": [{"major": 8, "minor": -1, "rate": 1}]}}"#,
                "blockIO.throttleReadIOPSDevice[0].minor: -1: must be the number of a device",
            ),
            (r#"{"cpu": {"idle": 2}}"#, "cpu.idle: 2: must be 0 or 1"),
            (
                r#"{"cpu": {"quota": 10, "burst": 11}}"#,
                "cpu.burst: 11: must not be above linux.resources.cpu.quota, 10",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}"#,
                "hugepageLimits[0].pageSize: \"../2MB\": must be a size such as 64KB, 2MB or 1GB",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "02MB", "limit": 1}]}"#,
                "hugepageLimits[0].pageSize: \"02MB\": must be a size such as 64KB, 2MB or 1GB",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "MB", "limit": 1}]}"#,
                "hugepageLimits[0].pageSize: \"MB\": must be a size such as 64KB, 2MB or 1GB",
            ),
            (
                r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": -1}]}"#,
                "hugepageLimits[0].limit: -1: must be a number of bytes",
            ),
            (
                r#"{"rdma": {"a b": {"hcaHandles": 1}}}"#,
                "rdma[\"a b\"]: must be the name of a device",
            ),
            (
                r#"{"unified": {"../memory.max": "1"}}"#,
                "unified[\"../memory.max\"]: must be the name of a file, without /",
            ),
            (
                r#"{"unified": {"memory": "1"}}"#,
                "unified[\"memory\"]: must be CONTROLLER.PARAMETER",
            ),
            (
                r#"{"unified": {"..": "1"}}"#,
                "unified[\"..\"]: must be CONTROLLER.PARAMETER",
            ),
            (
                r#"{"unified": {"cgroup.procs": "0"}}"#,
                "unified[\"cgroup.procs\"]: acts on processes, no resource",
            ),
            (
                r#"{"devices": [{"allow": true, "access": "x"}]}"#,
                "devices[0].access: \"x\": must be made of r, w and m",
            ),
        ];
        for (json, text) in table {
            assert_eq!(refusal(json), format!("linux.resources.{text}"));
        }
    }
}
