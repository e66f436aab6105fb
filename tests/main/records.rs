//! The records of containers, damaged, old, new, or of another boot: none of them has the wrong process killed, hides
//! another container, or keeps its own from being deleted. And those that cannot be written.

use crate::killed::sweep;
use crate::support::trace::{Fault, Kind, Trace, Traced, trace};
use crate::support::{Bundle, Call, send, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn record(c: &Bundle) -> PathBuf {
    c.state_root().join(&c.id).join("state")
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

/// Two that keep their records in one place; the second is the one that nothing may happen to.
fn pair(c: Bundle) -> (Bundle, Bundle) {
    let c = c.asks(&["pause"]);
    let other = beside(&c).asks(&["pause"]);
    (c, other)
}

fn beside(c: &Bundle) -> Bundle {
    let other = Bundle::new("other");
    fs::create_dir_all(c.state_root()).expect("mkdir");
    symlink(c.state_root(), other.state_root()).expect("symlink");
    other
}

const DAMAGE: [fn(&Path, &str); 12] = [
    |file, text| fs::write(file, text.replace('\n', "")).expect("write"),
    |file, _| fs::write(file, "").expect("write"),
    |file, _| fs::write(file, "garbage\n").expect("write"),
    |file, _| fs::write(file, "{}\n").expect("write"),
    |file, _| fs::write(file, "null\n").expect("write"),
    |file, _| fs::write(file, "[]\n").expect("write"),
    |file, _| fs::write(file, vec![0; 100_000]).expect("write"),
    |file, text| fs::write(file, text.replace("\"pid\":", "\"pid\":\"x\",\"x\":")).expect("write"),
    |file, text| fs::write(file, text.replace("\"id\":\"", "\"id\":\"an")).expect("write"),
    |file, _| fs::write(file, vec![b'['; 10 << 20]).expect("write"),
    |file, _| {
        let huge = fs::File::create(file).expect("create");
        huge.set_len(1 << 40).expect("grow");
    },
    |file, _| {
        fs::remove_file(file).expect("remove");
        symlink("/etc/passwd", file).expect("symlink");
    },
];

#[test]
fn a_damaged_record_is_told_and_deleted_with_all_its_processes() {
    let (c, other) = pair(bundle!());
    other.create().ok();
    for (number, damage) in DAMAGE.iter().enumerate() {
        println!("damage {number}");
        c.up();
        let pid = c.pid();
        damage(&record(&c), &fs::read_to_string(record(&c)).expect("read"));
        let told = "is damaged; end and remove what is left with \"delete --force\"";
        let path = record(&c).display().to_string();
        for verb in ["state", "start", "delete"] {
            let output = c.call(&[verb, &c.id]).finish().fails_with(told);
            output.says(&path);
        }
        assert!(is_alive(pid));
        let listed = c.call(&["list"]).finish().ok().says(&path);
        assert!(listed.stdout().contains(&other.id), "{}", listed.stdout());
        c.delete(&["--force"]).ok();
        assert!(!is_alive(pid), "init lives");
        c.assert_gone();
    }
    assert_eq!(other.status(), "created");
}

/// As what a creator that was killed leaves: the record from before there was an init.
#[test]
fn a_record_that_lost_its_end_is_deleted_with_all_its_processes() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let pid = c.pid();
    let text = fs::read_to_string(record(&c)).expect("read");
    fs::write(record(&c), &text[..text.len() - 20]).expect("write");
    assert_eq!(c.state()["pid"], 0);
    c.delete(&["--force"]).ok();
    assert!(!is_alive(pid), "init lives");
    c.assert_gone();
}

/// Adds a record like the last, but for this.
fn change(file: &Path, change: impl Fn(&mut Value)) {
    let text = fs::read_to_string(file).expect("a record");
    let last = text.lines().next_back().expect("a line");
    let mut last: Value = serde_json::from_str(last).expect("JSON");
    change(&mut last);
    fs::write(file, format!("{text}{last}\n")).expect("write");
}

#[test]
fn a_process_that_has_the_number_by_now_is_never_signalled() {
    let c = bundle!().asks(&["pause"]);
    let mut victim = Command::new("sleep").arg("100").spawn().expect("spawn");
    let pid = victim.id() as i32;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let start: u64 = stat
        .split(' ')
        .nth(21)
        .and_then(|f| f.parse().ok())
        .expect("a time");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read");
    for (start, boot) in [(start + 1, boot.trim()), (start, "another-boot")] {
        c.up();
        let init = c.pid();
        change(&record(&c), |last| {
            last["pid"] = json!(pid);
            last["startTime"] = json!(start);
            last["bootId"] = json!(boot);
        });
        assert_eq!(c.status(), "stopped");
        c.kill("KILL").fails_with("container not running");
        c.call(&["exec", &c.id, "/payload", "report"])
            .finish()
            .fails();
        c.call(&["kill", "--all", &c.id, "KILL"]).finish();
        c.delete(&["--force"]).ok();
        assert!(matches!(victim.try_wait(), Ok(None)), "was signalled");
        if boot == "another-boot" {
            // The cgroup is another's as well: nobody may know.
            assert!(is_alive(init));
            send(init as u32, libc::SIGKILL);
        }
        wait_until("init is gone", || !is_alive(init));
        wait_until("the cgroup can go", || {
            !c.cgroup().exists() || fs::remove_dir(c.cgroup()).is_ok()
        });
        c.assert_gone();
    }
    victim.kill().expect("kill");
    victim.wait().expect("wait");
}

#[test]
fn records_of_other_versions_are_read() {
    let c = bundle!().asks(&["pause"]);
    let newer = |last: &mut Value| {
        last["schema"] = json!(99);
        last["hooks"]["onAlarm"] = json!([{"path": "/bin/false"}]);
        last["added"] = json!({"later": [1, 2, 3]});
    };
    let older = |last: &mut Value| {
        for name in ["privatePids", "rootfs", "created", "hooks", "owner"] {
            last.as_object_mut().expect("an object").remove(name);
        }
    };
    for version in [newer as fn(&mut Value), older] {
        c.up();
        let pid = c.pid();
        change(&record(&c), version);
        assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
        let exec = ["exec", &c.id, "/payload", "exit", "3"];
        c.call(&exec).finish().exits(3);
        c.kill("KILL").ok();
        c.wait_stopped();
        c.delete(&[]).ok();
        c.assert_gone();
    }
    // One in which a field has become something else.
    c.up();
    let text = fs::read_to_string(record(&c)).expect("a record");
    fs::write(
        record(&c),
        text.replace("\"hooks\":{", "\"hooks\":[2],\"old\":{"),
    )
    .expect("write");
    c.delete(&[]).fails_with("is damaged");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn the_record_of_an_older_version_has_the_rules_of_the_filter() {
    let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 16}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    let c = bundle!()
        .asks(&["pause"])
        .set("/linux/seccomp", profile.clone());
    c.up();
    let file = c.state_root().join(&c.id).join("config");
    let text = fs::read_to_string(&file).expect("a record");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let filter = config.as_object_mut().expect("an object").remove("filter");
    assert!(filter.expect("a filter")["program"].is_array());
    config["linux"]["seccomp"] = profile;
    fs::write(&file, config.to_string()).expect("write");
    let output = c.call(&["exec", &c.id, "/payload", "syscall", "140", "0", "0"]);
    assert_eq!(output.finish().ok().answer("syscall 140 0 0"), "EBUSY");
}

/// Copies all records, as a disk would have them after a loss of power, and says another boot in them.
fn image(c: &Bundle) -> PathBuf {
    let image = c.dir.join("image");
    let _ = fs::remove_dir_all(&image);
    if !c.state_root().exists() {
        fs::create_dir(&image).expect("mkdir");
        return image;
    }
    let copied = Command::new("cp")
        .arg("-a")
        .args([&c.state_root(), &image])
        .status();
    assert!(copied.expect("run cp").success());
    let file = image.join(&c.id).join("state");
    if let Ok(text) = fs::read_to_string(&file) {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("read");
        fs::write(&file, text.replace(boot.trim(), "another-boot")).expect("write");
    }
    image
}

const SIGNALS: [i64; 5] = [
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_pidfd_send_signal,
];

/// A call on the image, which signals nobody.
fn on_image(c: &Bundle, args: &[&str]) -> Trace {
    let mut all = vec!["--root", "image"];
    all.extend(args);
    let call = Call::new(&c.dir, all);
    let traced = trace(call, None);
    let signals = |process: &Traced| process.calls.iter().any(|call| SIGNALS.contains(call));
    assert!(!traced.processes.iter().any(signals), "{args:?} signals");
    traced
}

fn judge_image(c: &Bundle) {
    let image = image(c);
    let known = image.join(&c.id).exists();
    assert!(on_image(c, &["list"]).output.code() == 0);
    let state = on_image(c, &["state", &c.id]).output;
    let stopped = state.stdout().contains("\"stopped\"");
    assert_eq!(stopped, known, "{}", state.describe());
    let deleted = on_image(c, &["delete", &c.id]).output;
    assert_eq!(deleted.code() == 0, known, "{}", deleted.describe());
    assert!(!image.join(&c.id).exists());
}

#[test]
fn after_a_loss_of_power_all_are_stopped_and_nobody_is_signalled() {
    let c = bundle!().asks(&["pause"]);
    let prepare = || c.call_new("create", &[]);
    sweep(0, prepare, |_| {
        judge_image(&c);
        c.delete(&["--force"]).ok();
    });
    // As if another container were where this one was before: the same number, the same cgroup.
    c.up();
    let pid = c.pid();
    judge_image(&c);
    assert_eq!((c.status().as_str(), c.pid()), ("running", pid));
}

/// Everything by which something gets into the record, or the container's directory.
const WRITES: [i64; 13] = [
    libc::SYS_write,
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_rename,
    libc::SYS_bind,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_fcntl,
];

#[test]
fn a_write_that_fails_leaves_nothing_and_harms_no_other() {
    let (c, other) = pair(bundle!());
    other.create().ok();
    let before = fs::read(record(&other)).expect("a record");
    let pids = c.path("pid");
    let create = || c.call_new("create", &["--pid-file", &pids]);
    let plain = trace(create(), None);
    c.delete(&["--force"]).ok();
    fs::remove_file(&pids).expect("a pid file");
    let calls = &plain.processes[0].calls;
    let all = std::env::var_os("COFFERDAM_TORTURE").is_some();
    let errors = [libc::ENOSPC, libc::EIO, libc::EDQUOT, libc::EROFS];
    for number in WRITES {
        let count = calls.iter().filter(|call| **call == number).count();
        let step = if number == libc::SYS_fcntl && !all {
            7
        } else {
            1
        };
        for (call, errno) in (0..count).step_by(step).flat_map(|call| {
            let errors = if all { &errors[..] } else { &errors[..1] };
            errors.iter().map(move |errno| (call, *errno))
        }) {
            let kind = Kind::FailOf(number, errno);
            let traced = trace(
                create(),
                Some(Fault {
                    process: 0,
                    call,
                    kind,
                }),
            );
            let (code, said) = (traced.output.code(), traced.output.stderr());
            let told = format!("{number} #{call} errno {errno}: {code}: {said}");
            if code != 0 {
                assert_ne!(said, "", "{told}");
                c.assert_gone();
                assert!(!Path::new(&pids).exists(), "{told}");
            }
            c.delete(&["--force"]).ok();
            c.assert_gone();
            let _ = fs::remove_file(&pids);
        }
    }
    assert_eq!(fs::read(record(&other)).expect("a record"), before);
    assert_eq!(other.status(), "created");
}

/// A file system that takes no more bytes, the record of one container being there already.
#[test]
fn on_a_full_disk_a_create_leaves_nothing_and_what_is_there_can_be_deleted() {
    let (c, other) = pair(bundle!());
    let c = c.with_tmpfs("state", 0);
    other.create().ok();
    let mut fill = fs::File::create(c.state_root().join("fill")).expect("create");
    let page = [0; 4096];
    let options = std::ffi::CString::new("size=64k").expect("text");
    remount(&c.state_root(), 0, Some(&options));
    while std::io::Write::write(&mut fill, &page).is_ok_and(|length| length > 0) {}
    for _ in 0..3 {
        let output = c.create().fails_with("o space left on device");
        output.says(&c.state_root().join(&c.id).display().to_string());
        assert!(!record(&c).exists() && !c.cgroup().exists());
    }
    assert_eq!(other.status(), "created");
    other.start().ok();
    other.kill("KILL").ok();
    other.wait_stopped();
    other.delete(&[]).ok();
    other.assert_gone();
    drop(fill);
}

fn remount(path: &Path, flags: libc::c_ulong, options: Option<&std::ffi::CStr>) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path");
    let data = options.map_or(std::ptr::null(), |options| options.as_ptr().cast());
    let flags = flags | libc::MS_REMOUNT;
    // SAFETY: the strings are C strings that outlive the call.
    let result = unsafe {
        libc::mount(
            std::ptr::null(),
            path.as_ptr(),
            std::ptr::null(),
            flags,
            data,
        )
    };
    assert_eq!(result, 0, "remount {path:?}");
}

