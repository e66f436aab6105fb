//! Finds a small config that shows the same difference.

use std::time::{Duration, Instant};

use serde_json::Value;

/// Bounds the search: a runtime that hangs takes ten seconds for each trial.
const TIME: Duration = Duration::from_secs(60);

/// Removes fields and elements one after the other, the largest first, as long as `shows` holds. `budget` bounds the trials.
pub fn shrink(config: &Value, mut budget: usize, mut shows: impl FnMut(&Value) -> bool) -> Value {
    let end = Instant::now() + TIME;
    let mut best = config.clone();
    let mut changed = true;
    while changed && budget > 0 && Instant::now() < end {
        changed = false;
        for pointer in pointers(&best) {
            if best.pointer(&pointer).is_none() || budget == 0 || Instant::now() > end {
                continue;
            }
            let mut smaller = best.clone();
            if !remove(&mut smaller, &pointer) {
                continue;
            }
            budget -= 1;
            if shows(&smaller) {
                best = smaller;
                changed = true;
            }
        }
    }
    best
}

/// Returns the pointers of all fields and elements, those near the root first, and the last elements of lists before the first.
fn pointers(config: &Value) -> Vec<String> {
    let mut all = Vec::new();
    collect(config, String::new(), &mut all);
    all.sort_by_key(|pointer: &String| pointer.matches('/').count());
    all
}

fn collect(value: &Value, at: String, all: &mut Vec<String>) {
    let mut add = |key: String, value: &Value| {
        let pointer = format!("{at}/{key}");
        all.push(pointer.clone());
        collect(value, pointer, all);
    };
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| add(key.replace('~', "~0").replace('/', "~1"), value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .rev()
            .for_each(|(n, value)| add(n.to_string(), value)),
        _ => {}
    }
}

/// Removes a value; tells whether it did. The cgroup path and the mount namespace stay: without them a runtime could change its
/// surroundings.
fn remove(config: &mut Value, pointer: &str) -> bool {
    if [
        "/linux",
        "/linux/cgroupsPath",
        "/linux/namespaces",
        "/process",
        "/root",
    ]
    .contains(&pointer)
    {
        return false;
    }
    if pointer.starts_with("/linux/namespaces/") && pointer.ends_with("/type") {
        return false;
    }
    let Some((parent, key)) = pointer.rsplit_once('/') else {
        return false;
    };
    match config.pointer_mut(parent) {
        Some(Value::Object(fields)) => fields
            .remove(&key.replace("~1", "/").replace("~0", "~"))
            .is_some(),
        Some(Value::Array(items)) => {
            let Ok(at) = key.parse::<usize>() else {
                return false;
            };
            if at >= items.len() || items[at]["type"] == "mount" {
                return false;
            }
            items.remove(at);
            true
        }
        _ => false,
    }
}
