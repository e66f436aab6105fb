//! Names of fields that are misspelt. Parent only; reads the text before it is given types.
//!
//! The spec has unknown fields ignored (config.md, "Extensibility"), so that a misspelt one has no effect. A name that is close to
//! one of the spec is told; other names are extensions.

use serde_json::Value;

use crate::spelling;

/// All names of fields of the spec, sorted.
const NAMES: [&str; 155] = [
    "access",
    "action",
    "additionalGids",
    "allow",
    "ambient",
    "annotations",
    "apparmorProfile",
    "architectures",
    "args",
    "blockIO",
    "bounding",
    "burst",
    "capabilities",
    "cgroupsPath",
    "checkBeforeUpdate",
    "class",
    "classID",
    "closID",
    "commandLine",
    "consoleSize",
    "containerID",
    "cpu",
    "cpus",
    "createContainer",
    "createRuntime",
    "cwd",
    "deadline",
    "defaultAction",
    "defaultErrnoRet",
    "destination",
    "devices",
    "disableOOMKiller",
    "domain",
    "domainname",
    "effective",
    "enableCMT",
    "enableMBM",
    "enableMonitoring",
    "env",
    "errnoRet",
    "execCPUAffinity",
    "fileMode",
    "final",
    "flags",
    "gid",
    "gidMappings",
    "hard",
    "hcaHandles",
    "hcaObjects",
    "height",
    "hooks",
    "hostID",
    "hostname",
    "hugepageLimits",
    "idle",
    "index",
    "inheritable",
    "initial",
    "intelRdt",
    "ioPriority",
    "kernel",
    "kernelTCP",
    "l3CacheSchema",
    "leafWeight",
    "limit",
    "linux",
    "listenerMetadata",
    "listenerPath",
    "major",
    "maskedPaths",
    "memBwSchema",
    "memory",
    "memoryPolicy",
    "mems",
    "minor",
    "mode",
    "mountLabel",
    "mounts",
    "name",
    "names",
    "namespaces",
    "nanosecs",
    "netDevices",
    "network",
    "nice",
    "noNewPrivileges",
    "nodes",
    "ociVersion",
    "oomScoreAdj",
    "op",
    "options",
    "pageSize",
    "path",
    "period",
    "permitted",
    "personality",
    "pids",
    "policy",
    "poststart",
    "poststop",
    "prestart",
    "priorities",
    "priority",
    "process",
    "quota",
    "rate",
    "rdma",
    "readonly",
    "readonlyPaths",
    "realtimePeriod",
    "realtimeRuntime",
    "reservation",
    "resources",
    "rlimits",
    "root",
    "rootfsPropagation",
    "runtime",
    "scheduler",
    "schemata",
    "seccomp",
    "secs",
    "selinuxLabel",
    "shares",
    "size",
    "soft",
    "solaris",
    "source",
    "startContainer",
    "swap",
    "swappiness",
    "syscalls",
    "sysctl",
    "terminal",
    "throttleReadBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteBpsDevice",
    "throttleWriteIOPSDevice",
    "timeOffsets",
    "timeout",
    "type",
    "uid",
    "uidMappings",
    "umask",
    "unified",
    "useHierarchy",
    "user",
    "username",
    "value",
    "valueTwo",
    "vm",
    "weight",
    "weightDevice",
    "width",
    "windows",
    "zos",
];

/// Objects whose names the config chooses, with values that are no objects.
const FREE: [&str; 3] = ["annotations", "sysctl", "unified"];
/// Objects whose names the config chooses.
const MAPS: [&str; 3] = ["netDevices", "rdma", "timeOffsets"];
/// Of other platforms, with names of their own.
const OTHERS: [&str; 4] = ["solaris", "vm", "windows", "zos"];

/// Returns a warning for each misspelt name.
pub fn warnings(text: &[u8]) -> Vec<String> {
    let mut colons = text.iter().enumerate().filter(|(_, byte)| **byte == b':');
    if colons.all(|(at, _)| is_plain(&text[..at])) {
        return Vec::new();
    }
    // To read all once more is for the few that are suspicious.
    let value = serde_json::from_slice(text).unwrap_or_default();
    let mut found = Vec::new();
    look(&value, "", false, &mut found);
    found
}

/// Whether this text ends with a name of the spec, with none of any kind, or with one that no spec has: with dots or slashes, as
/// names of annotations and of sysctls have them.
fn is_plain(before: &[u8]) -> bool {
    let Some(before) = before.trim_ascii_end().strip_suffix(b"\"") else {
        return true;
    };
    let start = before
        .iter()
        .rposition(|byte| *byte == b'"')
        .map_or(0, |at| at + 1);
    let name = &before[start..];
    name.iter().any(|byte| b"./".contains(byte))
        || NAMES
            .binary_search_by(|known| known.as_bytes().cmp(name))
            .is_ok()
}

fn look(value: &Value, place: &str, is_map: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = match place {
                    "" => name.clone(),
                    place => format!("{place}.{name}"),
                };
                if !is_map && NAMES.binary_search(&name.as_str()).is_err() {
                    let near = spelling::nearest(name, NAMES.into_iter());
                    found.extend(near.map(|near| {
                        format!("{path}: is no field of the spec and has no effect; did you mean {near}?")
                    }));
                } else if !FREE.contains(&name.as_str()) && !OTHERS.contains(&name.as_str()) {
                    look(value, &path, MAPS.contains(&name.as_str()), found);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                look(item, &format!("{place}[{index}]"), false, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_sorted() {
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn misspelt_names_are_told_with_their_place() {
        let text = br#"{"proces": {}, "process": {"argS": [], "user": {"uidd": 1}},
            "linux": {"resorces": {}, "resources": {"rdma": {"cpus0": {"hcaHandle": 1}}}}, "mounts": [{"option": []}]}"#;
        let places = [
            "linux.resorces",
            "linux.resources.rdma.cpus0.hcaHandle",
            "mounts[0].option",
            "proces",
        ];
        let more = ["process.argS", "process.user.uidd"];
        let expected: Vec<&str> = places.into_iter().chain(more).collect();
        let warnings = warnings(text);
        let found: Vec<&str> = warnings
            .iter()
            .filter_map(|text| text.split(": ").next())
            .collect();
        assert_eq!(found, expected);
        assert!(
            warnings[3].ends_with("did you mean process?"),
            "{warnings:?}"
        );
    }

    #[test]
    fn extensions_and_free_names_are_passed_over() {
        for text in [
            r#"{"annotations": {"proces": "x"}, "linux": {"sysctl": {"rot": "1"}, "resources": {"unified": {"cpu": "1"}}}}"#,
            r#"{"windows": {"layerFolder": 1}, "x-vendor": {"proces": 1}, "process": {"env": ["A=\"b\":c"]}}"#,
            r#"{"linux": {"netDevices": {"eth": {"name": "e"}}, "timeOffsets": {"boottime": {"secs": 1}}}}"#,
            "{",
            "",
        ] {
            assert_eq!(warnings(text.as_bytes()), [""; 0], "{text}");
        }
    }
}
