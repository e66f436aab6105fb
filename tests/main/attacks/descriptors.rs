//! T11: an open directory of the host, which the caller or the runtime has left open, as the way to the working directory or to
//! the program. CVE-2024-21626.

use super::post::World;
use super::ways::each_way;
use crate::support::{Bundle, Call, Output, copy_program, seed};
use serde_json::json;
use std::fs::{self, File};

/// All that the caller leaves open, and those that a runtime itself has in use.
const OPEN: std::ops::Range<i32> = 3..64;
const USED: std::ops::Range<i32> = 3..10;

/// Has the runtime inherit that directory as each of the numbers.
fn with_open(call: Call, dir: &str) -> Call {
    OPEN.fold(call, |call, number| {
        call.fd(File::open(dir).expect("open"), number)
    })
}

/// With that directory open, or with nothing but what the runtime opens itself.
fn finish(call: Call, open: bool, dir: &str) -> Output {
    if open { with_open(call, dir) } else { call }.finish()
}

/// A few of the open ones, others each time; all of them with `COFFERDAM_TORTURE`.
fn open_ones() -> impl Iterator<Item = i32> {
    let all = std::env::var_os("COFFERDAM_TORTURE").is_some();
    let (stride, offset) = if all {
        (1, 0)
    } else {
        (8, seed() as usize % 8)
    };
    OPEN.skip(offset).step_by(stride)
}

/// Every open number by its plain name, and some by the other names; each once more where only the runtime's own are open.
fn tried<const N: usize>(names: fn(i32) -> [String; N]) -> impl Iterator<Item = (String, bool)> {
    let plain = open_ones().map(move |number| (names(number)[0].clone(), true));
    let others = [3, 7].into_iter().flat_map(names).map(|name| (name, true));
    let own = USED.flat_map(move |number| names(number).into_iter().take(2));
    plain.chain(others).chain(own.map(|name| (name, false)))
}

/// Names for the N-th descriptor of the process; the last one is a link of the image.
fn directories(number: i32) -> [String; 5] {
    let fd = format!("/proc/self/fd/{number}");
    [
        fd.clone(),
        format!("{fd}/../../.."),
        format!("/proc/1/fd/{number}"),
        format!("/proc/thread-self/fd/{number}"),
        format!("/w{number}"),
    ]
}

fn with_links(c: Bundle) -> Bundle {
    USED.fold(c, |c, number| {
        c.link(&format!("/w{number}"), &format!("/proc/self/fd/{number}"))
    })
}

/// Where the payload is, and what it sees of the host from there.
fn questions(world: &World) -> [String; 2] {
    ["ls .".into(), format!("ls {}", world.outside.upwards())]
}

fn assert_inside(output: &Output, world: &World, what: &str) {
    if output.code() == 0 {
        let [here, above] = questions(world).map(|question| output.answer(&question));
        let inside = !here.contains("secret") && above == "ENOENT";
        assert!(inside, "{what}: {here}; {above}");
    }
    assert!(
        !output.stdout().contains("secret"),
        "{what}: {}",
        output.describe()
    );
}

