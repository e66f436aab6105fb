//! The lines that `events` prints: names and units as engines know them, from the days of cgroup v1. PURE.
//!
//! Times are in nanoseconds; swap includes main memory; "no limit" is the greatest number for memory and
//! 0 for processes. What v2 does not count is absent, or 0 where the object always has the name.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use crate::cgroup::stats::{Amount, Device, Memory, Pressure, Stall, Stats, UNLIMITED};
use crate::facility::resctrl_usage::{Domain, Usage};

pub fn stats(id: &str, stats: &Stats, rdt: Option<&Usage>) -> Result<String> {
    let data = Data {
        cpu: cpu(stats),
        cpuset: CpuSet::default(),
        memory: memory(stats),
        pids: pids(stats),
        blkio: blkio(stats),
        hugetlb: hugetlb(stats),
        intel_rdt: rdt.map(intel_rdt).unwrap_or_default(),
        network_interfaces: None,
    };
    line("stats", id, Some(data))
}

pub fn oom(id: &str) -> Result<String> {
    line("oom", id, None)
}

fn line(kind: &'static str, id: &str, data: Option<Data>) -> Result<String> {
    Ok(serde_json::to_string(&Event { kind, id, data })? + "\n")
}

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Data<'a> {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: MemoryReport<'a>,
    pids: Pids,
    blkio: Blkio,
    hugetlb: BTreeMap<&'a str, Entry>,
    intel_rdt: IntelRdt,
    /// Of the host's ends of a container's links, which the caller makes: never known here.
    network_interfaces: Option<()>,
}

#[derive(Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    kernel: u64,
    user: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

fn cpu(stats: &Stats) -> Cpu {
    let cpu = &stats.cpu;
    Cpu {
        usage: CpuUsage {
            total: cpu.usage * 1000,
            kernel: cpu.system * 1000,
            user: cpu.user * 1000,
        },
        throttling: Throttling {
            periods: cpu.periods,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled * 1000,
        },
        psi: stats.cpu_pressure.as_ref().map(psi),
    }
}

/// Of cgroup v1 alone.
#[derive(Default, Serialize)]
struct CpuSet {
    cpu_exclusive: u64,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MemoryReport<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Default, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

fn memory(stats: &Stats) -> MemoryReport<'_> {
    let memory = stats.memory.as_ref();
    MemoryReport {
        cache: memory.map_or(0, |m| m.raw.get("file").copied().unwrap_or(0)),
        usage: memory.map(|m| entry(&m.main)).unwrap_or_default(),
        swap: memory.map(swap).unwrap_or_default(),
        kernel: MemoryEntry::default(),
        kernel_tcp: MemoryEntry::default(),
        raw: memory.map(|m| &m.raw).filter(|raw| !raw.is_empty()),
        psi: stats.memory_pressure.as_ref().map(psi),
    }
}

fn entry(amount: &Amount) -> MemoryEntry {
    MemoryEntry {
        limit: amount.limit,
        usage: amount.current,
        max: amount.peak,
        failcnt: amount.failures,
    }
}

/// The peak of a sum is not the sum of the peaks: unknown.
fn swap(memory: &Memory) -> MemoryEntry {
    let (main, swap) = (&memory.main, &memory.swap);
    MemoryEntry {
        // Either one being UNLIMITED, so is the sum.
        limit: swap.limit.saturating_add(main.limit),
        usage: swap.current + main.current,
        max: 0,
        failcnt: swap.failures,
    }
}

#[derive(Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

fn pids(stats: &Stats) -> Pids {
    let limit = stats.pids.limit.filter(|limit| *limit != UNLIMITED);
    Pids {
        current: stats.pids.current,
        limit: limit.unwrap_or(0),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_usage: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_wait: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_indebt: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_cost_indelay: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, PartialEq, Serialize)]
struct BlkioEntry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    op: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

fn blkio(stats: &Stats) -> Blkio {
    let devices = stats.io.as_deref().unwrap_or_default();
    let bytes = [
        ("rbytes", "Read"),
        ("wbytes", "Write"),
        ("dbytes", "Discard"),
    ];
    let operations = [("rios", "Read"), ("wios", "Write"), ("dios", "Discard")];
    let cost = |name| entries(devices, &[(name, "Count")]);
    Blkio {
        io_service_bytes_recursive: entries(devices, &bytes),
        io_serviced_recursive: entries(devices, &operations),
        io_cost_usage: cost("cost.usage"),
        io_cost_wait: cost("cost.wait"),
        io_cost_indebt: cost("cost.indebt"),
        io_cost_indelay: cost("cost.indelay"),
        psi: stats.io_pressure.as_ref().map(psi),
    }
}

