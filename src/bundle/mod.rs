//! `Bundle`: a directory with a config.json, loaded and judged. Parent only.
//!
//! The spec leaves objects open and enumerations closed: unknown properties, annotations and
//! capabilities are passed over, wrong values are errors that name their field.

mod absent_fields;
mod misspelt;
mod names;
pub mod overlay;
mod reject_arrays;
pub mod unique_keys;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use oci_spec::runtime::{Capability, LinuxResources, Root, Spec};
use serde_json::Value;

use crate::bundle::overlay::{Overlay, Upper};
use crate::sys::{self, caller_file};

/// Annotations that make the runtime assemble the root itself.
const LOWER: &str = "dev.cofferdam.overlay.lower";
const UPPER: &str = "dev.cofferdam.overlay.upper";
const WORK: &str = "dev.cofferdam.overlay.work";

#[derive(Debug)]
pub struct Bundle {
    pub dir: PathBuf,
    /// Large: to move it is to copy pages.
    pub spec: Box<Spec>,
    pub overlay: Option<Overlay>,
    /// Names that no kernel known here has.
    pub unknown_capabilities: Vec<String>,
    /// Warnings of misspelt names.
    pub warnings: Vec<String>,
}

impl Bundle {
    /// Loads `config`, by default the bundle's config.json.
    pub fn load(dir: &Path, config: Option<&Path>) -> Result<Bundle> {
        let dir = sys::path::real(dir)
            .map_err(|error| {
                sys::path::check_only_directories(dir)
                    .err()
                    .unwrap_or(error)
            })
            .with_context(|| format!("bundle {dir:?}"))?;
        let file = config.map_or_else(|| dir.join("config.json"), Path::to_path_buf);
        let text = read(&file)?;
        let parsed = parse(&text).with_context(|| format!("{}", file.display()))?;
        Bundle::of_parsed(dir, parsed)
    }

    pub fn of_parsed(dir: PathBuf, parsed: Parsed) -> Result<Bundle> {
        Ok(Bundle {
            unknown_capabilities: parsed.unknown_capabilities,
            warnings: parsed.warnings,
            ..Bundle::new(dir, parsed.spec)?
        })
    }

