//! T20: ids, paths and keys that lead elsewhere: to another directory, to another cgroup, to a setting or a file of the host.

use super::post::{World, attack};
use super::ways::each_way;
use crate::support::{Bundle, Call, Runtime, cgroup_root, runtime};
use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

/// Every verb that takes an id, with what it needs besides.
const VERBS: [&[&str]; 12] = [
    &["create"],
    &["run"],
    &["start"],
    &["state"],
    &["kill"],
    &["delete"],
    &["delete", "--force"],
    &["exec"],
    &["pause"],
    &["resume"],
    &["update", "--pids-limit", "7"],
    &["events", "--stats"],
];

/// A call with an id that is not text.
fn call(c: &Bundle, verb: &[&str], id: &OsStr) -> Call {
    let (root, dir) = (c.state_root(), c.dir.clone());
    let mut args: Vec<OsString> = vec!["--root".into(), root.into()];
    args.extend(verb.iter().map(OsString::from));
    if matches!(verb[0], "create" | "run") {
        args.extend(["--bundle".into(), dir.into()]);
    }
    args.push(id.into());
    if verb[0] == "exec" {
        args.extend(["/payload", "exit", "0"].map(OsString::from));
    }
    Call::new(&c.dir, args)
}

/// A running container, and next to the root of states what must stay.
fn beside_a_container(c: Bundle) -> (Bundle, World) {
    let world = World::with(&c, &["state", "state.json", "status", "config.json"]);
    let c = c.asks(&["pause"]);
    c.up();
    (c, world)
}

#[test]
fn t20_no_verb_takes_an_id_that_leads_out() {
    let (c, mut world) = beside_a_container(bundle!());
    let long = "x".repeat(300);
    let of = |dir: &str| format!("{}/{dir}", c.id);
    let ids = [
        "..",
        ".",
        "",
        "../outside",
        "a/b",
        "/",
        "a:b",
        "a b",
        "\t",
        "a\nb",
        &long,
        "..\u{0301}",
        &of(""),
        &of("../../outside"),
    ];
    let odd = [&b"\xff"[..], b"a\xffb", b"\xc0\xaf..", b"..\x01"].map(OsStr::from_bytes);
    for id in ids.into_iter().map(OsStr::new).chain(odd) {
        for verb in VERBS {
            let output = call(&c, verb, id).finish();
            // To delete by force what is not there is no error.
            let nothing = verb == ["delete", "--force"] && runtime() != Runtime::Cofferdam;
            assert!(
                output.code() != 0 || nothing,
                "{id:?}: {}",
                output.describe()
            );
            world.assert_untouched(&output.describe());
        }
    }
    assert_eq!(c.status(), "running");
    let states: Vec<_> = fs::read_dir(c.state_root())
        .expect("read")
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(states, [OsStr::new(&c.id)]);
    world.assert_after(&c, "afterwards");
}

/// A dash in front makes it a flag, or a name as any other; never another container's or another directory.
#[test]
fn t20_an_id_with_a_dash_in_front_is_a_flag_or_a_name() {
    let (c, mut world) = beside_a_container(bundle!());
    for id in ["-x", "--force", "--root=/tmp", "--", "-"] {
        for verb in VERBS {
            if !matches!(verb[0], "create" | "run") {
                let output = call(&c, verb, OsStr::new(id)).finish();
                let nothing = verb == ["delete", "--force"];
                assert!(output.code() != 0 || nothing, "{id}: {}", output.describe());
            }
        }
        world.assert_untouched(id);
    }
    let mut other = Bundle::new("other").asks(&["exit 0"]);
    let own = std::mem::replace(&mut other.id, "-x".into());
    other.write_config();
    let dir = other.dir.display().to_string();
    other.call(&["run", "--bundle", &dir, "--", "-x"]).finish();
    other.call(&["delete", "--force", "--", "-x"]).finish();
    assert!(!other.state_root().join("-x").exists());
    other.id = own;
    assert_eq!(c.status(), "running");
    world.assert_after(&c, "afterwards");
}

