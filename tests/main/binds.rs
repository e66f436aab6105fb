//! Bind mounts: sources, flags, recursive attributes, id maps, and what they may cover.

use crate::mounts::{has, options_of};
use crate::support::Bundle;
use crate::support::terminal::listen;
use serde_json::json;
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};

#[test]
fn defaults_on_a_bind_mount() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let source = c.path("source");
    let c = c
        .mount("bind", &source, "/mnt", &["bind", "defaults"])
        .asks(&["ls /mnt"]);
    c.run().ok();
}

#[test]
fn bind_a_directory() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    fs::write(c.path("source/file"), "hello").expect("write");
    let source = c.path("source");
    let c = c.mount("bind", &source, "/new/deep/target", &["bind"]);
    let c = c.asks(&[
        "read /new/deep/target/file",
        "write /new/deep/target/back text",
    ]);
    assert_eq!(c.run().ok().answer("read /new/deep/target/file"), "hello");
    assert_eq!(
        fs::read_to_string(c.path("source/back")).expect("written"),
        "text"
    );
    assert!(c.rootfs().join("new/deep/target").is_dir());
}

#[test]
fn bind_a_file() {
    let c = bundle!();
    fs::write(c.path("source"), "hello").expect("write");
    let source = c.path("source");
    let c = c
        .mount("bind", &source, "/new/file", &["rbind", "rprivate", "rw"])
        .asks(&["read /new/file"]);
    assert_eq!(c.run().ok().answer("read /new/file"), "hello");
    let target = fs::metadata(c.rootfs().join("new/file")).expect("made");
    assert!(target.is_file() && target.len() == 0);
}

#[test]
fn the_option_makes_the_bind_whatever_the_type_says() {
    let c = bundle!();
    fs::write(c.path("source"), "hello").expect("write");
    let source = c.path("source");
    let c = c
        .mount("none", &source, "/one", &["bind"])
        .asks(&["read /one", "read /two"]);
    let c = c.push(
        "/mounts",
        json!({"destination": "/two", "source": source, "options": ["rbind"]}),
    );
    let output = c.run().ok();
    assert_eq!(
        (
            output.answer("read /one").as_str(),
            output.answer("read /two").as_str()
        ),
        ("hello", "hello")
    );
}

#[test]
fn a_relative_source_is_below_the_bundle() {
    let c = bundle!();
    fs::write(c.path("near"), "hello").expect("write");
    let c = c
        .mount("bind", "near", "/one", &["bind"])
        .asks(&["read /one"]);
    let call = c.call_new("run", &[]).cwd(std::path::Path::new("/"));
    assert_eq!(call.finish().ok().answer("read /one"), "hello");
}

#[test]
fn a_missing_source_is_an_error_that_names_it() {
    for user in [false, true] {
        let c = bundle!().mount("bind", "/no/such/source", "/mnt", &["bind"]);
        let c = if user { c.in_user_namespace() } else { c };
        c.create()
            .fails_with("/no/such/source")
            .fails_naming("nothing is at the source")
            .fails_naming("; make it, or correct mounts[");
        c.assert_gone();
    }
}

#[test]
fn flags_of_a_bind_mount() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let source = c.path("source");
    let c = c.mount(
        "bind",
        &source,
        "/mnt",
        &["bind", "ro", "nosuid", "nodev", "noexec"],
    );
    let c = c.asks(&["write /mnt/x y", "mountinfo /mnt"]);
    let output = c.run().ok();
    assert_eq!(output.answer("write /mnt/x y"), "EROFS");
    let (options, _) = options_of(&output.answer("mountinfo /mnt"));
    assert!(
        ["ro", "nosuid", "nodev", "noexec"]
            .iter()
            .all(|o| has(&options, o)),
        "{options:?}"
    );
}

#[test]
fn data_on_a_bind_mount_is_ignored() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let source = c.path("source");
    let c = c
        .mount(
            "bind",
            &source,
            "/mnt",
            &["bind", "mode=755", "size=65536k", "a=b"],
        )
        .asks(&["ls /mnt"]);
    c.run().ok();
}

