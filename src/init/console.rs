//! The container's terminal and its standard streams.
//!
//! Multiplexer and terminal are verified by what they are, not by their names, which the image or a
//! volume could have turned: CVE-2025-52565.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, openat};
use nix::pty::Winsize;
use nix::sys::stat::{FileStat, Mode, fstat, makedev};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Uid, fchown};

use super::rootfs::{Root, trusted_proc};
use super::streams;
use crate::channel::{ChildEnd, Up};
use crate::facility::stream_owner;
use crate::plan::Plan;
use crate::sys::{again, mount, named, path, tty};

const DEVPTS: FsType = FsType(0x1cd1);

/// Makes a terminal in the container's devpts, if the plan has one, and sends its other side to the parent.
///
/// `proc` is a procfs that shows this process. None: one is made.
pub fn open(
    root: impl AsFd,
    plan: &Plan,
    channel: &ChildEnd,
    proc: Option<OwnedFd>,
) -> Result<Option<OwnedFd>> {
    let Some(size) = plan.process.terminal else {
        return Ok(None);
    };
    let hint =
        "process.terminal: no usable /dev/pts/ptmx in the container; mount a devpts on /dev/pts";
    let master = open_multiplexer(root, proc).context(hint)?;
    tty::unlock(&master)?;
    let terminal = tty::open_peer(&master)?;
    let minor = nix::sys::stat::minor(stat(&terminal)?.st_rdev);
    check(&terminal, makedev(136, minor)).context(hint)?;
    if size.height > 0 && size.width > 0 {
        let size = Winsize {
            ws_row: size.height,
            ws_col: size.width,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tty::set_window_size(&master, size)?;
    }
    channel.send(Up::Console(master))?;
    Ok(Some(terminal))
}

/// To open what is no multiplexer could already have an effect: it is looked at first (O_PATH), and the
/// same file opened then, through a procfs that nothing in the container can stand in for.
fn open_multiplexer(root: impl AsFd, proc: Option<OwnedFd>) -> Result<OwnedFd> {
    let found = path::resolve(root, Path::new("/dev/pts/ptmx"))?;
    check(&found, makedev(5, 2))?;
    let name = format!("self/fd/{}", found.as_raw_fd());
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let proc = proc.map_or_else(trusted_proc, Ok)?;
    let opened = again(|| openat(&proc, name.as_str(), flags, Mode::empty()));
    named(opened, || "open(ptmx)".to_string())
}

/// A character device of this number on a real devpts.
fn check(file: &OwnedFd, device: u64) -> Result<()> {
    let kind = named(fstatfs(file), || {
        format!("fstatfs(fd {})", file.as_raw_fd())
    })?;
    let meta = stat(file)?;
    let character = meta.st_mode & libc::S_IFMT == libc::S_IFCHR;
    ensure!(kind.filesystem_type() == DEVPTS, "is not on a devpts");
    ensure!(
        character && meta.st_rdev == device,
        "is not the device it should be"
    );
    Ok(())
}

/// /dev/console of a container with a terminal is that terminal.
pub fn put_on_console(terminal: &OwnedFd, root: &Root) -> Result<()> {
    let console = Path::new("/dev/console");
    let bind = || {
        path::make_file(root, console)?;
        let target = path::resolve_link(root, console)?;
        let kind = stat(&target)?.st_mode & libc::S_IFMT;
        let is_plain = kind != libc::S_IFLNK && kind != libc::S_IFDIR;
        ensure!(is_plain, "is a link or a directory");
        mount::move_mount(mount::clone_tree_at(terminal, false)?, target)
    };
    bind().context("bind the terminal on /dev/console")
}

/// Makes the terminal standard input, output and error; without one the streams of the caller stay,
/// owned by the container's user so that it can open /dev/stdout again.
pub fn take_over_stdio(terminal: Option<OwnedFd>, uid: u32) -> Result<()> {
    let Some(terminal) = terminal else {
        streams::replace_host_devices()?;
        return named(stream_owner::give_what_may_be_given(uid), || {
            format!("fchown(standard stream, {uid})")
        });
    };
    if stat(&terminal)?.st_uid != uid {
        let given = fchown(&terminal, Some(Uid::from_raw(uid)), None);
        named(stream_owner::unless_refused(given), || {
            format!("fchown(terminal, {uid})")
        })?;
    }
    named(nix::unistd::dup2_stdin(&terminal), || {
        "dup2(terminal, 0)".to_string()
    })?;
    named(nix::unistd::dup2_stdout(&terminal), || {
        "dup2(terminal, 1)".to_string()
    })?;
    named(nix::unistd::dup2_stderr(&terminal), || {
        "dup2(terminal, 2)".to_string()
    })
}

fn stat(file: &OwnedFd) -> Result<FileStat> {
    named(fstat(file), || format!("fstat(fd {})", file.as_raw_fd()))
}
