//! Processes: pidfds, exec, descriptors, and what exec hands on (signals, affinity, parent-death signal).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;

use super::stat::Stat;
use super::{again, check, check_fd, named};

/// `struct sched_attr` (sched_setattr(2)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    /// The bounds that the flags for clamping set: the config has no fields for others than none.
    pub least_utilization: u32,
    pub most_utilization: u32,
}

pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    check_fd(result, || format!("pidfd_open({pid})"))
}

/// Returns the pid of a child of this process, as the kernel tells it (proc_pid_fdinfo(5)). Fails for another process, whoever
/// has sent the pidfd.
pub fn pid_of_child(pidfd: impl AsFd) -> Result<i32> {
    let fd = pidfd.as_fd().as_raw_fd();
    let path = format!("/proc/self/fdinfo/{fd}");
    let text = super::io(super::read_text(&path)).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = line.and_then(|pid| pid.trim().parse().ok());
    let pid = pid.with_context(|| format!("{path}: is no pidfd"))?;
    let parent = Stat::of(pid)?.and_then(|stat| stat.parent());
    ensure!(
        parent == Some(std::process::id() as i32),
        "process {pid} is no child of this one"
    );
    Ok(pid)
}

/// Whether the process has ended, however; it is not waited for.
pub fn has_ended(pidfd: impl AsFd) -> bool {
    let mut polled = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    again(|| poll(&mut polled, PollTimeout::ZERO)).is_ok_and(|ready| ready > 0)
}

/// Signals exactly the process that the pidfd refers to, whoever has its number now.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> Result<()> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: a NULL siginfo is allowed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, null::<()>(), 0) };
    check(result, || format!("pidfd_send_signal(fd {fd}, {signal})")).map(drop)
}

/// Executes `path`; returns only on failure, without allocating.
pub fn execve(path: &CStr, argv: &Pointers, envp: &Pointers) -> Errno {
    // SAFETY: path is NUL-terminated; Pointers ends with NULL and owns its strings.
    unsafe {
        libc::execve(
            path.as_ptr(),
            argv.pointers.as_ptr(),
            envp.pointers.as_ptr(),
        )
    };
    Errno::last()
}

/// A copy of another process's descriptor.
pub fn pidfd_getfd(pidfd: impl AsFd, number: RawFd) -> Result<OwnedFd> {
    let fd = pidfd.as_fd().as_raw_fd();
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, fd, number, 0) };
    check_fd(result, || format!("pidfd_getfd(fd {fd}, {number})"))
}

/// write(2) on prepared memory, for a process under a filter.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length describe one slice.
    let write = || Errno::result(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) });
    again(write).map(drop)
}

/// The same with read(2).
pub fn read(fd: impl AsFd, answer: &mut [u8]) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length describe one slice.
    let read =
        || Errno::result(unsafe { libc::read(fd, answer.as_mut_ptr().cast(), answer.len()) });
    // The end of the file: whoever was asked is gone.
    if again(read)? == 0 {
        Err(Errno::EPIPE)
    } else {
        Ok(())
    }
}

/// A list of strings in the form that execve(2) takes, prepared before memory may no longer be allocated.
pub struct Pointers {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers lead to strings that the same value owns and never changes.
unsafe impl Send for Pointers {}

// SAFETY: the same.
unsafe impl Sync for Pointers {}

impl Pointers {
    pub fn new(strings: Vec<CString>) -> Pointers {
        let ends = std::iter::once(null());
        let pointers = strings
            .iter()
            .map(|text| text.as_ptr())
            .chain(ends)
            .collect();
        Pointers { strings, pointers }
    }

