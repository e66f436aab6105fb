//! Makes the surroundings of one worker: a /dev of its own, and the files and namespaces that configs may refer to.
//! `unshare` has made the namespaces; the worker is process 1 of its pid namespace.
//! Nothing of the machine but the work directory can be written from here.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::Value;

pub const WORK: &str = "/run/d";
pub const BUNDLE: &str = "/run/d/b";
pub const CGROUPS: &str = "/sys/fs/cgroup";

/// The directory of the sources of bind mounts.
const SOURCES: &str = "/run/d/s";
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// A runtime, copied into WORK.
pub struct Program {
    pub name: &'static str,
    pub path: PathBuf,
}

pub fn make(programs: &[(&'static str, PathBuf)], probe: &Path) -> Result<Vec<Program>> {
    let read = |path: &Path| fs::read(path).with_context(|| path.display().to_string());
    let contents = programs
        .iter()
        .map(|(name, path)| Ok((*name, read(path)?)))
        .collect::<Result<Vec<_>>>()?;
    let probe = read(probe)?;
    mount_on("/sys", "sysfs", MsFlags::empty(), "")?;
    mount_on(CGROUPS, "cgroup2", MsFlags::empty(), "")?;
    differential_sys::make_read_only(Path::new("/"))?;
    mount_on("/run", "tmpfs", MsFlags::empty(), "mode=755")?;
    mount_on("/tmp", "tmpfs", MsFlags::empty(), "mode=1777")?;
    for place in [CGROUPS, "/sys", "/proc"] {
        writable_again(place)?;
    }
    own_dev()?;
    fs::create_dir_all(WORK)?;
    install(&Path::new(WORK).join("probe"), &probe)?;
    let mut installed = Vec::new();
    for (name, content) in contents {
        let path = Path::new(WORK).join(name);
        install(&path, &content)?;
        installed.push(Program { name, path });
    }
    sources()?;
    Ok(installed)
}

fn install(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content)?;
    Ok(fs::set_permissions(path, Permissions::from_mode(0o755))?)
}

fn mount_on(place: &str, kind: &str, flags: MsFlags, data: &str) -> Result<()> {
    mount(Some(kind), place, Some(kind), flags, Some(data))
        .with_context(|| format!("mount {kind} on {place}"))
}

fn writable_again(place: &str) -> Result<()> {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    Ok(mount(
        None::<&str>,
        place,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

/// Makes a character device that everybody may use.
fn make_node(path: &str, device: u64) -> Result<()> {
    let mode = Mode::from_bits_truncate(0o666);
    mknod(path, SFlag::S_IFCHR, mode, device)?;
    Ok(())
}

/// Makes a /dev with nodes of its own, since runc and crun change owners and modes of those that they find.
fn own_dev() -> Result<()> {
    let place = "/run/dev";
    fs::create_dir_all(place)?;
    mount_on(place, "tmpfs", MsFlags::empty(), "mode=755")?;
    for (name, major, minor) in NODES {
        let path = format!("{place}/{name}");
        make_node(&path, makedev(major, minor))?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(format!("{place}/{name}"))?;
    }
    for (name, to) in [("fd", "/proc/self/fd"), ("ptmx", "pts/ptmx")] {
        symlink(to, format!("{place}/{name}"))?;
    }
    mount(
        Some(place),
        "/dev",
        None::<&str>,
        MsFlags::MS_MOVE,
        None::<&str>,
    )?;
    mount_on(
        "/dev/pts",
        "devpts",
        MsFlags::empty(),
        "newinstance,ptmxmode=0666,mode=0620",
    )?;
    mount_on("/dev/shm", "tmpfs", MsFlags::empty(), "mode=1777")
}

/// The links of a root filesystem, and where they lead.
pub const LINKS: [(&str, &str); 4] = [
    ("link", "data"),
    ("dangling", "/nowhere/new"),
    ("var/run", "/run"),
    ("out", "../../../s/plain"),
];

/// Makes a plain directory, mounts with flags of their own, a tree with a mount inside it, and namespaces to join.
fn sources() -> Result<()> {
    for name in ["plain", "tree", "noexec", "ro", "shared", "ns"] {
        fs::create_dir_all(format!("{SOURCES}/{name}"))?;
    }
    let dir = |name: &str| format!("{SOURCES}/{name}");
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_on(&dir("noexec"), "tmpfs", quiet, "mode=755")?;
    mount_on(&dir("ro"), "tmpfs", MsFlags::empty(), "mode=755")?;
    fs::write(dir("ro/inside"), "ro")?;
    mount_on(&dir("shared"), "tmpfs", MsFlags::empty(), "mode=755")?;
    mount(
        None::<&str>,
        dir("shared").as_str(),
        None::<&str>,
        MsFlags::MS_SHARED,
        None::<&str>,
    )?;
    fs::create_dir(dir("tree/sub"))?;
    mount_on(&dir("tree/sub"), "tmpfs", MsFlags::MS_NOSUID, "mode=755")?;
    reset_sources()?;
    // The whole filesystem: runc and crun make the mount writable again.
    let ro = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(
        None::<&str>,
        dir("ro").as_str(),
        None::<&str>,
        ro,
        None::<&str>,
    )?;
    namespaces_to_join()
}

/// Makes one namespace of each kind. A bind mount keeps it alive.
fn namespaces_to_join() -> Result<()> {
    for (name, flag) in [
        ("net", "--net"),
        ("ipc", "--ipc"),
        ("uts", "--uts"),
        ("cgroup", "--cgroup"),
    ] {
        let place = format!("{SOURCES}/ns/{name}");
        File::create(&place)?;
        let mut held = std::process::Command::new("unshare")
            .args([flag, "sleep", "100"])
            .spawn()?;
        let pid = held.id();
        let link = format!("/proc/{pid}/ns/{name}");
        let own = fs::read_link(format!("/proc/self/ns/{name}"))?;
        while fs::read_link(&link)? == own {
            std::thread::yield_now();
        }
        mount(
            Some(link.as_str()),
            place.as_str(),
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        held.kill()?;
        held.wait()?;
    }
    Ok(())
}

/// Removes all that a run has left in the sources, and writes their files anew.
fn reset_sources() -> Result<()> {
    let kept = |path: &Path| ["tree/sub"].iter().any(|name| path.ends_with(name));
    for name in ["plain", "tree", "tree/sub", "noexec", "shared"] {
        let dir = Path::new(SOURCES).join(name);
        for entry in fs::read_dir(&dir)?.flatten() {
            if !kept(&entry.path()) {
                remove(&entry.path())?;
            }
        }
        fs::write(dir.join("inside"), name)?;
        chown(&dir, Some(0), Some(0))?;
        fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
    }
    let plain = Path::new(SOURCES).join("plain");
    fs::create_dir(plain.join("deep"))?;
    fs::write(plain.join("deep/file"), "deep")?;
    symlink("inside", plain.join("link"))?;
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    if path.symlink_metadata()?.is_dir() {
        Ok(fs::remove_dir_all(path)?)
    } else {
        Ok(fs::remove_file(path)?)
    }
}

/// Makes the bundle of a config, with the questions for the probe.
pub fn reset_bundle(config: &Value) -> Result<()> {
    reset_sources()?;
    if Path::new(BUNDLE).exists() {
        fs::remove_dir_all(BUNDLE)?;
    }
    let root = Path::new(BUNDLE).join("rootfs");
    for name in [
        "dev",
        "proc",
        "sys",
        "tmp",
        "etc",
        "data/deep",
        "bin",
        "var",
        "home/user",
    ] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::hard_link(Path::new(WORK).join("probe"), root.join("bin/probe"))?;
    let files = [
        (
            "etc/passwd",
            "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
        ),
        ("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:44:user\n"),
        ("data/file", "data"),
        ("data/deep/file", "deep"),
        ("script", "#!/bin/none\n"),
        ("file", "file"),
    ];
    for (name, content) in files {
        fs::write(root.join(name), content)?;
    }
    fs::set_permissions(root.join("script"), Permissions::from_mode(0o755))?;
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777))?;
    fs::set_permissions(root.join("data"), Permissions::from_mode(0o750))?;
    chown(root.join("home/user"), Some(1000), Some(1000))?;
    for (name, to) in LINKS {
        symlink(to, root.join(name))?;
    }
    fs::write(root.join("ask"), questions(config).join("\n"))?;
    for name in ["stdin", "stdout", "stderr"] {
        fs::write(Path::new(BUNDLE).join(name), "")?;
    }
    fs::write(
        Path::new(BUNDLE).join("config.json"),
        serde_json::to_string_pretty(config)?,
    )?;
    Ok(())
}

/// Returns the places that the config names, and `calls` where it has a filter.
fn questions(config: &Value) -> Vec<String> {
    let linux = &config["linux"];
    let words = |list: &Value| list.as_array().cloned().unwrap_or_default().into_iter();
    let mut all: Vec<String> = Vec::new();
    let paths = words(&linux["maskedPaths"]).chain(words(&linux["readonlyPaths"]));
    all.extend(paths.filter_map(|path| path.as_str().map(String::from)));
    let mounts = words(&config["mounts"]).chain(words(&linux["devices"]));
    all.extend(mounts.filter_map(|mount| {
        let place = mount["destination"].as_str().or(mount["path"].as_str())?;
        Some(format!("/{}", place.trim_start_matches('/')))
    }));
    let keys = linux["sysctl"].as_object().into_iter().flatten();
    all.extend(keys.map(|(key, _)| format!("/proc/sys/{}", key.replace('.', "/"))));
    all.retain(|path| path != "/");
    if linux["seccomp"].is_object() {
        all.push("calls".into());
    }
    all
}

/// Facts that no run may change: mounts, nodes of /dev, cgroups.
#[derive(Clone, PartialEq)]
pub struct State {
    pub mounts: String,
    pub nodes: Vec<(String, String)>,
    pub cgroups: Vec<String>,
}

impl State {
    pub fn take() -> Result<State> {
        let mut nodes = Vec::new();
        for entry in fs::read_dir("/dev")?.flatten() {
            let meta = entry.path().symlink_metadata()?;
            let text = format!(
                "{:o} {}:{} {:x}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.rdev()
            );
            nodes.push((entry.path().display().to_string(), text));
        }
        nodes.sort();
        Ok(State {
            mounts: fs::read_to_string("/proc/self/mountinfo")?,
            nodes,
            cgroups: cgroups()?,
        })
    }

    /// Names all that has changed since.
    pub fn changes(&self, now: &State) -> Vec<String> {
        let mut all = Vec::new();
        let place = |line: &str| line.split(' ').nth(4).unwrap_or_default().to_string();
        let new = now
            .mounts
            .lines()
            .filter(|line| !self.mounts.contains(line));
        all.extend(new.map(|line| format!("mount {}", place(line))));
        let gone = self
            .mounts
            .lines()
            .filter(|line| !now.mounts.contains(line));
        all.extend(gone.map(|line| format!("without mount {}", place(line))));
        all.extend(
            now.nodes
                .iter()
                .filter(|node| !self.nodes.contains(node))
                .map(|(name, is)| format!("node {name} {is}")),
        );
        all.extend(
            self.nodes
                .iter()
                .filter(|(name, _)| !now.nodes.iter().any(|(n, _)| n == name))
                .map(|(name, _)| format!("without node {name}")),
        );
        all.extend(
            now.cgroups
                .iter()
                .filter(|name| !self.cgroups.contains(name))
                .map(|name| format!("cgroup {name}")),
        );
        all
    }
}

fn cgroups() -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut next = vec![PathBuf::from(CGROUPS)];
    while let Some(dir) = next.pop() {
        for entry in fs::read_dir(dir)?
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        {
            found.push(entry.path().display().to_string());
            next.push(entry.path());
        }
    }
    Ok(found)
}

/// Restores the first state for the next run.
pub fn restore(first: &State, now: &State) -> Result<()> {
    for line in now
        .mounts
        .lines()
        .filter(|line| !first.mounts.contains(line))
    {
        let place = line.split(' ').nth(4).unwrap_or_default();
        umount2(place, MntFlags::MNT_DETACH).ok();
    }
    for (name, major, minor) in NODES {
        let path = format!("/dev/{name}");
        if !Path::new(&path).exists() {
            make_node(&path, makedev(major, minor))?;
        }
        chown(&path, Some(0), Some(0))?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    let mut left: Vec<_> = now
        .cgroups
        .iter()
        .filter(|name| !first.cgroups.contains(name))
        .collect();
    left.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in left {
        fs::remove_dir(name).ok();
    }
    Ok(())
}
