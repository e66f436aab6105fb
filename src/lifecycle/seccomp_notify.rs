//! Hands the listener of a seccomp filter to the agent that the config names. Run by whoever starts the container.
//!
//! init, already under its filter, can do no more than write(2) the number of the descriptor. It is taken from it by
//! pidfd_getfd(2), or sent by a thread beside it, and goes to the agent with the container's state in one message.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::SockType;
use serde_json::json;

use crate::state::container::Status;
use crate::state::document::report;
use crate::state::record::Record;
use crate::sys::process::pidfd_getfd;
use crate::sys::{socket, wait};

/// config-linux.md, "Container Process Record".
pub fn hand_over(
    state: &Record,
    process: (i32, BorrowedFd),
    number: i32,
    sent: Option<OwnedFd>,
) -> Result<()> {
    let (pid, pidfd) = process;
    let notify = state
        .notify
        .as_ref()
        .context("linux.seccomp.listenerPath: not in the state")?;
    let field = || {
        format!(
            "linux.seccomp.listenerPath: {}",
            notify.listener_path.display()
        )
    };
    let descriptor = match sent {
        Some(descriptor) => descriptor,
        None => pidfd_getfd(pidfd, number).with_context(|| refused(&field()))?,
    };
    // A process that joins finds the container running.
    let status = if pid == state.pid {
        Status::Created
    } else {
        Status::Running
    };
    let message = json!({
        "ociVersion": state.oci_version,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": notify.metadata,
        "state": report(state, status, state.pid),
    });
    let agent = wait::connect(&notify.listener_path, SockType::Stream)
        .context("failed to connect with seccomp agent")
        .with_context(field)?;
    socket::send(
        agent,
        message.to_string().as_bytes(),
        Some(descriptor.as_fd()),
    )
    .with_context(field)
}

/// A thread that could send it counts as a process.
fn refused(field: &str) -> String {
    format!(
        "{field}: take the listener out of the container's init, which a caller without CAP_SYS_PTRACE may not; \
         one more process must be allowed (linux.resources.pids.limit, ulimit -u)"
    )
}
