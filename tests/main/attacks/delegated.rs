//! T10: the cgroups of an ordinary user, in the reach of a container that is root over them. CVE-2023-25809.

use super::post::World;
use super::ways::USER;
use crate::support::{Bundle, cgroup_root};
use serde_json::json;
use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;

/// A cgroup that belongs to the user, in which the runtime is when it is called; removed on drop.
struct Delegated {
    dir: PathBuf,
    path: String,
}

impl Delegated {
    fn new(c: &Bundle) -> Delegated {
        let path = format!("/cofferdam-test/{}-user", c.id);
        let dir = cgroup_root().join(&path[1..]);
        fs::create_dir_all(dir.join("caller")).expect("make the cgroup");
        for name in ["", "caller"] {
            let dir = dir.join(name);
            for file in [
                "",
                "cgroup.procs",
                "cgroup.threads",
                "cgroup.subtree_control",
            ] {
                chown(dir.join(file), Some(USER), Some(USER)).expect("chown");
            }
        }
        Delegated { dir, path }
    }

    /// Runs the bundle as the user, from the cgroup, into which only root can put a process.
    fn run(&self, c: &Bundle) -> crate::support::Output {
        let procs = self.dir.join("caller/cgroup.procs");
        let script = format!(
            "echo $$ >{} && exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$0\" \"$@\"",
            in_the_view(&procs).display()
        );
        let call = c.call_new("run", &[]).by_user(0);
        call.through_shell(&script).finish()
    }
}

/// The others are called with a private view of the host, in which there is nothing but cgroup v2.
fn in_the_view(path: &std::path::Path) -> PathBuf {
    use crate::support::{Runtime, runtime};
    match path.strip_prefix(cgroup_root()) {
        Ok(below) if runtime() != Runtime::Cofferdam => PathBuf::from("/sys/fs/cgroup").join(below),
        _ => path.into(),
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let below = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.path().is_dir()) {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

/// As `spec --rootless` writes it.
fn of_the_user(c: Bundle, cgroup: &Delegated) -> Bundle {
    c.of_user(USER)
        .set(
            "/linux/cgroupsPath",
            json!(format!("{}/container", cgroup.path)),
        )
        .caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_CHOWN"])
}

/// What would change a cgroup: one question for each level from the top, as each mount of the container would show it.
fn questions(cgroup: &Delegated) -> Vec<String> {
    let mut levels = vec![String::new()];
    for name in format!("{}/container", cgroup.path).split('/').skip(1) {
        levels.push(format!("{}/{name}", levels.last().expect("one")));
    }
    levels.push(format!("{}/caller", cgroup.path));
    let mut all = vec![];
    for level in levels {
        for top in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            all.push(format!("mkdir {top}{level}/new"));
            all.push(format!("append {top}{level}/cgroup.procs 1"));
            all.push(format!("append {top}{level}/cgroup.subtree_control +pids"));
            all.push(format!("append {top}{level}/cgroup.freeze 0"));
        }
    }
    all
}

fn attack(c: Bundle, cgroup: &Delegated, what: &str) {
    let mut world = World::new(&c);
    let questions = questions(cgroup);
    let mut all: Vec<&str> = questions.iter().map(String::as_str).collect();
    all.push("mountinfo /sys/fs/cgroup");
    let c = c.asks(&all);
    let output = cgroup.run(&c).ok();
    for question in &questions {
        assert_ne!(output.answer(question), "ok", "{what}: {question}");
    }
    let mount = output.answer("mountinfo /sys/fs/cgroup");
    let options = mount.split(' ').nth(2).unwrap_or_default();
    assert!(options.starts_with("ro,"), "{what}: {mount}");
    assert!(!cgroup.dir.join("new").exists());
    world.assert_after(&c, what);
}

fn with_sys_of_the_host(c: Bundle) -> Bundle {
    let mut c = c.without("/mounts", "destination", "/sys");
    let bind = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]});
    let mounts = c.spec["mounts"].as_array_mut().expect("mounts");
    let before = mounts
        .iter()
        .position(|m| m["destination"] == "/sys/fs/cgroup");
    mounts.insert(before.expect("a cgroup mount"), bind);
    c
}

#[test]
fn t10_without_a_cgroup_namespace_the_cgroups_of_the_user_are_read_only() {
    let c = bundle!();
    let cgroup = Delegated::new(&c);
    let c = of_the_user(c, &cgroup).without("/linux/namespaces", "type", "cgroup");
    attack(c, &cgroup, "a new sysfs");
}

#[test]
fn t10_with_sys_of_the_host_the_cgroups_of_the_user_are_read_only() {
    let c = bundle!();
    let cgroup = Delegated::new(&c);
    let c = of_the_user(c, &cgroup).without("/linux/namespaces", "type", "cgroup");
    attack(with_sys_of_the_host(c), &cgroup, "sysfs of the host");
    let c = Bundle::new("t10");
    let cgroup = Delegated::new(&c);
    let c = with_sys_of_the_host(of_the_user(c, &cgroup));
    attack(c, &cgroup, "sysfs of the host, and a cgroup namespace");
}

#[test]
fn t10_with_a_cgroup_namespace_only_the_own_cgroup_can_be_written() {
    let c = bundle!();
    let cgroup = Delegated::new(&c);
    let mut c = of_the_user(c, &cgroup).without("/mounts", "destination", "/sys/fs/cgroup");
    c = c.mount(
        "cgroup",
        "cgroup",
        "/sys/fs/cgroup",
        &["nosuid", "noexec", "nodev"],
    );
    let mut world = World::new(&c);
    let c = c.asks(&["mkdir /sys/fs/cgroup/new", "mountinfo /sys/fs/cgroup"]);
    let output = cgroup.run(&c).ok();
    // The root of what is seen is the container's own.
    let mount = output.answer("mountinfo /sys/fs/cgroup");
    assert!(mount.starts_with("/ /sys/fs/cgroup rw"), "{mount}");
    assert!(!cgroup.dir.join("new").exists());
    world.assert_after(&c, "a cgroup namespace");
}
