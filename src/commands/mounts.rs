//! `mounts`: adds, removes and lists the mounts of a running container.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::Mount;
use serde_json::{Value, json};

use crate::cli::args::{self, MountsAction};
use crate::lifecycle::mounts::{self, STOPPED};
use crate::plan::mounts::split;
use crate::protect;
use crate::state::container::Status;
use crate::state::store::Store;
use crate::sys::{self, caller_file};
use crate::text::log::printable;

pub fn run(args: &args::Mounts, store: &Store) -> Result<i32> {
    match args.action {
        MountsAction::List => ensure!(
            args.paths.is_empty() && args.config.is_none(),
            "mounts list: takes no path and no --config"
        ),
        MountsAction::Add | MountsAction::Remove => protect::protect()?,
    }
    let container = store.find(&args.id)?;
    match container.status()? {
        Status::Stopped => bail!(STOPPED),
        Status::Creating => bail!("the mounts of the container are still being made"),
        Status::Created | Status::Running | Status::Paused => {}
    }
    let done = match args.action {
        MountsAction::Add => entries(args).and_then(|entries| mounts::add(&entries, &container)),
        MountsAction::Remove => {
            targets(args).and_then(|targets| mounts::remove(&targets, &container))
        }
        MountsAction::List => {
            mounts::mountinfo(container.state.pid).and_then(|text| super::print(&list(&text)))
        }
    };
    match done {
        // The kernel gives all kinds of errors for a process that ends.
        Err(_) if container.is_ending() => bail!(STOPPED),
        done => done.map(|()| 0),
    }
}

/// Returns the destinations to remove: those of the command line, or of the file, the last one first.
fn targets(args: &args::Mounts) -> Result<Vec<PathBuf>> {
    let mut targets: Vec<PathBuf> = args.paths.iter().map(PathBuf::from).collect();
    if args.config.is_some() {
        let entries = entries(args)?;
        // A later mount may lie on an earlier one.
        targets = entries
            .iter()
            .rev()
            .map(|entry| entry.destination().clone())
            .collect();
    }
    ensure!(
        !targets.is_empty(),
        "mounts remove: no destination given; give one after the ID, or --config"
    );
    Ok(targets)
}

/// The entries of the file, or the one of the command line.
fn entries(args: &args::Mounts) -> Result<Vec<Mount>> {
    let Some(file) = &args.config else {
        return Ok(vec![serde_json::from_value(entry(args)?)?]);
    };
    ensure!(
        args.paths.is_empty(),
        "--config: the file says what to {}; leave the paths out",
        if args.action == MountsAction::Add {
            "add"
        } else {
            "remove"
        }
    );
    let read = match file.to_str() {
        Some("-") => sys::read_all(std::io::stdin().lock()),
        _ => caller_file::read(file),
    };
    let text = read.with_context(|| format!("--config: read {file:?}"))?;
    let mut reader = serde_json::Deserializer::from_slice(&text);
    let entries: Vec<Mount> = serde_path_to_error::deserialize(&mut reader)
        .with_context(|| format!("--config: {}: must be an array as `mounts`", file.display()))?;
    Ok(entries)
}

fn entry(args: &args::Mounts) -> Result<Value> {
    let is_bind = args.kind == "bind";
    let (source, destination) = match args.paths.as_slice() {
        [source, destination] => (source.as_str(), destination),
        [destination] if !is_bind => (args.kind.as_str(), destination),
        _ => bail!(
            "mounts add: give SOURCE and DESTINATION after the ID; a new filesystem needs no SOURCE"
        ),
    };
    let mut options = split(&args.options);
    let mut source = PathBuf::from(source);
    if is_bind {
        let here = sys::io(std::env::current_dir()).context("find the current directory")?;
        source = here.join(source);
        if !options
            .iter()
            .any(|word| matches!(word.as_str(), "bind" | "rbind"))
        {
            options.push("rbind".to_string());
        }
    }
    Ok(json!({
        "destination": destination,
        "type": args.kind,
        "source": source,
        "options": options,
    }))
}

