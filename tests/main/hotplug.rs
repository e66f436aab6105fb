//! `mounts`: added to a running container, listed, removed again; what is refused; nothing left half-way.

use crate::sources::with_namespace_kept;
use crate::support::{Bundle, Output, lines};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// A container that runs.
fn up(c: Bundle) -> Bundle {
    let c = c.asks(&["pause"]);
    c.up();
    c
}

/// `mounts ACTION ID ..`.
fn mounts(c: &Bundle, action: &str, more: &[&str]) -> Output {
    let args: Vec<&str> = ["mounts", action, &c.id]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    c.call(&args).finish()
}

fn inside(c: &Bundle, question: &str) -> String {
    let mut args = vec!["exec", c.id.as_str(), "/payload"];
    args.extend(question.split(' '));
    c.call(&args).finish().ok().answer(question)
}

/// The mounts of the container, as the host sees them.
fn table(c: &Bundle) -> Vec<String> {
    let lines = lines(Path::new(&format!("/proc/{}/mountinfo", c.pid())));
    let place = |line: &String| {
        line.split(' ')
            .skip(3)
            .take(3)
            .collect::<Vec<_>>()
            .join(" ")
    };
    lines.iter().map(place).collect()
}

fn file(c: &Bundle, entries: Value) -> String {
    fs::write(c.path("entries.json"), entries.to_string()).expect("write");
    c.path("entries.json")
}

#[test]
fn a_directory_is_added_listed_and_removed() {
    let c = up(bundle!());
    fs::create_dir(c.path("source")).expect("mkdir");
    fs::write(c.path("source/file"), "text").expect("write");
    let before = table(&c);
    mounts(
        &c,
        "add",
        &[&c.path("source"), "/new/place", "-o", "ro,nosuid"],
    )
    .ok()
    .silent();
    assert_eq!(inside(&c, "read /new/place/file"), "text");
    assert_eq!(inside(&c, "write /new/place/x y"), "EROFS");
    mounts(&c, "list", &["/new/place"]).fails_with("mounts list: takes no path");
    let list = mounts(&c, "list", &[]).ok().stdout();
    let heading = list.lines().next().expect("a heading");
    let columns: Vec<&str> = heading.split_whitespace().collect();
    assert_eq!(columns, ["DESTINATION", "SOURCE", "TYPE", "OPTIONS"]);
    let line = list
        .lines()
        .find(|l| l.starts_with("/new/place "))
        .expect("a line");
    assert!(
        line.contains("/source]") && line.contains("ro,nosuid"),
        "{line}"
    );
    assert_eq!(list.lines().count(), before.len() + 2);
    mounts(&c, "remove", &["/new/place"]).ok().silent();
    assert_eq!(table(&c), before);
    assert_eq!(inside(&c, "ls /new/place"), "");
}

#[test]
fn what_is_mounted_below_a_directory_comes_along() {
    let c = up(bundle!()
        .with_tmpfs("source", 0)
        .with_tmpfs("source/sub", 0));
    let source = c.path("source");
    mounts(&c, "add", &[&source, "/all"]).ok();
    mounts(&c, "add", &[&source, "/one", "--options", "bind"]).ok();
    let all = inside(&c, "mounts");
    assert!(
        all.contains("/all/sub") && !all.contains("/one/sub"),
        "{all}"
    );
}

#[test]
fn new_file_systems_belong_to_the_namespaces_of_the_container() {
    let c = up(bundle!());
    mounts(
        &c,
        "add",
        &["-t", "tmpfs", "/scratch", "-o", "size=64k,mode=0711,ro"],
    )
    .ok();
    mounts(&c, "add", &["-t", "proc", "/other-proc"]).ok();
    mounts(
        &c,
        "add",
        &["-t", "sysfs", "sysfs", "/other-sys", "-o", "ro"],
    )
    .ok();
    mounts(&c, "add", &["-t", "cgroup2", "/other-cgroup", "-o", "ro"]).ok();
    assert_eq!(inside(&c, "stat /scratch"), "dir 0711 0:0");
    assert_eq!(inside(&c, "write /scratch/x y"), "EROFS");
    assert!(inside(&c, "mountinfo /scratch").contains("size=64k"));
    assert_eq!(inside(&c, "ls /other-sys/class/net"), "lo");
    assert!(inside(&c, "read /other-proc/1/cmdline").contains("pause"));
    let procs = inside(&c, "read /other-cgroup/cgroup.procs");
    assert!(procs.starts_with('1'), "{procs}");
}

