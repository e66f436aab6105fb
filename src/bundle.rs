//! `Bundle`: a directory with a config.json, loaded and judged. Parent only.
//!
//! The spec leaves objects open and enumerations closed: unknown properties, annotations and
//! capabilities are passed over, wrong values are errors that name their field.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::runtime::{Capability, Root, Spec};
use serde_json::Value;

use crate::plan::rootfs::{Overlay, Upper};
use crate::sys;

/// Annotations that make the runtime assemble the root itself.
const LOWER: &str = "dev.cofferdam.overlay.lower";
const UPPER: &str = "dev.cofferdam.overlay.upper";
const WORK: &str = "dev.cofferdam.overlay.work";

#[derive(Debug)]
pub struct Bundle {
    pub dir: PathBuf,
    pub spec: Spec,
    pub overlay: Option<Overlay>,
    /// Names that no kernel known here has.
    pub unknown_capabilities: Vec<String>,
}

impl Bundle {
    /// Loads `config`, by default the bundle's config.json.
    pub fn load(dir: &Path, config: Option<&Path>) -> Result<Bundle> {
        let dir = sys::io(std::fs::canonicalize(dir)).with_context(|| format!("bundle {dir:?}"))?;
        let file = config.map_or_else(|| dir.join("config.json"), Path::to_path_buf);
        let text = read(&file)?;
        let parsed = parse(&text).with_context(|| format!("{}", file.display()))?;
        Bundle::of_parsed(dir, parsed)
    }

    fn of_parsed(
        dir: PathBuf,
        (spec, unknown_capabilities): (Spec, Vec<String>),
    ) -> Result<Bundle> {
        Ok(Bundle {
            unknown_capabilities,
            ..Bundle::new(dir, spec)?
        })
    }

    pub fn new(dir: PathBuf, spec: Spec) -> Result<Bundle> {
        let overlay = overlay(&dir, spec.annotations().as_ref())?;
        let bundle = Bundle {
            dir,
            spec,
            overlay,
            unknown_capabilities: Vec::new(),
        };
        bundle.check()?;
        Ok(bundle)
    }

    pub fn root(&self) -> Option<&Root> {
        self.spec.root().as_ref()
    }

    /// The directory that `root.path` names.
    pub fn rootfs(&self) -> Result<PathBuf> {
        let root = self
            .root()
            .context("root: missing; give the path of the root filesystem")?;
        ensure!(
            !root.path().as_os_str().is_empty(),
            "root.path: empty; give the path of the root filesystem"
        );
        Ok(self.dir.join(root.path()))
    }

    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.spec
            .annotations()
            .as_ref()?
            .get(name)
            .map(String::as_str)
    }

    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.spec
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect()
    }

    /// The config of a process alone, without a root.
    pub fn of_process(dir: PathBuf, spec: Spec) -> Result<Bundle> {
        let bundle = Bundle {
            dir,
            spec,
            overlay: None,
            unknown_capabilities: Vec::new(),
        };
        bundle.check_process()?;
        Ok(bundle)
    }

    /// A bundle whose config was never written down.
    pub fn of_config(dir: PathBuf, config: &Value) -> Result<Bundle> {
        Bundle::of_parsed(dir, parse(&serde_json::to_vec(config)?)?)
    }

    /// What must be on the disk for a container to be made; a dry run does without.
    pub fn check_files(&self) -> Result<()> {
        let Some(overlay) = &self.overlay else {
            let rootfs = self.rootfs()?;
            return check_directory(&rootfs).with_context(|| format!("root.path: {rootfs:?}"));
        };
        let upper = overlay
            .upper
            .iter()
            .flat_map(|upper| [&upper.dir, &upper.work]);
        for dir in overlay.lower.iter().chain(upper) {
            check_directory(dir).with_context(|| format!("overlay directory {dir:?}"))?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        check_version(self.spec.version())?;
        ensure!(
            self.overlay.is_some() || self.root().is_some(),
            "root: missing; give the path of the root filesystem"
        );
        self.check_process()?;
        let names = self.spec.annotations().iter().flat_map(|map| map.keys());
        ensure!(
            names.into_iter().all(|name| !name.is_empty()),
            "annotations: a name is empty"
        );
        Ok(())
    }

    fn check_process(&self) -> Result<()> {
        if let Some(process) = self.spec.process() {
            let cwd = process.cwd();
            ensure!(cwd.is_absolute(), "process.cwd: {cwd:?}: must be absolute");
        }
        Ok(())
    }
}

