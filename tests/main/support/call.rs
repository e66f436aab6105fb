//! One call of the runtime: its stdio are files, as a container keeps them open after `create`.

use super::host::{in_time, is_pure_v2, wait_until};
use super::refused::{self, answer};
use super::skip::{Runtime, binary, runtime};
use std::ffi::{CStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub struct Call {
    args: Vec<OsString>,
    program: PathBuf,
    base: PathBuf,
    env: Vec<(String, String)>,
    stdin: Stdio,
    fds: Vec<(OwnedFd, RawFd)>,
    setup: Option<fn() -> io::Result<()>>,
    cwd: PathBuf,
    terminal: Option<OwnedFd>,
    user: Option<u32>,
    refused: Option<(libc::c_long, i32)>,
}

impl Call {
    pub fn new(dir: &Path, args: Vec<impl Into<OsString>>) -> Call {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        Call {
            refused: refused::to_this(&args),
            args,
            program: binary(),
            base: dir.join(format!("call-{}", COUNT.fetch_add(1, Ordering::Relaxed))),
            env: vec![(
                "PATH".into(),
                "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            )],
            stdin: Stdio::null(),
            fds: vec![],
            setup: None,
            cwd: dir.into(),
            terminal: None,
            user: None,
        }
    }

    /// Calls as this ordinary user, who can do nothing but with the own files.
    pub fn by_user(mut self, id: u32) -> Call {
        self.user = Some(id);
        self
    }

    /// Has the kernel refuse this call with this errno, to the runtime and to all that it starts.
    pub fn without(mut self, number: libc::c_long, errno: i32) -> Call {
        self.refused = Some((number, errno));
        self
    }

    pub fn stdin(mut self, text: &str) -> Call {
        let path = self.base.with_extension("in");
        fs::write(&path, text).expect("write stdin");
        self.stdin = File::open(path).expect("open stdin").into();
        self
    }

    /// A terminal as stdin, stdout, stderr and controlling terminal.
    pub fn on_terminal(mut self, terminal: OwnedFd) -> Call {
        self.terminal = Some(terminal);
        self.setup(|| {
            // SAFETY: plain calls; stdin is the terminal by now.
            let (session, terminal) =
                unsafe { (libc::setsid(), libc::ioctl(0, libc::TIOCSCTTY, 0)) };
            check(session.min(terminal))
        })
    }

    pub fn env(mut self, name: &str, value: &str) -> Call {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Exactly these variables.
    pub fn only_env(mut self, variables: Vec<(String, String)>) -> Call {
        self.env = variables;
        self
    }

    pub fn cwd(mut self, dir: &Path) -> Call {
        self.cwd = dir.into();
        self
    }

    pub fn program(mut self, path: &Path) -> Call {
        self.program = path.into();
        self
    }

    /// Runs a shell that ends with `exec "$0" "$@"`: for what depends on the runtime's own pid.
    pub fn through_shell(mut self, script: &str) -> Call {
        let runtime = std::mem::replace(&mut self.program, "/bin/sh".into());
        let shell = ["-c".into(), script.into(), runtime.into()];
        self.args.splice(0..0, shell);
        self
    }

    /// Lets the runtime inherit this file under this number.
    pub fn fd(mut self, fd: impl Into<OwnedFd>, number: RawFd) -> Call {
        let fd: OwnedFd = fd.into();
        // SAFETY: duplicates an open descriptor to a high number, so that none is in another's way.
        let high = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100) };
        // SAFETY: the new descriptor belongs to nobody else.
        self.fds
            .push((unsafe { OwnedFd::from_raw_fd(high) }, number));
        self
    }

    /// Runs in the runtime's process just before it is executed: only plain system calls.
    pub fn setup(mut self, setup: fn() -> io::Result<()>) -> Call {
        self.setup = Some(setup);
        self
    }

    pub fn finish(self) -> Output {
        let mut running = self.spawn();
        let mut status = None;
        let (name, pid) = (running.name(), running.child.id());
        in_time(PROMPT, || {
            wait_until(&format!("{name} (process {pid}) ends"), || {
                status = running.child.try_wait().expect("wait");
                status.is_some()
            })
        });
        running.output(status.expect("a status"))
    }

    pub fn spawn(self) -> Running {
        self.try_spawn().expect("start the runtime")
    }

    pub fn try_spawn(self) -> io::Result<Running> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env)
            .current_dir(&self.cwd);
        let file = |end: &str| File::create(self.base.with_extension(end)).expect("make a file");
        command
            .stdin(self.stdin)
            .stdout(file("out"))
            .stderr(file("err"));
        if let Some(terminal) = &self.terminal {
            let copy = || terminal.try_clone().expect("duplicate the terminal");
            command.stdin(copy()).stdout(copy()).stderr(copy());
        }
        let private = runtime() != Runtime::Cofferdam && !is_pure_v2();
        let (fds, setup, user, refused) = (self.fds, self.setup, self.user, self.refused);
        // SAFETY: between fork and exec only system calls on memory that exists already.
        unsafe {
            command.pre_exec(move || {
                // What shells start in the background ignores some; that is not to be the tests' affair.
                for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                    libc::signal(signal, libc::SIG_DFL);
                }
                if private {
                    unified_view()?;
                }
                for (fd, number) in &fds {
                    give(fd.as_raw_fd(), *number)?;
                }
                setup.map_or(Ok(()), |setup| setup())?;
                refused.map_or(Ok(()), |(number, errno)| answer(number, errno))?;
                user.map_or(Ok(()), become_user)
            });
        }
        let child = command.spawn()?;
        Ok(Running {
            child,
            args: self.args,
            base: self.base,
        })
    }
}