#[test]
fn a_file_adds_all_its_entries_in_order_and_removes_them() {
    let c = up(bundle!());
    fs::write(c.path("text"), "text").expect("write");
    let before = table(&c);
    let file = file(
        &c,
        json!([
            {"destination": "/a", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/a/b/c", "type": "tmpfs", "options": ["noexec"]},
            {"destination": "/a/b/c/text", "source": "text", "options": ["bind", "ro"]},
        ]),
    );
    mounts(&c, "add", &["-f", &file]).ok();
    assert_eq!(inside(&c, "read /a/b/c/text"), "text");
    mounts(&c, "remove", &["--config", &file]).ok();
    assert_eq!(table(&c), before);
    let call = c.call(&["mounts", "add", &c.id, "-f", "-"]);
    call.stdin(r#"[{"destination": "/b", "type": "tmpfs"}]"#)
        .finish()
        .ok();
    assert_ne!(inside(&c, "mountinfo /b"), "none");
}

#[test]
fn nothing_stays_of_what_fails_half_way() {
    let c = up(bundle!().folder("/kept").link("/link", "/kept/nowhere"));
    fs::write(c.path("text"), "text").expect("write");
    symlink("away", c.path("away")).expect("symlink");
    let before = table(&c);
    let file = file(
        &c,
        json!([
            {"destination": "/a/b", "type": "tmpfs"},
            {"destination": "/a/b/inner", "type": "tmpfs"},
            {"destination": "/kept/deep/text", "source": "text", "options": ["bind"]},
            {"destination": "/kept/away", "source": "away", "options": ["bind", "copy-symlink"]},
            {"destination": "/c", "type": "tmpfs", "options": ["nonsense=1"]},
        ]),
    );
    mounts(&c, "add", &["-f", &file]).fails_with("mounts[4]: mount tmpfs on /c");
    assert_eq!(table(&c), before);
    for gone in ["a", "c", "kept/deep", "kept/away"] {
        let path = c.rootfs().join(gone);
        assert!(fs::symlink_metadata(&path).is_err(), "{path:?} stays");
    }
    assert!(c.rootfs().join("kept").is_dir());
    mounts(&c, "remove", &["/a/b"]).fails_with("nothing is there");
}

#[test]
fn a_user_namespace_gets_what_its_user_cannot_reach() {
    let c = bundle!().in_user_namespace();
    fs::create_dir_all(c.path("private/data")).expect("mkdir");
    fs::write(c.path("private/data/file"), "text").expect("write");
    fs::set_permissions(c.path("private"), PermissionsExt::from_mode(0o700)).expect("chmod");
    let c = up(c);
    let data = c.path("private/data");
    mounts(&c, "add", &[&data, "/plain"]).ok();
    mounts(&c, "add", &[&data, "/mapped", "-o", "rbind,idmap"]).ok();
    mounts(&c, "add", &["-t", "tmpfs", "/scratch"]).ok();
    assert_eq!(inside(&c, "read /plain/file"), "text");
    assert_eq!(inside(&c, "stat /plain/file"), "file 0644 65534:65534");
    assert_eq!(inside(&c, "stat /mapped/file"), "file 0644 0:0");
    assert_eq!(inside(&c, "write /mapped/new x"), "ok");
    assert_eq!(inside(&c, "stat /scratch"), "dir 1777 0:0");
    mounts(&c, "remove", &["/mapped"]).ok();
    assert_eq!(inside(&c, "ls /mapped"), "");
}

#[test]
fn locks_of_the_host_hold_for_what_is_added() {
    let remount = libc::MS_REMOUNT | libc::MS_BIND;
    let lift = format!("syscall 165 z s:/data z {remount} 0");
    let c = bundle!()
        .in_user_namespace()
        .with_tmpfs("source", libc::MS_RDONLY);
    let c = up(c);
    mounts(&c, "add", &[&c.path("source"), "/data"]).ok();
    let mut args = vec!["exec", "--cap", "CAP_SYS_ADMIN", &c.id, "/payload"];
    args.extend(lift.split(' '));
    let answer = c.call(&args).finish().ok().answer(&lift);
    assert_eq!(answer, "EPERM");
}

/// Becomes an ordinary user for good.
pub fn as_user() -> std::io::Result<()> {
    // SAFETY: plain calls that touch no memory of ours.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null())
            | libc::setresgid(USER, USER, USER)
            | libc::setresuid(USER, USER, USER)
    };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

pub const USER: u32 = 23456;

/// A container without a cgroup of its own in which that user is root, and a copy of the program that he can reach.
pub fn of_user(c: Bundle) -> (Bundle, PathBuf) {
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    let c = c
        .push("/linux/namespaces", json!({"type": "user"}))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .remove("/linux/cgroupsPath")
        .remove("/linux/resources");
    let binary = c.dir.join("cofferdam");
    crate::support::copy_program(&crate::support::binary(), &binary);
    (c, binary)
}

#[test]
fn without_root_the_own_files_are_added() {
    let (c, binary) = of_user(bundle!().asks(&["pause"]));
    fs::create_dir(c.path("private")).expect("mkdir");
    fs::write(c.path("private/file"), "text").expect("write");
    fs::set_permissions(c.path("private"), PermissionsExt::from_mode(0o700)).expect("chmod");
    c.write_config();
    c.give("", USER);
    let call = |args: &[&str]| c.call(args).program(&binary).setup(as_user).finish();
    let dir = c.dir.display().to_string();
    call(&["create", "--bundle", &dir, &c.id]).ok();
    call(&["start", &c.id]).ok();
    call(&[
        "mounts",
        "add",
        &c.id,
        &c.path("private"),
        "/data",
        "-o",
        "ro",
    ])
    .ok();
    call(&["mounts", "add", &c.id, "-t", "tmpfs", "/scratch"]).ok();
    let listed = call(&["list"]).ok().stdout();
    assert!(listed.contains(&format!("#{USER}")), "{listed}");
    let read = call(&["exec", &c.id, "/payload", "read", "/data/file"]).ok();
    assert_eq!(read.answer("read /data/file"), "text");
    let other = ["mounts", "add", &c.id, "/root", "/root-of-host"];
    call(&other).ok();
    let read = call(&["exec", &c.id, "/payload", "ls", "/root-of-host"]).ok();
    assert_eq!(read.answer("ls /root-of-host"), "EACCES");
    call(&["mounts", "remove", &c.id, "/data"]).ok();
    let list = call(&["mounts", "list", &c.id]).ok().stdout();
    assert!(
        list.contains("/scratch") && !list.contains("/data"),
        "{list}"
    );
    call(&["delete", "--force", &c.id]).ok();
}

#[test]
fn only_what_was_added_can_be_removed() {
    let c = up(bundle!()
        .file("/masked", "x")
        .push("/linux/maskedPaths", json!("/masked")));
    let before = table(&c);
    for target in ["/", "/proc", "/dev/shm", "/sys/firmware", "/masked", "proc"] {
        mounts(&c, "remove", &[target]).fails_with("was not added by \"mounts add\"");
    }
    mounts(&c, "remove", &["/tmp"]).fails_with("nothing is mounted there");
    mounts(&c, "remove", &["/nonesuch"]).fails_with("nothing is there");
    mounts(&c, "remove", &[]).fails_with("no destination given");
    assert_eq!(table(&c), before);
    mounts(&c, "add", &["-t", "tmpfs", "/dev/shm"]).ok();
    mounts(&c, "remove", &["/dev/shm"]).ok();
    mounts(&c, "remove", &["/dev/shm"]).fails_with("was not added");
    assert_eq!(table(&c), before);
}

#[test]
fn a_relative_destination_begins_at_the_root() {
    let c = up(bundle!().folder("/data"));
    mounts(&c, "add", &["-t", "tmpfs", "data"]).ok();
    assert!(inside(&c, "mounts").contains(",/data"));
    mounts(&c, "remove", &["data"]).ok();
    assert!(!inside(&c, "mounts").contains(",/data"));
}

#[test]
fn the_rules_for_mounts_hold_here_too() {
    let c = up(bundle!()
        .link("/way", "/proc")
        .link("/out", "../../../../tmp/cofferdam-canary"));
    fs::write(c.path("text"), "text").expect("write");
    let text = c.path("text");
    let before = table(&c);
    for (args, words) in [
        (&["-t", "tmpfs", "/"][..], "is the root itself"),
        (&["-t", "tmpfs", "/proc"], "only a mount of type proc"),
        (
            &["-t", "tmpfs", "/proc/sys"],
            "nothing may be mounted inside /proc",
        ),
        (&["-t", "tmpfs", "/way/sys"], "leads into /proc"),
        (&[&text, "/x", "-o", "readonly"], "did you mean ro?"),
        (
            &[&text, "/x", "-o", "remount,bind"],
            "cannot be changed while",
        ),
        (&["/no/such/source", "/x"], "/no/such/source"),
        (
            &["-t", "tmpfs", "/x", "-o", "idmap"],
            "only binds can be idmapped",
        ),
        (&["/x"], "give SOURCE and DESTINATION"),
    ] {
        mounts(&c, "add", args).fails_with(words);
        assert_eq!(table(&c), before, "{args:?}");
    }
    mounts(&c, "add", &[&text, "/proc/uptime"]).ok();
    assert_eq!(inside(&c, "read /proc/uptime"), "text");
    mounts(&c, "add", &["-t", "tmpfs", "/out/x"]).ok();
    assert!(inside(&c, "mounts").contains(",/tmp/cofferdam-canary/x"));
    assert!(!Path::new("/tmp/cofferdam-canary").exists());
}

#[test]
fn a_read_only_root_takes_mounts_on_what_is_there() {
    let c = bundle!()
        .folder("/there")
        .set("/root/readonly", json!(true));
    let c = up(c);
    mounts(&c, "add", &["-t", "tmpfs", "/there"]).ok();
    assert_eq!(inside(&c, "write /there/x y"), "ok");
    let new = mounts(&c, "add", &["-t", "tmpfs", "/new"]);
    new.fails_with("the place must be there already, or be writable");
}

#[test]
fn a_created_and_a_paused_container_have_mounts() {
    let c = bundle!().asks(&["read /text", "pause"]);
    fs::write(c.path("text"), "text").expect("write");
    let output = c.create().ok();
    mounts(&c, "add", &[&c.path("text"), "/text"]).ok();
    c.start().ok();
    output.wait_for("read /text => text");
    c.call(&["pause", &c.id]).finish().ok();
    mounts(&c, "add", &["-t", "tmpfs", "/later"]).ok();
    let list = mounts(&c, "list", &[]).ok().stdout();
    assert!(list.contains("/later"), "{list}");
    c.call(&["resume", &c.id]).finish().ok();
}

#[test]
fn a_stopped_container_has_none() {
    let c = up(bundle!());
    c.kill("KILL").ok();
    c.wait_stopped();
    for (action, more) in [
        ("add", &["-t", "tmpfs", "/x"][..]),
        ("remove", &["/x"]),
        ("list", &[]),
    ] {
        let output = mounts(&c, action, more).fails_with("a stopped container has no mounts");
        assert_eq!(output.stderr().lines().count(), 1);
    }
    let call = c.call(&["mounts", "list", "nonesuch"]);
    call.finish()
        .fails_with("container does not exist: nonesuch");
}

#[test]
fn without_a_mount_namespace_nothing_is_added() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "mount")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths");
    let c = up(c);
    let add = mounts(&c, "add", &["-t", "tmpfs", "/x"]);
    add.fails_with("no mount namespace of its own");
}

