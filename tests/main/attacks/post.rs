//! What holds after every attack, whether it was refused or came to nothing: the host is as it was, and nothing is left.

use super::ways::Outside;
use crate::support::{Bundle, Output, binary, refused};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The host before an attack. Nobody but this bundle's containers can have changed what it remembers.
pub struct World {
    pub outside: Outside,
    watch: Watch,
    mounts: Vec<String>,
    programs: Vec<(PathBuf, [i64; 5])>,
    core_pattern: String,
}

impl World {
    pub fn new(c: &Bundle) -> World {
        World::with(c, &["ptmx"])
    }

    /// With these files in the directory outside.
    pub fn with(c: &Bundle, files: &[&str]) -> World {
        let outside = Outside::new(c, files);
        World {
            watch: Watch::new(&outside.dir),
            outside,
            mounts: mounts(c),
            programs: programs(c),
            core_pattern: core_pattern(),
        }
    }

    /// After a call that made a container or said why not.
    pub fn assert_same(&mut self, c: &Bundle, output: &Output, what: &str) {
        let ran = output.stdout().contains(" => ");
        let told = output.code() != 0 || ran;
        assert!(told, "{what}: exits with 0 for nothing");
        self.assert_after(c, what);
    }

    /// In between: the directory outside is as it was, and nobody has opened a file of it.
    pub fn assert_untouched(&mut self, what: &str) {
        assert_eq!(self.watch.opened(), [""; 0], "{what}: opened on the host");
        self.outside.assert_untouched(what);
        // By this very look.
        self.watch.opened();
    }

    /// After any number of calls.
    pub fn assert_after(&mut self, c: &Bundle, what: &str) {
        c.delete(&["--force"]).ok();
        c.assert_gone();
        let state = fs::read_dir(c.state_root()).into_iter().flatten();
        let litter: Vec<_> = state.flatten().map(|entry| entry.file_name()).collect();
        assert!(litter.is_empty(), "{what}: left in --root: {litter:?}");
        self.assert_untouched(what);
        assert_eq!(mounts(c), self.mounts, "{what}: mounts of the host");
        let same = programs(c) == self.programs;
        assert!(same, "{what}: the runtime's binary is another one");
        assert_eq!(core_pattern(), self.core_pattern, "{what}");
    }
}

/// Of a test that has ended early, as a command has failed for want of a call.
impl Drop for World {
    fn drop(&mut self) {
        if !refused::has_ended() {
            return;
        }
        let opened = self.watch.opened();
        if !opened.is_empty() || !self.outside.is_untouched() {
            refused::note("left", &format!("outside: {opened:?}"));
        }
        if core_pattern() != self.core_pattern {
            refused::note("left", "core_pattern");
        }
    }
}

/// Runs it, and looks at the host afterwards.
pub fn attack(c: &Bundle, world: &mut World, what: &str) -> Output {
    println!("{what}");
    let output = c.run();
    world.assert_same(c, &output, what);
    output
}

/// Those that others make meanwhile, in places of their own, are left out.
fn mounts(c: &Bundle) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").expect("read");
    let own = c.dir.display().to_string();
    let others = ["/tmp/", "/root/", "/home/", "/var/", "/run/"];
    let judged = |line: &&str| {
        let place = line.split(' ').nth(4).unwrap_or_default();
        line.contains(&own) || !others.iter().any(|dir| place.starts_with(dir))
    };
    all.lines().filter(judged).map(String::from).collect()
}

/// The binary, and the copy that the bundle calls. Whoever writes the same again has written, too.
fn programs(c: &Bundle) -> Vec<(PathBuf, [i64; 5])> {
    let name = binary();
    let copy = c.dir.join(name.file_name().expect("a name"));
    let there = [name, copy].into_iter().filter(|path| path.exists());
    let facts = |path: PathBuf| {
        let meta = fs::metadata(&path).expect("stat");
        let time = [meta.mtime(), meta.mtime_nsec()];
        let file = [meta.dev(), meta.ino(), meta.len()].map(|n| n as i64);
        (path, [file[0], file[1], file[2], time[0], time[1]])
    };
    there.map(facts).collect()
}

fn core_pattern() -> String {
    fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read")
}

/// Who opens the files of a directory, even if they only look.
struct Watch(File);

impl Watch {
    fn new(dir: &str) -> Watch {
        let path = CString::new(dir).expect("a path");
        // SAFETY: the path is a C string; the new descriptor belongs to nobody else.
        let file = unsafe {
            let fd = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
            assert!(fd >= 0, "inotify_init1");
            let watched = libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_OPEN);
            assert!(watched >= 0, "inotify_add_watch {dir}");
            File::from_raw_fd(fd)
        };
        Watch(file)
    }

    /// Names since the last time. The directory itself has none: the harness reads it to give it to somebody.
    fn opened(&mut self) -> Vec<String> {
        let mut names = vec![];
        let mut buffer = [0; 4096];
        while let Ok(length) = self.0.read(&mut buffer) {
            let mut events = &buffer[..length];
            while let Some((head, rest)) = events.split_at_checked(16) {
                let size = u32::from_ne_bytes(head[12..].try_into().expect("four bytes"));
                let (name, rest) = rest.split_at(size as usize);
                names.push(
                    String::from_utf8_lossy(name)
                        .trim_end_matches('\0')
                        .to_string(),
                );
                events = rest;
            }
        }
        names.retain(|name| !name.is_empty());
        names
    }
}
