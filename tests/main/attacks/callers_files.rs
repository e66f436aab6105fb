//! T32, T35, T40: files that the caller names are devices, fifos or other users' directories.

use super::nodes::Watched;
use super::ways::USER;
use crate::support::{Bundle, Call, Output, binary, node, wait_until};
use serde_json::json;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Makes an object at a path.
type Make = fn(&str);

/// Objects that no file of the runtime may replace.
const OBJECTS: [(&str, Make); 4] = [
    ("a fifo", |path| node(path, libc::S_IFIFO, 0, 0)),
    ("a character device", |path| node(path, libc::S_IFCHR, 1, 3)),
    ("a socket", |path| {
        drop(UnixListener::bind(path).expect("bind"))
    }),
    ("a directory", |path| fs::create_dir(path).expect("mkdir")),
];

fn identity(path: &str) -> (u64, u32, u64) {
    let found = fs::symlink_metadata(path).expect("stat");
    (found.ino(), found.mode(), found.rdev())
}

#[test]
fn t32_a_pid_file_replaces_no_device_fifo_socket_or_directory() {
    let c = bundle!().asks(&["write /ran yes", "pause"]);
    let running = Bundle::new("the_one_to_join").asks(&["pause"]);
    running.up();
    for (kind, make) in OBJECTS {
        let path = c.path("pid");
        make(&path);
        let before = identity(&path);
        let exec = [
            "exec",
            "--detach",
            "--pid-file",
            &path,
            &running.id,
            "/payload",
            "write",
            "/ran",
            "yes",
        ];
        let file = ["--pid-file", path.as_str()];
        for call in [
            c.call_new("create", &file),
            c.call_new("run", &file),
            c.call_new("run", &["--detach", file[0], file[1]]),
            running.call(&exec),
        ] {
            let words = format!("--pid-file: write {path:?}: is {kind}; name a regular file");
            call.finish().fails_naming(&words);
            assert_eq!(identity(&path), before, "{kind}");
            c.assert_gone();
        }
        let ran = [&c, &running].map(|c| c.rootfs().join("ran").exists());
        assert_eq!(ran, [false, false], "{kind}: the program ran");
        let removed = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        removed.expect("remove");
    }
}

/// Its number may be another process's by the time that somebody reads it.
#[test]
fn t32_a_program_that_cannot_be_executed_leaves_no_pid_file() {
    let c = bundle!()
        .file("/program", "\u{1}\u{2}")
        .set("/process/args", json!(["/program"]));
    let program = c.path("rootfs/program");
    fs::set_permissions(program, Permissions::from_mode(0o755)).expect("chmod");
    let path = c.path("pid");
    for flags in [&["--detach"][..], &[]] {
        let flags = [flags, &["--pid-file", &path]].concat();
        c.call_new("run", &flags).finish().fails();
        assert!(!fs::exists(&path).expect("stat"), "{flags:?}");
        c.assert_gone();
    }
}

#[test]
fn t32_a_manual_page_replaces_nothing_but_a_page() {
    let c = bundle!();
    for (kind, make) in OBJECTS {
        let dir = c.path(kind);
        fs::create_dir(&dir).expect("mkdir");
        let path = format!("{dir}/cofferdam.8");
        make(&path);
        let before = identity(&path);
        let mut watched = Watched::new(Path::new(&path));
        c.call(&["man", &dir])
            .finish()
            .fails_naming(&format!("write {path}: is {kind}"));
        assert_eq!(identity(&path), before, "{kind}");
        watched.assert_not_opened();
    }
}

/// All verbs that look at records, and those that make some.
fn with_root(c: &Bundle, root: &str) -> Vec<Output> {
    c.write_config();
    let (id, dir) = (c.id.as_str(), c.path(""));
    let verbs: [&[&str]; 14] = [
        &["list"],
        &["state", id],
        &["start", id],
        &["kill", id, "KILL"],
        &["delete", "--force", id],
        &["delete", "--regex", ".*"],
        &["exec", id, "/payload", "exit", "0"],
        &["ps", id],
        &["pause", id],
        &["update", "--pids-limit", "5", id],
        &["events", "--stats", id],
        &["stats", "--no-stream"],
        &["mounts", "list", id],
        &["create", "--bundle", &dir, id],
    ];
    let call = |verb: &&[&str]| {
        let args = [&["--root", root], *verb].concat();
        Call::new(&c.dir, args).finish()
    };
    let outputs = verbs.iter().map(call).collect();
    // The owner of a directory that the runtime has made.
    call(&["delete", "--force", id].as_slice());
    outputs
}

fn is_refused(c: &Bundle, root: &str, words: &str) {
    for output in with_root(c, root) {
        let said = output.stderr();
        assert_eq!(said.trim_end().lines().count(), 1, "{}", output.describe());
        output.fails_naming(words);
    }
    c.assert_gone();
}