#[test]
fn records_that_became_read_only_are_named_and_what_ended_can_be_deleted_later() {
    let c = bundle!().asks(&["pause"]).with_tmpfs("state", 0);
    c.up();
    let pid = c.pid();
    let read_only = libc::MS_RDONLY | libc::MS_BIND;
    remount(&c.state_root(), read_only, None);
    assert_eq!(c.status(), "running");
    c.call(&["list"]).finish().ok();
    let second = beside(&c);
    let output = second.create().fails_with("ead-only file system");
    output.says(&second.state_root().display().to_string());
    let dir = c.state_root().join(&c.id).display().to_string();
    c.delete(&["--force"])
        .fails_with("ead-only file system")
        .says(&dir);
    assert!(!is_alive(pid));
    assert_eq!(c.status(), "stopped");
    remount(&c.state_root(), libc::MS_BIND, None);
    c.delete(&[]).ok();
    assert!(!record(&c).exists() && !c.cgroup().exists());
}

/// What holds a directory still even for root (ioctl_iflags(2)).
fn set_immutable(dir: &Path, immutable: bool) -> bool {
    let flag = if immutable { "+i" } else { "-i" };
    let done = Command::new("chattr").arg(flag).arg(dir).output();
    done.is_ok_and(|output| output.status.success())
}

