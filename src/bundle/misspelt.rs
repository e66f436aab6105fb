//! Names of fields that are misspelt. Parent only; reads the text before it is given types.
//!
//! The spec has unknown fields ignored (config.md, "Extensibility"), so that a misspelt one has no effect. A name that is close to
//! one of the spec is told; other names are extensions.

use serde_json::Value;

use super::names::{MAPS, NAMES, proper};
use crate::text::suggest;

/// Fields of the spec that are not read: those of other platforms, and one of none.
const UNREAD: [&str; 6] = ["commandLine", "solaris", "username", "vm", "windows", "zos"];

/// Returns a warning for each misspelt name of a config in which these names are not the spec's: see [`super::names::odd`].
pub fn warnings(text: &[u8], odd: &[&str]) -> Vec<String> {
    if odd.iter().all(|name| is_plain(name)) {
        return Vec::new();
    }
    // To read all once more is for the few that are suspicious.
    let value = serde_json::from_slice(text).unwrap_or_default();
    let mut found = Vec::new();
    look(&value, "", false, &mut found);
    found
}

/// Whether the spec has a field of this name, or no spec has one: names of annotations and of sysctls have dots or slashes.
fn is_plain(name: &str) -> bool {
    name.contains(['.', '/']) || is_known(name)
}

/// Whether the spec has a field of this name, in whatever case.
fn is_known(name: &str) -> bool {
    proper(name).is_some() || UNREAD.contains(&name)
}

fn look(value: &Value, place: &str, is_map: bool, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = match place {
                    "" => name.clone(),
                    place => format!("{place}.{name}"),
                };
                if !is_map && !is_known(name) {
                    let near = suggest::nearest(name, NAMES.into_iter());
                    found.extend(near.map(|near| {
                        format!("{path}: is no field of the spec and has no effect; did you mean {near}?")
                    }));
                } else if !UNREAD.contains(&name.as_str()) {
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
    use super::super::names::odd;
    use super::*;

    fn warnings_of(text: &[u8]) -> Vec<String> {
        warnings(text, &odd(text))
    }

    #[test]
    fn misspelt_names_are_told_with_their_place() {
        let text = br#"{"proces": {}, "process": {"argz": [], "user": {"uidd": 1}},
            "linux": {"resorces": {}, "resources": {"rdma": {"cpus0": {"hcaHandle": 1}}}}, "mounts": [{"option": []}]}"#;
        let places = [
            "linux.resorces",
            "linux.resources.rdma.cpus0.hcaHandle",
            "mounts[0].option",
            "proces",
        ];
        let more = ["process.argz", "process.user.uidd"];
        let expected: Vec<&str> = places.into_iter().chain(more).collect();
        let warnings = warnings_of(text);
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
            assert_eq!(warnings_of(text.as_bytes()), [""; 0], "{text}");
        }
    }
}
