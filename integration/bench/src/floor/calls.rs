//! The list of calls, and making them. A line is a word and its arguments between tabs; lines before `--` are for the
//! parent, the others for the child, who ends with the exec. A missing part is a fault of the launcher.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Pid, chdir, pipe2, pivot_root, sethostname, setsid, symlinkat};

pub struct Made<'a> {
    pub namespaces: u64,
    pub cgroup: &'a str,
    directory: File,
    new: bool,
    maps: Vec<(&'a str, &'a str)>,
}

pub fn split(text: &str) -> Result<(&str, &str)> {
    text.split_once("--\n")
        .context("a list of calls has two parts")
}

/// What the parent makes before there is a child.
pub fn prepare(lines: &str) -> Result<Made<'_>> {
    let cgroup = lines.lines().find_map(|line| line.strip_prefix("cgroup\t"));
    let cgroup = cgroup.context("no cgroup")?;
    fs::create_dir(cgroup).with_context(|| cgroup.to_string())?;
    let made = read(lines, cgroup)?;
    for line in lines.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["limit", file, value] => {
                fs::write(format!("{cgroup}/{file}"), value).context(file.to_string())?
            }
            ["devices", program] => {
                bench_sys::attach_device_filter(&bytes(program)?, made.directory.as_fd())?
            }
            _ => {}
        }
    }
    Ok(made)
}

/// The same for a process that joins a container.
pub fn joining<'a>(lines: &'a str, cgroup: &'a str) -> Result<Made<'a>> {
    let made = read(lines, cgroup)?;
    Ok(Made { new: false, ..made })
}

fn read<'a>(lines: &'a str, cgroup: &'a str) -> Result<Made<'a>> {
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(cgroup)?;
    let mut made = Made {
        namespaces: 0,
        cgroup,
        directory,
        new: true,
        maps: Vec::new(),
    };
    for line in lines.lines() {
        match line.split('\t').collect::<Vec<_>>()[..] {
            ["namespaces", flags] => made.namespaces = flags.parse()?,
            ["map", file, map] => made.maps.push((file, map)),
            _ => {}
        }
    }
    Ok(made)
}

/// Makes the child. It never returns here: it becomes the program, or ends.
pub fn launch(made: &Made, calls: &str, held: Option<(&OwnedFd, &File)>) -> Result<Pid> {
    let mapped = match made.maps.is_empty() {
        true => None,
        false => Some(pipe2(nix::fcntl::OFlag::O_CLOEXEC)?),
    };
    let namespaces = if made.new { made.namespaces } else { 0 };
    let child = bench_sys::clone3(namespaces, made.directory.as_fd()).context("clone3")?;
    let Some(pid) = child else {
        let error = live(calls, mapped, held);
        eprintln!("floor: {error:#}");
        bench_sys::exit_now(1);
    };
    if let Some((_, told)) = mapped {
        for (file, map) in &made.maps {
            fs::write(format!("/proc/{pid}/{file}"), map).context("id map")?;
        }
        File::from(told).write_all(b"m")?;
    }
    Ok(pid)
}

fn live(
    calls: &str,
    mapped: Option<(OwnedFd, OwnedFd)>,
    held: Option<(&OwnedFd, &File)>,
) -> anyhow::Error {
    if let Some((maps, _)) = mapped
        && let Err(error) = File::from(maps).read_exact(&mut [0])
    {
        return error.into();
    }
    for line in calls.lines() {
        let words: Vec<&str> = line.split('\t').collect();
        if let ["exec", arguments @ ..] = &words[..] {
            return hold(held)
                .err()
                .unwrap_or_else(|| bench_sys::exec(arguments).into());
        }
        if let Err(error) = call(&words) {
            return error.context(line.chars().take(200).collect::<String>());
        }
    }
    anyhow::anyhow!("no exec")
}

fn hold(held: Option<(&OwnedFd, &File)>) -> Result<()> {
    let Some((ready, mut gate)) = held else {
        return Ok(());
    };
    nix::unistd::write(ready, b"r")?;
    Ok(gate.read_exact(&mut [0])?)
}

fn call(words: &[&str]) -> Result<()> {
    match *words {
        ["setsid"] => setsid().map(drop)?,
        ["unshare", flags] => unshare(CloneFlags::from_bits_retain(flags.parse()?))?,
        ["mount", source, target, kind, flags, data] => mounts(source, target, kind, flags, data)?,
        ["chdir", path] => chdir(path)?,
        ["dir", path] => fs::create_dir(path)?,
        ["file", path] => File::create(path).map(drop)?,
        ["node", path, major, minor] => node(path, major.parse()?, minor.parse()?)?,
        ["link", target, path] => symlinkat(target, nix::fcntl::AT_FDCWD, path)?,
        ["write", path, value] => fs::write(path, value)?,
        ["pivot"] => pivot()?,
        ["hostname", name] => sethostname(name)?,
        ["rlimit", number, soft, hard] => {
            bench_sys::setrlimit(number.parse()?, soft.parse()?, hard.parse()?)?
        }
        ["keyring"] => bench_sys::new_keyring()?,
        ["drop", cap] => bench_sys::prctl(libc::PR_CAPBSET_DROP, cap.parse()?, 0)?,
        ["user", uid, gid] => bench_sys::setresid(uid.parse()?, gid.parse()?)?,
        ["capset", effective, permitted, inheritable] => {
            bench_sys::capset(effective.parse()?, permitted.parse()?, inheritable.parse()?)?
        }
        ["ambient", cap] => {
            let raise = libc::PR_CAP_AMBIENT_RAISE as u64;
            bench_sys::prctl(libc::PR_CAP_AMBIENT, raise, cap.parse()?)?
        }
        ["nnp"] => bench_sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?,
        ["seccomp", program] => bench_sys::seccomp(&bytes(program)?)?,
        ["cloexec"] => bench_sys::close_on_exec_from(3)?,
        _ => bail!("no such call"),
    }
    Ok(())
}

fn mounts(source: &str, target: &str, kind: &str, flags: &str, data: &str) -> Result<()> {
    let some = |word: &str| (!word.is_empty()).then(|| word.to_string());
    let flags = MsFlags::from_bits_retain(flags.parse()?);
    let (source, kind, data) = (some(source), some(kind), some(data));
    Ok(mount(
        source.as_deref(),
        target,
        kind.as_deref(),
        flags,
        data.as_deref(),
    )?)
}

fn node(path: &str, major: u64, minor: u64) -> Result<()> {
    let open = Mode::from_bits_retain(0o666);
    Ok(mknod(path, SFlag::S_IFCHR, open, makedev(major, minor))?)
}

fn pivot() -> Result<()> {
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(chdir("/")?)
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2);
    Ok(pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16))
        .collect::<Result<_, _>>()?)
}