#[test]
fn rbind_takes_what_is_below_and_bind_does_not() {
    let c = bundle!().mount("bind", "/dev", "/one", &["bind"]).mount(
        "bind",
        "/dev",
        "/two",
        &["rbind"],
    );
    let output = c.asks(&["mounts"]);
    let mounts = output.run().ok().answer("mounts");
    let all: Vec<&str> = mounts.split(',').collect();
    assert!(
        !all.contains(&"/one/pts") && all.contains(&"/two/pts"),
        "{mounts}"
    );
}

#[test]
fn ro_is_for_one_mount_and_rro_for_all_below() {
    let c = bundle!()
        .mount("bind", "/dev", "/one", &["rbind", "ro"])
        .mount("bind", "/dev", "/two", &["rbind", "rro"])
        .asks(&[
            "mountinfo /one",
            "mountinfo /one/shm",
            "mountinfo /two",
            "mountinfo /two/shm",
        ]);
    let output = c.run().ok();
    let read_only = |path: &str| {
        has(
            &options_of(&output.answer(&format!("mountinfo {path}"))).0,
            "ro",
        )
    };
    let found = ["/one", "/one/shm", "/two", "/two/shm"].map(read_only);
    assert_eq!(found, [true, false, true, true]);
}

#[test]
fn recursive_attributes() {
    let cases = [
        ("rnosuid", "nosuid"),
        ("rnodev", "nodev"),
        ("rnoexec", "noexec"),
        ("rnoatime", "noatime"),
        ("rnodiratime", "nodiratime"),
        ("rrelatime", "relatime"),
    ];
    let mut c = bundle!();
    for (index, (given, _)) in cases.iter().enumerate() {
        c = c.mount("bind", "/dev", &format!("/m{index}"), &["rbind", given]);
    }
    let questions: Vec<String> = (0..cases.len())
        .map(|i| format!("mountinfo /m{i}/shm"))
        .collect();
    let c = c.asks(&questions.iter().map(String::as_str).collect::<Vec<_>>());
    let output = c.run().ok();
    for ((given, shown), question) in cases.iter().zip(&questions) {
        let (options, _) = options_of(&output.answer(question));
        assert!(has(&options, shown), "{given}: {options:?}");
    }
}

#[test]
fn recursive_attributes_can_be_cleared() {
    let c = bundle!()
        .mount("bind", "/dev", "/one", &["rbind", "rnoexec", "rnosuid"])
        .mount(
            "bind",
            "/dev",
            "/two",
            &[
                "rbind",
                "nosuid",
                "rsuid",
                "rrw",
                "rdev",
                "rexec",
                "rstrictatime",
            ],
        )
        .asks(&["mountinfo /one/pts", "mountinfo /two/shm"]);
    let output = c.run().ok();
    let (one, _) = options_of(&output.answer("mountinfo /one/pts"));
    let (two, _) = options_of(&output.answer("mountinfo /two/shm"));
    assert!(has(&one, "noexec") && has(&one, "nosuid"), "{one:?}");
    assert!(
        !has(&two, "nosuid") && !has(&two, "noexec") && !has(&two, "relatime"),
        "{two:?}"
    );
}

#[test]
fn an_idmapped_bind_mount() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    fs::write(c.path("source/file"), "x").expect("write");
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let mount = json!({
        "destination": "/mnt", "type": "bind", "source": c.path("source"), "options": ["bind", "idmap"],
        "uidMappings": map, "gidMappings": map,
    });
    let c = c.push("/mounts", mount).asks(&["stat /mnt/file"]);
    let output = c.run();
    assert_eq!(output.ok().answer("stat /mnt/file"), "file 0644 5000:5000");
}

#[test]
fn idmap_without_any_map_is_refused() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let source = c.path("source");
    let c = c.mount("bind", &source, "/mnt", &["bind", "idmap"]);
    c.create().fails();
    c.assert_gone();
}

#[test]
fn the_last_mount_on_a_target_is_seen() {
    let c = bundle!();
    fs::write(c.path("one"), "1").expect("write");
    fs::write(c.path("two"), "2").expect("write");
    let (one, two) = (c.path("one"), c.path("two"));
    let c = c
        .mount("bind", &one, "/f", &["bind"])
        .mount("bind", &two, "/f", &["bind"])
        .asks(&["read /f"]);
    assert_eq!(c.run().ok().answer("read /f"), "2");
}

#[test]
fn a_directory_cannot_be_bound_on_a_file() {
    let c = bundle!().file("/file", "");
    fs::create_dir(c.path("source")).expect("mkdir");
    let source = c.path("source");
    let c = c.mount("bind", &source, "/file", &["bind"]);
    c.create().fails();
    c.assert_gone();
}

