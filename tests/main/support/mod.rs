//! The harness: a bundle per test, the runtime's commands on it, and what must hold afterwards.
//! A test starts with `let c = bundle!()`, edits the spec with JSON pointers, and calls a verb.
//! Dropping the bundle deletes the container and checks that the host is as it was.

#[macro_use]
mod skip;
mod base;
pub mod broker;
mod call;
mod chance;
mod host;
mod payload;
pub mod refused;
pub mod terminal;
pub mod trace;

pub use crate::harness::skipped;
pub use call::{Call, Output, Running, private_mounts};
pub use chance::{Chance, SEED, seed};
pub use host::{
    PATIENCE, cgroup_root, connect_to_packets, copy_program, exchange, has_controller,
    holds_within, in_time, mounts_below, node, send, wait_until,
};
pub use refused::answer;
pub use skip::{Runtime, binary, expected_skips, runtime, skips};

use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

pub struct Bundle {
    pub dir: PathBuf,
    pub id: String,
    pub spec: Value,
    /// Written instead of the spec when set.
    pub raw: Option<String>,
    /// Flags before the verb, and flags of `create` and `run`.
    pub globals: Vec<String>,
    pub flags: Vec<String>,
    stdin: Option<String>,
    /// Who calls, if not root, and with which copy of the program.
    caller: Option<(u32, PathBuf)>,
    /// What belongs to whom when a container is made.
    owner: Option<(&'static str, u32)>,
    canary: host::Canary,
    mounted: Vec<host::Mounted>,
}

impl Bundle {
    pub fn new(test: &str) -> Bundle {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let id = format!("{}-{unique}", test.rsplit("::").next().unwrap_or("test"));
        let dir = std::env::temp_dir().join(format!("cofferdam-test-{unique}"));
        let rootfs = dir.join("rootfs");
        for name in ["dev", "proc", "sys", "tmp", "etc"] {
            fs::create_dir_all(rootfs.join(name)).expect("make the rootfs");
        }
        for path in [&dir, &rootfs] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        host::copy_program(payload::path(), &rootfs.join("payload"));
        let mut spec = base::spec();
        spec["linux"]["cgroupsPath"] = json!(format!("/cofferdam-test/{id}"));
        Bundle {
            dir,
            id,
            spec,
            raw: None,
            globals: vec![],
            flags: vec![],
            stdin: None,
            caller: None,
            owner: None,
            canary: host::Canary::take(),
            mounted: vec![],
        }
    }

    /// Sets the value at a JSON pointer; missing objects on the way are made.
    pub fn set(mut self, pointer: &str, value: Value) -> Bundle {
        *at(&mut self.spec, pointer) = value;
        self
    }

    /// Appends to the list at a JSON pointer.
    pub fn push(mut self, pointer: &str, value: Value) -> Bundle {
        let list = at(&mut self.spec, pointer);
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().expect("a list").push(value);
        self
    }

    pub fn remove(mut self, pointer: &str) -> Bundle {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = at(&mut self.spec, parent);
        parent.as_object_mut().expect("an object").remove(key);
        self
    }

    /// Lets the list at a pointer keep the items for which `field` is not `value`.
    pub fn without(mut self, pointer: &str, field: &str, value: &str) -> Bundle {
        let list = at(&mut self.spec, pointer).as_array_mut().expect("a list");
        let before = list.len();
        list.retain(|item| item[field] != value);
        assert!(list.len() < before, "{pointer} has no {field} {value}");
        self
    }

    /// Adds a mount.
    pub fn mount(self, kind: &str, source: &str, target: &str, options: &[&str]) -> Bundle {
        let mount =
            json!({"destination": target, "type": kind, "source": source, "options": options});
        self.push("/mounts", mount)
    }

    /// The questions that the payload answers; see `Output::answer`.
    pub fn asks(self, commands: &[&str]) -> Bundle {
        let words = commands.join(" ; ");
        let args: Vec<&str> = std::iter::once("/payload")
            .chain(words.split(' '))
            .collect();
        self.set("/process/args", json!(args))
    }

    /// Gives all five sets these capabilities.
    pub fn caps(mut self, names: &[&str]) -> Bundle {
        for set in [
            "bounding",
            "effective",
            "permitted",
            "inheritable",
            "ambient",
        ] {
            self = self.set(&format!("/process/capabilities/{set}"), json!(names));
        }
        self
    }

