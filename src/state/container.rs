//! What is known of a container after the command that made it has ended: a directory below the root.
//!
//! `state` holds one record a line, each complete in itself; the last good line counts. The first is
//! written before anything is made, so that whatever a killed creator leaves behind can be found and
//! removed. Its creator holds a lock on the file for as long as it lives. `cgroup` is a link whose text
//! names the container's cgroup, apart from the records so that it outlives damage to them; so does `rdt`.
//! `gate` is the socket on which a created container waits to be started. `poststop` and `deleted` say that
//! these have begun. Nothing here says running or stopped:
//! [`Status`] is asked from the kernel each time.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::SockType;
use regex_lite::Regex;
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::plan::exec::Saved;
use crate::plan::hooks::Hooks;
use crate::plan::rdt::Groups;
use crate::plan::seccomp::Notify;
use crate::state::document::{Report, report};
use crate::state::state_dir::StateDir;
use crate::state::{locks, root_dir};
use crate::sys::stat::{self, Stat};
use crate::sys::{self, process, wait};
use crate::systemd::scope::Unit;
use crate::text::fault::{Coded, coded};

pub const STATE: &str = "state";
/// For the end of an init that is about to end.
const EXIT_GRACE: Duration = Duration::from_millis(50);

pub const START_SOCKET: &str = "gate";
pub const CGROUP: &str = "cgroup";
pub const RDT: &str = "rdt";
pub const CONFIG: &str = "config";
pub const DELETED: &str = "deleted";
pub const POSTSTOP: &str = "poststop";
/// Numbers of mounts that were added while the container ran.
pub const MOUNTS: &str = "mounts";
/// In the order in which they are removed.
pub const NAMES: [&str; 8] = [
    START_SOCKET,
    CGROUP,
    RDT,
    CONFIG,
    MOUNTS,
    POSTSTOP,
    STATE,
    DELETED,
];

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
    pub dir: Rc<StateDir>,
    pub state: State,
    /// Whether no record can be read although there was one.
    pub damaged: bool,
    /// Numbers of processes and inodes begin anew with each boot: what has those of an earlier one is another's.
    pub of_this_boot: bool,
}

impl Store {
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn new(root: PathBuf) -> Store {
        Store { root }
    }

    /// Fails for a root in which others could have put anything.
    pub fn find(&self, id: &str) -> Result<Container> {
        root_dir::check(&self.root)?;
        self.look_up(id)
    }

    fn look_up(&self, id: &str) -> Result<Container> {
        check_id(id)?;
        let path = self.root.join(id);
        let dir = match StateDir::open(path.clone()) {
            // No link, no file: none of ours.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
                ) =>
            {
                bail!(coded(
                    "container-unknown",
                    format!("container does not exist: {id}")
                ));
            }
            opened => sys::io(opened).with_context(|| format!("--root: open {path:?}"))?,
        };
        root_dir::check_record(&dir)?;
        // The link comes after the first record and goes before the last: without one it is there before and after.
        let claimed = dir.has(CGROUP);
        let text = match read_records(&dir) {
            Err(error) if sys::errno(&error) == Some(Errno::ENOENT) => {
                check_own(&dir.path)?;
                Vec::new()
            }
            read => read.with_context(|| format!("read the state of {id}"))?,
        };
        let record = last_record(&String::from_utf8_lossy(&text), id);
        if record.is_none() && !dir.is_there() {
            // Removed meanwhile; another may have the id.
            return self.look_up(id);
        }
        let lost = || claimed && dir.has(CGROUP) && !locks::is_removal_underway(&dir);
        let damaged = record.is_none() && (!text.is_empty() || lost());
        let state = record.unwrap_or_else(|| without_record(&dir, id));
        let of_this_boot = state.boot_id.is_empty() || state.boot_id == boot_id()?;
        Ok(Container {
            dir: Rc::new(dir),
            state,
            damaged,
            of_this_boot,
        })
    }

    /// The one with this name, or with `regex` all whose whole name matches it; that may be none.
    pub fn resolve_ids(&self, name: &str, regex: bool) -> Result<Vec<String>> {
        if !regex {
            return Ok(vec![name.to_string()]);
        }
        let pattern = Regex::new(&format!("^(?:{name})$"))
            .map_err(|error| anyhow!("--regex: {name:?}: is no regular expression: {error}"))?;
        let containers = self.list()?.into_iter();
        let ids = containers.map(|container| container.state.id);
        Ok(ids.filter(|id| pattern.is_match(id)).collect())
    }

    /// All of them by name; one that vanishes meanwhile is left out.
    pub fn list(&self) -> Result<Vec<Container>> {
        root_dir::check(&self.root)?;
        let entries = match sys::read_dir(&self.root) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => sys::io(entries).with_context(|| format!("--root: read {:?}", self.root))?,
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        ids.sort();
        let found = ids.iter().filter_map(|id| self.look_up(id).ok());
        Ok(found.collect())
    }
}

