//! `update`: new limits for a container that lives. What is not asked for stays; all of it is done, or nothing.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde_json::{Map, Value, json};

use crate::cgroup::{Cgroup, controllers};
use crate::container::{Container, Status, Store};
use crate::fault::coded;
use crate::flags;
use crate::host::Host;
use crate::plan::rdt::{self, Schema};
use crate::plan::update;
use crate::{bundle, intelrdt, log, sys};

pub fn run(args: &flags::Update, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    let status = container.status()?;
    let lives = matches!(status, Status::Created | Status::Running | Status::Paused);
    ensure!(lives, coded("container-state", "container not running"));
    let schemata = schemata(args, &container)?;
    match &args.resources {
        Some(file) => change(&container, read(file)?, &schemata)?,
        None => change(&container, of_flags(args)?, &schemata)
            .map_err(|error| naming_flags(error, args))?,
    }
    Ok(0)
}

fn change(container: &Container, asked: Value, schemata: &[Schema]) -> Result<()> {
    let cgroup = container.cgroup()?;
    let now = |file: &str| cgroup.as_ref().and_then(|cgroup| cgroup.now(file));
    let mut asked = asked;
    update::complete(&mut asked, now);
    let plan = update::changes(&bundle::resources(&asked)?, now)?;
    plan.warnings.iter().for_each(|warning| log::warn(warning));
    let set_schemata = || set_schemata(container, schemata);
    if plan.settings.is_empty() {
        return set_schemata();
    }
    let cgroup: &Cgroup = cgroup
        .as_ref()
        .context("the container has no cgroup whose limits could be changed")?;
    let mount = Host::probe()?.cgroup.mount;
    controllers::check(&mount, &plan)?;
    controllers::enable(&mount, &cgroup.path, &plan)?;
    let written = cgroup.update(&plan.settings)?;
    set_schemata().map_err(|error| written.take_back(error))
}

/// What `linux.resources` would be, from a file or from standard input.
fn read(file: &Path) -> Result<Value> {
    let mut text = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut text).map(drop),
        _ => std::fs::read(file).map(|read| text = read),
    };
    sys::io(read).with_context(|| format!("--resources: read {file:?}"))?;
    let value: Value =
        serde_json::from_slice(&text).with_context(|| format!("--resources: {file:?}"))?;
    ensure!(
        value.is_object(),
        "--resources: {file:?}: must be a JSON object, as linux.resources is"
    );
    Ok(value)
}

/// Field of `linux.resources` and flag.
const FLAGS: [(&str, &str); 17] = [
    ("blockIO.weight", "--blkio-weight"),
    ("cpu.period", "--cpu-period"),
    ("cpu.quota", "--cpu-quota"),
    ("cpu.burst", "--cpu-burst"),
    ("cpu.shares", "--cpu-share"),
    ("cpu.idle", "--cpu-idle"),
    ("cpu.cpus", "--cpuset-cpus"),
    ("cpu.mems", "--cpuset-mems"),
    ("cpu.realtimePeriod", "--cpu-rt-period"),
    ("cpu.realtimeRuntime", "--cpu-rt-runtime"),
    ("memory.limit", "--memory"),
    ("memory.reservation", "--memory-reservation"),
    ("memory.swap", "--memory-swap"),
    ("memory.kernelTCP", "--kernel-memory-tcp"),
    ("memory.kernel", "--kernel-memory"),
    ("pids.limit", "--pids-limit"),
    ("blockIO.leafWeight", "--blkio-leaf-weight"),
];

