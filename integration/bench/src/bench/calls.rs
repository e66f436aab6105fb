//! Turns a config into the floor's list of calls, in the order in which a runtime has to make them. All that a runtime
//! has to find out at its start is decided here: what of the paths to mask there is, which flags a bind keeps.
//! Knows what the configs of this benchmark use; anything else is an error, so that the floor never does less.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use libc::{
    MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_REMOUNT,
    MS_STRICTATIME,
};
use serde_json::Value;

use crate::bpf;
use crate::names::{capability, namespace, rlimit};

const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];
const INHERITED: u64 = MS_NOSUID | MS_NODEV | MS_NOEXEC;

pub struct Lists {
    pub create: String,
    pub exec: String,
}

pub fn lists(config: &Value, cgroup: &str, filter: Option<&[u8]>) -> Result<Lists> {
    let mut lines = format!("cgroup\t{cgroup}\n");
    let flags = namespaces(config)?;
    let in_clone = flags & !(libc::CLONE_NEWCGROUP as u64);
    writeln!(lines, "namespaces\t{in_clone}")?;
    parent(&mut lines, config)?;
    lines.push_str("--\nsetsid\n");
    if flags & libc::CLONE_NEWCGROUP as u64 != 0 {
        // In clone3 it would be rooted at the parent's cgroup.
        writeln!(lines, "unshare\t{}", libc::CLONE_NEWCGROUP)?;
    }
    rootfs(&mut lines, config)?;
    let mut identity = String::new();
    self::identity(&mut identity, config, filter)?;
    lines.push_str(&identity);
    words(&mut lines, config)?;
    let exec = format!("namespaces\t{flags}\n--\nsetsid\n{identity}exec\t/true\n");
    Ok(Lists {
        create: lines,
        exec,
    })
}

fn namespaces(config: &Value) -> Result<u64> {
    let mut flags = 0;
    for entry in array(&config["linux"]["namespaces"]) {
        flags |= namespace(text(&entry["type"])?)?;
    }
    Ok(flags)
}

fn parent(lines: &mut String, config: &Value) -> Result<()> {
    let resources = &config["linux"]["resources"];
    for entry in array(&resources["hugepageLimits"]) {
        let (size, limit) = (text(&entry["pageSize"])?, &entry["limit"]);
        writeln!(lines, "limit\thugetlb.{size}.max\t{limit}")?;
        writeln!(lines, "limit\thugetlb.{size}.rsvd.max\t{limit}")?;
    }
    if let Some(limit) = resources["memory"]["limit"].as_i64() {
        writeln!(lines, "limit\tmemory.max\t{limit}")?;
    }
    if let Some(limit) = resources["pids"]["limit"].as_i64() {
        writeln!(lines, "limit\tpids.max\t{limit}")?;
    }
    if array(&resources["devices"]).next().is_some() {
        writeln!(lines, "devices\t{}", bpf::device_filter(config))?;
    }
    for (list, file) in [("uidMappings", "uid_map"), ("gidMappings", "gid_map")] {
        for map in array(&config["linux"][list]) {
            let (inside, outside, size) = (&map["containerID"], &map["hostID"], &map["size"]);
            writeln!(lines, "map\t{file}\t{inside} {outside} {size}")?;
        }
    }
    Ok(())
}

