//! The foreground: what the parent does from `start` to the end of a container that it waits for.
//!
//! Forwards signals to init, and copies between the user's terminal and the container's. Waits in
//! one poll(2) for all of it, and sets no descriptor of the user's to non-blocking: they are
//! shared with the shell. Must not touch the container but through its pidfd and its master.

use std::io::{self, IsTerminal};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{read, write};

use crate::lifecycle::sd_notify::Forwarder;
use crate::sys::{self, process, tty};
use crate::text::log;

/// Signals that this process makes itself, by a fault of its own or by a write that nobody reads.
const OWN_SIGNALS: [Signal; 8] = [
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGTRAP,
];

/// Keeps signals for `wait`, and gives the mask before, which the container must get back.
///
/// To be called before the clone, so that none is lost while the container is made.
pub fn block_signals() -> Result<(SignalFd, SigSet)> {
    let mut mask = process::every_signal();
    for signal in OWN_SIGNALS {
        mask.remove(signal);
    }
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = sys::named(SignalFd::with_flags(&mask, flags), || {
        "signalfd(all)".into()
    })?;
    let before = sys::named(mask.thread_swap_mask(SigmaskHow::SIG_BLOCK), || {
        "sigprocmask(SIG_BLOCK, all)".into()
    })?;
    Ok((signals, before))
}

/// Waits for the end of init: its exit code, or 128 and the number of the signal that killed it.
/// Meanwhile, forwards messages for the service manager.
pub fn wait(
    pidfd: BorrowedFd,
    terminal: Option<Terminal>,
    forwarder: Option<Forwarder>,
    signals: &SignalFd,
) -> Result<i32> {
    let (mut terminal, mut forwarder) = (terminal, forwarder);
    loop {
        let ready = ready(pidfd, terminal.as_ref(), forwarder.as_ref(), signals)?;
        if let Some(forwarder) = forwarder.as_mut().filter(|_| ready.message) {
            forwarder.forward();
        }
        if ready.signal {
            take_signals(pidfd, terminal.as_ref(), signals);
        }
        if let Some(terminal) = &mut terminal {
            terminal.copy(ready.input, ready.output);
        }
        if ready.exited {
            break;
        }
    }
    if let Some(terminal) = &mut terminal {
        terminal.drain(signals);
    }
    if let Some(forwarder) = &mut forwarder {
        forwarder.forward();
    }
    tty::exit_code(pidfd).context("wait for the container")
}

struct Ready {
    exited: bool,
    signal: bool,
    input: bool,
    output: bool,
    /// For the service manager.
    message: bool,
}

fn ready(
    pidfd: BorrowedFd,
    terminal: Option<&Terminal>,
    forwarder: Option<&Forwarder>,
    signals: &SignalFd,
) -> Result<Ready> {
    // A direction that waits for nothing: a signalfd has no hang-up that poll reports unasked.
    let nothing = || PollFd::new(signals.as_fd(), PollFlags::empty());
    let [input, output] = terminal.map_or([None, None], Terminal::waits_for);
    let mut fds = [
        PollFd::new(pidfd, PollFlags::POLLIN),
        PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        input.unwrap_or_else(nothing),
        output.unwrap_or_else(nothing),
        forwarder.map_or_else(nothing, |forwarder| {
            PollFd::new(forwarder.as_fd(), PollFlags::POLLIN)
        }),
    ];
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return sys::named(Err(errno), || "poll(container)".into()),
    }
    let [exited, signal, input, output, message] = fds.map(|fd| fd.any() == Some(true));
    Ok(Ready {
        exited,
        signal,
        input,
        output,
        message,
    })
}

/// All go to init but those meant for this process: of its children, of the user's window, and
/// what an engine written in Go may send itself, here by mistake.
fn take_signals(init: BorrowedFd, terminal: Option<&Terminal>, signals: &SignalFd) {
    while let Some(signal) = next_signal(signals) {
        match signal {
            libc::SIGCHLD => reap_orphans(init),
            libc::SIGWINCH => {
                if let Some(terminal) = terminal {
                    terminal.resize();
                }
            }
            libc::SIGURG => {}
            _ => forward(init, signal),
        }
    }
}

fn next_signal(signals: &SignalFd) -> Option<i32> {
    let signal = signals.read_signal().ok().flatten()?;
    Some(signal.ssi_signo as i32)
}

