//! The containers of one root directory.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use regex_lite::Regex;

use crate::state::container::Container;
use crate::state::record::{boot_id, creator, last_record, read_records, without_record};
use crate::state::state_dir::{CGROUP, NAMES, StateDir};
use crate::state::{locks, root_dir};
use crate::sys;
use crate::text::fault::coded;

/// How long a creator may take from making the directory to locking the records.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// All containers of one root directory.
pub struct Store {
    root: PathBuf,
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
        self.look_up(id, Instant::now() + CLAIM_TIMEOUT)
    }

    /// Waits until the deadline for the creator of a directory without records.
    fn look_up(&self, id: &str, deadline: Instant) -> Result<Container> {
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
            return self.look_up(id, deadline);
        }
        let is_unclaimed = record.is_none() && text.is_empty() && !claimed;
        if is_unclaimed && creator(&dir)?.is_none() && Instant::now() < deadline {
            // Its creator has yet to lock the records. A creator that was killed never does.
            sleep(Duration::from_millis(1));
            return self.look_up(id, deadline);
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
        let found = ids
            .iter()
            .filter_map(|id| self.look_up(id, Instant::now()).ok());
        Ok(found.collect())
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::rdt::Groups;
    use crate::state::record::Record;
    use crate::state::state_dir::STATE;

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
        let state = Record {
            id: "c".to_string(),
            ..Record::default()
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
