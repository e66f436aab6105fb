//! Runs the tests of this target with the flags and the output of libtest. A test may find out while it runs that it does not
//! apply here: libtest cannot report this as ignored. This harness can, and compares such skips with the file `expected_skips`.
//! The crate libtest-mimic can too, but it captures no output, takes one filter only, and adds features of clap to the program
//! under test.

use crate::support::{Runtime, expected_skips, runtime};
use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::fmt::{self, Write};
use std::panic::{catch_unwind, set_hook, take_hook};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// A test as the attribute `#[test]` registers it.
pub struct Test {
    /// `main::module::name`.
    pub name: &'static str,
    pub run: fn(),
}

inventory::collect!(Test);

impl Test {
    fn name(&self) -> &'static str {
        self.name
            .split_once("::")
            .map_or(self.name, |(_, rest)| rest)
    }
}

thread_local! {
    /// The output of the test of this thread. None in other threads, and with `--nocapture`: their output is not captured.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static SKIPPED: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Shadows the macro of the standard library, whose output only libtest can capture.
macro_rules! println {
    ($($words:tt)*) => {
        if !$crate::harness::capture(format_args!($($words)*)) {
            ::std::println!($($words)*)
        }
    };
}

macro_rules! eprintln {
    ($($words:tt)*) => {
        if !$crate::harness::capture(format_args!($($words)*)) {
            ::std::eprintln!($($words)*)
        }
    };
}

/// Keeps a line for the case that the test fails. Returns false if this thread prints at once.
pub fn capture(line: fmt::Arguments) -> bool {
    SAID.with_borrow_mut(|said| said.as_mut().map(|said| writeln!(said, "{line}")))
        .is_some()
}

/// Has the test of this thread reported as ignored, unless it fails.
pub fn skipped(reason: &str) {
    SKIPPED.with_borrow_mut(|reasons| reasons.push(reason.to_string()));
}

#[derive(Default)]
struct Flags {
    filters: Vec<String>,
    skip: Vec<String>,
    threads: Option<usize>,
    exact: bool,
    list: bool,
    nocapture: bool,
    quiet: bool,
    report_time: bool,
}

impl Flags {
    fn parse(words: impl Iterator<Item = String>) -> Result<Flags, String> {
        let mut flags = Flags {
            threads: std::env::var("RUST_TEST_THREADS")
                .ok()
                .and_then(|n| n.parse().ok()),
            ..Flags::default()
        };
        let mut words = words.flat_map(|word| match word.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                vec![flag.to_string(), value.to_string()]
            }
            _ => vec![word],
        });
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--skip" => flags.skip.push(value()?),
                "--test-threads" => {
                    let count = value()?.parse().ok().filter(|count| *count > 0);
                    flags.threads = Some(count.ok_or("--test-threads needs a number above 0")?);
                }
                "--exact" => flags.exact = true,
                "--list" => flags.list = true,
                "--nocapture" | "--no-capture" => flags.nocapture = true,
                "--quiet" | "-q" => flags.quiet = true,
                "--report-time" => flags.report_time = true,
                flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}")),
                _ => flags.filters.push(word),
            }
        }
        Ok(flags)
    }

    fn wants(&self, test: &Test) -> bool {
        let fits = |filter: &String| match self.exact {
            true => test.name() == filter,
            false => test.name().contains(filter.as_str()),
        };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skip.iter().any(fits)
    }
}

struct Outcome {
    test: &'static Test,
    failed: bool,
    said: String,
    skipped: Vec<String>,
    took: Duration,
}

/// Returns the lines of the tests that have led here, if `RUST_BACKTRACE` asks for a backtrace.
fn callers() -> String {
    let trace = Backtrace::capture().to_string();
    let is_ours = |line: &&str| line.contains(" at ./tests/main/") && !line.contains("harness.rs");
    trace
        .lines()
        .filter(is_ours)
        .map(|line| format!("\n{line}"))
        .collect()
}

/// Runs the test in a thread of its own, which bears its name: some tests change what belongs to a thread.
fn run(test: &'static Test, nocapture: bool) -> Outcome {
    let begun = Instant::now();
    let inside = move || {
        SAID.set((!nocapture).then(String::new));
        let failed = catch_unwind(test.run).is_err();
        (failed, SAID.take().unwrap_or_default(), SKIPPED.take())
    };
    let thread = thread::Builder::new()
        .name(test.name().to_string())
        .spawn(inside);
    let ended = thread.expect("a thread").join();
    let (failed, said, skipped) = ended.unwrap_or_else(|_| (true, String::new(), Vec::new()));
    Outcome {
        test,
        failed,
        said,
        skipped,
        took: begun.elapsed(),
    }
}

