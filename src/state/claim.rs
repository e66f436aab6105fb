//! The creator's side of a container's directory: takes the id, holds the lock, writes what others will read.
//!
//! Everything is written before what it speaks of is made, so that whatever a killed creator leaves behind can be found
//! and removed. Reading is done in `container`.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::bundle::Bundle;
use crate::cgroup::Cgroup;
use crate::plan::rdt::Groups;
use crate::plan::{Plan, exec};
use crate::state::container::Container;
use crate::state::locks::{lock_for_removal, remove_state_dir};
use crate::state::record::{Record, boot_id, write_lock};
use crate::state::root_dir;
use crate::state::state_dir::{self, CGROUP, CONFIG, DELETED, RDT, START_SOCKET, STATE, StateDir};
use crate::state::store::{Store, check_id};
use crate::sys::{self, socket};
use crate::text::fault::coded;

const DELETED_MEANWHILE: &str = "deleted by another command while it was being created";

/// The place of a container being made; removed on drop unless kept.
pub struct StateDirGuard {
    pub dir: Rc<StateDir>,
    records: File,
    kept: bool,
}

impl StateDirGuard {
    /// Takes the id: of all that ask at once, one gets it.
    pub fn claim(store: &Store, id: &str) -> Result<StateDirGuard> {
        check_id(id)?;
        make_root(store.root())?;
        let path = store.root().join(id);
        match DirBuilder::new().mode(0o711).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!(coded(
                    "container-exists",
                    format!("container with given ID already exists: {id}")
                ));
            }
            made => sys::io(made).with_context(|| {
                format!(
                    "make the container's directory {path:?}{}",
                    advice(store.root())
                )
            })?,
        }
        let new = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_EXCL;
        let opened = StateDir::open(path.clone())
            .and_then(|dir| dir.file(STATE, new).map(|records| (dir, records)));
        match opened {
            Ok((dir, records)) => {
                let slot = StateDirGuard {
                    dir: Rc::new(dir),
                    records,
                    kept: false,
                };
                // Who deletes locks it too, where there is no creator yet.
                if slot.lock().is_err() || !slot.dir.is_there() {
                    bail!(DELETED_MEANWHILE);
                }
                Ok(slot)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) =>
            {
                bail!(DELETED_MEANWHILE)
            }
            Err(error) => {
                // Fails if it is another's by now.
                std::fs::remove_dir(&path).ok();
                sys::io(Err(error))
                    .with_context(|| format!("make the state of the container in {path:?}"))
            }
        }
    }

    /// Adds a record; from now on it is the container's state.
    ///
    /// Not synced to the disk: after a power loss nothing of the container is left but this record,
    /// and any record, even a damaged one, can be deleted.
    pub fn save(&mut self, state: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(state).context("write the state")?;
        line.push(b'\n');
        sys::io(self.records.write_all(&line))
            .with_context(|| format!("write the state in {:?}", self.dir.path))
    }

    /// Keeps what `exec` will need, apart from the records that every command reads.
    pub fn save_config(&self, bundle: &Bundle, plan: &Plan) -> Result<()> {
        let linux = bundle.spec.linux().as_ref();
        let saved = exec::Keep {
            process: bundle.spec.process().as_ref(),
            linux: exec::KeepLinux {
                personality: linux.and_then(|linux| linux.personality().as_ref()),
                memory_policy: linux.and_then(|linux| linux.memory_policy().as_ref()),
                mount_label: linux.and_then(|linux| linux.mount_label().as_deref()),
            },
            keyring: plan.process.keyring.as_deref(),
            namespaces: plan.namespaces.create,
            filter: plan.process.seccomp.as_ref(),
        };
        let text = serde_json::to_vec(&saved).context("write the config")?;
        sys::io(self.dir.write(CONFIG, &text))
            .with_context(|| format!("write {:?}", self.dir.path.join(CONFIG)))
    }

    /// Says that this cgroup, by its inode and no other, is the container's.
    pub fn claim_cgroup(&self, cgroup: &Cgroup) -> Result<()> {
        let text = format!("{}:{}", cgroup.inode()?, cgroup.path.display());
        sys::io(self.dir.make_link(CGROUP, &text))
            .with_context(|| format!("note the cgroup in {:?}", self.dir.path))
    }

    /// The socket on which the container's init will wait for `start`.
    pub fn listen(&self) -> Result<OwnedFd> {
        socket::listen_at(&self.dir.path_of(START_SOCKET))
            .with_context(|| format!("make the start socket in {:?}", self.dir.path))
    }

    /// Notes the groups of resctrl before any is made.
    pub fn claim_rdt(&self, groups: &Groups) -> Result<()> {
        let text = format!("{}:{}", boot_id()?, serde_json::to_string(groups)?);
        sys::io(self.dir.make_link(RDT, &text))
            .with_context(|| format!("note the resctrl groups in {:?}", self.dir.path))
    }

    /// Whether somebody deletes this container, or has done so. Who deletes says so before he reads the record, so
    /// he knows what was recorded before this was asked. That word goes after the record, as do all names as long as this
    /// process adds others.
    pub fn is_deleted(&self) -> bool {
        self.dir.has(DELETED) || self.records.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Returns the error, or that another command deletes the container, which explains any error.
    pub fn or_deleted(&self, error: Error) -> Error {
        match self.is_deleted() {
            true => anyhow!(DELETED_MEANWHILE),
            false => error,
        }
    }

    /// Keeps the directory when this value is dropped.
    pub fn keep(&mut self, state: Record) -> Container {
        self.kept = true;
        Container {
            dir: self.dir.clone(),
            state,
            damaged: false,
            of_this_boot: true,
        }
    }

    /// Released by the kernel when this process ends; not inherited by the container's init (fcntl(2)).
    fn lock(&self) -> Result<()> {
        let lock = write_lock();
        fcntl(&self.records, FcntlArg::F_SETLK(&lock)).context("lock the state")?;
        Ok(())
    }
}

impl Drop for StateDirGuard {
    fn drop(&mut self) {
        if !self.kept {
            // Where another command takes too long over it, nothing is gained by leaving more behind.
            let lock = lock_for_removal(&self.dir).ok();
            remove_state_dir(&self.dir).ok();
            drop(lock);
        }
    }
}

/// Returns what a caller without root can do about a default root that belongs to root; nothing for other roots.
fn advice(root: &Path) -> String {
    let uid = nix::unistd::geteuid();
    let is_default = root.parent() == Some(Path::new("/run"));
    match uid.is_root() || !is_default || std::env::var_os("XDG_RUNTIME_DIR").is_some() {
        true => String::new(),
        false => format!(
            "; XDG_RUNTIME_DIR is not set: set it to a directory of the caller, such as /run/user/{uid}, or give --root"
        ),
    }
}

fn make_root(root: &Path) -> Result<()> {
    if root_dir::check(root)? {
        return Ok(());
    }
    state_dir::make_all(root, 0o700).map_err(|error| match sys::errno(&error) {
        Some(_) => error.context(format!("--root: make {root:?}{}", advice(root))),
        None => error.context("--root"),
    })?;
    // Another user may have been faster.
    root_dir::check(root).map(drop)
}