    /// A user namespace whose root is host id 100000, and a rootfs that belongs to it.
    pub fn in_user_namespace(self) -> Bundle {
        let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
        host::chown_tree(&self.rootfs(), 100000);
        self.push("/linux/namespaces", json!({"type": "user"}))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
    }

    /// Calls as an ordinary user, who is root in the container, has no cgroup, and owns all of the bundle.
    pub fn of_user(mut self, id: u32) -> Bundle {
        let program = self.dir.join(binary().file_name().expect("a name"));
        host::copy_program(&binary(), &program);
        self.caller = Some((id, program));
        self.owner = Some(("", id));
        let map = json!([{"containerID": 0, "hostID": id, "size": 1}]);
        self.push("/linux/namespaces", json!({"type": "user"}))
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map)
            .remove("/linux/cgroupsPath")
            .remove("/linux/resources")
    }

    /// The same, and what the test puts into the rootfs later belongs to it too.
    pub fn owned_in_user_namespace(mut self) -> Bundle {
        self.owner = Some(("rootfs", 100000));
        self.in_user_namespace()
    }

    /// Gives a tree below the bundle to another owner.
    pub fn give(&self, name: &str, id: u32) {
        host::chown_tree(&self.dir.join(name), id);
    }

    /// Mounts a tmpfs on the host, in the bundle, for as long as the bundle lives.
    pub fn with_tmpfs(mut self, name: &str, flags: libc::c_ulong) -> Bundle {
        self.mounted
            .push(host::Mounted::tmpfs(&self.dir.join(name), flags));
        self
    }

    pub fn flag(mut self, flags: &[&str]) -> Bundle {
        self.flags.extend(flags.iter().map(|f| f.to_string()));
        self
    }

    pub fn global(mut self, flags: &[&str]) -> Bundle {
        self.globals.extend(flags.iter().map(|f| f.to_string()));
        self
    }

    pub fn stdin(mut self, text: &str) -> Bundle {
        self.stdin = Some(text.into());
        self
    }

    /// Writes a file into the rootfs, with its parents.
    pub fn file(self, path: &str, text: &str) -> Bundle {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        fs::write(path, text).expect("write");
        self
    }

    /// Makes a directory in the rootfs.
    pub fn folder(self, path: &str) -> Bundle {
        fs::create_dir_all(self.rootfs().join(path.trim_start_matches('/'))).expect("mkdir");
        self
    }

