//! Runs the configs of one worker, one after the other. Each result is one JSON line on stdout.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Arguments;
use crate::compare::{self, Difference, Known};
use crate::generate;
use crate::observe::{Observed, Observer};
use crate::shrink;
use crate::world::{self, Program};

/// The most trials that shrinking may take.
const TRIALS: usize = 150;

struct Worker {
    programs: Vec<Program>,
    observer: Observer,
    table: Vec<Known>,
    /// Whether crun can load device rules: it raises a limit first, which needs CAP_SYS_RESOURCE.
    device_rules: bool,
    /// The kinds of differences that are reported already.
    told: BTreeSet<(String, &'static str)>,
}

/// The results of one config on all runtimes.
struct Trial {
    observed: Vec<Option<Observed>>,
    differences: Vec<Difference>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    differential_sys::die_with_the_parent();
    differential_sys::heed_signals();
    let path = |name: &'static str| arguments.text(name).map(|path| (name, PathBuf::from(path)));
    let programs = [path("cofferdam")?, path("runc")?, path("crun")?];
    let programs = world::make(&programs, Path::new(arguments.text("probe")?))?;
    let mut worker = Worker {
        programs,
        observer: Observer::new()?,
        table: compare::table(),
        device_rules: may_raise_limits(),
        told: BTreeSet::new(),
    };
    let (seed, step) = (arguments.number("seed")?, arguments.number("step")?);
    let (mut number, end) = (arguments.number("first")?, arguments.number("end")?);
    let deadline = Instant::now() + Duration::from_secs(arguments.number("seconds")?);
    let verbose = arguments.text("verbose")? == "1";
    while number < end && Instant::now() < deadline {
        println!("{}", worker.config(seed, number, verbose)?);
        number += step;
    }
    Ok(ExitCode::SUCCESS)
}

fn may_raise_limits() -> bool {
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask, 16).ok());
    mask.unwrap_or(0) & SYS_RESOURCE != 0
}

impl Worker {
    /// Returns the result of one config.
    fn config(&mut self, seed: u64, number: u64, verbose: bool) -> Result<Value> {
        let config = generate::config(seed, number);
        let trial = self.compare(&config)?;
        let (mut known, mut found) = (Vec::new(), Vec::new());
        let mut new = Vec::new();
        for difference in trial.differences {
            match self
                .table
                .iter()
                .position(|line| line.explains(&difference, &config))
            {
                Some(line) => known.push(line),
                None => new.push(difference),
            }
        }
        let first: Vec<Difference> = new
            .iter()
            .filter(|d| self.told.insert((class(&d.key), d.who)))
            .cloned()
            .collect();
        // The config is shrunk for the first difference only; the others are mostly consequences of it.
        if let Some(difference) = first.first() {
            let small = shrink::shrink(&config, TRIALS, |small| {
                self.shows(small, difference).unwrap_or(false)
            });
            let again = self.compare(&small)?;
            found.push(told(difference, &first[1..], &small, &again));
        }
        let outcome = |at: usize| {
            trial.observed[at]
                .as_ref()
                .map(|observed| observed.seen["outcome"].clone())
        };
        let mut line = json!({"number": number, "outcome": [outcome(0), outcome(1), outcome(2)], "known": known, "new": new.len(), "found": found});
        if verbose {
            line["config"] = config;
            line["seen"] = json!(
                trial
                    .observed
                    .iter()
                    .flatten()
                    .map(|o| json!([o.seen, o.words, o.took.as_micros()]))
                    .collect::<Vec<_>>()
            );
        }
        Ok(line)
    }

    fn compare(&self, config: &Value) -> Result<Trial> {
        let mut observed = Vec::new();
        for program in &self.programs {
            let left_out = program.name == "crun" && !self.device_rules && has_device_rules(config);
            observed.push(if left_out {
                None
            } else {
                Some(
                    self.observer
                        .observe(program, config)
                        .with_context(|| format!("{} on {config}", program.name))?,
                )
            });
        }
        let compared = |at: usize| {
            observed[at]
                .as_ref()
                .filter(|observed| !self.is_excused(at, observed, config))
        };
        let seen = |at: usize| compared(at).map(|observed: &Observed| &observed.seen);
        let differences = seen(0).map(|own| compare::compare(own, seen(1), seen(2)));
        let mut differences = differences.unwrap_or_default();
        let words = [0, 1, 2].map(|at| {
            observed[at]
                .as_ref()
                .map(|observed| observed.words.clone())
                .unwrap_or_default()
        });
        differences
            .iter_mut()
            .for_each(|difference| difference.words = words.clone());
        Ok(Trial {
            differences,
            observed,
        })
    }

    /// Tells whether a line `refuses` of the table knows why this rival does not run the config.
    fn is_excused(&self, at: usize, observed: &Observed, config: &Value) -> bool {
        let who = ["cofferdam", "runc", "crun"][at];
        let words = [0, 1, 2].map(|n| {
            if n == at {
                observed.words.clone()
            } else {
                String::new()
            }
        });
        let outcome = observed.seen["outcome"].clone();
        let difference = Difference {
            key: "refuses".into(),
            who,
            cofferdam: String::new(),
            runc: outcome.clone(),
            crun: outcome,
            words,
        };
        at > 0
            && observed.seen["outcome"] != "ran"
            && self
                .table
                .iter()
                .any(|line| line.explains(&difference, config))
    }

    /// Tells whether this config shows the same difference, and no line of the table explains it.
    fn shows(&self, config: &Value, difference: &Difference) -> Result<bool> {
        let same = |d: &Difference| {
            let reason = |d: &Difference| d.words[0].rsplit(": ").next().map(String::from);
            let values = |d: &Difference| {
                (
                    d.cofferdam.clone(),
                    d.runc.clone(),
                    d.crun.clone(),
                    reason(d),
                )
            };
            d.key == difference.key
                && d.who == difference.who
                && (d.key != "outcome" || values(d) == values(difference))
        };
        let trial = self.compare(config)?;
        Ok(trial
            .differences
            .iter()
            .any(|d| same(d) && !self.table.iter().any(|line| line.explains(d, config))))
    }
}

fn has_device_rules(config: &Value) -> bool {
    config["linux"]["resources"]["devices"]
        .as_array()
        .is_some_and(|rules| !rules.is_empty())
}

/// Returns a key without the place: `mounts/*/flags`.
fn class(key: &str) -> String {
    match (key.split_once('/'), key.rsplit_once('/')) {
        (Some((head, rest)), Some((_, tail))) if rest.contains('/') => format!("{head}/*/{tail}"),
        _ => key.to_string(),
    }
}

fn told(difference: &Difference, others: &[Difference], config: &Value, trial: &Trial) -> Value {
    let words: Vec<String> = trial
        .observed
        .iter()
        .map(|o| o.as_ref().map_or("not run".into(), |o| o.words.clone()))
        .collect();
    let here = trial
        .differences
        .iter()
        .find(|d| d.key == difference.key)
        .unwrap_or(difference);
    json!({
        "key": difference.key, "who": difference.who,
        "cofferdam": here.cofferdam, "runc": here.runc, "crun": here.crun,
        "others": others.iter().map(|d| d.key.clone()).collect::<Vec<_>>(),
        "words": words, "config": config,
    })
}
