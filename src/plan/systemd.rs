//! The scope that systemd makes for a container: its name and the properties that stand for its limits.
//!
//! Pure. Limits that systemd knows are given to it, because at a reload it writes again what it knows; all are
//! also written to their files, as without systemd. The device program is this program's own: systemd leaves alone
//! what others attach to a scope that is delegated.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::resources::Setting;
use super::variant;
use crate::dbus::Value;

/// Annotations with this prefix are properties of the scope.
const ANNOTATION: &str = "org.systemd.property.";

#[derive(Clone, Debug)]
pub struct Scope {
    pub unit: String,
    pub slice: String,
    /// Its directory; the container's may lie below.
    pub path: PathBuf,
    pub properties: Vec<Property>,
    /// On whose bus systemd is asked.
    pub manager: Manager,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manager {
    #[default]
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

/// All properties of a new scope but the process that begins it. What annotations say counts last.
pub fn properties(
    id: &str,
    unit: &str,
    slice: &str,
    settings: &[Setting],
    annotations: &BTreeMap<String, String>,
) -> Result<Vec<Property>> {
    let parent = match unit.ends_with(".slice") {
        // A slice lies where its name says.
        true => Property::new(
            "Wants",
            Value::Array("s".to_string(), vec![Value::text(slice)]),
        ),
        false => Property::new("Slice", Value::text(slice)),
    };
    let mut properties = vec![
        Property::new(
            "Description",
            Value::text(format!("cofferdam container {id}")),
        ),
        parent,
        Property::new("DefaultDependencies", Value::Bool(false)),
    ];
    if !unit.ends_with(".slice") {
        // A slice cannot be delegated (systemd.resource-control(5)).
        properties.push(Property::new("Delegate", Value::Bool(true)));
    }
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
    let value = variant::parse(text).with_context(field)?;
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
            found.retain(|known| known.name != property.name);
            found.push(property);
        }
    }
    Ok(found)
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
        "cpu.max" => cpu_max(value, field),
        "cpuset.cpus" => one("AllowedCPUs", mask(value, field)?),
        "cpuset.mems" => one("AllowedMemoryNodes", mask(value, field)?),
        "io.weight" => one(
            "IOWeight",
            number(value.trim_start_matches("default").trim(), field)?,
        ),
        "memory.oom.group" if value == "1" => one("OOMPolicy", Value::text("kill")),
        "memory.oom.group" => one("OOMPolicy", Value::text("continue")),
        _ => Ok(Vec::new()),
    }
}

fn number(text: &str, field: &str) -> Result<Value> {
    match text {
        "max" => Ok(Value::U64(u64::MAX)),
        _ => text
            .parse()
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
        _ => (u128::from(quota) * 1_000_000 / u128::from(period)) as u64,
    };
    let share = share.checked_next_multiple_of(STEP).unwrap_or(u64::MAX);
    Ok(vec![
        Property::new("CPUQuotaPerSecUSec", Value::U64(share)),
        Property::new("CPUQuotaPeriodUSec", Value::U64(period)),
    ])
}

/// A list such as `0-3,7` as a bit for each number, the lowest first.
fn mask(list: &str, field: &str) -> Result<Value> {
    const MOST: usize = 8192;
    let mut bytes = Vec::new();
    for range in list
        .split(',')
        .map(str::trim)
        .filter(|range| !range.is_empty())
    {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let parse = |text: &str| {
            text.trim()
                .parse::<usize>()
                .ok()
                .filter(|number| *number < MOST)
        };
        let (first, last) = parse(first)
            .zip(parse(last))
            .with_context(|| format!("{field}: {list:?}: must be a list such as 0-3,7"))?;
        for number in first..=last {
            bytes.resize(bytes.len().max(number / 8 + 1), 0u8);
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    let bytes = bytes.into_iter().map(Value::Byte).collect();
    Ok(Value::Array("y".to_string(), bytes))
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} in {}", self.unit, self.slice)?;
        for property in &self.properties {
            write!(f, ", {}={}", property.name, property.value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("io.weight", "default 50", "IOWeight=50"),
            ("cpuset.cpus", "0-3,9", "AllowedCPUs=[15, 2]"),
            ("cpuset.mems", "0", "AllowedMemoryNodes=[1]"),
            ("memory.oom.group", "1", "OOMPolicy=\"kill\""),
        ] {
            assert_eq!(limit(file, value), [want], "{file}");
        }
        for (file, value) in [
            ("cpu.idle", "0"),
            ("hugetlb.2MB.max", "0"),
            ("io.max", "8:0 rbps=1"),
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
        let all = properties("c", "c.scope", "a.slice", &[], &annotations.into()).unwrap();
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
        let slice = properties("c", "b.slice", "a.slice", &[], &BTreeMap::new()).unwrap();
        assert!(
            !slice
                .iter()
                .any(|property| property.name == "Delegate" || property.name == "Slice")
        );
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
            let error = properties("c", "c.scope", "a.slice", &[], &annotations).unwrap_err();
            assert!(format!("{error:#}").starts_with(want), "{error:#}");
        }
    }
}