    /// Replaces what is at this path of the rootfs by a symlink.
    pub fn link(self, path: &str, target: &str) -> Bundle {
        let path = self.rootfs().join(path.trim_start_matches('/'));
        let _ = fs::remove_dir_all(&path);
        std::os::unix::fs::symlink(target, path).expect("symlink");
        self
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    /// A path below the bundle, as text.
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The container's cgroup as the host sees it; nowhere for a path that leads out.
    pub fn cgroup(&self) -> PathBuf {
        let path = self.spec["linux"]["cgroupsPath"].as_str().unwrap_or("");
        let path = if path.is_empty() || path.contains("..") {
            "/nowhere"
        } else {
            path
        };
        cgroup_root().join(path.trim_start_matches('/'))
    }

    /// A prepared call of the runtime, with this bundle's `--root`.
    pub fn call(&self, args: &[&str]) -> Call {
        let root = self.state_root().display().to_string();
        let mut all = vec!["--root".to_string(), root];
        all.extend(self.globals.clone());
        all.extend(args.iter().map(|a| a.to_string()));
        let mut call = Call::new(&self.dir, all);
        if let Some((user, program)) = &self.caller {
            call = call.program(program).by_user(*user);
        }
        match &self.stdin {
            Some(text) => call.stdin(text),
            None => call,
        }
    }

    pub fn write_config(&self) {
        let mut spec = self.spec.clone();
        if skip::cannot_load_device_rules() {
            spec["linux"]["resources"]
                .as_object_mut()
                .map(|r| r.remove("devices"));
        }
        let text = self.raw.clone().unwrap_or_else(|| spec.to_string());
        fs::write(self.dir.join("config.json"), text).expect("write config.json");
    }

    /// A call of `create` or `run` with the bundle and its flags; writes the config first.
    pub fn call_new(&self, verb: &str, more: &[&str]) -> Call {
        self.write_config();
        if let Some((tree, user)) = self.owner {
            self.give(tree, user);
        }
        let dir = self.dir.display().to_string();
        let mut args = vec![verb, "--bundle", &dir];
        args.extend(self.flags.iter().map(String::as_str));
        args.extend(more);
        args.push(&self.id);
        self.call(&args)
    }

    pub fn run(&self) -> Output {
        self.call_new("run", &[]).finish()
    }

    pub fn create(&self) -> Output {
        self.call_new("create", &[]).finish()
    }

    pub fn start(&self) -> Output {
        self.call(&["start", &self.id]).finish()
    }

    /// Creates and starts; gives the output of `create`, where the payload's output appears too.
    pub fn up(&self) -> Output {
        let output = self.create().ok();
        self.start().ok();
        output
    }

    pub fn state(&self) -> Value {
        let output = self.call(&["state", &self.id]).finish().ok();
        serde_json::from_str(&output.stdout()).expect("state is one JSON object")
    }

    pub fn status(&self) -> String {
        self.state()["status"].as_str().unwrap_or("none").into()
    }

    pub fn pid(&self) -> i32 {
        self.state()["pid"].as_i64().expect("a pid") as i32
    }

    pub fn kill(&self, signal: &str) -> Output {
        self.call(&["kill", &self.id, signal]).finish()
    }

    pub fn delete(&self, flags: &[&str]) -> Output {
        let args: Vec<&str> = ["delete"]
            .iter()
            .chain(flags)
            .copied()
            .chain([self.id.as_str()])
            .collect();
        self.call(&args).finish()
    }

    pub fn wait_stopped(&self) {
        wait_until("the container is stopped", || self.status() == "stopped");
    }

    /// Makes root the owner of the directory of records, which a test may have given to a user: root takes no other's.
    fn take_root(&self) {
        for dir in [self.dir.clone(), self.state_root()] {
            let _ = std::os::unix::fs::lchown(dir, Some(0), Some(0));
        }
    }

    /// Nothing is left of a container that was refused or deleted.
    pub fn assert_gone(&self) {
        // What a killed hook had started itself may take a moment to end.
        holds_within(PATIENCE, || self.leftovers().is_empty());
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:?}");
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = vec![];
        let state = self.state_root().join(&self.id);
        if state.exists() {
            left.push(format!("state directory {}", state.display()));
        }
        // The others leave it now and then, after a failed create or under load.
        let judged = runtime() == Runtime::Cofferdam;
        if judged && self.spec.pointer("/linux/cgroupsPath").is_some() && self.cgroup().exists() {
            left.push(format!("cgroup {}", self.cgroup().display()));
        }
        left.extend(host::mounts_below(&self.dir));
        left.extend(host::processes_below(&self.dir));
        left
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.globals.clear();
        if self.caller.is_none() {
            self.take_root();
        }
        let call = self.call(&["delete", "--force", &self.id]);
        if refused::has_ended() {
            let gone = call.finish();
            self.mounted.clear();
            let mut left = self.leftovers();
            left.extend(self.canary.changes());
            if gone.code() != 0 || !left.is_empty() {
                refused::note("left", &format!("{left:?}: {}", gone.describe()));
            }
        } else if std::thread::panicking() {
            if let Ok(mut running) = call.try_spawn() {
                let mut ended = || !matches!(running.child.try_wait(), Ok(None));
                holds_within(PATIENCE, &mut ended);
            }
        } else {
            call.finish().ok();
            self.mounted.clear();
            let mut left = self.leftovers();
            left.extend(self.canary.changes());
            assert!(
                left.is_empty(),
                "after delete --force {}: {left:?}",
                self.id
            );
        }
        let _ = fs::remove_dir(self.cgroup());
        // Whoever has it end early looks at it afterwards, and removes it.
        if !refused::has_ended() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The value at a JSON pointer, made when it is missing.
fn at<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    let mut here = value;
    for key in pointer.split('/').skip(1) {
        here = match key.parse::<usize>() {
            Ok(index) if here.is_array() => &mut here[index],
            _ => &mut here[key],
        };
    }
    here
}

/// A mask of capabilities or signals, as /proc/PID/status writes it.
pub fn mask(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect("a mask in hex")
}

/// The lines of a file, or none when it is missing.
pub fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap_or_default()
        .lines()
        .map(String::from)
        .collect()
}
