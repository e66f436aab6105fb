//! Many commands at once: on one id, on a few, in one container. Each gives one of the answers that are right whatever
//! the others do, and in the end nothing is left.
//!
//! COFFERDAM_TORTURE=1 makes it a thousand rounds, or containers. COFFERDAM_SEED=N repeats a mixture that failed.

use crate::soak::spread;
use crate::support::{Bundle, Call, Chance, Output, Running, seed, wait_until};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn is_torture() -> bool {
    std::env::var_os("COFFERDAM_TORTURE").is_some()
}

#[test]
fn of_many_creators_of_one_id_one_wins_and_the_others_say_why() {
    let c = bundle!().asks(&["pause"]);
    c.write_config();
    let args = ["create", "--bundle", &c.path(""), &c.id];
    for _ in 0..if is_torture() { 20 } else { 1 } {
        let calls: Vec<Running> = (0..32).map(|_| c.call(&args).spawn()).collect();
        let outputs: Vec<Output> = calls.into_iter().map(Running::wait).collect();
        let (won, lost): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|o| o.code() == 0);
        assert_eq!(won.len(), 1);
        for output in lost {
            drop(output.fails_with("already exists"));
        }
        assert_eq!(c.status(), "created");
        c.start().ok();
        c.delete(&["--force"]).ok();
        c.assert_gone();
    }
}

#[test]
fn of_many_who_start_one_one_wins_and_the_others_say_why() {
    let c = bundle!().asks(&["pause"]);
    for _ in 0..if is_torture() { 100 } else { 10 } {
        c.create().ok();
        let calls: Vec<Running> = (0..16).map(|_| c.call(&["start", &c.id]).spawn()).collect();
        let outputs: Vec<Output> = calls.into_iter().map(Running::wait).collect();
        let (won, lost): (Vec<_>, Vec<_>) = outputs.into_iter().partition(|o| o.code() == 0);
        assert_eq!(won.len(), 1);
        for output in lost {
            drop(output.fails_with("cannot start an already running container"));
        }
        c.delete(&["--force"]).ok();
    }
}

#[test]
fn many_short_processes_join_at_once() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let count = if is_torture() { 1000 } else { 60 };
    let mut running: Vec<Running> = vec![];
    for number in 0..count {
        let code = (number % 200).to_string();
        let args = ["exec", &c.id, "/payload", "exit", &code];
        running.push(c.call(&args).spawn());
    }
    for (number, running) in running.into_iter().enumerate() {
        running.wait().exits(number as i32 % 200).silent();
    }
    let procs = c.cgroup().join("cgroup.procs");
    let left = || fs::read_to_string(&procs).expect("read").lines().count();
    wait_until("only init is left, and no zombie", || left() == 1);
    assert_eq!(c.status(), "running");
}

#[test]
fn who_joins_one_that_is_killed_says_that_it_has_stopped() {
    let c = bundle!().asks(&["pause"]);
    let mut chance = Chance::new(seed());
    for _ in 0..if is_torture() { 300 } else { 30 } {
        c.up();
        let exec = c.call(&["exec", &c.id, "/payload", "exit", "0"]).spawn();
        sleep(Duration::from_micros(chance.below(4000) as u64));
        c.kill("KILL").ok();
        let output = exec.wait();
        let said = output.stderr();
        let right = [0, 128 + libc::SIGKILL].contains(&output.code())
            || said.contains("cannot exec in a stopped container");
        assert!(right, "{}", output.describe());
        c.delete(&["--force"]).ok();
    }
}

/// This command runs a hook that waits; meanwhile somebody else begins to remove the container.
fn meets_another(c: &Bundle, call: Call) -> Output {
    let running = call.spawn();
    wait_until("the hook runs", || c.dir.join("runs").exists());
    let place = c.state_root().join(&c.id);
    let another = File::open(&place).expect("the container's directory");
    another.try_lock().expect("lock the directory");
    fs::write(c.path("ends"), "").expect("write");
    // Who does not wait needs less.
    sleep(Duration::from_millis(500));
    let is_taken = place.exists();
    drop(another);
    let output = running.wait();
    assert!(is_taken, "a later container could have the id by now");
    c.assert_gone();
    output
}

/// It waits at a hook.
fn waiting(c: Bundle, hook: &str) -> Bundle {
    let (runs, ends) = (c.path("runs"), c.path("ends"));
    let line = format!("echo > {runs}; until test -e {ends}; do sleep 0.01; done");
    let command = json!({"path": "/bin/sh", "args": ["sh", "-c", line]});
    c.push(&format!("/hooks/{hook}"), command)
}

