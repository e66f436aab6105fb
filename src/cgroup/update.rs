//! Limits of a cgroup in use: written one after the other, and taken back when one is refused.

use anyhow::{Error, Result};

use super::Cgroup;
use crate::plan::resources::Setting;
use crate::plan::update::undo;

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
            let (file, value) = self.target(setting);
            let before = self.read(file)?;
            match self.set(setting) {
                Ok(()) => written
                    .undo
                    .extend(before.map(|text| (file.to_string(), undo(file, value, &text)))),
                Err(error) => return Err(written.take_back(self.explain(file, error))),
            }
        }
        Ok(written)
    }

    /// The text of a file, if it is there.
    pub fn now(&self, file: &str) -> Option<String> {
        self.read(file).ok().flatten()
    }

    fn explain(&self, file: &str, error: Error) -> Error {
        match self
            .now("memory.current")
            .filter(|_| file.starts_with("memory."))
        {
            Some(usage) => error.context(format!(
                "the container uses {} bytes of memory",
                usage.trim()
            )),
            None => error,
        }
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
