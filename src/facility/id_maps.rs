//! Id maps of user namespaces: of the container's own, and of those that idmapped mounts need. Parent only.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::channel::Up;
use crate::facility::ns_files;
use crate::host::{self, Host};
use crate::plan::namespaces::{IdMap, Namespaces, is_single};
use crate::programs::output;
use crate::supervise;
use crate::sys::clone::{self, Side};
use crate::sys::{self, process, wait};
use crate::text::fault::Coded;

/// user_namespaces(7).
const MOST_LINES: usize = 340;
const PAGE: usize = 4096;

/// Writes the maps of a new user namespace, whose first process is `pid`.
pub fn write(pid: i32, host: &Host, uids: &[IdMap], gids: &[IdMap]) -> Result<()> {
    if host.euid == 0 {
        write_map(pid, "gid_map", gids)?;
        return write_map(pid, "uid_map", uids);
    }
    if is_single(gids, host.egid) {
        // user_namespaces(7): without privilege only after setgroups(2) is given up for good.
        write_file(pid, "setgroups", "deny")?;
        write_map(pid, "gid_map", gids)?;
    } else {
        map_by_helper("newgidmap", pid, gids)?;
    }
    if is_single(uids, host.euid) {
        write_map(pid, "uid_map", uids)
    } else {
        map_by_helper("newuidmap", pid, uids)
    }
}

/// A user namespace that holds nothing but its maps, for mount_setattr(2).
pub fn namespace(host: &Host, uids: &[IdMap], gids: &[IdMap]) -> Result<OwnedFd> {
    let (parent, child) = crate::channel::pair()?;
    match clone::clone3(clone::NEWUSER, None)? {
        Side::Child => {
            drop(parent);
            // Lives until the parent hangs up.
            child.receive().ok();
            process::exit(0)
        }
        Side::Parent { pid, pidfd } => {
            drop(child);
            let opened = write(pid, host, uids, gids).and_then(|()| {
                let path = format!("/proc/{pid}/ns/user");
                sys::io(File::open(&path)).with_context(|| format!("open {path}"))
            });
            drop(parent);
            wait::kill_and_reap(&pidfd);
            opened.map(OwnedFd::from)
        }
    }
}

/// Refuses maps in the config that are not those of the user namespace that it has the container join.
pub fn check_joined(plan: &Namespaces) -> Result<()> {
    let mapped = !plan.uids.is_empty() || !plan.gids.is_empty();
    let user = plan
        .join
        .iter()
        .find(|join| join.kind.flag == clone::NEWUSER);
    let Some(join) = user.filter(|_| mapped) else {
        return Ok(());
    };
    let path = &join.path;
    let opened = ns_files::open_path(join)?;
    let (uids, gids) = maps_of(&opened.into()).with_context(|| join.field.clone())?;
    for (field, asked, has) in [
        ("linux.uidMappings", &plan.uids, uids),
        ("linux.gidMappings", &plan.gids, gids),
    ] {
        let (mut asked, mut has) = (asked.clone(), has);
        asked.sort_by_key(|map| map.container);
        has.sort_by_key(|map| map.container);
        ensure!(
            asked == has,
            "{field}: [{}]: the user namespace {path:?} of {} has [{}]; give the same, or none",
            in_words(&asked),
            join.field,
            in_words(&has)
        );
    }
    Ok(())
}

fn in_words(maps: &[IdMap]) -> String {
    let words = maps
        .iter()
        .map(|map| format!("{} {} {}", map.container, map.host, map.size));
    words.collect::<Vec<_>>().join(", ")
}

/// The kernel shows the maps of a namespace through a process in it only: one goes there and waits.
fn maps_of(namespace: &OwnedFd) -> Result<(Vec<IdMap>, Vec<IdMap>)> {
    let (parent, child) = crate::channel::pair()?;
    match clone::clone3(0, None)? {
        Side::Child => {
            drop(parent);
            // The processes in there must not be able to look into this one.
            let joined =
                process::set_dumpable(false).and_then(|()| clone::setns(namespace, clone::NEWUSER));
            let word = joined.map_or_else(|error| Up::Failed(Coded::of(&error)), |()| Up::Ready);
            child.send(word).ok();
            // Lives until the parent hangs up.
            child.receive().ok();
            process::exit(0)
        }
        Side::Parent { pid, pidfd } => {
            drop(child);
            let joining = "join the user namespace";
            let maps = match supervise::recv_from_helper(&parent, (pid, &pidfd), joining) {
                Ok(Some(Up::Ready)) => {
                    read_map(pid, "uid_map").and_then(|uids| Ok((uids, read_map(pid, "gid_map")?)))
                }
                Ok(Some(Up::Failed(failure))) => Err(failure.into()),
                other => other.and_then(|_| bail!("the user namespace cannot be joined")),
            };
            drop(parent);
            wait::kill_and_reap(&pidfd);
            maps
        }
    }
}