#[test]
fn the_id_of_a_deleted_one_is_taken_while_another_removes_it() {
    let c = waiting(bundle!().asks(&["exit 0"]), "poststop");
    c.up();
    c.wait_stopped();
    meets_another(&c, c.call(&["delete", &c.id])).ok();
}

#[test]
fn the_id_of_a_failed_create_is_taken_while_another_removes_it() {
    let c = waiting(bundle!(), "poststop");
    let file = ["--pid-file", "/no/such/directory/pid"];
    meets_another(&c, c.call_new("create", &file)).fails();
}

/// As by who takes the names away while its creator, whom it waits for, adds others.
#[test]
fn a_creator_whose_record_is_gone_makes_no_container() {
    let c = waiting(bundle!().asks(&["pause"]), "createRuntime");
    let create = c.call_new("create", &[]).spawn();
    wait_until("the hook runs", || c.dir.join("runs").exists());
    fs::remove_file(c.state_root().join(&c.id).join("state")).expect("remove");
    fs::write(c.path("ends"), "").expect("write");
    create.wait().fails_with("deleted by another command");
    c.assert_gone();
}

#[test]
fn one_that_is_being_removed_is_not_called_damaged() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let place = c.state_root().join(&c.id);
    let another = File::open(&place).expect("the container's directory");
    another.try_lock().expect("lock the directory");
    let record = fs::read(place.join("state")).expect("read");
    fs::remove_file(place.join("state")).expect("remove");
    assert_eq!(c.status(), "stopped");
    // Not dropped: what another thread is about to start has a copy for a moment.
    another.unlock().expect("unlock the directory");
    c.call(&["state", &c.id]).finish().fails_with("is damaged");
    fs::write(place.join("state"), record).expect("write");
    assert_eq!(c.status(), "created");
}

/// As `delete` does for one whose creator was killed before it said which cgroup it had made.
fn remove_unclaimed(cgroup: &Path) {
    let Ok(claim) = File::open(cgroup) else {
        return;
    };
    if claim.try_lock().is_ok() {
        // Who is in it already is left alone.
        let _ = fs::remove_dir(cgroup);
    }
}

#[test]
fn a_cgroup_that_another_removes_is_made_again() {
    let c = bundle!().asks(&["pause"]);
    let (cgroup, mut chance) = (c.cgroup(), Chance::new(seed()));
    let create_often = || {
        for _ in 0..if is_torture() { 1000 } else { 50 } {
            let output = c.create();
            if output.code() != 0 {
                output.fails_with("another container is being created in it");
            }
            c.delete(&["--force"]).ok();
        }
    };
    std::thread::scope(|threads| {
        let creator = threads.spawn(create_often);
        while !creator.is_finished() {
            remove_unclaimed(&cgroup);
            sleep(Duration::from_micros(chance.below(200) as u64));
        }
    });
}

/// Bundles that share the root file system, each with a cgroup by the name of its id.
fn bundles(c: &Bundle, count: usize) -> Vec<String> {
    c.write_config();
    let text = fs::read_to_string(c.path("config.json")).expect("a config");
    let mut spec: Value = serde_json::from_str(&text).expect("JSON");
    spec["root"]["path"] = json!(c.rootfs());
    let ids: Vec<String> = (0..count).map(|n| format!("{}-{n}", c.id)).collect();
    for id in &ids {
        spec["linux"]["cgroupsPath"] = json!(format!("/cofferdam-test/{id}"));
        fs::create_dir(c.path(id)).expect("mkdir");
        fs::write(c.path(&format!("{id}/config.json")), spec.to_string()).expect("write");
    }
    ids
}

/// As long as the work lasts, somebody looks.
fn while_watched(c: &Bundle, ids: &[String], work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let watch = threads.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::SeqCst) || rounds < 5 {
                look(c, ids);
                rounds += 1;
            }
        });
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        watch.join().expect("nobody sees anything strange");
        if let Err(panic) = panicked {
            std::panic::resume_unwind(panic);
        }
    });
}

const STATES: [&str; 5] = ["creating", "created", "running", "paused", "stopped"];

fn look(c: &Bundle, ids: &[String]) {
    let listed = c.call(&["list", "--format", "json"]).finish().ok().silent();
    let listed: Value = serde_json::from_str(&listed.stdout()).expect("a list");
    // One of the others writes `null` for an empty one.
    for entry in listed.as_array().into_iter().flatten() {
        let status = entry["status"].as_str().expect("a status");
        assert!(STATES.contains(&status), "{entry}");
        assert!(ids.iter().any(|id| entry["id"] == **id), "{entry}");
    }
    for id in ids {
        let output = c.call(&["state", id]).finish();
        if output.code() != 0 {
            drop(output.fails_with("does not exist"));
            continue;
        }
        let state: Value = serde_json::from_str(&output.stdout()).expect("a state");
        let status = state["status"].as_str().expect("a status");
        assert!(STATES.contains(&status), "{state}");
        let has_pid = ["created", "running", "paused"].contains(&status);
        assert!(!has_pid || state["pid"].as_i64() > Some(0), "{state}");
    }
}

