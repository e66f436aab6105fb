//! Runs a config on one runtime, and collects all that can be seen of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

use crate::world::{self, BUNDLE, Program, State, WORK};

const DEADLINE: Duration = Duration::from_secs(10);
/// The time in which the processes of a container must end after the runtime.
const GRACE: Duration = Duration::from_millis(500);

/// One value for each thing that was looked at, by name.
pub type Seen = BTreeMap<String, String>;

pub struct Observed {
    pub seen: Seen,
    /// The last line that the runtime has printed.
    pub words: String,
    pub took: Duration,
}

pub struct Observer {
    first: State,
    own_namespaces: BTreeMap<String, String>,
    joined: BTreeMap<String, String>,
}

impl Observer {
    pub fn new() -> Result<Observer> {
        let names = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
        let link = |name: &str| {
            fs::read_link(format!("/proc/self/ns/{name}")).map(|to| to.display().to_string())
        };
        let own = names
            .iter()
            .filter_map(|name| Some((link(name).ok()?, name.to_string())));
        let mut joined = BTreeMap::new();
        for name in ["net", "ipc", "uts", "cgroup"] {
            use std::os::unix::fs::MetadataExt;
            let meta = fs::metadata(format!("{WORK}/s/ns/{name}"))?;
            joined.insert(format!("{name}:[{}]", meta.ino()), name.to_string());
        }
        Ok(Observer {
            first: State::take()?,
            own_namespaces: own.collect(),
            joined,
        })
    }

    pub fn observe(&self, program: &Program, config: &Value) -> Result<Observed> {
        world::reset_bundle(config)?;
        let state = format!("{WORK}/state-{}", program.name);
        let mut child = start(program, &state)?;
        let begin = Instant::now();
        let status = wait(&mut child)?;
        let took = begin.elapsed();
        let mut seen = Seen::new();
        let read = |name: &str| fs::read(Path::new(BUNDLE).join(name)).unwrap_or_default();
        let stdout = String::from_utf8_lossy(&read("stdout")).into_owned();
        outcome(&mut seen, status, &stdout);
        if seen["outcome"] == "ran" {
            let report = serde_json::from_str(stdout.trim()).unwrap_or(Value::String(stdout));
            self.flatten("", &report, &mut seen);
            self.hooks(&mut seen);
        } else if !stdout.is_empty() {
            seen.insert("stdout".into(), stdout);
        }
        self.leftovers(&mut seen, &state)?;
        let stderr = String::from_utf8_lossy(&read("stderr")).into_owned();
        let words = stderr.lines().last().unwrap_or_default().to_string();
        Ok(Observed { seen, words, took })
    }

    /// Names each leaf of a JSON value by the way to it. Numbers of the kernel become words.
    fn flatten(&self, name: &str, value: &Value, seen: &mut Seen) {
        let below = |key: &str| {
            if name.is_empty() {
                key.to_string()
            } else {
                format!("{name}/{key}")
            }
        };
        match value {
            Value::Object(fields) => fields
                .iter()
                .for_each(|(key, value)| self.flatten(&below(key), value, seen)),
            Value::Array(items) if items.iter().any(Value::is_object) => {
                let items = items.iter().enumerate();
                items.for_each(|(n, value)| self.flatten(&below(&n.to_string()), value, seen));
            }
            Value::Null => {}
            Value::String(text) => drop(seen.insert(name.into(), self.word(name, text))),
            other => drop(seen.insert(name.into(), self.word(name, &other.to_string()))),
        }
    }

    fn word(&self, name: &str, text: &str) -> String {
        if name.contains("namespaces/") {
            let known = |map: &BTreeMap<String, String>| map.contains_key(text);
            let words = [
                (known(&self.own_namespaces), "of the host"),
                (known(&self.joined), "the joined one"),
            ];
            let found = words
                .iter()
                .find(|(known, _)| *known)
                .map(|(_, word)| *word);
            return found
                .unwrap_or(if text.contains(":[") { "new" } else { text })
                .into();
        }
        let number: Option<i64> = text.parse().ok();
        let numbered = [
            "process/pid",
            "process/parent",
            "process/session",
            "process/group",
            "state/pid",
        ];
        match number {
            _ if name.ends_with("state/created") => "a time".into(),
            Some(number) if number > 1 && numbered.iter().any(|end| name.ends_with(end)) => {
                "a number".into()
            }
            _ => text.to_string(),
        }
    }

