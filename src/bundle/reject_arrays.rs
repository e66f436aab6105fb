//! Lists where the spec has objects. Parent only; reads the text before it is given types.
//!
//! The reader of types takes a list of values for an object with these values, in an order that no
//! spec knows: `[0, 0, 1]` for an id map, and a list of nothing for an object without required fields.

use anyhow::{Result, ensure};
use serde_json::Value;

/// Every object of the spec that is read; `*` stands for each member of a list or map.
const OBJECTS: [&str; 43] = [
    "hooks",
    "hooks.*.*",
    "linux",
    "linux.devices.*",
    "linux.gidMappings.*",
    "linux.intelRdt",
    "linux.memoryPolicy",
    "linux.namespaces.*",
    "linux.netDevices.*",
    "linux.personality",
    "linux.resources",
    "linux.resources.blockIO",
    "linux.resources.blockIO.throttleReadBpsDevice.*",
    "linux.resources.blockIO.throttleReadIOPSDevice.*",
    "linux.resources.blockIO.throttleWriteBpsDevice.*",
    "linux.resources.blockIO.throttleWriteIOPSDevice.*",
    "linux.resources.blockIO.weightDevice.*",
    "linux.resources.cpu",
    "linux.resources.devices.*",
    "linux.resources.hugepageLimits.*",
    "linux.resources.memory",
    "linux.resources.network",
    "linux.resources.network.priorities.*",
    "linux.resources.pids",
    "linux.resources.rdma.*",
    "linux.seccomp",
    "linux.seccomp.syscalls.*",
    "linux.seccomp.syscalls.*.args.*",
    "linux.timeOffsets.*",
    "linux.uidMappings.*",
    "mounts.*",
    "mounts.*.gidMappings.*",
    "mounts.*.uidMappings.*",
    "process",
    "process.capabilities",
    "process.consoleSize",
    "process.execCPUAffinity",
    "process.ioPriority",
    "process.rlimits.*",
    "process.scheduler",
    "process.user",
    "root",
    "vm",
];

/// The names of the spec's lists.
const LISTS: [&str; 37] = [
    "additionalGids",
    "ambient",
    "architectures",
    "args",
    "bounding",
    "createContainer",
    "createRuntime",
    "devices",
    "effective",
    "env",
    "flags",
    "gidMappings",
    "hugepageLimits",
    "inheritable",
    "layers",
    "maskedPaths",
    "mounts",
    "names",
    "namespaces",
    "options",
    "parameters",
    "permitted",
    "poststart",
    "poststop",
    "prestart",
    "priorities",
    "readonlyPaths",
    "rlimits",
    "schemata",
    "startContainer",
    "syscalls",
    "throttleReadBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteBpsDevice",
    "throttleWriteIOPSDevice",
    "uidMappings",
    "weightDevice",
];

/// Looks at the text first: reading all of it once more is for the few that are suspicious.
pub fn check(text: &[u8]) -> Result<()> {
    let mut opened = text.iter().enumerate().filter(|(_, byte)| **byte == b'[');
    if opened.all(|(at, _)| is_known_list(&text[..at])) {
        return Ok(());
    }
    let Ok(value) = serde_json::from_slice::<Value>(text) else {
        // The reading of the fields says what is wrong.
        return Ok(());
    };
    for object in OBJECTS {
        let found = find(&value, object, &Value::is_array);
        let place = found.as_deref().unwrap_or_default();
        ensure!(found.is_none(), "{place}: must be an object, not a list");
    }
    Ok(())
}

/// Whether this text ends with the name of a list, and the colon. In a string it may, too: no harm is done.
fn is_known_list(before: &[u8]) -> bool {
    let name = before
        .trim_ascii_end()
        .strip_suffix(b":")
        .and_then(name_before);
    name.is_some_and(|name| LISTS.iter().any(|list| list.as_bytes() == name))
}

/// Returns the strings before a colon: the names of fields, in no object in particular.
pub fn names(text: &[u8]) -> impl Iterator<Item = &str> {
    let colons = text.iter().enumerate().filter(|(_, byte)| **byte == b':');
    let names = colons.filter_map(|(at, _)| name_before(&text[..at]));
    names.filter_map(|name| std::str::from_utf8(name).ok())
}

/// Returns the string at the end of the text, which is a name if a colon follows.
fn name_before(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii_end().strip_suffix(b"\"")?;
    let start = text.iter().rposition(|byte| *byte == b'"')?;
    Some(&text[start + 1..])
}

/// Returns the place of the first of the values at `object` that is of this kind; `*` stands for each member.
pub fn find(value: &Value, object: &str, is: &impl Fn(&Value) -> bool) -> Option<String> {
    let parts: Vec<&str> = object.split('.').collect();
    find_below(value, &parts, String::new(), is)
}

fn find_below(
    value: &Value,
    names: &[&str],
    place: String,
    is: &impl Fn(&Value) -> bool,
) -> Option<String> {
    let Some((name, rest)) = names.split_first() else {
        return is(value).then_some(place);
    };
    let dot = if place.is_empty() { "" } else { "." };
    match value {
        Value::Array(list) if *name == "*" => {
            let mut members = list.iter().enumerate();
            members
                .find_map(|(index, value)| find_below(value, rest, format!("{place}[{index}]"), is))
        }
        Value::Object(map) => {
            let mut members = map.iter().filter(|(key, _)| *name == "*" || key == name);
            members
                .find_map(|(key, value)| find_below(value, rest, format!("{place}{dot}{key}"), is))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::config;
    use serde_json::json;

    fn fault(pointer: &'static str, value: Value) -> String {
        let text = config(&[(pointer, value)]).to_string();
        let fault = check(text.as_bytes());
        fault.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn every_object_is_looked_at() {
        for object in OBJECTS {
            let place = object.replace('*', "x");
            let value = place
                .rsplit('.')
                .fold(json!([]), |value, name| json!({name: value}));
            let error = check(value.to_string().as_bytes()).unwrap_err().to_string();
            assert_eq!(error, format!("{place}: must be an object, not a list"));
        }
        let fault = fault("/linux/uidMappings", json!([{}, [0, 0, 1]]));
        assert!(fault.starts_with("linux.uidMappings[1]: "), "{fault}");
    }

    #[test]
    fn what_is_a_list_and_what_is_unknown_stays() {
        assert_eq!(fault("/vendor", json!({"hooks": [[1]], "root": []})), "");
        assert_eq!(fault("/process/env", json!(["A=[", ",["])), "");
        let known = |text: &[u8]| is_known_list(text);
        assert!(known(b"{\"args\" :\n") && known(b"\"env\":"));
        assert!(!known(b"\"user\":") && !known(b"\"args\": [1,") && !known(b""));
    }
}
