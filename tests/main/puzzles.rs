//! Rows of docs/errors.md that take a caller who may less than root: each failure is made, and told with its reason.

use crate::errors::failure_of;
use crate::hotplug::{USER, as_user, of_user};
use crate::support::{Bundle, Call, answer, copy_program};
use serde_json::{Value, json};
use std::ffi::CStr;
use std::path::Path;
use std::ptr::null;

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

#[test]
fn namespaces_that_are_used_up_name_their_setting() {
    let c = bundle!()
        .remove("/linux/resources")
        .remove("/linux/cgroupsPath");
    for kind in ["net", "pid", "mnt", "ipc", "uts", "cgroup"] {
        let setting = format!("max_{kind}_namespaces");
        let none = format!("echo 0 >/proc/sys/user/{setting} && exec \"$0\" \"$@\"");
        let script = format!("unshare -Urm sh -c '{none}' \"$0\" \"$@\"; exit $?; exec \"$0\"");
        let line = line_of(&c, |call| call.through_shell(&script));
        let words = format!("as many namespaces as /proc/sys/user allows: {setting} is 0: ");
        assert!(text(&line).contains(&words), "{line}");
        assert_eq!(line["errno"], "ENOSPC", "{line}");
        assert_eq!(line["hint"], "raise the limit, or nest fewer than 32");
    }
    // Some are made by other calls, for who may, and their limits may be higher.
    let value = std::fs::read_to_string("/proc/sys/user/max_net_namespaces").expect("read");
    let full = |call: Call| call.setup(|| answer(libc::SYS_unshare, libc::ENOSPC));
    let line = line_of(&c, full);
    let words = format!("max_net_namespaces is {}: unshare(", value.trim());
    assert!(text(&line).contains(&words), "{line}");
}

#[test]
fn groups_that_are_not_mapped_are_named_with_the_question() {
    let map = json!([{"containerID": 0, "hostID": 70_000, "size": 10}]);
    let c = bundle!()
        .push("/linux/namespaces", json!({"type": "user"}))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/process/user/additionalGids", json!([4321]));
    c.create().fails_naming("setgroups([4321])");
    c.create()
        .fails_naming("are all mapped in the container's user namespace?");
    c.assert_gone();
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

/// An ordinary user on a host without newuidmap(1).
fn without_helpers() -> std::io::Result<()> {
    let mount = |source: &CStr, target: &CStr, flags| {
        // SAFETY: the texts end in a NUL and outlive the call.
        let done = unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                source.as_ptr(),
                flags,
                null(),
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: a plain call that touches no memory of ours.
    unsafe { libc::unshare(libc::CLONE_NEWNS) };
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE)?;
    for directory in [c"/usr/bin", c"/usr/local/bin", c"/usr/sbin"] {
        mount(c"tmpfs", directory, 0)?;
    }
    as_user()
}

#[test]
fn without_the_helpers_the_own_id_can_be_mapped_and_more_is_never_cut_down_to_it() {
    let (c, binary) = of_user(bundle!().asks(&["read /proc/self/uid_map"]));
    c.give("", USER);
    let by_user = |call: Call| call.program(&binary).setup(without_helpers);
    let output = by_user(c.call_new("run", &[])).finish().ok();
    let map = output.answer("read /proc/self/uid_map");
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(words, ["0", &USER.to_string(), "1"]);
    let maps = json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 7_000_000, "size": 5}]);
    let c = c.set("/linux/uidMappings", maps);
    let line = line_of(&c, by_user);
    let text = text(&line);
    assert!(text.contains("newuidmap: not installed"), "{text}");
    assert!(text.contains("package uidmap"), "{text}");
    let alone = format!("linux.uidMappings[0].hostID: {USER}");
    assert!(text.contains(&alone), "{text}");
}

#[test]
fn without_root_the_owners_of_a_file_system_of_the_host_cannot_be_mapped() {
    let (c, binary) = of_user(bundle!());
    std::fs::create_dir(c.path("source")).expect("mkdir");
    let source = c.path("source");
    let c = c.mount("bind", &source, "/mnt", &["bind", "idmap"]);
    c.give("", USER);
    let line = line_of(&c, |call| call.program(&binary).setup(as_user));
    let text = text(&line);
    assert!(
        text.contains("needs CAP_SYS_ADMIN over its filesystem"),
        "{text}"
    );
    assert_eq!(line["errno"], "EPERM", "{line}");
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
