//! What the kernel refuses for want of something: memory, processes, file systems, ids. The error names the step, and
//! nothing stays behind; what a second try may cure is tried again.

use crate::killed::Moment;
use crate::support::trace::{Fault, Kind, Trace, trace};
use crate::support::{Bundle, Call, PATIENCE, holds_within, in_time};
use std::collections::BTreeMap;
use std::time::Duration;

/// Has every call of these numbers, in every process, fail once; some of them, but all with COFFERDAM_TORTURE=1.
fn each_fails(numbers: &[i64], errno: i32, prepare: impl Fn() -> Call, judge: impl Fn(&Trace)) {
    let plain = trace(prepare(), None);
    judge(&plain);
    let all = std::env::var_os("COFFERDAM_TORTURE").is_some();
    let step = if all { 1 } else { 4 };
    for (process, traced) in plain.processes.iter().enumerate() {
        let mut counts = BTreeMap::new();
        for number in traced.calls.iter().filter(|call| numbers.contains(call)) {
            *counts.entry(*number).or_insert(0) += 1;
        }
        for (number, count) in counts {
            for call in (0..count).step_by(step) {
                let fault = Fault {
                    process,
                    call,
                    kind: Kind::FailOf(number, errno),
                };
                let moment = Moment(fault);
                judge(&trace(prepare(), Some(fault)));
                std::mem::forget(moment);
            }
        }
    }
}

/// A container, or an error that says at which step, and nothing else.
fn judge(c: &Bundle, traced: &Trace) {
    let (code, said) = (traced.output.code(), traced.output.stderr());
    if (1..1000).contains(&code) {
        assert!(said.contains(": "), "{said:?} names no step");
        assert!(!said.contains("internal error"), "{said}");
        c.assert_gone();
    }
    c.delete(&["--force"]).ok();
    c.assert_gone();
}

#[test]
fn want_of_memory_names_the_step() {
    let calls = [
        libc::SYS_clone3,
        libc::SYS_fsopen,
        libc::SYS_fsmount,
        libc::SYS_fsconfig,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_mount_setattr,
        libc::SYS_bpf,
        libc::SYS_seccomp,
        libc::SYS_unshare,
        libc::SYS_keyctl,
        libc::SYS_socketpair,
        libc::SYS_pidfd_open,
    ];
    for c in [bundle!(), bundle!().in_user_namespace()] {
        let c = c.asks(&["pause"]);
        each_fails(
            &calls,
            libc::ENOMEM,
            || c.call_new("create", &[]),
            |t| judge(&c, t),
        );
    }
}

#[test]
fn what_is_to_be_tried_again_is_tried_again_or_told() {
    let c = bundle!().asks(&["pause"]);
    let calls = [
        libc::SYS_clone3,
        libc::SYS_pidfd_open,
        libc::SYS_setresuid,
        libc::SYS_unshare,
    ];
    each_fails(
        &calls,
        libc::EAGAIN,
        || c.call_new("create", &[]),
        |t| judge(&c, t),
    );
    // A rename somewhere else in the file system is no reason to give up (openat2(2)).
    let create = || c.call_new("create", &[]);
    each_fails(&[libc::SYS_openat2], libc::EAGAIN, create, |traced| {
        assert_eq!(traced.output.code(), 0, "{}", traced.output.describe());
        judge(&c, traced);
    });
}

#[test]
fn no_more_processes_is_told_at_once() {
    let c = bundle!().asks(&["exit 0"]);
    let user = crate::hotplug::USER + 1;
    let binary = c.dir.join("cofferdam");
    crate::support::copy_program(&crate::support::binary(), &binary);
    let map = serde_json::json!([{"containerID": 0, "hostID": user, "size": 1}]);
    let c = c
        .push("/linux/namespaces", serde_json::json!({"type": "user"}))
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .remove("/linux/cgroupsPath")
        .remove("/linux/resources");
    c.give("", user);
    let limited = || {
        let none = libc::rlimit {
            rlim_cur: 1,
            rlim_max: 1,
        };
        let user = crate::hotplug::USER + 1;
        // SAFETY: plain calls; the limit is copied.
        let done = unsafe {
            libc::setrlimit(libc::RLIMIT_NPROC, &none)
                | libc::setgroups(0, std::ptr::null())
                | libc::setresgid(user, user, user)
                | libc::setresuid(user, user, user)
        };
        if done == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    let call = c.call_new("run", &[]).program(&binary).setup(limited);
    let output = in_time(Duration::from_secs(2), || call.finish());
    let said = output.fails().stderr();
    assert!(
        said.contains("esource temporarily unavailable") || said.contains("ry again"),
        "{said}"
    );
    assert!(holds_within(PATIENCE, || !c
        .state_root()
        .join(&c.id)
        .exists()));
}
