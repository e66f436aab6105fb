//! The words that parent and child exchange: one SOCK_SEQPACKET pair, one message a packet, typed by direction.
//!
//! ```text
//! parent (launch)                                                    child (init)
//!        <--- Up::Born + pidfd -----------  by a process that has made init and ends: see `relay` and `init`
//!   scope, maps ---------- Down::Go ------>  only if the child waits for them
//!        ------ namespace of the network ->  only if it is made meanwhile
//!        <--------------- Up::Hooks -------  only if there are hooks of the runtime's side, or a device is mounted
//!   rules, hooks -------- Down::Go ------->
//!        <--- Up::Console + terminal ------  only with a terminal
//!        <------ Up::Timings{text} ------  only with --timings
//!        <--------------- Up::Ready -------  all is set up, the executable is found
//!   state saved --------- Down::Start ---->  run: goes on to exec. One that is told before leaves Ready out
//!                   or -- Down::Wait ----->  create: waits at the start socket
//!        <-------------- Up::Waiting ------  no longer bound to the parent's life
//! start                                     the same process, connected to the start socket
//!        ---------------- Down::Start ---->
//!        <------------- Up::Starting ------  this caller won; end of file then means that exec succeeded
//!        <-- Up::NotifySocket + fd ------  only with NOTIFY_SOCKET in the environment of create
//!        <--- Up::Listener{number} [+ fd] -  only with a seccomp filter that notifies
//!        ------------------- Down::Go ---->  its agent has it
//!        <--- Up::Failed{code, errno, text}  ends it at any point
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::sys::{self, named, socket};
use crate::text::fault::Coded;

/// The longest that a process may take for one step; a filesystem on the network may be slow.
pub const STEP_TIMEOUT: Duration = Duration::from_secs(300);

/// An error text longer than this is cut: nobody reads it, and a packet must fit.
pub const LONGEST: usize = 4096;
const GAP: &[u8] = b" [...] ";

#[derive(Debug)]
pub enum Up {
    /// The pidfd of the process that is init from now on. Its maker says so, and ends.
    Born(OwnedFd),
    Hooks,
    Console(OwnedFd),
    /// Between a process that opens trees of mounts and who has asked for them.
    Tree(OwnedFd),
    /// In place of a tree that is opened when it is asked for.
    Later,
    Ready,
    Waiting,
    Starting,
    /// What `--timings` is to tell of the child's steps.
    Timings(String),
    /// The socket on which the container's program tells that it is ready (sd_notify(3)).
    NotifySocket(OwnedFd),
    /// The number of the seccomp listener in the child's table, and where it can the listener.
    Listener(i32, Option<OwnedFd>),
    Failed(Coded),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    Go = b'g' as isize,
    Wait = b'w' as isize,
    Start = b's' as isize,
}

/// The parent's end: sends [`Down`], receives [`Up`].
#[derive(Debug)]
pub struct ParentEnd {
    socket: OwnedFd,
}

/// The child's end: sends [`Up`], receives [`Down`].
#[derive(Debug)]
pub struct ChildEnd {
    socket: OwnedFd,
}

/// The first byte of [`Up::Listener`]. The number of the listener follows, in the byte order of the machine.
pub const LISTENER_TAG: u8 = b'l';

pub fn pair() -> Result<(ParentEnd, ChildEnd)> {
    let made = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    );
    let (parent, child) = named(made, || "socketpair(AF_UNIX)".to_string())?;
    socket::limit_receive(&parent, STEP_TIMEOUT)?;
    Ok((ParentEnd { socket: parent }, ChildEnd { socket: child }))
}

impl ParentEnd {
    /// Returns the end of a connection to the start socket.
    pub fn connected(socket: OwnedFd) -> ParentEnd {
        ParentEnd { socket }
    }

    pub fn send(&self, message: Down) -> Result<()> {
        socket::send(&self.socket, &[message as u8], None)
            .with_context(|| format!("tell the container's init: {message:?}"))
    }

