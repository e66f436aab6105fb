//! PARENT: what the service manager gives this process, and what the container's program tells it (sd_notify(3)).
//!
//! The socket of the caller is never in the container. The program sends to a socket of its own; what is about the service goes
//! on to the caller's. Numbers of processes and descriptors mean nothing outside, and are left out.

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::sys::{socket, wait};
use crate::text::log;

/// How long the service manager may take to read.
const TIMEOUT: Duration = Duration::from_secs(5);

/// systemd reads no more of a message (manager.c, NOTIFY_BUFFER_MAX).
const LONGEST: usize = 4096;

/// Assignments that mean the same outside of the container.
const FORWARDED: [&str; 11] = [
    "READY",
    "RELOADING",
    "STOPPING",
    "STATUS",
    "ERRNO",
    "BUSERROR",
    "EXIT_STATUS",
    "WATCHDOG",
    "WATCHDOG_USEC",
    "EXTEND_TIMEOUT_USEC",
    "MONOTONIC_USEC",
];

/// A socket of the service manager.
pub struct Address {
    /// A path, or a name in the abstract namespace.
    name: OsString,
    is_abstract: bool,
}

/// The way from the container's socket to the service manager's.
pub struct Forwarder {
    from: OwnedFd,
    to: OwnedFd,
    /// The container's init, where the service manager is to take it for the main process.
    main_pid: Option<i32>,
    pub is_ready: bool,
}

/// Returns the address in NOTIFY_SOCKET of the environment, or None without one. Fails for sockets of other machines.
pub fn address() -> Result<Option<Address>> {
    let value = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    parse(value)
}

/// Returns how many descriptors from 3 on the service manager has opened for this process (sd_listen_fds(3)). 0 if LISTEN_PID
/// names another process, which has handed on its environment.
pub fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse().ok();
    match number("LISTEN_PID") == Some(std::process::id()) {
        true => number("LISTEN_FDS").unwrap_or(0),
        false => 0,
    }
}

fn parse(value: OsString) -> Result<Option<Address>> {
    let (first, rest) = match value.as_bytes() {
        [] => return Ok(None),
        [first, rest @ ..] => (*first, rest),
    };
    ensure!(
        matches!(first, b'/' | b'@') && !rest.is_empty(),
        "NOTIFY_SOCKET: {value:?}: must be an absolute path, or @ and a name; unset it to start without notifications"
    );
    let is_abstract = first == b'@';
    let name = match is_abstract {
        true => OsString::from_vec(rest.to_vec()),
        false => value,
    };
    Ok(Some(Address { name, is_abstract }))
}

/// Forwards messages until the container is ready or its init ends. Returns at once where the caller has no NOTIFY_SOCKET.
/// Takes as long as the program takes; a signal ends the wait with an error.
pub fn wait_until_ready(from: OwnedFd, pid: i32, init: &OwnedFd) -> Result<()> {
    let Some(mut forwarder) = Forwarder::new(from, Some(pid))? else {
        return Ok(());
    };
    while !forwarder.is_ready {
        let [is_sent, has_ended] = wait::poll_readable([forwarder.as_fd(), init.as_fd()], None)?;
        if is_sent {
            forwarder.forward();
        }
        // Other processes of the container may go on sending.
        if has_ended {
            return Ok(());
        }
    }
    Ok(())
}

impl Forwarder {
    /// Returns None where the caller has no NOTIFY_SOCKET. The descriptor comes from a process that others of the container may
    /// have traced; it is checked before anything waits for it.
    pub fn new(from: OwnedFd, main_pid: Option<i32>) -> Result<Option<Forwarder>> {
        let Some(Address { name, is_abstract }) = address()? else {
            return Ok(None);
        };
        ensure!(
            socket::is_datagram(&from),
            "NOTIFY_SOCKET: the container's init gave another descriptor than its socket"
        );
        let to = socket::connect_datagram(name.as_bytes(), is_abstract, TIMEOUT)
            .with_context(|| format!("NOTIFY_SOCKET: {name:?}"))?;
        Ok(Some(Forwarder {
            from,
            to,
            main_pid,
            is_ready: false,
        }))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }

    /// Forwards the messages that have arrived, at most a hundred at once. A service manager that does not read costs a warning.
    pub fn forward(&mut self) {
        let mut buffer = [0; LONGEST + 1];
        for _ in 0..100 {
            let received = socket::receive_datagram(&self.from, &mut buffer);
            let forwarded = received.and_then(|length| match length {
                Some(length) => self.forward_one(&buffer[..length]).map(|()| true),
                None => Ok(false),
            });
            match forwarded {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return log::warn(&format!("NOTIFY_SOCKET: {error:#}")),
            }
        }
    }

    fn forward_one(&mut self, message: &[u8]) -> Result<()> {
        ensure!(
            message.len() <= LONGEST,
            "a message of more than {LONGEST} bytes is dropped, as service managers do"
        );
        let mut lines = lines_of(message);
        let is_ready = lines.contains(&"READY=1");
        let main_pid = self.main_pid.filter(|_| is_ready);
        let main_pid = main_pid.map(|pid| format!("MAINPID={pid}"));
        lines.extend(main_pid.as_deref());
        self.is_ready |= is_ready;
        match lines.is_empty() {
            true => Ok(()),
            false => socket::send(&self.to, lines.join("\n").as_bytes(), None),
        }
    }
}

/// Returns the lines of a message that are forwarded.
fn lines_of(message: &[u8]) -> Vec<&str> {
    let lines = message.split(|byte| *byte == b'\n');
    let lines = lines.filter_map(|line| std::str::from_utf8(line).ok());
    let is_forwarded = |line: &&str| {
        let name = line.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| FORWARDED.contains(&name))
    };
    lines.filter(is_forwarded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_means_the_same_outside_is_forwarded() {
        let message = b"READY=1\nMAINPID=1\nFDSTORE=1\nSTATUS=up = and\xc3\xa9\nX\nBARRIER=1\nWATCHDOG=\xff\n";
        assert_eq!(lines_of(message), ["READY=1", "STATUS=up = and\u{e9}"]);
        assert!(lines_of(b"").is_empty());
    }

    #[test]
    fn addresses_are_paths_or_abstract_names() {
        assert!(parse("".into()).unwrap().is_none());
        let path = parse("/run/a".into()).unwrap().unwrap();
        assert!(path.name == "/run/a" && !path.is_abstract);
        let name = parse("@a".into()).unwrap().unwrap();
        assert!(name.name == "a" && name.is_abstract);
        for bad in ["vsock:2:1", "run/a", "@", "/"] {
            let error = parse(bad.into()).err().unwrap().to_string();
            assert!(
                error.starts_with(&format!("NOTIFY_SOCKET: {bad:?}: must be")),
                "{error}"
            );
        }
    }
}
