//! C50: configs that are valid, with values that nobody would think of, are run: whatever comes of it, the host is as it was.
//! COFFERDAM_SEED repeats them.

use super::post::World;
use super::ways::each_way;
use crate::support::refused::everywhere;
use crate::support::{Bundle, Chance, seed};
use serde_json::{Value, json};
use std::fs;

/// Values for fields. None of them asks for what is the host's own.
fn fields() -> Vec<(&'static str, Value)> {
    let paths = json!([
        ["/proc/kcore", "/missing", "/tmp", "/"],
        ["/dev/null", "/dev", "/proc"],
        ["/sys/firmware", "/sys/firmware", "/payload"],
        ["/etc/../etc", "//etc", "/proc/self", "/dev/pts"],
        [],
    ]);
    let rule = |action| json!({"names": ["getcwd", "nothing", "mount"], "action": action});
    let allow = "SCMP_ACT_ALLOW";
    vec![
        (
            "/process/user/uid",
            json!([0, 1, 1000, 65535, 65536, 4294967294u32]),
        ),
        ("/process/user/gid", json!([0, 5, 65535, 4294967294u32])),
        ("/process/user/umask", json!([0, 18, 511, 4095])),
        (
            "/process/user/additionalGids",
            json!([[], [5, 5, 0], [65535, 70000]]),
        ),
        (
            "/process/cwd",
            json!([
                "/",
                "/tmp/new/deep",
                "/proc/self/fd/3",
                "/dev",
                "/payload",
                "/..",
                "/proc/1/root"
            ]),
        ),
        ("/process/oomScoreAdj", json!([0, 1000, 17, 1001])),
        ("/process/noNewPrivileges", json!([true, false])),
        ("/process/terminal", json!([true, false])),
        (
            "/process/capabilities",
            json!([null, {}, {"bounding": ["CAP_SYS_ADMIN"]}, {"effective": ["CAP_KILL"]}, {"ambient": ["CAP_CHOWN"]}]),
        ),
        (
            "/process/rlimits",
            json!([[{"type": "RLIMIT_NOFILE", "soft": 0, "hard": 0}], [{"type": "RLIMIT_AS", "soft": 4096, "hard": 4096}], [{"type": "RLIMIT_CORE", "soft": 18446744073709551615u64, "hard": 18446744073709551615u64}], [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}]]),
        ),
        (
            "/process/scheduler",
            json!([{"policy": "SCHED_IDLE"}, {"policy": "SCHED_BATCH", "nice": 19}, {"policy": "SCHED_FIFO", "priority": 0}]),
        ),
        (
            "/process/ioPriority",
            json!([{"class": "IOPRIO_CLASS_IDLE", "priority": 7}, {"class": "IOPRIO_CLASS_BE", "priority": 8}]),
        ),
        (
            "/process/env",
            json!([
                [],
                ["A"],
                ["=", "=="],
                ["PATH=", "PATH=/"],
                ["LD_PRELOAD=/missing"]
            ]),
        ),
        (
            "/process/args",
            json!([
                ["/payload"],
                ["/proc/self/exe"],
                ["/"],
                ["payload", ""],
                ["/dev/null"]
            ]),
        ),
        ("/root/readonly", json!([true, false])),
        (
            "/hostname",
            json!(["", "a", "x".repeat(64), "x".repeat(65), "a b", "\u{202e}"]),
        ),
        ("/linux/maskedPaths", paths.clone()),
        ("/linux/readonlyPaths", paths),
        (
            "/linux/rootfsPropagation",
            json!([
                "private",
                "rprivate",
                "slave",
                "rslave",
                "shared",
                "rshared",
                "unbindable",
                "runbindable"
            ]),
        ),
        (
            "/linux/sysctl",
            json!([{"net.ipv4.ip_forward": "1"}, {"kernel.msgmax": "0"}, {"kernel.domainname": "x"}, {"net.ipv4.ip_forward": ""}, {"fs.mqueue.msg_max": "9"}]),
        ),
        (
            "/linux/devices",
            json!([[], [{"path": "/dev/x/y", "type": "p"}], [{"path": "/tmp/n", "type": "c", "major": 1, "minor": 3, "fileMode": 4095, "uid": 7, "gid": 7}], [{"path": "/dev/null", "type": "c", "major": 1, "minor": 5}]]),
        ),
        (
            "/linux/resources/devices",
            json!([[], [{"allow": false}], [{"allow": true}], [{"allow": true, "type": "c", "major": 1, "access": ""}], [{"allow": false, "type": "b", "access": "rwm"}]]),
        ),
        (
            "/linux/resources/unified",
            json!([{"cgroup.max.depth": "0"}, {"cgroup.max.descendants": "0"}, {"cgroup.freeze": "0"}]),
        ),
        ("/linux/cgroupsPath", json!(["", "x:y:z", "/..", "a/../b"])),
        (
            "/linux/personality",
            json!([{"domain": "LINUX32"}, {"domain": "LINUX"}]),
        ),
        (
            "/linux/seccomp",
            json!([
                {"defaultAction": allow, "syscalls": [rule("SCMP_ACT_ERRNO")]},
                {"defaultAction": allow, "architectures": [], "syscalls": [rule("SCMP_ACT_KILL_PROCESS")]},
                {"defaultAction": "SCMP_ACT_KILL", "syscalls": []},
                {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4095},
                {"defaultAction": allow, "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]},
            ]),
        ),
        (
            "/annotations",
            json!([{"": ""}, {"org.systemd.property.x": "1"}, {"run.oci.x": "\u{0007}"}]),
        ),
        (
            "/hooks",
            json!([{}, {"prestart": [{"path": "/bin/false"}]}, {"poststart": [{"path": "/bin/false"}]}, {"createContainer": [{"path": "/bin/true", "timeout": 1}]}, {"startContainer": [{"path": "/missing"}]}]),
        ),
    ]
}

