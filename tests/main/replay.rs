//! Calls of engines in their order: recorded ones, word for word but for paths and names, and those that are
//! known of CRI-O, conmon-rs and BuildKit. What each engine expects of an answer is asserted after each call.

use crate::captures::{stand_in, take_out};
use crate::samples::{limit_to_host, parse, repository, say_without};
use crate::support::terminal::{listen, receive};
use crate::support::{Bundle, Call, Output, has_controller, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

macro_rules! replay {
    ($name:ident, $folder:literal) => {
        #[test]
        fn $name() {
            // Leaves where the test does not apply.
            drop(bundle!());
            Replay::of($folder).play(|| Bundle::new(stringify!($name)));
        }
    };
}

replay!(docker_with_its_containerd, "docker");
replay!(docker_with_remapped_users, "docker-cgroupfs");
replay!(containerd_by_ctr, "ctr");
replay!(podman_with_conmon, "podman");
replay!(podman_without_root, "podman-rootless");
replay!(buildah, "buildah");

struct Replay {
    folder: PathBuf,
    /// Names of the recorded calls, such as `003-create`, in order.
    calls: Vec<String>,
}

/// One recorded call.
struct Recorded {
    verb: String,
    words: Vec<String>,
    env: Vec<(String, String)>,
    id: String,
}

impl Replay {
    fn of(folder: &str) -> Replay {
        let folder = repository("tests/data/captures").join(folder);
        let entries = fs::read_dir(&folder).expect("read").flatten();
        let names = entries.map(|entry| entry.file_name().into_string().expect("a name"));
        let calls = names.filter_map(|name| Some(name.strip_suffix(".argv")?.to_string()));
        let mut calls: Vec<String> = calls.collect();
        calls.sort();
        assert!(calls.len() > 3, "{folder:?}");
        Replay { folder, calls }
    }

    fn play(&self, bundle: impl Fn() -> Bundle) {
        let mut containers: BTreeMap<String, Bundle> = BTreeMap::new();
        // An engine holds them: a terminal that is closed ends who uses it.
        let mut terminals = vec![];
        for (index, name) in self.calls.iter().enumerate() {
            let call = self.recorded(name);
            // Shown if it fails.
            println!("{}/{name}: {}", self.folder.display(), call.words.join(" "));
            if call.verb == "create" {
                let lives = self.calls[index + 1..]
                    .iter()
                    .map(|name| self.recorded(name));
                let lives = lives
                    .filter(|later| later.id == call.id)
                    .any(|later| later.verb == "exec");
                let config = self.folder.join(format!("{name}.config.json"));
                containers.insert(call.id.clone(), container(bundle(), &config, lives));
            }
            match containers.get(&call.id) {
                Some(c) => terminals.extend(self.step(name, &call, c)),
                None => check_features(&bundle(), &call),
            }
        }
    }

    fn recorded(&self, name: &str) -> Recorded {
        let text = fs::read_to_string(self.folder.join(format!("{name}.argv"))).expect("argv");
        assert!(!text.contains(['\'', '"', '\\']), "{name}: quoted words");
        let words: Vec<String> = text.split_whitespace().skip(1).map(String::from).collect();
        let env = fs::read_to_string(self.folder.join(format!("{name}.env"))).expect("env");
        let variables = env.lines().filter_map(|line| line.split_once('='));
        Recorded {
            verb: name.split_once('-').expect("a verb").1.to_string(),
            id: words
                .iter()
                .rfind(|word| !is_signal(word))
                .expect("words")
                .clone(),
            env: variables
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            words,
        }
    }

    /// Gives the terminal that came.
    fn step(&self, name: &str, call: &Recorded, c: &Bundle) -> Vec<OwnedFd> {
        for (kind, place) in [
            ("process", c.path("process.json")),
            ("resources", c.path("resources.json")),
        ] {
            let file = self.folder.join(format!("{name}.{kind}.json"));
            if file.exists() {
                fs::write(place, stand_in_of(kind, parse(&file), c).to_string()).expect("write");
            }
        }
        if call.verb == "delete" && !call.words.contains(&"--force".into()) {
            end(c);
        }
        let console = call.words.iter().any(|word| word == "--console-socket");
        let _ = fs::remove_file(c.path("pty.sock"));
        let listener = console.then(|| listen(Path::new(&c.path("pty.sock"))));
        c.write_config();
        let before = log(c);
        let output = with_env(c.call(&here(call, c)), call, c).finish();
        if name == "021-create" {
            check_missing_command(c, &output);
            return vec![];
        }
        let output = output.ok().silent();
        let terminals = listener.map_or(vec![], |listener| receive(&listener).files);
        assert_eq!(terminals.len(), usize::from(console));
        assert_eq!(log(c), before, "the log of a success");
        check(&call.verb, &call.words, &output, c);
        terminals
    }
}

fn is_signal(word: &str) -> bool {
    word.len() < 3 && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The recorded config, for a payload that waits where later calls need it alive.
fn container(c: Bundle, config: &Path, lives: bool) -> Bundle {
    let terminal = parse(config)["process"]["terminal"] == true;
    let missing = parse(config)["process"]["args"] == json!(["/nonexistent"]);
    let c = stand_in(c, config).set("/process/terminal", json!(terminal));
    match (missing, lives) {
        (true, _) => c,
        (_, true) => c.asks(&["pause"]),
        _ => c.asks(&["report"]),
    }
}

/// A recorded file with what this host can give, and with a program that the stand-in has.
fn stand_in_of(kind: &str, mut value: Value, c: &Bundle) -> Value {
    if kind == "resources" {
        let mut spec = json!({"linux": {"resources": value}});
        say_without(&c.id, &limit_to_host(&mut spec));
        return spec["linux"]["resources"].take();
    }
    value["args"] = json!(["/payload", "report"]);
    let mut spec = json!({"process": value, "linux": {}});
    say_without(&c.id, &take_out(&mut spec));
    spec["process"].take()
}

/// The words with the paths and the name of this test. Who makes the cgroups depends on the host, not on
/// the engine: here it is the runtime.
fn here<'a>(Recorded { words, id, .. }: &'a Recorded, c: &'a Bundle) -> Vec<&'a str> {
    let place = |flag: &str| match flag {
        "--root" => Some(c.state_root().display().to_string()),
        "--log" => Some(c.path("log")),
        "--bundle" => Some(c.dir.display().to_string()),
        "--pid-file" => Some(c.path("pid")),
        "--process" => Some(c.path("process.json")),
        "--console-socket" => Some(c.path("pty.sock")),
        _ => None,
    };
    let mut words = words.iter().filter(|word| *word != "--systemd-cgroup");
    let mut result: Vec<String> = vec![];
    while let Some(word) = words.next() {
        if let Some(value) = place(word) {
            words.next();
            result.extend([word.clone(), value]);
        } else if word.starts_with("--resources=/") {
            result.push(format!("--resources={}", c.path("resources.json")));
        } else {
            result.push(word.replace(id, &c.id));
        }
    }
    // The bundle lives as long as the test.
    result.into_iter().map(|word| &*word.leak()).collect()
}

fn with_env(call: Call, recorded: &Recorded, c: &Bundle) -> Call {
    let call = call.only_env(recorded.env.clone());
    match recorded.words.iter().any(|word| word == "--resources=-") {
        true => call.stdin(&fs::read_to_string(c.path("resources.json")).expect("resources")),
        false => call,
    }
}

/// Ends what the engine has waited for.
fn end(c: &Bundle) {
    if c.status() == "running" {
        let ended_by_itself = c.spec["process"]["args"][1] == "report";
        if !ended_by_itself {
            c.kill("KILL").ok();
        }
    }
    if c.status() != "created" {
        c.wait_stopped();
    }
}

/// What the engines' parsers rely on.
fn check(verb: &str, words: &[String], output: &Output, c: &Bundle) {
    match verb {
        "create" => {
            check_pid_file(c);
            assert_eq!(c.status(), "created");
        }
        "exec" => {
            check_pid_file(c);
            if !words.iter().any(|word| word == "--console-socket") {
                output.wait_for("report => ");
            }
        }
        "pause" => assert_eq!(c.status(), "paused"),
        "resume" => assert_eq!(c.status(), "running"),
        "ps" => {
            let pids: Vec<i32> = serde_json::from_str(&output.stdout()).expect("a JSON array");
            assert!(pids.contains(&c.pid()), "{pids:?}");
        }
        "state" => {
            let state: Value = serde_json::from_str(&output.stdout()).expect("a JSON object");
            let known = ["creating", "created", "running", "stopped"];
            assert!(known.contains(&state["status"].as_str().expect("a status")));
        }
        "update" => check_limits(c),
        "delete" => c.assert_gone(),
        _ => {}
    }
}

fn log(c: &Bundle) -> String {
    fs::read_to_string(c.path("log")).unwrap_or_default()
}

/// Read as a whole and without trimming.
fn check_pid_file(c: &Bundle) {
    let text = fs::read_to_string(c.path("pid")).expect("a pid file");
    let pid: u32 = text.parse().expect("a number and nothing else");
    assert!(pid > 1);
    fs::remove_file(c.path("pid")).expect("remove the pid file");
}

fn check_limits(c: &Bundle) {
    let limits = parse(Path::new(&c.path("resources.json")));
    for (key, file) in [("memory", "memory.max"), ("pids", "pids.max")] {
        if let (true, Some(limit)) = (has_controller(key), limits[key]["limit"].as_i64()) {
            let text = fs::read_to_string(c.cgroup().join(file)).expect(file);
            assert_eq!(text.trim(), limit.to_string(), "{file}");
        }
    }
}

/// containerd takes the last object with level error; Docker makes exit status 127 of these words.
fn check_missing_command(c: &Bundle, output: &Output) {
    assert_eq!(output.code(), 1, "{}", output.describe());
    let lines: Vec<Value> = log(c)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let error = lines
        .iter()
        .rfind(|line| line["level"] == "error")
        .expect("an error");
    let message = error["msg"].as_str().expect("a text").to_lowercase();
    assert!(message.contains("no such file or directory"), "{message}");
    assert!(!message.contains("permission denied") && !message.contains("is a directory"));
    assert!(!Path::new(&c.path("pid")).exists());
    c.assert_gone();
}

fn check_features(c: &Bundle, call: &Recorded) {
    assert_eq!(call.verb, "features", "{}", call.id);
    let words: Vec<&str> = call.words.iter().map(String::as_str).collect();
    let output = c
        .call(&words)
        .only_env(call.env.clone())
        .finish()
        .ok()
        .silent();
    let features: Value = serde_json::from_str(&output.stdout()).expect("one JSON object");
    assert!(features["ociVersionMin"].is_string() && features["ociVersionMax"].is_string());
}

/// Calls that are known from the engines' sources: each line is the words after the program; a capital
/// word stands for a place or a name of the test, `= N` before it for the exit code.
fn follow(c: &Bundle, script: &str) -> Vec<Output> {
    let mut outputs = vec![];
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        println!("{line}");
        let (code, line) = match line.strip_prefix("= ") {
            Some(rest) => rest.split_once(' ').expect("words"),
            None => ("0", line),
        };
        let words: Vec<String> = line.split(' ').map(|word| placed(word, c)).collect();
        c.write_config();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let call = c.call(&words).only_env(vec![(
            "PATH".into(),
            "/usr/sbin:/usr/bin:/sbin:/bin".into(),
        )]);
        let call = match words.contains(&"-") {
            true => call.stdin("{}"),
            false => call,
        };
        outputs.push(call.finish().exits(code.parse().expect("a code")).silent());
    }
    outputs
}

fn placed(word: &str, c: &Bundle) -> String {
    [
        ("ROOT", c.state_root().display().to_string()),
        ("BUNDLE", c.dir.display().to_string()),
        ("PIDFILE", c.path("pid")),
        ("PROCESS", c.path("process.json")),
        ("LOG", c.path("log")),
        ("ID", c.id.clone()),
    ]
    .iter()
    .fold(word.to_string(), |word, (name, value)| {
        match word.split_once('=') {
            Some((flag, rest)) if rest == *name => format!("{flag}={value}"),
            _ if word == *name => value.clone(),
            _ => word,
        }
    })
}

fn process_file(c: &Bundle, command: &str) {
    let mut process = c.spec["process"].clone();
    let words: Vec<&str> = ["/payload"].into_iter().chain(command.split(' ')).collect();
    process["args"] = json!(words);
    fs::write(c.path("process.json"), process.to_string()).expect("write");
}

#[test]
fn cri_o() {
    let c = bundle!().asks(&["pause"]);
    process_file(&c, "exit 7");
    let outputs = follow(
        &c,
        "--version
         features
         --root=ROOT create --bundle BUNDLE --pid-file PIDFILE ID
         --root ROOT start ID
         --root ROOT state ID
         --root ROOT update --resources - ID
         --root ROOT pause ID
         --root ROOT resume ID
         = 7 --root ROOT exec --process PROCESS ID
         --root=ROOT exec --pid-file PIDFILE --process PROCESS --detach ID
         --root ROOT kill ID SIGCONT
         --root ROOT kill -a ID 9",
    );
    let state: Value = serde_json::from_str(&outputs[4].stdout()).expect("JSON");
    assert_eq!(state["status"], "running");
    c.wait_stopped();
    // `no such process`, `container not running` or `invalid process` tell CRI-O that it is gone.
    c.kill("KILL").fails_with("container not running");
    follow(
        &c,
        "--root ROOT delete --force ID\n--root ROOT delete --force ID",
    );
    c.assert_gone();
}

#[test]
fn conmon_rs() {
    let c = bundle!().asks(&["pause"]);
    follow(
        &c,
        "--root=ROOT --root=ROOT --log-format=json --log=LOG create --bundle BUNDLE --pid-file PIDFILE ID
         --root=ROOT start ID
         --root=ROOT --root=ROOT exec -d --pid-file=PIDFILE ID /payload pause
         --root=ROOT kill ID KILL",
    );
    c.wait_stopped();
    follow(&c, "--root=ROOT delete ID");
    c.assert_gone();
}

#[test]
fn buildkit() {
    let c = bundle!().asks(&["pause"]);
    process_file(&c, "exit 3");
    c.write_config();
    let root = c.state_root().display().to_string();
    let running = c
        .call(&[
            "--log",
            &c.path("log"),
            "--log-format",
            "json",
            "run",
            "--bundle",
            &c.path(""),
            "--keep",
            &c.id,
        ])
        .spawn();
    wait_until("the container runs", || {
        root_has(&root, &c.id)
            && c.call(&["state", &c.id])
                .finish()
                .stdout()
                .contains("\"running\"")
    });
    follow(
        &c,
        "= 3 --root ROOT exec --process PROCESS --pid-file PIDFILE ID\n--root ROOT kill ID 9",
    );
    running.wait().exits(137);
    // It reads memory.events of the cgroup after the end.
    assert!(c.cgroup().is_dir(), "--keep keeps the cgroup");
    follow(&c, "--root ROOT state ID\n--root ROOT delete ID");
    c.assert_gone();
}

fn root_has(root: &str, id: &str) -> bool {
    Path::new(root).join(id).is_dir()
}

#[test]
fn buildah_kills_without_a_signal() {
    let c = bundle!().asks(&["signals"]);
    let output = c.up();
    output.wait_for("ready");
    follow(&c, "--root ROOT kill ID");
    c.wait_stopped();
    follow(&c, "--root ROOT delete ID");
}
