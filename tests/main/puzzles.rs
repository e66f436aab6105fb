//! Rows of docs/errors.md that take a caller who may less than root: each failure is made, and told with its reason.

use crate::errors::failure_of;
use crate::hotplug::{USER, as_user};
use crate::sandbox::answer;
use crate::support::{Bundle, Call, copy_program};
use serde_json::{Value, json};
use std::path::Path;

/// Of a call that has failed and left nothing behind: the line of the JSON log.
fn line_of(c: &Bundle, change: impl Fn(Call) -> Call) -> Value {
    let line = failure_of(c, change);
    c.assert_gone();
    line
}

fn text(line: &Value) -> &str {
    line["msg"].as_str().expect("a text")
}

#[test]
fn a_device_program_that_may_not_be_loaded_names_the_capability() {
    let line = line_of(&bundle!(), |call| {
        call.setup(|| answer(libc::SYS_bpf, libc::EPERM))
    });
    let text = text(&line);
    assert!(
        text.starts_with("linux.resources.devices: load the device program"),
        "{text}"
    );
    assert!(
        text.contains("CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN"),
        "{text}"
    );
    assert_eq!(line["errno"], "EPERM", "{line}");
}

#[test]
fn a_kernel_without_device_programs_is_told_so() {
    let line = line_of(&bundle!(), |call| {
        call.setup(|| answer(libc::SYS_bpf, libc::ENOSYS))
    });
    assert!(text(&line).contains("CONFIG_CGROUP_BPF"), "{line}");
}

#[test]
fn keys_that_are_used_up_name_the_setting_and_the_flag() {
    let c = bundle!();
    let full = |call: Call| call.setup(|| answer(libc::SYS_keyctl, libc::EDQUOT));
    let line = line_of(&c, full);
    assert_eq!(line["code"], "key-quota", "{line}");
    let text = text(&line);
    assert!(
        text.contains("kernel.keys.maxkeys") && text.contains("--no-new-keyring"),
        "{text}"
    );
    full(c.call_new("run", &["--no-new-keyring"])).finish().ok();
}

/// In a user namespace from which a file system on a directory below /proc cannot be taken away: no new procfs there.
fn with_covered_proc(call: Call) -> Call {
    let cover = "mount -t tmpfs none /proc/irq && exec unshare -Urm \"$0\" \"$@\"";
    let script = format!("unshare -m sh -c '{cover}' \"$0\" \"$@\"; exit $?; exec \"$0\" \"$@\"");
    call.through_shell(&script)
}

#[test]
fn a_covered_proc_in_a_user_namespace_says_by_what() {
    let c = bundle!()
        .remove("/linux/resources")
        .remove("/linux/cgroupsPath");
    let line = line_of(&c, with_covered_proc);
    assert_eq!(line["code"], "mount-refused", "{line}");
    assert!(text(&line).contains("/proc/irq"), "{line}");
}

#[test]
fn a_user_namespace_that_has_given_up_groups_is_enough() {
    let c = bundle!()
        .remove("/linux/resources")
        .remove("/linux/cgroupsPath")
        .asks(&["exit 7"]);
    let script = "unshare -Urm \"$0\" \"$@\"; exit $?; exec \"$0\" \"$@\"";
    c.call_new("run", &[])
        .through_shell(script)
        .finish()
        .exits(7);
    let c = c.set("/process/user/additionalGids", json!([7]));
    let failed = c.call_new("run", &[]).through_shell(script).finish();
    failed.fails_naming("process.user.additionalGids: [7]");
}

/// What an ordinary user runs, with a program and a place for state of the own; these ids of the host follow the own.
fn by_user(c: Bundle, more: &[u32]) -> Value {
    let map = |(inside, id): (usize, &u32)| json!({"containerID": inside, "hostID": id, "size": 1});
    let ids: Vec<u32> = [&[USER], more].concat();
    let maps: Vec<Value> = ids.iter().enumerate().map(map).collect();
    let c = c
        .push("/linux/namespaces", json!({"type": "user"}))
        .set("/linux/uidMappings", json!(maps))
        .set("/linux/gidMappings", json!(maps));
    let binary = c.dir.join("cofferdam");
    copy_program(&crate::support::binary(), &binary);
    c.give("", USER);
    line_of(&c, |call| call.program(&binary).setup(as_user))
}

#[test]
fn ids_that_are_not_granted_are_told_with_what_is() {
    let helper = Path::new("/usr/bin/newuidmap").exists();
    needs!(helper, "needs newuidmap, of package uidmap");
    let c = bundle!()
        .remove("/linux/resources")
        .remove("/linux/cgroupsPath");
    let line = by_user(c, &[7_000_000]);
    let text = text(&line);
    assert!(text.contains("newgidmap"), "{text}");
    assert!(
        text.contains(&format!("asked for 0 {USER} 1 1 7000000 1")),
        "{text}"
    );
    assert!(
        text.contains("/etc/subgid grants this user nothing"),
        "{text}"
    );
}

#[test]
fn a_cgroup_that_is_not_delegated_says_whose_it_is() {
    let limits = json!({"unified": {"cgroup.max.depth": "3"}});
    let line = by_user(bundle!().set("/linux/resources", limits), &[]);
    assert_eq!(line["code"], "cgroup-delegation", "{line}");
    let text = text(&line);
    assert!(
        text.contains(&format!("belongs to user 0, the caller is user {USER}")),
        "{text}"
    );
    assert!(text.contains("Delegate=yes"), "{text}");
}

#[test]
fn a_setting_that_is_not_there_is_named_with_its_file() {
    let c = bundle!().set("/linux/sysctl", json!({"net.core.nothing": "1"}));
    let line = line_of(&c, |call| call);
    let text = text(&line);
    assert!(text.contains("linux.sysctl.net.core.nothing"), "{text}");
    assert_eq!(line["errno"], "ENOENT", "{line}");
}
