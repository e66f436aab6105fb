//! The container's cgroup: made with its limits before the first process, removed with all that is below it. Parent only.
//!
//! Files are opened below the directory's descriptor and through no links; the inode tells the
//! container's own directory from one that somebody else has put there since.

pub mod controllers;
mod explain;
mod limits;
pub mod stats;
pub mod tree;
mod watch;

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Uid, fchownat};

use crate::plan::cgroup::CgroupPlan;
use crate::sys::{self, bpf, named, path};
use crate::systemd::scope::{Manager, Unit, place_of};
use crate::text::fault::coded;
use crate::text::log;

/// How long a killed cgroup may take to empty: processes in uninterruptible sleep do not die.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a change may go unseen that is not announced.
const GLANCE: Duration = Duration::from_millis(50);

/// A directory of cgroup v2. One that was just made is removed on drop, with its processes, unless kept.
#[derive(Debug)]
pub struct Cgroup {
    pub path: PathBuf,
    directory: OwnedFd,
    /// The scope of systemd that it is.
    unit: Option<Unit>,
    kept: bool,
}

impl Cgroup {
    /// Makes the directory, empty and without limits. `None` if the caller may not, and nothing needs it.
    pub fn create(plan: &CgroupPlan) -> Result<Option<Cgroup>> {
        match make(plan) {
            Err(error) if plan.optional && is_refusal(&error) => Ok(None),
            made => made
                .map(Some)
                .map_err(|error| explain::refused(error, &plan.path)),
        }
    }

    /// Has systemd make the scope around a process, and says which cgroup that is.
    pub fn create_scope(plan: &CgroupPlan, manager: &mut Manager, pid: i32) -> Result<Cgroup> {
        let scope = plan.unit.as_ref().context("no scope is planned")?;
        manager.start(scope, pid)?;
        let opened = place_of(pid, scope)
            .and_then(|place| Cgroup::at(&plan.mount.join(place)))
            .and_then(|cgroup| cgroup.check_below(&plan.mount).map(|()| cgroup))
            .and_then(|cgroup| cgroup.ensure_not_frozen().map(|()| cgroup));
        let mut cgroup = opened.inspect_err(|_| drop(manager.unit.stop()))?;
        cgroup.unit = Some(manager.unit.clone());
        cgroup.kept = false;
        Ok(cgroup)
    }

    /// The cgroup of a container, if it is still the one that was made for it.
    pub fn open(path: &Path, inode: u64, unit: Option<&Unit>) -> Result<Option<Cgroup>> {
        let cgroup = match open_directory(path) {
            Err(error) if is_gone(&error) => return Ok(None),
            opened => Cgroup {
                path: path.to_path_buf(),
                directory: opened?,
                unit: unit.cloned(),
                kept: true,
            },
        };
        Ok((cgroup.inode()? == inode).then_some(cgroup))
    }

    /// Any directory of the tree that is there.
    pub fn at(path: &Path) -> Result<Cgroup> {
        let directory = open_directory(path)?;
        Ok(Cgroup {
            path: path.to_path_buf(),
            directory,
            unit: None,
            kept: true,
        })
    }

    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Whether cgroups below have controllers of their own, so that no process may be here.
    pub fn delegates_controllers(&self) -> bool {
        let list = self.read("cgroup.subtree_control").ok().flatten();
        list.is_some_and(|list| !list.trim().is_empty())
    }

    pub fn inode(&self) -> Result<u64> {
        let stat = named(fstat(&self.directory), || format!("fstat({:?})", self.path))?;
        Ok(stat.st_ino)
    }

    /// Writes the limits.
    pub fn apply_limits(&self, plan: &CgroupPlan) -> Result<()> {
        self.check_below(&plan.mount)?;
        // systemd does so for a scope, as the properties ask.
        let all = self.unit.is_none();
        controllers::enable(&plan.mount, &self.path, &plan.resources, all)?;
        for setting in &plan.resources.settings {
            self.set(setting)?;
        }
        match plan.owner.filter(|_| plan.below == Path::new("")) {
            Some(owner) => self.chown(owner),
            None => Ok(()),
        }
    }

