//! `update`: new limits for a container that lives. What is not asked for stays; all of it is done, or nothing.
//!
//! Parent only. The state has no record of it: what a later update needs is what the cgroup's own files say then.

use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use serde_json::{Value, json};

use crate::bundle;
use crate::cgroup::{Cgroup, controllers};
use crate::cli::args;
use crate::facility::resctrl;
use crate::host::Host;
use crate::plan::rdt::{self, Schema};
use crate::plan::resources::Resources;
use crate::plan::systemd::{self, Property};
use crate::plan::update;
use crate::state::container::{Container, Status, not_running};
use crate::state::store::Store;
use crate::sys::{self, caller_file};
use crate::text::fault::{Coded, coded};
use crate::text::log;

pub fn run(args: &args::Update, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    let status = container.status()?;
    let lives = matches!(status, Status::Created | Status::Running | Status::Paused);
    ensure!(lives, not_running());
    let cgroup = container.cgroup()?;
    let (plan, schemata) = match &args.resources {
        Some(file) => (planned(read(file)?, cgroup.as_ref())?, Vec::new()),
        None => by_flags(args, &container, cgroup.as_ref())?,
    };
    plan.warnings.iter().for_each(|warning| log::warn(warning));
    change(&container, cgroup.as_ref(), &plan, &schemata)?;
    Ok(0)
}

fn change(
    container: &Container,
    cgroup: Option<&Cgroup>,
    plan: &Resources,
    schemata: &[Schema],
) -> Result<()> {
    let set_schemata = || set_schemata(container, schemata);
    if plan.settings.is_empty() {
        return set_schemata();
    }
    let cgroup = cgroup.context("the container has no cgroup whose limits could be changed")?;
    let mount = Host::probe()?.cgroup.mount;
    controllers::check(&mount, plan)?;
    let uncounted = plan.controllers().contains(&"memory") && cgroup.now("memory.max").is_none();
    controllers::enable(&mount, &cgroup.path, plan, false)?;
    if uncounted {
        // Docs of the kernel, cgroup-v2.rst, "Memory Ownership": memory stays charged to whom it was charged first.
        log::warn(
            "the container was without the memory controller so far: what it uses already is not counted",
        );
    }
    // What systemd would not take is refused before anything is written; else values are the kernel's to judge.
    let properties = match container.state.unit {
        Some(_) => systemd::limits(&cgroup.found(&plan.settings))?,
        None => Vec::new(),
    };
    let written = cgroup.update(&plan.settings)?;
    set_properties(container, &properties)
        .and_then(|()| set_schemata())
        .map_err(|error| written.take_back(error))
}

fn set_properties(container: &Container, properties: &[Property]) -> Result<()> {
    match &container.state.unit {
        Some(unit) if !properties.is_empty() => unit.set(properties),
        _ => Ok(()),
    }
}

fn planned(asked: Value, cgroup: Option<&Cgroup>) -> Result<Resources> {
    let now = |file: &str| cgroup.and_then(|cgroup| cgroup.now(file));
    let mut asked = asked;
    update::complete(&mut asked, now);
    update::changes(&bundle::resources(&asked)?, now)
}

/// Whoever gives flags is told of flags, not of fields.
fn by_flags(
    args: &args::Update,
    container: &Container,
    cgroup: Option<&Cgroup>,
) -> Result<(Resources, Vec<Schema>)> {
    let linux = linux(values(args)?);
    ensure!(
        !linux.is_null(),
        coded(
            "usage",
            "update: no limit given; give --memory, --cpu-quota, --pids-limit or another, or --resources FILE"
        )
    );
    let mut schemata = schemata(&linux["intelRdt"], container).map_err(naming_flags)?;
    let mut plan = planned(linux["resources"].clone(), cgroup).map_err(naming_flags)?;
    let fields = plan.settings.iter_mut().map(|setting| &mut setting.field);
    let fields = fields.chain(schemata.iter_mut().map(|schema| &mut schema.field));
    for text in fields.chain(&mut plan.warnings) {
        *text = with_flags(text);
    }
    Ok((plan, schemata))
}

/// `linux` of a config, with what was given.
fn linux(values: [Option<Value>; FLAGS.len()]) -> Value {
    let mut config = json!({});
    for ((_, field), value) in FLAGS.iter().zip(values) {
        let Some(value) = value else { continue };
        let place = field
            .split('.')
            .fold(&mut config, |place, name| &mut place[name]);
        *place = value;
    }
    config["linux"].take()
}

/// What `linux.resources` would be, from a file or from standard input.
fn read(file: &Path) -> Result<Value> {
    let read = match file.to_str() {
        Some("-") => sys::read_all(std::io::stdin().lock()),
        _ => caller_file::read(file),
    };
    let text = read.with_context(|| format!("--resources: read {file:?}"))?;
    let value: Value =
        bundle::unique_keys::read(&text).with_context(|| format!("--resources: {file:?}"))?;
    ensure!(
        value.is_object(),
        "--resources: {file:?}: must be a JSON object, as linux.resources is"
    );
    Ok(value)
}

