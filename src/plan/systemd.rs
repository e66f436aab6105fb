//! The scope that systemd makes for a container: its name and the properties that stand for its limits.
//!
//! Pure. Limits that systemd knows are given to it, because at a reload it writes again what it knows; all are
//! also written to their files, as without systemd. The device program is this program's own: systemd leaves alone
//! what others attach to a scope that is delegated.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::resources::Setting;
use crate::bundle::Bundle;
use crate::host::Host;
use crate::plan::cpu_list;
use crate::plan::gvariant::{self, Value};

/// Annotations with this prefix are properties of the scope.
const ANNOTATION: &str = "org.systemd.property.";

#[derive(Clone, Debug)]
pub struct Scope {
    pub unit: String,
    pub slice: String,
    /// Its directory below that of the manager.
    pub path: PathBuf,
    pub properties: Vec<Property>,
    /// On whose bus systemd is asked.
    pub instance: Instance,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instance {
    System,
    User,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    pub name: String,
    pub value: Value,
    /// Whether the config asks for it by name; else one that an older systemd does not know is left out.
    pub asked: bool,
}

impl Property {
    fn new(name: &str, value: Value) -> Property {
        Property {
            name: name.to_string(),
            value,
            asked: false,
        }
    }
}

/// `slice:prefix:name` as systemd sees it: the scope `prefix-name.scope` in the nested slice.
pub fn scope(bundle: &Bundle, host: &Host, id: &str, settings: &[Setting]) -> Result<Scope> {
    let linux = bundle.spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let instance = match host.euid != 0 || host.in_user_namespace {
        true => Instance::User,
        false => Instance::System,
    };
    let (slice, unit) = names(path.unwrap_or(Path::new("")), id, instance)?;
    Ok(Scope {
        path: slice_path(&slice)?.join(&unit),
        properties: properties(id, &slice, settings, &bundle.annotations())?,
        slice,
        unit,
        instance,
    })
}

fn names(path: &Path, id: &str, instance: Instance) -> Result<(String, String)> {
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split(':').collect();
    let (slice, prefix, name) = match parts[..] {
        [""] => ("", "cofferdam", id),
        [slice, prefix, name] if !name.is_empty() && !text.contains('/') => (slice, prefix, name),
        _ => bail!("linux.cgroupsPath: {text}: with --systemd-cgroup it must be slice:prefix:name"),
    };
    // systemd.slice(5): a slice holds units, and no processes.
    ensure!(
        !name.ends_with(".slice"),
        "linux.cgroupsPath: {text}: a container cannot be a slice; give the name of a scope, without \".slice\""
    );
    let slice = match (slice, instance) {
        ("", Instance::System) => "system.slice",
        ("", Instance::User) => "user.slice",
        (slice, _) => slice,
    };
    let unit = match prefix {
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    };
    Ok((slice.to_string(), unit))
}

/// systemd.slice(5): `a-b.slice` lies inside `a.slice`.
fn slice_path(slice: &str) -> Result<PathBuf> {
    let Some(stem) = slice
        .strip_suffix(".slice")
        .filter(|stem| !stem.contains('/'))
    else {
        bail!("linux.cgroupsPath: {slice}: must be the name of a slice, such as system.slice");
    };
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let mut name = String::new();
    for part in stem.split('-') {
        ensure!(
            !part.is_empty(),
            "linux.cgroupsPath: {slice}: is no name of a slice"
        );
        name = if name.is_empty() {
            part.to_string()
        } else {
            format!("{name}-{part}")
        };
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

impl Scope {
    /// Where it is to be expected below the cgroup mount. Only systemd knows where it began itself.
    pub fn expected(&self, host: &Host) -> PathBuf {
        if self.instance == Instance::System {
            return Path::new("/").join(&self.path);
        }
        let is_manager = |path: &&Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("user@") && name.ends_with(".service")
        };
        let service = |uid: u32| format!("/user.slice/user-{uid}.slice/user@{uid}.service");
        let manager = match host.cgroup.own.ancestors().find(is_manager) {
            Some(manager) => manager.to_path_buf(),
            // Root of a user namespace has another number outside.
            None if host.euid == 0 => PathBuf::from("/"),
            None => PathBuf::from(service(host.euid)),
        };
        manager.join(&self.path)
    }
}

/// All properties of a new scope but the process that begins it. What annotations say counts last.
fn properties(
    id: &str,
    slice: &str,
    settings: &[Setting],
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Property>> {
    let description = format!("cofferdam container {id}");
    let mut properties = vec![
        Property::new("Description", Value::text(description)),
        Property::new("Slice", Value::text(slice)),
        Property::new("DefaultDependencies", Value::Bool(false)),
        Property::new("Delegate", Value::Bool(true)),
    ];
    for controller in ["CPU", "IO", "Memory", "Tasks"] {
        properties.push(Property::new(
            &format!("{controller}Accounting"),
            Value::Bool(true),
        ));
    }
    properties.extend(limits(settings)?);
    for (name, text) in annotations {
        if let Some(name) = name.strip_prefix(ANNOTATION) {
            let property = annotated(name, text)?;
            properties.retain(|known| known.name != property.name);
            properties.push(property);
        }
    }
    Ok(properties)
}

/// A property by its name; a time may be given in seconds, as in unit files: `TimeoutStopSec` is `TimeoutStopUSec`.
fn annotated(name: &str, text: &str) -> Result<Property> {
    let field = || format!("annotations[\"{ANNOTATION}{name}\"]");
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    ensure!(
        is_name,
        "{}: {name:?}: must be the name of a property, such as TimeoutStopUSec",
        field()
    );
    ensure!(
        name != "PIDs",
        "{}: must not be set: systemd would move other processes into the container's scope",
        field()
    );
    let value = gvariant::parse(text).with_context(field)?;
    let (name, value) = match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
        Some(stem) => (
            format!("{stem}USec"),
            microseconds(&value).with_context(field)?,
        ),
        None => (name.to_string(), value),
    };
    Ok(Property {
        name,
        value,
        asked: true,
    })
}

fn microseconds(seconds: &Value) -> Result<Value> {
    let count = match *seconds {
        Value::Double(value) if value >= 0.0 => (value * 1e6) as u64,
        Value::I32(value) if value >= 0 => value as u64 * 1_000_000,
        Value::I64(value) if value >= 0 => (value as u64).saturating_mul(1_000_000),
        Value::U32(value) => u64::from(value) * 1_000_000,
        Value::U64(value) => value.saturating_mul(1_000_000),
        _ => anyhow::bail!("{seconds}: must be a number of seconds"),
    };
    Ok(Value::U64(count))
}

/// What systemd knows of the settings, later ones replacing earlier ones.
pub fn limits(settings: &[Setting]) -> Result<Vec<Property>> {
    let mut found: Vec<Property> = Vec::new();
    for setting in settings {
        for property in property(setting)? {
            found.retain(|known| !replaces(&property, known));
            found.push(property);
        }
    }
    Ok(found)
}

/// A list is added to the one that systemd has, a device at a time.
fn replaces(new: &Property, known: &Property) -> bool {
    let device = |property: &Property| match &property.value {
        Value::Array(kind, pairs) if kind == "(st)" => match pairs.first() {
            Some(Value::Struct(pair)) => pair.first().cloned(),
            _ => None,
        },
        _ => None,
    };
    new.name == known.name && device(new) == device(known)
}

/// cgroup v2 file and property, for files that hold one number or `max`.
const NUMBERS: [(&str, &str); 8] = [
    ("memory.min", "MemoryMin"),
    ("memory.low", "MemoryLow"),
    ("memory.high", "MemoryHigh"),
    ("memory.max", "MemoryMax"),
    ("memory.swap.max", "MemorySwapMax"),
    ("memory.zswap.max", "MemoryZSwapMax"),
    ("pids.max", "TasksMax"),
    ("cpu.weight", "CPUWeight"),
];

fn property(setting: &Setting) -> Result<Vec<Property>> {
    let Setting {
        file, value, field, ..
    } = setting;
    let value = value.trim();
    if let Some((_, name)) = NUMBERS.iter().find(|(known, _)| known == file) {
        return Ok(vec![Property::new(name, number(value, field)?)]);
    }
    let one = |name: &str, value: Value| Ok(vec![Property::new(name, value)]);
    match file.as_str() {
        // systemd has a weight of 0 for it.
        "cpu.idle" if value == "1" => one("CPUWeight", Value::U64(0)),
        // The kernel gives it the default weight then (kernel/sched/fair.c, sched_group_set_idle).
        "cpu.idle" => one("CPUWeight", Value::U64(u64::MAX)),
        "cpu.max" => cpu_max(value, field),
        "cpuset.cpus" => one("AllowedCPUs", mask(value, field)?),
        "cpuset.mems" => one("AllowedMemoryNodes", mask(value, field)?),
        "io.weight" => Ok(Vec::from_iter(io_weight(value, |weight| weight))),
        "io.bfq.weight" => Ok(Vec::from_iter(io_weight(value, wide_weight))),
        "memory.oom.group" if value == "1" => one("OOMPolicy", Value::text("kill")),
        "memory.oom.group" => one("OOMPolicy", Value::text("continue")),
        _ => Ok(Vec::new()),
    }
}

/// `500`, `default 500`, or `8:0 500`. Where systemd writes the first, BFQ forgets the weights of devices (block/bfq-cgroup.c,
/// bfq_io_set_weight_legacy), so that it has to know them too.
fn io_weight(text: &str, scale: impl Fn(u64) -> u64) -> Option<Property> {
    let (device, weight) = text.split_once(' ').unwrap_or(("default", text));
    let weight = Value::U64(scale(weight.trim().parse().ok()?));
    if device == "default" {
        return Some(Property::new("IOWeight", weight));
    }
    // The kernel refuses what is no device; systemd would take it for the path of another file.
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    let path = Value::text(format!("/dev/block/{major}:{minor}"));
    let weights = vec![Value::Struct(vec![path, weight])];
    Some(Property::new(
        "IODeviceWeight",
        Value::Array("(st)".to_string(), weights),
    ))
}

/// systemd writes the file of BFQ too, for which it scales IOWeight down (its src/basic/cgroup-util.h, BFQ_WEIGHT).
fn wide_weight(weight: u64) -> u64 {
    match weight {
        0..=100 => weight,
        _ => (weight - 100).saturating_mul(11).saturating_add(100),
    }
}

fn number(text: &str, field: &str) -> Result<Value> {
    match text {
        "max" => Ok(Value::U64(u64::MAX)),
        _ => text
            .parse()
            .ok()
            .map(Value::U64)
            .with_context(|| format!("{field}: {text}: must be a number or max")),
    }
}

/// systemd counts the time in each second, in steps of 10 ms; less than was asked for would be wrong.
fn cpu_max(text: &str, field: &str) -> Result<Vec<Property>> {
    const STEP: u64 = 10_000;
    let mut words = text.split_whitespace();
    let quota = number(words.next().unwrap_or("max"), field)?;
    let period = words.next().map(|word| number(word, field)).transpose()?;
    let (Value::U64(quota), Value::U64(period)) = (quota, period.unwrap_or(Value::U64(100_000)))
    else {
        return Ok(Vec::new());
    };
    ensure!(period > 0, "{field}: {text}: the period must not be 0");
    let share = match quota {
        u64::MAX => u64::MAX,
        _ => u64::try_from((u128::from(quota) * 1_000_000).div_ceil(u128::from(period)))
            .unwrap_or(u64::MAX),
    };
    let share = share.checked_next_multiple_of(STEP).unwrap_or(u64::MAX);
    Ok(vec![
        Property::new("CPUQuotaPerSecUSec", Value::U64(share)),
        Property::new("CPUQuotaPeriodUSec", Value::U64(period)),
    ])
}

/// A byte for each eight numbers, the lowest first.
fn mask(list: &str, field: &str) -> Result<Value> {
    const MOST: usize = 8192;
    let words = cpu_list::bits(list, MOST).with_context(|| field.to_string())?;
    let mut bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes.truncate(used);
    let bytes = bytes.into_iter().map(Value::Byte).collect();
    Ok(Value::Array("y".to_string(), bytes))
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "systemd scope {} in {}", self.unit, self.slice)?;
        for property in &self.properties {
            write!(f, ", {}={}", property.name, property.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::tests::{self as fixture, host, users_host};

    fn setting(file: &str, value: &str) -> Setting {
        Setting {
            controller: String::new(),
            file: file.to_string(),
            value: value.to_string(),
            field: "f".to_string(),
            optional: false,
            alternative: None,
        }
    }

    fn shown(properties: &[Property]) -> Vec<String> {
        let text = |property: &Property| format!("{}={}", property.name, property.value);
        properties.iter().map(text).collect()
    }

    fn limit(file: &str, value: &str) -> Vec<String> {
        shown(&limits(&[setting(file, value)]).unwrap())
    }

    #[test]
    fn limits_become_properties() {
        for (file, value, want) in [
            ("memory.max", "1048576", "MemoryMax=1048576"),
            ("memory.max", "max", "MemoryMax=infinity"),
            ("memory.swap.max", "0", "MemorySwapMax=0"),
            ("memory.low", "5", "MemoryLow=5"),
            ("pids.max", "7", "TasksMax=7"),
            ("cpu.weight", "100", "CPUWeight=100"),
            ("cpu.idle", "1", "CPUWeight=0"),
            ("cpu.idle", "0", "CPUWeight=infinity"),
            ("io.weight", "default 50", "IOWeight=50"),
            ("io.bfq.weight", "10", "IOWeight=10"),
            ("io.bfq.weight", "default 500", "IOWeight=4500"),
            ("io.bfq.weight", "1000", "IOWeight=10000"),
            (
                "io.bfq.weight",
                "8:0 500",
                "IODeviceWeight=[(\"/dev/block/8:0\", 4500)]",
            ),
            (
                "io.weight",
                "8:0 500",
                "IODeviceWeight=[(\"/dev/block/8:0\", 500)]",
            ),
            ("cpuset.cpus", "0-3,9", "AllowedCPUs=[15, 2]"),
            ("cpuset.mems", "0", "AllowedMemoryNodes=[1]"),
            ("memory.oom.group", "1", "OOMPolicy=\"kill\""),
        ] {
            assert_eq!(limit(file, value), [want], "{file}");
        }
        for (file, value) in [
            ("hugetlb.2MB.max", "0"),
            ("io.max", "8:0 rbps=1"),
            ("io.weight", "../../a 5"),
        ] {
            assert_eq!(limit(file, value), [""; 0], "{file}");
        }
    }

    #[test]
    fn a_quota_is_a_share_of_a_second_and_never_less_than_asked() {
        for (text, share, period) in [
            ("50000 100000", "500000", "100000"),
            ("1000 100000", "10000", "100000"),
            ("33333 100000", "340000", "100000"),
            ("150000 100000", "1500000", "100000"),
            ("max 50000", "infinity", "50000"),
            ("18446744073710 1", "infinity", "1"),
            ("100 200045867", "10000", "200045867"),
        ] {
            let want = [
                format!("CPUQuotaPerSecUSec={share}"),
                format!("CPUQuotaPeriodUSec={period}"),
            ];
            assert_eq!(limit("cpu.max", text), want, "{text}");
        }
    }

    #[test]
    fn later_settings_count() {
        let settings = [
            setting("memory.max", "5"),
            setting("cpu.idle", "1"),
            setting("memory.max", "6"),
        ];
        assert_eq!(
            shown(&limits(&settings).unwrap()),
            ["CPUWeight=0", "MemoryMax=6"]
        );
        let settings = [
            setting("io.bfq.weight", "8:0 20"),
            setting("io.bfq.weight", "8:16 30"),
            setting("io.bfq.weight", "8:0 40"),
        ];
        let pairs = [("8:16", 30), ("8:0", 40)].map(|(device, weight)| {
            format!("IODeviceWeight=[(\"/dev/block/{device}\", {weight})]")
        });
        assert_eq!(shown(&limits(&settings).unwrap()), pairs);
        let error = limits(&[setting("pids.max", "many")]).unwrap_err();
        assert!(format!("{error:#}").starts_with("f: many: must be a number or max"));
    }

    #[test]
    fn annotations_are_properties_that_replace_ours() {
        let annotations = [
            ("org.systemd.property.DefaultDependencies", "true"),
            ("org.systemd.property.TimeoutStopSec", "1.5"),
            ("org.systemd.property.After", "['crio.service']"),
            ("other", "x"),
        ];
        let annotations = annotations.map(|(name, text)| (name.to_string(), text.to_string()));
        let all = properties("c", "a.slice", &[], &annotations.into()).unwrap();
        let shown = shown(&all);
        assert!(
            shown.contains(&"Slice=\"a.slice\"".to_string())
                && shown.contains(&"Delegate=true".to_string())
        );
        assert_eq!(
            shown[shown.len() - 3..],
            [
                "After=[\"crio.service\"]",
                "DefaultDependencies=true",
                "TimeoutStopUSec=1500000"
            ]
        );
        assert_eq!(
            shown
                .iter()
                .filter(|text| text.starts_with("DefaultDependencies"))
                .count(),
            1
        );
    }

    fn placed(text: &str, host: &Host) -> Result<Scope> {
        let bundle = fixture::bundle(&[("/linux/cgroupsPath", json!(text))]);
        scope(&bundle, host, "c", &[])
    }

    #[test]
    fn scopes_lie_in_nested_slices() {
        for (text, expected) in [
            ("", "system.slice/cofferdam-c.scope"),
            ("::x", "system.slice/x.scope"),
            ("a-b-c.slice:p:x", "a.slice/a-b.slice/a-b-c.slice/p-x.scope"),
            ("-.slice:p:x", "p-x.scope"),
        ] {
            let scope = placed(text, &host()).unwrap();
            assert_eq!(scope.path, Path::new(expected), "{text}");
            assert_eq!(scope.path.file_name().unwrap(), &*scope.unit);
            assert_eq!(scope.expected(&host()), Path::new("/").join(expected));
        }
        for text in [
            "/a",
            "a:b",
            "a.slice:b:",
            "a:b:c",
            "a--b.slice:p:x",
            "a/b.slice:p:x",
            "a.slice:../../p:x",
            "a.slice:p:x/../y",
            "user.slice:p:x.slice",
        ] {
            assert!(placed(text, &host()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_scope_of_a_user_lies_below_that_users_manager() {
        let mut host = users_host();
        let manager = "/user.slice/user-1000.slice/user@1000.service";
        let expected = format!("{manager}/user.slice/cofferdam-c.scope");
        for own in [
            "/user.slice/session.scope",
            &format!("{manager}/app.slice/x.service"),
        ] {
            host.cgroup.own = own.into();
            let scope = placed("", &host).unwrap();
            assert_eq!(scope.instance, Instance::User);
            assert_eq!(scope.expected(&host), Path::new(&expected), "{own}");
        }
        let root = Host {
            in_user_namespace: true,
            denies_setgroups: false,
            ..fixture::host()
        };
        assert_eq!(placed("", &root).unwrap().instance, Instance::User);
    }

    #[test]
    fn faults_name_the_annotation() {
        for (name, text, want) in [
            (
                "",
                "true",
                "annotations[\"org.systemd.property.\"]: \"\": must be the name",
            ),
            (
                "A.B",
                "true",
                "annotations[\"org.systemd.property.A.B\"]: \"A.B\": must be the name",
            ),
            (
                "PIDs",
                "[uint32 1]",
                "annotations[\"org.systemd.property.PIDs\"]: must not be set",
            ),
            (
                "After",
                "nonsense",
                "annotations[\"org.systemd.property.After\"]: \"nonsense\": is no value",
            ),
            (
                "TimeoutStopSec",
                "'x'",
                "annotations[\"org.systemd.property.TimeoutStopSec\"]: \"x\": must be a number of seconds",
            ),
        ] {
            let annotations = BTreeMap::from([(format!("{ANNOTATION}{name}"), text.to_string())]);
            let error = properties("c", "a.slice", &[], &annotations).unwrap_err();
            assert!(format!("{error:#}").starts_with(want), "{error:#}");
        }
    }
}