fn rootfs(lines: &mut String, config: &Value) -> Result<()> {
    let root = text(&config["root"]["path"])?;
    let user = namespaces(config)? & libc::CLONE_NEWUSER as u64 != 0;
    if user {
        lines.push_str("user\t0\t0\n");
    }
    mount(lines, ["", "/", ""], MS_REC | MS_PRIVATE, "");
    mount(lines, [root, root, ""], MS_BIND | MS_REC, "");
    writeln!(lines, "chdir\t{root}")?;
    for entry in array(&config["mounts"]) {
        mount_point(lines, config, entry)?;
        one_mount(lines, entry)?;
        if entry["destination"] == "/dev" {
            devices(lines, config, user)?;
        }
    }
    for (key, value) in config["linux"]["sysctl"].as_object().into_iter().flatten() {
        writeln!(
            lines,
            "write\tproc/sys/{}\t{}",
            key.replace('.', "/"),
            text(value)?
        )?;
    }
    for path in array(&config["linux"]["maskedPaths"]) {
        mask(lines, text(path)?);
    }
    for path in array(&config["linux"]["readonlyPaths"]) {
        readonly(lines, text(path)?);
    }
    lines.push_str("pivot\n");
    if config["root"]["readonly"] == true {
        mount(lines, ["", "/", ""], MS_REMOUNT | MS_BIND | MS_RDONLY, "");
    }
    if let Some(name) = config["hostname"].as_str() {
        writeln!(lines, "hostname\t{name}")?;
    }
    Ok(())
}

