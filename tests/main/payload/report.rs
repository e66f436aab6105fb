//! What a process can say about itself, as one JSON object: ids, limits, open files, namespaces.

use crate::{getpid, name, quote, syscall};
use std::ffi::{c_int, c_ulong};
use std::fs;

unsafe extern "C" {
    fn getppid() -> c_int;
    fn getsid(pid: c_int) -> c_int;
    fn getuid() -> u32;
    fn geteuid() -> u32;
    fn getgid() -> u32;
    fn getgroups(count: c_int, list: *mut u32) -> c_int;
    fn umask(mask: u32) -> u32;
    fn getrlimit(resource: c_int, limit: *mut [u64; 2]) -> c_int;
    fn sched_getaffinity(pid: c_int, size: usize, set: *mut u8) -> c_int;
    fn sched_getscheduler(pid: c_int) -> c_int;
    fn getpriority(which: c_int, who: c_int) -> c_int;
    fn personality(persona: c_ulong) -> c_int;
    fn prctl(option: c_int, ...) -> c_int;
}

/// Everything that a test commonly asks about the process, as one JSON object.
pub fn report() -> String {
    let mut groups = [0u32; 64];
    let count = unsafe { getgroups(64, groups.as_mut_ptr()) }.max(0) as usize;
    groups[..count].sort();
    let mask = unsafe { umask(0) };
    unsafe { umask(mask) };
    let mut affinity = [0u8; 128];
    unsafe { sched_getaffinity(0, 128, affinity.as_mut_ptr()) };
    let cpus: u32 = affinity.iter().map(|b| b.count_ones()).sum();
    let env: Vec<String> = std::env::vars_os()
        .map(|(k, v)| quote(&format!("{}={}", k.to_string_lossy(), v.to_string_lossy())))
        .collect();
    let args: Vec<String> = std::env::args_os()
        .map(|a| quote(&a.to_string_lossy()))
        .collect();
    let file = |path: &str| {
        quote(
            fs::read_to_string(path)
                .unwrap_or_else(|e| name(&e))
                .trim_end(),
        )
    };
    let fields = [
        ("pid", unsafe { getpid() }.to_string()),
        ("ppid", unsafe { getppid() }.to_string()),
        ("sid", unsafe { getsid(0) }.to_string()),
        ("uid", unsafe { getuid() }.to_string()),
        ("euid", unsafe { geteuid() }.to_string()),
        ("gid", unsafe { getgid() }.to_string()),
        ("groups", format!("{:?}", &groups[..count])),
        ("umask", mask.to_string()),
        (
            "cwd",
            quote(&std::env::current_dir().map_or_else(|e| name(&e), |p| p.display().to_string())),
        ),
        ("env", format!("[{}]", env.join(","))),
        ("args", format!("[{}]", args.join(","))),
        ("cpus", cpus.to_string()),
        ("hostname", file("/proc/sys/kernel/hostname")),
        ("domainname", file("/proc/sys/kernel/domainname")),
        ("oom", file("/proc/self/oom_score_adj")),
        ("cgroup", file("/proc/self/cgroup")),
        ("uid_map", file("/proc/self/uid_map")),
        ("gid_map", file("/proc/self/gid_map")),
        ("policy", unsafe { sched_getscheduler(0) }.to_string()),
        ("nice", unsafe { getpriority(0, 0) }.to_string()),
        ("ioprio", unsafe { syscall(252, 1, 0) }.to_string()),
        (
            "personality",
            unsafe { personality(0xffff_ffff) }.to_string(),
        ),
        ("dumpable", unsafe { prctl(3) }.to_string()),
        (
            "tty_nr",
            fs::read_to_string("/proc/self/stat")
                .unwrap_or_default()
                .split(' ')
                .nth(6)
                .unwrap_or("?")
                .to_string(),
        ),
        ("fds", fds()),
        ("rlimits", rlimits()),
        ("status", status()),
        ("ns", namespaces()),
    ];
    let fields: Vec<String> = fields
        .iter()
        .map(|(k, v)| format!("{}:{v}", quote(k)))
        .collect();
    format!("{{{}}}", fields.join(","))
}

fn fds() -> String {
    let mut list: Vec<(i32, String)> = (0..1024)
        .filter_map(|n| {
            Some((
                n,
                fs::read_link(format!("/proc/self/fd/{n}"))
                    .ok()?
                    .display()
                    .to_string(),
            ))
        })
        .collect();
    list.sort();
    let list: Vec<String> = list
        .iter()
        .map(|(n, to)| format!("\"{n}\":{}", quote(to)))
        .collect();
    format!("{{{}}}", list.join(","))
}

fn rlimits() -> String {
    const NAMES: [&str; 16] = [
        "CPU",
        "FSIZE",
        "DATA",
        "STACK",
        "CORE",
        "RSS",
        "NPROC",
        "NOFILE",
        "MEMLOCK",
        "AS",
        "LOCKS",
        "SIGPENDING",
        "MSGQUEUE",
        "NICE",
        "RTPRIO",
        "RTTIME",
    ];
    let all: Vec<String> = NAMES
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let mut limit = [0u64; 2];
            unsafe { getrlimit(i as c_int, &mut limit) };
            format!("\"{name}\":[{},{}]", limit[0], limit[1])
        })
        .collect();
    format!("{{{}}}", all.join(","))
}

fn status() -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let all: Vec<String> = text
        .lines()
        .filter_map(|l| l.split_once(":\t"))
        .map(|(k, v)| format!("{}:{}", quote(k), quote(v)))
        .collect();
    format!("{{{}}}", all.join(","))
}

pub fn status_line(prefix: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|l| l.strip_prefix(prefix))
        .unwrap_or("none")
        .trim()
        .into()
}

pub fn namespaces() -> String {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let all: Vec<String> = kinds
        .iter()
        .map(|kind| {
            let link = fs::read_link(format!("/proc/self/ns/{kind}"))
                .map_or_else(|e| name(&e), |p| p.display().to_string());
            format!("\"{kind}\":{}", quote(&link))
        })
        .collect();
    format!("{{{}}}", all.join(","))
}