fn of_flags(args: &flags::Update) -> Result<Value> {
    let size = |flag: &str, text: &Option<String>| -> Result<Option<Value>> {
        let size = text
            .as_deref()
            .map(|text| bytes(text).with_context(|| format!("{flag}: {text:?}")));
        Ok(size.transpose()?.map(Value::from))
    };
    let memory = [
        ("limit", size("--memory", &args.memory)?),
        (
            "reservation",
            size("--memory-reservation", &args.memory_reservation)?,
        ),
        ("swap", size("--memory-swap", &args.memory_swap)?),
        ("kernel", size("--kernel-memory", &args.kernel_memory)?),
        (
            "kernelTCP",
            size("--kernel-memory-tcp", &args.kernel_memory_tcp)?,
        ),
    ];
    let cpu = [
        ("shares", args.cpu_share.map(Value::from)),
        ("quota", args.cpu_quota.map(Value::from)),
        ("period", args.cpu_period.map(Value::from)),
        ("burst", args.cpu_burst.map(Value::from)),
        ("idle", args.cpu_idle.map(Value::from)),
        ("cpus", args.cpuset_cpus.clone().map(Value::from)),
        ("mems", args.cpuset_mems.clone().map(Value::from)),
        ("realtimePeriod", args.cpu_rt_period.map(Value::from)),
        ("realtimeRuntime", args.cpu_rt_runtime.map(Value::from)),
    ];
    Ok(json!({
        "memory": object(memory),
        "cpu": object(cpu),
        "blockIO": object([("weight", args.blkio_weight.map(Value::from))]),
        "pids": object([("limit", args.pids_limit.map(Value::from))]),
    }))
}

/// Of the members that there are.
fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let there = members
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_string(), value?)));
    Value::Object(there.collect::<Map<String, Value>>())
}

/// A size such as 512m, 1.5g or 100kb, in units of 1024; -1 is no limit.
fn bytes(text: &str) -> Result<i64> {
    const UNITS: &str = "kmgtp";
    let lower = text.trim().to_ascii_lowercase();
    if let Ok(number) = lower.parse::<i64>() {
        return Ok(number);
    }
    let stem = lower
        .strip_suffix("ib")
        .or(lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let unit = stem
        .chars()
        .next_back()
        .and_then(|letter| UNITS.find(letter));
    let (digits, power) = match unit {
        Some(index) => (&stem[..stem.len() - 1], index + 1),
        None => (stem, 0),
    };
    let number: Option<f64> = digits.trim().parse().ok();
    let size = number.map(|number| number * 1024f64.powi(power as i32));
    let size = size.filter(|size| size.is_finite() && (0.0..i64::MAX as f64).contains(size));
    Ok(
        size.context("must be a number of bytes, such as 1048576, 512m or 1g, or -1 (unlimited)")?
            as i64,
    )
}

/// A fault of what a flag has said is told of the flag.
fn naming_flags(error: Error, args: &flags::Update) -> Error {
    let text = format!("{error:#}");
    let told = FLAGS.iter().fold(text.clone(), |text, (field, flag)| {
        text.replace(&format!("linux.resources.{field}"), flag)
    });
    match told == text || args.resources.is_some() {
        true => error,
        false => anyhow!(told),
    }
}

fn schemata(args: &flags::Update, container: &Container) -> Result<Vec<Schema>> {
    let lines = [
        ("l3CacheSchema", &args.l3_cache_schema),
        ("memBwSchema", &args.mem_bw_schema),
    ];
    if args.resources.is_some() || lines.iter().all(|(_, line)| line.is_none()) {
        return Ok(Vec::new());
    }
    ensure!(
        container.state.rdt.is_some(),
        "--l3-cache-schema, --mem-bw-schema: the container was created without linux.intelRdt"
    );
    let spec = object(lines.map(|(name, line)| (name, line.clone().map(Value::from))));
    rdt::rdt(&serde_json::from_value(spec)?, &container.state.id).map(|rdt| rdt.schemata)
}

fn set_schemata(container: &Container, schemata: &[Schema]) -> Result<()> {
    match &container.state.rdt {
        Some(groups) if !schemata.is_empty() => {
            intelrdt::update(Path::new(intelrdt::ROOT), groups, schemata)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_and_without_units() {
        for (text, size) in [
            ("-1", -1),
            ("0", 0),
            ("1048576", 1 << 20),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("512MiB", 512 << 20),
            ("512mb", 512 << 20),
            ("1.5g", 3 << 29),
            ("7b", 7),
            ("1k", 1024),
        ] {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
        for text in ["", "m", "x", "-2m", "1z", "1e400", "99999999p"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
