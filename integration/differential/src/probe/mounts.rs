//! Reads the mount table of this process. Numbers that differ from run to run are left out.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Returns the mounts by mount point. The second mount on one place is named `PLACE#2`.
pub fn all() -> BTreeMap<String, Value> {
    let table = super::text("/proc/self/mountinfo");
    let ids: BTreeMap<&str, &str> = table.lines().filter_map(ids).collect();
    let depth = |line: &&str| {
        std::iter::successors(line.split(' ').next(), |id| ids.get(id).copied())
            .take(99)
            .count()
    };
    let mut lines: Vec<&str> = table.lines().collect();
    // The order of the table tells when a mount was made, not what lies on what.
    lines.sort_by_key(depth);
    let mut all = BTreeMap::new();
    for (point, mount) in lines.into_iter().filter_map(mount) {
        let name = |n: usize| match n {
            1 => point.clone(),
            _ => format!("{point}#{n}"),
        };
        let free = (1..).map(name).find(|name| !all.contains_key(name));
        all.extend(free.map(|name| (name, mount)));
    }
    all
}

/// Returns the number of a mount, and that of the mount on which it is.
fn ids(line: &str) -> Option<(&str, &str)> {
    let mut words = line.split(' ');
    Some((words.next()?, words.next()?))
}

/// Parses one line (proc_pid_mountinfo(5)).
fn mount(line: &str) -> Option<(String, Value)> {
    let words: Vec<&str> = line.split(' ').collect();
    let dash = words.iter().position(|word| *word == "-")?;
    let propagation = words[6..dash].iter().map(|word| word.split(':').next());
    let propagation: Vec<&str> = propagation.flatten().collect();
    // The report has the mode of the directory itself.
    let is_tmpfs = words[dash + 1] == "tmpfs";
    let mount = json!({
        "root": words[3],
        "flags": some_of(words[5], |word| !ACCESS_TIMES.contains(&word)),
        "atime": some_of(words[5], |word| ACCESS_TIMES.contains(&word)),
        "propagation": propagation.join(" "),
        "type": words[dash + 1],
        "source": words.get(dash + 2)?,
        "data": some_of(words.get(dash + 3)?, |word| !(is_tmpfs && word.starts_with("mode="))),
    });
    Some((words[4].replace("\\040", " "), mount))
}

/// The flags of a mount that say when access times are written.
const ACCESS_TIMES: [&str; 4] = ["noatime", "nodiratime", "relatime", "strictatime"];

/// Returns the options that `keeps` holds for, sorted.
fn some_of(options: &str, keeps: impl Fn(&str) -> bool) -> String {
    let mut words: Vec<&str> = options.split(',').filter(|word| keeps(word)).collect();
    words.sort();
    words.join(",")
}
