//! `mounts`: adds, removes and lists the mounts of a running container.
//!
//! An entry is planned as one of the config is, and performed by a process that joins the container
//! with its trees already opened. Only what was added can be removed: its numbers are noted in the
//! container's directory.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::setsid;
use oci_spec::runtime::Mount;
use serde_json::{Value, json};

use super::exec::{foreign_namespaces, is_ending};
use crate::bundle::Bundle;
use crate::channel::{self, Up};
use crate::cli::args::{self, MountsAction};
use crate::host::Host;
use crate::init::hotplug::{self, Site};
use crate::init::relay::Target;
use crate::init::trees::Trees;
use crate::lifecycle::bind_sources;
use crate::plan::mounts::{self, Mounts, clean};
use crate::plan::namespaces::{IdMap, Namespaces};
use crate::plan::step::{Step, Tree};
use crate::state::container::{Container, MOUNTS, Status, Store};
use crate::sys::clone::{self, Side};
use crate::sys::{self, again, caller_file, named, process, wait};
use crate::text::fault::Coded;
use crate::text::log::{self, printable};
use crate::{protect, supervise};

/// The work of the process that joins the container, in messages.
const JOINING: &str = "change the mounts of the container";

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
        MountsAction::Add => add(args, &container),
        MountsAction::Remove => remove(args, &container),
        MountsAction::List => list(container.state.pid).and_then(|text| super::print(&text)),
    };
    match done {
        // The kernel gives all kinds of errors for a process that ends.
        Err(_) if is_ending(&container) => bail!(STOPPED),
        done => done.map(|()| 0),
    }
}

const STOPPED: &str = "a stopped container has no mounts";

fn add(args: &args::Mounts, container: &Container) -> Result<()> {
    let entries = entries(args)?;
    let host = Host::probe()?;
    let (mut target, site) = open(container)?;
    let plan = plan(&entries, container, &host, target.flags)?;
    plan.warnings.iter().for_each(|warning| log::warn(warning));
    let steps: Vec<Step> = plan.steps.into_iter().chain(plan.seals).collect();
    steps.iter().for_each(|step| log::debug(&step.to_string()));
    // Who may not open mounts here may do so in a copy that belongs to the container's user namespace.
    let has_user = target.flags & clone::NEWUSER != 0;
    let joins_first = host.euid != 0 && has_user;
    let mut opened = Vec::new();
    if has_user && !joins_first {
        opened = open_locked(&plan.trees, container, &host)?;
    }
    inside(|| {
        if joins_first {
            target = target.in_its_user_namespace()?;
        }
        if opened.len() < plan.trees.len() {
            // Not in the host's mount namespace: a mount namespace that is kept in a file there cannot be attached in an older one.
            clone::unshare(clone::NEWNS)?;
            opened = bind_sources::open(&plan.trees, &host)?;
        }
        target.enter()?;
        hotplug::add(&steps, Trees::opened(opened), site)
    })
}

/// With the locks that the kernel gives a copy of the host's mounts that belongs to the container's user
/// namespace: a process makes that copy, and holds it while another opens the trees in there.
fn open_locked(trees: &[Tree], container: &Container, host: &Host) -> Result<Vec<OwnedFd>> {
    let (target, _) = open(container)?;
    let (parent, child) = channel::pair()?;
    let Side::Parent { pid, pidfd: holder } = clone::clone3(0, None)? else {
        drop(parent);
        let copied = target
            .in_its_user_namespace()
            .and_then(|_| clone::unshare(clone::NEWNS));
        child.send(answer(copied)).ok();
        // Until the parent hangs up.
        child.receive().ok();
        process::exit(0)
    };
    drop(child);
    understood(supervise::recv_from_helper(
        &parent,
        (pid, &holder),
        JOINING,
    ))?;
    let (coming, to) = bind_sources::coming(trees.len())?;
    let opener = bind_sources::send(trees, None, host, (pid, &holder), to)?;
    let opened = coming.all();
    drop(parent);
    wait::kill_and_reap(&opener);
    wait::kill_and_reap(&holder);
    opened
}

