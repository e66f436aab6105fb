//! `spec.hooks` -> the six lists, checked. Those of start and delete are kept in the state.

use std::fmt;
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
        let timeout = hook.timeout();
        ensure!(
            timeout.is_none_or(|seconds| seconds > 0),
            "{field}.timeout: {}: must be above 0 seconds",
            timeout.unwrap_or(0)
        );
        let timeout = timeout.and_then(|seconds| u64::try_from(seconds).ok());
        Ok(Hook {
            path: path.clone(),
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