fn entries(devices: &[Device], names: &[(&str, &'static str)]) -> Vec<BlkioEntry> {
    let of_device = |device: &Device| {
        let entry = |(name, op): &(&str, &'static str)| {
            let value = *device.values.get(*name)?;
            let (major, minor) = (device.major, device.minor);
            Some(BlkioEntry {
                major,
                minor,
                op,
                value,
            })
        };
        names.iter().filter_map(entry).collect::<Vec<_>>()
    };
    devices.iter().flat_map(of_device).collect()
}

#[derive(Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    failcnt: u64,
}

fn hugetlb(stats: &Stats) -> BTreeMap<&str, Entry> {
    let sizes = stats.hugetlb.iter();
    let entries = sizes.map(|(size, pages)| {
        let (usage, failcnt) = (pages.current, pages.failures);
        (size.as_str(), Entry { usage, failcnt })
    });
    entries.collect()
}

#[derive(Serialize)]
struct Psi {
    some: PsiStall,
    full: PsiStall,
}

#[derive(Serialize)]
struct PsiStall {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

fn psi(pressure: &Pressure) -> Psi {
    let stall = |stall: &Stall| PsiStall {
        avg10: stall.avg10,
        avg60: stall.avg60,
        avg300: stall.avg300,
        total: stall.total,
    };
    Psi {
        some: stall(&pressure.some),
        full: stall(&pressure.full),
    }
}

#[derive(Default, Serialize)]
struct IntelRdt {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    l3_cache_schema: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema_root: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mem_bw_schema: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mbm_stats: Vec<Traffic>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cmt_stats: Vec<Occupancy>,
}

#[derive(Serialize)]
struct CacheInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    cbm_mask: String,
    #[serde(skip_serializing_if = "is_zero")]
    min_cbm_bits: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

#[derive(Serialize)]
struct BandwidthInfo {
    #[serde(skip_serializing_if = "is_zero")]
    bandwidth_gran: u64,
    #[serde(skip_serializing_if = "is_zero")]
    delay_linear: u64,
    #[serde(skip_serializing_if = "is_zero")]
    min_bandwidth: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

#[derive(Serialize)]
struct Traffic {
    #[serde(skip_serializing_if = "is_zero")]
    mbm_total_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    mbm_local_bytes: u64,
}

#[derive(Serialize)]
struct Occupancy {
    #[serde(skip_serializing_if = "is_zero")]
    llc_occupancy: u64,
}

fn intel_rdt(usage: &Usage) -> IntelRdt {
    let of = |lines: &[String], resource: &str| {
        let line = lines.iter().find(|line| line.starts_with(resource));
        line.cloned().unwrap_or_default()
    };
    IntelRdt {
        l3_cache_info: usage.cache.as_ref().map(|cache| CacheInfo {
            cbm_mask: cache.cbm_mask.clone(),
            min_cbm_bits: cache.min_cbm_bits,
            num_closids: cache.num_closids,
        }),
        l3_cache_schema_root: of(&usage.root_schemata, "L3"),
        l3_cache_schema: of(&usage.schemata, "L3"),
        mem_bw_info: usage.bandwidth.as_ref().map(|bandwidth| BandwidthInfo {
            bandwidth_gran: bandwidth.gran,
            delay_linear: bandwidth.delay_linear,
            min_bandwidth: bandwidth.min,
            num_closids: bandwidth.num_closids,
        }),
        mem_bw_schema_root: of(&usage.root_schemata, "MB"),
        mem_bw_schema: of(&usage.schemata, "MB"),
        mbm_stats: usage.domains.iter().filter_map(traffic).collect(),
        cmt_stats: usage.domains.iter().filter_map(occupancy).collect(),
    }
}

fn traffic(domain: &Domain) -> Option<Traffic> {
    let (total, local) = (domain.mbm_total_bytes, domain.mbm_local_bytes);
    (total.is_some() || local.is_some()).then_some(Traffic {
        mbm_total_bytes: total.unwrap_or(0),
        mbm_local_bytes: local.unwrap_or(0),
    })
}

fn occupancy(domain: &Domain) -> Option<Occupancy> {
    let llc_occupancy = domain.llc_occupancy?;
    Some(Occupancy { llc_occupancy })
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::stats;
    use serde_json::{Value, json};

    fn data(stats: &Stats, rdt: Option<&Usage>) -> Value {
        let line = super::stats("web", stats, rdt).expect("a line");
        assert!(line.ends_with("}\n") && line.lines().count() == 1);
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(
            (&event["type"], &event["id"]),
            (&json!("stats"), &json!("web"))
        );
        event["data"].clone()
    }

    #[test]
    fn without_any_controller() {
        let mut stats = Stats::default();
        stats.cpu.usage = 9616;
        stats.cpu.user = 9616;
        stats.pids.current = 1;
        let none = json!({"limit": 0, "failcnt": 0});
        let wanted = json!({
            "cpu": {"usage": {"total": 9616000, "kernel": 0, "user": 9616000}, "throttling": {}},
            "cpuset": {
                "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0,
                "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0,
                "sched_load_balance": 0, "sched_relax_domain_level": 0
            },
            "memory": {"usage": none, "swap": none, "kernel": none, "kernelTCP": none},
            "pids": {"current": 1},
            "blkio": {},
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null
        });
        assert_eq!(data(&stats, None), wanted);
    }

    #[test]
    fn swap_includes_memory_and_no_limit_is_the_greatest_number() {
        let mut memory = Memory {
            main: Amount {
                current: 100,
                limit: 1000,
                peak: 300,
                failures: 4,
            },
            swap: Amount {
                current: 20,
                limit: 500,
                peak: 60,
                failures: 0,
            },
            raw: BTreeMap::from([("file".to_string(), 70)]),
        };
        let report = |memory: &Memory| {
            let memory = Some(memory.clone());
            data(
                &Stats {
                    memory,
                    ..Stats::default()
                },
                None,
            )["memory"]
                .clone()
        };
        let found = report(&memory);
        assert_eq!(found["cache"], 70);
        assert_eq!(found["raw"], json!({"file": 70}));
        assert_eq!(
            found["usage"],
            json!({"limit": 1000, "usage": 100, "max": 300, "failcnt": 4})
        );
        assert_eq!(
            found["swap"],
            json!({"limit": 1500, "usage": 120, "failcnt": 0})
        );
        memory.swap.limit = UNLIMITED;
        assert_eq!(report(&memory)["swap"]["limit"], u64::MAX);
    }

    #[test]
    fn the_rest_of_a_container() {
        let device = Device {
            major: 8,
            minor: 0,
            values: [("rbytes", 1), ("wbytes", 2), ("rios", 3), ("cost.usage", 4)]
                .map(|(key, value)| (key.to_string(), value))
                .into(),
        };
        let stall = Stall {
            avg10: 1.5,
            avg60: 0.5,
            avg300: 0.25,
            total: 9,
        };
        let pressure = Pressure {
            some: stall,
            full: Stall::default(),
        };
        let pages = stats::Hugetlb {
            current: 2097152,
            failures: 3,
        };
        let stats = Stats {
            cpu: stats::Cpu {
                throttled: 7,
                periods: 5,
                throttled_periods: 2,
                ..Default::default()
            },
            pids: stats::Pids {
                current: 3,
                limit: Some(UNLIMITED),
            },
            io: Some(vec![device]),
            hugetlb: [("2MB".to_string(), pages)].into(),
            io_pressure: Some(pressure),
            ..Stats::default()
        };
        let found = data(&stats, None);
        let throttling = json!({"periods": 5, "throttledPeriods": 2, "throttledTime": 7000});
        assert_eq!(found["cpu"]["throttling"], throttling);
        assert_eq!(found["pids"], json!({"current": 3}));
        assert_eq!(
            found["hugetlb"]["2MB"],
            json!({"usage": 2097152, "failcnt": 3})
        );
        let blkio = json!({
            "ioServiceBytesRecursive": [
                {"major": 8, "op": "Read", "value": 1},
                {"major": 8, "op": "Write", "value": 2}
            ],
            "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 3}],
            "ioCostUsage": [{"major": 8, "op": "Count", "value": 4}],
            "psi": {
                "some": {"avg10": 1.5, "avg60": 0.5, "avg300": 0.25, "total": 9},
                "full": {"avg10": 0.0, "avg60": 0.0, "avg300": 0.0, "total": 0}
            }
        });
        assert_eq!(found["blkio"], blkio);
    }

    #[test]
    fn caches_and_bandwidth() {
        let domain = Domain {
            llc_occupancy: Some(4096),
            mbm_total_bytes: Some(8),
            mbm_local_bytes: None,
        };
        let usage = Usage {
            cache: Some(Default::default()),
            root_schemata: vec!["MB:0=100".into(), "L3:0=ff".into()],
            schemata: vec!["L3:0=f".into()],
            domains: vec![domain],
            ..Usage::default()
        };
        let wanted = json!({
            "l3_cache_info": {},
            "l3_cache_schema_root": "L3:0=ff",
            "l3_cache_schema": "L3:0=f",
            "mem_bw_schema_root": "MB:0=100",
            "mbm_stats": [{"mbm_total_bytes": 8}],
            "cmt_stats": [{"llc_occupancy": 4096}]
        });
        assert_eq!(data(&Stats::default(), Some(&usage))["intel_rdt"], wanted);
    }

    #[test]
    fn an_oom_event_has_no_data() {
        assert_eq!(
            oom("web").expect("a line"),
            "{\"type\":\"oom\",\"id\":\"web\"}\n"
        );
    }
}
