//! `check`: what it says of this host, of hosts that lack something, and that it leaves nothing behind.

use crate::support::{Bundle, Call, Output, binary, cgroup_root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const NOBODY: u32 = 65534;

/// Copies the program to where everybody can reach it. cp(1) does it: a descriptor of ours, open for writing,
/// could be in a child of another test's while the copy is executed.
pub fn copy_program(to: &Path) {
    let status = Command::new("cp").arg(binary()).arg(to).status();
    assert!(status.expect("run cp").success());
}

/// A copy of the program, and a state directory that everybody may write.
fn prepare(c: &Bundle) -> (PathBuf, String) {
    let (program, state) = (c.dir.join("cofferdam"), c.dir.join("writable"));
    copy_program(&program);
    fs::create_dir_all(&state).expect("mkdir");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o1777)).expect("chmod");
    (program, state.display().to_string())
}

fn call(c: &Bundle) -> Call {
    let (program, state) = prepare(c);
    let args = vec!["--root", &state, "check", "--format", "json"];
    Call::new(&c.dir, args).program(&program)
}

struct Report {
    document: Value,
    checks: BTreeMap<String, Value>,
}

impl Report {
    fn of(output: &Output) -> Report {
        let document: Value = serde_json::from_str(&output.stdout()).expect("one JSON document");
        let list = document["checks"].as_array().expect("a list").clone();
        let name = |check: &Value| check["name"].as_str().expect("a name").to_string();
        Report {
            checks: list
                .into_iter()
                .map(|check| (name(&check), check))
                .collect(),
            document,
        }
    }

    fn status(&self, name: &str) -> &str {
        self.checks[name]["status"].as_str().expect(name)
    }

    fn fix(&self, name: &str) -> &str {
        self.checks[name]["fix"].as_str().expect(name)
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

pub fn become_nobody() -> io::Result<()> {
    // SAFETY: plain calls; no group list is passed.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        check(libc::setresuid(NOBODY, NOBODY, NOBODY))
    }
}

/// In a user namespace as its root, with one of its own limits at zero.
fn without(limit: &str) -> io::Result<()> {
    // SAFETY: unshare touches no memory of ours.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    fs::write("/proc/self/uid_map", "0 0 1")?;
    fs::write(format!("/proc/sys/user/max_{limit}_namespaces"), "0")
}

pub fn cover(place: &std::ffi::CStr) -> io::Result<()> {
    let (none, kind) = (c"none".as_ptr(), c"tmpfs".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the strings are static.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(
            none,
            c"/".as_ptr(),
            none,
            private,
            std::ptr::null(),
        ))?;
        check(libc::mount(none, place.as_ptr(), kind, 0, std::ptr::null()))
    }
}

