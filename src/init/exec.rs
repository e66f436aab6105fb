//! The last mile: find the program, take on its identity, and after the start hand the process over to it.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{AccessFlags, faccessat};

use super::{explain, identity};
use crate::channel::{self, ChildEnd};
use crate::plan::Plan;
use crate::plan::hooks::Hook;
use crate::plan::process::{Process, Rlimit};
use crate::plan::scheduling::Scheduling;
use crate::plan::seccomp::Filter;
use crate::programs::hooks;
use crate::sys::confine::{self, Confinement};
use crate::sys::courier::Courier;
use crate::sys::process::{self, Pointers};
use crate::sys::{self, clone, named, path, regular, seccomp};

/// /etc/passwd of an image is not ours: no more of it is read than this.
const PASSWD: u64 = 1 << 20;

/// All that execve(2) needs, prepared while memory may be had.
pub struct Ready {
    program: CString,
    argv: Pointers,
    envp: Pointers,
    /// For the caller of the start, who forwards what comes.
    pub notify_socket: Option<OwnedFd>,
}

/// Goes to the working directory, becomes the container's user and finds the program as that user.
pub fn prepare(plan: &Plan) -> Result<Ready> {
    let process = &plan.process;
    let early = change_directory(&process.cwd);
    raise_limits(process)?;
    set_scheduling(&process.scheduling)?;
    let confined = plan.namespaces.has(clone::NEWUSER);
    identity::assume(&process.identity, confined, needs_admin(process))?;
    // A directory that root may not enter may be open to the user, as on a network filesystem.
    match early {
        Err(error) if is_refusal(&error) => change_directory(&process.cwd)?,
        result => result?,
    }
    // With the rights of the container's user, and no more.
    let env = with_home(process)?;
    let program = match process.args.first() {
        Some(name) => find(name, &env)?,
        None => CString::default(),
    };
    process::set_umask(process.umask).context("process.user.umask")?;
    Ok(Ready {
        program,
        argv: Pointers::new(process.args.clone()),
        envp: Pointers::new(env),
        notify_socket: None,
    })
}

/// Never returns but with the reason.
pub fn execute(plan: &Plan, channel: &ChildEnd, ready: Ready) -> Result<Infallible> {
    let process = &plan.process;
    ensure!(
        !process.args.is_empty(),
        "process: missing in the config; there is nothing to start"
    );
    close_all_but(&[channel.as_fd()], process.preserve_fds)?;
    // Before its limits, one of which may be that on processes.
    let courier = courier(plan, channel);
    set_limits(process)?;
    if needs_admin(process) {
        identity::raise_admin()?;
    }
    if let Some(filter) = &process.seccomp {
        load(filter, channel, courier.as_ref())?;
    }
    let errno = process::execve(&ready.program, &ready.argv, &ready.envp);
    Err(explain::failed_exec(&ready.program, errno))
}

/// seccomp(2) without no_new_privs asks for CAP_SYS_ADMIN, when the process is no longer to have it.
fn needs_admin(process: &Process) -> bool {
    process.seccomp.is_some() && !process.identity.no_new_privileges
}

/// Outside of the container's user namespace somebody may lack the privilege to take the listener from here.
fn courier(plan: &Plan, channel: &ChildEnd) -> Option<Courier> {
    let filter = plan.process.seccomp.as_ref();
    let wanted = filter.is_some_and(|filter| filter.notify.is_some());
    let confined = plan.namespaces.has(clone::NEWUSER);
    (wanted && confined).then(|| Courier::new(channel.as_fd(), channel::LISTENER_TAG))?
}

/// From here on the filter judges this process too.
fn load(filter: &Filter, channel: &ChildEnd, courier: Option<&Courier>) -> Result<()> {
    let result = seccomp::load(&filter.program, filter.flags, filter.optional_flags());
    let loaded = named(result, || "seccomp(set filter)".to_string());
    let listener = loaded.context("linux.seccomp: load the filter")?;
    if filter.notify.is_none() {
        return Ok(());
    }
    let sent = match courier {
        Some(courier) => courier.send(listener),
        None => process::write(channel, &channel::listener_packet(listener)),
    };
    sent.and_then(|()| process::read(channel, &mut [0]))
        .map_err(|errno| anyhow!("linux.seccomp: hand over the listener: {}", errno.desc()))
}

