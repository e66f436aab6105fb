//! An observer in the container: says what the other processes of its pid namespace show in /proc, whenever it is asked.

use crate::{name, quote};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// `watch`: answers each new text of the file /ask with a line `seen TEXT [PROCESS, ..]`, until the text is `stop`.
pub fn watch() -> String {
    println!("watching");
    let mut last = String::new();
    while last != "stop" {
        let asked = fs::read_to_string("/ask").unwrap_or_default();
        if asked == last {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        println!("seen {asked} [{}]", others().join(","));
        last = asked;
    }
    "ok".into()
}

fn others() -> Vec<String> {
    let own = std::process::id();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != own).map(process).collect()
}

fn process(pid: u32) -> String {
    let base = format!("/proc/{pid}");
    let text = |file: &str| match fs::read(format!("{base}/{file}")) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_string(),
        Err(error) => name(&error),
    };
    let exe = fs::read_link(format!("{base}/exe"));
    let exe = exe.map_or_else(|e| name(&e), |path| path.display().to_string());
    format!(
        "{{\"pid\":{pid},\"comm\":{},\"cmdline\":{},\"environ\":{},\"exe\":{},\"cwd\":{},\"root\":{},\"maps\":{},\"fds\":{}}}",
        quote(&text("comm")),
        quote(&text("cmdline")),
        quote(&text("environ")),
        quote(&exe),
        quote(&directory(&format!("{base}/cwd"))),
        quote(&directory(&format!("{base}/root"))),
        maps(&text("maps")),
        descriptors(&base),
    )
}

/// `DEVICE:INODE`
fn directory(path: &str) -> String {
    let meta = fs::metadata(path);
    meta.map_or_else(|e| name(&e), |m| format!("{}:{}", m.dev(), m.ino()))
}

/// The files of the mappings.
fn maps(text: &str) -> String {
    let path = |line: &str| Some(quote(line.get(73..).filter(|path| !path.is_empty())?));
    let paths: BTreeSet<String> = text.lines().filter_map(path).collect();
    format!("[{}]", paths.into_iter().collect::<Vec<_>>().join(","))
}

/// `NUMBER TARGET DEVICE:INODE` of each.
fn descriptors(base: &str) -> String {
    let entries = fs::read_dir(format!("{base}/fd"));
    let one = |entry: fs::DirEntry| {
        let path = entry.path();
        let target = fs::read_link(&path).map_or_else(|e| name(&e), |p| p.display().to_string());
        let node = directory(&path.display().to_string());
        quote(&format!("{} {target} {node}", entry.file_name().to_string_lossy()))
    };
    let list: Vec<String> = entries.into_iter().flatten().flatten().map(one).collect();
    format!("[{}]", list.join(","))
}
