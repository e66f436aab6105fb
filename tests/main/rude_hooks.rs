//! Hooks that behave badly, and those that call the runtime about their own container: each command ends, in time and
//! with the right answer.

use crate::support::{Bundle, Output, PATIENCE, binary, holds_within, in_time, lines};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

fn shell(line: &str) -> Value {
    json!({"path": "/bin/sh", "args": ["sh", "-c", line], "timeout": 60})
}

fn timed(act: impl FnOnce() -> Output) -> Output {
    in_time(Duration::from_secs(4), act)
}

#[test]
fn whatever_a_hook_does_the_command_ends() {
    let base = bundle!();
    // The line, and whether the hook succeeds.
    let cases = [
        ("kill -SEGV $$", false),
        ("kill -KILL 0", false),
        ("exec 0<&-; true", true),
        ("exec 0<&- 1>&- 2>&-; true", true),
        ("yes loud | head -c 10000000; true", true),
        ("yes loud | head -c 10000000 >&2; false", false),
        ("(cd /; setsid sleep 1 >/dev/null 2>&1 &) ; true", true),
        ("trap '' TERM INT HUP; sleep 60", false),
        ("stty -a; exit 3", false),
    ];
    for (line, succeeds) in cases {
        let mut c = Bundle::new("rude").asks(&["pause"]);
        c.globals.clone_from(&base.globals);
        let next = format!("echo next >> {}", c.path("order"));
        let mut rude = shell(line);
        if line.contains("sleep 60") {
            rude["timeout"] = json!(2);
        }
        let c = c.set("/hooks/createRuntime", json!([rude, shell(&next)]));
        let output = timed(|| c.create());
        assert_eq!(
            output.code() == 0,
            succeeds,
            "{line}: {}",
            output.describe()
        );
        assert!(output.stderr().len() < 5000, "{line}: too many words");
        // After the first that fails no other of its kind runs.
        assert_eq!(
            lines(&c.dir.join("order")).len(),
            usize::from(succeeds),
            "{line}"
        );
        timed(|| c.delete(&["--force"])).ok();
        c.assert_gone();
    }
}

#[test]
fn a_hook_that_is_too_late_ends_with_all_that_it_has_started() {
    let mut c = bundle!();
    let file = c.path("pids");
    let line = format!("sleep 101 & echo $! >> {file}; sleep 102 & echo $! >> {file}; wait");
    // On a busy machine the first second may end before the hook has started both.
    for seconds in [1, 8, 40] {
        let _ = fs::remove_file(&file);
        let mut slow = shell(&line);
        slow["timeout"] = json!(seconds);
        c = c.set("/hooks/createRuntime", json!([slow]));
        in_time(Duration::from_secs(seconds + 3), || c.create()).fails();
        if lines(&c.dir.join("pids")).len() == 2 {
            break;
        }
    }
    let pids = lines(&c.dir.join("pids"));
    assert_eq!(pids.len(), 2);
    for pid in pids {
        let gone =
            || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z"));
        assert!(holds_within(PATIENCE, gone), "{pid} lives");
    }
    c.assert_gone();
}

/// A hook that calls the runtime with this line about its own container.
fn calling_back(c: &Bundle, kind: &str, verb: &str) -> Value {
    let root = c.state_root().display().to_string();
    let line = format!(
        "timeout 20 {} --root {root} {verb} >> {out} 2>&1; echo {kind} {verb} $? >> {order}",
        binary().display(),
        out = c.path("out"),
        order = c.path("order"),
    );
    shell(&line.replace("ID", &c.id))
}

#[test]
fn hooks_may_call_the_runtime_about_their_own_container() {
    for verb in [
        "state ID",
        "list",
        "kill ID USR1",
        "delete ID",
        "start ID",
        "exec ID /payload exit 0",
    ] {
        let c = bundle!().asks(&["signals"]);
        let mut c = c;
        for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
            let hook = calling_back(&c, kind, verb);
            c = c.push(&format!("/hooks/{kind}"), hook);
        }
        timed(|| c.create());
        timed(|| c.start());
        timed(|| c.delete(&["--force"])).ok();
        c.assert_gone();
        let order = lines(&c.dir.join("order"));
        assert!(order.len() >= 3, "{verb}: {order:?}");
        // 124 is that of timeout(1): it waited for what waits for the hook.
        assert!(
            !order.iter().any(|line| line.ends_with(" 124")),
            "{order:?}"
        );
        if verb == "state ID" {
            assert!(
                order.iter().take(3).all(|line| line.ends_with(" 0")),
                "{order:?}"
            );
        }
    }
}

#[test]
fn a_hook_may_delete_its_container_by_force() {
    for kind in ["createRuntime", "poststart"] {
        let c = bundle!().asks(&["pause"]);
        let hook = calling_back(&c, kind, "delete --force ID");
        let c = c.push(&format!("/hooks/{kind}"), hook);
        let created = timed(|| c.create());
        if created.code() == 0 {
            timed(|| c.start());
        }
        assert_eq!(
            lines(&c.dir.join("order")),
            [format!("{kind} delete --force {} 0", c.id)]
        );
        c.assert_gone();
    }
}