/// Hard, before exec looks anything up: a descriptor of the host must not be a path to it (CVE-2024-21626).
pub fn close_all_but(keep: &[BorrowedFd], preserve: u32) -> Result<()> {
    let mut kept: Vec<i32> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut first = 3 + preserve as i32;
    for fd in kept {
        process::close_between(first, fd - 1)?;
        first = first.max(fd + 1);
    }
    process::close_from(first)
}

fn change_directory(cwd: &Path) -> Result<()> {
    let directory = path::resolve(process::root_directory()?, cwd);
    let entered = directory.and_then(|directory| {
        named(nix::unistd::fchdir(directory), || {
            format!("fchdir({cwd:?})")
        })
    });
    entered.map_err(|error| error.context(format!("process.cwd: {}", cwd.display())))
}

fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(sys::errno(error), Some(Errno::EACCES | Errno::EPERM))
}

fn set_scheduling(scheduling: &Scheduling) -> Result<()> {
    if let Some(scheduler) = &scheduling.scheduler {
        process::set_scheduler(scheduler)
            .map_err(|error| explain_refusal(error, "process.scheduler"))?;
    }
    if let Some(priority) = scheduling.io_priority {
        process::set_io_priority(priority)
            .map_err(|error| explain_refusal(error, "process.ioPriority"))?;
    }
    if let Some(domain) = scheduling.personality {
        process::set_personality(domain).context("linux.personality")?;
    }
    if let Some(policy) = &scheduling.memory_policy {
        process::set_memory_policy(policy.mode, &policy.nodes).with_context(|| {
            format!("linux.memoryPolicy: {policy} (has this host the nodes, and linux.resources.cpu.mems?)")
        })?;
    }
    Ok(())
}

/// sched(7), ioprio_set(2): a user namespace gives no right to more of the host's time.
fn explain_refusal(error: anyhow::Error, field: &str) -> anyhow::Error {
    match is_refusal(&error) {
        true => error.context(format!("{field}: takes CAP_SYS_NICE on the host")),
        false => error.context(field.to_string()),
    }
}

/// What takes privilege is done while there is some, and reported before the start.
fn raise_limits(process: &Process) -> Result<()> {
    for (index, limit) in process.rlimits.iter().enumerate() {
        let (soft, hard) = process::prlimit(0, limit.resource, None)?;
        if limit.hard > hard {
            process::prlimit(0, limit.resource, Some((soft, limit.hard)))
                .with_context(|| above_hard(index, limit, hard))?;
        }
    }
    Ok(())
}

/// prlimit(2) needs the capability in the initial user namespace.
fn above_hard(index: usize, limit: &Rlimit, hard: u64) -> String {
    format!(
        "process.rlimits[{index}].hard: {}: {} of the runtime is {hard}, and CAP_SYS_RESOURCE, to go above it, is missing; \
         lower the limit in the config, or raise it for the caller",
        limit.hard, limit.name
    )
}

/// Not earlier: a low limit would hit the runtime's own last steps.
fn set_limits(process: &Process) -> Result<()> {
    let limits = process.rlimits.iter().enumerate();
    limits
        .into_iter()
        .try_for_each(|(index, limit)| set_limit(index, limit, (limit.soft, limit.hard)))
}

fn set_limit(index: usize, limit: &Rlimit, to: (u64, u64)) -> Result<()> {
    process::prlimit(0, limit.resource, Some(to))
        .map(drop)
        .map_err(|error| {
            error.context(format!(
                "process.rlimits[{index}]: {} {}:{}",
                limit.name, limit.soft, limit.hard
            ))
        })
}

/// Programs count on HOME; without one in the config it is that of the user in the image.
fn with_home(process: &Process) -> Result<Vec<CString>> {
    let mut env = process.env.clone();
    let given =
        |entry: &CString| entry.as_bytes().starts_with(b"HOME=") && entry.as_bytes() != b"HOME=";
    if !env.iter().any(given) {
        env.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
        let home = home(process.identity.uid).unwrap_or_else(|| "/".to_string());
        env.push(CString::new(format!("HOME={home}"))?);
    }
    Ok(env)
}

