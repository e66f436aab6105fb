//! T29, T30: a file of the image is a fifo, a device or a file of procfs, or becomes one while the runtime looks at it.

use super::nodes::Watched;
use super::races::race;
use super::ways::each_way;
use crate::support::{Bundle, copy_program, node};
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// A container whose program passes every check of `create`, and is none.
fn created(c: Bundle) -> Bundle {
    let c = c
        .file("/program", "a text")
        .set("/process/args", json!(["/program"]));
    allow_all(&c.path("rootfs/program"));
    c.create().ok();
    c
}

fn allow_all(path: &str) {
    fs::set_permissions(path, Permissions::from_mode(0o777)).expect("chmod");
}

/// Starts the container after `make` has put something else in the place of its program.
fn is_told(c: Bundle, make: fn(&str)) {
    let c = created(c);
    let path = c.path("rootfs/program");
    fs::remove_file(&path).expect("remove");
    make(&path);
    c.start()
        .fails_naming("exec: \"/program\": permission denied");
}

fn fifo(path: &str) {
    node(path, libc::S_IFIFO, 0, 0);
    allow_all(path);
}

#[test]
fn t29_what_replaces_a_created_program_keeps_no_start_waiting() {
    let kinds: [fn(&str); 4] = [
        fifo,
        |path| {
            fifo(&format!("{path}.fifo"));
            symlink("program.fifo", path).expect("symlink");
        },
        |path| drop(UnixListener::bind(path).expect("bind")),
        |path| fs::create_dir(path).expect("mkdir"),
    ];
    for kind in kinds {
        for c in each_way!() {
            is_told(c, kind);
        }
    }
}

#[test]
fn t29_a_device_that_replaces_a_created_program_is_not_opened() {
    let c = bundle!().push(
        "/linux/resources/devices",
        json!({"allow": true, "access": "rwm"}),
    );
    let c = created(c);
    let path = c.path("rootfs/program");
    fs::remove_file(&path).expect("remove");
    node(&path, libc::S_IFCHR, 1, 3);
    allow_all(&path);
    let mut watched = Watched::new(Path::new(&path));
    c.start().fails_naming("permission denied");
    watched.assert_not_opened();
}

#[test]
fn t29_a_program_becomes_a_fifo_and_back() {
    for c in each_way!() {
        copy_program(&c.rootfs().join("payload"), &c.rootfs().join("program"));
        fifo(&c.path("rootfs/other"));
        let args = ["/program", "status", "CapEff"];
        let c = c.set("/process/args", json!(args));
        race(&c, "rootfs/program", "rootfs/other", |_| ());
    }
}

/// Without a procfs a file is opened again by its name.
#[test]
fn t29_without_proc_a_missing_interpreter_is_told_and_home_is_found() {
    let c = bundle!()
        .without("/mounts", "destination", "/proc")
        .file("/etc/passwd", "root:x:0:0::/found:/bin/sh\n")
        .file("/script", "#!/no/such/shell\n")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .asks(&["env HOME"]);
    assert_eq!(c.run().ok().answer("env HOME"), "/found");
    allow_all(&c.path("rootfs/script"));
    let c = c.set("/process/args", json!(["/script"]));
    c.run().fails_naming("its interpreter \"/no/such/shell\"");
}

#[test]
fn t29_a_saved_config_that_is_no_regular_file_is_told() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let config = c.state_root().join(&c.id).join("config");
    let text = fs::read(&config).expect("read");
    let replace = |make: &dyn Fn(&str)| {
        fs::remove_file(&config).expect("remove");
        make(config.to_str().expect("text"));
        c.call(&["exec", &c.id, "/payload", "exit", "0"]).finish()
    };
    replace(&|path| node(path, libc::S_IFCHR, 1, 3)).fails_naming("is no regular file");
    replace(&|path| node(path, libc::S_IFIFO, 0, 0)).fails_naming("is no regular file");
    let sparse = |path: &str| {
        let file = fs::File::create(path).expect("create");
        file.set_len((64 << 20) + 1).expect("truncate");
    };
    replace(&sparse).fails_naming("has more than 67108864 bytes");
    replace(&|path| fs::write(path, &text).expect("write")).ok();
}

/// The container has mounted something in the mount namespace of the host.
#[test]
fn t29_a_rootfs_that_becomes_a_fifo_keeps_no_delete_waiting() {
    let c = bundle!()
        .without("/linux/namespaces", "type", "mount")
        .remove("/linux/maskedPaths")
        .remove("/linux/readonlyPaths")
        .set("/mounts", json!([]))
        .mount("tmpfs", "tmpfs", "/tmp", &[])
        .asks(&["pause"]);
    c.create().ok();
    let (rootfs, moved) = (c.path("rootfs"), c.path("moved"));
    fs::rename(&rootfs, &moved).expect("rename");
    fifo(&rootfs);
    c.delete(&["--force"]).ok();
    let status = Command::new("umount").arg(format!("{moved}/tmp")).status();
    assert!(status.expect("run umount").success());
    fs::remove_file(&rootfs).expect("remove");
    fs::rename(&moved, &rootfs).expect("rename");
}

/// For users and groups by their names.
fn exec_by_name(c: &Bundle) {
    for user in ["ann", "0:staff"] {
        let args = ["exec", "--user", user, &c.id, "/payload", "exit", "0"];
        c.call(&args).finish().fails_naming("no such ");
    }
}

#[test]
fn t30_a_passwd_file_that_is_a_device_is_not_opened() {
    let c = bundle!()
        .push(
            "/linux/resources/devices",
            json!({"allow": true, "access": "rwm"}),
        )
        .asks(&["env HOME", "pause"]);
    let files = ["rootfs/etc/passwd", "rootfs/etc/group"].map(|name| c.path(name));
    let watch = |path: &String| {
        node(path, libc::S_IFCHR, 1, 3);
        Watched::new(Path::new(path))
    };
    let mut watched: Vec<Watched> = files.iter().map(watch).collect();
    let output = c.up();
    output.wait_for("env HOME => /");
    exec_by_name(&c);
    watched.iter_mut().for_each(Watched::assert_not_opened);
}

#[test]
fn t30_a_passwd_file_that_leads_to_procfs_or_sysfs_is_not_read() {
    for target in ["/proc/version", "/sys/kernel/uevent_seqnum"] {
        let c = bundle!()
            .link("/etc/passwd", target)
            .link("/etc/group", target)
            .asks(&["pause"]);
        c.up();
        let path = format!("/proc/{}/root{target}", c.pid());
        let mut watched = Watched::new(Path::new(&path));
        exec_by_name(&c);
        watched.assert_not_opened();
    }
}

/// A name of the host that is a line of passwd(5) as well.
#[test]
fn t30_no_home_is_read_from_procfs() {
    for c in each_way!() {
        let c = c
            .set("/hostname", json!("root:x:0:0::/evil:/bin/sh"))
            .link("/etc/passwd", "/proc/sys/kernel/hostname")
            .asks(&["read /etc/passwd", "env HOME"]);
        let output = c.run().ok();
        assert!(output.answer("read /etc/passwd").contains("/evil"));
        assert_eq!(output.answer("env HOME"), "/");
    }
}

#[test]
fn t30_home_is_looked_up_with_the_rights_of_the_user() {
    let c = bundle!()
        .file("/etc/passwd", "u:x:1000:1000::/secret:/bin/sh\n")
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .asks(&["env HOME"]);
    assert_eq!(c.run().ok().answer("env HOME"), "/secret");
    let file = c.path("rootfs/etc/passwd");
    fs::set_permissions(file, Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(c.run().ok().answer("env HOME"), "/");
}