#[test]
fn root_of_this_host_can_run_containers() {
    let c = bundle!();
    let report = Report::of(&call(&c).finish().ok().silent());
    assert_eq!(report.document["usable"], true);
    assert_eq!(report.document["user"]["uid"], 0);
    for name in [
        "version",
        "system calls",
        "seccomp",
        "mount",
        "pid",
        "user",
        "tmpfs",
        "delegation",
    ] {
        assert_eq!(report.status(name), "ok", "{name}: {}", report.checks[name]);
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    assert_eq!(report.checks["version"]["value"], release.trim());
    for check in report.checks.values() {
        let known = ["ok", "limited", "missing"].map(Value::from);
        assert!(known.contains(&check["status"]), "{check}");
        assert!(
            check["group"].is_string() && check["value"].is_string(),
            "{check}"
        );
        assert!(check["status"] != "ok" || check["fix"].is_null(), "{check}");
    }
}

#[test]
fn the_table_has_a_line_for_each() {
    let c = bundle!();
    let report = Report::of(&call(&c).finish().ok());
    let state = c.path("writable");
    let table = Call::new(&c.dir, vec!["--root", &state, "check"])
        .finish()
        .ok()
        .silent();
    let table = table.stdout();
    for (name, check) in &report.checks {
        let status = check["status"].as_str().expect("a status");
        let row = |line: &&str| line.trim_start().starts_with(name) && line.contains(status);
        assert!(
            table.lines().any(|line| row(&line)),
            "{name} {status}: {table}"
        );
        let fix = check["fix"].as_str().unwrap_or_default();
        assert!(table.contains(fix), "{fix}");
    }
    assert!(table.ends_with("containers can run for root\n"), "{table}");
}

#[test]
fn somebody_without_root() {
    let c = bundle!();
    let output = call(&c).setup(become_nobody).finish().ok().silent();
    let report = Report::of(&output);
    assert_eq!(report.document["user"]["uid"], NOBODY);
    assert_eq!(report.document["usable"], true);
    assert!(
        report.checks["mount"]["value"]
            .as_str()
            .expect("text")
            .contains("user namespace")
    );
    assert_eq!(report.status("delegation"), "limited");
    assert!(
        report.fix("delegation").contains("cofferdam")
            || report.fix("delegation").contains("chown")
    );
    assert_eq!(report.status("overlay"), "ok");
    assert_eq!(report.status("device rules"), "limited");
}

#[test]
fn a_delegated_cgroup_is_found() {
    let c = bundle!();
    let own = cgroup_root().join(&c.id);
    let shell = own.join("shell");
    fs::create_dir_all(&shell).expect("make cgroups");
    for path in [
        &own,
        &shell,
        &own.join("cgroup.procs"),
        &shell.join("cgroup.procs"),
    ] {
        std::os::unix::fs::chown(path, Some(NOBODY), None).expect("chown");
    }
    let (program, state) = prepare(&c);
    let (enter, program) = (shell.join("cgroup.procs"), program.display());
    let script = format!(
        "echo $$ >{}; exec \"$0\" --reuid={NOBODY} --regid={NOBODY} --clear-groups {program} \"$@\"",
        enter.display()
    );
    let args = vec!["--root", &state, "check", "--format", "json"];
    let setpriv = Call::new(&c.dir, args).program("/usr/bin/setpriv".as_ref());
    let output = setpriv.through_shell(&script).finish();
    let left = fs::read_dir(&own).expect("read").flatten();
    let left = left.filter(|entry| entry.path().is_dir()).count();
    fs::remove_dir(&shell)
        .and_then(|()| fs::remove_dir(&own))
        .expect("remove cgroups");
    let report = Report::of(&output.ok());
    let value = report.checks["delegation"]["value"].as_str().expect("text");
    assert!(
        value.contains(&format!("in a new cgroup of {}", own.display())),
        "{value}"
    );
    assert_eq!(left, 1, "only the shell's cgroup");
}

#[test]
fn without_mount_namespaces_nothing_runs() {
    let c = bundle!();
    let output = call(&c).setup(|| without("mnt")).finish().exits(1).silent();
    let report = Report::of(&output);
    assert_eq!(report.document["usable"], false);
    assert_eq!(report.status("mount"), "missing");
    assert_eq!(
        report.fix("mount"),
        "sysctl -w user.max_mnt_namespaces=15000"
    );
    assert_eq!(report.fix("tmpfs"), "see namespaces above");
    assert_eq!(report.status("pid"), "ok");
}

#[test]
fn without_user_namespaces_root_still_can() {
    let c = bundle!();
    let report = Report::of(&call(&c).setup(|| without("user")).finish().ok());
    assert_eq!(report.status("limit"), "missing");
    assert_eq!(report.status("user"), "missing");
    assert_eq!(report.status("overlay, rootless"), "missing");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_told() {
    let c = bundle!();
    let (program, _) = prepare(&c);
    let call = Call::new(&c.dir, vec!["check"])
        .program(&program)
        .setup(become_nobody);
    let output = call.finish().exits(1).silent();
    let last = "no container can run for nobody: missing: state directory\n";
    assert!(output.stdout().ends_with(last), "{}", output.describe());
    assert!(output.stdout().contains("XDG_RUNTIME_DIR=/run/user/65534"));
}

#[test]
fn a_masked_proc_is_told() {
    let c = bundle!();
    let setup = || cover(c"/proc/irq").and_then(|()| become_nobody());
    let report = Report::of(&call(&c).setup(setup).finish().ok());
    assert_eq!(report.status("proc"), "limited");
    assert!(report.fix("proc").contains("mounted over"));
    assert_eq!(report.status("sysfs"), "ok");
}

#[test]
fn without_cgroups_nothing_runs() {
    let c = bundle!();
    let output = call(&c)
        .setup(|| cover(c"/sys/fs/cgroup"))
        .finish()
        .exits(1);
    let report = Report::of(&output);
    assert_eq!(report.status("hierarchy"), "missing");
    assert_eq!(
        report.fix("hierarchy"),
        "mount -t cgroup2 none /sys/fs/cgroup"
    );
}

#[test]
fn in_a_container_that_may_nothing_it_says_so() {
    let c = bundle!()
        .set(
            "/process/args",
            serde_json::json!(["/cofferdam", "check", "--format", "json"]),
        )
        .set("/root/readonly", serde_json::json!(true));
    copy_program(&c.rootfs().join("cofferdam"));
    let output = c.run().exits(1).silent();
    let report = Report::of(&output);
    assert_eq!(report.document["user"]["name"], "root");
    assert_eq!(report.status("user"), "missing");
    assert!(report.fix("user").contains("CAP_SYS_ADMIN"));
    assert_eq!(report.fix("mount"), "see user below");
    assert_eq!(report.fix("tmpfs"), "see namespaces above");
    assert_eq!(report.status("delegation"), "missing");
    assert_eq!(report.status("device rules"), "missing");
    assert_eq!(report.fix("state directory"), "use --root DIR");
}

#[test]
fn it_leaves_nothing() {
    let c = bundle!();
    let before = roots();
    let running = call(&c).spawn();
    let cgroup = format!("cofferdam-check-{}", running.child.id());
    running.wait().ok();
    assert!(!cgroup_root().join(cgroup).exists());
    assert_eq!(roots(), before);
    assert_eq!(fs::read_dir(c.path("writable")).expect("read").count(), 0);
}

/// How many mounts lie on the root, where the check mounts in a namespace of its own.
fn roots() -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mounts");
    let point = |line: &&str| line.split(' ').nth(4) == Some("/");
    mounts.lines().filter(point).count()
}
