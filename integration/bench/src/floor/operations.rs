//! The floor's operations, in the order of a container's life. What one has to tell the next is one line in a file.
//! Where the kernel tells when something is done (poll on a pidfd), the floor waits for that and never sleeps.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo, pipe2};

use crate::calls;

pub fn perform(root: &str, words: &[&str]) -> Result<()> {
    match words {
        ["run", "--bundle", bundle, _id] => run(bundle),
        ["create", "--bundle", bundle, id] => create(root, bundle, id),
        ["start", id] => start(root, id),
        ["exec", id, ..] => exec(root, id),
        ["state", id] => print(&state(root, id)?),
        ["list"] => list(root),
        ["kill", id, "KILL"] => kill(root, id),
        ["delete", id] => delete(root, id),
        ["delete", "--force", id] => delete_running(root, id),
        _ => bail!("{words:?}: no such operation"),
    }
}

fn run(bundle: &str) -> Result<()> {
    let text = fs::read_to_string(format!("{bundle}/floor.calls")).context("floor.calls")?;
    let (parent, child) = calls::split(&text)?;
    let made = calls::prepare(parent)?;
    let pid = calls::launch(&made, child, None)?;
    wait(pid)?;
    remove_cgroup(made.cgroup)
}

/// The child tells by the pipe that it is ready, and waits at the fifo, which it has open.
fn create(root: &str, bundle: &str, id: &str) -> Result<()> {
    let text = fs::read_to_string(format!("{bundle}/floor.calls")).context("floor.calls")?;
    let (parent, child) = calls::split(&text)?;
    let directory = format!("{root}/{id}");
    let fifo = format!("{directory}/start");
    fs::create_dir(&directory).context("state directory")?;
    mkfifo(fifo.as_str(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    let gate = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_CLOEXEC.bits())
        .open(&fifo)?;
    let (ready, told) = pipe2(OFlag::O_CLOEXEC)?;
    let made = calls::prepare(parent)?;
    let pid = calls::launch(&made, child, Some((&told, &gate)))?;
    drop(told);
    let mut byte = [0];
    File::from(ready).read_exact(&mut byte).context("set-up")?;
    let record = format!("{pid} {} {bundle}", made.cgroup);
    Ok(fs::write(format!("{directory}/state"), record)?)
}

fn start(root: &str, id: &str) -> Result<()> {
    let fifo = format!("{root}/{id}/start");
    let mut gate = File::options().write(true).open(fifo)?;
    Ok(gate.write_all(b"s")?)
}

fn exec(root: &str, id: &str) -> Result<()> {
    let record = record(root, id)?;
    let text = fs::read_to_string(format!("{}/floor.exec", record.bundle))?;
    let (parent, child) = calls::split(&text)?;
    let made = calls::joining(parent, &record.cgroup)?;
    let target = bench_sys::pidfd_open(record.pid)?;
    setns(
        &target,
        CloneFlags::from_bits_retain(made.namespaces as i32),
    )?;
    wait(calls::launch(&made, child, None)?)
}

fn state(root: &str, id: &str) -> Result<String> {
    let record = record(root, id)?;
    let status = match bench_sys::pidfd_open(record.pid).and_then(|pidfd| ended(&pidfd)) {
        Ok(false) => "running",
        Ok(true) | Err(Errno::ESRCH) => "stopped",
        Err(error) => return Err(error.into()),
    };
    let Record { pid, bundle, .. } = record;
    let bundle = bundle.as_str();
    Ok(format!(
        "{{\"id\":\"{id}\",\"pid\":{pid},\"status\":\"{status}\",\"bundle\":\"{bundle}\"}}\n"
    ))
}

fn list(root: &str) -> Result<()> {
    let mut text = String::new();
    for entry in fs::read_dir(root)? {
        text.push_str(&state(root, &entry?.file_name().to_string_lossy())?);
    }
    print(&text)
}

fn kill(root: &str, id: &str) -> Result<()> {
    let pidfd = bench_sys::pidfd_open(record(root, id)?.pid)?;
    Ok(bench_sys::pidfd_send_signal(
        pidfd.as_fd(),
        Signal::SIGKILL,
    )?)
}

fn delete(root: &str, id: &str) -> Result<()> {
    remove_cgroup(&record(root, id)?.cgroup)?;
    let directory = format!("{root}/{id}");
    fs::remove_file(format!("{directory}/start"))?;
    fs::remove_file(format!("{directory}/state"))?;
    Ok(fs::remove_dir(directory)?)
}

fn delete_running(root: &str, id: &str) -> Result<()> {
    let pidfd = bench_sys::pidfd_open(record(root, id)?.pid)?;
    bench_sys::pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL)?;
    poll(
        &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
        PollTimeout::NONE,
    )?;
    delete(root, id)
}

struct Record {
    pid: Pid,
    cgroup: String,
    bundle: String,
}

fn record(root: &str, id: &str) -> Result<Record> {
    let text = fs::read_to_string(format!("{root}/{id}/state")).with_context(|| id.to_string())?;
    let mut words = text.split(' ').map(str::to_string);
    let mut next = || words.next().context("a record has three words");
    Ok(Record {
        pid: Pid::from_raw(next()?.parse()?),
        cgroup: next()?,
        bundle: next()?,
    })
}

fn ended(pidfd: &OwnedFd) -> nix::Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

/// The kernel answers EBUSY as long as a dying process is on its way out (the event of the cgroup tells when).
fn remove_cgroup(path: &str) -> Result<()> {
    while let Err(error) = fs::remove_dir(path) {
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error).with_context(|| path.to_string());
        }
        let events = File::open(format!("{path}/cgroup.events"))?;
        let text = std::io::read_to_string(&events)?;
        if text.contains("populated 1") {
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            poll(&mut fds, PollTimeout::from(100u8))?;
        }
    }
    Ok(())
}

fn wait(pid: Pid) -> Result<()> {
    match bench_sys::wait4(Some(pid), 0)? {
        Some(ended) if ended.status == 0 => Ok(()),
        Some(ended) => bail!("the container's program: status {:#x}", ended.status),
        None => bail!("nothing to wait for"),
    }
}

fn print(text: &str) -> Result<()> {
    let out = std::io::stdout();
    debug_assert_eq!(out.as_raw_fd(), 1);
    Ok(out.lock().write_all(text.as_bytes())?)
}
