//! T05, T07: another party exchanges a place for a link while the runtime is about to use it.
//! CVE-2018-15664, CVE-2019-18837, CVE-2021-30465, CVE-2024-45310, CVE-2025-52881.

use super::post::World;
use super::ways::each_way;
use crate::support::{Bundle, Chance, Output, copy_program, exchange, seed};
use serde_json::{Value, json};
use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For each way of running; a moment by default.
fn time() -> Duration {
    match std::env::var_os("COFFERDAM_TORTURE") {
        Some(_) => Duration::from_secs(20),
        None => Duration::from_millis(1000),
    }
}

/// Exchanges the two names over and over while the container is made over and over. Only the names in the bundle
/// change: the config is written once, and `judge` sees each end.
pub fn race(c: &Bundle, first: &str, second: &str, judge: impl Fn(&Output)) {
    let run = || c.call(&["run", "--bundle", &c.path(""), &c.id]).finish();
    race_by(c, first, second, run, |output| {
        let ran = output.stdout().contains(" => ");
        let told = output.code() != 0 && !output.stderr().is_empty();
        assert!(ran || told, "{}", output.describe());
        judge(output);
    });
}

/// The same for another way to run it.
pub fn race_by(
    c: &Bundle,
    first: &str,
    second: &str,
    run: impl Fn() -> Output,
    judge: impl Fn(&Output),
) {
    let mut world = World::new(c);
    c.call_new("run", &[]);
    run().ok();
    c.delete(&["--force"]).ok();
    let names = [first, second].map(|name| CString::new(c.path(name)).expect("a path"));
    let (over, seed) = (AtomicBool::new(false), seed());
    let (runs, good, exchanges) = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let (mut count, mut chance) = (0, Chance::new(seed));
            while !over.load(Ordering::Relaxed) {
                count += u32::from(exchange(&names));
                pause(&mut chance);
            }
            count
        });
        let (runs, good) = {
            let _ender = Ender(&over);
            run_for(time(), c, &run, &judge)
        };
        (runs, good, swapper.join().expect("the swapper"))
    });
    println!("{runs} runs, {good} containers, {exchanges} exchanges");
    assert!(runs > 1 && exchanges > 1, "no race: {runs} {exchanges}");
    world.assert_after(c, "a race");
}

/// Half of the exchanges follow at once, the others after up to a tenth of a millisecond, as the seed says; who runs when is up
/// to the kernel.
fn pause(chance: &mut Chance) {
    let turns = match chance.below(2) {
        0 => 0,
        _ => 1 << chance.below(12),
    };
    (0..turns).for_each(|_| std::hint::spin_loop());
}

/// Also when the judge panics: the scope waits for its threads.
struct Ender<'a>(&'a AtomicBool);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many runs there were, and how many of them made a container.
fn run_for(
    time: Duration,
    c: &Bundle,
    run: &impl Fn() -> Output,
    judge: &impl Fn(&Output),
) -> (u32, u32) {
    let (mut runs, mut good) = (0, 0);
    let end = Instant::now() + time;
    // On a machine that has much to do, one run alone may take that time.
    while Instant::now() < end || runs < 2 {
        let output = run();
        let code = output.code();
        assert!(code < 256, "{}", output.describe());
        judge(&output);
        c.delete(&["--force"]).ok();
        (runs, good) = (runs + 1, good + u32::from(code == 0));
    }
    (runs, good)
}

/// The rootfs belongs to who runs it; so do the names that are exchanged.
/// Whoever is root in the container may write there, so that nothing but the runtime is in the way.
pub fn place(c: &Bundle, name: &str) {
    let path = c.path(name);
    fs::create_dir_all(&path).expect("mkdir");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
}

pub fn link(c: &Bundle, name: &str, target: &str) {
    symlink(target, c.path(name)).expect("symlink");
}

/// Directories and files, some of them there, in a directory of the container.
fn with_targets(mut c: Bundle, below: &str) -> Bundle {
    fs::write(c.path("text"), "text").expect("write");
    let source = c.path("text");
    for number in 0..10 {
        c = c
            .mount("tmpfs", "tmpfs", &format!("{below}/d{number}"), &[])
            .mount("bind", &source, &format!("{below}/f{number}"), &["bind"]);
    }
    c.mount("tmpfs", "tmpfs", &format!("{below}/b/c/d"), &[])
        .asks(&["status CapEff"])
}

pub fn outside(c: &Bundle) -> String {
    c.path("outside")
}

#[test]
fn t07_a_directory_above_the_target_becomes_a_link() {
    for c in each_way!() {
        let c = with_targets(c, "/a");
        place(&c, "rootfs/a");
        link(&c, "rootfs/other", &outside(&c));
        race(&c, "rootfs/a", "rootfs/other", |_| ());
    }
}

#[test]
fn t07_a_directory_above_the_target_becomes_a_link_upwards() {
    for c in each_way!() {
        let c = with_targets(c, "/deep/er/a");
        place(&c, "rootfs/deep/er/a");
        let target = format!("../../../../../../../../../..{}", outside(&c));
        link(&c, "rootfs/deep/other", &target);
        race(&c, "rootfs/deep/er", "rootfs/deep/other", |_| ());
    }
}

#[test]
fn t07_the_target_itself_becomes_a_link() {
    for c in each_way!() {
        let c = c
            .mount("tmpfs", "tmpfs", "/a", &[])
            .mount("tmpfs", "tmpfs", "/a/below", &[])
            .asks(&["status CapEff"]);
        place(&c, "rootfs/a");
        link(&c, "rootfs/other", &outside(&c));
        race(&c, "rootfs/a", "rootfs/other", |_| ());
    }
}