fn remove(args: &args::Mounts, container: &Container) -> Result<()> {
    let mut targets: Vec<PathBuf> = args.paths.iter().map(PathBuf::from).collect();
    if args.config.is_some() {
        let entries = entries(args)?;
        // What was mounted last may lie on what was mounted first.
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
    let targets: Vec<PathBuf> = targets.iter().map(|target| clean(target)).collect();
    let added = added(container)?;
    let (target, site) = open(container)?;
    inside(|| {
        target.enter()?;
        hotplug::remove(&targets, &added, &site)
    })
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
    let mut options = mounts::split(&args.options);
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

fn plan(entries: &[Mount], container: &Container, host: &Host, flags: u64) -> Result<Mounts> {
    let state = &container.state;
    let config = json!({
        "ociVersion": state.oci_version,
        "mounts": entries,
        "linux": container.saved()?.linux,
        "annotations": state.annotations,
    });
    let bundle = Bundle::of_process(state.bundle.clone(), &config)?;
    let mut namespaces = Namespaces {
        enter: flags,
        ..Namespaces::default()
    };
    if flags & clone::NEWUSER != 0 {
        namespaces.uids = id_map(state.pid, "uid_map")?;
        namespaces.gids = id_map(state.pid, "gid_map")?;
    }
    let plan = mounts::mounts(&bundle, host, &namespaces)?;
    let remount = plan
        .steps
        .iter()
        .find(|step| matches!(step, Step::Remount(_)));
    match remount {
        Some(step) => bail!("{step}: what is mounted cannot be changed while the container runs"),
        None => Ok(plan),
    }
}

/// The maps of the container's user namespace, as idmapped mounts may want them.
fn id_map(pid: i32, file: &str) -> Result<Vec<IdMap>> {
    Ok(id_map_in(&read_proc(pid, file)?))
}

pub fn id_map_in(text: &str) -> Vec<IdMap> {
    let map = |line: &str| {
        let fields: Vec<u32> = line
            .split_whitespace()
            .filter_map(|field| field.parse().ok())
            .collect();
        match fields[..] {
            [container, host, size] => Some(IdMap {
                container,
                host,
                size,
            }),
            _ => None,
        }
    };
    text.lines().filter_map(map).collect()
}

/// Returns the namespaces to join, and the files that must be opened while the host's paths are in reach.
///
/// The pid namespace is not joined: processes of the container could see this one there.
fn open(container: &Container) -> Result<(Target, Site)> {
    let pid = container.state.pid;
    let all = foreign_namespaces(pid, 0)?;
    let flags = all & !clone::NEWPID;
    let namespace = || sys::io(File::open(format!("/proc/{pid}/ns/pid")));
    let pid_namespace = (all != flags).then(namespace).transpose();
    ensure!(
        flags & clone::NEWNS != 0,
        "the container has no mount namespace of its own; mount on the host"
    );
    let flag = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let path = format!("/proc/{pid}/root");
    let root = named(
        again(|| nix::fcntl::open(path.as_str(), flag, Mode::empty())),
        || format!("open({path:?})"),
    )?;
    let appended = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
    let record =
        sys::io(container.dir.file(MOUNTS, appended)).context("open the record of added mounts")?;
    let site = Site {
        root,
        proc: hotplug::procfs()?,
        pid_namespace: pid_namespace
            .context("open the container's pid namespace")?
            .map(OwnedFd::from),
        record: record.into(),
    };
    // Asked last: then all that was opened by number is of this process.
    let pidfd = container.init()?.context(STOPPED)?;
    Ok((Target { pidfd, flags }, site))
}

fn added(container: &Container) -> Result<Vec<u64>> {
    let text = container.dir.read(MOUNTS).unwrap_or_default();
    Ok(String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect())
}

/// Lets a process of its own do something, and gives its error.
fn inside(act: impl FnOnce() -> Result<()>) -> Result<()> {
    process::keep_children();
    let (parent, child) = channel::pair()?;
    if let Side::Parent { pid, pidfd } = clone::clone3(0, None)? {
        drop(child);
        let said = supervise::recv_from_helper(&parent, (pid, &pidfd), JOINING);
        wait::kill_and_reap(&pidfd);
        return understood(said);
    }
    drop(parent);
    protect::let_go_of_mount();
    // What ends the command from the terminal does not end this half-way.
    setsid().ok();
    child.send(answer(act())).ok();
    process::exit(0)
}

fn answer(done: Result<()>) -> Up {
    match done {
        Ok(()) => Up::Ready,
        Err(error) => Up::Failed(Coded::of(&error)),
    }
}

fn understood(answer: Result<Option<Up>>) -> Result<()> {
    match answer? {
        Some(Up::Ready) => Ok(()),
        Some(Up::Failed(text)) => bail!(text),
        other => bail!("the process that joined the container ended early: {other:?}"),
    }
}

fn list(pid: i32) -> Result<String> {
    let text = read_proc(pid, "mountinfo")?;
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
    Ok(rows.iter().map(line).collect())
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

fn read_proc(pid: i32, file: &str) -> Result<String> {
    let path = Path::new("/proc").join(pid.to_string()).join(file);
    sys::io(std::fs::read_to_string(&path)).with_context(|| format!("read {path:?}"))
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