#[test]
fn t11_no_descriptor_is_the_working_directory() {
    for c in each_way!() {
        let mut world = World::with(&c, &["secret"]);
        let mut c = with_links(c).asks(&questions(&world).each_ref().map(String::as_str));
        for (cwd, open) in tried(directories) {
            c = c.set("/process/cwd", json!(cwd));
            let call = c.call_new("run", &[]);
            let output = finish(call, open, &world.outside.dir);
            assert_inside(&output, &world, &cwd);
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t11_no_descriptor_is_the_working_directory_of_exec() {
    for c in each_way!() {
        let mut world = World::with(&c, &["secret"]);
        let c = with_links(c).asks(&["pause"]);
        c.up();
        let words = questions(&world).join(" ; ");
        for (cwd, open) in tried(directories) {
            let args = ["exec", "--cwd", &cwd, &c.id, "/payload"];
            let args: Vec<&str> = args.into_iter().chain(words.split(' ')).collect();
            let call = c.call(&args);
            let output = finish(call, open, &world.outside.dir);
            assert_inside(&output, &world, &cwd);
        }
        world.assert_after(&c, "afterwards");
    }
}

/// A directory of the host with a program that needs nothing else.
fn with_program(c: &Bundle) -> String {
    fs::create_dir_all(c.path("host/bin")).expect("mkdir");
    copy_program(&c.rootfs().join("payload"), &c.dir.join("host/bin/true"));
    c.path("host")
}

/// Programs by way of the N-th descriptor, where that is such a directory.
fn programs(number: i32) -> [String; 6] {
    let fd = format!("/proc/self/fd/{number}");
    [
        format!("{fd}/bin/true"),
        format!("{fd}/../host/bin/true"),
        fd,
        format!("/proc/1/fd/{number}/bin/true"),
        format!("/w{number}/bin/true"),
        format!("/proc/self/cwd/proc/self/fd/{number}/bin/true"),
    ]
}

/// The image has no such file, so every one of them must fail.
#[test]
fn t11_no_descriptor_leads_to_the_program() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let host = with_program(&c);
        let mut c = with_links(c);
        let up = format!("/proc/self/cwd/../../../../../../../..{host}/bin/true");
        for (program, open) in tried(programs).chain([(up, true)]) {
            c = c.set("/process/args", json!([program]));
            let call = c.call_new("run", &[]);
            finish(call, open, &host).fails();
        }
        world.assert_after(&c, "afterwards");
    }
}

#[test]
fn t11_no_descriptor_leads_to_the_program_of_exec() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let host = with_program(&c);
        let c = with_links(c).asks(&["pause"]);
        c.up();
        for (program, open) in tried(programs) {
            let call = c.call(&["exec", &c.id, &program]);
            finish(call, open, &host).fails();
        }
        world.assert_after(&c, "afterwards");
    }
}

/// What the waiting process has open: kinds, and directories by their paths.
fn open_files(pid: i32) -> Vec<(i32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("open files")
        .flatten();
    let mut all: Vec<(i32, String)> = entries
        .filter_map(|entry| {
            let number = entry
                .file_name()
                .to_string_lossy()
                .parse()
                .expect("a number");
            // A waiting init closes the connection of whoever has asked for its status.
            let target = fs::read_link(entry.path()).ok()?.display().to_string();
            let is_dir = fs::metadata(entry.path()).is_ok_and(|meta| meta.is_dir());
            let target = match is_dir {
                true => format!("directory {target}"),
                false => target,
            };
            Some((number, target))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn t11_nothing_of_the_host_is_open_while_created() {
    for c in each_way!() {
        let c = c.asks(&["report", "pause"]);
        let mut world = World::new(&c);
        let kept = c.path("kept");
        fs::write(&kept, "text").expect("write");
        for preserved in [0, 1] {
            let flag = format!("--preserve-fds={preserved}");
            let call = with_open(c.call_new("create", &[&flag]), &world.outside.dir);
            let output = call.fd(File::open(&kept).expect("open"), 3).finish().ok();
            let own = open_files(c.pid());
            for (number, target) in own.iter().filter(|(number, _)| *number > 2) {
                let kinds = ["pipe:", "socket:", "anon_inode:", "/memfd:"];
                // The last one belongs to the state: a waiting process of others is started through it.
                let harmless = kinds.iter().any(|kind| target.starts_with(kind))
                    || target.ends_with("/exec.fifo");
                let asked_for = *number < 3 + preserved && *target == kept;
                assert!(harmless || asked_for, "{own:?}");
            }
            c.start().ok();
            output.wait_for("report => ");
            let count = output.report()["fds"].as_object().expect("files").len();
            assert_eq!(count as i32, 3 + preserved, "{}", output.describe());
            c.delete(&["--force"]).ok();
        }
        world.assert_after(&c, "afterwards");
    }
}

/// Not only by exec at last, which has none of them: they do not even tell which files the host has.
#[test]
fn t11_files_behind_a_descriptor_are_not_looked_at() {
    for c in each_way!() {
        let mut world = World::new(&c);
        let host = with_program(&c);
        let (mut c, mut said) = (c, vec![]);
        for name in ["true", "no-such-file"] {
            let program = format!("/proc/self/fd/17/bin/{name}");
            c = c.set("/process/args", json!([program]));
            let output = with_open(c.call_new("create", &[]), &host).finish().fails();
            said.push(output.stderr().replace(name, ""));
        }
        assert_eq!(said[0], said[1]);
        world.assert_after(&c, "afterwards");
    }
}