#[test]
fn t20_a_cgroup_path_leads_nowhere_else() {
    for mut c in each_way!() {
        let mut world = World::new(&c);
        // An ordinary user has no cgroup to give.
        let owns = c.spec.pointer("/linux/cgroupsPath").is_some();
        for path in [
            "/../../x",
            "../../x",
            "/a/../../../y",
            "..",
            "/..",
            "a/..",
            "/cofferdam-test/../../x",
        ] {
            c = c.set("/linux/cgroupsPath", json!(path)).asks(&["exit 0"]);
            let output = c.call_new("create", &[]).finish();
            assert!(output.code() != 0, "{path}: {}", output.describe());
            c.assert_gone();
            for name in ["x", "y", "a"] {
                assert!(!cgroup_root().join(name).exists(), "{path} (own: {owns})");
            }
        }
        world.assert_after(&c, "afterwards");
    }
}

const KEYS: [&str; 16] = [
    "net/../kernel/core_pattern",
    "net/ipv4/../../kernel/core_pattern",
    "net.ipv4..x",
    "net..kernel.core_pattern",
    "kernel.core_pattern",
    "kernel/core_pattern",
    "/kernel/core_pattern",
    "/proc/sys/kernel/core_pattern",
    "../kernel/core_pattern",
    "net/./ipv4/ip_forward",
    "net//ipv4/ip_forward",
    "net.ipv4.ip_forward/../../../kernel/core_pattern",
    "fs.mqueue/../binfmt_misc/register",
    "kernel.hostname",
    "",
    ".",
];

