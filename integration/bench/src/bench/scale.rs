//! What takes more than one container: `list` beside many, several `run` at a time, and the smallest limits that do.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde_json::json;

use crate::Settings;
use crate::config::{self, Place, Variant, write_bundle};
use crate::measure::Outcome;
use crate::rounds::Block;
use crate::runtime::{self, Runtime, Sample, reap};
use crate::stats::Random;

const SMALLEST_TRIES: usize = 5;

pub fn measure(
    settings: &Settings,
    runtimes: &[Runtime],
    place: &Place,
    outcome: &mut Outcome,
) -> Result<()> {
    let variants = config::variants(place)?;
    let find = |name: &str| {
        variants
            .iter()
            .find(|variant| variant.name == name)
            .context("no such variant")
    };
    let quick = settings.seconds < 120;
    for count in if quick { vec![10] } else { vec![100, 1000] } {
        eprintln!("bench: list with {count} containers");
        outcome
            .blocks
            .push(list(settings, runtimes, find("host-network")?, count)?);
    }
    for width in [1, 2, 8] {
        eprintln!("bench: {width} in parallel");
        outcome
            .blocks
            .push(parallel(settings, runtimes, find("base")?, width)?);
    }
    for (controller, file, start) in [("memory", "memory.max", 64 << 20), ("pids", "pids.max", 64)]
    {
        if outcome.controllers.iter().any(|name| name == controller) {
            outcome
                .blocks
                .push(smallest(settings, runtimes, find("base")?, (file, start))?);
        }
    }
    Ok(())
}

fn list(
    settings: &Settings,
    runtimes: &[Runtime],
    variant: &Variant,
    count: usize,
) -> Result<Block> {
    let mut block = block(
        &format!("list-{count}"),
        "beside that many running containers",
    );
    let measured: Vec<&Runtime> = runtimes.iter().collect();
    for runtime in &measured {
        for number in 0..count {
            let bundle = slot(settings, runtime, variant, number)?;
            let id = format!("bench-{number}");
            for operation in ["create", "start"] {
                let sample = runtime.perform(operation, &bundle, &id)?;
                keep(&mut block, operation, runtime, sample, (number, count));
            }
        }
    }
    rounds(&mut block, "list", &measured, settings, |runtime| {
        runtime.perform("list", &settings.work, "")
    })?;
    for runtime in &measured {
        for number in 0..count {
            let id = format!("bench-{number}");
            let init = runtime::init_of(&cgroup(runtime, number))?;
            runtime.perform("kill", &settings.work, &id)?;
            runtime::wait_until_dead(init)?;
            let sample = runtime.perform("delete", &settings.work, &id)?;
            keep(&mut block, "delete", runtime, sample, (number, count));
        }
    }
    Ok(block)
}

/// Of the first tenth and of the last one: what a container costs is not to grow with the number of others.
fn keep(block: &mut Block, operation: &str, runtime: &Runtime, sample: Sample, of: (usize, usize)) {
    let (number, count) = of;
    let tenth = count / 10;
    let range = match number {
        _ if number < tenth => 1..=tenth,
        _ if number >= count - tenth => count - tenth + 1..=count,
        _ => return,
    };
    let operation = format!("{operation} {}-{}", range.start(), range.end());
    block.add(&operation, runtime, sample);
}

/// The time from the first spawn to the last end.
fn parallel(
    settings: &Settings,
    runtimes: &[Runtime],
    variant: &Variant,
    width: usize,
) -> Result<Block> {
    let mut block = block(&format!("parallel-{width}"), "`run`, that many at a time");
    let mut bundles: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let measured: Vec<&Runtime> = runtimes
        .iter()
        .filter(|runtime| !runtime.in_process())
        .collect();
    for runtime in &measured {
        let slots = (0..width).map(|number| slot(settings, runtime, variant, number));
        bundles.insert(runtime.name.clone(), slots.collect::<Result<_>>()?);
    }
    let operation = format!("run x{width}");
    rounds(&mut block, &operation, &measured, settings, |runtime| {
        together(runtime, &bundles[&runtime.name])
    })?;
    Ok(block)
}

