//! Why a cgroup refuses what is asked of it: measured after the failure, never before. Run by the parent.
//!
//! Each text ends in what to do about it. Only plain files of the tree are read here; what cannot be
//! read is left out of the words, so that an explanation never hides the error that it is for.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Error;
use nix::errno::Errno;

use super::Cgroup;
use crate::sys;
use crate::text::fault::coded;

impl Cgroup {
    /// How many processes the kernel has killed here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let events = self
            .read("memory.events")
            .ok()
            .flatten()
            .unwrap_or_default();
        let count = events
            .lines()
            .find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    pub fn out_of_memory(&self) -> String {
        out_of_memory(&self.path)
    }

    /// The first ones, for errors.
    pub fn named_processes(&self) -> String {
        processes(&self.path)
    }

    /// Which limit lets no more processes in, if one does.
    pub fn full(&self) -> Option<String> {
        full(&self.path)
    }
}

pub fn program(error: Error) -> Error {
    let hint = match sys::errno(&error) {
        Some(Errno::EPERM) => {
            "; give the caller CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, in the initial user namespace"
        }
        Some(Errno::ENOSYS | Errno::EINVAL) => {
            "; run Linux 4.15 or newer, built with CONFIG_CGROUP_BPF"
        }
        _ => "",
    };
    error.context(format!(
        "linux.resources.devices: load the device program{hint}"
    ))
}

/// A directory, or a file of one, that the caller was not allowed to make or write.
pub fn refused(error: Error, path: &Path) -> Error {
    match sys::errno(&error) {
        Some(Errno::EACCES | Errno::EPERM) => error.context(coded(
            "cgroup-delegation",
            format!(
                "cgroup {}: {}; run below a delegated cgroup (systemd-run --user --scope -p Delegate=yes), or remove \
                 linux.resources and linux.cgroupsPath",
                path.display(),
                owner(path)
            ),
        )),
        Some(Errno::EROFS) => error.context(coded(
            "cgroup-delegation",
            format!("cgroup {}: the tree is mounted read-only; remount it, or run where it can be written", path.display()),
        )),
        // cgroups(7), "cgroup.max.depth" and "cgroup.max.descendants".
        Some(Errno::EAGAIN) => error.context(format!("cgroup {}: {}", path.display(), crowded(path))),
        _ => error.context(format!("cgroup {}", path.display())),
    }
}

/// Says which cgroup above takes no more cgroups below it.
fn crowded(path: &Path) -> String {
    let read = |file: PathBuf| std::fs::read_to_string(file).unwrap_or_default();
    let is_full = |above: &&Path| {
        let max = read(above.join("cgroup.max.descendants"))
            .trim()
            .parse()
            .ok();
        let stat = read(above.join("cgroup.stat"));
        let count = stat
            .lines()
            .find_map(|line| line.strip_prefix("nr_descendants "));
        let count = count.and_then(|count| count.parse::<u64>().ok());
        max.is_some_and(|max| count >= Some(max))
    };
    match path.ancestors().find(is_full) {
        Some(above) => format!(
            "cgroup.max.descendants of {} is reached; remove cgroups below it, or raise it",
            above.display()
        ),
        None => "cgroup.max.depth of a cgroup above is reached; choose a shorter linux.cgroupsPath, or raise it".to_string(),
    }
}

fn owner(path: &Path) -> String {
    let caller = nix::unistd::geteuid();
    let found = path
        .ancestors()
        .find_map(|above| Some((above, std::fs::metadata(above).ok()?.uid())));
    match found {
        Some((above, uid)) => format!(
            "{} belongs to user {uid}, the caller is user {caller}",
            above.display()
        ),
        None => format!("not delegated to user {caller}"),
    }
}

