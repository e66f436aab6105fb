//! Runs in a container and prints one JSON object: what a process can see there. The last argument tells how it ends:
//! `exit=N` or `signal=N`. As a hook (`probe hook LOG ..`) it adds one line to a log instead.
//! The file /ask has one word a line: paths to look at closely, and `calls` to try system calls.

mod files;
mod mounts;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};

use differential_sys::{LIMITS, call, call_in_child, limit};
use nix::unistd;
use serde_json::{Value, json};

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
const STATUS: [&str; 13] = [
    "Uid",
    "Gid",
    "Groups",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "SigBlk",
    "SigIgn",
    "THP_enabled",
];
/// System calls that do no harm, with the arguments that the generated filters test.
const CALLS: [(&str, i64, [u64; 4]); 9] = [
    ("getppid", libc::SYS_getppid, [0; 4]),
    ("chdir", libc::SYS_chdir, [0; 4]),
    ("mkdir", libc::SYS_mkdir, [0; 4]),
    ("personality", libc::SYS_personality, [0xffff_ffff, 0, 0, 0]),
    ("personality 8", libc::SYS_personality, [8, 0, 0, 0]),
    ("unshare", libc::SYS_unshare, [0; 4]),
    ("setpriority", libc::SYS_setpriority, [9, 0, 0, 0]),
    ("setpriority 1", libc::SYS_setpriority, [9, 1, 0, 0]),
    ("sethostname", libc::SYS_sethostname, [0; 4]),
];

fn main() {
    let arguments: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    if arguments.get(1).is_some_and(|word| word == "hook") {
        hook(&arguments);
    } else {
        println!("{}", report(&arguments));
    }
    end(arguments.last().map_or("", String::as_str));
}

fn end(word: &str) {
    if let Some(signal) = word.strip_prefix("signal=") {
        call(
            libc::SYS_kill,
            [std::process::id().into(), signal.parse().unwrap_or(9), 0, 0],
        );
    }
    let status = word
        .strip_prefix("exit=")
        .and_then(|status| status.parse().ok());
    std::process::exit(status.unwrap_or(0));
}

fn report(arguments: &[String]) -> Value {
    let asked = text("/ask");
    let asked: Vec<&str> = asked.lines().collect();
    let names = nix::sys::utsname::uname().ok();
    let name = |name: &std::ffi::OsStr| name.to_string_lossy().into_owned();
    json!({
        "args": arguments,
        "env": environment(),
        "cwd": directory(),
        "process": process(),
        "status": status(),
        "limits": limits(),
        "namespaces": namespaces(),
        "hostname": names.as_ref().map(|names| name(names.nodename())),
        "domainname": names.as_ref().map(|names| name(names.domainname())),
        "mounts": mounts::all(),
        "files": files::tree("/"),
        "dev": files::devices(),
        "asked": asked.iter().filter(|word| word.starts_with('/')).map(|path| (*path, files::closely(path)))
            .collect::<BTreeMap<_, _>>(),
        "calls": asked.contains(&"calls").then(calls),
        "net": network(),
    })
}

fn process() -> Value {
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    nix::sys::stat::umask(mask);
    let read = |path: &str| text(path).trim_end().to_string();
    json!({
        "pid": std::process::id(),
        "parent": unistd::getppid().as_raw(),
        "session": unistd::getsid(None).map_or(-1, |id| id.as_raw()),
        "group": unistd::getpgrp().as_raw(),
        "uid": unistd::getuid().as_raw(),
        "gid": unistd::getgid().as_raw(),
        "groups": unistd::getgroups().ok().map(|groups| groups.iter().map(|id| id.as_raw()).collect::<Vec<_>>()),
        "umask": mask.bits(),
        "oom": read("/proc/self/oom_score_adj"),
        "cgroup": text("/proc/self/cgroup").lines().find(|line| line.starts_with("0::")),
        "uid_map": read("/proc/self/uid_map").split_whitespace().collect::<Vec<_>>().join(" "),
        "gid_map": read("/proc/self/gid_map").split_whitespace().collect::<Vec<_>>().join(" "),
        "setgroups": read("/proc/self/setgroups"),
        "timens": read("/proc/self/timens_offsets").split_whitespace().collect::<Vec<_>>().join(" "),
        "personality": call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0]),
        "policy": call(libc::SYS_sched_getscheduler, [0; 4]),
        "nice": call(libc::SYS_getpriority, [0; 4]),
        "ioprio": call(libc::SYS_ioprio_get, [1, 0, 0, 0]),
        "dumpable": call(libc::SYS_prctl, [3, 0, 0, 0]),
        "securebits": call(libc::SYS_prctl, [27, 0, 0, 0]),
        "terminal": text("/proc/self/stat").split(' ').nth(6).map(String::from),
        "files": open_files(),
        "cmdline": read("/proc/1/cmdline").replace('\0', " "),
    })
}