fn forward(init: BorrowedFd, signal: i32) {
    match process::pidfd_send_signal(init, signal) {
        // It has just died: poll is about to say so.
        Err(error) if sys::errno(&error) == Some(Errno::ESRCH) => {}
        Err(error) => log::warn(&format!("forward signal {signal}: {error:#}")),
        Ok(()) => {}
    }
}

/// Reaps what a subreaper adopts, but never init, whose status `wait` gives.
///
/// A child that is dead before init was seen alive is not init.
fn reap_orphans(init: BorrowedFd) {
    if prctl::get_child_subreaper() != Ok(true) {
        return;
    }
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, peek) {
        let Some(pid) = status.pid() else { return };
        let mut fds = [PollFd::new(init, PollFlags::POLLIN)];
        let init_lives = poll(&mut fds, PollTimeout::ZERO) == Ok(0);
        if !init_lives || waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            return;
        }
    }
}

/// The master side of the container's terminal, connected to the terminal of the user.
///
/// The user's is raw as long as this lives: keys such as ^C are for the container to interpret.
pub struct Terminal {
    master: OwnedFd,
    user_input: OwnedFd,
    user_output: OwnedFd,
    input: Flow,
    output: Flow,
    before: Option<Termios>,
    peer: Option<OwnedFd>,
}

/// Fails if stdin is not a terminal: nobody could tell the container of an end of the input, and a shell would wait without end.
pub fn check_stdin() -> Result<()> {
    ensure!(
        io::stdin().is_terminal(),
        "process.terminal: stdin is not a terminal; ask for no terminal (process.terminal: false, exec without --tty), \
         or give one as stdin, or --detach with --console-socket"
    );
    Ok(())
}

/// Connects stdin and stdout, whatever they are, and gives the container the user's window size.
pub fn attach(master: OwnedFd) -> Result<Terminal> {
    let input = io::stdin().as_fd().try_clone_to_owned();
    let output = io::stdout().as_fd().try_clone_to_owned();
    let user_input = input.context("duplicate stdin")?;
    let user_output = output.context("duplicate stdout")?;
    Terminal::connect(master, user_input, user_output)
}

impl Terminal {
    fn connect(master: OwnedFd, user_input: OwnedFd, user_output: OwnedFd) -> Result<Terminal> {
        let set = FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK);
        sys::named(fcntl(&master, set), || "fcntl(master, O_NONBLOCK)".into())?;
        leave_lines_alone(&master)?;
        let before = user_input.is_terminal().then(|| make_raw(&user_input));
        let terminal = Terminal {
            before: before.transpose()?,
            master,
            user_input,
            user_output,
            input: Flow::new(),
            output: Flow::new(),
            peer: None,
        };
        terminal.resize();
        Ok(terminal)
    }

    /// A terminal without a user's window keeps the size that the spec gave it.
    fn resize(&self) {
        let ends = [&self.user_input, &self.user_output];
        let mut sizes = ends
            .into_iter()
            .filter_map(|end| tty::window_size(end).ok());
        // A serial line, for one, says 0 by 0.
        if let Some(size) = sizes.find(|size| size.ws_row > 0 && size.ws_col > 0) {
            let _ = tty::set_window_size(&self.master, size);
        }
    }

    fn waits_for(&self) -> [Option<PollFd<'_>>; 2] {
        let master = self.master.as_fd();
        [
            self.input.waits_for(self.user_input.as_fd(), master),
            self.output.waits_for(master, self.user_output.as_fd()),
        ]
    }

    fn copy(&mut self, input: bool, output: bool) {
        if input && let Err(errno) = self.input.step(&self.user_input, &self.master) {
            let on_master = !self.input.pending.is_empty();
            if !self.goes_on(errno, on_master) {
                self.input.give_up();
            }
        }
        if output && let Err(errno) = self.output.step(&self.master, &self.user_output) {
            let on_master = self.output.pending.is_empty();
            if !self.goes_on(errno, on_master) {
                self.output.give_up();
            }
        }
    }

    /// EIO of a master: no process has the other side open now, but one may open it again, as
    /// systemd does with /dev/console. Until then poll would report a hang-up without end, so the
    /// other side is held open here.
    fn goes_on(&mut self, errno: Errno, on_master: bool) -> bool {
        match errno {
            Errno::EAGAIN | Errno::EINTR => true,
            Errno::EIO if on_master => {
                self.peer = tty::open_peer(&self.master).ok();
                self.peer.is_some()
            }
            _ => false,
        }
    }

    /// Passes on what was written before the end of init, though others may go on writing.
    fn drain(&mut self, signals: &SignalFd) {
        let mut left = HELD_BY_KERNEL;
        while left > 0 || !self.output.pending.is_empty() {
            if !self.output.pending.is_empty() {
                if !self.flush(signals) {
                    return;
                }
                continue;
            }
            let step = self.output.step(&self.master, &self.user_output);
            if step.is_err() || self.output.pending.is_empty() {
                return;
            }
            left = left.saturating_sub(self.output.pending.len());
        }
    }

    /// Writes once. False if nobody will read: the reader is gone, or one who waits for this
    /// process has lost patience with it.
    fn flush(&mut self, signals: &SignalFd) -> bool {
        let mut fds = [
            PollFd::new(self.user_output.as_fd(), PollFlags::POLLOUT),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut fds, PollTimeout::NONE);
        if fds[0].any() == Some(true) {
            let step = self.output.step(&self.master, &self.user_output);
            return matches!(step, Ok(()) | Err(Errno::EAGAIN | Errno::EINTR));
        }
        let ends = |signal: i32| {
            [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM].contains(&signal)
        };
        !std::iter::from_fn(|| next_signal(signals)).any(ends)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(&self.user_input, SetArg::TCSANOW, before);
        }
    }
}

