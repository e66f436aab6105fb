//! What the verbs may cost, in counts that do not depend on the time: system calls, processes, programs, page faults, bytes
//! written. The file `budgets` has a line for each process of each verb; COFFERDAM_ACCEPT_BUDGETS=1 writes it anew.

use crate::support::trace::{Trace, Traced, trace};
use crate::support::{Bundle, Call};
use libseccomp::ScmpSyscall;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// Hosts differ a little in what there is to be read, and waiting takes a round more on a busy one.
const SLACK: f64 = 1.05;
const ROUNDS: u64 = 10;
/// Faults depend on how the linker has laid out the program.
const SLACK_OF_FAULTS: f64 = 1.25;

type Counts = BTreeMap<String, u64>;

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/main/budgets")
}

#[test]
fn no_verb_costs_more_than_its_budget() {
    let c = bundle!().asks(&["pause"]);
    let costs = costs(&c);
    if std::env::var_os("COFFERDAM_ACCEPT_BUDGETS").is_some() {
        return fs::write(file(), text(&costs)).expect("write the budgets");
    }
    let budgets = parse(&fs::read_to_string(file()).expect("read the budgets"));
    let names = |table: &BTreeMap<_, _>| table.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&costs), names(&budgets), "other processes than known");
    let excess: String = costs
        .iter()
        .map(|(name, now)| breach(name, now, &budgets[name]))
        .collect();
    assert!(excess.is_empty(), "over the budget:\n{excess}");
}

/// Of each verb, in the order of a container's life.
fn costs(c: &Bundle) -> BTreeMap<String, Counts> {
    let mut costs = BTreeMap::new();
    let mut add = |name: &str, call: Call| {
        let trace = trace(call, None);
        let output = trace.output.describe();
        assert_eq!(trace.output.code(), 0, "{output}");
        costs.extend(processes(name, &trace));
    };
    let id = c.id.as_str();
    add("create", c.call_new("create", &[]));
    add("state", c.call(&["state", id]));
    add("start", c.call(&["start", id]));
    add("exec", c.call(&["exec", id, "/payload", "exit", "0"]));
    add("pause", c.call(&["pause", id]));
    add("resume", c.call(&["resume", id]));
    add("kill", c.call(&["kill", id, "CONT"]));
    add("list", c.call(&["list"]));
    add(
        "delete of a running one",
        c.call(&["delete", "--force", id]),
    );
    c.create().ok();
    c.kill("KILL").ok();
    c.wait_stopped();
    add("delete", c.call(&["delete", id]));
    add("run", c.call_new("run", &["--detach"]));
    costs
}

fn processes<'a>(verb: &'a str, trace: &'a Trace) -> impl Iterator<Item = (String, Counts)> + 'a {
    let named = move |(index, process): (usize, &Traced)| {
        let mut counts = counts(process);
        if index == 0 {
            counts.insert("FAULTS".into(), trace.faults as u64);
        }
        (format!("{verb}, process {index}"), counts)
    };
    trace.processes.iter().enumerate().map(named)
}

/// Totals in capitals, and how often each system call was made.
fn counts(process: &Traced) -> Counts {
    // Counted where they begin: a parent that need not wait is gone before the tracer hears of the end.
    let programs = [libc::SYS_execve, libc::SYS_execveat];
    let execs = process.calls.iter().filter(|call| programs.contains(*call));
    let mut counts = Counts::from([
        ("CALLS".to_string(), process.calls.len() as u64),
        ("CHILDREN".to_string(), process.children as u64),
        ("EXECS".to_string(), execs.count() as u64),
        ("BYTES".to_string(), process.bytes),
    ]);
    for number in &process.calls {
        let name = ScmpSyscall::from(*number as i32).get_name();
        *counts
            .entry(name.unwrap_or(number.to_string()))
            .or_default() += 1;
    }
    counts
}

fn breach(name: &str, now: &Counts, budget: &Counts) -> String {
    let of = |counts: &Counts, key: &str| counts.get(key).copied().unwrap_or(0);
    let allowed = |key: &str| {
        let slack = if key == "FAULTS" {
            SLACK_OF_FAULTS
        } else {
            SLACK
        };
        let rounds = if key == "CALLS" { ROUNDS } else { 0 };
        (of(budget, key) as f64 * slack) as u64 + rounds
    };
    let is_total = |key: &str| key.chars().all(char::is_uppercase);
    let over = now
        .keys()
        .filter(|key| is_total(key) && of(now, key) > allowed(key));
    let mut text = String::new();
    for key in over {
        let _ = writeln!(text, "{name}: {key} {} of {}", of(now, key), allowed(key));
    }
    if !text.is_empty() {
        let more = now
            .keys()
            .filter(|key| !is_total(key) && of(now, key) > of(budget, key));
        for key in more {
            let _ = writeln!(text, "  {key}: {}, was {}", of(now, key), of(budget, key));
        }
    }
    text
}

/// A line for each process: its name, a colon, and pairs of name and count.
fn text(costs: &BTreeMap<String, Counts>) -> String {
    let line = |(name, counts): (&String, &Counts)| {
        let pairs: Vec<String> = counts
            .iter()
            .map(|(key, count)| format!("{key} {count}"))
            .collect();
        format!("{name}: {}\n", pairs.join(", "))
    };
    costs.iter().map(line).collect()
}

fn parse(text: &str) -> BTreeMap<String, Counts> {
    let pair = |pair: &str| {
        let (key, count) = pair.rsplit_once(' ').expect("a name and a count");
        (key.to_string(), count.parse().expect("a count"))
    };
    let line = |line: &str| {
        let (name, pairs) = line.split_once(": ").expect("a name and a colon");
        (name.to_string(), pairs.split(", ").map(pair).collect())
    };
    text.lines().map(line).collect()
}

#[test]
fn more_than_allowed_is_a_breach_that_names_the_calls() {
    let budget = parse("run: CALLS 100, open 50, read 50");
    let now = parse("run: CALLS 130, mmap 30, open 50, read 50");
    let text = breach("run", &now["run"], &budget["run"]);
    assert_eq!(text, "run: CALLS 130 of 115\n  mmap: 30, was 0\n");
    assert_eq!(breach("run", &budget["run"], &budget["run"]), "");
}
