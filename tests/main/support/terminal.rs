//! Terminals: the listener of a console socket, and one end of a pty with what was read from it.

use super::{Bundle, wait_until};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// What came through a console socket.
pub struct Received {
    pub text: String,
    pub files: Vec<OwnedFd>,
}

pub fn listen(path: &Path) -> UnixListener {
    let listener = UnixListener::bind(path).expect("bind the console socket");
    listener.set_nonblocking(true).expect("set non-blocking");
    listener
}

/// Accepts one connection and reads one message.
pub fn receive(listener: &UnixListener) -> Received {
    let mut stream = None;
    wait_until("the runtime connects to the console socket", || {
        stream = listener.accept().ok().map(|(stream, _)| stream);
        stream.is_some()
    });
    let stream = stream.expect("a connection");
    stream.set_nonblocking(false).expect("set blocking");
    message(&stream)
}

fn message(stream: &UnixStream) -> Received {
    let (mut text, mut control) = ([0u8; 4096], [0u64; 64]);
    let mut part = libc::iovec {
        iov_base: text.as_mut_ptr().cast(),
        iov_len: text.len(),
    };
    // SAFETY: all-zero is a valid empty message header; it then points at live buffers.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the header describes buffers that live until the end of this function.
    let length = unsafe { libc::recvmsg(stream.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
    assert!(length >= 0, "recvmsg: {}", std::io::Error::last_os_error());
    let text = String::from_utf8_lossy(&text[..length as usize]).into_owned();
    Received {
        text,
        files: files_of(&header),
    }
}

fn files_of(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut files = vec![];
    // SAFETY: walks the control messages that the kernel has just written.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let length = (*message).cmsg_len as usize;
            let count = (length - libc::CMSG_LEN(0) as usize) / size_of::<i32>();
            let data = libc::CMSG_DATA(message).cast::<i32>();
            files.extend((0..count).map(|i| OwnedFd::from_raw_fd(data.add(i).read_unaligned())));
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    files
}

/// The master of a pty.
pub struct Terminal {
    file: File,
    seen: String,
}

impl Terminal {
    pub fn new(master: OwnedFd) -> Terminal {
        // SAFETY: fcntl on an open descriptor.
        unsafe { libc::fcntl(master.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        Terminal {
            file: master.into(),
            seen: String::new(),
        }
    }

    /// A fresh pty of this size: the master and the other end.
    pub fn pair(columns: u16, rows: u16) -> (Terminal, OwnedFd) {
        let (mut master, mut slave) = (-1, -1);
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the out-pointers are local; the size is copied.
        let result = unsafe {
            libc::openpty(
                &mut master,
                &mut slave,
                std::ptr::null_mut(),
                std::ptr::null(),
                &size,
            )
        };
        assert_eq!(result, 0, "openpty");
        for fd in [master, slave] {
            // SAFETY: fcntl on the new descriptors, so that no other test's child inherits them.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        // SAFETY: both descriptors are new and owned by nobody.
        unsafe {
            (
                Terminal::new(OwnedFd::from_raw_fd(master)),
                OwnedFd::from_raw_fd(slave),
            )
        }
    }

    pub fn write(&mut self, text: &str) {
        self.file
            .write_all(text.as_bytes())
            .expect("write to the terminal");
    }

    /// Reads until this text has come, and returns all that was seen.
    pub fn read_until(&mut self, text: &str) -> String {
        wait_until(&format!("the terminal shows `{text}`"), || {
            self.read_some();
            self.seen.contains(text)
        });
        self.seen.clone()
    }

    /// Reads all that is there now.
    pub fn read_some(&mut self) -> &str {
        let mut buffer = [0u8; 4096];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self
                    .seen
                    .push_str(&String::from_utf8_lossy(&buffer[..length])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        &self.seen
    }

    /// The answer of the payload to a command.
    pub fn answer(&mut self, command: &str) -> String {
        let prefix = format!("{command} => ");
        let mut answer = None;
        wait_until(&format!("the terminal answers `{command}`"), || {
            let seen = self.read_some().to_string();
            let rest = seen.split_once(&prefix).map(|(_, rest)| rest.to_string());
            answer = rest.and_then(|r| r.split_once("\r\n").map(|(line, _)| line.to_string()));
            answer.is_some()
        });
        answer.unwrap_or_default()
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the kernel copies the size.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0, "TIOCSWINSZ");
    }

    /// The local modes: echo, canonical input, signals.
    pub fn modes(&self) -> u32 {
        // SAFETY: termios is plain data that tcgetattr fills.
        unsafe {
            let mut modes: libc::termios = MaybeUninit::zeroed().assume_init();
            libc::tcgetattr(self.file.as_raw_fd(), &mut modes);
            modes.c_lflag
        }
    }
}

/// Creates with a console socket and gives the terminal that comes through it.
pub fn create(c: &Bundle) -> Terminal {
    let path = c.dir.join("console.sock");
    let listener = listen(&path);
    let socket = path.display().to_string();
    c.call_new("create", &["--console-socket", &socket])
        .finish()
        .ok();
    let mut received = receive(&listener);
    Terminal::new(received.files.pop().expect("a terminal"))
}