/// Flag and field, in the order of `values`. No field's name begins with that of an earlier one.
const FLAGS: [(&str, &str); 18] = [
    ("--blkio-weight", "linux.resources.blockIO.weight"),
    ("--cpu-period", "linux.resources.cpu.period"),
    ("--cpu-quota", "linux.resources.cpu.quota"),
    ("--cpu-burst", "linux.resources.cpu.burst"),
    ("--cpu-share", "linux.resources.cpu.shares"),
    ("--cpu-idle", "linux.resources.cpu.idle"),
    ("--cpuset-cpus", "linux.resources.cpu.cpus"),
    ("--cpuset-mems", "linux.resources.cpu.mems"),
    ("--cpu-rt-period", "linux.resources.cpu.realtimePeriod"),
    ("--cpu-rt-runtime", "linux.resources.cpu.realtimeRuntime"),
    ("--memory", "linux.resources.memory.limit"),
    ("--memory-reservation", "linux.resources.memory.reservation"),
    ("--memory-swap", "linux.resources.memory.swap"),
    ("--kernel-memory-tcp", "linux.resources.memory.kernelTCP"),
    ("--kernel-memory", "linux.resources.memory.kernel"),
    ("--pids-limit", "linux.resources.pids.limit"),
    ("--l3-cache-schema", "linux.intelRdt.l3CacheSchema"),
    ("--mem-bw-schema", "linux.intelRdt.memBwSchema"),
];

fn values(args: &args::Update) -> Result<[Option<Value>; FLAGS.len()]> {
    Ok([
        args.blkio_weight.map(Value::from),
        args.cpu_period.map(Value::from),
        args.cpu_quota.map(Value::from),
        args.cpu_burst.map(Value::from),
        args.cpu_share.map(Value::from),
        args.cpu_idle.map(Value::from),
        args.cpuset_cpus.clone().map(Value::from),
        args.cpuset_mems.clone().map(Value::from),
        args.cpu_rt_period.map(Value::from),
        args.cpu_rt_runtime.map(Value::from),
        size("--memory", &args.memory)?,
        size("--memory-reservation", &args.memory_reservation)?,
        size("--memory-swap", &args.memory_swap)?,
        size("--kernel-memory-tcp", &args.kernel_memory_tcp)?,
        size("--kernel-memory", &args.kernel_memory)?,
        args.pids_limit.map(Value::from),
        args.l3_cache_schema.clone().map(Value::from),
        args.mem_bw_schema.clone().map(Value::from),
    ])
}

fn size(flag: &str, text: &Option<String>) -> Result<Option<Value>> {
    let size = text
        .as_deref()
        .map(|text| bytes(text).with_context(|| format!("{flag}: {text:?}")));
    Ok(size.transpose()?.map(Value::from))
}

/// A size such as 512m, 1.5g or 100kb, in units of 1024; -1 is no limit.
pub fn bytes(text: &str) -> Result<i64> {
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

fn schemata(spec: &Value, container: &Container) -> Result<Vec<Schema>> {
    if spec.is_null() {
        return Ok(Vec::new());
    }
    ensure!(
        container.state.rdt.is_some(),
        "--l3-cache-schema, --mem-bw-schema: the container was created without linux.intelRdt"
    );
    rdt::rdt(&serde_json::from_value(spec.clone())?, &container.state.id).map(|rdt| rdt.schemata)
}

fn set_schemata(container: &Container, schemata: &[Schema]) -> Result<()> {
    match &container.state.rdt {
        Some(groups) if !schemata.is_empty() => {
            resctrl::update(Path::new(resctrl::ROOT), groups, schemata)
        }
        _ => Ok(()),
    }
}

fn naming_flags(error: Error) -> Error {
    let coded = Coded::of(&error);
    let text = with_flags(&coded.text);
    if text == coded.text {
        return error;
    }
    Error::new(Coded { text, ..coded })
}

fn with_flags(text: &str) -> String {
    let name = |text: String, (flag, field): &(&str, &str)| text.replace(field, flag);
    FLAGS.iter().fold(text.to_string(), name)
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

    #[test]
    fn flags_become_fields_and_fields_are_told_as_flags() {
        let mut values = [const { None }; FLAGS.len()];
        assert_eq!(linux(values.clone()), json!(null));
        values[10] = Some(json!(5));
        values[15] = Some(json!(-1));
        let resources = json!({"memory": {"limit": 5}, "pids": {"limit": -1}});
        assert_eq!(linux(values), json!({"resources": resources}));
        for (index, (flag, field)) in FLAGS.iter().enumerate() {
            assert_eq!(with_flags(field), *flag, "{index}");
        }
    }
}
