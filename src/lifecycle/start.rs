//! PARENT: tells init to go on to its program, and waits until that runs.

use std::os::fd::OwnedFd;

use anyhow::{Result, bail};
use nix::errno::Errno;

use crate::channel::{Down, ParentEnd, STEP_TIMEOUT, Up};
use crate::lifecycle::seccomp_notify;
use crate::state::container::State;
use crate::supervise::{self, AwaitedInit};
use crate::sys;

/// Whether there is somebody who gets what was sent. One that has ended has said why, if it could.
pub fn arrives(sent: Result<()>) -> Result<bool> {
    match sent.as_ref().err().and_then(sys::errno) {
        Some(Errno::EPIPE | Errno::ECONNRESET) => Ok(false),
        _ => sent.map(|()| true),
    }
}

/// A container whose program runs.
#[derive(Default)]
pub struct Started {
    /// The socket on which the program tells that it is ready (sd_notify(3)), if it was created with one.
    pub notify_socket: Option<OwnedFd>,
}

/// Says start, over the launch's channel or the gate's, and waits for the program. Returns None if init is gone, or was started
/// by another.
pub fn start_over(
    channel: &ParentEnd,
    state: &State,
    init: AwaitedInit,
) -> Result<Option<Started>> {
    if !arrives(channel.send(Down::Start))? {
        return Ok(None);
    }
    match supervise::recv_from_init(channel, &init)? {
        Some(Up::Starting) => {}
        Some(Up::Failed(failure)) => bail!(failure),
        None => return Ok(None),
        Some(other) => bail!("unexpected {other:?} from the container's init"),
    }
    see_program(channel, state, init).map(Some)
}

/// The connection closes on exec: its end without a word is success.
pub fn see_program(channel: &ParentEnd, state: &State, mut init: AwaitedInit) -> Result<Started> {
    let mut started = Started::default();
    init.limit = state.start_limit().map(|hooks| hooks + STEP_TIMEOUT);
    loop {
        match supervise::recv_from_init(channel, &init)? {
            None => return Ok(started),
            Some(Up::NotifySocket(socket)) => started.notify_socket = Some(socket),
            Some(Up::Listener(number, listener)) => {
                seccomp_notify::hand_over(state, (init.pid, init.pidfd), number, listener)?;
                arrives(channel.send(Down::Go))?;
            }
            Some(Up::Failed(failure)) => bail!(failure),
            Some(other) => bail!("unexpected {other:?} from the container's init"),
        }
    }
}