/// A directory of its own, not a link that someone could turn.
fn check_directory(dir: &Path) -> Result<()> {
    let meta = sys::io(std::fs::symlink_metadata(dir))?;
    ensure!(
        !meta.is_symlink(),
        "is a symbolic link; give the directory itself"
    );
    ensure!(meta.is_dir(), "not a directory");
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .read_to_end(&mut text)
            .context("read the config from stdin")?;
        return Ok(text);
    }
    text = sys::io(std::fs::read(file)).with_context(|| {
        format!(
            "config {}; make one with \"cofferdam spec\", or name the bundle with --bundle",
            file.display()
        )
    })?;
    Ok(text)
}

/// The typed reading is tried first; only a config that it refuses is looked through for what the
/// spec tells runtimes to tolerate.
/// Gives the capabilities that were passed over too.
fn parse(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    // serde would take an array for an object too.
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    ensure!(
        matches!(first, None | Some(b'{')),
        "must be a JSON object, at line 1"
    );
    let (place, first) = match typed(text) {
        Ok(spec) => return Ok((spec, Vec::new())),
        Err(error) => error,
    };
    let mut value: Value = serde_json::from_slice(text)?;
    let unknown = tolerate(&mut value);
    let spec = typed(&serde_json::to_vec(&value)?).map_err(|(path, second)| {
        // Only the first reading knows the lines of the file.
        let words = if path == place {
            first.to_string()
        } else {
            without_position(&second)
        };
        anyhow!("{path}: {words}")
    })?;
    Ok((spec, unknown))
}

/// The config, or the path of the field that is wrong and what is wrong with it.
fn typed(text: &[u8]) -> Result<Spec, (String, serde_json::Error)> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let spec = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| (error.path().to_string(), error.into_inner()))?;
    reader
        .end()
        .map(|()| spec)
        .map_err(|error| (".".to_string(), error))
}

fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ")
        .map_or(text.clone(), |(words, _)| words.to_string())
}

/// Takes out explicit nulls, and capabilities that no kernel known here has.
fn tolerate(value: &mut Value) -> Vec<String> {
    remove_nulls(value);
    let mut unknown = Vec::new();
    for set in [
        "bounding",
        "effective",
        "inheritable",
        "permitted",
        "ambient",
    ] {
        let list = value.pointer_mut(&format!("/process/capabilities/{set}"));
        if let Some(list) = list.and_then(Value::as_array_mut) {
            let is_known =
                |name: &Value| serde_json::from_value::<Capability>(name.clone()).is_ok();
            let passed_over = list.extract_if(.., |name| name.is_string() && !is_known(name));
            unknown.extend(passed_over.filter_map(|name| name.as_str().map(str::to_string)));
        }
    }
    unknown.sort();
    unknown.dedup();
    unknown
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(remove_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

/// Any 1.x: the spec keeps later minors compatible.
fn check_version(version: &str) -> Result<()> {
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = numbers.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let valid = parts.len() == 3 && parts.iter().all(number);
    if !valid {
        bail!("ociVersion: {version:?}: must be a version such as 1.3.0");
    }
    ensure!(
        parts[0] == "1",
        "ociVersion: {version}: only 1.x is supported"
    );
    Ok(())
}

fn overlay(
    dir: &Path,
    annotations: Option<&std::collections::HashMap<String, String>>,
) -> Result<Option<Overlay>> {
    let get = |name: &str| {
        annotations
            .and_then(|map| map.get(name))
            .filter(|text| !text.is_empty())
    };
    let (lower, upper, work) = (get(LOWER), get(UPPER), get(WORK));
    let Some(lower) = lower else {
        ensure!(
            upper.is_none() && work.is_none(),
            "annotations.{UPPER}: needs {LOWER} too"
        );
        return Ok(None);
    };
    let lower: Vec<PathBuf> = lower.split(':').map(|layer| dir.join(layer)).collect();
    let upper = match (upper, work) {
        (Some(upper), Some(work)) => Some(Upper {
            dir: dir.join(upper),
            work: dir.join(work),
        }),
        (Some(_), None) => bail!(
            "annotations.{WORK}: missing; give an empty directory on the filesystem of {UPPER}"
        ),
        (None, Some(_)) => bail!("annotations.{WORK}: has no use without {UPPER}"),
        (None, None) => None,
    };
    Ok(Some(Overlay {
        lower,
        upper,
        user_attributes: false,
    }))
}