/// Has the container's terminal put no carriage return before an end of line. The user's terminal does that, if there is one.
fn leave_lines_alone(master: &OwnedFd) -> Result<()> {
    let mut modes = sys::named(tcgetattr(master), || "tcgetattr(master)".into())?;
    modes.output_flags.remove(OutputFlags::ONLCR);
    let set = tcsetattr(master, SetArg::TCSANOW, &modes);
    sys::named(set, || "tcsetattr(master, -onlcr)".into())
}

/// Gives the settings before. Output is still translated, as that of the container is not.
fn make_raw(terminal: &OwnedFd) -> Result<Termios> {
    let before = sys::named(tcgetattr(terminal), || "tcgetattr(stdin)".into())?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    raw.output_flags = before.output_flags;
    let set = tcsetattr(terminal, SetArg::TCSANOW, &raw);
    sys::named(set, || "tcsetattr(stdin, raw)".into())?;
    Ok(before)
}

/// More than the kernel buffers of one terminal hold.
const HELD_BY_KERNEL: usize = 1 << 20;

/// A pipe takes as much without blocking when poll says that it is writable.
const CHUNK: usize = libc::PIPE_BUF;

/// One direction: reads only when all that it has read before is written.
struct Flow {
    bytes: [u8; CHUNK],
    pending: Range<usize>,
    open: bool,
}

impl Flow {
    fn new() -> Flow {
        Flow {
            bytes: [0; CHUNK],
            pending: 0..0,
            open: true,
        }
    }

    fn waits_for<'a>(&self, from: BorrowedFd<'a>, to: BorrowedFd<'a>) -> Option<PollFd<'a>> {
        if !self.pending.is_empty() {
            return Some(PollFd::new(to, PollFlags::POLLOUT));
        }
        self.open.then(|| PollFd::new(from, PollFlags::POLLIN))
    }

    /// One read or one write.
    fn step(&mut self, from: impl AsFd, to: impl AsFd) -> nix::Result<()> {
        if self.pending.is_empty() {
            let count = read(from, &mut self.bytes)?;
            self.pending = 0..count;
            self.open = count > 0;
        } else {
            let count = write(to, &self.bytes[self.pending.clone()])?;
            self.pending.start += count;
        }
        Ok(())
    }