fn is_taken(c: &Bundle, root: &str) {
    let call = |args: &[&str]| Call::new(&c.dir, [&["--root", root], args].concat()).finish();
    c.write_config();
    call(&["run", "--bundle", &c.path(""), &c.id]).ok();
    call(&["list"]).ok();
}

fn directory(c: &Bundle, name: &str, mode: u32, owner: (u32, u32)) -> String {
    let path = c.path(name);
    fs::create_dir_all(&path).expect("mkdir");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
    chown(&path, Some(owner.0), Some(owner.1)).expect("chown");
    path
}

#[test]
fn t35_a_root_of_another_user_is_refused() {
    let c = bundle!().asks(&["exit 0"]);
    let root = directory(&c, "other", 0o755, (USER, USER));
    let words = format!("--root: {root:?} belongs to user {USER}, who could exchange");
    is_refused(&c, &root, &words);
    let check = Call::new(&c.dir, vec!["--root", &root, "check"]).finish();
    assert!(check.exits(1).stdout().contains(&words));
    // So is one that is the caller's own, or that is still to be made, in such a directory.
    directory(&c, "other/own", 0o700, (0, 0));
    is_refused(&c, &format!("{root}/own"), &words);
    is_refused(&c, &format!("{root}/missing"), &words);
    assert!(!fs::exists(format!("{root}/missing")).expect("stat"));
    // And so is one that a link of another leads to.
    let own = directory(&c, "own", 0o700, (0, 0));
    let link = c.path("link");
    symlink(&own, &link).expect("symlink");
    is_taken(&c, &link);
    lchown(&link, Some(USER), Some(USER)).expect("chown");
    is_refused(&c, &link, &format!("--root: {link:?} belongs to user"));
    symlink("other/own", c.path("own.link")).expect("symlink");
    is_refused(&c, &c.path("own.link"), &words);
}

#[test]
fn t35_a_root_that_others_may_write_is_refused() {
    let c = bundle!().asks(&["exit 0"]);
    for (mode, group, refused) in [
        (0o777, 0, true),
        (0o707, 0, true),
        (0o770, USER, true),
        (0o775, 0, false),
        (0o755, USER, false),
        (0o711, 0, false),
        (0o1777, 0, false),
        (0o1770, USER, false),
    ] {
        let root = directory(&c, "root", mode, (0, group));
        directory(&c, "root/below", 0o700, (0, 0));
        for root in [&root, &format!("{root}/below")] {
            match refused {
                true => is_refused(
                    &c,
                    root,
                    &format!("can be written by others (mode {mode:04o})"),
                ),
                false => is_taken(&c, root),
            }
        }
    }
}

#[test]
fn t35_a_runtime_directory_of_another_user_is_refused() {
    let c = bundle!().asks(&["exit 0"]).of_user(USER);
    let program = c.dir.join(binary().file_name().expect("a name"));
    let with = |dir: &str, verb: &[&str]| {
        let call = Call::new(&c.dir, verb.to_vec()).program(&program);
        call.by_user(USER).env("XDG_RUNTIME_DIR", dir).finish()
    };
    c.run().ok();
    let (id, bundle) = (c.id.as_str(), c.path(""));
    let verbs: [&[&str]; 4] = [
        &["list"],
        &["state", id],
        &["delete", "--force", id],
        &["run", "--bundle", &bundle, id],
    ];
    for (owner, mode) in [(1234, 0o777), (USER, 0o777)] {
        let dir = directory(&c, "runtime", mode, (owner, owner));
        for verb in verbs {
            with(&dir, verb).fails_naming("who could exchange the records of containers");
        }
        assert_eq!(fs::read_dir(&dir).expect("read").count(), 0);
    }
    let dir = directory(&c, "runtime", 0o700, (USER, USER));
    with(&dir, verbs[3]).ok();
    assert_eq!(with(&dir, verbs[0]).ok().stdout().lines().count(), 1);
}

/// As engines without root call it: there the host's root, to whom /tmp belongs, has no number.
#[test]
fn t35_in_a_user_namespace_directories_of_the_host_are_no_obstacle() {
    let c = bundle!().of_user(USER);
    c.run().ok();
    let list = |root: &str| {
        let call = c.call(&["--root", root, "list"]);
        call.through_shell("exec unshare --user --map-root-user \"$0\" \"$@\"")
            .finish()
    };
    list(&c.path("state")).ok();
    let of_root = directory(&c, "of_root", 0o755, (0, 0));
    list(&of_root).fails_naming(&format!("--root: {of_root:?} belongs to user 65534"));
}

fn fifo(c: &Bundle, name: &str) -> String {
    let path = c.path(name);
    node(&path, libc::S_IFIFO, 0, 0);
    path
}