#[test]
fn no_process_and_no_file_stays_in_the_container() {
    let c = up(bundle!());
    mounts(&c, "add", &["-t", "tmpfs", "/x"]).ok();
    mounts(&c, "remove", &["/x"]).ok();
    let processes = inside(&c, "ls /proc");
    let numbers = processes
        .split(',')
        .filter(|name| name.parse::<u32>().is_ok());
    assert_eq!(numbers.count(), 2, "{processes}");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

/// fsconfig(2) takes strings of 255 bytes; mount(2) is never used where processes of the container run.
#[test]
fn an_overlay_with_long_paths_is_added() {
    let folder = format!("/{}", "f".repeat(150));
    let layers = [0, 1, 2].map(|index| format!("{folder}/{index}"));
    let c = layers.iter().fold(bundle!(), |c, layer| c.folder(layer));
    let c = up(c.file(&format!("{folder}/2/file"), "text"));
    let lower = format!("lowerdir={}", layers.join(":"));
    let add = |options: &str| mounts(&c, "add", &["/over", "-t", "overlay", "-o", options]);
    add(&lower).ok();
    assert_eq!(inside(&c, "read /over/file"), "text");
    let long = "s".repeat(256);
    mounts(&c, "add", &[&long, "/t", "-t", "tmpfs"])
        .fails_naming("option source: has 256 bytes, fsconfig(2) takes 255");
    c.kill("KILL");
}

#[test]
fn a_tree_in_which_a_mount_namespace_is_kept_can_be_added() {
    for user in [false, true] {
        let mut c = with_namespace_kept(bundle!());
        if user {
            c = c.in_user_namespace();
        }
        let c = up(c);
        let tree = c.path("tree");
        mounts(&c, "add", &[&tree, "/data"]).ok();
        mounts(&c, "add", &[&tree, "/alone", "-o", "bind"]).ok();
        assert_eq!(inside(&c, "read /data/file"), "text");
        assert_eq!(inside(&c, "read /alone/file"), "text");
    }
}

/// The place that a dangling link names is made, and removed again.
#[test]
fn what_was_made_behind_a_link_is_removed_after_a_failure() {
    let c = up(bundle!()
        .link("/data", "elsewhere/deep")
        .link("/self", "/self"));
    let entries = json!([
        {"destination": "/data/below", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/data/below/more", "type": "nonesuch", "source": "none"},
    ]);
    let file = file(&c, entries);
    mounts(&c, "add", &["--config", &file]).fails_naming("nonesuch");
    assert!(!c.rootfs().join("elsewhere").exists());
    mounts(&c, "add", &["-t", "tmpfs", "/self/below"]).fails();
}