#[test]
fn t07_a_read_only_root_has_a_link() {
    for c in each_way!() {
        let c = with_targets(c, "/a").set("/root/readonly", json!(true));
        place(&c, "rootfs/a");
        link(&c, "rootfs/other", &outside(&c));
        race(&c, "rootfs/a", "rootfs/other", |_| ());
    }
}

/// The caller may say a link, but the container is in one of the two: what was found first is not looked for again.
#[test]
fn t07_the_rootfs_becomes_a_link() {
    for c in each_way!() {
        for dir in ["second/dev", "second/proc", "second/sys"] {
            place(&c, dir);
        }
        copy_program(&c.rootfs().join("payload"), &c.dir.join("second/payload"));
        fs::write(c.path("rootfs/which"), "1").expect("write");
        fs::write(c.path("second/which"), "2").expect("write");
        link(&c, "other", &c.path("second"));
        let c = with_targets(c, "/a").asks(&["read /which", "ls /a", "ls /proc/self/task"]);
        race(&c, "rootfs", "other", |output| {
            if output.code() == 0 {
                let which = output.answer("read /which");
                assert!(which == "1" || which == "2", "{which}");
                assert_eq!(output.answer("ls /a").split(',').count(), 21);
                assert_eq!(output.answer("ls /proc/self/task"), "1");
            }
        });
    }
}

/// A source is whatever the name leads to for the caller. What is mounted is one of the two, with the options of one mount.
#[test]
fn t07_the_source_of_a_bind_becomes_a_link() {
    for c in each_way!() {
        for (name, text) in [("one", "1"), ("two", "2")] {
            place(&c, name);
            fs::write(c.path(&format!("{name}/file")), text).expect("write");
        }
        link(&c, "other", &c.path("two"));
        let source = c.path("one");
        let questions = ["read /a/file", "write /a/new x", "mountinfo /a"];
        let c = c
            .mount("bind", &source, "/a", &["rbind", "ro", "nosuid"])
            .asks(&questions);
        race(&c, "one", "other", |output| {
            if output.code() == 0 {
                let text = output.answer(questions[0]);
                assert!(text == "1" || text == "2", "{text}");
                assert_eq!(output.answer(questions[1]), "EROFS");
                assert!(output.answer(questions[2]).contains("ro,nosuid"));
            }
        });
    }
}

/// The volume is bound first, and what lies in it is exchanged by the other container: here by the host.
#[test]
fn t07_a_volume_that_two_containers_share_has_a_link() {
    for c in each_way!() {
        place(&c, "volume/a");
        place(&c, "rootfs/volume");
        link(&c, "volume/other", &outside(&c));
        let source = c.path("volume");
        let c = c.mount("bind", &source, "/volume", &["rbind"]);
        let c = with_targets(c, "/volume/a");
        race(&c, "volume/a", "volume/other", |_| ());
    }
}

/// The link leads to /, which so would be covered by the mount, as in the advisory.
#[test]
fn t07_a_volume_has_a_link_to_the_root() {
    for c in each_way!() {
        place(&c, "volume/a");
        place(&c, "volume/mine");
        place(&c, "rootfs/volume");
        link(&c, "volume/other", "/");
        let source = c.path("volume");
        let mine = c.path("volume/mine");
        let c = c
            .mount("bind", &source, "/volume", &["rbind"])
            .mount("bind", &mine, "/volume/a/proc", &["rbind"])
            .asks(&["mountinfo /proc"]);
        place(&c, "volume/a/proc");
        race(&c, "volume/a", "volume/other", |output| {
            if output.code() == 0 {
                let mount = output.answer("mountinfo /proc");
                assert!(mount.contains(" - proc "), "{mount}");
            }
        });
    }
}

/// What is masked and protected is below a directory that becomes a link.
#[test]
fn t07_a_masked_path_becomes_a_link() {
    for c in each_way!() {
        place(&c, "rootfs/a");
        fs::write(c.path("rootfs/a/ptmx"), "SECRET").expect("write");
        link(&c, "rootfs/other", &outside(&c));
        let c = c
            .set("/linux/maskedPaths", json!(["/a/ptmx"]))
            .set("/linux/readonlyPaths", json!(["/a"]))
            .set("/process/cwd", json!("/a/made"))
            .asks(&["status CapEff"]);
        race(&c, "rootfs/a", "rootfs/other", |_| ());
    }
}

/// A procfs is mounted in a volume, below which the own process is to be covered.
#[test]
fn t05_a_procfs_becomes_a_link() {
    for c in each_way!() {
        place(&c, "rootfs/vol/proc/self");
        place(&c, "fake");
        fs::write(c.path("fake/exec"), "UNTOUCHED").expect("write");
        link(&c, "rootfs/vol/other", "/proc");
        let source = c.path("fake");
        let attributes = |target: &str| -> Value {
            json!({"destination": target, "type": "bind", "source": source, "options": ["rbind"]})
        };
        let c = c
            .push("/mounts", attributes("/vol/proc/self"))
            .push("/mounts", attributes("/vol/proc/sys"))
            .set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}))
            .asks(&["lstat /proc/self/exec", "lstat /proc/sys/exec"]);
        race(&c, "rootfs/vol/proc", "rootfs/vol/other", |output| {
            if output.code() == 0 {
                for place in ["lstat /proc/self/exec", "lstat /proc/sys/exec"] {
                    assert_eq!(output.answer(place), "ENOENT", "a covered procfs");
                }
            }
            let text = fs::read_to_string(c.path("fake/exec"));
            assert_eq!(text.expect("read"), "UNTOUCHED");
        });
    }
}