fn text(path: &str) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn environment() -> BTreeMap<String, String> {
    let text = |word: std::ffi::OsString| word.to_string_lossy().into_owned();
    std::env::vars_os()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

fn directory() -> String {
    std::env::current_dir().map_or_else(|e| e.to_string(), |path| path.display().to_string())
}

fn status() -> BTreeMap<String, String> {
    let text = text("/proc/self/status");
    let lines = text.lines().filter_map(|line| line.split_once(":\t"));
    lines
        .filter(|(name, _)| STATUS.contains(name))
        .map(|(name, value)| (name.to_string(), value.trim().replace('\t', " ")))
        .collect()
}

fn limits() -> BTreeMap<&'static str, Option<(u64, u64)>> {
    let all = LIMITS.iter().enumerate();
    all.map(|(number, name)| (*name, limit(number as u32)))
        .collect()
}

fn namespaces() -> BTreeMap<&'static str, String> {
    let link = |name: &str| fs::read_link(format!("/proc/self/ns/{name}"));
    let text =
        |name| link(name).map_or_else(|e| e.kind().to_string(), |to| to.display().to_string());
    NAMESPACES.iter().map(|name| (*name, text(name))).collect()
}

/// Returns the names of the open files by number, without the inode numbers of pipes and sockets.
fn open_files() -> BTreeMap<String, String> {
    let numbers = (0..64).map(|number| (number, fs::read_link(format!("/proc/self/fd/{number}"))));
    let known = numbers.filter_map(|(number, to)| Some((number, to.ok()?.display().to_string())));
    known
        .map(|(number, to)| {
            let numbered = to.starts_with("pipe:") || to.starts_with("socket:");
            let name = if numbered {
                to.split(':').next().unwrap_or("")
            } else {
                &to
            };
            (number.to_string(), name.to_string())
        })
        .collect()
}

fn calls() -> BTreeMap<&'static str, i64> {
    CALLS
        .iter()
        .map(|(name, number, arguments)| (*name, call_in_child(*number, *arguments)))
        .collect()
}

fn network() -> Vec<String> {
    let text = text("/proc/self/net/dev");
    let names = text
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next());
    let routes = fs::read_to_string("/proc/self/net/fib_trie").unwrap_or_default();
    let up = routes.contains("127.0.0.1");
    let mut all: Vec<String> = names.map(|name| name.trim().to_string()).collect();
    all.sort();
    all.push(format!(
        "127.0.0.1 {}",
        if up { "is up" } else { "is down" }
    ));
    all
}

/// Adds a line to the log that the third word names. A log that cannot be written is passed over.
fn hook(arguments: &[String]) {
    let mut state = String::new();
    std::io::stdin().read_to_string(&mut state).ok();
    let outside = fs::exists("/run/d/probe").unwrap_or(false);
    let line = json!({
        "args": arguments,
        "env": environment(),
        "cwd": directory(),
        "state": serde_json::from_str::<Value>(&state).unwrap_or(Value::String(state)),
        "namespaces": namespaces(),
        "status": status(),
        "root": if outside { "of the host" } else { "of the container" },
        "umask": nix::sys::stat::umask(nix::sys::stat::Mode::empty()).bits(),
    });
    let log = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&arguments[2]);
    if let Ok(mut log) = log {
        writeln!(log, "{line}").ok();
    }
}
