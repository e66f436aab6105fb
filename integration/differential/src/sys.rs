//! Wraps the system calls that neither std nor nix offers. All `unsafe` code of this package is here.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

/// Names of the limits of resources, without RLIMIT_, in the order of their numbers on x86_64 (getrlimit(2)).
pub const LIMITS: [&str; 16] = [
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

/// Returns the soft and the hard limit (getrlimit(2)).
pub fn limit(resource: u32) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel fills the structure, which outlives the call.
    let result = unsafe { libc::getrlimit(resource as _, &mut limit) };
    (result == 0).then_some((limit.rlim_cur, limit.rlim_max))
}

/// Returns what a system call with plain numbers returns: a value, or a negative errno.
/// No argument may be an address that the kernel writes to; an address of zero is allowed.
pub fn call(number: i64, arguments: [u64; 4]) -> i64 {
    let [a, b, c, d] = arguments;
    // SAFETY: the caller passes numbers and null pointers only.
    let result = unsafe { libc::syscall(number as _, a, b, c, d) };
    if result < 0 {
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return -i64::from(errno);
    }
    result as i64
}

/// Runs `call` in a child and returns its result, or -1000 minus the signal that killed the child.
/// Results are cut to eight bits.
pub fn call_in_child(number: i64, arguments: [u64; 4]) -> i64 {
    // SAFETY: the process has one thread, so the child may do all that the parent may do.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let result = call(number, arguments);
        // SAFETY: _exit takes a number.
        unsafe { libc::_exit(if result < 0 { -result as i32 } else { 0 }) };
    }
    if child < 0 {
        return -2000;
    }
    let mut status = 0;
    // SAFETY: the kernel fills the status.
    unsafe { libc::waitpid(child, &mut status, 0) };
    if libc::WIFSIGNALED(status) {
        -1000 - i64::from(libc::WTERMSIG(status))
    } else {
        -i64::from(libc::WEXITSTATUS(status))
    }
}

/// Makes a whole tree of mounts read-only (mount_setattr(2), Linux 5.12).
pub fn make_read_only(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let attributes: [u64; 4] = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0];
    let size = size_of_val(&attributes);
    // SAFETY: the path and the attributes outlive the call, and the size is that of the attributes.
    let result = unsafe {
        let (path, attributes) = (path.as_ptr(), attributes.as_ptr());
        let flags = libc::AT_RECURSIVE;
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path,
            flags,
            attributes,
            size,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Returns the ids of the device programs that are attached to a cgroup (bpf(2), BPF_PROG_QUERY).
pub fn device_programs(cgroup: BorrowedFd) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: i32 = 16;
    const BPF_CGROUP_DEVICE: u32 = 6;
    #[repr(C)]
    struct Query {
        cgroup: u32,
        kind: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
        program_attach_flags: u64,
    }
    let mut ids = [0u32; 64];
    let mut query = Query {
        cgroup: cgroup.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        padding: 0,
        program_attach_flags: 0,
    };
    // SAFETY: the kernel writes into the query and at most `count` ids; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<Query>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids[..query.count as usize].to_vec())
}

/// Kills this process when its parent dies (prctl(2), PR_SET_PDEATHSIG).
pub fn die_with_the_parent() {
    call(
        libc::SYS_prctl,
        [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0],
    );
}

/// Gives those signals their default action that shells ignore in what they start in the background.
pub fn heed_signals() {
    for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: no handler is installed.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}
