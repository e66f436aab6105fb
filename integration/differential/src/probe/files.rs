//! Describes files as a process in the container sees them.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde_json::{Value, json};

const MOST: usize = 400;

/// Describes all files but those of /proc and /sys: kind, mode, owner, device, and the content of small files.
pub fn tree(top: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(Path::new(top), &mut found);
    found
}

fn walk(path: &Path, found: &mut BTreeMap<String, String>) {
    let name = path.display().to_string();
    if found.len() >= MOST {
        return;
    }
    found.insert(name.clone(), described(path));
    let is_dir = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir());
    if !is_dir || shows_the_kernel(path) {
        return;
    }
    let mut entries: Vec<_> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect();
    entries.sort();
    for entry in entries {
        walk(&entry, found);
    }
}

fn shows_the_kernel(path: &Path) -> bool {
    use nix::sys::statfs::{
        CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, PROC_SUPER_MAGIC, SYSFS_MAGIC, statfs,
    };
    let kinds = [
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        CGROUP2_SUPER_MAGIC,
        CGROUP_SUPER_MAGIC,
    ];
    statfs(path).is_ok_and(|fs| kinds.contains(&fs.filesystem_type()))
}

pub fn described(path: &Path) -> String {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) => return error(&e),
    };
    let kind = kind(&meta);
    let (mode, uid, gid) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
    let more = match kind {
        "link" => {
            fs::read_link(path).map_or_else(|e| error(&e), |to| format!("-> {}", to.display()))
        }
        "char" | "block" => device(meta.rdev()),
        "file" if meta.len() < 64 => content(path),
        _ => String::new(),
    };
    format!("{kind} {mode:o} {uid}:{gid} {more}")
        .trim_end()
        .to_string()
}

fn content(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    text.map_or_else(|e| error(&e), |text| format!("{:?}", steady(text)))
}

/// Replaces the content of /proc/uptime and /proc/keys, which changes all the time.
fn steady(text: String) -> String {
    let mut words = text.split_whitespace();
    match words.next() {
        Some(word) if word.contains('.') && word.parse::<f64>().is_ok() => "a time".into(),
        _ if text.contains(" perm ") => "keys".into(),
        _ => text,
    }
}

fn kind(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    match () {
        () if kind.is_dir() => "dir",
        () if kind.is_symlink() => "link",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => "file",
    }
}

fn device(number: u64) -> String {
    format!(
        "{}:{}",
        nix::sys::stat::major(number),
        nix::sys::stat::minor(number)
    )
}

/// Tells whether a path can be read and written, and describes it. Nothing is written.
pub fn closely(path: &str) -> Value {
    let Ok(meta) = fs::metadata(path) else {
        return json!({"is": described(Path::new(path))});
    };
    // The mount table, where there is one, has the flags.
    let statvfs = || {
        nix::sys::statvfs::statvfs(path)
            .ok()
            .map(|fs| format!("{:?}", fs.flags()))
    };
    let flags = if Path::new("/proc/self/mountinfo").exists() {
        None
    } else {
        statvfs()
    };
    if meta.is_dir() {
        let count = fs::read_dir(path).map_or_else(
            |e| error(&e),
            |all| if all.count() == 0 { "empty" } else { "full" }.into(),
        );
        return json!({"is": described(Path::new(path)), "entries": count, "flags": flags});
    }
    json!({
        "is": described(Path::new(path)),
        "read": open(path, false).and_then(|file| beginning(file, meta.file_type().is_file())).unwrap_or_else(|e| error(&e)),
        "write": open(path, true).map_or_else(|e| error(&e), |_| "yes".into()),
        "flags": flags,
    })
}

fn open(path: &str, write: bool) -> io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    OpenOptions::new()
        .read(!write)
        .write(write)
        .custom_flags(flags)
        .open(path)
}

/// Returns the first bytes of a file, or their number for a device, which has other content each time.
fn beginning(mut file: File, is_file: bool) -> io::Result<String> {
    let mut bytes = [0; 64];
    let length = file.read(&mut bytes)?;
    if !is_file {
        return Ok(format!("{length} bytes"));
    }
    Ok(steady(
        String::from_utf8_lossy(&bytes[..length]).into_owned(),
    ))
}

/// Tries to open each device node in /dev, and the standard streams.
pub fn devices() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_char_device() || kind.is_block_device() {
            let name = path.display().to_string();
            let result = open(&name, false).map_or_else(|e| error(&e), |_| "opens".into());
            found.insert(name, result);
        }
    }
    for name in ["/dev/stdin", "/dev/stdout", "/dev/stderr"] {
        let result =
            open(name, name != "/dev/stdin").map_or_else(|e| error(&e), |_| "opens".into());
        found.insert(name.into(), result);
    }
    found
}

pub fn error(error: &io::Error) -> String {
    let number = error.raw_os_error().map(nix::errno::Errno::from_raw);
    number.map_or_else(|| error.kind().to_string(), |number| format!("{number:?}"))
}