/// Controllers that `level` does not hand down to its children.
pub fn not_handed_down(error: Error, level: &Path, controllers: &str) -> Error {
    let act = format!("give {controllers} controllers of {level:?} to its children");
    match sys::errno(&error) {
        // cgroups(7), "no internal processes".
        Some(Errno::EBUSY) => error.context(coded(
            "cgroup-busy",
            format!(
                "{act}: it has processes of its own ({}); move them to a child of it, or choose another linux.cgroupsPath",
                processes(level)
            ),
        )),
        Some(Errno::ENOENT) => error.context(coded(
            "controller-missing",
            format!("{act}: its own parent does not hand them down; enable them there, or remove the limits"),
        )),
        Some(Errno::EACCES | Errno::EPERM) => refused(error, level).context(act),
        _ => error.context(act),
    }
}

/// The first processes of a cgroup, by number and name.
pub fn processes(directory: &Path) -> String {
    const SHOWN: usize = 5;
    let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    let named = |pid: &str| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        format!("{pid} {}", name.trim_end()).trim_end().to_string()
    };
    let mut shown: Vec<String> = text.lines().take(SHOWN).map(named).collect();
    let more = text.lines().count().saturating_sub(SHOWN);
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

/// What still is in a cgroup that cannot be removed.
pub fn left(error: Error, directory: &Path, below: &[impl AsRef<Path>]) -> Error {
    if sys::errno(&error) != Some(Errno::EBUSY) {
        return error;
    }
    let all = std::iter::once(directory).chain(below.iter().map(AsRef::as_ref));
    let mut held = Vec::new();
    for cgroup in all {
        let inside = processes(cgroup);
        if !inside.is_empty() {
            held.push(format!("{} has {inside}", cgroup.display()));
        }
    }
    match held.is_empty() {
        true => error,
        false => error.context(coded(
            "cgroup-busy",
            format!(
                "cgroup is not empty: {}; end these processes, and delete again",
                held.join(", ")
            ),
        )),
    }
}

/// Whose limit of processes is reached, of a cgroup or of one above it.
pub fn full(cgroup: &Path) -> Option<String> {
    let (level, limit) = cgroup.ancestors().find_map(|level| {
        let limit = number(level, "pids.max")?;
        (number(level, "pids.current")? >= limit).then_some((level, limit))
    })?;
    let hint = match level == cgroup {
        true => "linux.resources.pids.limit",
        false => "pids.max of that cgroup",
    };
    Some(format!(
        ": pids.max of {} is {limit}, and as many are there; raise {hint}",
        level.display()
    ))
}

/// Where the memory went, after the kernel has killed for want of it: whose limit was reached, and at which use.
pub fn out_of_memory(cgroup: &Path) -> String {
    let limited = cgroup
        .ancestors()
        .take_while(|level| level.join("cgroup.procs").exists())
        .find(|level| counted(level) && limit(level).is_some());
    let peak = number(cgroup, "memory.peak").map_or_else(String::new, |peak| {
        format!(", it used {peak} bytes at most")
    });
    let (whose, hint) = match limited {
        Some(level) => (
            format!(
                "the memory limit of {} is {} bytes",
                level.display(),
                limit(level).unwrap_or_default()
            ),
            match level == cgroup {
                true => "raise linux.resources.memory.limit",
                false => "raise memory.max of that cgroup",
            },
        ),
        None => (
            "no limit was reached: the host itself ran out of memory".to_string(),
            "free some, or add swap",
        ),
    };
    format!("container init was OOM-killed ({whose}{peak}); {hint}")
}

/// Docs of the kernel, cgroup-v2.rst: only memory.events.local tells which level's own limit it was.
fn counted(level: &Path) -> bool {
    let events = std::fs::read_to_string(level.join("memory.events.local")).unwrap_or_default();
    let count = events.lines().find_map(|line| line.strip_prefix("oom "));
    count.is_some_and(|count| count != "0")
}

fn limit(level: &Path) -> Option<u64> {
    number(level, "memory.max")
}

