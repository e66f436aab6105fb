//! The measuring: rounds in which every runtime performs one operation after the other of a container's life, each time
//! in another order. With a pause before each operation (the kernel's grace periods are paid, as on a host with a
//! container now and then), or without (as in a burst).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::config;
use crate::count;
use crate::runtime::{self, Runtime, Sample};
use crate::stats::Random;

pub const PAUSE: Duration = Duration::from_millis(25);
/// Warms caches, and is not counted.
const FIRST: usize = 2;

/// All that was measured in one variant at one pace.
pub struct Block {
    pub variant: String,
    pub what: String,
    pub pace: &'static str,
    /// By operation and runtime, a sample per round.
    pub samples: BTreeMap<(String, String), Vec<Sample>>,
    pub counts: HashMap<(String, String), Value>,
    /// Runtimes that were left out, and why.
    pub refused: BTreeMap<String, String>,
}

impl Block {
    pub fn add(&mut self, operation: &str, runtime: &Runtime, sample: Sample) {
        let key = (operation.to_string(), runtime.name.clone());
        self.samples.entry(key).or_default().push(sample);
    }
}

/// The bundles of one runtime in one variant: `life` holds a program that waits, `short` one that ends.
pub struct Bundles {
    pub life: PathBuf,
    pub short: PathBuf,
    pub cgroup: String,
}

impl Bundles {
    /// That of a container, by its letter.
    pub fn of(&self, container: char) -> &Path {
        match container {
            'c' => &self.short,
            _ => &self.life,
        }
    }
}

/// The operation, its container, and whether it is measured.
pub type Step = (&'static str, char, bool);

pub const ROUND: [Step; 11] = [
    ("create", 'a', true),
    ("state", 'a', true),
    ("list", 'a', true),
    ("start", 'a', true),
    ("exec", 'a', true),
    ("kill", 'a', true),
    ("delete", 'a', true),
    ("create", 'b', false),
    ("start", 'b', false),
    ("delete --force", 'b', true),
    ("run", 'c', true),
];

pub fn bundles(
    work: &Path,
    variant: &config::Variant,
    name: &str,
    filter: Option<&[u8]>,
) -> Result<Bundles> {
    let short_name = name.replace(' ', "-");
    let cgroup = format!("/bench/{short_name}");
    let directory = work.join("bundles").join(&variant.name).join(&short_name);
    let mut config = variant.config.clone();
    config["linux"]["cgroupsPath"] = json!(cgroup);
    let short = config::write_bundle(&directory.join("short"), &config, filter)?;
    config["process"]["args"] = json!(["/pause"]);
    let life = config::write_bundle(&directory.join("life"), &config, filter)?;
    Ok(Bundles {
        life,
        short,
        cgroup,
    })
}

pub struct Runner<'a> {
    pub runtimes: &'a [(&'a Runtime, Bundles)],
    pub pause: Option<Duration>,
    pub only: &'a [&'a str],
    pub random: Random,
}

