//! What is known of a container after the command that made it has ended: a directory below the root.
//!
//! `state` holds one record a line, each complete in itself; the last good line counts. The first is
//! written before anything is made, so that whatever a killed creator leaves behind can be found and
//! removed. Its creator holds a lock on the file for as long as it lives. `cgroup` is a link whose text
//! names the container's cgroup, apart from the records so that it outlives damage to them. `gate` is the
//! socket on which a created container waits to be started. Nothing here says running or stopped:
//! [`Status`] is asked from the kernel each time.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::socket::SockType;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::fault::coded;
use crate::plan::Plan;
use crate::plan::exec::{self, Saved};
use crate::plan::hooks::Hooks;
use crate::plan::rdt::Groups;
use crate::plan::seccomp::Notify;
use crate::sys::{self, process, socket};

const STATE: &str = "state";
const GATE: &str = "gate";
const CGROUP: &str = "cgroup";
const CONFIG: &str = "config";
/// Numbers of mounts that were added while the container ran.
pub const MOUNTS: &str = "mounts";

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct State {
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
    /// Groups of resctrl that its processes are in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdt: Option<Groups>,
    /// Where a container without a mount namespace has mounted something in the caller's, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts_in_place: Vec<PathBuf>,
    /// Killing its init then kills every process of the container.
    pub private_pids: bool,
    pub hooks: Hooks,
    /// Who gets the listener of the seccomp filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<Notify>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

/// All containers of one root directory.
pub struct Store {
    root: PathBuf,
}

pub struct Container {
    pub dir: PathBuf,
    pub state: State,
    /// Whether no record can be read although there was one.
    pub damaged: bool,
}

/// The place of a container being made; removed on drop unless kept.
pub struct Slot {
    pub dir: PathBuf,
    inode: u64,
    records: File,
    kept: bool,
}

/// What `state`, `list` and hooks are told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: String,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl Store {
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn new(root: PathBuf) -> Store {
        Store { root }
    }

    /// Takes the id: of all that ask at once, one gets it.
    pub fn claim(&self, id: &str) -> Result<Slot> {
        check_id(id)?;
        make_root(&self.root)?;
        let dir = self.root.join(id);
        match DirBuilder::new().mode(0o711).create(&dir) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!(coded(
                    "container-exists",
                    format!("container with given ID already exists: {id}")
                ));
            }
            made => {
                sys::io(made).with_context(|| format!("make the container's directory {dir:?}"))?
            }
        }
        let opened = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(dir.join(STATE))
            .and_then(|records| Ok((records, std::fs::metadata(&dir)?.ino())));
        match opened {
            Ok((records, inode)) => {
                let slot = Slot {
                    dir,
                    inode,
                    records,
                    kept: false,
                };
                slot.lock()?;
                Ok(slot)
            }
            Err(error) => {
                forget(&dir).ok();
                sys::io(Err(error))
                    .with_context(|| format!("make the state of the container in {dir:?}"))
            }
        }
    }

    pub fn find(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let dir = self.root.join(id);
        let text = match std::fs::read(dir.join(STATE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let text = format!("container does not exist: {id}");
                ensure!(dir.is_dir(), coded("container-unknown", text));
                Vec::new()
            }
            failed => sys::io(failed).with_context(|| format!("read the state of {id}"))?,
        };
        let record = last_record(&String::from_utf8_lossy(&text), id);
        let nothing_yet = text.is_empty() && dir.join(CGROUP).symlink_metadata().is_err();
        let damaged = record.is_none() && !nothing_yet;
        let state = record.unwrap_or_else(|| State {
            id: id.to_string(),
            ..State::default()
        });
        Ok(Container {
            dir,
            state,
            damaged,
        })
    }

    /// All of them by name; one that vanishes meanwhile is left out.
    pub fn list(&self) -> Result<Vec<Container>> {
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => sys::io(entries).with_context(|| format!("--root: read {:?}", self.root))?,
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        Ok(ids.iter().filter_map(|id| self.find(id).ok()).collect())
    }
}