/// Returns the table of mounts, from the lines of mountinfo.
fn list(text: &str) -> String {
    let heading = ["DESTINATION", "SOURCE", "TYPE", "OPTIONS"].map(str::to_string);
    let rows: Vec<[String; 4]> = std::iter::once(heading)
        .chain(text.lines().filter_map(row))
        .collect();
    let width = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..4).map(width).collect();
    let line = |row: &[String; 4]| {
        let cells = row.iter().zip(&widths);
        let cells = cells.map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

/// proc_pid_mountinfo(5). Spaces in names stay escaped as the kernel has them; what could steer a terminal
/// is escaped here.
pub fn row(line: &str) -> Option<[String; 4]> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mount: Vec<&str> = mount.split(' ').collect();
    let [root, destination, own] = mount.get(3..6)? else {
        return None;
    };
    let filesystem: Vec<&str> = filesystem.split(' ').collect();
    let [kind, device, shared] = filesystem.get(..3)? else {
        return None;
    };
    let source = match *root {
        "/" => device.to_string(),
        part => format!("{device}[{part}]"),
    };
    let mut options: Vec<&str> = own.split(',').collect();
    options.extend(
        shared
            .split(',')
            .filter(|word| !matches!(*word, "ro" | "rw")),
    );
    options.extend(mount[6..].iter().filter_map(|field| propagation(field)));
    let options = options.join(",");
    Some([destination, source.as_str(), kind, &options].map(printable))
}

fn propagation(field: &str) -> Option<&'static str> {
    match field.split(':').next()? {
        "shared" => Some("shared"),
        "master" => Some("slave"),
        "unbindable" => Some("unbindable"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(paths: &[&str], kind: &str, options: &str) -> args::Mounts {
        args::Mounts {
            action: MountsAction::Add,
            id: "c".to_string(),
            paths: paths.iter().map(ToString::to_string).collect(),
            kind: kind.to_string(),
            options: options.to_string(),
            config: None,
        }
    }

    #[test]
    fn the_command_line_makes_an_entry_as_in_a_config() {
        let made = entry(&args(&["/s", "/d"], "bind", "ro,,nosuid")).unwrap();
        assert_eq!(
            made,
            json!({"destination": "/d", "type": "bind", "source": "/s", "options": ["ro", "nosuid", "rbind"]})
        );
        let made = entry(&args(&["near", "/d"], "bind", "bind")).unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(made["source"], json!(here.join("near")));
        assert_eq!(made["options"], json!(["bind"]));
        let label = "context=\"u:r:t:s0:c1,c2\",mode=755";
        let made = entry(&args(&["/d"], "tmpfs", label)).unwrap();
        assert_eq!(made["source"], "tmpfs");
        let quoted = ["context=\"u:r:t:s0:c1,c2\"", "mode=755"];
        assert_eq!(made["options"], json!(quoted));
        for (paths, kind) in [
            (&["/d"][..], "bind"),
            (&[], "tmpfs"),
            (&["/a", "/b", "/c"], "bind"),
        ] {
            assert!(entry(&args(paths, kind, "")).is_err(), "{paths:?}");
        }
    }

    #[test]
    fn a_line_of_mountinfo_becomes_a_row() {
        let cases = [
            (
                "36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue",
                [
                    "/mnt\\0402",
                    "/dev/root[/mnt1]",
                    "ext3",
                    "rw,noatime,errors=continue,slave,shared",
                ],
            ),
            (
                "36 35 0:5 / /a\u{1b}[2J\u{202e} ro - tmpfs none ro",
                ["/a\\u{1b}[2J\\u{202e}", "none", "tmpfs", "ro"],
            ),
        ];
        for (line, cells) in cases {
            assert_eq!(row(line).unwrap(), cells);
        }
        for line in ["", "1 2 3 - tmpfs x rw", "1 2 3 4 5 6 - tmpfs"] {
            assert_eq!(row(line), None, "{line}");
        }
    }
}