    /// Attaches the device program.
    pub fn attach_device_filter(&self, plan: &CgroupPlan) -> Result<()> {
        if let Some(program) = &plan.devices {
            bpf::load_device_program(program)
                .and_then(|program| bpf::attach_device_program(self, program))
                .map_err(explain::program)?;
        }
        Ok(())
    }

    /// Puts a process where the plan wants it below this cgroup, with all controllers that are here.
    pub fn move_to_subgroup(&self, plan: &CgroupPlan, pid: i32) -> Result<()> {
        if plan.below == Path::new("") {
            return Ok(());
        }
        let (directory, _) = tree::make(&self.path, &self.path.join(&plan.below))?;
        let place = Cgroup {
            path: self.path.join(&plan.below),
            directory,
            unit: None,
            kept: true,
        };
        place
            .write("cgroup.procs", &pid.to_string())
            .with_context(|| format!("put process {pid} in {}", place.path.display()))?;
        // Only now that nobody is above (cgroups(7), "no internal processes").
        controllers::hand_down(&self.path, &plan.below)?;
        plan.owner.map_or(Ok(()), |owner| place.chown(owner))
    }

    fn chown(&self, owner: u32) -> Result<()> {
        self.change_owner(owner)
            .with_context(|| format!("give the cgroup to user {owner}"))
    }

    /// The directory, and the files that the kernel names as safe to delegate (cgroups(7), "delegation").
    fn change_owner(&self, owner: u32) -> Result<()> {
        let listed = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let listed =
            listed.unwrap_or("cgroup.procs\ncgroup.subtree_control\ncgroup.threads".into());
        for file in std::iter::once(".").chain(listed.lines()) {
            let owner = Some(Uid::from_raw(owner));
            match fchownat(
                &self.directory,
                file,
                owner,
                None,
                AtFlags::AT_SYMLINK_NOFOLLOW,
            ) {
                // A file of a controller that is not enabled here.
                Err(Errno::ENOENT) => {}
                result => named(result, || format!("fchownat({file:?}, {owner:?})"))?,
            }
        }
        Ok(())
    }

    pub fn is_frozen(&self) -> Result<bool> {
        let text = self.read("cgroup.freeze")?;
        Ok(text.is_some_and(|text| text.trim() == "1"))
    }

