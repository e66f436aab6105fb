//! PARENT: what `create` has made so far, and how it is undone.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Error, Result, ensure};

use super::init_process::Init;
use super::pid_file::PidFile;
use super::remove;
use super::spawn::SpawnedInit;
use crate::cgroup::Cgroup;
use crate::facility::resctrl;
use crate::plan::Plan;
use crate::plan::cgroup::CgroupPlan;
use crate::plan::systemd::{self, Property};
use crate::state::claim::StateDirGuard;
use crate::state::container::Container;
use crate::state::locks;
use crate::state::record::Record;
use crate::systemd::scope::Manager;
use crate::text::{log, timings};

/// A container whose init is ready. Undone on drop, in the reverse order of its making, unless it is committed.
pub struct Rollback {
    pub init: Option<Init>,
    pub state: Record,
    pub pid_file: Option<PidFile>,
    rdt: Option<resctrl::Made>,
    pub cgroup: Option<Cgroup>,
    /// Whether hooks may have run. Then the poststop hooks undo what they did.
    pub was_spawned: bool,
    is_committed: bool,
    /// The directory of the container, which goes last.
    pub state_dir: StateDirGuard,
}

impl Rollback {
    pub fn new(state_dir: StateDirGuard, state: Record) -> Rollback {
        Rollback {
            init: None,
            state,
            pid_file: None,
            rdt: None,
            cgroup: None,
            was_spawned: false,
            is_committed: false,
            state_dir,
        }
    }

    /// Writes the record, and makes the cgroup with its limits: init is born into it.
    pub fn prepare(&mut self, plan: &Plan) -> Result<()> {
        self.state_dir.save(&self.state)?;
        timings::step(|| "claim the id, write the record".to_string());
        // A scope of systemd is made around init, later.
        let early = plan.cgroup.as_ref().filter(|plan| plan.unit.is_none());
        if let Some(cgroup_plan) = early {
            self.cgroup = Cgroup::create(cgroup_plan)?;
        }
        if let Some((cgroup, plan)) = self.cgroup.as_ref().zip(plan.cgroup.as_ref()) {
            self.state_dir.claim_cgroup(cgroup)?;
            cgroup.apply_limits(plan)?;
            timings::step(|| "make the cgroup, with limits".to_string());
        }
        if device_filter_first(plan) {
            self.attach_device_filter(plan)?;
        }
        if let Some(rdt) = &plan.rdt {
            self.state_dir.claim_rdt(&rdt.groups)?;
            self.rdt = Some(resctrl::make(Path::new(resctrl::ROOT), rdt)?);
        }
        Ok(())
    }

    pub fn attach_device_filter(&self, plan: &Plan) -> Result<()> {
        if let Some((cgroup, plan)) = self.cgroup.as_ref().zip(plan.cgroup.as_ref()) {
            cgroup.attach_device_filter(plan)?;
            timings::step(|| "device rules".to_string());
        }
        Ok(())
    }

    /// Has systemd make the scope around an init that waits, and sets the limits.
    pub fn create_scope(
        &mut self,
        whole: &Plan,
        manager: &mut Manager,
        spawned: &SpawnedInit,
    ) -> Result<()> {
        let Some(plan) = &whole.cgroup else {
            return Ok(());
        };
        let cgroup = Cgroup::create_scope(plan, manager, spawned.init.pid)?;
        let cgroup = self.cgroup.insert(cgroup);
        self.state_dir.claim_cgroup(cgroup)?;
        self.state.cgroup = Some(cgroup.path.clone());
        cgroup.apply_limits(plan)?;
        if !whole.mounts_a_device() {
            cgroup.attach_device_filter(plan)?;
        }
        correct_properties(cgroup, plan, manager)?;
        cgroup.move_to_subgroup(plan, spawned.init.pid)?;
        timings::step(|| "have systemd make the scope, with limits".to_string());
        Ok(())
    }

    /// Records which process is init. Nobody is told of the container before.
    pub fn record_init(&mut self) -> Result<()> {
        self.state.created = log::rfc3339_nanos(SystemTime::now());
        self.state_dir.save(&self.state)?;
        ensure!(
            !self.state_dir.is_deleted(),
            "the record has no effect any more"
        );
        timings::step(|| "write the record".to_string());
        Ok(())
    }

    /// `create`: lets init wait for `start`, and keeps the container.
    pub fn detach(mut self) -> Result<()> {
        let init = self.init.take().context("there is no init")?;
        // Until init has said that it waits, it dies with this process.
        match init.detach() {
            Ok(()) => {
                timings::step(|| "leave init waiting".to_string());
                self.commit();
                Ok(())
            }
            Err(error) => Err(self.undo(error)),
        }
    }

    /// Keeps the container when this process ends. From here on it is removed as by `delete`, with poststop hooks.
    pub fn commit(mut self) -> (Option<Init>, Container, Option<PidFile>) {
        self.is_committed = true;
        if let Some(rdt) = self.rdt.take() {
            rdt.keep();
        }
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.keep();
        }
        let state = std::mem::take(&mut self.state);
        let container = self.state_dir.keep(state);
        (self.init.take(), container, self.pid_file.take())
    }

    /// Undoes everything, and returns the error to report: that another command deletes the container explains any error.
    pub fn undo(self, error: Error) -> Error {
        self.state_dir.or_deleted(error)
    }
}

impl Drop for Rollback {
    fn drop(&mut self) {
        if self.is_committed {
            return;
        }
        drop(self.init.take());
        if let Some(file) = self.pid_file.take() {
            file.take_back();
        }
        // If another command holds the lock for too long, it would not help to leave more behind.
        let lock = locks::lock_for_removal(&self.state_dir.dir).ok();
        drop((self.cgroup.take(), self.rdt.take()));
        remove::unmount_in_place(&self.state);
        drop(lock);
        if self.was_spawned {
            remove::run_poststop_hooks(&self.state_dir.dir, &self.state);
        }
    }
}

/// Returns whether the device rules are attached before init is made. Hooks of create run under the rules, and some amend them.
///
/// Without hooks, the kernel checks and compiles the rules while init works; init starts after that. Init waits for the rules where
/// it mounts a device first: see [`Plan::mounts_a_device`].
pub fn device_filter_first(plan: &Plan) -> bool {
    !plan.hooks.are_none_of_create() && !plan.mounts_a_device()
}

/// Corrects properties of the scope: only the files of the scope show which of two files a limit goes to.
fn correct_properties(cgroup: &Cgroup, plan: &CgroupPlan, manager: &Manager) -> Result<()> {
    let settings = &plan.resources.settings;
    let known = plan.unit.iter().flat_map(|scope| &scope.properties);
    let stays = |property: &Property| {
        let mut known = known.clone();
        known.any(|other| other == property || (other.asked && other.name == property.name))
    };
    let mut properties = systemd::limits(&cgroup.found(settings))?;
    properties.retain(|property| !stays(property));
    match properties.is_empty() {
        true => Ok(()),
        false => manager.unit.set(&properties),
    }
}
