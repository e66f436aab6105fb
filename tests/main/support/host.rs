//! The host as the tests see it: cgroups, mounts, processes, and what must not change.

use super::{Runtime, binary, runtime};
use std::ffi::CString;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The mount point of the cgroup v2 tree: `/sys/fs/cgroup`, or `unified` below it.
pub fn cgroup_root() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read mounts");
    let line = mounts
        .lines()
        .find(|l| l.split(' ').nth(2) == Some("cgroup2"));
    let path = line.and_then(|l| l.split(' ').nth(1));
    PathBuf::from(path.expect("a cgroup2 mount"))
}

pub fn is_pure_v2() -> bool {
    cgroup_root() == Path::new("/sys/fs/cgroup")
}

pub fn has_controller(name: &str) -> bool {
    let all = fs::read_to_string(cgroup_root().join("cgroup.controllers")).unwrap_or_default();
    all.split_whitespace().any(|c| c == name)
}

/// How long a test waits for an event before it fails: much longer than the event takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until it holds; panics if it never does.
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    assert!(holds_within(PATIENCE, holds), "still waiting until {what}");
}

/// Returns what the act returns, and panics if the act takes longer than the limit. More time is allowed while the machine
/// is busy: a hundred times what a call takes that waits for nothing.
pub fn in_time<T>(limit: Duration, act: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = act();
    let took = begin.elapsed();
    if took >= limit {
        let begin = Instant::now();
        let call = std::process::Command::new(binary())
            .arg("--version")
            .output();
        call.expect("run the runtime");
        let allowed = limit + 100 * begin.elapsed();
        assert!(took < allowed, "took {took:?}, allowed are {allowed:?}");
    }
    result
}

/// Polls until it holds or the time is over; for places that may not panic.
pub fn holds_within(time: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !holds() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// By a process of its own: a child that another test forks meanwhile would inherit the descriptor that is written to,
/// and execve(2) would say ETXTBSY.
pub fn copy_program(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").args([from, to]).status();
    assert!(status.expect("run cp").success(), "cp {from:?} {to:?}");
}

/// Two files change places; tells whether they did.
pub fn exchange([first, second]: &[CString; 2]) -> bool {
    let (first, second) = (first.as_ptr(), second.as_ptr());
    let flag = libc::RENAME_EXCHANGE;
    // SAFETY: the paths are C strings that outlive the call.
    unsafe { libc::syscall(libc::SYS_renameat2, -1, first, -1, second, flag) == 0 }
}

/// Makes a device node or a FIFO for everybody.
pub fn node(path: &str, kind: u32, major: u32, minor: u32) {
    let path = std::ffi::CString::new(path).expect("a path");
    // SAFETY: the path is a C string.
    let result = unsafe { libc::mknod(path.as_ptr(), kind | 0o666, libc::makedev(major, minor)) };
    assert_eq!(result, 0, "mknod {path:?}");
}

/// Sends a signal to a process that the test started.
pub fn send(pid: u32, signal: i32) {
    // SAFETY: kill touches no memory.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0, "kill {pid}");
}

/// A tmpfs of the host; unmounted on drop.
pub struct Mounted {
    path: CString,
}

impl Mounted {
    pub fn tmpfs(path: &Path, flags: libc::c_ulong) -> Mounted {
        fs::create_dir_all(path).expect("mkdir");
        let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
        let (kind, none) = (c"tmpfs".as_ptr(), std::ptr::null());
        // The flags are the mount's alone, not the file system's; those of propagation go alone.
        let change = match flags & libc::MS_SHARED {
            0 => flags | libc::MS_REMOUNT | libc::MS_BIND,
            shared => shared,
        };
        for flags in [0, change] {
            // SAFETY: the strings are C strings that outlive the call.
            let result = unsafe { libc::mount(kind, path.as_ptr(), kind, flags, none) };
            assert_eq!(result, 0, "mount a tmpfs on {path:?}");
        }
        Mounted { path }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the path is a C string.
        unsafe { libc::umount2(self.path.as_ptr(), libc::MNT_DETACH) };
    }
}

pub fn mounts_below(dir: &Path) -> Vec<String> {
    let dir = dir.display().to_string();
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    all.lines()
        .filter(|l| l.contains(&dir))
        .map(|l| format!("mount {l}"))
        .collect()
}

/// Processes whose root or executable is in this directory.
pub fn processes_below(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_dir = |pid: &PathBuf| {
        ["root", "exe", "cwd"]
            .iter()
            .any(|l| fs::read_link(pid.join(l)).is_ok_and(|p| p.starts_with(dir)))
    };
    let found = entries.map(|e| e.path()).filter(of_dir);
    found
        .map(|pid| format!("process {}", pid.display()))
        .collect()
}

pub fn chown_tree(path: &Path, id: u32) {
    std::os::unix::fs::lchown(path, Some(id), Some(id)).expect("chown");
    if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
        for entry in fs::read_dir(path).expect("read").flatten() {
            chown_tree(&entry.path(), id);
        }
    }
}

/// Options of the superblock that all mounts of cgroup2 share (proc_pid_mountinfo(5), field 11).
fn cgroup2_options() -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut lines = table.lines();
    let line = lines.find(|line| line.contains(" - cgroup2 "));
    line.and_then(|line| line.rsplit(' ').next())
        .unwrap_or_default()
        .into()
}

/// Facts that no container may change.
pub struct Canary {
    facts: Vec<(&'static str, String)>,
}

impl Canary {
    pub fn take() -> Canary {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let exe = fs::metadata(binary());
        let exe = exe
            .map(|m| format!("{} {} {}", m.ino(), m.len(), m.mtime()))
            .unwrap_or_default();
        // crun gives it to the user of the container, to whom its streams are to belong.
        let judged = runtime() != Runtime::Crun;
        let owner = |m: &fs::Metadata| judged.then(|| (m.uid(), m.gid()));
        let null = fs::metadata("/dev/null")
            .map(|m| format!("{:o} {} {:?}", m.mode(), m.rdev(), owner(&m)));
        Canary {
            facts: vec![
                ("the runtime's binary", exe),
                ("core_pattern", read("/proc/sys/kernel/core_pattern")),
                ("hostname", read("/proc/sys/kernel/hostname")),
                ("/dev/null", null.unwrap_or_default()),
                ("options of cgroup2", cgroup2_options()),
            ],
        }
    }

    pub fn changes(&self) -> Vec<String> {
        let now = Canary::take().facts;
        let changed = self
            .facts
            .iter()
            .zip(&now)
            .filter(|(before, after)| before != after);
        changed
            .map(|((name, before), (_, after))| format!("{name}: {before} became {after}"))
            .collect()
    }
}

/// Connects to a socket that takes packets.
pub fn connect_to_packets(path: &Path) -> OwnedFd {
    // SAFETY: the address is plain data and outlives the call; the new descriptor belongs to nobody else.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        let bytes = path.as_os_str().as_bytes();
        assert!(bytes.len() < address.sun_path.len(), "{path:?} is too long");
        for (to, from) in address.sun_path.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        let size = size_of_val(&address) as u32;
        let connected = libc::connect(fd, (&raw const address).cast(), size);
        assert_eq!(connected, 0, "connect to {path:?}");
        OwnedFd::from_raw_fd(fd)
    }
}
