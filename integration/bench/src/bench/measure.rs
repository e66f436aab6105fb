//! The story of a measurement: make ready, then for each variant see that all do the same work, measure, count;
//! then what takes many containers; then the report. The time is shared out at the start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::Settings;
use crate::config::{self, Variant};
use crate::equal::{self, Difference};
use crate::rounds::{self, Block, Bundles, PAUSE, Runner};
use crate::runtime::{FLOOR, IN_PROCESS, OPERATIONS, Runtime};
use crate::stats::Random;
use crate::{filter, machine, report, rootfs, scale};

/// The operations in which variants differ.
const SHORT: [&str; 3] = ["run", "create", "exec"];

pub struct Outcome {
    pub subject: String,
    pub controllers: Vec<String>,
    pub device_rules: bool,
    pub load_before: String,
    pub blocks: Vec<Block>,
    /// What a runtime's container had otherwise, by variant and runtime.
    pub differences: Vec<(String, String, Difference)>,
}

pub fn measure(settings: &Settings) -> Result<()> {
    bench_sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    let controllers = prepare_cgroup()?;
    rootfs::make(&settings.work, &beside("probe")?)?;
    let (repository, work) = (&settings.repository, &settings.work);
    let device_rules = bench_sys::setrlimit(libc::RLIMIT_MEMLOCK as _, u64::MAX, u64::MAX).is_ok();
    let place = config::Place {
        repository,
        work,
        controllers: &controllers,
        device_rules,
    };
    let runtimes = runtimes(settings, &beside("floor")?)?;
    let mut outcome = Outcome {
        subject: runtimes[0].name.clone(),
        controllers: controllers.clone(),
        device_rules,
        load_before: machine::loadavg(),
        blocks: Vec::new(),
        differences: Vec::new(),
    };
    let mut variants = config::variants(&place)?;
    variants
        .retain(|variant| settings.variant.is_empty() || settings.variant.contains(&variant.name));
    for variant in &variants {
        eprintln!("bench: {}: {}", variant.name, variant.what);
        add_host_mounts(work, variant.host_mounts)?;
        let done = one_variant(settings, &runtimes, variant, &mut outcome);
        drop_host_mounts(work, variant.host_mounts)?;
        done.with_context(|| variant.name.clone())?;
    }
    if settings.variant.is_empty() || settings.variant.contains(&"scale".to_string()) {
        scale::measure(settings, &runtimes, &place, &mut outcome)?;
    }
    report::write(settings, &runtimes, &outcome)
}

/// The same without a measurement: all variants, with rules for devices.
pub fn make_ready(settings: &Settings) -> Result<Vec<Variant>> {
    let controllers = prepare_cgroup()?;
    rootfs::make(&settings.work, &beside("probe")?)?;
    config::variants(&config::Place {
        repository: &settings.repository,
        work: &settings.work,
        controllers: &controllers,
        device_rules: true,
    })
}

fn beside(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name(name))
}

fn runtimes(settings: &Settings, floor: &Path) -> Result<Vec<Runtime>> {
    let mut runtimes = Vec::new();
    for named in [&settings.subject].into_iter().chain(&settings.peer) {
        let (name, path) = named
            .split_once('=')
            .with_context(|| format!("{named}: must be NAME=PATH"))?;
        runtimes.push(Runtime::new(name, Path::new(path), &settings.work)?);
    }
    runtimes.push(Runtime::new(FLOOR, floor, &settings.work)?);
    runtimes.push(Runtime::new(IN_PROCESS, floor, &settings.work)?);
    Ok(runtimes)
}

/// Containers are in a group of their own, which passes on what controllers there are.
fn prepare_cgroup() -> Result<Vec<String>> {
    let controllers = machine::controllers();
    let all: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
    for directory in ["/sys/fs/cgroup", "/sys/fs/cgroup/bench"] {
        fs::create_dir_all(directory)?;
        let file = format!("{directory}/cgroup.subtree_control");
        fs::write(&file, all.join(" ")).context(file)?;
    }
    for entry in fs::read_dir("/sys/fs/cgroup/bench")?.flatten() {
        rounds::remove_cgroup(&entry.path());
    }
    Ok(controllers)
}