    pub fn strings(&self) -> &[CString] {
        &self.strings
    }
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: RawFd) -> Result<()> {
    close_range(first, RawFd::MAX, 0)
}

/// Closes the descriptors `first..=last`; the range may be empty.
pub fn close_between(first: RawFd, last: RawFd) -> Result<()> {
    if first > last {
        Ok(())
    } else {
        close_range(first, last, 0)
    }
}

/// Marks every descriptor from `first` on to be closed by exec.
pub fn close_on_exec_from(first: RawFd) -> Result<()> {
    close_range(first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: RawFd, last: RawFd, flags: u32) -> Result<()> {
    // SAFETY: no pointers are passed; the caller gives up all descriptors of the range.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    check(result, || format!("close_range({first}, {last})")).map(drop)
}

/// Every signal, also those that a C library keeps for threads, and leaves out of its own sets and calls.
pub fn every_signal() -> SigSet {
    // SAFETY: a set is an array of bits, of which the kernel reads the first 64.
    unsafe {
        let set: libc::sigset_t = std::mem::transmute([u8::MAX; size_of::<libc::sigset_t>()]);
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// Every signal gets its default action; execve(2) would hand on those that are ignored.
pub fn reset_signals() -> Result<()> {
    // struct sigaction of the kernel: SIG_DFL, no flags, no restorer, no mask (rt_sigaction(2)).
    let default = [0u64; 4];
    for signal in 1..=64 {
        let (action, old) = (default.as_ptr(), null::<u64>());
        // SAFETY: the action outlives the call and installs no handler.
        let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action, old, 8) };
        // SIGKILL and SIGSTOP have no other.
        if result != 0 && Errno::last() != Errno::EINVAL {
            check(result, || format!("rt_sigaction({signal}, SIG_DFL)"))?;
        }
    }
    Ok(())
}

/// Every processor that the cgroup allows.
pub const ALL_PROCESSORS: [u64; 128] = [u64::MAX; 128];

/// Lets this process run on the processors whose bits are set, those that the kernel does not have apart.
pub fn set_affinity(processors: &[u64]) -> Result<()> {
    let size = size_of_val(processors);
    // SAFETY: the mask outlives the call and its size is given.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, processors.as_ptr()) };
    check(result, || "sched_setaffinity()".to_string()).map(drop)
}

/// umask(2) never fails, but in a sandbox that refuses it, which nix does not expect.
pub fn set_umask(mask: u32) -> Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_umask, mask) };
    check(result, || format!("umask({mask:#o})")).map(drop)
}

pub fn set_scheduler(attributes: &SchedAttr) -> Result<()> {
    let pointer = std::ptr::from_ref(attributes);
    let SchedAttr { policy, flags, .. } = attributes;
    // SAFETY: SchedAttr has the layout of sched_attr, names its own size and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, pointer, 0) };
    check(result, || {
        format!("sched_setattr(policy {policy}, flags {flags:#x})")
    })
    .map(drop)
}

pub fn set_io_priority(priority: i32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) };
    check(result, || format!("ioprio_set({priority:#x})")).map(drop)
}

pub fn set_personality(domain: u64) -> Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::personality(domain) };
    check(result.into(), || format!("personality({domain:#x})")).map(drop)
}

/// Where this process's memory comes from; no nodes for the modes that take none.
pub fn set_memory_policy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel takes one off the number of bits (mm/mempolicy.c, get_nodes), set_mempolicy(2) does not say so.
    let (mask, bits) = match nodes.len() * u64::BITS as usize {
        0 => (null(), 0),
        bits => (nodes.as_ptr(), bits + 1),
    };
    // SAFETY: the mask outlives the call and has one bit less than is said, which the kernel knows.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(result, || {
        format!("set_mempolicy({mode:#x}, {nodes:x?}, {bits})")
    })
    .map(drop)
}