fn home(uid: u32) -> Option<String> {
    let root = process::root_directory().ok()?;
    let file = regular::open(root, Path::new("/etc/passwd")).ok()?;
    let mut text = Vec::new();
    file.take(PASSWD).read_to_end(&mut text).ok()?;
    home_of(&String::from_utf8_lossy(&text), uid)
}

/// Returns the home directory of a user from the text of passwd(5); None if no line with this uid has an absolute path.
pub fn home_of(passwd: &str, uid: u32) -> Option<String> {
    let matching = |line: &&str| line.split(':').nth(2) == Some(&uid.to_string());
    let home = passwd.lines().find(matching)?.split(':').nth(5)?;
    (home.starts_with('/') && !home.contains('\0')).then(|| home.to_string())
}

/// As execvp(3) with the PATH of the process, but for the words that engines look for.
fn find(name: &CStr, env: &[CString]) -> Result<CString> {
    let file = Path::new(OsStr::from_bytes(name.to_bytes()));
    if name.to_bytes().contains(&b'/') {
        check_executable(file)?;
        return Ok(name.to_owned());
    }
    let path = env
        .iter()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    let mut refused = None;
    for directory in path
        .iter()
        .flat_map(|path| path.split(|byte| *byte == b':'))
    {
        let directory = if directory.is_empty() {
            b"."
        } else {
            directory
        };
        let candidate: PathBuf = Path::new(OsStr::from_bytes(directory)).join(file);
        match check_executable(&candidate) {
            Ok(()) => return Ok(CString::new(candidate.as_os_str().as_bytes())?),
            Err(error) if candidate.is_file() => refused = Some(error),
            Err(_) => {}
        }
    }
    match refused {
        Some(error) => Err(error),
        None => bail!(explain::refusal(
            "exec-not-found",
            Errno::ENOENT,
            Path::new(file),
            &format!("executable file not found in $PATH{}", explain::NOT_THERE),
        )),
    }
}

fn check_executable(file: &Path) -> Result<()> {
    let found = regular::find(file).map_err(|errno| explain::refused(errno, file))?;
    let kind = found.1.st_mode & libc::S_IFMT;
    ensure!(kind != libc::S_IFDIR, explain::refused(Errno::EISDIR, file));
    let at = nix::fcntl::AT_FDCWD;
    let allowed = faccessat(at, file, AccessFlags::X_OK, AtFlags::AT_EACCESS);
    ensure!(
        allowed.is_ok() && kind == libc::S_IFREG,
        explain::refused(Errno::EACCES, file)
    );
    match explain::missing_interpreter(file, &found) {
        Some(reason) => bail!(explain::refusal(
            "exec-interpreter-missing",
            Errno::ENOENT,
            file,
            &reason
        )),
        None => Ok(()),
    }
}

/// startContainer hooks without an environment of their own have that of the process, HOME included.
pub fn with_environment(list: &[Hook], ready: &Ready) -> Vec<Hook> {
    let own = ready.envp.strings().iter();
    let own = own.map(|entry| entry.to_string_lossy().into_owned());
    hooks::with_environment(list, &own.collect::<Vec<_>>())
}

/// The limits and the filter of the process, which `execute` gives to the program. startContainer hooks come from the
/// image, and run before that.
pub fn confinement(process: &Process) -> Result<Confinement> {
    let limits = process.rlimits.iter();
    let admin = match needs_admin(process) {
        true => Some(identity::with_admin()?),
        false => None,
    };
    Ok(Confinement {
        subreaper: false,
        umask: None,
        limits: limits
            .map(|limit| (limit.resource, limit.soft, limit.hard))
            .collect(),
        filter: process.seccomp.as_ref().map(|filter| confine::Filter {
            program: filter.program.clone(),
            flags: filter.flags_without_listener(),
            optional: filter.optional_flags(),
            admin,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::home_of;

    #[test]
    fn home_is_looked_up_by_the_number_alone() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\nbad\n";
        assert_eq!(home_of(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(home_of(passwd, 1000).as_deref(), Some("/home/u"));
        assert_eq!(home_of(passwd, 7), None);
        assert_eq!(home_of("u:x:7:7::relative:/bin/sh", 7), None);
    }
}