    pub fn new(dir: PathBuf, spec: Box<Spec>) -> Result<Bundle> {
        let overlay = overlay(&dir, spec.annotations().as_ref())?;
        let bundle = Bundle {
            dir,
            spec,
            overlay,
            unknown_capabilities: Vec::new(),
            warnings: Vec::new(),
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

    pub fn mount_label(&self) -> Option<&str> {
        let label = self.spec.linux().as_ref()?.mount_label().as_deref();
        label.filter(|label| !label.is_empty())
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
    pub fn of_process(dir: PathBuf, config: &Value) -> Result<Bundle> {
        let parsed = parse(&serde_json::to_vec(config)?)?;
        let bundle = Bundle {
            dir,
            spec: parsed.spec,
            overlay: None,
            unknown_capabilities: parsed.unknown_capabilities,
            warnings: parsed.warnings,
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

/// `linux.resources` alone, as `update` is given it.
pub fn resources(value: &Value) -> Result<LinuxResources> {
    let config = serde_json::json!({"ociVersion": "1.0.0", "linux": {"resources": value}});
    let parsed = parse(&serde_json::to_vec(&config)?)?;
    let linux = parsed.spec.linux().as_ref();
    Ok(linux
        .and_then(|linux| linux.resources().clone())
        .unwrap_or_default())
}

/// A directory of its own, not a link that someone could turn.
fn check_directory(dir: &Path) -> Result<()> {
    // A slash or a dot at the end would follow it (path_resolution(7)).
    let plain: PathBuf = dir.components().collect();
    let meta = sys::io(std::fs::symlink_metadata(plain))?;
    ensure!(
        !meta.is_symlink(),
        "is a symbolic link; give the directory itself"
    );
    ensure!(meta.is_dir(), "must be a directory");
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    if file == Path::new("-") {
        return sys::read_all(std::io::stdin().lock()).context("read the config from stdin");
    }
    caller_file::read(file).with_context(|| {
        format!(
            "config {}; make one with \"cofferdam spec\", or name the bundle with --bundle",
            file.display()
        )
    })
}

/// A config as it was read.
#[derive(Debug)]
pub struct Parsed {
    pub spec: Box<Spec>,
    /// Capabilities that were passed over.
    pub unknown_capabilities: Vec<String>,
    /// Warnings of misspelt names.
    pub warnings: Vec<String>,
}

/// Reads a config. Fails with the path of the field that is wrong.
pub fn parse(text: &[u8]) -> Result<Parsed> {
    let odd = names::odd(text);
    let (spec, unknown_capabilities) = spec_of(text, &odd)?;
    Ok(Parsed {
        spec,
        unknown_capabilities,
        warnings: misspelt::warnings(text, &odd),
    })
}

/// The typed reading is tried first; only a config that it refuses is looked through for what the
/// spec tells runtimes to tolerate.
/// Gives the capabilities that were passed over too.
fn spec_of(text: &[u8], odd: &[&str]) -> Result<(Box<Spec>, Vec<String>)> {
    // serde would take an array for an object too.
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    ensure!(
        matches!(first, None | Some(b'{')),
        "must be a JSON object, at line 1"
    );
    reject_arrays::check(text)?;
    // To keep track of the path takes as long again, for the sake of an error.
    let read = serde_json::from_slice(text).or_else(|_| typed(text));
    let (place, first) = match read {
        Ok(spec) if absent_fields::in_doubt(&spec, text) || names::in_doubt(odd) => {
            return settled(text);
        }
        Ok(spec) => return Ok((spec, Vec::new())),
        Err(error) => error,
    };
    let mut value = unique_keys::read(text)?;
    names::settle(&mut value)?;
    let unknown = tolerate(&mut value);
    absent_fields::settle(&mut value)?;
    let spec = typed(&serde_json::to_vec(&value)?).map_err(|(path, second)| {
        // Only the first reading knows the lines of the file.
        let words = if path == place {
            first.to_string()
        } else {
            without_position(&second)
        };
        let words = SCHEDULER_FLAGS
            .iter()
            .fold(words, |words, (name, read)| words.replace(read, name));
        anyhow!("{path}: {words}")
    })?;
    Ok((spec, unknown))
}

fn settled(text: &[u8]) -> Result<(Box<Spec>, Vec<String>)> {
    let mut value: Value = serde_json::from_slice(text)?;
    names::settle(&mut value)?;
    absent_fields::settle(&mut value)?;
    let spec = typed(&serde_json::to_vec(&value)?);
    let spec = spec.map_err(|(path, error)| anyhow!("{path}: {}", without_position(&error)))?;
    Ok((spec, Vec::new()))
}

/// The config, or the path of the field that is wrong and what is wrong with it.
fn typed(text: &[u8]) -> Result<Box<Spec>, (String, serde_json::Error)> {
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

/// Flags of the scheduler, as config.md has them and as the crate that reads the config does.
const SCHEDULER_FLAGS: [(&str, &str); 2] = [
    ("SCHED_FLAG_RESET_ON_FORK", "SCHED_RESET_ON_FORK"),
    ("SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_D_L_OVERRUN"),
];

/// Takes out explicit nulls, and capabilities that no kernel known here has.
fn tolerate(value: &mut Value) -> Vec<String> {
    remove_nulls(value);
    let flags = value.pointer_mut("/process/scheduler/flags");
    for flag in flags.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((_, read)) = SCHEDULER_FLAGS.iter().find(|(name, _)| flag == name) {
            *flag = Value::from(*read);
        }
    }
    let affinity = value.pointer_mut("/process/execCPUAffinity");
    if let Some(lists) = affinity.and_then(Value::as_object_mut) {
        // config.md: omitted or empty.
        lists.retain(|_, list| list != "");
    }
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
    ensure!(
        lower.split(':').all(|layer| !layer.is_empty()),
        "annotations.{LOWER}: {lower:?}: a layer is empty"
    );
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::tests::{self as fixture, bundle};

    fn parsed(change: (&str, Value)) -> Result<Parsed> {
        parse(&serde_json::to_vec(&fixture::config(&[change])).unwrap())
    }

    fn fault(text: &str) -> String {
        format!("{:#}", parse(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn what_the_spec_leaves_open_is_passed_over() {
        let cases = [
            ("/future", json!({"a": 1})),
            ("/process/future", json!(null)),
            ("/linux/seccomp", json!(null)),
            ("/mounts", json!(null)),
            ("/hooks", json!({"prestart": null})),
            ("/process/rlimits", json!(null)),
            ("/annotations", json!(null)),
        ];
        for (pointer, value) in cases {
            let parsed = parsed((pointer, value));
            assert!(parsed.is_ok(), "{pointer}: {:#}", parsed.unwrap_err());
        }
    }

    #[test]
    fn unknown_capabilities_are_passed_over_and_told() {
        let sets =
            json!({"bounding": ["CAP_NEW", "CAP_KILL", "CAP_OLD"], "effective": ["CAP_NEW"]});
        let parsed_sets = parsed(("/process/capabilities", sets)).unwrap();
        assert_eq!(parsed_sets.unknown_capabilities, ["CAP_NEW", "CAP_OLD"]);
        let capabilities = parsed_sets
            .spec
            .process()
            .as_ref()
            .unwrap()
            .capabilities()
            .clone()
            .unwrap();
        assert_eq!(capabilities.bounding().as_ref().unwrap().len(), 1);
        assert!(parsed(("/process/capabilities", json!({"bounding": [5]}))).is_err());
    }

    #[test]
    fn wrong_values_name_their_field() {
        let cases = [
            ("/process/args", json!("sh"), "process.args: "),
            (
                "/process/user",
                json!({"uid": -1, "gid": 0}),
                "process.user.uid: ",
            ),
            (
                "/linux/namespaces",
                json!([{"type": "moon"}]),
                "linux.namespaces[0].type: ",
            ),
            (
                "/process/rlimits",
                json!([{"type": "RLIMIT_X", "soft": 1, "hard": 1}]),
                "process.rlimits[0].type: ",
            ),
        ];
        for (pointer, value, words) in cases {
            let fault = format!("{:#}", parsed((pointer, value)).unwrap_err());
            assert!(fault.starts_with(words), "{pointer}: {fault}");
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in [
            "",
            "  ",
            "[]",
            "null",
            "{",
            "{} {}",
            "\u{feff}{}",
            "{\"ociVersion\": 1}",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert_eq!(fault("[]"), "must be a JSON object, at line 1");
    }

    #[test]
    fn what_is_absent_is_not_zero() {
        let config = |resources: &str, process: &str| {
            let text = format!(
                r#"{{"ociVersion": "1.0.0", "linux": {{"resources": {resources}}}, "process": {process}}}"#
            );
            parse(text.as_bytes()).map(|parsed| parsed.spec)
        };
        let process = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0}}"#;
        let pids = |resources: &str| {
            let spec = config(resources, process).unwrap();
            let resources = spec.linux().as_ref().unwrap().resources().clone().unwrap();
            resources.pids().map(|pids| pids.limit())
        };
        assert_eq!(pids(r#"{"pids": {}}"#), None);
        assert_eq!(pids(r#"{"pids": {"limit": null}}"#), None);
        assert_eq!(pids(r#"{"pids": {"limit": 0}}"#), Some(0));
        assert_eq!(pids(r#"{"pids": {"limit": 7}}"#), Some(7));
        let class = r#"{"cwd": "/", "user": {"uid": 0, "gid": 0}, "ioPriority": {"priority": 1}}"#;
        let error = config("{}", class).unwrap_err().to_string();
        assert!(
            error.starts_with("process.ioPriority.class: missing"),
            "{error}"
        );
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        let text = r#"{"ociVersion": "1.0.0", "root": {"path": "a"}, "root": {"path": "b"}}"#;
        let fault = fault(text);
        assert!(fault.contains("duplicate field `root`"), "{fault}");
    }

    #[test]
    fn any_version_1_is_taken() {
        for version in ["1.0.0", "1.0.2-dev", "1.3.0+build", "1.99.0", "1.0.0-rc.5"] {
            assert!(check_version(version).is_ok(), "{version}");
        }
        for version in [
            "", "1", "1.0", "1.0.0.0", "v1.0.0", "0.9.0", "2.0.0", "1.x.0", "1..0", "invalid",
            "-1.0.0",
        ] {
            let error = check_version(version).unwrap_err().to_string();
            assert!(error.starts_with("ociVersion: "), "{version}: {error}");
        }
    }

    #[test]
    fn a_config_needs_a_root_an_absolute_cwd_and_names_of_annotations() {
        let cases = [
            ("/root", json!(null), "root: missing"),
            (
                "/process/cwd",
                json!("a"),
                "process.cwd: \"a\": must be absolute",
            ),
            (
                "/process/cwd",
                json!(""),
                "process.cwd: \"\": must be absolute",
            ),
            (
                "/annotations",
                json!({"": "x"}),
                "annotations: a name is empty",
            ),
        ];
        for (pointer, value, words) in cases {
            let config = fixture::config(&[(pointer, value)]);
            let error = Bundle::of_config(PathBuf::from("/b"), &config).unwrap_err();
            assert!(error.to_string().starts_with(words), "{error}");
        }
        let rootfs = |path: &str| bundle(&[("/root", json!({"path": path}))]).rootfs();
        assert_eq!(rootfs("/abs").unwrap(), PathBuf::from("/abs"));
        assert_eq!(rootfs("rel").unwrap(), PathBuf::from("/bundle/rel"));
        assert!(rootfs("").is_err());
    }

    #[test]
    fn overlays_are_described_by_annotations() {
        let read = |list: &[(&str, &str)]| {
            let list = list
                .iter()
                .map(|(name, value)| (format!("dev.cofferdam.overlay.{name}"), value.to_string()));
            overlay(Path::new("/b"), Some(&list.collect()))
        };
        assert_eq!(overlay(Path::new("/b"), None).unwrap(), None);
        assert_eq!(read(&[("lower", "")]).unwrap(), None);
        let found = read(&[("lower", "/top:base"), ("upper", "u"), ("work", "/w")])
            .unwrap()
            .unwrap();
        assert_eq!(found.lower, ["/top", "/b/base"].map(PathBuf::from));
        let upper = Upper {
            dir: PathBuf::from("/b/u"),
            work: PathBuf::from("/w"),
        };
        assert_eq!(found.upper, Some(upper));
        assert_eq!(read(&[("lower", "/l")]).unwrap().unwrap().upper, None);
        let faults: [(&[(&str, &str)], &str); 6] = [
            (
                &[("upper", "u")],
                "annotations.dev.cofferdam.overlay.upper: needs",
            ),
            (
                &[("work", "w")],
                "annotations.dev.cofferdam.overlay.upper: needs",
            ),
            (
                &[("lower", "l"), ("upper", "u")],
                "annotations.dev.cofferdam.overlay.work: missing",
            ),
            (
                &[("lower", "l"), ("work", "w")],
                "annotations.dev.cofferdam.overlay.work: has no use",
            ),
            (
                &[("lower", "a::b")],
                "annotations.dev.cofferdam.overlay.lower: \"a::b\": a layer is empty",
            ),
            (
                &[("lower", "a:")],
                "annotations.dev.cofferdam.overlay.lower: \"a:\": a layer is empty",
            ),
        ];
        for (list, words) in faults {
            let error = read(list).unwrap_err().to_string();
            assert!(error.starts_with(words), "{list:?}: {error}");
        }
    }
}