impl Runner<'_> {
    /// As many rounds as fit into the time, and at least `least`.
    pub fn measure(&mut self, block: &mut Block, time: Duration, least: usize) -> Result<()> {
        let end = Instant::now() + time;
        let mut round = 0;
        while round < FIRST + least || (Instant::now() < end && round < 2000) {
            for step in ROUND {
                self.step(block, step, round >= FIRST)?;
            }
            round += 1;
        }
        Ok(())
    }

    fn step(&mut self, block: &mut Block, step: (&str, char, bool), counted: bool) -> Result<()> {
        let (operation, container, measured) = step;
        if !self.wanted(operation, container) {
            return Ok(());
        }
        let mut order: Vec<usize> = (0..self.runtimes.len()).collect();
        self.random.shuffle(&mut order);
        for at in order {
            let (runtime, bundles) = &self.runtimes[at];
            // To join a container, the process that runs already would have to leave the host.
            let joins = operation == "exec" && runtime.in_process();
            if joins || block.refused.contains_key(&runtime.name) {
                continue;
            }
            if measured && let Some(pause) = self.pause {
                std::thread::sleep(pause);
            }
            match one(runtime, bundles, operation, container) {
                Ok(sample) if measured && counted => {
                    block.add(operation, runtime, sample);
                }
                Ok(_) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    eprintln!("bench: {} leaves {}: {error}", runtime.name, block.variant);
                    block.refused.insert(runtime.name.clone(), error);
                }
            }
        }
        Ok(())
    }

    /// A container's life is lived as a whole, if any operation in it is to be measured.
    fn wanted(&self, operation: &str, container: char) -> bool {
        let mut life = ROUND.iter().filter(|step| step.1 == container);
        let needed = life.any(|step| step.2 && self.only.contains(&step.0));
        let keeps = ["create", "start", "kill", "delete", "delete --force"];
        needed && (self.only.contains(&operation) || keeps.contains(&operation))
    }

    /// One life more for each runtime, traced.
    pub fn count(&mut self, block: &mut Block) -> Result<()> {
        for (runtime, bundles) in self.runtimes {
            if runtime.in_process() || block.refused.contains_key(&runtime.name) {
                continue;
            }
            for (operation, container, measured) in ROUND {
                if !self.wanted(operation, container) {
                    continue;
                }
                if !measured {
                    one(runtime, bundles, operation, container)?;
                    continue;
                }
                let counted = counted(runtime, bundles, operation, container)?;
                let key = (operation.to_string(), runtime.name.clone());
                block.counts.insert(key, counted);
            }
        }
        Ok(())
    }
}

fn counted(
    runtime: &Runtime,
    bundles: &Bundles,
    operation: &str,
    container: char,
) -> Result<Value> {
    let bundle = bundles.of(container);
    let init = (operation == "kill")
        .then(|| runtime::init_of(&bundles.cgroup))
        .transpose()?;
    let words = runtime.words(operation, bundle, &id(runtime, container));
    let counts = count::counts_of(runtime.command(&words)?)?;
    if let Some(init) = init {
        runtime::wait_until_dead(init)?;
    }
    Ok(counts)
}

/// One operation. What the container's first process has used until `create` returned counts as create's.
pub fn one(
    runtime: &Runtime,
    bundles: &Bundles,
    operation: &str,
    container: char,
) -> Result<Sample> {
    let bundle = bundles.of(container);
    let init = (operation == "kill")
        .then(|| runtime::init_of(&bundles.cgroup))
        .transpose()?;
    let mut sample = runtime.perform(operation, bundle, &id(runtime, container))?;
    if operation == "create" && !runtime.in_process() {
        sample.cpu_ns += runtime::cpu_of(runtime::init_of(&bundles.cgroup)?);
    }
    if let Some(init) = init {
        runtime::wait_until_dead(init)?;
    }
    runtime::reap();
    Ok(sample)
}

fn id(runtime: &Runtime, container: char) -> String {
    format!("bench-{}-{container}", runtime.name.replace(' ', "-"))
}

/// Ends whoever is in it. What is no cgroup, or still in use, stays.
pub fn remove_cgroup(path: &Path) {
    if path.is_dir() {
        std::fs::write(path.join("cgroup.kill"), "1").ok();
        std::thread::sleep(Duration::from_millis(20));
        runtime::reap();
        std::fs::remove_dir(path).ok();
    }
}

/// What a failure has left, so that the next variant begins with nothing.
pub fn clean(runtimes: &[(&Runtime, Bundles)]) -> Result<()> {
    for (runtime, bundles) in runtimes {
        for container in ['a', 'b', 'c'] {
            if !runtime.in_process() {
                runtime
                    .perform("delete --force", &bundles.life, &id(runtime, container))
                    .ok();
            }
        }
        remove_cgroup(&Path::new("/sys/fs/cgroup").join(bundles.cgroup.trim_start_matches('/')));
        if runtime.is_floor() {
            std::fs::remove_dir_all(&runtime.state).ok();
            std::fs::create_dir_all(&runtime.state)?;
        }
    }
    if std::fs::read_dir("/sys/fs/cgroup/bench")?
        .flatten()
        .any(|entry| entry.path().is_dir())
    {
        bail!("/sys/fs/cgroup/bench: a container is left");
    }
    Ok(())
}
