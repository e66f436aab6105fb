//! Compares the machine around the workers before and after a run.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Nodes of /dev with mode and owner, device programs at the root of the cgroup tree, mounts and processes of the workers.
#[derive(PartialEq)]
pub struct Machine {
    facts: Vec<String>,
}

impl Machine {
    pub fn take(cgroup: &Path) -> Result<Machine> {
        let mut facts = Vec::new();
        for entry in fs::read_dir("/dev")?.flatten() {
            let meta = entry.path().symlink_metadata()?;
            let (mode, rdev) = (meta.mode(), meta.rdev());
            facts.push(format!(
                "{} {mode:o} {}:{} {rdev:x}",
                entry.path().display(),
                meta.uid(),
                meta.gid()
            ));
        }
        for above in cgroup
            .ancestors()
            .skip(1)
            .take_while(|path| path.join("cgroup.procs").exists())
        {
            let programs = differential_sys::device_programs(File::open(above)?.as_fd())
                .context("ask for device programs")?;
            facts.push(format!(
                "device programs of {}: {programs:?}",
                above.display()
            ));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        facts.extend(
            mounts
                .lines()
                .filter(|line| line.contains("/run/d/"))
                .map(|line| format!("mount {line}")),
        );
        let below = fs::read_dir(cgroup)?
            .flatten()
            .filter(|entry| entry.path().is_dir());
        facts.extend(below.map(|entry| format!("cgroup {}", entry.path().display())));
        let processes = fs::read_to_string(cgroup.join("cgroup.procs"))?;
        facts.extend(processes.lines().map(|pid| format!("process {pid}")));
        facts.sort();
        Ok(Machine { facts })
    }

    pub fn changes(&self, now: &Machine) -> Vec<String> {
        let gone = self
            .facts
            .iter()
            .filter(|fact| !now.facts.contains(fact))
            .map(|fact| format!("no longer: {fact}"));
        let new = now
            .facts
            .iter()
            .filter(|fact| !self.facts.contains(fact))
            .map(|fact| format!("new: {fact}"));
        gone.chain(new).collect()
    }
}
