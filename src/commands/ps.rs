//! `ps`: the processes of a container, by number or as ps(1) shows them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::args::{self, Format};
use crate::programs::output;
use crate::state::container::{Container, Status, not_running};
use crate::state::store::Store;
use crate::sys;
use crate::text::log;

pub fn run(args: &args::Ps, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    ensure!(container.status()? != Status::Stopped, not_running());
    let pids = pids(&container)?;
    let text = match args.format {
        Format::Json => serde_json::to_string(&pids)? + "\n",
        Format::Table => table(&pids, &args.ps_args)?,
    };
    super::print(&text)?;
    Ok(0)
}

/// Those of its cgroup; without one, those of its pid namespace.
pub fn pids(container: &Container) -> Result<Vec<i32>> {
    let init = container.state.pid;
    match container.cgroup()? {
        Some(cgroup) => cgroup.all_processes(),
        None if container.state.private_pids => Ok(in_pid_namespace_of(init)),
        None => {
            log::warn(
                "the container has neither a cgroup nor a pid namespace of its own: only its init is known",
            );
            Ok(vec![init])
        }
    }
}

fn in_pid_namespace_of(init: i32) -> Vec<i32> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let wanted = namespace(init);
    let entries = sys::read_dir(Path::new("/proc"))
        .into_iter()
        .flatten()
        .flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // One that ends meanwhile has no namespace any more.
    pids.filter(|pid| wanted.is_some() && namespace(*pid) == wanted)
        .collect()
}

/// The rows of ps(1) whose PID column names one of ours.
fn table(pids: &[i32], ps_args: &[String]) -> Result<String> {
    let output = output::output(Command::new("ps").args(ps_args))?;
    if !output.status.success() {
        bail!(
            "ps {}: {}",
            ps_args.join(" "),
            String::from_utf8_lossy(&output.stderr)
                .trim()
                .replace('\n', " ")
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_whitespace().position(|name| name == "PID");
    let column =
        column.with_context(|| format!("ps {}: shows no column PID", ps_args.join(" ")))?;
    let of_ours = |line: &&str| {
        let pid = line
            .split_whitespace()
            .nth(column)
            .and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let rows = std::iter::once(heading).chain(lines.filter(of_ours));
    // Not every ps(1) escapes the words of a process.
    Ok(rows.map(|line| log::printable(line) + "\n").collect())
}