fn number(level: &Path, file: &str) -> Option<u64> {
    std::fs::read_to_string(level.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::text::fault::{Fault, line};

    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("cofferdam-explain-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn failed(errno: Errno) -> Error {
        Error::new(std::io::Error::from_raw_os_error(errno as i32))
    }

    #[test]
    fn the_limit_that_was_reached_is_named() {
        let (own, above) = ("oom 1\n", "oom 0\n");
        for (own, above, want) in [
            (
                own,
                above,
                "c is 4096 bytes, it used 4000 bytes at most); raise linux.resources.memory.limit",
            ),
            (
                above,
                own,
                "p is 9000 bytes, it used 4000 bytes at most); raise memory.max of that cgroup",
            ),
            (
                above,
                above,
                "the host itself ran out of memory, it used 4000 bytes at most); free some, or add swap",
            ),
        ] {
            let root = tree(
                "oom",
                &[
                    ("p/cgroup.procs", ""),
                    ("p/memory.max", "9000\n"),
                    ("p/memory.events.local", above),
                    ("p/c/cgroup.procs", ""),
                    ("p/c/memory.max", "4096\n"),
                    ("p/c/memory.peak", "4000\n"),
                    ("p/c/memory.events.local", own),
                ],
            );
            let text = out_of_memory(&root.join("p/c"));
            assert!(
                text.starts_with("container init was OOM-killed (") && text.ends_with(want),
                "{text}"
            );
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn a_limit_of_processes_that_is_reached_is_named() {
        let top = tree("full", &[("pids.max", "9"), ("pids.current", "8")]);
        let below = top.join("box");
        fs::create_dir(&below).unwrap();
        let say = |file: &str, text: &str| fs::write(below.join(file), text).unwrap();
        say("pids.max", "3\n");
        say("pids.current", "2\n");
        assert_eq!(full(&below), None);
        say("pids.current", "3\n");
        let text = full(&below).unwrap();
        assert!(
            text.contains(&format!("{} is 3", below.display())),
            "{text}"
        );
        assert!(text.ends_with("raise linux.resources.pids.limit"), "{text}");
        say("pids.max", "max\n");
        fs::write(top.join("pids.current"), "9").unwrap();
        let text = full(&below).unwrap();
        assert!(text.contains(&format!("{} is 9", top.display())), "{text}");
        assert!(text.ends_with("raise pids.max of that cgroup"), "{text}");
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn a_busy_cgroup_names_its_processes() {
        let own = std::process::id();
        let root = tree(
            "busy",
            &[
                ("cgroup.procs", &format!("{own}\n")),
                ("a/cgroup.procs", "1\n2\n3\n4\n5\n6\n7\n"),
            ],
        );
        let error = not_handed_down(failed(Errno::EBUSY), &root, "pids");
        let text = line(&error);
        assert!(
            text.contains(&format!("it has processes of its own ({own} ")),
            "{text}"
        );
        assert_eq!(Fault::of(&error).code, "cgroup-busy");
        let text = line(&left(failed(Errno::EBUSY), &root, &[root.join("a")]));
        assert!(
            text.contains(&format!("has {own} ")) && text.contains(", 2 more"),
            "{text}"
        );
        assert!(
            text.ends_with("; end these processes, and delete again"),
            "{text}"
        );
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_refused_cgroup_names_its_owner_and_what_to_do() {
        let error = refused(failed(Errno::EACCES), Path::new("/sys/fs/cgroup/none/such"));
        let fault = Fault::of(&error);
        assert_eq!(
            (fault.code.as_str(), fault.errno.as_deref()),
            ("cgroup-delegation", Some("EACCES"))
        );
        assert!(
            line(&error).contains("belongs to user 0, the caller is user"),
            "{error:#}"
        );
        assert!(
            fault
                .hint
                .unwrap()
                .starts_with("run below a delegated cgroup")
        );
        assert!(line(&refused(failed(Errno::EROFS), Path::new("/x"))).contains("read-only"));
        assert_eq!(
            Fault::of(&not_handed_down(
                failed(Errno::ENOENT),
                Path::new("/x"),
                "cpu"
            ))
            .code,
            "controller-missing"
        );
    }
}
