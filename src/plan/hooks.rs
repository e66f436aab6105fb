//! `spec.hooks` -> the six lists, checked. Those of start and delete are kept in the state.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use oci_spec::runtime::Hook as SpecHook;
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hooks {
    #[serde(skip)]
    pub prestart: Vec<Hook>,
    #[serde(skip)]
    pub create_runtime: Vec<Hook>,
    #[serde(skip)]
    pub create_container: Vec<Hook>,
    #[serde(skip)]
    pub start_container: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Hook {
    pub path: PathBuf,
    /// The whole argv; empty: the path alone.
    pub args: Vec<String>,
    /// `None`: that of the caller, or of the process for startContainer.
    pub env: Option<Vec<String>>,
    /// Seconds.
    pub timeout: Option<u64>,
    /// Files that take what the hook writes, where the engine names some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<PathBuf>,
}

pub fn hooks(bundle: &Bundle) -> Result<Hooks> {
    let Some(spec) = bundle.spec.hooks() else {
        return Ok(Hooks::default());
    };
    #[allow(deprecated)]
    let prestart = spec.prestart();
    let mut hooks = Hooks {
        prestart: list(prestart, "prestart")?,
        create_runtime: list(spec.create_runtime(), "createRuntime")?,
        create_container: list(spec.create_container(), "createContainer")?,
        start_container: list(spec.start_container(), "startContainer")?,
        poststart: list(spec.poststart(), "poststart")?,
        poststop: list(spec.poststop(), "poststop")?,
    };
    hooks.redirect(bundle);
    Ok(hooks)
}

fn list(hooks: &Option<Vec<SpecHook>>, name: &str) -> Result<Vec<Hook>> {
    let one = |(index, hook): (usize, &SpecHook)| {
        let field = format!("hooks.{name}[{index}]");
        let path = hook.path();
        ensure!(
            path.is_absolute(),
            "{field}.path: {path:?}: must be absolute"
        );
        for (index, entry) in hook.env().iter().flatten().enumerate() {
            let named = entry
                .split_once('=')
                .is_some_and(|(name, _)| !name.is_empty());
            ensure!(named, "{field}.env[{index}]: {entry:?}: must be NAME=value");
        }
        let words = hook.args().iter().flatten().enumerate();
        let words = words.map(|(index, word)| (format!("args[{index}]"), word.as_bytes()));
        let env = hook.env().iter().flatten().enumerate();
        let env = env.map(|(index, entry)| (format!("env[{index}]"), entry.as_bytes()));
        let path = ("path".to_string(), path.as_os_str().as_bytes());
        for (part, text) in std::iter::once(path).chain(words).chain(env) {
            ensure!(
                !text.contains(&0),
                "{field}.{part}: {:?}: must not contain a NUL",
                String::from_utf8_lossy(text)
            );
        }
        let timeout = hook.timeout();
        ensure!(
            timeout.is_none_or(|seconds| seconds > 0),
            "{field}.timeout: {}: must be above 0 seconds",
            timeout.unwrap_or(0)
        );
        let timeout = timeout.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Hook {
            path: hook.path().clone(),
            args: hook.args().clone().unwrap_or_default(),
            env: hook.env().clone(),
            timeout,
            stdout: None,
            stderr: None,
        })
    };
    hooks.iter().flatten().enumerate().map(one).collect()
}

impl Hooks {
    /// Whether nothing runs between the making of the root and its sealing.
    pub fn are_none_of_create(&self) -> bool {
        let lists = [&self.prestart, &self.create_runtime, &self.create_container];
        lists.iter().all(|list| list.is_empty())
    }

    /// Not those that run inside the container, where the engine's files are not.
    fn redirect(&mut self, bundle: &Bundle) {
        let file = |name: &str| bundle.annotation(name).map(PathBuf::from);
        let (stdout, stderr) = (file("run.oci.hooks.stdout"), file("run.oci.hooks.stderr"));
        let create = self
            .prestart
            .iter_mut()
            .chain(&mut self.create_runtime)
            .chain(&mut self.create_container);
        for hook in create.chain(&mut self.poststart).chain(&mut self.poststop) {
            (hook.stdout, hook.stderr) = (stdout.clone(), stderr.clone());
        }
    }