/// Runs all tests and prints each result when it is there.
fn run_all(tests: &[&'static Test], flags: &Flags) -> Vec<Outcome> {
    let processors = thread::available_parallelism().map_or(1, |count| count.get());
    let queue = Mutex::new(tests.iter());
    let running = Mutex::new(Vec::new());
    let (sender, receiver) = mpsc::channel();
    let mut outcomes = Vec::new();
    thread::scope(|scope| {
        for _ in 0..flags.threads.unwrap_or(processors) {
            let (sender, queue, running) = (sender.clone(), &queue, &running);
            let next = || queue.lock().expect("no panic").next();
            scope.spawn(move || {
                while let Some(test) = next() {
                    running.lock().expect("no panic").push(test.name());
                    let outcome = run(test, flags.nocapture);
                    running
                        .lock()
                        .expect("no panic")
                        .retain(|name| *name != test.name());
                    sender.send(outcome).expect("a receiver");
                }
            });
        }
        drop(sender);
        loop {
            match receiver.recv_timeout(Duration::from_secs(60)) {
                Ok(outcome) => {
                    tell(&outcome, flags);
                    outcomes.push(outcome);
                }
                Err(RecvTimeoutError::Timeout) => {
                    println!(
                        "a minute without a result; running: {:?}",
                        running.lock().expect("no panic")
                    );
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    outcomes
}

fn tell(outcome: &Outcome, flags: &Flags) {
    let result = match (outcome.failed, outcome.skipped.is_empty()) {
        (true, _) => "FAILED".to_string(),
        (false, true) => "ok".to_string(),
        (false, false) => format!("ignored, {}", outcome.skipped.join("; ")),
    };
    let time = match flags.report_time {
        true => format!(" <{:.3}s>", outcome.took.as_secs_f64()),
        false => String::new(),
    };
    if !flags.quiet || outcome.failed {
        println!("test {} ... {result}{time}", outcome.test.name());
    }
}

/// Takes a mount namespace of its own, so that no test sees what others mount meanwhile. Where the root is shared with others,
/// as systemd has it, it is shared there too, with nobody. Without privilege all stays as it is.
fn leave_mounts_of_others() {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let root = table
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"));
    let is_shared = root.is_some_and(|line| line.contains(" shared:"));
    let set = |propagation| {
        let none = std::ptr::null();
        // SAFETY: the target is a C string, and a change of the propagation reads no other argument.
        let result = unsafe { libc::mount(none, c"/".as_ptr(), none, propagation, none.cast()) };
        assert_eq!(result, 0, "change the propagation of all mounts");
    };
    // SAFETY: unshare touches no memory. There is one thread yet, and all later ones inherit the namespace.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0 {
        set(libc::MS_REC | libc::MS_PRIVATE);
        if is_shared {
            set(libc::MS_REC | libc::MS_SHARED);
        }
    }
}

pub fn main() -> ExitCode {
    let flags = match Flags::parse(std::env::args().skip(1)) {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(101);
        }
    };
    leave_mounts_of_others();
    let default = take_hook();
    set_hook(Box::new(move |panic| {
        let name = thread::current().name().unwrap_or_default().to_string();
        if !capture(format_args!("\nthread '{name}' {panic}{}", callers())) {
            default(panic);
        }
    }));
    let mut all: Vec<&Test> = inventory::iter::<Test>.into_iter().collect();
    all.sort_by_key(|test| test.name());
    let chosen: Vec<&Test> = all
        .iter()
        .copied()
        .filter(|test| flags.wants(test))
        .collect();
    if flags.list {
        for test in &chosen {
            println!("{}: test", test.name());
        }
        println!("\n{} tests, 0 benchmarks", chosen.len());
        return ExitCode::SUCCESS;
    }
    println!(
        "\nrunning {} test{}",
        chosen.len(),
        if chosen.len() == 1 { "" } else { "s" }
    );
    let begun = Instant::now();
    let outcomes = run_all(&chosen, &flags);
    sum_up(&outcomes, all.len() - chosen.len(), begun.elapsed())
}

fn sum_up(outcomes: &[Outcome], filtered: usize, took: Duration) -> ExitCode {
    let (failed, others): (Vec<_>, Vec<_>) = outcomes.iter().partition(|outcome| outcome.failed);
    let ignored = others
        .iter()
        .filter(|outcome| !outcome.skipped.is_empty())
        .count();
    if !failed.is_empty() {
        println!("\nfailures:\n");
        for outcome in &failed {
            println!(
                "---- {} stdout ----\n{}\n",
                outcome.test.name(),
                outcome.said
            );
        }
        println!("\nfailures:");
        for outcome in &failed {
            println!("    {}", outcome.test.name());
        }
    }
    let as_expected = skips_are_expected(&others);
    let good = failed.is_empty() && (as_expected || std::env::var("CI").as_deref() != Ok("true"));
    println!(
        "\ntest result: {}. {} passed; {} failed; {ignored} ignored; 0 measured; {filtered} filtered out; finished in {:.2}s\n",
        if good { "ok" } else { "FAILED" },
        others.len() - ignored,
        failed.len(),
        took.as_secs_f64()
    );
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(101)
    }
}

/// Prints where the skips differ from the list. Returns false if a test was skipped for a reason that is not listed for it.
fn skips_are_expected(outcomes: &[&Outcome]) -> bool {
    // Skips of other runtimes are in the file `differences`.
    if runtime() != Runtime::Cofferdam {
        return true;
    }
    let expected = expected_skips();
    let mut as_expected = true;
    for outcome in outcomes {
        let name = outcome.test.name();
        for reason in &outcome.skipped {
            if !expected
                .iter()
                .any(|skip| skip.test == name && reason.contains(skip.reason))
            {
                println!("skipped, but not listed in tests/main/expected_skips: {name}: {reason}");
                as_expected = false;
            }
        }
        for skip in expected
            .iter()
            .filter(|skip| skip.test == name && outcome.skipped.is_empty())
        {
            println!(
                "not skipped, but listed in tests/main/expected_skips for {}: {name}",
                skip.machine
            );
        }
    }
    as_expected
}

#[test]
fn every_expected_skip_names_a_test() {
    let tests: Vec<&str> = inventory::iter::<Test>
        .into_iter()
        .map(Test::name)
        .collect();
    for skip in expected_skips() {
        assert!(
            tests.contains(&skip.test) && !skip.reason.is_empty(),
            "{}",
            skip.test
        );
    }
}

#[test]
fn a_skip_is_compared_with_the_list() {
    let test: &Test = inventory::iter::<Test>.into_iter().next().expect("a test");
    let skipped = |reasons: &[&str]| Outcome {
        test,
        failed: false,
        said: String::new(),
        skipped: reasons.iter().map(|reason| reason.to_string()).collect(),
        took: Duration::ZERO,
    };
    assert!(skips_are_expected(&[&skipped(&[])]));
    assert!(
        runtime() != Runtime::Cofferdam || !skips_are_expected(&[&skipped(&["for no reason"])])
    );
}

/// The output of a run of these tests in a process of its own.
fn output(args: &[&str], runtime: &str) -> (Option<i32>, String) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(args)
        .env("RUNTIME", runtime)
        .env_remove("COFFERDAM_SOAK")
        .output()
        .expect("run the tests");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), said)
}

#[test]
fn a_test_that_does_not_apply_is_reported_as_ignored() {
    let (code, said) = output(&["soak::", "--test-threads=1"], "");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("running 1 test\n"), "{said}");
    assert!(
        said.contains("test soak::nothing_grows ... ignored, COFFERDAM_SOAK"),
        "{said}"
    );
    assert!(
        said.contains("test result: ok. 0 passed; 0 failed; 1 ignored;"),
        "{said}"
    );
}

#[test]
fn a_failure_is_reported_with_what_the_test_has_said() {
    let filters = [
        "no_such_test",
        "run_gives_the_exit_code",
        "run_passes_stdio",
        "--skip=run_passes",
    ];
    let (code, said) = output(&filters, "/bin/false");
    assert_eq!(code, Some(101), "{said}");
    assert!(
        said.contains("\ntest run::run_gives_the_exit_code ... FAILED\n"),
        "{said}"
    );
    assert!(
        said.contains("---- run::run_gives_the_exit_code stdout ----\n"),
        "{said}"
    );
    assert!(said.contains("panicked at tests/main/"), "{said}");
    assert!(!said.contains("run_passes_stdio"), "{said}");
}
