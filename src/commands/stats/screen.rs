//! The terminal on which `stats` renews its table, and the signals and keys that end it.
//!
//! Draws on the alternate screen, so that the user's own is as before at the end, and gives the terminal
//! its settings back. Knows nothing of containers.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::Result;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use nix::unistd::read;

use crate::commands;
use crate::sys::{self, tty};

/// To the alternate screen without a cursor, and back (in terminfo: smcup, civis; cnorm, rmcup).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the upper left; the rest of a line; all that is below (home, el, ed).
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// What a wait has come to.
#[derive(Debug, PartialEq)]
pub enum Woken {
    InTime,
    Resized,
    /// The key q.
    Quit,
    Signal(i32),
}

/// Waits, with the signals of `terminal::block_signals`, and for keys if there is a screen.
pub fn wait(signals: &SignalFd, screen: Option<&Screen>, deadline: Instant) -> Result<Woken> {
    let input = io::stdin();
    let keys = screen.is_some_and(|screen| screen.before.is_some());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Up to a millisecond is cut off, which would make the last round a busy one.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if keys {
            fds.push(PollFd::new(input.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout) {
            Ok(0) => return Ok(Woken::InTime),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return sys::named(Err(errno), || "poll(signals, keys)".into()),
        }
        let key = fds.get(1).is_some_and(|fd| fd.any() == Some(true));
        if let Some(woken) = signal(signals) {
            return Ok(woken);
        }
        if key && quits() {
            return Ok(Woken::Quit);
        }
    }
}

/// Those that are of no interest are taken, too.
fn signal(signals: &SignalFd) -> Option<Woken> {
    while let Ok(Some(info)) = signals.read_signal() {
        match info.ssi_signo as i32 {
            libc::SIGWINCH => return Some(Woken::Resized),
            signal if ENDING.contains(&signal) => return Some(Woken::Signal(signal)),
            _ => {}
        }
    }
    None
}

/// A terminal that has nothing more to say ends it as well.
fn quits() -> bool {
    let mut keys = [0u8; 64];
    match read(io::stdin(), &mut keys) {
        Ok(0) => true,
        Ok(count) => keys[..count].contains(&b'q'),
        Err(errno) => errno != Errno::EINTR && errno != Errno::EAGAIN,
    }
}

/// The terminal as this needs it; as it was on drop.
pub struct Screen {
    /// `None` where the keyboard is none: then signals alone end it.
    before: Option<Termios>,
}

impl Screen {
    pub fn open() -> Result<Screen> {
        let input = io::stdin();
        let before = input.is_terminal().then(|| single_keys(input));
        let screen = Screen {
            before: before.transpose()?,
        };
        commands::print(ENTER)?;
        Ok(screen)
    }

    /// What does not fit is cut off.
    pub fn show(&self, text: &str) -> Result<()> {
        let size = tty::window_size(io::stdout()).ok();
        // A serial line, for one, says 0 by 0.
        let size = size.filter(|size| size.ws_row > 0 && size.ws_col > 0);
        let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
        commands::print(&frame(text, rows.into(), columns.into()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        commands::print(LEAVE).ok();
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), SetArg::TCSAFLUSH, before).ok();
        }
    }
}

/// A line is cleared before it is written: after one of full width the cursor still is in its last column.
fn frame(text: &str, rows: usize, columns: usize) -> String {
    let line = |line: &str| {
        let fits: String = line.chars().take(columns).collect();
        CLEAR_LINE.to_string() + &fits
    };
    let lines: Vec<String> = text.lines().take(rows).map(line).collect();
    // The line below the last one, if there is one, is where clearing begins.
    let rest = if lines.len() < rows {
        format!("\n{CLEAR_BELOW}")
    } else {
        String::new()
    };
    HOME.to_string() + &lines.join("\n") + &rest
}

/// Keys come at once and unseen; ^C is a signal as before. Gives the settings before.
fn single_keys(input: impl AsFd) -> Result<Termios> {
    let before = sys::named(tcgetattr(&input), || "tcgetattr(stdin)".into())?;
    let mut settings = before.clone();
    settings.local_flags &= !(LocalFlags::ICANON | LocalFlags::ECHO);
    settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
    settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
    let set = tcsetattr(&input, SetArg::TCSANOW, &settings);
    sys::named(set, || "tcsetattr(stdin)".into())?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_the_window() {
        let text = "ID  CPU\nweb 1.0\ndb  2.0\n";
        assert_eq!(
            frame(text, 9, 80),
            "\x1b[H\x1b[KID  CPU\n\x1b[Kweb 1.0\n\x1b[Kdb  2.0\n\x1b[J"
        );
        assert_eq!(frame(text, 2, 3), "\x1b[H\x1b[KID \n\x1b[Kweb");
        assert_eq!(frame("", 2, 3), "\x1b[H\n\x1b[J");
    }
}