    /// All lists with their names, in the order in which they run.
    pub fn lists(&self) -> [(&'static str, &[Hook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }
}

impl Hook {
    pub fn is_limited(&self) -> bool {
        self.timeout.is_some()
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "hook {}", self.path.display())?;
        if let Some(arguments) = self.args.get(1..).filter(|list| !list.is_empty()) {
            write!(f, " {arguments:?}")?;
        }
        match self.timeout {
            Some(seconds) => write!(f, " ({seconds} s)"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::tests::{self as fixture, assert_faults, bundle};

    #[test]
    fn each_list_is_kept_apart_and_in_order() {
        let kinds = [
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        ];
        for kind in kinds {
            let list = json!([{"path": "/a", "args": ["x", "y"], "env": [], "timeout": 3}, {"path": "/b"}]);
            let hooks = hooks(&bundle(&[("/hooks", json!({kind: list}))])).unwrap();
            for (name, list) in hooks.lists() {
                assert_eq!(
                    list.len(),
                    if name == kind { 2 } else { 0 },
                    "{kind}: {name}"
                );
            }
            let list = hooks
                .lists()
                .into_iter()
                .find(|(name, _)| *name == kind)
                .unwrap()
                .1;
            assert_eq!(list[0].args, ["x", "y"]);
            assert_eq!((&list[0].env, list[0].timeout), (&Some(vec![]), Some(3)));
            assert_eq!((&list[1].env, list[1].timeout), (&None, None));
            assert_eq!(list[1].path, PathBuf::from("/b"));
        }
    }

    #[test]
    fn faults_name_the_hook() {
        assert_faults(&[
            (
                "/hooks",
                json!({"poststop": [{"path": "/a"}, {"path": "b"}]}),
                "hooks.poststop[1].path: \"b\": must be absolute",
            ),
            (
                "/hooks",
                json!({"createRuntime": [{"path": ""}]}),
                "hooks.createRuntime[0].path: \"\": must be absolute",
            ),
            (
                "/hooks",
                json!({"prestart": [{"path": "/a", "timeout": 0}]}),
                "hooks.prestart[0].timeout: 0: must be above 0",
            ),
            (
                "/hooks",
                json!({"prestart": [{"path": "/a", "timeout": -1}]}),
                "hooks.prestart[0].timeout: -1: must be above 0",
            ),
            (
                "/hooks",
                json!({"poststart": [{"path": "/a", "env": ["A=1", "B"]}]}),
                "hooks.poststart[0].env[1]: \"B\": must be NAME=value",
            ),
            (
                "/hooks",
                json!({"prestart": [{"path": "/a\u{0}b"}]}),
                "hooks.prestart[0].path: \"/a\\0b\": must not contain a NUL",
            ),
            (
                "/hooks",
                json!({"prestart": [{"path": "/a", "args": ["b", "c\u{0}"]}]}),
                "hooks.prestart[0].args[1]: \"c\\0\": must not contain a NUL",
            ),
            (
                "/hooks",
                json!({"prestart": [{"path": "/a", "env": ["B=\u{0}"]}]}),
                "hooks.prestart[0].env[0]: \"B=\\0\": must not contain a NUL",
            ),
            (
                "/hooks",
                json!({"poststop": [{"path": "/a", "env": ["=B"]}]}),
                "hooks.poststop[0].env[0]: \"=B\": must be NAME=value",
            ),
        ]);
    }

    #[test]
    fn output_goes_to_the_engines_files_but_from_inside_the_container() {
        let hook = json!([{"path": "/a"}]);
        let config = [
            (
                "/hooks",
                json!({"createContainer": hook, "startContainer": hook, "poststop": hook}),
            ),
            ("/annotations", json!({"run.oci.hooks.stdout": "/out"})),
        ];
        let hooks = hooks(&bundle(&config)).unwrap();
        let out = Some(PathBuf::from("/out"));
        assert_eq!(hooks.create_container[0].stdout, out);
        assert_eq!(hooks.poststop[0].stdout, out);
        assert_eq!(hooks.start_container[0].stdout, None);
        assert_eq!(hooks.poststop[0].stderr, None);
    }

    #[test]
    fn only_the_hooks_of_later_commands_are_recorded() {
        let hook = json!([{"path": "/a"}]);
        let config = json!({"createRuntime": hook, "poststart": hook, "poststop": hook});
        let hooks = fixture::plan(&[("/hooks", config)]).hooks;
        let record = serde_json::to_string(&hooks).unwrap();
        let read: Hooks = serde_json::from_str(&record).unwrap();
        let lengths = read.lists().map(|(_, list)| list.len());
        assert_eq!(lengths, [0, 0, 0, 0, 1, 1]);
        assert_eq!(serde_json::to_string(&Hooks::default()).unwrap(), "{}");
    }
}