/// Each of them waits for a writer, so they wait together.
#[test]
fn t40_a_fifo_that_nobody_writes_keeps_no_reader_waiting_for_long() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let file = fifo(&c, "fifo");
    let other = Bundle::new("a_fifo_as_config").asks(&["exit 0"]);
    fifo(&other, "config.json");
    let dir = other.path("");
    let calls: [(&str, Call); 6] = [
        ("fifo", other.call(&["run", "--config", &file, &other.id])),
        (
            "config.json",
            other.call(&["create", "--bundle", &dir, &other.id]),
        ),
        (
            "config.json",
            other.call(&["create", "--dry-run", "--bundle", &dir, &other.id]),
        ),
        ("--process", c.call(&["exec", "--process", &file, &c.id])),
        (
            "--resources",
            c.call(&["update", "--resources", &file, &c.id]),
        ),
        (
            "--config",
            c.call(&["mounts", "add", "--config", &file, &c.id]),
        ),
    ];
    let calls = calls.map(|(word, call)| (word, call.spawn()));
    for (word, running) in calls {
        let output = running.wait().fails_naming(word);
        output.fails_naming("nobody has opened this fifo for writing within 5 s");
    }
    other.assert_gone();
    fs::remove_file(other.path("config.json")).expect("remove");
}

/// The writer comes late, says nothing for a while, and writes in two pieces.
fn write_slowly(file: impl Write + Send + 'static, text: String) -> std::thread::JoinHandle<()> {
    let mut file = file;
    std::thread::spawn(move || {
        let (first, second) = text.split_at(text.len() / 2);
        for piece in [first, second] {
            std::thread::sleep(std::time::Duration::from_millis(100));
            file.write_all(piece.as_bytes()).expect("write");
        }
    })
}

#[test]
fn t40_a_fifo_or_a_pipe_with_a_writer_is_read_to_its_end() {
    let c = bundle!().asks(&["exit 3"]);
    c.write_config();
    let text = fs::read_to_string(c.path("config.json")).expect("read");
    let run = |file: &str| c.call(&["run", "--bundle", &c.path(""), "--config", file, &c.id]);

    let file = fifo(&c, "fifo");
    let running = run(&file).spawn();
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(libc::O_NONBLOCK);
    let mut writer = None;
    wait_until("somebody reads", || {
        writer = options.open(&file).ok();
        writer.is_some()
    });
    write_slowly(writer.expect("a fifo"), text.clone())
        .join()
        .expect("the writer");
    running.wait().exits(3);

    for name in ["/dev/stdin", "-", "/dev/fd/7"] {
        let (reader, writer) = pipe();
        let number = if name == "/dev/fd/7" { 7 } else { 0 };
        let running = run(name).fd(reader, number).spawn();
        let writer = write_slowly(File::from(writer), text.clone());
        writer.join().expect("the writer");
        running.wait().exits(3);
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: the array has room for both; nobody else knows the new descriptors.
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

/// The reading end of a fifo, which waits for nobody.
fn reader(path: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(path).expect("open")
}

#[test]
fn t40_a_log_that_is_a_fifo_needs_a_reader() {
    let c = bundle!();
    let file = fifo(&c, "log");
    let state = |c: &Bundle| c.call(&["--log", &file, "state", "missing"]);
    let words = format!("open log file {file:?}: nobody reads from this fifo");
    state(&c).finish().fails_naming(&words);
    let mut reader = reader(&file);
    state(&c).finish().fails_with("does not exist");
    let mut text = [0; 4096];
    let length = reader.read(&mut text).expect("read");
    let line = String::from_utf8_lossy(&text[..length]).into_owned();
    assert!(line.contains("container does not exist: missing"), "{line}");
    // A reader who reads nothing keeps nobody waiting either.
    let mut full = OpenOptions::new();
    full.write(true).custom_flags(libc::O_NONBLOCK);
    let mut full = full.open(&file).expect("open");
    while full.write(&[0; 4096]).is_ok() {}
    while full.write(&[0]).is_ok() {}
    state(&c).finish().fails_with("does not exist");
}

#[test]
fn t40_a_fifo_for_the_output_of_hooks_needs_a_reader() {
    let c = bundle!().asks(&["exit 0"]);
    let file = fifo(&c, "output");
    let payload = c.path("rootfs/payload");
    let hook = json!({"path": payload, "args": [payload, "env", "WORD"], "env": ["WORD=said"]});
    let c = c
        .set("/annotations", json!({"run.oci.hooks.stdout": file}))
        .push("/hooks/createRuntime", hook);
    let words = format!("open {file:?} for the output of hooks: nobody reads from this fifo");
    c.run().fails_naming(&words);
    c.assert_gone();
    let mut reader = reader(&file);
    c.run().ok();
    let mut text = String::new();
    reader.read_to_string(&mut text).expect("read");
    assert_eq!(text, "env WORD => said\n");
}