impl Container {
    pub fn status(&self) -> Result<Status> {
        let record = self.dir.join(STATE);
        ensure!(
            !self.damaged,
            "{record:?}: is damaged; end and remove what is left with \"delete --force\""
        );
        if self.state.pid == 0 {
            let status = if self.is_being_created()? {
                Status::Creating
            } else {
                Status::Stopped
            };
            return Ok(status);
        }
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        if let Some(cgroup) = self.cgroup()?
            && cgroup.is_frozen()?
        {
            return Ok(Status::Paused);
        }
        Ok(if self.is_at_gate() {
            Status::Created
        } else {
            Status::Running
        })
    }

    /// The init process, if it is still the one that was made: the same boot, number and start time.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        if self.state.pid == 0 || self.state.boot_id != boot_id()? {
            return Ok(None);
        }
        let pidfd = match process::pidfd_open(self.state.pid) {
            // EINVAL: the number belongs to a thread now.
            Err(error) if matches!(sys::errno(&error), Some(Errno::ESRCH | Errno::EINVAL)) => {
                return Ok(None);
            }
            opened => opened?,
        };
        // Compared after the pidfd was opened, so that what was compared is what it refers to.
        let alive = start_time(self.state.pid) == Some(self.state.start_time)
            && !process::has_ended(&pidfd);
        Ok(alive.then_some(pidfd))
    }

    pub fn cgroup(&self) -> Result<Option<Cgroup>> {
        let Ok(link) = std::fs::read_link(self.dir.join(CGROUP)) else {
            return Ok(None);
        };
        let text = link.to_string_lossy();
        let claim = text
            .split_once(':')
            .and_then(|(inode, path)| Some((inode.parse().ok()?, path)));
        let (inode, path) =
            claim.with_context(|| format!("{:?}: damaged: {text}", self.dir.join(CGROUP)))?;
        Cgroup::open(Path::new(path), inode)
    }

    /// What was kept of the config: later changes to the bundle have no effect.
    pub fn saved(&self) -> Result<Saved> {
        let file = self.dir.join(CONFIG);
        let text = sys::io(std::fs::read(&file)).with_context(|| format!("read {file:?}"))?;
        serde_json::from_slice(&text).with_context(|| format!("read {file:?}"))
    }

    /// A connection to an init that waits to be started.
    pub fn gate(&self) -> Result<OwnedFd> {
        socket::connect_to(&self.dir.join(GATE), SockType::SeqPacket)
    }

    /// Nobody listens any more.
    pub fn close_gate(&self) -> Result<()> {
        sys::io(gone_is_fine(std::fs::remove_file(self.dir.join(GATE)))).context("remove the gate")
    }

    /// init listens until it executes its program; a connection that says nothing does not disturb it.
    fn is_at_gate(&self) -> bool {
        match self.gate() {
            Ok(_) => true,
            // The queue of connections is full.
            Err(error) => sys::errno(&error) == Some(Errno::EAGAIN),
        }
    }

    fn is_being_created(&self) -> Result<bool> {
        let records = match File::open(self.dir.join(STATE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => {
                sys::io(opened).with_context(|| format!("open the state of {}", self.state.id))?
            }
        };
        let mut lock = write_lock();
        fcntl(&records, FcntlArg::F_GETLK(&mut lock)).context("query the lock of the state")?;
        Ok(lock.l_type != libc::F_UNLCK as i16)
    }

    /// Takes the record away, last of all.
    pub fn forget(&self) -> Result<()> {
        sys::io(forget(&self.dir)).with_context(|| format!("remove {:?}", self.dir))
    }

    pub fn report(&self, status: Status) -> Report<'_> {
        let pid = if status == Status::Stopped {
            0
        } else {
            self.state.pid
        };
        report(&self.state, status, pid)
    }
}

impl Slot {
    /// Adds a record; from now on it is the container's state.
    ///
    /// Not synced to the disk: after a power loss nothing of the container is left but this record,
    /// and any record, even a damaged one, can be deleted.
    pub fn save(&mut self, state: &State) -> Result<()> {
        let mut line = serde_json::to_vec(state).context("write the state")?;
        line.push(b'\n');
        sys::io(self.records.write_all(&line))
            .with_context(|| format!("write the state in {:?}", self.dir))
    }

