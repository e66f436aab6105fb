//! The kernel calls that neither std nor nix offer in the form that measuring needs; all `unsafe` of this package.
//! Launcher and floor share it. It decides nothing: every function is one call, or one call and what it returns.

use std::ffi::{CString, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::Result;
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// What a process that ended has used, with the children that it waited for.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    pub faults: u64,
}

pub struct Ended {
    pub pid: Pid,
    pub status: i32,
    pub usage: Usage,
}

/// Waits for one child, or for any: a child subreaper gets those that runtimes leave behind.
pub fn wait4(pid: Option<Pid>, options: i32) -> Result<Option<Ended>> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which zeros are valid; the kernel fills both.
    let (found, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = pid.map_or(-1, Pid::as_raw);
        (libc::wait4(pid, &mut status, options, &mut usage), usage)
    };
    let found = Errno::result(found)?;
    let nanoseconds = |t: libc::timeval| (t.tv_sec * 1_000_000 + t.tv_usec) as u64 * 1000;
    Ok((found > 0).then(|| Ended {
        pid: Pid::from_raw(found),
        status,
        usage: Usage {
            cpu_ns: nanoseconds(usage.ru_utime) + nanoseconds(usage.ru_stime),
            faults: (usage.ru_minflt + usage.ru_majflt) as u64,
        },
    }))
}

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// A fork into new namespaces and a cgroup. `None` is the child.
pub fn clone3(flags: u64, cgroup: BorrowedFd) -> Result<Option<Pid>> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = CloneArgs {
        flags: flags | CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArgs::default()
    };
    // SAFETY: without CLONE_VM the child has a copy of this memory, and the caller has one thread.
    let pid = unsafe {
        let size = size_of::<CloneArgs>();
        libc::syscall(libc::SYS_clone3, &mut args, size)
    };
    let pid = Errno::result(pid)?;
    Ok((pid > 0).then(|| Pid::from_raw(pid as i32)))
}

pub fn pidfd_open(pid: Pid) -> Result<OwnedFd> {
    // SAFETY: a call on numbers; the descriptor that it returns is owned by nobody else.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0))?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

pub fn pidfd_send_signal(pidfd: BorrowedFd, signal: Signal) -> Result<()> {
    let (fd, none) = (pidfd.as_raw_fd(), std::ptr::null::<c_void>());
    // SAFETY: no siginfo is passed, which the kernel allows.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, none, 0) };
    Errno::result(sent).map(drop)
}

/// Joins a new session keyring.
pub fn new_keyring() -> Result<()> {
    const JOIN_SESSION: i32 = 1;
    let none = std::ptr::null::<c_void>();
    // SAFETY: no name is passed, which the kernel allows.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION, none) }).map(drop)
}

pub fn close_on_exec_from(first: u32) -> Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: descriptors are marked, none is closed.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) };
    Errno::result(done).map(drop)
}

/// `prctl` with plain numbers.
pub fn prctl(option: i32, a: u64, b: u64) -> Result<()> {
    // SAFETY: the options that this package uses take numbers only.
    Errno::result(unsafe { libc::prctl(option, a, b, 0, 0) }).map(drop)
}

pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let (rlim_cur, rlim_max) = (soft, hard);
    // SAFETY: the limit is read during the call.
    Errno::result(unsafe { libc::setrlimit(resource as _, &libc::rlimit { rlim_cur, rlim_max }) })
        .map(drop)
}

pub fn setresid(uid: u32, gid: u32) -> Result<()> {
    // SAFETY: an empty list of groups has no address; the others are numbers.
    unsafe {
        Errno::result(libc::setgroups(0, std::ptr::null()))?;
        Errno::result(libc::setresgid(gid, gid, gid))?;
        Errno::result(libc::setresuid(uid, uid, uid)).map(drop)
    }
}

pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let half = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let data = [half(0), half(32)];
    // SAFETY: header and data have the layout of version 3.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &header, &data) }).map(drop)
}

/// Installs a filter, given as its instructions' bytes.
pub fn seccomp(program: &[u8]) -> Result<()> {
    let header = libc::sock_fprog {
        len: (program.len() / 8) as u16,
        filter: program.as_ptr() as *mut libc::sock_filter,
    };
    // SAFETY: header points to len instructions, which the kernel reads bytewise.
    let set =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &header) };
    Errno::result(set).map(drop)
}

/// Reads the newest filter of a process that this one traces and that is stopped.
pub fn seccomp_filter_of(pid: Pid) -> Result<Vec<u8>> {
    const GET_FILTER: u32 = 0x420c;
    // SAFETY: without a buffer the kernel returns the number of instructions, each of 8 bytes.
    unsafe {
        let none = std::ptr::null_mut::<c_void>();
        let index = std::ptr::null_mut::<c_void>();
        let count = Errno::result(libc::ptrace(GET_FILTER as _, pid.as_raw(), index, none))?;
        let mut program = vec![0u8; count as usize * 8];
        let buffer = program.as_mut_ptr() as *mut c_void;
        Errno::result(libc::ptrace(GET_FILTER as _, pid.as_raw(), index, buffer))?;
        Ok(program)
    }
}

/// Loads a device program and attaches it to a cgroup.
pub fn attach_device_filter(program: &[u8], cgroup: BorrowedFd) -> Result<()> {
    const LOAD: i32 = 5;
    const ATTACH: i32 = 8;
    const DEVICE_PROGRAM: u32 = 15;
    const DEVICE_ATTACH: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    #[repr(C)]
    struct Load(u32, u32, u64, u64, u32, u32, u64, u32, u32);
    #[repr(C)]
    struct Attach(u32, u32, u32, u32);
    let (instructions, license) = (program.as_ptr() as u64, c"Apache-2.0".as_ptr() as u64);
    let count = (program.len() / 8) as u32;
    let load = Load(DEVICE_PROGRAM, count, instructions, license, 0, 0, 0, 0, 0);
    // SAFETY: both attributes are prefixes of bpf_attr, and point to memory that outlives the calls.
    unsafe {
        let fd = libc::syscall(libc::SYS_bpf, LOAD, &load, size_of::<Load>());
        let fd = OwnedFd::from_raw_fd(Errno::result(fd)? as i32);
        let (target, number) = (cgroup.as_raw_fd() as u32, fd.as_raw_fd() as u32);
        let attach = Attach(target, number, DEVICE_ATTACH, ALLOW_MULTI);
        let attached = libc::syscall(libc::SYS_bpf, ATTACH, &attach, size_of::<Attach>());
        Errno::result(attached).map(drop)
    }
}

/// Replaces the program; returns only if that fails.
pub fn exec(arguments: &[&str]) -> Errno {
    let words: Vec<CString> = arguments
        .iter()
        .flat_map(|word| CString::new(*word))
        .collect();
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(std::ptr::null());
    let environment = [c"PATH=/".as_ptr(), std::ptr::null()];
    // SAFETY: both lists end with null and outlive the call.
    unsafe { libc::execve(pointers[0], pointers.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

/// Ends the process without running what was registered for its end.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: never returns.
    unsafe { libc::_exit(status) }
}

/// The program starts traced by this process, stopped after its exec.
pub fn traced(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec there is nothing but one ptrace call.
    unsafe { command.pre_exec(|| Ok(nix::sys::ptrace::traceme()?)) }
}