#[test]
fn files_of_proc_may_be_covered() {
    let c = bundle!();
    fs::write(c.path("fake"), "fake\n").expect("write");
    let fake = c.path("fake");
    let names = [
        "cpuinfo",
        "meminfo",
        "stat",
        "uptime",
        "loadavg",
        "swaps",
        "diskstats",
    ];
    let paths: Vec<String> = names.iter().map(|n| format!("/proc/{n}")).collect();
    let c = paths
        .iter()
        .fold(c, |c, path| c.mount("bind", &fake, path, &["bind"]));
    let questions: Vec<String> = paths.iter().map(|p| format!("read {p}")).collect();
    let c = c.asks(&questions.iter().map(String::as_str).collect::<Vec<_>>());
    let output = c.run().ok();
    for question in &questions {
        assert_eq!(output.answer(question), "fake", "{question}");
    }
}

#[test]
fn nothing_else_of_proc_may_be_covered() {
    let mut c = bundle!();
    fs::write(c.path("fake"), "fake\n").expect("write");
    fs::create_dir(c.path("folder")).expect("mkdir");
    let before = c.spec.clone();
    let cases = [
        ("tmpfs", "tmpfs".into(), "/proc/self/attr"),
        ("tmpfs", "tmpfs".into(), "/proc/sys"),
        ("bind", c.path("fake"), "/proc/sys/kernel/core_pattern"),
        ("bind", c.path("folder"), "/proc/1"),
        ("bind", c.path("fake"), "/proc/self/environ"),
    ];
    for (kind, source, target) in cases {
        c.spec = before.clone();
        println!("{kind} on {target}");
        let options: &[&str] = if kind == "bind" { &["bind"] } else { &[] };
        c = c.mount(kind, &source, target, options);
        c.create().fails_with("/proc");
        c.assert_gone();
    }
}

#[test]
fn proc_of_the_host_can_be_bound() {
    let mut c = bundle!()
        .without("/linux/namespaces", "type", "pid")
        .asks(&["mountinfo /proc"]);
    c.spec["mounts"][0] =
        json!({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]});
    let line = c.run().ok().answer("mountinfo /proc");
    assert!(line.contains(" - proc "), "{line}");
}

/// A container with one bind of a file of the bundle that has this name.
pub fn bound(c: Bundle, name: &str, target: &str, options: &[&str]) -> Bundle {
    let source = c.path(name);
    c.mount("bind", &source, target, options)
}

#[test]
fn a_symlink_is_copied_instead_of_mounted() {
    let c = bundle!().link("/there", "../else/where").folder("/full");
    symlink("../else/where", c.path("link")).expect("symlink");
    fs::write(c.path("plain"), "plain").expect("write");
    let c = bound(c, "link", "/new/deep/link", &["bind", "copy-symlink"]);
    let c = bound(c, "link", "/there", &["rbind", "copy-symlink", "ro"]);
    let c = bound(c, "plain", "/plain", &["bind", "copy-symlink", "ro"]);
    let c = c.asks(&[
        "lstat /new/deep/link",
        "lstat /there",
        "read /plain",
        "write /plain x",
    ]);
    let output = c.run().ok();
    assert_eq!(
        output.answer("lstat /new/deep/link"),
        "link -> ../else/where"
    );
    assert_eq!(output.answer("lstat /there"), "link -> ../else/where");
    assert_eq!(output.answer("read /plain"), "plain");
    assert_eq!(output.answer("write /plain x"), "EROFS");
    let c = bound(c, "link", "/full", &["bind", "copy-symlink"]);
    c.create().fails_naming("something else is there already");
    c.assert_gone();
}

#[test]
fn a_symlink_can_be_bound_and_covered_itself() {
    let c = bundle!().link("/covered", "/nowhere").file("/target", "T");
    symlink("/target", c.path("link")).expect("symlink");
    fs::write(c.path("plain"), "plain").expect("write");
    let c = bound(c, "link", "/bound", &["bind", "src-nofollow"]);
    let c = bound(c, "plain", "/covered", &["bind", "dest-nofollow"]);
    let c = bound(c, "plain", "/new/one", &["bind", "dest-nofollow"]);
    let c = c.asks(&[
        "lstat /bound",
        "read /bound",
        "read /covered",
        "lstat /nowhere",
        "read /new/one",
    ]);
    let output = c.run().ok();
    assert_eq!(output.answer("lstat /bound"), "link -> /target");
    assert_eq!(output.answer("read /bound"), "T");
    assert_eq!(output.answer("read /covered"), "plain");
    assert_eq!(output.answer("lstat /nowhere"), "ENOENT");
    assert_eq!(output.answer("read /new/one"), "plain");
}

