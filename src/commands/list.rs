//! `list`: all containers below the root.

use anyhow::{Context, Result};

use crate::cli::args::{self, Format};
use crate::host;
use crate::state::container::Container;
use crate::state::document::Report;
use crate::state::store::Store;
use crate::text::log;

pub fn run(args: &args::List, store: &Store) -> Result<i32> {
    let containers = store.list()?;
    if args.quiet {
        let ids = containers
            .iter()
            .map(|container| format!("{}\n", container.state.id));
        super::print(&ids.collect::<String>())?;
        return Ok(0);
    }
    let reports: Vec<Report> = containers.iter().filter_map(listed).collect();
    let text = match args.format {
        Format::Json => serde_json::to_string(&reports).context("write the list")? + "\n",
        Format::Table => table(&reports),
    };
    super::print(&text)?;
    Ok(0)
}

/// One that is removed meanwhile is left out, and so is one of which nothing is known, but not in silence.
fn listed(container: &Container) -> Option<Report<'_>> {
    match report(container) {
        Err(error) if container.damaged => {
            log::warn(&format!("{error:#}"));
            None
        }
        reported => reported.ok(),
    }
}

fn report(container: &Container) -> Result<Report<'_>> {
    let mut report = container.report(container.status()?);
    report.owner = Some(owner(container.state.owner));
    Ok(report)
}

fn owner(uid: u32) -> String {
    host::user_name(uid).unwrap_or_else(|| format!("#{uid}"))
}

fn table(reports: &[Report]) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_string);
    let row = |report: &Report| {
        let owner = report.owner.clone().unwrap_or_default();
        let (pid, bundle) = (report.pid.to_string(), report.bundle.display().to_string());
        [
            report.id.to_string(),
            pid,
            report.status.clone(),
            bundle,
            report.created.to_string(),
            owner,
        ]
        .map(|cell| log::printable(&cell))
    };
    let rows: Vec<[String; 6]> = std::iter::once(heading)
        .chain(reports.iter().map(row))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}
