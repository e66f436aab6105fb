//! `linux.intelRdt` -> groups of resctrl and the lines of their schemata. PURE.
//!
//! A group is a class of service: what its tasks may take of caches and of memory bandwidth. One that the
//! config names (`closID`) outlives its containers; without a name the container has one of its own.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};

use crate::text::log::printable;

/// The group that every task is in at first: resctrl's root.
const DEFAULT: &str = "/";

/// What the root of resctrl holds besides groups.
const RESERVED: [&str; 3] = ["info", "mon_data", "mon_groups"];

#[derive(Debug, PartialEq)]
pub struct Rdt {
    pub groups: Groups,
    /// In the order in which they are written; a later one overrides.
    pub schemata: Vec<Schema>,
}

/// The directories that a container's processes belong to, below the root of resctrl.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    /// Empty for the default group.
    pub class: PathBuf,
    /// Whether it is made for this container, and removed with it.
    pub own: bool,
    /// Always made for this container.
    pub monitor: Option<PathBuf>,
}

#[derive(Debug, PartialEq)]
pub struct Schema {
    pub field: String,
    pub line: String,
}

pub fn rdt(spec: &LinuxIntelRdt, id: &str) -> Result<Rdt> {
    let name = spec.clos_id().as_deref().filter(|name| !name.is_empty());
    let class = match name {
        Some(DEFAULT) => PathBuf::new(),
        Some(name) => directory(name, "linux.intelRdt.closID")?,
        None => directory(id, "linux.intelRdt: the container's id")?,
    };
    let monitored = spec.enable_monitoring() == &Some(true);
    Ok(Rdt {
        schemata: schemata(spec)?,
        groups: Groups {
            monitor: monitored.then(|| class.join("mon_groups").join(id)),
            own: name.is_none(),
            class,
        },
    })
}

fn directory(name: &str, field: &str) -> Result<PathBuf> {
    let plain = name != "." && name != ".." && !name.contains(|c: char| c == '/' || c.is_control());
    ensure!(
        plain,
        "{field}: {name:?}: is no name of a group; give one without slashes, or \"/\" for the default group"
    );
    ensure!(
        !RESERVED.contains(&name),
        "{field}: {name:?}: belongs to resctrl itself; give another name"
    );
    Ok(PathBuf::from(name))
}

/// config-linux.md, "IntelRdt": lines for bandwidth do not count in the schema for caches, and the
/// complete schemata come last.
fn schemata(spec: &LinuxIntelRdt) -> Result<Vec<Schema>> {
    let mut list = Vec::new();
    let cache = spec.l3_cache_schema().as_deref().unwrap_or_default();
    for line in cache.lines().filter(|line| resource(line) != "MB") {
        add(&mut list, "l3CacheSchema".to_string(), line)?;
    }
    let bandwidth = spec.mem_bw_schema().as_deref().unwrap_or_default();
    for line in bandwidth.lines() {
        add(&mut list, "memBwSchema".to_string(), line)?;
    }
    for (index, text) in spec.schemata().iter().flatten().enumerate() {
        for line in text.lines() {
            add(&mut list, format!("schemata[{index}]"), line)?;
        }
    }
    Ok(list)
}

fn add(list: &mut Vec<Schema>, field: String, line: &str) -> Result<()> {
    let (field, line) = (format!("linux.intelRdt.{field}"), line.trim().to_string());
    if line.is_empty() {
        return Ok(());
    }
    ensure!(
        line.contains(':') && line.contains('='),
        "{field}: {line:?}: must be a resource and a value for each domain, as in L3:0=ff;1=ff"
    );
    list.push(Schema { field, line });
    Ok(())
}

fn resource(line: &str) -> &str {
    line.split_once(':').map_or("", |(name, _)| name.trim())
}

impl fmt::Display for Rdt {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Groups {
            class,
            own,
            monitor,
        } = &self.groups;
        let kind = if *own { "of its own" } else { "that is shared" };
        let name = |group: &Path| printable(&group.to_string_lossy());
        writeln!(f, "resctrl group /{} {kind}", name(class))?;
        for schema in &self.schemata {
            writeln!(f, "schemata {}", printable(&schema.line))?;
        }
        match monitor {
            Some(monitor) => writeln!(f, "resctrl monitoring group /{}", name(monitor)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn planned(spec: Value) -> Result<Rdt> {
        rdt(&serde_json::from_value(spec).unwrap(), "c1")
    }

    fn lines(spec: Value) -> Vec<String> {
        let schemata = planned(spec).unwrap().schemata;
        schemata.into_iter().map(|schema| schema.line).collect()
    }

    #[test]
    fn whose_group_it_is() {
        for unnamed in [json!({}), json!({"closID": ""}), json!({"closID": null})] {
            let groups = planned(unnamed).unwrap().groups;
            assert_eq!(
                (groups.class.as_path(), groups.own),
                (Path::new("c1"), true)
            );
            assert_eq!(groups.monitor, None);
        }
        let groups = planned(json!({"closID": "web", "enableMonitoring": true}))
            .unwrap()
            .groups;
        assert_eq!(
            (groups.class.as_path(), groups.own),
            (Path::new("web"), false)
        );
        assert_eq!(
            groups.monitor.as_deref(),
            Some(Path::new("web/mon_groups/c1"))
        );
        let groups = planned(json!({"closID": "/", "enableMonitoring": true}))
            .unwrap()
            .groups;
        assert_eq!((groups.class.as_path(), groups.own), (Path::new(""), false));
        assert_eq!(groups.monitor.as_deref(), Some(Path::new("mon_groups/c1")));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in [
            ".",
            "..",
            "a/b",
            "/a",
            "//",
            "a\n",
            "info",
            "mon_groups",
            "mon_data",
        ] {
            let error = planned(json!({"closID": bad})).unwrap_err().to_string();
            assert!(error.starts_with("linux.intelRdt.closID: "), "{error}");
        }
        let spec = serde_json::from_value(json!({})).unwrap();
        assert!(rdt(&spec, "info").is_err());
    }

    #[test]
    fn bandwidth_does_not_count_among_the_caches_and_the_complete_schemata_come_last() {
        let spec = json!({
            "schemata": ["L2:0=f", "MB:0=50"],
            "l3CacheSchema": "L3:0=ff;1=f\n MB:0=10\n",
            "memBwSchema": "MB:0=20",
        });
        let expected = ["L3:0=ff;1=f", "MB:0=20", "L2:0=f", "MB:0=50"];
        assert_eq!(lines(spec.clone()), expected);
        let fields = planned(spec).unwrap().schemata;
        assert_eq!(fields[0].field, "linux.intelRdt.l3CacheSchema");
        assert_eq!(fields[3].field, "linux.intelRdt.schemata[1]");
        assert!(lines(json!({"l3CacheSchema": "", "memBwSchema": null})).is_empty());
        assert!(planned(json!({"l3CacheSchema": "L3 0=f"})).is_err());
    }

    #[test]
    fn the_plan_as_text() {
        let spec = json!({"schemata": ["L3:0=f"], "enableMonitoring": true});
        assert_eq!(
            planned(spec).unwrap().to_string(),
            "resctrl group /c1 of its own\nschemata L3:0=f\nresctrl monitoring group /c1/mon_groups/c1\n"
        );
    }
}