/// Makes the common signals end this process even where it is the first of its pid namespace, which
/// otherwise ignores those that it has no handler for (pid_namespaces(7)). exec undoes it.
pub fn die_of_signals() {
    extern "C" fn die(signal: libc::c_int) {
        exit(128 + signal);
    }
    let deadly = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGTERM,
    ];
    for signal in deadly {
        let handler = die as extern "C" fn(libc::c_int);
        // SAFETY: the handler only calls _exit(2), which is safe in a signal handler.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether the caller has left this signal ignored.
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data, for which all zero is a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a NULL action only asks; the structure outlives the call.
    let asked = unsafe { libc::sigaction(signal, null(), &raw mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// A caller that ignores SIGCHLD would have its children reaped unseen (wait(2)).
pub fn reset_sigchld() {
    // SAFETY: SIG_DFL installs no handler.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// The signal that this process gets when its parent dies; 0 for none.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl("PR_SET_PDEATHSIG", libc::PR_SET_PDEATHSIG, signal as u64)
}

/// Whether other processes of the same user may trace this one or look into its /proc entries.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, dumpable.into())
}

/// Names this process for ps(1) and pgrep(1) as its file is named; execveat(2) without a path names it by a number.
pub fn set_name(name: &CStr) -> Result<()> {
    // SAFETY: the kernel copies at most 16 bytes of a NUL-terminated string.
    let result = unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    check(result.into(), || format!("prctl(PR_SET_NAME, {name:?})")).map(drop)
}

pub fn set_child_subreaper() -> Result<()> {
    prctl("PR_SET_CHILD_SUBREAPER", libc::PR_SET_CHILD_SUBREAPER, 1)
}

pub fn set_no_new_privileges() -> Result<()> {
    prctl("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1)
}

pub(super) fn prctl(name: &str, option: i32, argument: u64) -> Result<()> {
    // SAFETY: none of the options used here takes a pointer.
    let result = unsafe { libc::prctl(option, argument, 0, 0, 0) };
    check(result.into(), || format!("prctl({name}, {argument})")).map(drop)
}

/// Changes a limit of another process; `None` leaves it as it is. Gives the limit before.
pub fn prlimit(pid: i32, resource: u32, limit: Option<(u64, u64)>) -> Result<(u64, u64)> {
    let new = limit.map(|(soft, hard)| libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    });
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pointer = new.as_ref().map_or(null(), std::ptr::from_ref);
    // SAFETY: both structures outlive the call; a NULL new limit is allowed.
    let result =
        unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, pointer, &raw mut old) };
    check(result, || format!("prlimit({pid}, {resource}, {limit:?})"))?;
    Ok((old.rlim_cur, old.rlim_max))
}

/// Takes a variable out of the environment, which the children of this process inherit.
pub fn remove_variable(name: &str) {
    // SAFETY: there is one thread, and nobody holds a reference to the environment.
    unsafe { std::env::remove_var(name) };
}

/// Hands a value on to the program that is executed next.
pub fn set_variable(name: &str, value: &str) {
    // SAFETY: there is one thread, and nobody holds a reference to the environment.
    unsafe { std::env::set_var(name, value) };
}

/// Ends the process at once: no destructors, no buffers, which after clone3 belong to the parent.
pub fn exit(status: i32) -> ! {
    // SAFETY: no pointers are passed.
    unsafe { libc::syscall(libc::SYS_exit_group, status) };
    // A filter of the config's has refused even that. A C library would ask for ever; a fault ends the process.
    std::process::abort()
}

/// sethostname(2)'s sister, which nix lacks.
pub fn set_domainname(name: &str) -> Result<()> {
    // SAFETY: the pointer and the length describe one string.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(result.into(), || format!("setdomainname({name:?})")).map(drop)
}

/// The process's root, for resolving paths inside it.
pub fn root_directory() -> Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path is a NUL-terminated string.
    let open = || Errno::result(unsafe { libc::open(c"/".as_ptr(), flags) });
    let fd = named(again(open), || "open(\"/\")".to_string())?;
    // SAFETY: the kernel has just returned this descriptor; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor of the caller's, by its number: a standard stream, or one to be handed on.
pub fn callers(fd: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the caller's descriptors stay open for the life of the process; one that is not open is
    // refused by the kernel.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Writes a process's oom_score_adj; `process` is a pid or `self` (proc_pid_oom_score_adj(5)).
pub fn set_oom_score(process: &str, score: i32) -> Result<()> {
    let file = format!("/proc/{process}/oom_score_adj");
    let hint =
        || format!("process.oomScoreAdj: {score}: a value below one's own needs CAP_SYS_RESOURCE");
    super::io(std::fs::write(&file, score.to_string()))
        .with_context(|| format!("write \"{score}\" to {file:?}"))
        .with_context(hint)
}
