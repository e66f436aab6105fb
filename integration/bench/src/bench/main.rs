//! Measures container runtimes: `bench measure` writes a report as Markdown, JSON and SVG, `bench count` is its helper.
//! `bench order` finds out how the program is best laid out.
//! Runs as root in a mount namespace of its own, which run.sh makes. The story of a measurement is in `measure`.

mod bpf;
mod calls;
mod config;
mod count;
mod equal;
mod filter;
mod machine;
mod measure;
mod names;
mod order;
mod plot;
mod report;
mod rootfs;
mod rounds;
mod runtime;
mod scale;
mod stats;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "Measures container runtimes against each other and against what the kernel needs"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure, and write report.md, report.json and plot.svg
    Measure(Settings),
    /// Write a linker script with the functions that commands call, for a program that has its names
    Order(Settings),
    /// Count what one command asks of the kernel
    Count { words: Vec<String> },
}

#[derive(clap::Args)]
pub struct Settings {
    /// The runtime that the others are compared with, as NAME=PATH; its programs floor and probe are beside this one
    #[arg(long)]
    pub subject: String,
    /// Another runtime, as NAME=PATH
    #[arg(long)]
    pub peer: Vec<String>,
    /// A runtime that is left out, as NAME=REASON
    #[arg(long)]
    pub left_out: Vec<String>,
    /// Directory of the repository
    #[arg(long)]
    pub repository: PathBuf,
    /// An empty directory on a tmpfs
    #[arg(long)]
    pub work: PathBuf,
    /// Where the report goes, or the script
    #[arg(long)]
    pub out: PathBuf,
    /// Seconds for all, about
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// Fewest rounds of a row
    #[arg(long, default_value_t = 20)]
    pub rounds: usize,
    /// Only variants of these names; `scale` is what takes many containers
    #[arg(long)]
    pub variant: Vec<String>,
}

fn main() {
    let done = match Arguments::parse().command {
        Command::Measure(settings) => measure::measure(&settings),
        Command::Order(settings) => order::order(&settings),
        Command::Count { words } => count::count(&words),
    };
    if let Err(error) = done {
        eprintln!("bench: {error:#}");
        std::process::exit(1);
    }
}