impl Container {
    pub fn status(&self) -> Result<Status> {
        Ok(self.status_and_init()?.0)
    }

    /// Returns the status, and the init process unless it has ended.
    pub fn status_and_init(&self) -> Result<(Status, Option<OwnedFd>)> {
        let record = self.dir.path.join(STATE);
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
            return Ok((status, None));
        }
        let Some((init, stat)) = self.live_init()? else {
            return Ok((Status::Stopped, None));
        };
        let frozen = match self.cgroup()? {
            Some(cgroup) => cgroup.is_frozen()?,
            None => false,
        };
        let status = match frozen {
            _ if self.state.at_once && stat.has_executed_nothing() => Status::Creating,
            true => Status::Paused,
            // It waits at its start socket, or runs the hooks of the start.
            false if stat.has_executed_nothing() => Status::Created,
            false => Status::Running,
        };
        Ok((status, Some(init)))
    }

    /// The init process, if it is still the one that was made: the same boot, number and start time.
    pub fn init(&self) -> Result<Option<OwnedFd>> {
        Ok(self.live_init()?.map(|(init, _)| init))
    }

    fn live_init(&self) -> Result<Option<(OwnedFd, Stat)>> {
        if self.state.pid == 0 || !self.of_this_boot {
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
        let Some(stat) = self.stat()?.filter(|_| !process::has_ended(&pidfd)) else {
            return Ok(None);
        };
        if stat.is_dead() && stat::is_dead(self.state.pid)? {
            return Ok(None);
        }
        Ok(Some((pidfd, stat)))
    }

    /// Waits until a killed init is dead; returns whether it is in this time. In uninterruptible sleep it does not die. Where
    /// somebody else has yet to reap other processes of the pid namespace, its pidfd does not tell the death.
    pub fn dies_within(&self, init: &OwnedFd, time: Duration) -> Result<bool> {
        const LOOK: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + time;
        while !wait::wait_exit(init, LOOK) && self.init()?.is_some() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// That of init, and of no later process with its number.
    fn stat(&self) -> Result<Option<Stat>> {
        let own = |stat: &Stat| stat.start_time() == Some(self.state.start_time);
        Ok(Stat::of(self.state.pid)?.filter(own))
    }

    /// How init ended, while nobody has waited for that (wait(2)).
    pub fn exit_status(&self) -> Option<i32> {
        self.stat().ok()??.exit_status()
    }

    /// Whether init has begun to end.
    pub fn is_exiting(&self) -> bool {
        Stat::of(self.state.pid).is_ok_and(|stat| stat.is_none_or(|stat| stat.is_exiting()))
    }

    pub fn cgroup(&self) -> Result<Option<Cgroup>> {
        if !self.of_this_boot {
            return Ok(None);
        }
        let file = self.dir.path.join(CGROUP);
        let link = sys::io(self.dir.link(CGROUP)).with_context(|| format!("read {file:?}"))?;
        let Some(text) = link else {
            return Ok(None);
        };
        let claim = text
            .split_once(':')
            .and_then(|(inode, path)| Some((inode.parse().ok()?, path)));
        let (inode, path) = claim.with_context(|| format!("{file:?}: damaged: {text}"))?;
        Cgroup::open(Path::new(path), inode, self.state.unit.as_ref())
    }

    /// What was kept of the config: later changes to the bundle have no effect.
    pub fn exec_config(&self) -> Result<Saved> {
        let file = self.dir.path.join(CONFIG);
        let text = sys::io(self.dir.read(CONFIG)).with_context(|| format!("read {file:?}"))?;
        serde_json::from_slice(&text).with_context(|| format!("read {file:?}"))
    }

    /// Returns whether init has ended or is about to, to explain why something failed.
    pub fn is_ending(&self) -> bool {
        match self.init() {
            Ok(Some(init)) => {
                self.is_exiting() || wait::wait_exit(&init, EXIT_GRACE) || self.is_exiting()
            }
            init => init.is_ok(),
        }
    }

    /// Connects to an init that waits to be started. Fails with EAGAIN if init accepts no connection in time.
    pub fn connect_start_socket(&self) -> Result<OwnedFd> {
        wait::connect(&self.dir.path_of(START_SOCKET), SockType::SeqPacket)
    }

    /// Nobody listens any more.
    pub fn remove_start_socket(&self) -> Result<()> {
        sys::io(self.dir.remove(START_SOCKET)).context("remove the start socket")
    }

    /// To close the file ends what this process has locked of it (fcntl(2)), as by `lock_records`. That keeps off a creator who has no
    /// record yet; so this must not be asked of a container without one, between its seizure and its removal.
    pub fn is_being_created(&self) -> Result<bool> {
        Ok(self.creator()?.is_some())
    }

    /// Returns the process that makes the container, which is 0 if it is in a pid namespace above. None if there is none.
    /// To ask closes the file, too.
    pub fn creator(&self) -> Result<Option<i32>> {
        let records = match self.dir.file(STATE, OFlag::O_RDONLY) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => {
                sys::io(opened).with_context(|| format!("open the state of {}", self.state.id))?
            }
        };
        let mut lock = write_lock();
        fcntl(&records, FcntlArg::F_GETLK(&mut lock)).context("query the lock of the state")?;
        Ok((lock.l_type != libc::F_UNLCK as i16).then_some(lock.l_pid))
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

impl State {
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

/// The words by which engines know that it is gone already.
pub fn not_running() -> Coded {
    coded("container-state", "container not running")
}

pub fn boot_id() -> Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    let text = sys::io(sys::read_text(file)).with_context(|| format!("read {file}"))?;
    Ok(text.trim().to_string())
}

pub fn check_id(id: &str) -> Result<()> {
    ensure!(!id.is_empty(), "container id cannot be empty");
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    let valid = id.bytes().all(allowed) && id != "." && id != ".." && id.len() <= 255;
    ensure!(
        valid,
        "invalid container ID format: {id:?}: use at most 255 of the characters A-Z a-z 0-9 _ + - ."
    );
    Ok(())
}

pub fn last_record(text: &str, id: &str) -> Option<State> {
    let complete = &text[..text.rfind('\n')?];
    let records = complete
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str(line).ok());
    records.into_iter().find(|record: &State| record.id == id)
}

/// What is noted apart from the records outlives damage to them.
fn without_record(dir: &StateDir, id: &str) -> State {
    let link = dir.link(RDT).ok().flatten().unwrap_or_default();
    let (boot_id, groups) = link.split_once(':').unwrap_or_default();
    State {
        id: id.to_string(),
        boot_id: boot_id.to_string(),
        rdt: serde_json::from_str(groups).ok(),
        ..State::default()
    }
}

/// What cannot be ours is a damaged record.
fn read_records(dir: &StateDir) -> Result<Vec<u8>> {
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

/// Another runtime's directories may be below the same root; they are not touched.
fn check_own(dir: &Path) -> Result<()> {
    let entries = sys::read_dir(dir).into_iter().flatten().flatten();
    let foreign = entries
        .map(|entry| entry.file_name())
        .find(|name| !NAMES.iter().any(|own| name == own));
    match foreign {
        Some(name) => bail!("{dir:?}: belongs to another program: it holds {name:?}"),
        None => Ok(()),
    }
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
    fn groups_of_resctrl_outlive_the_record() {
        let root = std::env::temp_dir().join(format!("cofferdam-groups-{}", std::process::id()));
        let store = Store::new(root.clone());
        let groups = Groups {
            class: PathBuf::from("c"),
            own: true,
            monitor: None,
        };
        let mut slot = crate::state::claim::StateDirGuard::claim(&store, "c").unwrap();
        let state = State {
            id: "c".to_string(),
            ..State::default()
        };
        slot.save(&state).unwrap();
        slot.claim_rdt(&groups).unwrap();
        std::fs::write(root.join("c").join(STATE), "{").unwrap();
        let found = store.find("c").unwrap();
        assert!(found.damaged);
        assert_eq!(found.state.rdt, Some(groups));
        assert_eq!(found.state.boot_id, boot_id().unwrap());
        drop(slot);
        std::fs::remove_dir(root).unwrap();
    }
}