fn together(runtime: &Runtime, bundles: &[PathBuf]) -> Result<Sample> {
    let mut commands = Vec::new();
    for (number, bundle) in bundles.iter().enumerate() {
        let short = bundle.join("short");
        commands.push(runtime.command(&runtime.words(
            "run",
            &short,
            &format!("bench-{number}"),
        ))?);
    }
    let start = Instant::now();
    let mut sample = Sample::default();
    let mut left: Vec<Pid> = Vec::new();
    for command in &mut commands {
        left.push(Pid::from_raw(command.spawn()?.id() as i32));
    }
    while !left.is_empty() {
        let ended = bench_sys::wait4(None, 0)?.context("no child")?;
        let known = left.iter().position(|pid| *pid == ended.pid);
        let Some(at) = known else { continue };
        left.swap_remove(at);
        anyhow::ensure!(
            ended.status == 0,
            "{}: {}",
            runtime.name,
            runtime.last_words()
        );
        sample.cpu_ns += ended.usage.cpu_ns;
        sample.faults += ended.usage.faults;
    }
    sample.wall_ns = start.elapsed().as_nanos() as u64;
    Ok(sample)
}

/// The smallest limit with which `run` succeeds every time, found by halving. The unit is not time, but of the file.
fn smallest(
    settings: &Settings,
    runtimes: &[Runtime],
    variant: &Variant,
    limit: (&str, u64),
) -> Result<Block> {
    let (file, start) = limit;
    let mut block = block(
        &format!("smallest {file}"),
        "with which `run` of nothing succeeds",
    );
    for runtime in runtimes.iter().filter(|runtime| !runtime.in_process()) {
        let (mut fails, mut works) = (0, start);
        while works - fails > (works / 16).max(1) {
            let middle = (works + fails) / 2;
            if runs_within(settings, runtime, variant, (file, middle))? {
                works = middle;
            } else {
                fails = middle;
            }
        }
        block
            .counts
            .insert((file.to_string(), runtime.name.clone()), json!(works));
    }
    Ok(block)
}

fn runs_within(
    settings: &Settings,
    runtime: &Runtime,
    variant: &Variant,
    limit: (&str, u64),
) -> Result<bool> {
    let mut config = variant.config.clone();
    config["linux"]["cgroupsPath"] = json!("/bench/smallest");
    let resource = limit.0.trim_end_matches(".max");
    config["linux"]["resources"][resource] = json!({"limit": limit.1});
    let directory = settings.work.join("bundles").join("smallest");
    let bundle = write_bundle(&directory, &config, None)?;
    for _ in 0..SMALLEST_TRIES {
        if runtime.perform("run", &bundle, "bench-smallest").is_err() {
            runtime
                .perform("delete --force", &bundle, "bench-smallest")
                .ok();
            reap();
            fs::remove_dir("/sys/fs/cgroup/bench/smallest").ok();
            return Ok(false);
        }
    }
    Ok(true)
}

fn rounds(
    block: &mut Block,
    operation: &str,
    runtimes: &[&Runtime],
    settings: &Settings,
    perform: impl Fn(&Runtime) -> Result<Sample>,
) -> Result<()> {
    let end = Instant::now() + Duration::from_millis(settings.seconds * 10 * 2);
    let mut random = Random::new(11);
    let mut order: Vec<&Runtime> = runtimes.to_vec();
    let mut round = 0;
    while round < settings.rounds || Instant::now() < end {
        random.shuffle(&mut order);
        for runtime in &order {
            let sample = perform(runtime)?;
            reap();
            block.add(operation, runtime, sample);
        }
        round += 1;
    }
    Ok(())
}

fn block(variant: &str, what: &str) -> Block {
    Block {
        variant: variant.to_string(),
        what: what.to_string(),
        pace: "back to back",
        samples: BTreeMap::new(),
        counts: Default::default(),
        refused: BTreeMap::new(),
    }
}

/// The bundle of one of many containers; below it, `short`, for a program that ends.
fn slot(
    settings: &Settings,
    runtime: &Runtime,
    variant: &Variant,
    number: usize,
) -> Result<PathBuf> {
    let mut config = variant.config.clone();
    config["linux"]["cgroupsPath"] = json!(cgroup(runtime, number));
    let short = runtime.name.replace(' ', "-");
    let directory = settings
        .work
        .join("bundles/slots")
        .join(format!("{short}-{number}"));
    write_bundle(&directory.join("short"), &config, None)?;
    config["process"]["args"] = json!(["/pause"]);
    write_bundle(&directory, &config, None)
}

fn cgroup(runtime: &Runtime, number: usize) -> String {
    format!("/bench/{}-{number}", runtime.name.replace(' ', "-"))
}
