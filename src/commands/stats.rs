//! `stats`: what containers use, as a table for people that renews itself, or once for programs.
//!
//! On a terminal it goes on until `q` or ^C; everywhere else it prints once. Shares of time are those
//! between two samples. Changes nothing.

mod row;
mod screen;

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signalfd::SignalFd;

use crate::cgroup::stats::Stats;
use crate::cli::args::{self, Format};
use crate::lifecycle::foreground;
use crate::state::container::{Container, Status};
use crate::state::root_dir;
use crate::state::store::Store;
use row::Row;
use screen::{Screen, Woken};

/// The first sample alone says nothing of shares: long enough for a tick of any clock, short for who waits.
const FIRST: Duration = Duration::from_millis(200);
const INTERVAL: Duration = Duration::from_secs(1);

pub fn run(args: &args::Stats, store: &Store) -> Result<i32> {
    check(&args.ids, store)?;
    let (signals, _) = foreground::block_signals()?;
    let live = !args.no_stream && args.format == Format::Table && std::io::stdout().is_terminal();
    if live {
        return watch(args, store, &signals);
    }
    let before = sample(&args.ids, store);
    if let Woken::Signal(signal) = screen::wait(&signals, None, Instant::now() + FIRST)? {
        return Ok(128 + signal);
    }
    let rows = rows(&before, &sample(&args.ids, store));
    let text = match args.format {
        Format::Table => row::table(&rows),
        Format::Json => row::objects(&rows)?,
    };
    super::print(&text)?;
    Ok(0)
}

/// Until the user, or the last of the named containers, ends it.
fn watch(args: &args::Stats, store: &Store, signals: &SignalFd) -> Result<i32> {
    let screen = Screen::open()?;
    let mut before = sample(&args.ids, store);
    let mut shown = String::new();
    let mut next = Instant::now() + FIRST;
    loop {
        match screen::wait(signals, Some(&screen), next)? {
            Woken::Quit | Woken::Signal(libc::SIGINT) => return Ok(0),
            Woken::Signal(signal) => return Ok(128 + signal),
            Woken::Resized => {}
            Woken::InTime => {
                let now = sample(&args.ids, store);
                if now.is_empty() && !args.ids.is_empty() {
                    return Ok(0);
                }
                shown = row::table(&rows(&before, &now));
                before = now;
                next = Instant::now() + INTERVAL;
            }
        }
        screen.show(&shown)?;
    }
}

/// Who names a container wants to know that it is not there, and everybody whether the records can be trusted.
fn check(ids: &[String], store: &Store) -> Result<()> {
    root_dir::check(store.root())?;
    for id in ids {
        let status = store.find(id)?.status()?;
        ensure!(
            status != Status::Stopped,
            "container with id {id} is not running"
        );
    }
    Ok(())
}

/// What each container has used up to a moment; by name.
type Samples = BTreeMap<String, Sample>;

struct Sample {
    at: Instant,
    stats: Stats,
    /// Whether the container has a cgroup, in which the kernel counts.
    is_counted: bool,
}

/// One that ends or vanishes meanwhile is left out.
fn sample(ids: &[String], store: &Store) -> Samples {
    let chosen: Vec<Container> = match ids {
        [] => store.list().unwrap_or_default(),
        ids => ids.iter().filter_map(|id| store.find(id).ok()).collect(),
    };
    let wanted = |container: &Container| match container.status() {
        Ok(Status::Running | Status::Paused) => true,
        Ok(Status::Created) => !ids.is_empty(),
        _ => false,
    };
    let sampled = |container: &Container| {
        let cgroup = container.cgroup().ok()?;
        let is_counted = cgroup.is_some();
        let stats = match cgroup {
            Some(cgroup) => cgroup.stats().ok()??,
            None => Stats::default(),
        };
        let sample = Sample {
            at: Instant::now(),
            stats,
            is_counted,
        };
        Some((container.state.id.clone(), sample))
    };
    chosen
        .iter()
        .filter(|container| wanted(container))
        .filter_map(sampled)
        .collect()
}

fn rows(before: &Samples, now: &Samples) -> Vec<Row> {
    let memory = row::memory_of_host();
    let row = |(id, now): (&String, &Sample)| {
        let before = before.get(id).filter(|before| before.is_counted);
        let since = before.map(|before| (&before.stats, now.at - before.at));
        Row::new(id, since, &now.stats, memory)
    };
    now.iter().map(row).collect()
}
