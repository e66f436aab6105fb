//! What holds where root is not root: ids that are mapped as asked for or not at all, masks that nobody in a user namespace
//! can lift, and a program that is not written to wherever it runs from.

use crate::hotplug::{USER, as_user, of_user};
use crate::support::{Bundle, Call, Output, copy_program};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn maps(list: &[(u32, u32, u32)]) -> Value {
    let map = |(inside, host, size): &(u32, u32, u32)| json!({"containerID": inside, "hostID": host, "size": size});
    list.iter().map(map).collect()
}

/// What an ordinary user runs with these maps; what the container says of its own.
fn by_user(list: &[(u32, u32, u32)], change: impl Fn(Call) -> Call) -> (Bundle, Output) {
    let (c, binary) = of_user(Bundle::new("by_user").asks(&["report"]));
    let c = c
        .set("/linux/uidMappings", maps(list))
        .set("/linux/gidMappings", maps(list));
    let call = c.call_new("run", &[]).program(&binary);
    c.give("", USER);
    let output = change(call).finish();
    (c, output)
}

#[test]
fn an_exec_of_a_user_has_its_oom_score() {
    let (c, binary) = of_user(Bundle::new("score").asks(&["pause"]));
    let c = c.set("/process/oomScoreAdj", json!(500));
    let up = c.call_new("run", &["--detach"]).program(&binary);
    c.give("", USER);
    up.setup(as_user).finish().ok();
    let ask = [
        "exec",
        &c.id,
        "/payload",
        "read",
        "/proc/self/oom_score_adj",
    ];
    let output = c.call(&ask).program(&binary).setup(as_user).finish().ok();
    assert!(
        output.stdout().ends_with(" => 500\n"),
        "{}",
        output.describe()
    );
    let delete = c.call(&["delete", "--force", &c.id]).program(&binary);
    delete.setup(as_user).finish().ok();
}

#[test]
fn a_user_without_helpers_maps_the_own_id_and_no_more() {
    let helper = Path::new("/usr/bin/newuidmap").exists();
    needs!(helper, "needs newuidmap, of package uidmap");
    drop(bundle!());
    let words = |report: &Value, name: &str| {
        let map = report[name].as_str().expect("a map").split_whitespace();
        map.collect::<Vec<_>>().join(" ")
    };
    for inside in [0, 5] {
        let change = |call: Call| call.setup(as_user);
        let (mut c, output) = by_user(&[(inside, USER, 1)], change);
        if inside == 0 {
            let report = output.ok().report();
            assert_eq!(words(&report, "uid_map"), format!("0 {USER} 1"));
            assert_eq!(words(&report, "gid_map"), format!("0 {USER} 1"));
        } else {
            // Its user has no id: refused, and not made another's.
            output.fails();
        }
        c.globals.clear();
    }
    // More than is granted, another's, and what runs over the end.
    for list in [
        &[(0, USER, 2)][..],
        &[(0, 0, 1)],
        &[(0, USER, 1), (1, 0, 1)],
        &[(0, USER, 1), (1, 100_000, 65536)],
    ] {
        let (_c, output) = by_user(list, |call| call.setup(as_user));
        output.fails();
    }
}

/// One helper maps, the other fails: no container is left with half of its maps.
#[test]
fn a_helper_that_fails_half_way_leaves_nothing() {
    let helper = Path::new("/usr/bin/newuidmap").exists();
    needs!(helper, "needs newuidmap, of package uidmap");
    drop(bundle!());
    for (good, bad) in [("newgidmap", "newuidmap"), ("newuidmap", "newgidmap")] {
        let script = format!(
            "exec unshare -m sh -c 'mount --bind /bin/true /usr/bin/{good} && mount --bind /bin/false /usr/bin/{bad} && \
             exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$0\" \"$@\"' \"$0\" \"$@\""
        );
        let list = [(0, USER, 1), (1, 100_000, 65536)];
        let (c, output) = by_user(&list, |call| call.through_shell(&script));
        output.fails_naming(bad);
        assert!(!c.state_root().join(&c.id).exists());
    }
    // Both say that all went well, and nothing is mapped.
    let script = format!(
        "exec unshare -m sh -c 'for name in newuidmap newgidmap; do mount --bind /bin/true /usr/bin/$name; done; \
         exec setpriv --reuid {USER} --regid {USER} --clear-groups \"$0\" \"$@\"' \"$0\" \"$@\""
    );
    let (_c, output) = by_user(&[(0, USER, 1), (1, 100_000, 65536)], |call| {
        call.through_shell(&script)
    });
    output.fails();
}

