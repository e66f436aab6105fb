//! T03, T04: a container that waits for the runtime to come in, to enter its process or to keep its program.
//! CVE-2016-8649, CVE-2016-9962, CVE-2019-5736, CVE-2026-41163.

use super::post::{World, attack};
use super::ways::each_way;
use crate::support::terminal::{Terminal, listen, receive};
use crate::support::{Bundle, Call, binary, copy_program, has_controller};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::{fs, io};

/// Not the binary itself, which may be overwritten if this goes wrong.
pub fn own_program(c: &Bundle) -> PathBuf {
    let program = c.dir.join(binary().file_name().expect("a name"));
    if !program.exists() {
        copy_program(&binary(), &program);
    }
    program
}

/// As often as others win or lose the race; on a terminal now and then.
fn times() -> usize {
    match std::env::var_os("COFFERDAM_TORTURE") {
        Some(_) => 500,
        None => 12,
    }
}

/// What a container could do to those that joined it: `N seen: WHAT, WHAT`.
pub fn prowl(c: Bundle, join: impl Fn(&Bundle, &dyn Fn(&[&str]) -> Call)) -> String {
    let program = own_program(&c);
    let mut world = World::new(&c);
    let marker = format!("{}/ptmx", world.outside.dir);
    let question = format!("prowl {marker}");
    let c = c
        .asks(&[&question])
        .set("/process/noNewPrivileges", json!(false));
    let call = |args: &[&str]| c.call(args).program(&program);
    let create = c.call_new("create", &[]).program(&program).finish().ok();
    call(&["start", &c.id]).finish().ok();
    create.wait_for("prowling");
    join(&c, &call);
    fs::write(c.rootfs().join("stop"), "").expect("write");
    create.wait_for(&format!("{question} => "));
    let answer = create.answer(&question);
    println!("{answer}");
    assert!(!answer.starts_with("0 seen"), "nobody came by");
    world.assert_after(&c, &answer);
    answer
}

fn join_often(c: &Bundle, call: &dyn Fn(&[&str]) -> Call) {
    let exec = |more: &[&str]| {
        let args = [&["exec"], more, &[&c.id, "/payload", "exit", "0"]].concat();
        call(&args)
    };
    for _ in 0..times() {
        exec(&[]).finish().ok();
    }
    for _ in 0..times() / 6 {
        let (_terminal, slave) = Terminal::pair(80, 24);
        exec(&["--tty"]).on_terminal(slave).finish().ok();
    }
    let path = c.dir.join("console.sock");
    let listener = listen(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    let socket = path.display().to_string();
    exec(&["--tty", "--detach", "--console-socket", &socket])
        .finish()
        .ok();
    receive(&listener);
}

/// Whoever has the capabilities of whom it sees in the same user namespace may enter it, whatever it does about that.
fn reached(answer: &str) -> Vec<&str> {
    let list = answer.split_once("seen: ").expect("an answer").1;
    let all = list.split(", ").filter(|what| !what.is_empty());
    all.filter(|what| *what != "program EROFS" && *what != "program EPERM")
        .collect()
}

#[test]
fn t03_a_process_that_joins_cannot_be_entered() {
    for c in each_way!() {
        let c = c.caps(&["CAP_KILL", "CAP_DAC_OVERRIDE", "CAP_CHOWN"]);
        let answer = prowl(c, join_often);
        assert!(reached(&answer).is_empty(), "{answer}");
    }
}

pub const ALL: [&str; 12] = [
    "CAP_SYS_PTRACE",
    "CAP_SYS_ADMIN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_SETUID",
    "CAP_SETGID",
    "CAP_KILL",
    "CAP_SYS_CHROOT",
    "CAP_NET_ADMIN",
    "CAP_SETPCAP",
    "CAP_CHOWN",
    "CAP_FOWNER",
];

#[test]
fn t03_a_tracer_inside_finds_no_way_out_of_a_process_that_joins() {
    for c in each_way!() {
        let c = c.caps(&ALL);
        let confined = c.spec["linux"].get("uidMappings").is_some();
        let answer = prowl(c, join_often);
        assert!(!answer.contains("host through"), "{answer}");
        // Without a user namespace the container has each capability that the kernel asks for.
        assert!(!confined || reached(&answer).is_empty(), "{answer}");
    }
}

/// An agent that takes what it is told, and does nothing.
fn agent(c: &Bundle) -> String {
    let path = c.path("agent");
    let listener = UnixListener::bind(&path).expect("bind");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    let hear = |stream: UnixStream| io::copy(&mut &stream, &mut io::sink());
    std::thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .for_each(|stream| drop(hear(stream)))
    });
    path
}

/// Its filter is in force, and it waits for its agent: longer than others for anything.
#[test]
fn t03_a_process_that_hands_a_listener_over_cannot_be_entered() {
    for c in each_way!() {
        let filter = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_NOTIFY"}],
            "listenerPath": agent(&c),
        });
        let confined = c.spec["linux"].get("uidMappings").is_some();
        let c = c.caps(&ALL).set("/linux/seccomp", filter);
        let answer = prowl(c, join_often);
        assert!(!answer.contains("host through"), "{answer}");
        assert!(!confined || reached(&answer).is_empty(), "{answer}");
    }
}

#[test]
fn t04_a_program_that_joins_cannot_be_overwritten() {
    for c in each_way!() {
        let c = c.caps(&ALL);
        for (name, program) in [("self", "/proc/self/exe"), ("first", "/proc/1/exe")] {
            let path = c.rootfs().join(name);
            fs::write(&path, format!("#!{program}\n")).expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        let answer = prowl(c, |c, call| {
            for program in ["/self", "/first", "/proc/self/exe", "/proc/1/exe"] {
                for _ in 0..times() / 4 {
                    call(&["exec", &c.id, program, "--version"]).finish();
                }
            }
        });
        assert!(!answer.contains("program overwritten"), "{answer}");
    }
}

/// What the runtime keeps its program in is not taken from what the container may have.
#[test]
fn t04_the_copy_of_the_program_is_not_in_the_memory_of_the_container() {
    needs!(has_controller("memory"), "needs the memory controller");
    for c in each_way!() {
        if c.spec["linux"].get("cgroupsPath").is_some() {
            let mut world = World::new(&c);
            let c = c.set("/linux/resources/memory", json!({"limit": 6 << 20}));
            attack(&c, &mut world, "little memory").ok();
        }
    }
}

#[test]
fn t04_the_first_process_is_not_the_runtime() {
    for mut c in each_way!() {
        let mut world = World::new(&c);
        let path = c.rootfs().join("self");
        fs::write(&path, "#!/proc/self/exe\n").expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
        for program in ["/proc/self/exe", "/proc/1/exe", "/self"] {
            c = c.set("/process/args", json!([program, "--version"]));
            c.run();
            world.assert_after(&c, program);
        }
    }
}
