//! What there is to say about the machine, and whether it was quiet: numbers without it are worth nothing.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

pub fn describe(controllers: &[String]) -> Value {
    let uname = nix::sys::utsname::uname();
    let kernel = uname
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let info = text("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model
        .unwrap_or("unknown")
        .trim_start_matches(['\t', ' ', ':']);
    let hypervisor = info.contains(" hypervisor ");
    json!({
        "kernel": kernel,
        "cpu": model,
        "cpus": std::thread::available_parallelism().map(usize::from).unwrap_or(0),
        "virtual": hypervisor,
        "memory_kb": text("/proc/meminfo").split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()),
        "mounts": text("/proc/self/mountinfo").lines().count(),
        "cgroup_controllers": controllers,
        "cmdline": text("/proc/cmdline").trim(),
        "loadavg": loadavg(),
    })
}

pub fn loadavg() -> String {
    text("/proc/loadavg")
        .split(' ')
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

pub fn controllers() -> Vec<String> {
    let text = text("/sys/fs/cgroup/cgroup.controllers");
    text.split_whitespace().map(str::to_string).collect()
}

/// Version line and size of a runtime's program.
pub fn version(path: &Path) -> Value {
    let out = std::process::Command::new(path).arg("--version").output();
    let text = out
        .map(|out| String::from_utf8_lossy(&out.stdout).into_owned())
        .unwrap_or_default();
    let size = fs::metadata(path).map(|found| found.len()).unwrap_or(0);
    json!({"version": text.lines().next().unwrap_or_default(), "bytes": size})
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
