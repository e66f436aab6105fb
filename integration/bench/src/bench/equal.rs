//! Refuses to compare unequal work: a probe runs in a container of every runtime, and what it sees has to be the same.
//! What may differ is said here, with the reason; it goes into the report with everything else that differs.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::calls::array;
use crate::config::{self, Variant};
use crate::runtime::{Runtime, reap};

/// Facts (by their beginning) in which runtimes differ without doing less work.
const MAY_DIFFER: [(&str, &str); 8] = [
    (
        "mounts./proc/",
        "read-only as asked; which flags of /proc it keeps is its own",
    ),
    ("cgroup.path", "the name of its cgroup is its own"),
    (
        "cgroup.hugetlb.2MB.rsvd.max",
        "one more file for the same limit, which old ones leave",
    ),
    ("status.SigIgn", "inherited, not from the config"),
    ("status.Umask", "the config says nothing of it"),
    (
        "mounts./dev/console",
        "a terminal that the config does not ask for",
    ),
    ("devices.core", "a link that the spec does not ask for"),
    (
        "namespaces.time",
        "the file system shows what the kernel has",
    ),
];

pub struct Difference {
    pub fact: String,
    pub first: String,
    pub other: String,
    pub allowed: Option<&'static str>,
}

/// What the probe sees in a container of this runtime, with namespaces as `new` or `host`.
pub fn probe(
    runtime: &Runtime,
    work: &Path,
    variant: &Variant,
    filter: Option<&[u8]>,
) -> Result<Value> {
    let short = runtime.name.replace(' ', "-");
    let mut config = variant.config.clone();
    config["linux"]["cgroupsPath"] = json!(format!("/bench/{short}"));
    let paths = array(&config["linux"]["maskedPaths"]);
    let words: Vec<Value> = [json!("/probe")]
        .into_iter()
        .chain(paths.cloned())
        .collect();
    config["process"]["args"] = json!(words);
    let directory = work
        .join("bundles")
        .join(&variant.name)
        .join(&short)
        .join("probe");
    config::write_bundle(&directory, &config, filter)?;
    let words = runtime.words("run", &directory, &format!("bench-{short}-probe"));
    let out = runtime
        .command(&words)?
        .stdout(Stdio::piped())
        .spawn()?
        .wait_with_output()?;
    reap();
    let text = String::from_utf8_lossy(&out.stdout);
    let mut seen: Value = serde_json::from_str(&text)
        .with_context(|| format!("{} runs no probe: {}", runtime.name, runtime.last_words()))?;
    name_namespaces(&mut seen);
    Ok(seen)
}

fn name_namespaces(seen: &mut Value) {
    for (name, link) in seen["namespaces"].as_object_mut().into_iter().flatten() {
        let own = fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default();
        let same = link.as_str() == own.to_str();
        *link = json!(if same { "host" } else { "new" });
    }
}

/// Where two reports differ, by path of the fact.
pub fn differences(first: &Value, other: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("", first, other, &mut found);
    found
}

fn compare(path: &str, first: &Value, other: &Value, found: &mut Vec<Difference>) {
    if first == other {
        return;
    }
    if let (Some(left), Some(right)) = (first.as_object(), other.as_object()) {
        let names = left
            .keys()
            .chain(right.keys().filter(|name| !left.contains_key(*name)));
        for name in names {
            let path = format!("{path}.{name}");
            let path = path.trim_start_matches('.');
            compare(path, &first[name], &other[name], found);
        }
        return;
    }
    let (Some(left), Some(right)) = (first.as_array(), other.as_array()) else {
        found.push(difference(path.to_string(), first, other));
        return;
    };
    for item in left.iter().filter(|item| !right.contains(item)) {
        found.push(difference(
            format!("{path}.{}", plain(item)),
            &json!("there"),
            &json!("absent"),
        ));
    }
    for item in right.iter().filter(|item| !left.contains(item)) {
        found.push(difference(
            format!("{path}.{}", plain(item)),
            &json!("absent"),
            &json!("there"),
        ));
    }
}

fn difference(fact: String, first: &Value, other: &Value) -> Difference {
    let allowed = MAY_DIFFER.iter().find(|(start, _)| fact.starts_with(start));
    Difference {
        allowed: allowed.map(|(_, why)| *why),
        fact,
        first: plain(first),
        other: plain(other),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_work_is_a_difference() {
        let first =
            json!({"mounts": {"/proc": "proc ro", "/sys": "sysfs"}, "devices": ["null", "core"]});
        let other = json!({"mounts": {"/proc": "proc "}, "devices": ["null"]});
        let found = differences(&first, &other);
        let facts: Vec<&str> = found
            .iter()
            .map(|difference| difference.fact.as_str())
            .collect();
        assert_eq!(facts, ["mounts./proc", "mounts./sys", "devices.core"]);
        assert!(found[0].allowed.is_none() && found[2].allowed.is_some());
        assert!(differences(&first, &first).is_empty());
    }
}
