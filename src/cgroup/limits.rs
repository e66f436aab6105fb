//! Limits of a cgroup, written one after the other; those of a container that lives are taken back when one is refused.
//!
//! Parent only. It must not decide on values or order: `plan::resources` and `plan::update` do.

use anyhow::{Error, Result};
use nix::errno::Errno;

use super::{Cgroup, is_gone};
use crate::plan::resources::Setting;
use crate::plan::update::{changed, undo};
use crate::{log, sys};

/// What was written, and so has to be written to have it as it was.
pub struct Written<'a> {
    cgroup: &'a Cgroup,
    /// File and text, the first one written first.
    undo: Vec<(String, String)>,
}

impl Cgroup {
    /// Writes all of them, or leaves all as they were.
    pub fn update(&self, settings: &[Setting]) -> Result<Written<'_>> {
        let mut written = Written {
            cgroup: self,
            undo: Vec::new(),
        };
        for setting in settings {
            let before = self.before(setting);
            match self.set(setting) {
                Ok(()) => written.undo.extend(before),
                Err(error) => return Err(written.take_back(error)),
            }
        }
        Ok(written)
    }

    pub(super) fn set(&self, setting: &Setting) -> Result<()> {
        let (file, value) = self.target(setting);
        match self.write(file, value) {
            Err(error) if setting.optional && is_gone(&error) => {
                if setting.controller == "io" {
                    let field = &setting.field;
                    log::warn(&format!("{field}: the kernel has no {file}, ignored"));
                }
                Ok(())
            }
            result => result.map_err(|error| self.explain(setting, error)),
        }
    }

    /// The text of a file, if it is there.
    pub fn now(&self, file: &str) -> Option<String> {
        self.read(file).ok().flatten()
    }

    /// The file that is there, and its value.
    fn target<'a>(&self, setting: &'a Setting) -> (&'a str, &'a str) {
        match &setting.alternative {
            Some((file, value)) if self.exists(file) => (file, value),
            _ => (&setting.file, &setting.value),
        }
    }

    /// What undoes a setting. A file that cannot be read has nothing to restore, as memory.reclaim.
    fn before(&self, setting: &Setting) -> Vec<(String, String)> {
        let (file, value) = self.target(setting);
        let text = |name: &str| Some((name.to_string(), undo(name, value, &self.now(name)?)));
        changed(file, value).into_iter().filter_map(text).collect()
    }

    /// The kernel says EBUSY to a limit below what is in use and cannot be taken away.
    fn explain(&self, setting: &Setting, error: Error) -> Error {
        let (file, value) = self.target(setting);
        let reason = match sys::errno(&error) {
            Some(Errno::EBUSY) => self.usage(file).unwrap_or_default(),
            Some(Errno::ENOENT) if self.exists("cgroup.procs") => {
                ", which this kernel does not have".to_string()
            }
            _ => String::new(),
        };
        error.context(format!(
            "{}: write {value:?} to {file}{reason}",
            setting.field
        ))
    }

    fn usage(&self, file: &str) -> Option<String> {
        let stem = file.strip_suffix("max")?;
        let (limit, usage) = (self.now(file)?, self.now(&format!("{stem}current"))?);
        let (limit, usage) = (limit.trim(), usage.trim());
        Some(format!(
            ", which says {limit} while {usage} are in use; end what uses them, or ask for no less"
        ))
    }
}

impl Written<'_> {
    /// Writes what was there before, the last one first; the error tells of what cannot be restored.
    pub fn take_back(self, error: Error) -> Error {
        let mut error = error;
        for (file, text) in self.undo.iter().rev() {
            if let Err(failed) = self.cgroup.write(file, text) {
                error = error.context(format!("{file} is left changed ({failed:#})"));
            }
        }
        error
    }
}