#[test]
fn a_directory_of_records_that_cannot_change_is_named_and_what_ended_can_be_deleted_later() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let pid = c.pid();
    let dir = c.state_root().join(&c.id);
    let can = set_immutable(&dir, true);
    needs!(can, "needs a file system with immutable directories");
    let deleted = c.delete(&["--force"]);
    assert!(set_immutable(&dir, false));
    deleted.fails().says(&dir.display().to_string());
    assert!(!is_alive(pid));
    assert_eq!(c.status(), "stopped");
    let second = beside(&c);
    assert!(set_immutable(&c.state_root(), true));
    let created = second.create();
    assert!(set_immutable(&c.state_root(), false));
    created
        .fails()
        .says(&second.state_root().display().to_string());
    assert!(!second.cgroup().exists());
    assert_eq!(c.status(), "stopped");
    c.delete(&[]).ok();
    c.assert_gone();
}

#[test]
fn a_record_without_rights_is_told_and_nothing_is_done() {
    let c = bundle!().of_user(crate::hotplug::USER).asks(&["pause"]);
    c.up();
    let dir = c.state_root().join(&c.id);
    let set = |mode| {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).expect("chmod");
    };
    set(0);
    let calls: [&[&str]; 4] = [
        &["state", &c.id],
        &["kill", &c.id, "TERM"],
        &["exec", &c.id, "/payload", "exit", "0"],
        &["delete", "--force", &c.id],
    ];
    let said = calls.map(|words| c.call(words).finish());
    set(0o700);
    for output in said {
        output.fails().says("ermission denied").says(&c.id);
    }
    assert_eq!(c.status(), "running");
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn records_that_are_gone_are_no_container_and_nothing_else_is_touched() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let (pid, second) = (c.pid(), beside(&c).asks(&["pause"]));
    second.up();
    fs::remove_dir_all(c.state_root().join(&c.id)).expect("remove");
    for verb in ["state", "start", "delete", "pause"] {
        c.call(&[verb, &c.id])
            .finish()
            .fails_naming("does not exist");
    }
    c.delete(&["--force"]).ok();
    // The cgroup is still somebody's.
    c.create().fails_naming("cgroup is not empty");
    assert!(is_alive(pid));
    assert_eq!(second.status(), "running");
    fs::write(c.cgroup().join("cgroup.kill"), "1").expect("kill");
    wait_until("its process has ended", || !is_alive(pid));
    fs::remove_dir(c.cgroup()).expect("rmdir");
    c.up();
}
