//! Limits of a cgroup, written one after the other; those of a container that lives are taken back when one is refused.
//!
//! Parent only. It must not decide on values or order: `plan::resources` and `plan::update` do.

use anyhow::{Error, Result};
use nix::errno::Errno;

use super::{Cgroup, is_gone};
use crate::plan::resources::Setting;
use crate::plan::update::{BELOW_USAGE, changed, undo};
use crate::sys;
use crate::text::fault::coded;
use crate::text::log;

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

    /// The settings by the files that are there.
    pub fn found(&self, settings: &[Setting]) -> Vec<Setting> {
        let chosen = |setting: &Setting| {
            let (file, value) = self.target(setting);
            Setting {
                file: file.to_string(),
                value: value.to_string(),
                alternative: None,
                ..setting.clone()
            }
        };
        settings.iter().map(chosen).collect()
    }

    fn explain(&self, setting: &Setting, error: Error) -> Error {
        let (file, value) = self.target(setting);
        let act = format!("{}: write {value:?} to {file}", setting.field);
        let why = match sys::errno(&error) {
            // mm/page_counter.c, page_counter_set_max: what is in use cannot be taken away.
            Some(Errno::EBUSY) => {
                return error.context(coded(BELOW_USAGE, act + &self.usage(file)));
            }
            // kernel/sched/core.c, tg_set_cfs_bandwidth.
            Some(Errno::EINVAL) if file == "cpu.max" => {
                ", which takes quotas from 1000 and periods from 1000 to 1000000"
            }
            Some(Errno::ENOENT) if self.exists("cgroup.procs") && !self.exists(file) => {
                ", which this kernel does not have"
            }
            _ => "",
        };
        error.context(act + why)
    }

    fn usage(&self, file: &str) -> String {
        let number = |name: &str| {
            self.now(name)
                .map_or("unknown".to_string(), |text| text.trim().to_string())
        };
        let (limit, usage) = (number(file), number(&file.replace("max", "current")));
        format!(
            ", which says {limit} while {usage} are in use; end what uses them, or ask for no less"
        )
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use anyhow::anyhow;

    use super::*;
    use crate::plan::resources::resources;

    /// A directory with files that are no longer than what is written to them.
    struct Fake {
        path: PathBuf,
    }

    impl Fake {
        fn new(name: &str, files: &[(&str, &str)]) -> Fake {
            let name = format!("cofferdam-limits-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            for (file, text) in files {
                fs::write(path.join(file), text).unwrap();
            }
            Fake { path }
        }

        fn cgroup(&self) -> Cgroup {
            Cgroup::at(&self.path).unwrap()
        }

        fn says(&self, file: &str) -> String {
            let text = fs::read_to_string(self.path.join(file)).unwrap();
            text.trim().to_string()
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.path).unwrap();
        }
    }

    fn settings(json: &str) -> Vec<Setting> {
        let spec = serde_json::from_str(json).unwrap();
        resources(Some(&spec)).unwrap().settings
    }

    #[test]
    fn what_was_written_is_taken_back_when_a_later_limit_is_refused() {
        let files = [
            ("pids.max", "10"),
            ("memory.max", "max"),
            ("cgroup.procs", ""),
        ];
        let fake = Fake::new("back", &files);
        let cgroup = fake.cgroup();
        let fine = settings(r#"{"pids": {"limit": 20}, "memory": {"limit": 300}}"#);
        let written = cgroup.update(&fine).unwrap();
        assert_eq!(
            (fake.says("pids.max"), fake.says("memory.max")),
            ("20".into(), "300".into())
        );
        assert_eq!(written.take_back(anyhow!("no")).to_string(), "no");
        assert_eq!(
            (fake.says("pids.max"), fake.says("memory.max")),
            ("10".into(), "max".into())
        );

        let wrong =
            settings(r#"{"pids": {"limit": 20}, "memory": {"limit": 300, "reservation": 5}}"#);
        let error = cgroup.update(&wrong).err().unwrap();
        let start = "linux.resources.memory.reservation: write \"5\" to memory.low, which this kernel does not have: ";
        assert!(format!("{error:#}").starts_with(start), "{error:#}");
        assert_eq!(
            (fake.says("pids.max"), fake.says("memory.max")),
            ("10".into(), "max".into())
        );
    }

    #[test]
    fn what_cannot_be_taken_back_is_told() {
        let fake = Fake::new("left", &[("pids.max", "10"), ("memory.max", "max")]);
        let cgroup = fake.cgroup();
        let limits = settings(r#"{"pids": {"limit": 20}, "memory": {"limit": 300}}"#);
        let written = cgroup.update(&limits).unwrap();
        fs::remove_file(fake.path.join("memory.max")).unwrap();
        let error = format!("{:#}", written.take_back(anyhow!("no")));
        assert!(error.starts_with("memory.max is left changed ("), "{error}");
        assert!(error.ends_with("): no"), "{error}");
        assert_eq!(fake.says("pids.max"), "10");
    }

    #[test]
    fn the_file_that_is_there_is_written() {
        let fake = Fake::new("bfq", &[("io.bfq.weight", ""), ("io.weight", "")]);
        let weight = settings(r#"{"blockIO": {"weight": 100}}"#);
        fake.cgroup().update(&weight).unwrap();
        assert_eq!(fake.says("io.bfq.weight"), "100");
        let found = &fake.cgroup().found(&weight)[0];
        assert_eq!(
            (found.file.as_str(), found.value.as_str()),
            ("io.bfq.weight", "100")
        );
        fs::remove_file(fake.path.join("io.bfq.weight")).unwrap();
        let of_device = r#"{"blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 50}]}}"#;
        fake.cgroup().update(&settings(of_device)).unwrap();
        assert_eq!(fake.says("io.weight"), "910");
    }

    #[test]
    fn a_limit_below_what_is_in_use_tells_both() {
        let files = [("memory.max", "9000\n"), ("memory.current", "8000\n")];
        let fake = Fake::new("usage", &files);
        let setting = &settings(r#"{"memory": {"limit": 300}}"#)[0];
        let refused = sys::named(Err::<(), _>(Errno::EBUSY), || "write".to_string()).unwrap_err();
        let error = fake.cgroup().explain(setting, refused);
        let text = "linux.resources.memory.limit: write \"300\" to memory.max, which says 9000 while 8000 are in use; \
                    end what uses them, or ask for no less";
        assert_eq!(error.to_string(), text);
    }
}
