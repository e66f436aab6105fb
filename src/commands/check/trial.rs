//! Trials: whether a thing works is found out by doing it in a child, in new namespaces, which end with it.
//!
//! The parent waits for the child, and gets its words through a pipe: an answer, or the errno and the reason.
//! Must not be used for what outlives a process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getegid, geteuid, pipe2};

use crate::sys::clone::{self, Side};
use crate::sys::{self, named, process};

/// Why a trial did not succeed.
pub struct Refusal {
    pub errno: Option<Errno>,
    pub text: String,
    /// Whether it came as far as to try the thing itself, in its namespaces.
    pub tried: bool,
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Refusal {
        Refusal {
            errno: sys::errno(&error),
            text: format!("{error:#}"),
            tried: false,
        }
    }
}

/// Does `act` in a child with these new namespaces; gives what it has to say. In a new user namespace the
/// caller is root, and what is mounted in a new mount namespace reaches no other.
pub fn attempt(namespaces: u64, act: fn() -> Result<String>) -> Result<String, Refusal> {
    let ids = (geteuid().as_raw(), getegid().as_raw());
    let pipe = pipe2(OFlag::O_CLOEXEC);
    let (read, write) = named(pipe, || "pipe2()".to_string())?;
    match clone::clone3(namespaces, None)? {
        Side::Child => {
            drop(read);
            match prepare(namespaces, ids) {
                Ok(()) => report(write, "tried", act()),
                Err(error) => report(write, "refused", Err(error)),
            }
            process::exit(0)
        }
        Side::Parent { pid, .. } => {
            drop(write);
            let mut text = String::new();
            let told = File::from(read).read_to_string(&mut text);
            sys::again(|| waitpid(Pid::from_raw(pid), None)).ok();
            sys::io(told).context("read from a trial")?;
            outcome(&text)
        }
    }
}

fn prepare(namespaces: u64, (uid, gid): (u32, u32)) -> Result<()> {
    if namespaces & clone::NEWUSER != 0 {
        // user_namespaces(7): without privilege only after setgroups(2) is given up for good.
        write_file("/proc/self/setgroups", "deny")?;
        write_file("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write_file("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    if namespaces & clone::NEWNS != 0 {
        let none = None::<&str>;
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let private = mount(none, "/", none, flags, none);
        named(private, || "mount(\"/\", MS_REC | MS_PRIVATE)".to_string())?;
    }
    Ok(())
}

fn write_file(path: &str, text: &str) -> Result<()> {
    sys::io(std::fs::write(path, text)).with_context(|| format!("write {text:?} to {path}"))
}

/// Three words that `outcome` knows: how far it came, the errno or 0, the text.
fn report(pipe: OwnedFd, stage: &str, done: Result<String>) {
    let (errno, text) = match done {
        Ok(text) => (0, text),
        Err(error) => {
            let errno = sys::errno(&error).map_or(-1, |errno| errno as i32);
            (errno, format!("{error:#}"))
        }
    };
    // The parent takes silence for a failure.
    let message = format!("{stage} {errno} {text}");
    File::from(pipe).write_all(message.as_bytes()).ok();
}

fn outcome(message: &str) -> Result<String, Refusal> {
    let mut parts = message.splitn(3, ' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some("0"), Some(text)) => Ok(text.to_string()),
        (Some(stage), Some(errno), Some(text)) => Err(Refusal {
            errno: errno.parse().ok().map(Errno::from_raw),
            text: text.to_string(),
            tried: stage == "tried",
        }),
        _ => Err(anyhow!("the trial was killed").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_what_was_reported() {
        assert_eq!(outcome("tried 0 all is well").ok().unwrap(), "all is well");
        let refusal = outcome("refused 28 clone3(): No space left").err().unwrap();
        assert_eq!(refusal.errno, Some(Errno::ENOSPC));
        assert_eq!(
            (refusal.text.as_str(), refusal.tried),
            ("clone3(): No space left", false)
        );
        assert!(outcome("tried 1 no").err().unwrap().tried);
        assert_eq!(outcome("").err().unwrap().text, "the trial was killed");
    }
}