/// Reads the map of a process's user namespace: `uid_map` or `gid_map`.
pub fn read_map(pid: i32, file: &str) -> Result<Vec<IdMap>> {
    let path = format!("/proc/{pid}/{file}");
    let text = sys::io(std::fs::read_to_string(&path)).with_context(|| format!("read {path}"))?;
    Ok(IdMap::parse_lines(&text))
}

fn write_map(pid: i32, file: &str, maps: &[IdMap]) -> Result<()> {
    // The kernel takes a map in one write only.
    let text = lines_of(maps);
    ensure!(
        maps.len() <= MOST_LINES && text.len() < PAGE,
        "{file}: {} lines of {} bytes: the kernel takes at most {MOST_LINES} lines of less than {PAGE} bytes; merge ranges",
        maps.len(),
        text.len()
    );
    write_file(pid, file, &text)
}

/// Returns the text that the kernel takes as a map, a line for each range.
pub fn lines_of(maps: &[IdMap]) -> String {
    let line = |map: &IdMap| format!("{} {} {}\n", map.container, map.host, map.size);
    maps.iter().map(line).collect()
}

fn write_file(pid: i32, file: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    let named = || format!("write {:?} to {path}", text.trim_end());
    sys::io(std::fs::write(&path, text)).with_context(named)
}

/// Where newuidmap(1) or newgidmap(1) is installed.
pub fn helper(program: &str) -> Option<PathBuf> {
    let places = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];
    let mut paths = places.iter().map(|place| Path::new(place).join(program));
    paths.find(|path| path.exists())
}

/// newuidmap(1) and newgidmap(1) may map what /etc/subuid and /etc/subgid grant the user.
fn map_by_helper(program: &str, pid: i32, maps: &[IdMap]) -> Result<()> {
    let Some(path) = helper(program) else {
        bail!(
            "{program}: not installed; mapping more than one's own id without privilege needs it; install it (package \
             uidmap), or map no id but one's own, {}",
            id_alone(program)
        );
    };
    let mut command = Command::new(&path);
    command
        .arg(pid.to_string())
        .args(words_of(maps))
        .env_clear();
    let output = output::output(&mut command)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        // It says its own name first, as does this error.
        let text = text.replace(&format!("{program}: "), "");
        let text = text.trim().replace('\n', " ");
        let asked = words_of(maps).join(" ");
        let file = format!("/etc/sub{}", &program[3..6]);
        bail!(
            "{program}: {text}: asked for {asked}, but {file} grants this user {}, and {path:?} has {}; grant the ids there",
            granted(&file),
            privilege(&path)
        );
    }
    Ok(())
}

/// The one line of the map that the kernel takes without a helper.
fn id_alone(program: &str) -> String {
    let (field, id) = match program {
        "newgidmap" => ("gidMappings", nix::unistd::getegid().as_raw()),
        _ => ("uidMappings", nix::unistd::geteuid().as_raw()),
    };
    format!("with a size of 1: linux.{field}[0].hostID: {id}")
}

fn words_of(maps: &[IdMap]) -> Vec<String> {
    let numbers = maps
        .iter()
        .flat_map(|map| [map.container, map.host, map.size]);
    numbers.map(|id| id.to_string()).collect()
}

fn granted(file: &str) -> String {
    let uid = nix::unistd::getuid().as_raw();
    let text = std::fs::read_to_string(file).unwrap_or_default();
    granted_in(&text, uid, host::user_name(uid).as_deref())
}

/// Returns the ranges that the text of subuid(5) grants a user, by name or number; "nothing" if there are none.
pub fn granted_in(text: &str, uid: u32, name: Option<&str>) -> String {
    let is_own = |line: &&str| {
        let user = line.split(':').next();
        user == name || user == Some(&uid.to_string())
    };
    let ranges = text
        .lines()
        .filter(is_own)
        .filter_map(|line| line.split_once(':'));
    let ranges: Vec<&str> = ranges.map(|(_, range)| range).collect();
    if ranges.is_empty() {
        "nothing".to_string()
    } else {
        ranges.join(", ")
    }
}

/// It needs one of both, to write maps of others.
fn privilege(program: &Path) -> &'static str {
    let mode = std::fs::metadata(program).map_or(0, |meta| meta.permissions().mode());
    match mode & libc::S_ISUID {
        0 => "no setuid bit (file capabilities may do instead)",
        _ => "its setuid bit",
    }
}