#[test]
fn no_mask_is_lifted_from_a_user_namespace_below() {
    let c = bundle!()
        .file("/etc/secret", "SECRET")
        .file("/data/secret", "SECRET")
        .in_user_namespace();
    let c = c
        .push("/linux/maskedPaths", json!("/etc/secret"))
        .push("/linux/maskedPaths", json!("/data"))
        .push("/linux/readonlyPaths", json!("/tmp"))
        .caps(&["CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE"]);
    let paths = [
        "/etc/secret",
        "/data",
        "/tmp",
        "/proc/sys",
        "/proc/keys",
        "/sys/firmware",
        "/proc/kcore",
    ];
    // A user namespace with a mount namespace of its own, whose mounts are locked together.
    let mut questions = vec!["syscall 272 0x10020000".to_string()];
    let mut refused = vec![];
    for path in paths {
        refused.extend([
            format!("umount {path}"),
            format!("mount {path} /dev/shm {}", libc::MS_MOVE),
            // Takes the read-only flag away.
            format!("mount none {path} {}", libc::MS_REMOUNT | libc::MS_BIND),
        ]);
    }
    for parent in ["/", "/etc", "/proc", "/sys"] {
        // A copy of what is below, without what is mounted on it.
        refused.push(format!("mount {parent} /dev/shm {}", libc::MS_BIND));
        refused.push(format!("syscall 428 -100 s:{parent} 1"));
    }
    questions.extend(refused.iter().cloned());
    let leaks = [
        "read /etc/secret",
        "read /data/secret",
        "write /tmp/file x",
        "write /proc/sys/kernel/domainname x",
    ];
    questions.extend(leaks.map(String::from));
    let c = c.asks(&questions.iter().map(String::as_str).collect::<Vec<_>>());
    let output = c.run().ok();
    assert_eq!(output.answer("syscall 272 0x10020000"), "0");
    for question in refused {
        let answer = output.answer(&question);
        // A remount that changes nothing, of a mask that is a device, is no harm.
        let harmless = question.starts_with("mount none") && answer == "ok";
        let fine = ["EPERM", "EINVAL", "ENOENT", "ENOTDIR", "EBUSY"].contains(&answer.as_str());
        assert!(fine || harmless, "{question} => {answer}");
    }
    for question in leaks {
        let answer = output.answer(question);
        assert!(
            answer != "SECRET" && answer != "ok",
            "{question} => {answer}"
        );
    }
}

/// vm.memfd_noexec belongs to a pid namespace.
fn with_noexec(call: Call, value: &str, then: &str) -> Call {
    call.through_shell(&format!(
        "exec unshare -mpf --mount-proc sh -c 'echo {value} > /proc/sys/vm/memfd_noexec && exec {then} \"$0\" \"$@\"' \
         \"$0\" \"$@\""
    ))
}

#[test]
fn files_in_memory_that_may_not_be_executed_are_no_obstacle_or_told() {
    let knob = Path::new("/proc/sys/vm/memfd_noexec").exists();
    needs!(knob, "needs Linux 6.3");
    let c = bundle!().asks(&["exit 7"]);
    let hook = json!([{"path": "/bin/true"}]);
    let c = c.set("/hooks/createRuntime", hook);
    for value in ["0", "1", "2"] {
        with_noexec(c.call_new("run", &[]), value, "")
            .finish()
            .exits(7);
        // Who can make no mount runs from a copy in memory.
        let user = format!("setpriv --reuid {USER} --regid {USER} --clear-groups");
        let (_c, output) = by_user(&[(0, USER, 1)], |call| with_noexec(call, value, &user));
        match value {
            "2" => drop(output.fails_naming("vm.memfd_noexec is 2")),
            _ => drop(output.ok()),
        }
    }
}

#[test]
fn a_program_on_a_read_only_mount_and_records_on_one_without_exec_do() {
    let c = bundle!()
        .asks(&["lstat /proc/self/exe", "exit 7"])
        .with_tmpfs("bin", 0)
        .with_tmpfs("state", libc::MS_NOEXEC | libc::MS_NOSUID | libc::MS_NODEV);
    let binary = c.dir.join("bin/cofferdam");
    copy_program(&crate::support::binary(), &binary);
    let before = fs::read(&binary).expect("read");
    let mounted = c.path("bin");
    let script = format!(
        "exec unshare -m sh -c 'mount -o remount,bind,ro {mounted} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    );
    c.call_new("run", &[]).program(&binary).finish().exits(7);
    c.call_new("run", &[])
        .program(&binary)
        .through_shell(&script)
        .finish()
        .exits(7);
    assert!(
        fs::read(&binary).expect("read") == before,
        "the program has changed"
    );
}

/// A shell script that has the command run in a user namespace which maps all ids to themselves, as none but root can make it.
const WITH_ALL_IDS: &str = "all='0 0 4294967295'
unshare -Um sh -c 'until grep -q 4294967295 /proc/self/gid_map; do sleep 0.01; done; exec \"$0\" \"$@\"' \"$0\" \"$@\" &
until echo \"$all\" 2>/dev/null >/proc/$!/uid_map; do sleep 0.01; done 2>/dev/null
echo \"$all\" >/proc/$!/gid_map
wait $!
exit $?
exec \"$0\" \"$@\"";

/// Its map is that of the initial one, but its number is not.
#[test]
fn a_user_namespace_that_maps_all_ids_is_one() {
    let c = bundle!();
    let output = c.call_new("run", &[]).through_shell(WITH_ALL_IDS).finish();
    let report = output.ok().report();
    let initial = fs::read_link("/proc/self/ns/user").expect("a namespace");
    assert_ne!(report["ns"]["user"], initial.display().to_string().as_str());
    let check = c.call(&["check"]).through_shell(WITH_ALL_IDS).finish();
    let says = check.stdout();
    let line = says
        .lines()
        .find(|line| line.trim_start().starts_with("device rules"));
    assert!(line.is_some_and(|line| line.contains("limited")), "{says}");
}