#[test]
fn who_looks_while_others_come_and_go_sees_no_error() {
    let c = bundle!().asks(&["pause"]);
    let ids = bundles(&c, 2);
    let dir = c.path("");
    let rounds = if is_torture() { 500 } else { 10 };
    while_watched(&c, &ids, || {
        std::thread::scope(|threads| {
            for id in &ids {
                threads.spawn(|| {
                    for _ in 0..rounds {
                        create(&c, &dir, id).ok().silent();
                        c.call(&["start", id]).finish().ok().silent();
                        c.call(&["delete", "--force", id]).finish().ok().silent();
                    }
                });
            }
        });
    });
}

fn create(c: &Bundle, dir: &str, id: &str) -> Output {
    c.call(&["create", "--bundle", &format!("{dir}/{id}"), id])
        .finish()
}

/// What a command may say when others have changed the container meanwhile, or were faster.
const ANSWERS: [&str; 12] = [
    "container does not exist",
    "container with given ID already exists",
    "cannot start an already running container",
    "cannot start a container that has stopped",
    "cannot start a container that is being created",
    "container not running",
    "cannot exec in a",
    "that is not stopped",
    "deleted by another command while it was being created",
    "container init ended",
    "container's cgroup is not empty",
    "was killed by signal 9",
];

/// Any command on any of the containers; its verb, and how long it took.
fn act(c: &Bundle, ids: &[String], chance: &mut Chance) -> (&'static str, Duration, Output) {
    let id = &ids[chance.below(ids.len())];
    let bundle = c.path(id);
    let (verb, words): (_, &[&str]) = match chance.below(12) {
        0..=3 => ("create", &["--bundle", &bundle, id]),
        4 | 5 => ("start", &[id]),
        6 => ("kill", &[id, "KILL"]),
        7 => ("delete", &[id]),
        8 => ("delete", &["--force", id]),
        9 => ("exec", &[id, "/payload", "exit", "0"]),
        10 => ("list", &[]),
        _ => ("state", &[id]),
    };
    let begin = Instant::now();
    let output = c.call(&[&[verb], words].concat()).finish();
    (verb, begin.elapsed(), output)
}

/// Until all workers together have created so many. Gives how long each command took.
fn work(
    c: &Bundle,
    ids: &[String],
    mut chance: Chance,
    (created, enough): (&AtomicUsize, usize),
) -> Vec<(&'static str, Duration)> {
    let mut commands = vec![];
    while created.load(Ordering::SeqCst) < enough {
        assert!(commands.len() < enough * 50, "hardly anything is created");
        let (verb, time, output) = act(c, ids, &mut chance);
        let said = output.stderr();
        // One that has joined is killed with the container.
        let right = [0, 128 + libc::SIGKILL].contains(&output.code())
            || ANSWERS.iter().any(|answer| said.contains(answer));
        assert!(right, "{}", output.describe());
        if verb == "create" && output.code() == 0 {
            created.fetch_add(1, Ordering::SeqCst);
        }
        commands.push((verb, time));
    }
    commands
}

#[test]
fn a_mixture_of_commands_gives_right_answers_only() {
    let c = bundle!().asks(&["pause"]);
    let (workers, containers, enough) = if is_torture() {
        (16, 8, 1000)
    } else {
        (6, 4, 20)
    };
    let (seed, ids, created) = (seed(), bundles(&c, containers), AtomicUsize::new(0));
    let commands: Vec<_> = std::thread::scope(|threads| {
        let begin = |worker: u64| {
            let chance = Chance::new(seed.wrapping_mul(2 * worker + 3));
            threads.spawn(|| work(&c, &ids, chance, (&created, enough)))
        };
        let running: Vec<_> = (0..workers).map(begin).collect();
        let done = running.into_iter().map(|worker| worker.join());
        done.flat_map(|commands| commands.expect("a worker"))
            .collect()
    });
    let states = commands.iter().filter(|(verb, _)| *verb == "state");
    let times = spread(states.map(|(_, time)| *time).collect());
    let (count, created) = (commands.len(), created.into_inner());
    println!("{workers} workers, {count} commands, {created} lifecycles; state: {times}");
    for id in &ids {
        c.call(&["delete", "--force", id]).finish().ok();
        let cgroup = c.cgroup().with_file_name(id);
        wait_until("the cgroup is gone", || !cgroup.exists());
    }
    let left: Vec<_> = fs::read_dir(c.state_root()).expect("read").collect();
    assert!(left.is_empty(), "{left:?}");
}