    /// Keeps what `exec` will need, apart from the records that every command reads.
    pub fn save_config(&self, bundle: &Bundle, plan: &Plan) -> Result<()> {
        let linux = bundle.spec.linux().as_ref();
        let saved = exec::Keep {
            process: bundle.spec.process().as_ref(),
            linux: exec::KeepLinux {
                seccomp: linux.and_then(|linux| linux.seccomp().as_ref()),
                personality: linux.and_then(|linux| linux.personality().as_ref()),
                memory_policy: linux.and_then(|linux| linux.memory_policy().as_ref()),
                mount_label: linux.and_then(|linux| linux.mount_label().as_deref()),
            },
            keyring: plan.process.keyring.as_deref(),
        };
        let text = serde_json::to_vec(&saved).context("write the config")?;
        let file = self.dir.join(CONFIG);
        sys::io(std::fs::write(&file, text)).with_context(|| format!("write {file:?}"))
    }

    /// Says that this cgroup, by its inode and no other, is the container's.
    pub fn claim_cgroup(&self, cgroup: &Cgroup) -> Result<()> {
        let text = format!("{}:{}", cgroup.inode()?, cgroup.path.display());
        let made = std::os::unix::fs::symlink(text, self.dir.join(CGROUP));
        sys::io(made).with_context(|| format!("note the cgroup in {:?}", self.dir))
    }

    /// The socket on which the container's init will wait for `start`.
    pub fn listen(&self) -> Result<OwnedFd> {
        socket::listen_at(&self.dir.join(GATE))
    }

    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Released by the kernel when this process ends; not inherited by the container's init (fcntl(2)).
    fn lock(&self) -> Result<()> {
        let lock = write_lock();
        fcntl(&self.records, FcntlArg::F_SETLK(&lock)).context("lock the state")?;
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Another container may have the id by now, if somebody deleted this one by force.
        let same = std::fs::metadata(&self.dir).is_ok_and(|meta| meta.ino() == self.inode);
        if !self.kept && same {
            forget(&self.dir).ok();
        }
    }
}

impl State {
    /// Fills in the process that init is now.
    pub fn set_init(&mut self, pid: i32) -> Result<()> {
        self.start_time =
            start_time(pid).with_context(|| format!("read the start time of process {pid}"))?;
        self.pid = pid;
        Ok(())
    }
}

pub fn report(state: &State, status: Status, pid: i32) -> Report<'_> {
    Report {
        oci_version: &state.oci_version,
        id: &state.id,
        pid,
        status: status.to_string(),
        bundle: &state.bundle,
        rootfs: &state.rootfs,
        created: &state.created,
        annotations: &state.annotations,
        owner: None,
    }
}

impl Report<'_> {
    /// As hooks get it on standard input.
    pub fn line(&self) -> Result<String> {
        serde_json::to_string(self).context("write the state")
    }

    /// As people read it.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("write the state")
    }
}

pub fn boot_id() -> Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    let text = sys::io(std::fs::read_to_string(file)).with_context(|| format!("read {file}"))?;
    Ok(text.trim().to_string())
}

/// proc_pid_stat(5), field 22.
fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    fields.get(19)?.parse().ok()
}

fn check_id(id: &str) -> Result<()> {
    ensure!(!id.is_empty(), "container id cannot be empty");
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let valid = id.bytes().all(allowed) && id != "." && id != ".." && id.len() <= 255;
    ensure!(
        valid,
        "invalid container ID format: {id:?}: use at most 255 of the characters A-Z a-z 0-9 _ + - ."
    );
    Ok(())
}

fn make_root(root: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
    sys::io(made).with_context(|| format!("--root: make {root:?}"))
}

fn last_record(text: &str, id: &str) -> Option<State> {
    let complete = &text[..text.rfind('\n')?];
    let records = complete
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str(line).ok());
    records.into_iter().find(|record: &State| record.id == id)
}

fn forget(dir: &Path) -> std::io::Result<()> {
    for name in [GATE, CGROUP, CONFIG, MOUNTS, STATE] {
        gone_is_fine(std::fs::remove_file(dir.join(name)))?;
    }
    gone_is_fine(std::fs::remove_dir(dir))
}

fn gone_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complete_and_readable_record_counts() {
        let state = |pid| State {
            id: "c".to_string(),
            pid,
            ..State::default()
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

    #[test]
    fn ids_are_checked() {
        for id in ["a", "A-b_c.d+e", "-x", "..."] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "a:b", "ä", &"x".repeat(256)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn start_times_tell_processes_apart() {
        let own = std::process::id() as i32;
        assert!(start_time(own).is_some_and(|time| time > 0));
        assert_eq!(start_time(i32::MAX), None);
    }
}
