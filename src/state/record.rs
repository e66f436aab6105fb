//! The record of a container: what later commands need to know of it.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};

use crate::plan::hooks::Hooks;
use crate::plan::rdt::Groups;
use crate::plan::seccomp::Notify;
use crate::state::state_dir::{RDT, STATE, StateDir};
use crate::sys;
use crate::sys::stat::Stat;
use crate::systemd::scope::Unit;

/// A line of the file `state`: the facts about a container. Nothing here says running or stopped.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Record {
    pub id: String,
    pub oci_version: String,
    /// 0 until the container is created.
    pub pid: i32,
    /// Of the init process, in clock ticks after boot: tells it from a later one with its number.
    pub start_time: u64,
    pub boot_id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    pub created: String,
    pub owner: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// As planned; it is this container's once the link `cgroup` says so.
    pub cgroup: Option<PathBuf>,
    /// The scope of systemd that the cgroup is, and how systemd is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// It was asked to stay in its caller's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cgroup: bool,
    /// Groups of resctrl that its processes are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdt: Option<Groups>,
    /// Where a container without a mount namespace has mounted something in the caller's, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts_in_place: Vec<PathBuf>,
    /// Its init was told to start before it was ready: the program runs as soon as it has been executed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_once: bool,
    /// Killing its init then kills every process of the container.
    pub private_pids: bool,
    pub hooks: Hooks,
    /// How long the startContainer hooks may take together, in seconds. None if one of them has no timeout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_seconds: Option<u64>,
    /// Who gets the listener of the seccomp filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
}

impl Record {
    /// Returns how long the hooks of the start may take. None: for ever.
    pub fn start_limit(&self) -> Option<Duration> {
        self.start_seconds.map(Duration::from_secs)
    }

    /// Fills in the process that init is now.
    pub fn set_init(&mut self, pid: i32) -> Result<()> {
        let time = Stat::of(pid)?.and_then(|stat| stat.start_time());
        self.start_time = time.with_context(|| format!("read the start time of process {pid}"))?;
        self.pid = pid;
        Ok(())
    }
}

pub fn boot_id() -> Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    let text = sys::io(sys::read_text(file)).with_context(|| format!("read {file}"))?;
    Ok(text.trim().to_string())
}

pub fn last_record(text: &str, id: &str) -> Option<Record> {
    let complete = &text[..text.rfind('\n')?];
    let records = complete
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str(line).ok());
    records.into_iter().find(|record: &Record| record.id == id)
}

/// Returns the facts that are noted beside the records, for a container whose records are lost.
pub fn without_record(dir: &StateDir, id: &str) -> Record {
    let link = dir.link(RDT).ok().flatten().unwrap_or_default();
    let (boot_id, groups) = link.split_once(':').unwrap_or_default();
    Record {
        id: id.to_string(),
        boot_id: boot_id.to_string(),
        rdt: serde_json::from_str(groups).ok(),
        ..Record::default()
    }
}

/// Reads the file of records. Anything but a regular file of at most 64 MiB counts as damaged.
pub fn read_records(dir: &StateDir) -> Result<Vec<u8>> {
    const LONGEST: u64 = 64 << 20;
    let damaged = || Ok(b"?".to_vec());
    let opened = match dir.file(STATE, OFlag::O_RDONLY) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return damaged(),
        opened => sys::io(opened)?,
    };
    let meta = sys::io(opened.metadata())?;
    if !meta.is_file() || meta.len() > LONGEST {
        return damaged();
    }
    // What most records need, in one read.
    let mut text = Vec::with_capacity(4 << 10);
    sys::io(opened.take(LONGEST).read_to_end(&mut text))?;
    Ok(text)
}

/// Returns the process that has locked the records to make the container, which is 0 if it is in a pid namespace above. None if
/// there is none. Closes the file, which ends this process's own lock of it (fcntl(2)).
pub fn creator(dir: &StateDir) -> Result<Option<i32>> {
    let records = match dir.file(STATE, OFlag::O_RDONLY) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => sys::io(opened).with_context(|| format!("open the state in {:?}", dir.path))?,
    };
    let mut lock = write_lock();
    fcntl(&records, FcntlArg::F_GETLK(&mut lock)).context("query the lock of the state")?;
    Ok((lock.l_type != libc::F_UNLCK as i16).then_some(lock.l_pid))
}

pub fn write_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_and_readable_record_counts() {
        let state = |pid| Record {
            id: "c".to_string(),
            pid,
            ..Record::default()
        };
        let record = |pid| serde_json::to_string(&state(pid)).unwrap();
        let (intent, created) = (record(0), record(7));
        let pid = |text: &str| last_record(text, "c").map(|record| record.pid);
        assert_eq!(pid(&format!("{intent}\n{created}\n")), Some(7));
        assert_eq!(pid(&format!("{intent}\n{created}")), Some(0));
        assert_eq!(pid(&format!("{created}\n{{\"pid\":\n")), Some(7));
        for damaged in ["", "\n", "{}\n", "null\n", &created, "\0\n"] {
            assert_eq!(pid(damaged), None, "{damaged:?}");
        }
    }
}