fn mount(c: &Bundle, chance: &mut Chance) -> Value {
    let places = json!([
        "/a",
        "/dev",
        "/dev/pts",
        "/tmp/x/y",
        "/proc",
        "/proc/sys",
        "/sys",
        "/",
        "/..",
        "/payload",
        "/etc/link",
        "/dev/shm/new"
    ]);
    let options = json!([
        "ro",
        "rw",
        "nosuid",
        "noexec",
        "nodev",
        "rro",
        "size=0",
        "size=1k",
        "mode=0",
        "mode=7777",
        "rbind",
        "bind",
        "private",
        "rshared",
        "tmpcopyup",
        "remount",
        "copy-symlink",
        "nr_inodes=1",
        "idmap",
        "noatime"
    ]);
    let sources = json!([
        c.path("source"),
        c.path("source/file"),
        "tmpfs",
        "none",
        "source",
        ""
    ]);
    let kinds = json!([
        "tmpfs", "bind", "none", "proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "ramfs"
    ]);
    let count = chance.below(4);
    let options: Vec<Value> = (0..count).map(|_| chance.of(&options)).collect();
    json!({"destination": chance.of(&places), "type": chance.of(&kinds), "source": chance.of(&sources), "options": options})
}

fn change(c: &mut Bundle, chance: &mut Chance) {
    let fields = fields();
    match chance.below(4) {
        0 => {
            let mount = mount(c, chance);
            let mounts = c.spec["mounts"].as_array_mut().expect("mounts");
            let at = chance.below(mounts.len() + 1);
            mounts.insert(at, mount);
        }
        // All but the mounts of the host, which a container without it is meant to change.
        1 => {
            let list = c.spec["linux"]["namespaces"]
                .as_array_mut()
                .expect("a list");
            let at = chance.below(list.len());
            if !["mount", "user"].contains(&list[at]["type"].as_str().unwrap_or_default()) {
                list.remove(at);
            }
        }
        _ => {
            let (pointer, values) = &fields[chance.below(fields.len())];
            let value = chance.of(values);
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            if let Some(parent) = c.spec.pointer_mut(parent).filter(|at| at.is_object()) {
                parent[key] = value;
            }
        }
    }
}

#[test]
fn c50_odd_values_change_nothing_on_the_host() {
    let times = match std::env::var_os("COFFERDAM_TORTURE") {
        Some(_) => 1000,
        None => 25,
    };
    let seed = seed();
    for mut c in each_way!() {
        c = c.asks(&["status CapEff"]).link("/etc/link", "/proc");
        fs::create_dir(c.path("source")).expect("mkdir");
        fs::write(c.path("source/file"), "text").expect("write");
        let mut world = World::new(&c);
        let (base, mut chance, mut ran) = (c.spec.clone(), Chance::new(seed), 0);
        for _ in 0..times {
            c.spec = base.clone();
            for _ in 0..=chance.below(4) {
                change(&mut c, &mut chance);
            }
            println!("{}", c.spec);
            let output = c.run();
            let what = format!("{}\n{}", c.spec, output.describe());
            assert!(output.code() < 256, "{what}");
            assert!(!output.stderr().contains("internal error"), "{what}");
            ran += u32::from(output.stdout().contains(" => "));
            world.assert_after(&c, &what);
        }
        println!("{ran} of {times} ran");
        assert!(ran > 0 || everywhere().is_some(), "nothing has run");
    }
}
