//! Starts the workers, prints what they find, and compares the machine before and after.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Arguments;
use crate::compare;
use crate::machine::Machine;

const PROGRESS: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Tally {
    configs: u64,
    ran: u64,
    refused: u64,
    /// The number of configs that needed each line of the table.
    known: Vec<u64>,
    configs_with_new: u64,
    told: BTreeSet<(String, String)>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let cgroup = Path::new(arguments.text("cgroup")?);
    let before = Machine::take(cgroup)?;
    let workers = arguments.number("workers")?;
    let (sender, lines) = channel();
    let mut children = Vec::new();
    for worker in 0..workers {
        children.push(start(arguments, worker, cgroup, sender.clone())?);
    }
    drop(sender);
    let tally = listen(arguments, &lines)?;
    let ended = children
        .iter_mut()
        .map(|child| child.wait())
        .collect::<Result<Vec<_>, _>>()?;
    for worker in 0..workers {
        fs::remove_dir(cgroup.join(format!("w{worker}")))
            .with_context(|| format!("remove the cgroup of worker {worker}"))?;
    }
    ensure!(
        ended.iter().all(|status| status.success()),
        "a worker has failed; its words are above"
    );
    let changes = before.changes(&Machine::take(cgroup)?);
    changes
        .iter()
        .for_each(|change| println!("differential: this machine has changed: {change}"));
    let good = tally.told.is_empty() && changes.is_empty();
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Starts a worker as process 1 of a pid namespace. The kernel ends all that it has started when it ends.
fn start(
    arguments: &Arguments,
    worker: u64,
    cgroup: &Path,
    lines: Sender<String>,
) -> Result<Child> {
    let dir = cgroup.join(format!("w{worker}"));
    fs::create_dir(&dir)?;
    let first = arguments.number("first")? + worker;
    let script = "echo 0 > \"$0/cgroup.procs\" && exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
        --ipc --uts --net --cgroup -- \"$@\"";
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(script)
        .arg(&dir)
        .arg(std::env::current_exe()?)
        .arg("worker");
    for name in [
        "cofferdam",
        "runc",
        "crun",
        "probe",
        "seed",
        "end",
        "seconds",
        "verbose",
    ] {
        command.arg(format!("{name}={}", arguments.text(name)?));
    }
    command
        .arg(format!("first={first}"))
        .arg(format!("step={}", arguments.number("workers")?));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stdout.take().context("no output")?);
    std::thread::spawn(move || {
        output
            .lines()
            .map_while(Result::ok)
            .try_for_each(|line| lines.send(line))
    });
    Ok(child)
}

fn listen(arguments: &Arguments, lines: &Receiver<String>) -> Result<Tally> {
    let table = compare::table();
    let mut tally = Tally {
        known: vec![0; table.len()],
        ..Tally::default()
    };
    let verbose = arguments.text("verbose")? == "1";
    let begin = Instant::now();
    let mut next = begin + PROGRESS;
    for line in lines {
        if verbose {
            let value: Value = serde_json::from_str(&line)?;
            println!("{}", serde_json::to_string_pretty(&value)?);
        }
        tally.add(&line, arguments.number("seed")?)?;
        if Instant::now() > next {
            tally.print(begin);
            next += PROGRESS;
        }
    }
    tally.print(begin);
    for (line, count) in table
        .iter()
        .zip(&tally.known)
        .filter(|(_, count)| **count > 0)
    {
        println!(
            "  listed {count:>6} times: {} {}: {}",
            line.key, line.who, line.reason
        );
    }
    Ok(tally)
}

impl Tally {
    fn add(&mut self, line: &str, seed: u64) -> Result<()> {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_string())?;
        self.configs += 1;
        self.ran += u64::from(line["outcome"][0] == "ran");
        self.refused += u64::from(line["outcome"][0] == "refused");
        self.configs_with_new += u64::from(line["new"] != 0);
        let known: BTreeSet<u64> = line["known"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_u64)
            .collect();
        known.iter().for_each(|at| self.known[*at as usize] += 1);
        for found in line["found"].as_array().into_iter().flatten() {
            let text = |name: &str| found[name].as_str().unwrap_or_default().to_string();
            if self.told.insert((text("key"), text("who"))) {
                println!(
                    "DIFFERENCE at {}, {}: SEED={seed} CONFIG={}",
                    text("key"),
                    text("who"),
                    line["number"]
                );
                for (at, name) in ["cofferdam", "runc", "crun"].iter().enumerate() {
                    println!(
                        "  {name:<10}{:?}    {}",
                        text(name),
                        found["words"][at].as_str().unwrap_or_default()
                    );
                }
                if found["others"] != serde_json::json!([]) {
                    println!("  also      {}", found["others"]);
                }
                println!("  config    {}", found["config"]);
            }
        }
        Ok(())
    }

    fn print(&self, begin: Instant) {
        let rate = self.configs as f64 / begin.elapsed().as_secs_f64();
        println!(
            "differential: {} configs, {rate:.1} a second, {} ran, {} refused; {} differences, in {} configs",
            self.configs,
            self.ran,
            self.refused,
            self.told.len(),
            self.configs_with_new
        );
    }
}
