//! Scheduler, I/O priority and memory policy as the process finds them.

use crate::support::Bundle;
use serde_json::{Value, json};

/// Policy and niceness of the process under this scheduler.
fn under(c: Bundle, scheduler: &Value) -> (Bundle, Value, Value) {
    let c = c.set("/process/scheduler", scheduler.clone());
    let report = c.run().ok().report();
    (c, report["policy"].clone(), report["nice"].clone())
}

#[test]
fn every_policy_and_flag() {
    let mut c = bundle!();
    let reset = 0x4000_0000;
    // Only SCHED_OTHER and SCHED_BATCH set it (sched_setattr(2)); under other policies that of the caller stays.
    // SAFETY: getpriority has no preconditions.
    let own = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    let deadline = |flags: &[&str]| {
        json!({"policy": "SCHED_DEADLINE", "runtime": 10_000_000, "deadline": 30_000_000,
            "period": 100_000_000, "flags": flags})
    };
    let cases = [
        (json!({"policy": "SCHED_OTHER", "nice": -5}), 0, -5),
        (json!({"policy": "SCHED_BATCH", "nice": 10}), 3, 10),
        (json!({"policy": "SCHED_IDLE"}), 5, own),
        (json!({"policy": "SCHED_FIFO", "priority": 5}), 1, own),
        (
            json!({"policy": "SCHED_RR", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            2 | reset,
            own,
        ),
        (
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS"]}),
            0,
            own,
        ),
        (deadline(&[]), 6, own),
        (
            deadline(&["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]),
            6,
            own,
        ),
    ];
    for (scheduler, policy, nice) in cases {
        let (bundle, is_policy, is_nice) = under(c, &scheduler);
        c = bundle;
        assert_eq!(
            (is_policy, is_nice),
            (json!(policy), json!(nice)),
            "{scheduler}"
        );
    }
}

#[test]
fn every_class_of_io_priority() {
    let mut c = bundle!();
    for (class, number) in [("RT", 1), ("BE", 2), ("IDLE", 3)] {
        let priority = json!({"class": format!("IOPRIO_CLASS_{class}"), "priority": 4});
        c = c.set("/process/ioPriority", priority);
        assert_eq!(c.run().ok().report()["ioprio"], number << 13 | 4, "{class}");
    }
}

#[test]
fn what_a_policy_does_not_take_is_refused() {
    let mut c = bundle!();
    for (scheduler, fault) in [
        (
            json!({"policy": "SCHED_FIFO", "priority": 1, "nice": 3}),
            "process.scheduler.nice: 3: is for SCHED_OTHER",
        ),
        (
            json!({"policy": "SCHED_OTHER", "priority": 3}),
            "process.scheduler.priority: 3: is for SCHED_FIFO",
        ),
        (
            json!({"policy": "SCHED_RR"}),
            "process.scheduler.priority: 0: must be from 1 to 99",
        ),
        (
            json!({"policy": "SCHED_IDLE", "runtime": 5}),
            "process.scheduler.runtime, deadline and period are for",
        ),
        (
            json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOPE"]}),
            "process.scheduler.flags[0]: ",
        ),
        (
            json!({"nice": 1}),
            "process.scheduler: missing field `policy`",
        ),
    ] {
        c = c.set("/process/scheduler", scheduler);
        c.create().fails_naming(fault);
        c.assert_gone();
    }
}
