//! Names of fields in another case. Parent only.
//!
//! runc reads `Limit` as `limit`, as Go does. The reader of types would pass it over as unknown, and the limit with it.

use anyhow::{Result, anyhow, ensure};
use serde_json::Value;

use crate::bundle::reject_arrays;

/// The names of all fields of the spec that are read.
pub const NAMES: [&str; 149] = [
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
    "value",
    "valueTwo",
    "weight",
    "weightDevice",
    "width",
];

/// Maps whose keys the config may choose.
pub const MAPS: [&str; 6] = [
    "annotations",
    "netDevices",
    "rdma",
    "sysctl",
    "timeOffsets",
    "unified",
];

/// Returns the names in the text that the spec does not have.
pub fn odd(text: &[u8]) -> Vec<&str> {
    let is_odd = |name: &&str| NAMES.binary_search(name).is_err();
    reject_arrays::names(text).filter(is_odd).collect()
}

/// Whether one of these names is one of the spec's but for its case.
pub fn in_doubt(odd: &[&str]) -> bool {
    odd.iter().any(|name| proper(name).is_some())
}

/// Gives the fields their proper names.
pub fn settle(value: &mut Value) -> Result<()> {
    settle_below(value, false)
}

fn settle_below(value: &mut Value, is_map: bool) -> Result<()> {
    match value {
        Value::Array(list) => list
            .iter_mut()
            .try_for_each(|value| settle_below(value, false)),
        Value::Object(map) => {
            for (name, mut value) in std::mem::take(map) {
                let proper = proper(&name).filter(|_| !is_map);
                if is_map || proper.is_some() {
                    settle_below(&mut value, proper.is_some_and(|name| MAPS.contains(&name)))
                        .map_err(|error| anyhow!("{name}.{error}"))?;
                }
                let twice = map.insert(proper.unwrap_or(&name).to_string(), value);
                ensure!(
                    twice.is_none(),
                    "{name}: is there twice, in two cases; remove one"
                );
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Returns the name of the spec that this is, but for its case. None for other names.
pub fn proper(name: &str) -> Option<&'static str> {
    match NAMES.binary_search(&name) {
        Ok(at) => Some(NAMES[at]),
        Err(_) => NAMES
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_sorted() {
        assert!(NAMES.is_sorted());
    }

    #[test]
    fn names_of_the_spec_are_found_in_any_case_and_others_stay() {
        let mut value = json!({"Linux": {"RESOURCES": {"unified": {"Limit": "1"}}}, "x": {"Limit": 1}, "annotations": {"Root": "a"}});
        let wanted = json!({"linux": {"resources": {"unified": {"Limit": "1"}}}, "x": {"Limit": 1}, "annotations": {"Root": "a"}});
        assert!(in_doubt(&odd(value.to_string().as_bytes())));
        settle(&mut value).unwrap();
        assert_eq!(value, wanted);
        assert!(!in_doubt(&odd(
            br#"{"limit": "Limit", "env": ["\"Limit\": 1"], "other": 1}"#
        )));
        let error = settle(&mut json!({"a": 1, "Root": {}, "root": {}})).unwrap_err();
        assert!(error.to_string().contains("is there twice"), "{error}");
        let error = settle(&mut json!({"process": {"Cwd": "", "cwd": ""}})).unwrap_err();
        assert!(error.to_string().starts_with("process.cwd: "), "{error}");
    }
}