    fn hooks(&self, seen: &mut Seen) {
        for place in ["hooks", "rootfs/hooks"] {
            let log = fs::read_to_string(Path::new(BUNDLE).join(place)).unwrap_or_default();
            for (number, line) in log.lines().enumerate() {
                let line = serde_json::from_str(line).unwrap_or(Value::String(line.into()));
                let kind = line["args"][3].as_str().unwrap_or("hook").to_string();
                self.flatten(&format!("{place}/{number}-{kind}"), &line, seen);
            }
        }
    }

    /// Notes all that the runtime has left behind, and removes it.
    fn leftovers(&self, seen: &mut Seen, state: &str) -> Result<()> {
        let end = Instant::now() + GRACE;
        let mut left = others();
        while !left.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
            left = others();
        }
        let mut note =
            |name: String, value: &str| drop(seen.insert(format!("left/{name}"), value.into()));
        for process in &left {
            note(format!("process {process}"), "lives");
        }
        while !others().is_empty() {
            kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
        }
        for entry in fs::read_dir(state).into_iter().flatten().flatten() {
            note(format!("record {}", entry.file_name().display()), "exists");
        }
        fs::remove_dir_all(state).ok();
        let now = State::take()?;
        if now != self.first {
            for change in self.first.changes(&now) {
                note(change, "exists");
            }
            world::restore(&self.first, &now)?;
            let again = State::take()?;
            let changes = self.first.changes(&again);
            anyhow::ensure!(
                changes.is_empty(),
                "this cannot be removed: {}",
                changes.join("; ")
            );
        }
        Ok(())
    }
}

fn start(program: &Program, state: &str) -> Result<Child> {
    let file = |name: &str| {
        File::options()
            .write(true)
            .open(Path::new(BUNDLE).join(name))
    };
    let mut command = Command::new(&program.path);
    command.args(["--root", state, "run", "--bundle", BUNDLE, "c"]);
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir(WORK);
    command
        .stdin(File::open(Path::new(BUNDLE).join("stdin"))?)
        .stdout(file("stdout")?)
        .stderr(file("stderr")?);
    command
        .spawn()
        .with_context(|| program.path.display().to_string())
}

/// Waits for the runtime; None after the deadline.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            kill(Pid::from_raw(-1), Signal::SIGKILL).ok();
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_micros(400));
    }
}

/// Classifies the end of the runtime. A report shows that the program ran; without one the exit status tells.
fn outcome(seen: &mut Seen, status: Option<ExitStatus>, stdout: &str) {
    let Some(status) = status else {
        seen.insert("outcome".into(), "hangs".into());
        return;
    };
    let text = match (status.code(), status.signal()) {
        _ if !stdout.is_empty() => "ran".into(),
        (Some(0), _) => "silent".to_string(),
        (Some(code), _) if code > 128 => format!("died with {code}"),
        (Some(_), _) => "refused".into(),
        (None, signal) => format!("runtime died of signal {}", signal.unwrap_or(0)),
    };
    if text == "ran" {
        seen.insert(
            "exit".into(),
            status
                .code()
                .map_or("signal".into(), |code| code.to_string()),
        );
    }
    seen.insert("outcome".into(), text);
}

/// Reaps what has ended, and returns the names of all other processes of this pid namespace.
fn others() -> Vec<String> {
    while !matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::StillAlive) | Err(_)
    ) {}
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = numbers.filter(|number| *number != std::process::id());
    others
        .filter_map(|number| {
            let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
            let name = stat.split(['(', ')']).nth(1)?;
            Some(name.to_string())
        })
        .collect()
}
