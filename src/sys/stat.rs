//! proc_pid_stat(5): what the kernel tells of a process in one line.

use std::path::Path;

use anyhow::{Context, Result};

use super::{io, read_text};

/// PF_EXITING, PF_FORKNOEXEC and PF_KTHREAD of include/linux/sched.h.
const EXITING: u64 = 0x4;
const FORKED_ONLY: u64 = 0x40;
const KERNEL: u64 = 0x20_0000;

pub struct Stat(String);

/// Returns whether every thread of the process is dead. The first thread may be a zombie while others run.
pub fn is_dead(pid: i32) -> Result<bool> {
    if !Stat::of(pid)?.is_none_or(|stat| stat.is_dead()) {
        return Ok(false);
    }
    let threads = super::read_dir(Path::new(&format!("/proc/{pid}/task"))).into_iter();
    let mut threads = threads.flatten().flatten().filter_map(|entry| {
        let path = entry.path().join("stat");
        read_text(path).ok().map(Stat::new)
    });
    Ok(threads.all(|thread| thread.is_dead()))
}

impl Stat {
    /// `None` if it is gone. Not to know that is an error: who takes it for gone would remove what it needs.
    pub fn of(pid: i32) -> Result<Option<Stat>> {
        let file = format!("/proc/{pid}/stat");
        match read_text(&file) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {
                Ok(None)
            }
            read => Ok(Some(Stat::new(
                io(read).with_context(|| format!("read {file}"))?,
            ))),
        }
    }

    pub fn new(line: String) -> Stat {
        Stat(line)
    }

    /// As ps(1) shows it.
    pub fn state(&self) -> Option<char> {
        self.field(3)?.chars().next()
    }

    pub fn parent(&self) -> Option<i32> {
        self.field(4)?.parse().ok()
    }

    pub fn group(&self) -> Option<i32> {
        self.field(5)?.parse().ok()
    }

    pub fn session(&self) -> Option<i32> {
        self.field(6)?.parse().ok()
    }

    /// In clock ticks after boot.
    pub fn start_time(&self) -> Option<u64> {
        self.field(22)?.parse().ok()
    }

    /// Its namespaces are gone then, although it may have to wait for the others of its pid namespace.
    pub fn is_exiting(&self) -> bool {
        self.has(EXITING)
    }

    /// Whether this thread runs no code of its program again: it is a zombie, or waits while it exits. The first process of a
    /// pid namespace waits until all zombies of the namespace are reaped (pid_namespaces(7)).
    pub fn is_dead(&self) -> bool {
        self.is_exiting() && matches!(self.state(), Some('S' | 'Z' | 'X'))
    }

    /// Whether it is still at the program of who has made it.
    pub fn has_executed_nothing(&self) -> bool {
        self.has(FORKED_ONLY) && !self.has(KERNEL)
    }

    /// As wait(2) tells it, of one that has ended and that nobody has waited for.
    pub fn exit_status(&self) -> Option<i32> {
        let status = self.field(52)?.parse().ok()?;
        (self.state() == Some('Z')).then_some(status)
    }

    fn has(&self, flag: u64) -> bool {
        let flags = self.field(9).and_then(|field| field.parse::<u64>().ok());
        flags.is_some_and(|flags| flags & flag != 0)
    }

    /// By its number in the manual.
    fn field(&self, number: usize) -> Option<&str> {
        // The second, the name in parentheses, may contain anything.
        let after = &self.0[self.0.rfind(')')? + 1..];
        after.split_whitespace().nth(number - 3)
    }
}

#[cfg(test)]
mod tests {
    use super::{Stat, is_dead};

    #[test]
    fn fields_are_found_behind_any_name() {
        let zeros = |count| "0 ".repeat(count);
        let stat = |state: &str, flags: u64| {
            let text = format!(
                "7 (a) b) {state} {}{flags} {}99 {}768\n",
                zeros(5),
                zeros(12),
                zeros(29)
            );
            Stat::new(text)
        };
        let running = stat("R", 0x40);
        assert_eq!(
            (running.state(), running.start_time()),
            (Some('R'), Some(99))
        );
        assert!(running.has_executed_nothing() && !running.is_exiting());
        assert_eq!(running.exit_status(), None);
        let ended = stat("Z", 0x4);
        assert!(ended.is_exiting() && !ended.has_executed_nothing());
        assert!(ended.is_dead() && stat("S", 0x4).is_dead());
        for (state, flags) in [("R", 0x4), ("D", 0x4), ("S", 0), ("Z", 0)] {
            assert!(!stat(state, flags).is_dead(), "{state} {flags}");
        }
        assert_eq!(ended.exit_status(), Some(3 << 8));
        for text in ["", "7", "7 (a)", "7 (a) ", "7 (a) R 1 2"] {
            let stat = Stat::new(text.to_string());
            assert!(
                stat.start_time().is_none() && stat.exit_status().is_none(),
                "{text:?}"
            );
            assert!(!stat.is_exiting(), "{text:?}");
        }
    }

    #[test]
    fn the_kernel_writes_it_so() {
        let own = Stat::of(std::process::id() as i32).unwrap().unwrap();
        assert!(own.start_time().is_some_and(|time| time > 0));
        assert!(!own.is_exiting() && !own.has_executed_nothing());
        assert!(Stat::of(i32::MAX).unwrap().is_none());
        assert!(is_dead(i32::MAX).unwrap() && !is_dead(std::process::id() as i32).unwrap());
    }
}
