//! CHILD: what the process of a hook does between fork and exec.
//!
//! The closure makes system calls on memory that is prepared before the fork. Only a failure allocates, for its text.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Result;
use nix::errno::Errno;

use super::cred::{self, Sets};
use super::process::Pointers;
use super::seccomp::Instruction;
use super::{errno, named, process, seccomp};

/// The confinement that a hook takes on in its own process. The process that starts the hook stays as it is.
#[derive(Clone, Default)]
pub struct Confinement {
    /// Whether the hook becomes the parent of orphans among its descendants (prctl(2), PR_SET_CHILD_SUBREAPER). Exec
    /// keeps that.
    pub subreaper: bool,
    /// `None` keeps the umask of the process that starts the hook.
    pub umask: Option<u32>,
    /// Resource, soft and hard limit (setrlimit(2)).
    pub limits: Vec<(u32, u64, u64)>,
    /// `None` loads no filter.
    pub filter: Option<Filter>,
}

/// A seccomp filter without a listener.
#[derive(Clone)]
pub struct Filter {
    /// Instructions of classic BPF (seccomp(2)).
    pub program: Vec<Instruction>,
    /// Flags of seccomp(2).
    pub flags: u32,
    /// Flags that are left out on a kernel that refuses them.
    pub optional: u32,
    /// The sets with the CAP_SYS_ADMIN that seccomp(2) needs without no_new_privs. Exec computes new ones.
    pub admin: Option<Sets>,
}

/// The program of a hook, in the form that execve(2) takes.
pub struct Program {
    /// The file to execute.
    pub path: CString,
    /// The arguments, the program's name first.
    pub argv: Pointers,
    /// The environment, each entry `NAME=value`.
    pub envp: Pointers,
    /// Comes before the errno, if the program cannot be executed.
    pub failure: String,
}

/// Confines the command, unblocks all signals, and leaves it no descriptor but its standard streams.
///
/// A step that fails is named on the command's standard error; spawn then returns the errno.
///
/// Under a filter the command does not come back from here: it executes `program`, or exits with status 127. The
/// standard library would wait for ever for a process whose filter refuses execve(2) and exit_group(2).
pub fn confine(command: &mut Command, confinement: Confinement, program: Option<Program>) {
    let confine = move || {
        apply(&confinement).map_err(|error| {
            let errno = errno(&error).unwrap_or(Errno::EINVAL);
            writeln!(io::stderr(), "{error:#}").ok();
            io::Error::from(errno)
        })?;
        match &program {
            Some(program) => execute(program),
            None => Ok(()),
        }
    };
    // SAFETY: only a failure allocates, and the process that forks has no other thread.
    unsafe { command.pre_exec(confine) };
}

/// Allocates nothing: a filter is in force.
fn execute(program: &Program) -> ! {
    let errno = process::execve(&program.path, &program.argv, &program.envp);
    let stderr: BorrowedFd = process::callers(2);
    process::write(stderr, program.failure.as_bytes()).ok();
    process::write(stderr, errno.desc().as_bytes()).ok();
    process::exit(127)
}

/// In the order of the container's own program: its limits first, and the filter last.
fn apply(confinement: &Confinement) -> Result<()> {
    named(process::every_signal().thread_unblock(), || {
        "sigprocmask(unblock all)".to_string()
    })?;
    process::close_on_exec_from(3)?;
    if confinement.subreaper {
        process::set_child_subreaper()?;
    }
    confinement.umask.map_or(Ok(()), process::set_umask)?;
    for (resource, soft, hard) in &confinement.limits {
        process::prlimit(0, *resource, Some((*soft, *hard)))?;
    }
    let Some(filter) = &confinement.filter else {
        return Ok(());
    };
    filter.admin.map_or(Ok(()), cred::set_capabilities)?;
    let loaded = seccomp::load(&filter.program, filter.flags, filter.optional);
    named(loaded, || "seccomp(set filter)".to_string()).map(drop)
}
