//! Waiting for what happens to a cgroup: a process is killed for want of memory, the last one ends. Parent only.
//!
//! Both files announce a change by POLLPRI, counted from the last read of the same open file: so they
//! stay open, and are read before the first wait.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Cgroup, stats::parse_flat};
use crate::sys;

pub struct Watch {
    events: File,
    /// Absent without the controller.
    memory: Option<File>,
    oom_kills: u64,
}

/// More than one may have happened; neither means that the time is over.
#[derive(Debug, Default, PartialEq)]
pub struct Happened {
    pub oom: bool,
    pub ended: bool,
}

impl Cgroup {
    /// From here on nothing is missed. `None` if the cgroup is gone.
    pub fn watch(&self) -> Result<Option<Watch>> {
        let Some(events) = self.open_file("cgroup.events")? else {
            return Ok(None);
        };
        let mut watch = Watch {
            events,
            memory: self.open_file("memory.events")?,
            oom_kills: 0,
        };
        watch.look()?;
        Ok(Some(watch))
    }
}

impl Watch {
    /// Returns as soon as something has happened, at the latest at the deadline.
    pub fn wait(&mut self, deadline: Instant) -> Result<Happened> {
        loop {
            let happened = self.look()?;
            let left = deadline.saturating_duration_since(Instant::now());
            if happened != Happened::default() || left.is_zero() {
                return Ok(happened);
            }
            // Up to a millisecond is cut off, which would make the last round a busy one.
            let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
            let files = [Some(&self.events), self.memory.as_ref()];
            let mut polled: Vec<PollFd> = files
                .into_iter()
                .flatten()
                .map(|file| PollFd::new(file.as_fd(), PollFlags::POLLPRI))
                .collect();
            match poll(&mut polled, timeout) {
                Err(Errno::EINTR) | Ok(_) => {}
                Err(errno) => return sys::named(Err(errno), || "poll(cgroup.events)".into()),
            }
        }
    }

    /// The end is read first: a kill that caused it is then counted already.
    fn look(&mut self) -> Result<Happened> {
        let events = reread(&mut self.events).context("read cgroup.events")?;
        let ended = events.is_none_or(|text| text.lines().any(|line| line == "populated 0"));
        let memory = match &mut self.memory {
            Some(memory) => reread(memory).context("read memory.events")?,
            None => None,
        };
        let kills = parse_flat(&memory.unwrap_or_default());
        let kills = kills.get("oom_kill").copied().unwrap_or(self.oom_kills);
        let oom = kills > self.oom_kills;
        self.oom_kills = kills;
        Ok(Happened { oom, ended })
    }
}

/// `None` if the cgroup is gone.
fn reread(file: &mut File) -> Result<Option<String>> {
    let mut text = String::new();
    match file.rewind().and_then(|()| file.read_to_string(&mut text)) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        read => sys::io(read).map(|_| Some(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_end_and_each_growth_of_the_count_are_told() {
        let name = format!("cofferdam-watch-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir_all(&dir).expect("mkdir");
        let write = |file: &str, text: &str| fs::write(dir.join(file), text).expect("write");
        write("events", "populated 1\nfrozen 0\n");
        write("memory", "max 3\noom 1\noom_kill 1\n");
        let open = |file: &str| File::open(dir.join(file)).expect("open");
        let mut watch = Watch {
            events: open("events"),
            memory: Some(open("memory")),
            oom_kills: 0,
        };
        let mut look = || watch.wait(Instant::now()).expect("a look");
        let told = |oom, ended| Happened { oom, ended };
        assert_eq!(look(), told(true, false));
        assert_eq!(look(), told(false, false));
        write("memory", "max 9\noom 2\noom_kill 1\n");
        assert_eq!(look(), told(false, false));
        write("memory", "max 9\noom 2\noom_kill 3\n");
        write("events", "populated 0\nfrozen 0\n");
        assert_eq!(look(), told(true, true));
        fs::remove_dir_all(&dir).expect("remove");
    }
}
