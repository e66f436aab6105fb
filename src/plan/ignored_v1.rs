//! Fields of `linux.resources` for which cgroup v2 has no file: limits are errors, the rest are warnings. PURE.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxNetwork, LinuxResources};

use crate::plan::resources::lines;

/// Refuses limits that cgroup v2 does not have: the container would run without them. -1 is no limit.
pub fn check(spec: &LinuxResources) -> Result<()> {
    let memory = spec.memory().as_ref();
    let cpu = spec.cpu().as_ref();
    let limits = [
        ("memory.kernel", memory.and_then(LinuxMemory::kernel)),
        ("memory.kernelTCP", memory.and_then(LinuxMemory::kernel_tcp)),
        (
            "cpu.realtimeRuntime",
            cpu.and_then(LinuxCpu::realtime_runtime),
        ),
    ];
    for (field, value) in limits {
        let value = value.unwrap_or(0);
        ensure!(
            value <= 0,
            "linux.resources.{field}: {value}: cgroup v2 has no such limit; remove it"
        );
    }
    Ok(())
}

/// Returns a warning for each field that has no effect.
pub fn warnings(spec: &LinuxResources) -> Vec<String> {
    let memory = spec.memory().iter().flat_map(old_memory);
    let io = spec.block_io().iter().flat_map(old_io);
    let cpu = spec.cpu().iter().flat_map(old_cpu);
    let network = spec.network().iter().flat_map(old_network);
    let old = memory.chain(io).chain(cpu).chain(network);
    let old = old.filter_map(|(field, value)| {
        let what = format!("linux.resources.{field}: {}", value?);
        Some(format!("{what}: has no meaning in cgroup v2, ignored"))
    });
    let files: BTreeMap<_, _> = spec.unified().iter().flatten().collect();
    let empty = files
        .iter()
        .filter(|(_, value)| lines(value).next().is_none())
        .map(|(file, _)| format!("linux.resources.unified[{file:?}]: is empty, ignored"));
    old.chain(shares_of_idle(spec)).chain(empty).collect()
}

fn shares_of_idle(spec: &LinuxResources) -> Option<String> {
    let cpu = spec.cpu().as_ref().filter(|cpu| cpu.idle() == Some(1))?;
    let shares = asked(cpu.shares())?;
    let what = format!("linux.resources.cpu.shares: {shares}");
    Some(format!("{what}: has no meaning beside cpu.idle 1, ignored"))
}

/// Fields of cgroup v1 without a successor, and what they ask for.
type Old = Vec<(String, Option<String>)>;

fn old_memory(memory: &LinuxMemory) -> Old {
    vec![
        ("memory.kernel".into(), asked(memory.kernel())),
        ("memory.kernelTCP".into(), asked(memory.kernel_tcp())),
        ("memory.swappiness".into(), asked(memory.swappiness())),
        (
            "memory.disableOOMKiller".into(),
            asked(memory.disable_oom_killer()),
        ),
        ("memory.useHierarchy".into(), asked(memory.use_hierarchy())),
    ]
}

fn old_io(io: &LinuxBlockIo) -> Old {
    let devices = io.weight_device().iter().flatten().enumerate();
    let mut old: Old = devices
        .map(|(index, device)| {
            let field = format!("blockIO.weightDevice[{index}].leafWeight");
            (field, asked(device.leaf_weight()))
        })
        .collect();
    old.push(("blockIO.leafWeight".into(), asked(io.leaf_weight())));
    old
}

fn old_cpu(cpu: &LinuxCpu) -> Old {
    vec![
        ("cpu.realtimeRuntime".into(), asked(cpu.realtime_runtime())),
        ("cpu.realtimePeriod".into(), asked(cpu.realtime_period())),
    ]
}

fn old_network(network: &LinuxNetwork) -> Old {
    let priorities = network.priorities().iter().flatten();
    let names: Vec<&str> = priorities
        .map(|priority| priority.name().as_str())
        .collect();
    vec![
        ("network.classID".into(), asked(network.class_id())),
        ("network.priorities".into(), asked(Some(names.join(" ")))),
    ]
}

/// 0, false and nothing are what engines fill in for what they do not ask for.
fn asked<T: Default + PartialEq + ToString>(value: Option<T>) -> Option<String> {
    let value = value.filter(|value| *value != T::default())?;
    Some(value.to_string())
}