    /// Kills every process here and below, frozen ones too.
    pub fn kill(&self) -> Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) => Ok(()),
            // kernel/cgroup/cgroup.c, cgroup_kill_write: not one that its own processes have made threaded.
            Err(error) if sys::errno(&error) == Some(Errno::EOPNOTSUPP) => {
                tree::kill_threads(&self.path)
            }
            result => result,
        }
    }

    /// Waits until no process is left; false when that takes too long.
    pub fn wait_until_empty(&self) -> Result<bool> {
        self.wait_for("populated 0")
    }

    /// Stops all processes here and below where they are, or lets them go on.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let (value, event) = if frozen {
            ("1", "frozen 1")
        } else {
            ("0", "frozen 0")
        };
        self.write("cgroup.freeze", value)?;
        if !self.wait_for(event)? {
            ensure!(
                self.is_frozen()? == frozen,
                coded(
                    "container-state",
                    "another command has paused or resumed the container meanwhile"
                )
            );
            self.write("cgroup.freeze", "0")?;
            bail!(
                "{}: not {event} in time (a process in uninterruptible sleep?)",
                self.path.display()
            );
        }
        Ok(())
    }

    /// Waits for a line of cgroup.events.
    fn wait_for(&self, event: &str) -> Result<bool> {
        let (deadline, frozen) = (Instant::now() + PATIENCE, event == "frozen 1");
        let Some(mut events) = self.open_file("cgroup.events")? else {
            return Ok(true);
        };
        loop {
            let mut text = String::new();
            match std::io::Seek::rewind(&mut events).and_then(|()| events.read_to_string(&mut text))
            {
                // ENODEV: the cgroup is gone.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(true),
                result => sys::io(result)
                    .with_context(|| format!("read cgroup.events of {:?}", self.path))?,
            };
            if text.lines().any(|line| line == event) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // cgroups(7): a change is announced by POLLPRI, counted from the last read. Not so the last one of a cgroup that
            // another command removes at once: the kernel announces no more than one in 10 ms (kernel/cgroup/cgroup.c).
            let mut polled = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            let timeout = PollTimeout::try_from(left.min(GLANCE)).unwrap_or(PollTimeout::MAX);
            match poll(&mut polled, timeout) {
                Ok(0) if event.starts_with("frozen") && self.is_frozen()? != frozen => {
                    return Ok(false);
                }
                Err(Errno::EINTR) | Ok(_) => {}
                Err(errno) => bail!("poll(cgroup.events): {}", errno.desc()),
            }
        }
    }

    /// The numbers of the processes directly in this cgroup.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let text = match self.read("cgroup.procs") {
            Err(error) if sys::errno(&error) == Some(Errno::EOPNOTSUPP) => {
                self.read("cgroup.threads")
            }
            text => text,
        };
        let text = text?.unwrap_or_default();
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// The numbers of the processes here and below.
    pub fn all_processes(&self) -> Result<Vec<i32>> {
        let mut pids = self.processes()?;
        for below in tree::below(&self.path) {
            // One that is removed meanwhile has none.
            let text = std::fs::read_to_string(below.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        Ok(pids)
    }

    /// Removes the directory and those below it, which must be empty of processes; and what was made above it.
    pub fn remove(&self) -> Result<()> {
        if let Some(unit) = &self.unit
            && let Err(error) = unit.stop()
        {
            log::warn(&format!("{error:#}; its cgroup is removed without systemd"));
        }
        // Another command may have removed it, and a new container may have one by its name, or make that one now.
        let is_gone = match std::fs::metadata(&self.path) {
            Ok(found) => self.inode().is_ok_and(|own| own != found.ino()),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if !is_gone {
            tree::remove(&self.path)
                .map_err(|error| explain::left(error, &self.path, &tree::below(&self.path)))?;
        }
        tree::remove_made_above(&self.path);
        Ok(())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        write_at(&self.directory, file, value)
    }

    fn read(&self, file: &str) -> Result<Option<String>> {
        let Some(mut open) = self.open_file(file)? else {
            return Ok(None);
        };
        let mut text = String::new();
        match open.read_to_string(&mut text) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            result => sys::io(result)
                .map(|_| Some(text))
                .with_context(|| format!("read {file} of {:?}", self.path)),
        }
    }

    fn exists(&self, file: &str) -> bool {
        path::open_strict(&self.directory, Path::new(file), libc::O_PATH).is_ok()
    }

    /// `None` if the file, or the whole cgroup, is not there.
    fn open_file(&self, file: &str) -> Result<Option<File>> {
        match path::open_strict(&self.directory, Path::new(file), libc::O_RDONLY) {
            Err(error) if is_gone(&error) => Ok(None),
            opened => Ok(Some(File::from(opened?))),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.kept {
            // The error that led here is the one to be told. Where no more files may be open, rmdir alone still works.
            self.kill().ok();
            self.wait_until_empty().ok();
            self.remove().ok();
        }
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

/// Another command may remove one that nobody has claimed yet.
fn make(plan: &CgroupPlan) -> Result<Cgroup> {
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        match make_once(plan) {
            Err(error) if is_gone(&error) => {}
            made => return made,
        }
    }
    make_once(plan)
}

fn make_once(plan: &CgroupPlan) -> Result<Cgroup> {
    check_path(&plan.mount, &plan.path)?;
    let (directory, existed) = tree::make(&plan.mount, &plan.path)?;
    let mut cgroup = Cgroup {
        path: plan.path.clone(),
        directory,
        unit: None,
        kept: true,
    };
    let claimed = cgroup.claim().inspect_err(|_| {
        if !existed {
            // Fails if somebody has gone in.
            std::fs::remove_dir(&plan.path).ok();
        }
    });
    ensure!(
        claimed?,
        "container's cgroup is not empty: another container is being created in it; choose another linux.cgroupsPath"
    );
    if existed {
        cgroup.check_unpopulated()?;
    }
    cgroup.kept = existed;
    cgroup.ensure_not_frozen()?;
    cgroup.kept = false;
    Ok(cgroup)
}

impl Cgroup {
    /// Limits and a device program at the top would be those of the whole host, and nobody takes them away.
    fn check_below(&self, mount: &Path) -> Result<()> {
        check_path(mount, &self.path)?;
        let top = named(fstat(open_directory(mount)?), || {
            format!("fstat({mount:?})")
        })?;
        let own = named(fstat(&self.directory), || format!("fstat({:?})", self.path))?;
        ensure!(
            own.st_dev == top.st_dev && own.st_ino != top.st_ino,
            "{}: is not a cgroup below {}",
            self.path.display(),
            mount.display()
        );
        Ok(())
    }

    /// Of creators that find it empty at once, one may go on; as soon as its init is inside, the others see that.
    /// init closes the descriptor, and this process ends: nothing holds the lock longer.
    pub fn claim(&self) -> Result<bool> {
        let copy = File::from(sys::io(self.directory.try_clone())?);
        match copy.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => {
                sys::io(Err(error)).with_context(|| format!("flock({:?})", self.path))
            }
        }
    }

    /// Another's processes would share the container's limits, and die with it.
    fn check_unpopulated(&self) -> Result<()> {
        if self.has_event("populated 1")? {
            let count = self.all_processes()?.len();
            bail!(
                "container's cgroup is not empty: {count} process(es) found ({}); choose another linux.cgroupsPath",
                explain::processes(&self.path)
            );
        }
        Ok(())
    }

    /// Whoever is born in a frozen cgroup, or below one, does not move; and nobody would notice. One without the file is gone.
    fn ensure_not_frozen(&self) -> Result<()> {
        let file = "cgroup.freeze";
        let frozen = self.read(file)?.ok_or(Errno::ENOENT);
        let frozen = named(frozen, || format!("{:?}: read {file}", self.path))?;
        ensure!(
            frozen.trim() != "1" && !self.has_event("frozen 1")?,
            "container's cgroup unexpectedly frozen, or one above it; write 0 to cgroup.freeze there, \
             or choose another linux.cgroupsPath"
        );
        Ok(())
    }

    pub fn has_event(&self, event: &str) -> Result<bool> {
        let events = self.read("cgroup.events")?.unwrap_or_default();
        Ok(events.lines().any(|line| line == event))
    }
}

/// cgroup_namespaces(7): what lies outside of the own namespace begins with "/..".
fn check_path(mount: &Path, path: &Path) -> Result<()> {
    let below = path.strip_prefix(mount).unwrap_or(Path::new(""));
    let plain = |part| matches!(part, Component::Normal(_));
    ensure!(
        below != Path::new("") && below.components().all(plain),
        "{}: is not below {}; the caller may have to leave its cgroup namespace, or give an absolute linux.cgroupsPath",
        path.display(),
        mount.display()
    );
    Ok(())
}

fn open_directory(directory: &Path) -> Result<OwnedFd> {
    let flags =
        nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_CLOEXEC;
    let opened = sys::again(|| nix::fcntl::open(directory, flags, Mode::empty()));
    named(opened, || format!("open({directory:?})"))
}

fn write_at(directory: &OwnedFd, file: &str, value: &str) -> Result<()> {
    let opened = path::open_strict(directory, Path::new(file), libc::O_WRONLY)?;
    sys::io(File::from(opened).write_all(value.as_bytes()))
}

/// The kernel says ENODEV for files of a cgroup that was removed while they were open.
fn is_gone(error: &anyhow::Error) -> bool {
    matches!(sys::errno(error), Some(Errno::ENOENT | Errno::ENODEV))
}

fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(
        sys::errno(error),
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS)
    )
}
