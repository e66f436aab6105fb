//! `list`: all containers below the root.

use anyhow::{Context, Result};
use nix::unistd::{Uid, User};

use crate::cli::{self, Format};
use crate::container::{Container, Report, Store};

pub fn run(args: &cli::List, store: &Store) -> Result<i32> {
    let containers = store.list()?;
    if args.quiet {
        containers.iter().for_each(|container| println!("{}", container.state.id));
        return Ok(0);
    }
    // One that is removed meanwhile is left out.
    let reports: Vec<Report> = containers.iter().filter_map(|container| report(container).ok()).collect();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string(&reports).context("write the list")?),
        Format::Table => print_table(&reports),
    }
    Ok(0)
}

fn report(container: &Container) -> Result<Report<'_>> {
    let mut report = container.report(container.status()?);
    report.owner = Some(owner(container.state.owner));
    Ok(report)
}

fn owner(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => format!("#{uid}"),
    }
}

fn print_table(reports: &[Report]) {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_string);
    let row = |report: &Report| {
        let owner = report.owner.clone().unwrap_or_default();
        let (pid, bundle) = (report.pid.to_string(), report.bundle.display().to_string());
        [report.id.to_string(), pid, report.status.clone(), bundle, report.created.to_string(), owner]
    };
    let rows: Vec<[String; 6]> = std::iter::once(heading).chain(reports.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
}