#[test]
fn t20_sysctl_keys_lead_to_no_setting_of_the_host() {
    for mut c in each_way!() {
        let mut world = World::new(&c);
        let value = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("read");
        for key in KEYS {
            c = c.set("/linux/sysctl", json!({key: value.trim_end()}));
            c.create().fails_naming("linux.sysctl");
            c.assert_gone();
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t20_settings_without_their_namespace_are_those_of_the_host() {
    for (kind, key) in [
        ("network", "net.ipv4.ip_forward"),
        ("ipc", "kernel.msgmax"),
        ("ipc", "fs.mqueue.msg_max"),
        ("uts", "kernel.domainname"),
        ("user", "user.max_net_namespaces"),
    ] {
        for mut c in each_way!() {
            let mut world = World::new(&c);
            let path = format!("/proc/sys/{}", key.replace('.', "/"));
            let value = fs::read_to_string(path).expect("read");
            let namespaces = c.spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list");
            namespaces.retain(|namespace| namespace["type"] != kind);
            if kind == "user" {
                c = c.remove("/linux/uidMappings").remove("/linux/gidMappings");
            }
            c = c
                .remove("/hostname")
                .set("/linux/sysctl", json!({key: value.trim_end()}));
            c.create().fails();
            c.assert_gone();
            world.assert_after(&c, "afterwards");
        }
    }
}

/// In a directory where others may write too.
#[test]
fn t20_a_pid_file_is_not_written_through_a_link() {
    for c in each_way!() {
        let mut world = World::with(&c, &["there"]);
        let c = c.asks(&["pause"]);
        let (file, exec_file) = (c.path("pid"), c.path("exec.pid"));
        for file in [&file, &exec_file] {
            symlink(format!("{}/there", world.outside.dir), file).expect("symlink");
        }
        c.call_new("create", &["--pid-file", &file]).finish();
        world.assert_untouched("the pid file of create");
        if c.start().code() == 0 {
            let args = [
                "exec",
                "--detach",
                "--pid-file",
                &exec_file,
                &c.id,
                "/payload",
                "pause",
            ];
            c.call(&args).finish();
            world.assert_untouched("the pid file of exec");
        }
        c.delete(&["--force"]).ok();
        for target in [format!("{}/missing", world.outside.dir), c.path("dangling")] {
            fs::remove_file(&file).expect("remove");
            symlink(target, &file).expect("symlink");
            c.call_new("create", &["--pid-file", &file]).finish();
            world.assert_untouched("a pid file that leads nowhere");
            assert!(!fs::exists(c.path("dangling")).expect("stat"));
            c.delete(&["--force"]).ok();
        }
        world.assert_after(&c, "afterwards");
    }
}

/// The name under which it is written first could have been guessed.
#[test]
fn t20_names_beside_the_pid_file_are_not_followed() {
    let c = bundle!().asks(&["pause"]);
    let mut world = World::with(&c, &["there"]);
    c.create().ok();
    let next = c.pid();
    c.delete(&["--force"]).ok();
    fs::create_dir(c.path("pids")).expect("mkdir");
    for pid in next..next + 2000 {
        for name in [
            format!(".pid.{pid}"),
            format!(".pid{pid}"),
            format!("pid.{pid}"),
        ] {
            symlink(
                format!("{}/there", world.outside.dir),
                c.path(&format!("pids/{name}")),
            )
            .expect("symlink");
        }
    }
    for name in [".pid.tmp", "pid.tmp", ".pid", "pid~"] {
        symlink(
            format!("{}/there", world.outside.dir),
            c.path(&format!("pids/{name}")),
        )
        .expect("symlink");
    }
    c.call_new("create", &["--pid-file", &c.path("pids/pid")])
        .finish();
    world.assert_after(&c, "the pid file");
}

/// Who may change a directory may put a link there to a socket of somebody else. Nothing but a socket takes the terminal, and
/// what is no socket is left as it is.
#[test]
fn t20_a_console_socket_that_is_none_is_left_alone() {
    for c in each_way!() {
        let mut world = World::with(&c, &["there"]);
        let c = c.set("/process/terminal", json!(true)).asks(&["pause"]);
        for target in [
            format!("{}/there", world.outside.dir),
            format!("{}/missing", world.outside.dir),
            "/dev/null".into(),
        ] {
            let path = c.path("console.sock");
            let _ = fs::remove_file(&path);
            symlink(&target, &path).expect("symlink");
            for verb in ["create", "run"] {
                let more: &[&str] = if verb == "run" { &["--detach"] } else { &[] };
                let flags = [&["--console-socket", path.as_str()], more].concat();
                c.call_new(verb, &flags).finish().fails();
                c.assert_gone();
                world.assert_untouched(&target);
            }
        }
        world.assert_after(&c, "afterwards");
    }
}

/// Whoever may change the bundle's directory would choose the root of the host as well.
#[test]
fn t20_the_root_of_a_container_is_no_link() {
    for mut c in each_way!() {
        let mut world = World::new(&c);
        let link = c.path("link");
        for target in [
            "/",
            "rootfs",
            &c.path("rootfs"),
            &world.outside.dir.clone(),
            "missing",
        ] {
            let _ = fs::remove_file(&link);
            symlink(target, &link).expect("symlink");
            for path in ["link", "link/", "link/.", "rootfs/../link"] {
                c = c.asks(&["ls /"]).set("/root/path", json!(path));
                let output = attack(&c, &mut world, &format!("{path} -> {target}"));
                let inside = || output.answer("ls /").contains("payload");
                assert!(output.code() != 0 || inside(), "{}", output.describe());
                let to_host = target == "/" || target == world.outside.dir;
                assert!(!to_host || output.code() != 0, "{}", output.describe());
            }
        }
    }
}

#[test]
fn t20_a_listener_that_is_no_socket_is_left_alone() {
    for mut c in each_way!() {
        let mut world = World::with(&c, &["there"]);
        let path = c.path("agent");
        let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]);
        let filter =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": path});
        c = c.set("/linux/seccomp", filter).asks(&["report"]);
        for target in ["there", "missing"].map(|name| format!("{}/{name}", world.outside.dir)) {
            let _ = fs::remove_file(&path);
            symlink(&target, &path).expect("symlink");
            attack(&c, &mut world, &target).fails();
        }
    }
}
