//! Runs in a container, and prints what it sees as JSON: mounts, namespaces, rights, filter, limits, devices.
//! The launcher compares what runtimes have made of one config. It changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileTypeExt;

use serde_json::{Value, json};

const STATUS: [&str; 12] = [
    "Uid",
    "Gid",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Umask",
    "SigIgn",
    "SigBlk",
];

fn main() {
    let masked: Vec<String> = std::env::args().skip(1).collect();
    let report = json!({
        "mounts": mounts(&masked),
        "namespaces": namespaces(),
        "status": status(),
        "limits": limits(),
        "cgroup": cgroup(),
        "devices": names("/dev"),
        "descriptors": names("/proc/self/fd").len(),
        "hostname": text("/proc/sys/kernel/hostname"),
        "cwd": std::env::current_dir().ok(),
        "masked": masked.iter().map(|path| (path, looks(path))).collect::<BTreeMap<_, _>>(),
    });
    println!("{report}");
}

/// By mount point: the kind and what guards it. Masks are compared by what can be seen behind them.
fn mounts(masked: &[String]) -> BTreeMap<String, Value> {
    let text = text("/proc/self/mountinfo");
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mounts = lines.filter_map(|words| mount(&words));
    mounts
        .filter(|(point, _)| !masked.contains(point) && !is_device(point))
        .collect()
}

fn mount(words: &[&str]) -> Option<(String, Value)> {
    let dash = words.iter().position(|word| *word == "-")?;
    let (point, options, kind) = (words.get(4)?, words.get(5)?, words.get(dash + 1)?);
    let guards = ["ro", "nosuid", "nodev", "noexec"];
    let guards = options.split(',').filter(|option| guards.contains(option));
    let kept = guards.collect::<Vec<_>>().join(",");
    Some((point.to_string(), json!(format!("{kind} {kept}"))))
}

/// Made or mounted from the host, a device is the same one.
fn is_device(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_char_device())
}

fn namespaces() -> BTreeMap<String, String> {
    let links = names("/proc/self/ns").into_iter();
    links
        .map(|name| (name.clone(), link(&format!("/proc/self/ns/{name}"))))
        .collect()
}

fn status() -> BTreeMap<String, String> {
    let text = text("/proc/self/status");
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    let wanted = lines.filter(|(key, _)| STATUS.contains(key));
    wanted
        .map(|(key, value)| (key.to_string(), value.to_string()))
        .collect()
}

fn limits() -> Vec<String> {
    let text = text("/proc/self/limits");
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn cgroup() -> BTreeMap<String, String> {
    let files = names("/sys/fs/cgroup").into_iter();
    let limits = files.filter(|name| name.ends_with(".max") || name.ends_with(".weight"));
    let values = limits.map(|name| (name.clone(), text(&format!("/sys/fs/cgroup/{name}"))));
    let own = ("path".to_string(), own_cgroup());
    values.chain([own]).collect()
}

/// That of cgroup v2; a host may have others beside it.
fn own_cgroup() -> String {
    let text = text("/proc/self/cgroup");
    let line = text.lines().find(|line| line.starts_with("0::"));
    line.unwrap_or_default().to_string()
}

/// What can be seen at a masked path.
fn looks(path: &str) -> Value {
    match fs::metadata(path) {
        Err(_) => json!("absent"),
        Ok(found) if found.is_dir() => json!({"names": names(path).len()}),
        Ok(_) => json!({"empty": fs::read(path).is_ok_and(|bytes| bytes.is_empty())}),
    }
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into())
        .collect();
    names.sort();
    names
}

fn text(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_string()
}

fn link(path: &str) -> String {
    fs::read_link(path)
        .map(|to| to.display().to_string())
        .unwrap_or_default()
}