fn one_variant(
    settings: &Settings,
    runtimes: &[Runtime],
    variant: &Variant,
    outcome: &mut Outcome,
) -> Result<()> {
    let filter = filter::of(&runtimes[0], &settings.work, variant)?;
    let mut bundled: Vec<(&Runtime, Bundles)> = Vec::new();
    for runtime in runtimes {
        let bundles = rounds::bundles(&settings.work, variant, &runtime.name, filter.as_deref())?;
        bundled.push((runtime, bundles));
    }
    let refused = refuse_unequal(settings, runtimes, variant, filter.as_deref(), outcome)?;
    let is_base = variant.name == "base";
    let paces: &[(&str, Option<Duration>)] = match is_base {
        true => &[("sporadic", Some(PAUSE)), ("back to back", None)],
        false => &[("sporadic", Some(PAUSE))],
    };
    for (pace, pause) in paces {
        let mut block = Block {
            variant: variant.name.clone(),
            what: variant.what.to_string(),
            pace,
            samples: BTreeMap::new(),
            counts: Default::default(),
            refused: refused.clone(),
        };
        let only: &[&str] = if is_base { &OPERATIONS } else { &SHORT };
        let mut runner = Runner {
            runtimes: &bundled,
            pause: *pause,
            only,
            random: Random::new(7),
        };
        let share = if is_base && pause.is_some() {
            35
        } else if is_base {
            8
        } else {
            4
        };
        let time = Duration::from_millis(settings.seconds * 10 * share);
        runner.measure(&mut block, time, settings.rounds)?;
        if let Err(error) = runner.count(&mut block) {
            eprintln!(
                "bench: {}: some counts are missing: {error:#}",
                variant.name
            );
        }
        rounds::clean(&bundled)?;
        outcome.blocks.push(block);
    }
    Ok(())
}

fn refuse_unequal(
    settings: &Settings,
    runtimes: &[Runtime],
    variant: &Variant,
    filter: Option<&[u8]>,
    outcome: &mut Outcome,
) -> Result<BTreeMap<String, String>> {
    let mut refused = BTreeMap::new();
    let first = equal::probe(&runtimes[0], &settings.work, variant, filter)?;
    for runtime in runtimes[1..].iter().filter(|runtime| !runtime.in_process()) {
        let seen = match equal::probe(runtime, &settings.work, variant, filter) {
            Ok(seen) => seen,
            Err(error) => {
                refused.insert(runtime.name.clone(), format!("{error:#}"));
                continue;
            }
        };
        let differences = equal::differences(&first, &seen);
        let unequal = differences
            .iter()
            .filter(|difference| difference.allowed.is_none());
        let facts: Vec<&str> = unequal.map(|difference| difference.fact.as_str()).collect();
        if !facts.is_empty() {
            refused.insert(
                runtime.name.clone(),
                format!("unequal work: {}", facts.join(", ")),
            );
        }
        let of = |difference| (variant.name.clone(), runtime.name.clone(), difference);
        outcome.differences.extend(differences.into_iter().map(of));
    }
    for (runtime, why) in &refused {
        eprintln!("bench: {}: {runtime} is not compared: {why}", variant.name);
    }
    if let Some(why) = refused.get(FLOOR).cloned() {
        refused.insert(IN_PROCESS.to_string(), why);
    }
    Ok(refused)
}

fn add_host_mounts(work: &Path, count: usize) -> Result<()> {
    for number in 0..count {
        let target = work.join("host").join(number.to_string());
        fs::create_dir_all(&target)?;
        let source = work.join("volume");
        mount(
            Some(&source),
            &target,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
    }
    Ok(())
}

fn drop_host_mounts(work: &Path, count: usize) -> Result<()> {
    for number in 0..count {
        umount2(
            &work.join("host").join(number.to_string()),
            MntFlags::MNT_DETACH,
        )?;
    }
    Ok(())
}