    pub fn send_network(&self, namespace: OwnedFd) -> Result<()> {
        socket::send(&self.socket, b"n", Some(namespace.as_fd()))
            .context("give the container's init its network namespace")
    }

    /// Returns the next message, or None when the child is gone or has executed its program. Fails after [`STEP_TIMEOUT`].
    pub fn receive(&self) -> Result<Option<Up>> {
        let mut buffer = [0; LONGEST + 1];
        let received = socket::receive(&self.socket, &mut buffer);
        let (length, fd) = received.map_err(|error| match sys::errno(&error) {
            Some(Errno::EAGAIN) => error.context(format!(
                "the process says nothing for {} seconds",
                STEP_TIMEOUT.as_secs()
            )),
            _ => error,
        })?;
        let Some((tag, payload)) = buffer[..length].split_first() else {
            return Ok(None);
        };
        let message = match (tag, fd) {
            (b'b', Some(pidfd)) => Up::Born(pidfd),
            (b'h', None) => Up::Hooks,
            (b'c', Some(fd)) => Up::Console(fd),
            (b't', Some(fd)) => Up::Tree(fd),
            (b'n', Some(socket)) => Up::NotifySocket(socket),
            (b'd', None) => Up::Later,
            (b'r', None) => Up::Ready,
            (b'w', None) => Up::Waiting,
            (b's', None) => Up::Starting,
            (b't', None) => Up::Timings(String::from_utf8_lossy(payload).into_owned()),
            (b'l', listener) => Up::Listener(i32::from_ne_bytes(payload.try_into()?), listener),
            (b'f', None) => Up::Failed(failure(payload)),
            (tag, fd) => bail!(
                "unexpected packet {:?} from the container's init, descriptor {fd:?}",
                *tag as char
            ),
        };
        Ok(Some(message))
    }
}

impl AsFd for ParentEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ChildEnd {
    pub fn connected(socket: OwnedFd) -> ChildEnd {
        ChildEnd { socket }
    }

    pub fn send(&self, message: Up) -> Result<()> {
        match &message {
            Up::Born(pidfd) => socket::send(&self.socket, b"b", Some(pidfd.as_fd())),
            Up::Console(terminal) => socket::send(&self.socket, b"c", Some(terminal.as_fd())),
            Up::Tree(tree) => socket::send(&self.socket, b"t", Some(tree.as_fd())),
            Up::NotifySocket(fd) => socket::send(&self.socket, b"n", Some(fd.as_fd())),
            Up::Later => socket::send(&self.socket, b"d", None),
            Up::Hooks => socket::send(&self.socket, b"h", None),
            Up::Ready => socket::send(&self.socket, b"r", None),
            Up::Waiting => socket::send(&self.socket, b"w", None),
            Up::Starting => socket::send(&self.socket, b"s", None),
            Up::Listener(number, listener) => {
                let listener = listener.as_ref().map(AsFd::as_fd);
                socket::send(&self.socket, &listener_packet(*number), listener)
            }
            Up::Timings(text) => {
                socket::send(&self.socket, &[b"t", text.as_bytes()].concat(), None)
            }
            Up::Failed(failure) => socket::send(&self.socket, &failure_packet(failure), None),
        }
    }

    /// The next message; `None` when the parent is gone.
    pub fn receive(&self) -> Result<Option<Down>> {
        let mut buffer = [0; 8];
        let (length, _) = socket::receive(&self.socket, &mut buffer)?;
        match &buffer[..length] {
            [] => Ok(None),
            b"g" => Ok(Some(Down::Go)),
            b"w" => Ok(Some(Down::Wait)),
            b"s" => Ok(Some(Down::Start)),
            other => bail!("unexpected packet {other:?} from the parent"),
        }
    }