/// No command of the runtime takes longer on a machine that is not busy.
const PROMPT: Duration = Duration::from_secs(10);

pub struct Running {
    pub child: Child,
    args: Vec<OsString>,
    base: PathBuf,
}

impl Running {
    pub fn wait(mut self) -> Output {
        let mut status = None;
        in_time(PROMPT, || {
            wait_until(&format!("{} ends", self.name()), || {
                status = self.child.try_wait().expect("wait");
                status.is_some()
            })
        });
        self.output(status.expect("a status"))
    }

    /// What has been printed so far.
    pub fn stdout(&self) -> String {
        read(&self.base.with_extension("out"))
    }

    fn name(&self) -> String {
        self.args
            .iter()
            .map(|a| a.to_string_lossy())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// For one that has been waited for.
    pub fn output(&self, status: ExitStatus) -> Output {
        Output {
            name: self.name(),
            status,
            base: self.base.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

pub struct Output {
    name: String,
    status: ExitStatus,
    base: PathBuf,
}

impl Output {
    /// The exit code; 1000 and more is a signal, which no runtime may die of.
    pub fn code(&self) -> i32 {
        self.status
            .code()
            .unwrap_or_else(|| 1000 + self.status.signal().unwrap_or(0))
    }

    pub fn stdout(&self) -> String {
        read(&self.base.with_extension("out"))
    }

    pub fn stderr(&self) -> String {
        read(&self.base.with_extension("err"))
    }

    pub fn ok(self) -> Output {
        self.exits(0)
    }

    pub fn exits(self, code: i32) -> Output {
        if self.code() != code {
            refused::may_end(self.code(), &self.stderr());
        }
        assert_eq!(self.code(), code, "exit code of {}", self.describe());
        self
    }

    /// Ended by an error of the runtime: code 1 and a message.
    pub fn fails(self) -> Output {
        let code = self.code();
        assert!(
            (1..=255).contains(&code),
            "should fail: {}",
            self.describe()
        );
        assert!(
            !self.stderr().trim().is_empty(),
            "fails without a word: {}",
            self.describe()
        );
        self
    }

    /// Fails with these words. crun has its own words for everything, so there only failure counts.
    pub fn fails_with(self, text: &str) -> Output {
        let output = self.fails();
        let other = runtime() == Runtime::Crun || refused::everywhere().is_some();
        let said = other || output.stderr().replace("\\\"", "\"").contains(text);
        assert!(said, "should say `{text}`: {}", output.describe());
        output
    }

    /// Fails with words that only this runtime promises.
    pub fn fails_naming(self, text: &str) -> Output {
        let output = self.fails();
        let other = runtime() != Runtime::Cofferdam || refused::everywhere().is_some();
        let said = other || output.stderr().replace("\\\"", "\"").contains(text);
        assert!(said, "should say `{text}`: {}", output.describe());
        output
    }

    /// Says so besides, whether it has failed or not.
    pub fn says(self, text: &str) -> Output {
        let said = self.stderr().contains(text);
        assert!(said, "should say `{text}`: {}", self.describe());
        self
    }

    pub fn silent(self) -> Output {
        assert_eq!(self.stderr(), "", "stderr of {}", self.describe());
        self
    }

    /// The payload's answer to a command, once it is there.
    pub fn answer(&self, command: &str) -> String {
        let prefix = format!("{command} => ");
        let find = || {
            self.stdout()
                .lines()
                .find_map(|l| l.strip_prefix(&prefix).map(String::from))
        };
        if find().is_none() {
            refused::may_end(self.code(), &self.stderr());
        }
        find().unwrap_or_else(|| panic!("no answer to `{command}`: {}", self.describe()))
    }

    pub fn report(&self) -> serde_json::Value {
        serde_json::from_str(&self.answer("report")).expect("the report is JSON")
    }

    /// Waits for a whole line on stdout, of a container that runs on.
    pub fn wait_for(&self, text: &str) {
        wait_until(&format!("{} prints {text}", self.name), || {
            let stdout = self.stdout();
            let found = stdout.find(text);
            found.is_some_and(|at| stdout[at..].contains('\n'))
        });
    }

    pub fn describe(&self) -> String {
        let (name, code) = (&self.name, self.code());
        let stdout: String = self.stdout().chars().take(400).collect();
        format!(
            "{name}: code {code}\nstdout: {stdout}\nstderr: {}",
            self.stderr()
        )
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Puts a file at a number, without close-on-exec.
fn give(fd: RawFd, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 and fcntl on a descriptor that the caller owns.
    let result = unsafe {
        if fd == number {
            libc::fcntl(fd, libc::F_SETFD, 0)
        } else {
            libc::dup2(fd, number)
        }
    };
    check(result)
}

/// For good.
pub fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: plain calls that touch no memory of ours.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(id, id, id))?;
        check(libc::setresuid(id, id, id))
    }
}

/// The other runtimes want a host with nothing but cgroup v2: a private view that looks like one.
fn unified_view() -> io::Result<()> {
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, true)?;
    mount(c"none", c"/sys/fs/cgroup", c"cgroup2", 0, false)
}

/// A private copy of the host's mounts.
pub fn private_mounts() -> io::Result<()> {
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, true)
}

/// A private /run with nothing in it.
pub fn private_run() -> io::Result<()> {
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, true)?;
    mount(c"none", c"/run", c"tmpfs", 0, false)
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, unshare: bool) -> io::Result<()> {
    // SAFETY: the strings are static; unshare and mount touch no memory of ours.
    unsafe {
        if unshare {
            check(libc::unshare(libc::CLONE_NEWNS))?;
        }
        check(libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags,
            std::ptr::null(),
        ))
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
