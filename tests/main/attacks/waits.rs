//! T27: a process of the container, or a helper of a command, is stopped, frozen or traced. Each command ends all the same.

use crate::support::{send, wait_until};
use std::time::{Duration, Instant};

/// A stopped init takes no connections, and so their queue fills up.
#[test]
fn t27_verbs_end_beside_a_created_init_that_is_stopped() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    send(c.pid() as u32, libc::SIGSTOP);
    for _ in 0..300 {
        assert_eq!(c.status(), "created");
    }
    c.call(&["list"]).finish().ok();
    for _ in 0..3 {
        let begin = Instant::now();
        c.start().fails_naming("stopped by a signal");
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
    c.delete(&["--force"]).ok();
}

/// Connections of callers that ended do not keep a later one out.
#[test]
fn t27_an_init_that_goes_on_can_be_started() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    send(c.pid() as u32, libc::SIGSTOP);
    c.start().fails_naming("stopped by a signal");
    send(c.pid() as u32, libc::SIGCONT);
    c.start().ok();
    wait_until("it runs", || c.status() == "running");
}