#[test]
fn links_of_the_host_are_copied_in_a_user_namespace_too() {
    let c = bundle!().in_user_namespace();
    fs::create_dir(c.path("private")).expect("mkdir");
    fs::set_permissions(c.path("private"), PermissionsExt::from_mode(0o700)).expect("chmod");
    symlink("text", c.path("private/link")).expect("symlink");
    let c = bound(c, "private/link", "/link", &["bind", "copy-symlink"]);
    let c = c.asks(&["lstat /link"]);
    let output = c.run().ok();
    assert_eq!(output.answer("lstat /link"), "link -> text");
}

#[test]
fn id_maps_of_the_container_and_of_the_mount() {
    let c = bundle!().in_user_namespace();
    let files = [("files/plain", 0), ("files/sub/deep", 3)];
    fs::create_dir_all(c.path("files/sub")).expect("mkdir");
    let c = c.with_tmpfs("files/sub", 0);
    for (name, owner) in files {
        fs::write(c.path(name), "x").expect("write");
        std::os::unix::fs::chown(c.path(name), Some(owner), Some(owner)).expect("chown");
    }
    let source = c.path("files");
    let map = json!([{"containerID": 0, "hostID": 100010, "size": 100}]);
    let own = json!({"destination": "/own", "source": source, "options": ["rbind", "ridmap"],
        "uidMappings": map, "gidMappings": map});
    let silent = json!({"destination": "/silent", "source": source, "options": ["rbind"],
        "uidMappings": map, "gidMappings": map});
    let c = c.push("/mounts", own).push("/mounts", silent);
    let c = bound(c, "files", "/container", &["rbind", "ridmap"]);
    let c = bound(c, "files", "/top", &["rbind", "idmap"]);
    let c = bound(c, "files", "/none", &["rbind"]);
    let c = c.asks(&[
        "stat /own/plain",
        "stat /own/sub/deep",
        "stat /silent/plain",
        "stat /container/plain",
        "stat /container/sub/deep",
        "stat /top/plain",
        "stat /top/sub/deep",
        "stat /none/plain",
    ]);
    let output = c.run().ok();
    for (question, owner) in [
        ("/own/plain", 10),
        ("/own/sub/deep", 13),
        ("/silent/plain", 10),
        ("/container/plain", 0),
        ("/container/sub/deep", 3),
        ("/top/plain", 0),
        ("/top/sub/deep", 65534),
        ("/none/plain", 65534),
    ] {
        let answer = output.answer(&format!("stat {question}"));
        assert_eq!(answer, format!("file 0644 {owner}:{owner}"), "{question}");
    }
}

/// To open some devices is to set something off.
#[test]
fn what_is_no_multiplexer_of_terminals_is_not_opened() {
    let mut c = bundle!().set("/process/terminal", json!(true));
    fs::create_dir(c.path("pts")).expect("mkdir");
    fs::write(c.path("pts/ptmx"), "decoy").expect("write");
    c.spec["mounts"][2] = json!({"destination": "/dev/pts", "type": "bind", "source": c.path("pts"), "options": ["bind"]});
    let path = std::ffi::CString::new(c.path("pts/ptmx")).expect("a path");
    // SAFETY: the path is a C string; nobody else knows the new descriptor.
    let events = unsafe {
        let events = libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC);
        assert!(libc::inotify_add_watch(events, path.as_ptr(), libc::IN_OPEN) > 0);
        OwnedFd::from_raw_fd(events)
    };
    let socket = c.dir.join("console.sock");
    let _listener = listen(&socket);
    let flags = ["--console-socket", &socket.display().to_string()];
    c.call_new("create", &flags)
        .finish()
        .fails_naming("no usable /dev/pts/ptmx");
    let mut event = [0u8; 64];
    let read = std::io::Read::read(&mut fs::File::from(events), &mut event);
    let nothing = read.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    assert!(nothing, "it was opened");
}