/// On a tmpfs of the container a mount point has to be made; in the root filesystem and in sysfs they are there.
fn mount_point(lines: &mut String, config: &Value, entry: &Value) -> Result<()> {
    let destination = text(&entry["destination"])?;
    let covers = |other: &&Value| {
        let above = other["destination"].as_str().unwrap_or_default();
        destination
            .strip_prefix(above)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let below = array(&config["mounts"]).find(covers);
    let target = destination.trim_start_matches('/');
    let Some(below) = below else {
        let root = text(&config["root"]["path"])?;
        let there = Path::new(root).join(target).exists();
        return if there {
            Ok(())
        } else {
            bail!("{destination}: not in the root filesystem")
        };
    };
    if below["type"] == "tmpfs" {
        let file = entry["source"]
            .as_str()
            .is_some_and(|source| Path::new(source).is_file());
        writeln!(lines, "{}\t{target}", if file { "file" } else { "dir" })?;
    }
    Ok(())
}

fn one_mount(lines: &mut String, entry: &Value) -> Result<()> {
    let target = text(&entry["destination"])?.trim_start_matches('/');
    let source = entry["source"].as_str().unwrap_or("none");
    let kind = entry["type"].as_str().unwrap_or("bind");
    let (flags, data) = options(entry)?;
    if flags & MS_BIND == 0 {
        let kind = if kind == "cgroup" { "cgroup2" } else { kind };
        mount(lines, [source, target, kind], flags, &data);
        return Ok(());
    }
    mount(lines, [source, target, ""], MS_BIND | flags & MS_REC, "");
    let changed = flags & !(MS_BIND | MS_REC);
    if changed != 0 {
        mount(lines, ["", target, ""], MS_REMOUNT | MS_BIND | changed, "");
    }
    Ok(())
}

fn options(entry: &Value) -> Result<(u64, String)> {
    let mut flags = 0;
    let mut data = Vec::new();
    for option in array(&entry["options"]) {
        flags |= match text(option)? {
            "ro" | "rro" => MS_RDONLY,
            "nosuid" => MS_NOSUID,
            "nodev" => MS_NODEV,
            "noexec" => MS_NOEXEC,
            "strictatime" => MS_STRICTATIME,
            "relatime" | "rw" => 0,
            "bind" => MS_BIND,
            "rbind" => MS_BIND | MS_REC,
            // All is private already.
            "rprivate" | "private" => 0,
            other => {
                data.push(other);
                0
            }
        };
    }
    Ok((flags, data.join(",")))
}

fn devices(lines: &mut String, config: &Value, user: bool) -> Result<()> {
    for (name, major, minor) in NODES {
        if user {
            // Without the power to make nodes there are those of the host.
            writeln!(lines, "file\tdev/{name}")?;
            mount(
                lines,
                [&format!("/dev/{name}"), &format!("dev/{name}"), ""],
                MS_BIND,
                "",
            );
        } else {
            writeln!(lines, "node\tdev/{name}\t{major}\t{minor}")?;
        }
    }
    for device in array(&config["linux"]["devices"]) {
        let path = text(&device["path"])?.trim_start_matches('/');
        writeln!(
            lines,
            "node\t{path}\t{}\t{}",
            device["major"], device["minor"]
        )?;
    }
    for (target, name) in LINKS {
        writeln!(lines, "link\t{target}\tdev/{name}")?;
    }
    Ok(())
}

fn mask(lines: &mut String, path: &str) {
    let target = path.trim_start_matches('/');
    match Path::new(path).metadata() {
        Ok(found) if found.is_dir() => mount(
            lines,
            ["tmpfs", target, "tmpfs"],
            MS_RDONLY,
            "nr_blocks=1,nr_inodes=1",
        ),
        Ok(_) => mount(lines, ["dev/null", target, ""], MS_BIND, ""),
        Err(_) => {}
    }
}

fn readonly(lines: &mut String, path: &str) {
    let target = path.trim_start_matches('/');
    if Path::new(path).exists() {
        mount(lines, [target, target, ""], MS_BIND | MS_REC, "");
        let flags = MS_REMOUNT | MS_BIND | MS_RDONLY | INHERITED;
        mount(lines, ["", target, ""], flags, "");
    }
}

fn mount(lines: &mut String, [source, target, kind]: [&str; 3], flags: u64, data: &str) {
    lines.push_str(&format!(
        "mount\t{source}\t{target}\t{kind}\t{flags}\t{data}\n"
    ));
}

fn identity(lines: &mut String, config: &Value, filter: Option<&[u8]>) -> Result<()> {
    let process = &config["process"];
    for limit in array(&process["rlimits"]) {
        let number = rlimit(text(&limit["type"])?)?;
        writeln!(
            lines,
            "rlimit\t{number}\t{}\t{}",
            limit["soft"], limit["hard"]
        )?;
    }
    if let Some(score) = process["oomScoreAdj"].as_i64().filter(|score| *score != 0) {
        writeln!(lines, "write\t/proc/self/oom_score_adj\t{score}")?;
    }
    lines.push_str("keyring\n");
    let set = |name: &str| -> Result<u64> {
        let names = array(&process["capabilities"][name]);
        names
            .map(|name| capability(text(name)?))
            .try_fold(0, |set, bit| Ok(set | 1 << bit?))
    };
    let bounding = set("bounding")?;
    for bit in (0..=40).filter(|bit| bounding & 1 << bit == 0) {
        writeln!(lines, "drop\t{bit}")?;
    }
    writeln!(
        lines,
        "user\t{}\t{}",
        process["user"]["uid"], process["user"]["gid"]
    )?;
    let (effective, permitted) = (set("effective")?, set("permitted")?);
    // The kernel loads a filter for who has SYS_ADMIN, or no_new_privs: that one has to come first.
    let early = process["noNewPrivileges"] != true;
    if early && let Some(filter) = filter {
        writeln!(lines, "seccomp\t{}", bpf::hex(filter))?;
    }
    writeln!(
        lines,
        "capset\t{effective}\t{permitted}\t{}",
        set("inheritable")?
    )?;
    let ambient = set("ambient")?;
    for bit in (0..=40).filter(|bit| ambient & 1 << bit != 0) {
        writeln!(lines, "ambient\t{bit}")?;
    }
    if !early {
        lines.push_str("nnp\n");
        if let Some(filter) = filter {
            writeln!(lines, "seccomp\t{}", bpf::hex(filter))?;
        }
    }
    lines.push_str("cloexec\n");
    Ok(())
}

fn words(lines: &mut String, config: &Value) -> Result<()> {
    lines.push_str("exec");
    for word in array(&config["process"]["args"]) {
        write!(lines, "\t{}", text(word)?)?;
    }
    lines.push('\n');
    Ok(())
}

pub fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Result<&str> {
    value
        .as_str()
        .with_context(|| format!("{value}: no string"))
}