    /// Without a source there is nothing more to come; without a reader the source must not stall.
    fn give_up(&mut self) {
        match self.pending.is_empty() {
            true => self.open = false,
            false => self.pending = 0..0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::process::{Command, Stdio};
    use std::thread;
    use std::time::Duration;

    use nix::fcntl::FdFlag;
    use nix::pty::{OpenptyResult, Winsize, openpty};
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::signal::raise;
    use nix::sys::termios::LocalFlags;

    use super::*;

    /// Tests run in threads of one process: no child may inherit what another test opens.
    fn apart(pty: OpenptyResult) -> OpenptyResult {
        for side in [&pty.master, &pty.slave] {
            fcntl(side, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        pty
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap()
    }

    fn pty() -> OpenptyResult {
        let pty = apart(openpty(None, None).unwrap());
        // Without echo and newline translation the container's bytes come as they are.
        make_raw(&pty.slave).unwrap();
        pty
    }

    #[expect(clippy::zombie_processes, reason = "`wait` reaps it")]
    fn spawn(command: &mut Command) -> OwnedFd {
        // A child inherits the mask of the thread.
        let blocked = SigSet::empty()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .unwrap();
        let child = command.spawn().unwrap();
        blocked.thread_set_mask().unwrap();
        process::pidfd_open(child.id() as i32).unwrap()
    }

    fn spawn_on(slave: OwnedFd, script: &str) -> OwnedFd {
        let copy = || Stdio::from(slave.try_clone().unwrap());
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .stdin(copy())
            .stdout(copy())
            .stderr(copy());
        spawn(&mut command)
    }

    /// Runs a script on a container terminal; gives its exit code and what the user saw.
    fn run(script: &str, input: OwnedFd, pause: Duration) -> (i32, Vec<u8>) {
        let (signals, _) = block_signals().unwrap();
        let container = pty();
        let (seen, output) = pipe();
        let reader = thread::spawn(move || read_slowly(seen, pause));
        let terminal = Terminal::connect(container.master, input, output).unwrap();
        let pidfd = spawn_on(container.slave, script);
        let code = wait(pidfd.as_fd(), Some(terminal), None, &signals).unwrap();
        (code, reader.join().unwrap())
    }

    fn read_slowly(from: OwnedFd, pause: Duration) -> Vec<u8> {
        let (mut from, mut all, mut chunk) = (File::from(from), Vec::new(), [0; 3000]);
        while let count @ 1.. = from.read(&mut chunk).unwrap() {
            all.extend(&chunk[..count]);
            thread::sleep(pause);
        }
        all
    }

    fn closed_input() -> OwnedFd {
        pipe().0
    }

    #[test]
    fn a_slow_reader_gets_every_byte() {
        // Ends while the terminal and the pipe are full of what nobody has read.
        let pause = Duration::from_millis(2);
        let (code, seen) = run("seq 1 30000; exit 3", closed_input(), pause);
        let want: String = (1..=30000).map(|i| format!("{i}\n")).collect();
        assert_eq!((code, seen.len()), (3, want.len()));
        assert!(seen == want.as_bytes());
    }

    #[test]
    fn one_who_writes_for_ever_is_not_waited_for() {
        // A reader slower than the writer, or the terminal would be empty now and then.
        let pause = Duration::from_millis(1);
        let script = "yes & until grep -q 'wchar: [1-9]' /proc/$!/io; do :; done; exit 2";
        let (code, seen) = run(script, closed_input(), pause);
        assert_eq!((code, &seen[..4]), (2, b"y\ny\n".as_slice()));
    }

    #[test]
    fn the_last_words_arrive_though_others_keep_the_terminal() {
        let script = "sleep 20 & head -c 9000 /dev/zero";
        let start = std::time::Instant::now();
        let (code, seen) = run(script, closed_input(), Duration::ZERO);
        assert_eq!((code, seen.len()), (0, 9000));
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn the_end_of_the_input_is_not_the_end_of_the_container() {
        let (input, typed) = pipe();
        File::from(typed).write_all(b"hello\n").unwrap();
        let script = "read word; sleep 0.1; echo got $word; exit 4";
        let (code, seen) = run(script, input, Duration::ZERO);
        assert_eq!((code, seen.as_slice()), (4, b"got hello\n".as_slice()));
    }

    #[test]
    fn much_input_for_a_slow_reader_arrives_whole() {
        let (input, typed) = pipe();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| b'a' + (i % 23) as u8).collect();
        let sent = bytes.clone();
        let writer = thread::spawn(move || File::from(typed).write_all(&sent).unwrap());
        let script = "sleep 0.1; head -c 100000 | sha256sum";
        let (_, seen) = run(script, input, Duration::ZERO);
        writer.join().unwrap();
        let mut sum = Command::new("sha256sum")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        sum.stdin.take().unwrap().write_all(&bytes).unwrap();
        assert_eq!(seen, sum.wait_with_output().unwrap().stdout);
    }

    #[test]
    fn a_terminal_that_was_closed_by_all_can_be_opened_again() {
        // More than the terminal holds, so that somebody must read it.
        let script = "tty=$(tty); exec >/dev/null 2>&1 </dev/null; sleep 0.3
            timeout 60 head -c 200000 /dev/zero >$tty";
        let before = busy();
        let (code, seen) = run(script, closed_input(), Duration::ZERO);
        assert_eq!((code, seen.len()), (0, 200_000));
        let spent = busy() - before;
        assert!(spent < Duration::from_millis(150), "spins: {spent:?}");
    }

    #[test]
    fn an_input_that_cannot_be_read_is_no_input() {
        let directory = File::open("/").unwrap().into();
        let before = busy();
        let (code, seen) = run("sleep 0.3; echo on", directory, Duration::ZERO);
        assert_eq!((code, seen.as_slice()), (0, b"on\n".as_slice()));
        let spent = busy() - before;
        assert!(spent < Duration::from_millis(150), "spins: {spent:?}");
    }

    /// The processor time of this thread.
    fn busy() -> Duration {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
        let time = usage.user_time() + usage.system_time();
        Duration::from_micros((time.tv_sec() * 1_000_000 + time.tv_usec()) as u64)
    }

    #[test]
    fn the_exit_code_tells_of_every_signal() {
        let code = |script: &str| run(script, closed_input(), Duration::ZERO).0;
        assert_eq!(code("exit 0"), 0);
        assert_eq!(code("exit 255"), 255);
        assert_eq!(code("kill -KILL $$"), 137);
        assert_eq!(code("kill -37 $$"), 165);
    }

    #[test]
    fn the_output_of_a_container_that_nobody_reads_is_dropped() {
        let (signals, _) = block_signals().unwrap();
        let container = pty();
        let (seen, output) = pipe();
        drop(seen);
        let terminal = Terminal::connect(container.master, closed_input(), output).unwrap();
        let pidfd = spawn_on(container.slave, "head -c 300000 /dev/zero; exit 6");
        assert_eq!(
            wait(pidfd.as_fd(), Some(terminal), None, &signals).unwrap(),
            6
        );
    }

    #[test]
    fn signals_go_to_init() {
        let (signals, _) = block_signals().unwrap();
        let (ready, tell) = pipe();
        let script = "trap 'exit 1' URG WINCH; trap 'exit 9' PWR; trap '' TERM
            echo; while :; do sleep 0.01; done";
        let mut command = Command::new("sh");
        let pidfd = spawn(command.args(["-c", script]).stdout(tell));
        File::from(ready).read_exact(&mut [0]).unwrap();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGWINCH,
            Signal::SIGURG,
            Signal::SIGPWR,
        ] {
            raise(signal).unwrap();
        }
        assert_eq!(wait(pidfd.as_fd(), None, None, &signals).unwrap(), 9);
    }

    #[test]
    fn the_users_terminal_is_raw_while_it_is_connected() {
        let user = apart(openpty(None, None).unwrap());
        let local = || tcgetattr(&user.slave).unwrap().local_flags;
        let before = local();
        assert!(before.contains(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
        let side = || user.slave.try_clone().unwrap();
        let terminal = Terminal::connect(pty().master, side(), side()).unwrap();
        assert!(!local().intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG));
        drop(terminal);
        assert_eq!(local(), before);
    }

    #[test]
    fn the_container_has_the_users_window() {
        let (signals, _) = block_signals().unwrap();
        let (user, container) = (apart(openpty(None, None).unwrap()), pty());
        let size = |rows| Winsize {
            ws_row: rows,
            ws_col: 99,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tty::set_window_size(&user.master, size(33)).unwrap();
        let side = || user.slave.try_clone().unwrap();
        let terminal = Terminal::connect(container.master, side(), side()).unwrap();
        let rows = |side: &OwnedFd| tty::window_size(side).unwrap().ws_row;
        assert_eq!(rows(&container.slave), 33);

        let script = "while [ $(stty size | cut -c1-2) != 44 ]; do :; done";
        let pidfd = spawn_on(container.slave, script);
        tty::set_window_size(&user.master, size(44)).unwrap();
        raise(Signal::SIGWINCH).unwrap();
        assert_eq!(
            wait(pidfd.as_fd(), Some(terminal), None, &signals).unwrap(),
            0
        );
    }

    #[test]
    fn without_a_window_the_size_of_the_spec_stays() {
        let container = pty();
        let size = Winsize {
            ws_row: 7,
            ws_col: 8,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tty::set_window_size(&container.slave, size).unwrap();
        let (input, output) = pipe();
        let _terminal = Terminal::connect(container.master, input, output).unwrap();
        assert_eq!(tty::window_size(&container.slave).unwrap().ws_row, 7);
    }
}
