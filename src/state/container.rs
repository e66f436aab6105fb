//! A container that was created: its directory, its record, and its status, which is asked from the kernel each time.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::SockType;

use crate::cgroup::Cgroup;
use crate::plan::exec::Saved;
use crate::state::document::{Report, report};
use crate::state::record::{Record, creator};
use crate::state::state_dir::{CGROUP, CONFIG, START_SOCKET, STATE, StateDir};
use crate::sys::stat::{self, Stat};
use crate::sys::{self, process, wait};
use crate::text::fault::{Coded, coded};

/// For the end of an init that is about to end.
const EXIT_GRACE: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

pub struct Container {
    pub dir: Rc<StateDir>,
    pub state: Record,
    /// Whether no record can be read although there was one.
    pub damaged: bool,
    /// Numbers of processes and inodes begin anew with each boot: what has those of an earlier one is another's.
    pub of_this_boot: bool,
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

    /// Returns the process that makes the container: see [`creator`].
    pub fn creator(&self) -> Result<Option<i32>> {
        creator(&self.dir)
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

/// The words by which engines know that it is gone already.
pub fn not_running() -> Coded {
    coded("container-state", "container not running")
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
