//! The programs that are measured, and how each operation is said to them. The floor is one of them, and has their
//! command line; what it does in a process that runs already is told to its standard input.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench_sys::Usage;
use nix::unistd::Pid;

pub const OPERATIONS: [&str; 9] = [
    "run",
    "create",
    "start",
    "exec",
    "state",
    "kill",
    "delete",
    "delete --force",
    "list",
];
pub const FLOOR: &str = "floor";
pub const IN_PROCESS: &str = "floor in-process";

pub struct Runtime {
    pub name: String,
    pub path: PathBuf,
    pub state: PathBuf,
    server: Option<RefCell<Server>>,
    log: PathBuf,
}

struct Server {
    child: Child,
    answers: BufReader<ChildStderr>,
}

/// One measured operation. In a process that runs already, CPU and faults are not told apart.
#[derive(Clone, Copy, Default)]
pub struct Sample {
    pub wall_ns: u64,
    pub cpu_ns: u64,
    pub faults: u64,
}

impl Runtime {
    pub fn new(name: &str, path: &Path, work: &Path) -> Result<Runtime> {
        let short = name.replace(' ', "-");
        let state = work.join("state").join(&short);
        fs::create_dir_all(&state)?;
        let log = work.join(format!("{short}.log"));
        let mut server = None;
        if name == IN_PROCESS {
            let mut child = Command::new(path)
                .arg("serve")
                .env_clear()
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            let answers = BufReader::new(child.stderr.take().context("no answers")?);
            server = Some(RefCell::new(Server { child, answers }));
        }
        let (name, path) = (name.to_string(), path.to_path_buf());
        Ok(Runtime {
            name,
            path,
            state,
            server,
            log,
        })
    }

    pub fn is_floor(&self) -> bool {
        self.name == FLOOR || self.name == IN_PROCESS
    }

    pub fn in_process(&self) -> bool {
        self.server.is_some()
    }

    /// Performs an operation and says what it took. The command line is made before the clock starts.
    pub fn perform(&self, operation: &str, bundle: &Path, id: &str) -> Result<Sample> {
        let words = self.words(operation, bundle, id);
        match &self.server {
            Some(server) => ask(&mut server.borrow_mut(), &words),
            None => measured(&mut self.command(&words)?),
        }
        .with_context(|| format!("{} {operation} {id}: {}", self.name, self.last_words()))
    }

    pub fn command(&self, words: &[String]) -> Result<Command> {
        let mut command = Command::new(&self.path);
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command.args(words).env_clear().env("PATH", path);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&self.log)?);
        Ok(command)
    }

    pub fn words(&self, operation: &str, bundle: &Path, id: &str) -> Vec<String> {
        let state = self.state.to_string_lossy();
        let bundle = bundle.to_string_lossy();
        let rest: Vec<&str> = match operation {
            "run" | "create" => vec![operation, "--bundle", &bundle, id],
            "exec" => vec!["exec", id, "/true"],
            "kill" => vec!["kill", id, "KILL"],
            "delete --force" => vec!["delete", "--force", id],
            "list" => vec!["list"],
            _ => vec![operation, id],
        };
        let words = ["--root", &state].into_iter().chain(rest);
        words.map(str::to_string).collect()
    }

    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().last().unwrap_or_default().to_string()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            let child = &mut server.borrow_mut().child;
            child.stdin.take();
            child.wait().ok();
        }
    }
}

fn ask(server: &mut Server, words: &[String]) -> Result<Sample> {
    let input = server.child.stdin.as_mut().context("the floor has ended")?;
    writeln!(input, "{}", words.join(" "))?;
    let mut answer = String::new();
    server.answers.read_line(&mut answer)?;
    let wall_ns = answer.trim().parse().with_context(|| answer.clone())?;
    Ok(Sample {
        wall_ns,
        ..Sample::default()
    })
}

/// From before the spawn (a posix_spawn, which copies no memory) until the kernel has given the status.
pub fn measured(command: &mut Command) -> Result<Sample> {
    let start = Instant::now();
    let child = command.spawn()?;
    let usage = wait_for(Pid::from_raw(child.id() as i32))?;
    let wall = start.elapsed();
    let (cpu_ns, faults) = (usage.cpu_ns, usage.faults);
    Ok(Sample {
        wall_ns: wall.as_nanos() as u64,
        cpu_ns,
        faults,
    })
}

/// Others that end meanwhile are processes of containers, which come to this process as to an engine's shim.
pub fn wait_for(pid: Pid) -> Result<Usage> {
    loop {
        let ended = bench_sys::wait4(None, 0)?.context("no child")?;
        if ended.pid == pid && ended.status == 0 {
            return Ok(ended.usage);
        }
        if ended.pid == pid {
            bail!("status {:#x}", ended.status);
        }
    }
}

/// Takes in all that has ended, without waiting.
pub fn reap() {
    while let Ok(Some(_)) = bench_sys::wait4(None, libc::WNOHANG) {}
}

/// The first process of a container, found as the kernel knows it.
pub fn init_of(cgroup: &str) -> Result<Pid> {
    let path = format!("/sys/fs/cgroup{cgroup}/cgroup.procs");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let first = text
        .lines()
        .next()
        .with_context(|| format!("{path}: nobody"))?;
    Ok(Pid::from_raw(first.parse()?))
}

/// The CPU time of a process that has not ended.
pub fn cpu_of(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

pub fn wait_until_dead(pid: Pid) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        if stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
        {
            break;
        }
        if Instant::now() > deadline {
            bail!("{pid} does not end");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    reap();
    Ok(())
}