    /// Waits for the network namespace that the parent has made.
    pub fn network(&self) -> Result<OwnedFd> {
        let mut buffer = [0; 8];
        match socket::receive(&self.socket, &mut buffer)? {
            (1, Some(namespace)) if buffer[0] == b'n' => Ok(namespace),
            (0, _) => bail!("the parent is gone"),
            (length, _) => bail!("unexpected packet {:?} from the parent", &buffer[..length]),
        }
    }

    /// Waits for exactly this message; a parent that is gone ends the child too.
    pub fn expect(&self, wanted: Down) -> Result<()> {
        match self.receive()? {
            Some(message) if message == wanted => Ok(()),
            Some(message) => bail!("expected {wanted:?} from the parent, got {message:?}"),
            None => bail!("the parent is gone"),
        }
    }
}

/// The errno, the code, a zero, and the text. The middle of a text that is too long is left out: the reason is at its end.
fn failure_packet(failure: &Coded) -> Vec<u8> {
    let head = [
        b"f",
        &failure.errno.to_ne_bytes()[..],
        failure.code.as_bytes(),
        b"\0",
    ]
    .concat();
    let left = LONGEST.saturating_sub(head.len());
    let text = failure.text.as_bytes();
    if text.len() <= left {
        return [&head, text].concat();
    }
    let half = (left - GAP.len()) / 2;
    [&head, &text[..half], GAP, &text[text.len() - half..]].concat()
}

fn failure(payload: &[u8]) -> Coded {
    let (errno, rest) = payload.split_first_chunk().unwrap_or((&[0; 4], payload));
    let zero = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Coded {
        errno: i32::from_ne_bytes(*errno),
        code: text(&rest[..zero]),
        text: text(rest.get(zero + 1..).unwrap_or_default()),
    }
}

/// Returns the packet of [`Up::Listener`], for a process that may neither allocate nor call sendmsg(2) any more.
pub fn listener_packet(number: i32) -> [u8; 5] {
    let [a, b, c, d] = number.to_ne_bytes();
    [LISTENER_TAG, a, b, c, d]
}

impl AsFd for ChildEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::fault::coded;

    #[test]
    fn every_message_arrives_as_it_was_sent() {
        let (parent, child) = pair().unwrap();
        let fd = || std::fs::File::open("/dev/null").unwrap().into();
        child.send(Up::Born(fd())).unwrap();
        assert!(matches!(parent.receive().unwrap(), Some(Up::Born(_))));
        child.send(Up::Console(fd())).unwrap();
        assert!(matches!(parent.receive().unwrap(), Some(Up::Console(_))));
        child.send(Up::NotifySocket(fd())).unwrap();
        assert!(matches!(
            parent.receive().unwrap(),
            Some(Up::NotifySocket(_))
        ));
        for message in [Up::Later, Up::Hooks, Up::Ready, Up::Waiting, Up::Starting] {
            let sent = format!("{message:?}");
            child.send(message).unwrap();
            assert_eq!(format!("{:?}", parent.receive().unwrap().unwrap()), sent);
        }
        for message in [Down::Go, Down::Wait, Down::Start] {
            parent.send(message).unwrap();
            assert_eq!(child.receive().unwrap(), Some(message));
        }
        parent.send_network(fd()).unwrap();
        child.network().unwrap();
    }

    #[test]
    fn a_long_failure_is_cut_and_the_end_of_a_peer_is_seen() {
        let (parent, child) = pair().unwrap();
        let long = Coded {
            errno: libc::ENOENT,
            ..coded("exec-format", "x".repeat(3 * LONGEST) + ": reason")
        };
        child.send(Up::Failed(long.clone())).unwrap();
        let Some(Up::Failed(cut)) = parent.receive().unwrap() else {
            panic!("no failure")
        };
        assert_eq!((cut.errno, &cut.code), (long.errno, &long.code));
        assert!(cut.text.len() > LONGEST - 20);
        assert!(cut.text.starts_with("xxx") && cut.text.ends_with("xxx: reason"));
        drop(child);
        assert!(parent.receive().unwrap().is_none());
    }
}
