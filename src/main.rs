//! The program: the entry from C, the log, the command line, one verb, and the exit code.

#![no_main]
#![deny(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::ffi::{c_char, c_int};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use cofferdam::cli::log_options::log_options;
use cofferdam::cli::{self, Cli, Command, Parsed, UnknownCommand, normalize};
use cofferdam::commands::{self, ReaderGone, features};
use cofferdam::state::store::Store;
use cofferdam::sys::wait::Interrupted;
use cofferdam::sys::{self, entry};
use cofferdam::text::fault::coded;
use cofferdam::text::{log, timings};
use cofferdam::{host, plan, protect};

#[global_allocator]
static ALLOCATOR: sys::alloc::Allocator = sys::alloc::Allocator::new();

/// Runs the program. The C library calls this function (see [`entry`] for the reason).
// SAFETY: no other function of the program has this name.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, args: *const *const c_char) -> c_int {
    // SAFETY: the C library passes the list that execve(2) made, before any other code of the program runs.
    unsafe { entry::keep_args(args) };
    let begun = Instant::now();
    protect::protect_at_start();
    if entry::prepare_streams().is_err() {
        return 1;
    }
    // Flushes standard output, unlike a return.
    std::process::exit(start(begun))
}

/// Gives the exit code.
fn start(begun: Instant) -> i32 {
    let started = Instant::now();
    // A backtrace costs milliseconds. The variable is meant for a program that the caller debugs.
    sys::process::remove_variable("RUST_BACKTRACE");
    // What is made must be usable whatever the caller's is; hooks get this one too.
    sys::process::set_umask(plan::process::UMASK).ok();
    std::panic::set_hook(Box::new(|panic| {
        log::error(&format!("internal error: {panic}"))
    }));
    let done =
        log::init(log_options(sys::arguments().skip(1))).and_then(|()| run([begun, started]));
    let code = done.unwrap_or_else(|error| {
        if error.is::<ReaderGone>() {
            return ReaderGone::EXIT_CODE;
        }
        log::failure(&error);
        let interrupted = error.downcast_ref::<Interrupted>();
        interrupted.map_or(1, Interrupted::exit_code)
    });
    // Exit codes beyond a byte do not exist.
    code & 0xff
}

fn run(started: [Instant; 2]) -> Result<i32> {
    let parsed = match cli::parse(sys::arguments()) {
        Ok(parsed) => parsed,
        Err(error) => return refuse(&error),
    };
    match parsed {
        Parsed::Help(text) => commands::print(&text).map(|()| 0),
        Parsed::Version => {
            let program = sys::arguments().next().unwrap_or_default();
            commands::print(&features::version(&program)).map(|()| 0)
        }
        Parsed::Command(cli) => {
            let Some(format) = &cli.global.timings else {
                return dispatch(&cli);
            };
            timings::begin(started);
            let done = dispatch(&cli);
            timings::step(|| "end".to_string());
            let report = timings::report(&cli.verb, format)?;
            // Nobody may be there to read it, who would be no reason to fail.
            writeln!(std::io::stderr(), "{report}").ok();
            done
        }
    }
}

fn refuse(error: &anyhow::Error) -> Result<i32> {
    let usage = coded("usage", format!("{error:#}")).into();
    if !error.is::<UnknownCommand>() {
        return Err(usage);
    }
    log::failure(&usage);
    Ok(UnknownCommand::EXIT_CODE)
}

fn root_of_this_user() -> PathBuf {
    let euid = nix::unistd::geteuid().as_raw();
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR");
    let confined = runtime_dir.is_some() && host::in_user_namespace().unwrap_or(false);
    cli::default_root(normalize::called(), euid, confined, runtime_dir.as_deref())
}

/// Those with most to hold are not inlined here: each command would touch the stack of all.
fn dispatch(cli: &Cli) -> Result<i32> {
    let store = Store::new(cli.global.root.clone().unwrap_or_else(root_of_this_user));
    match &cli.command {
        Command::Create(args) => commands::create::run(args, &cli.global, &store),
        // Callers tell a process that could not be run from one that failed.
        Command::Exec(args) => commands::exec::run(args, &store).or_else(|error| {
            log::failure(&error);
            Ok(255)
        }),
        Command::Start(args) => commands::start::run(args, &store),
        Command::Run(args) => commands::run::run(args, &cli.global, &store),
        Command::State(args) => commands::state::run(args, &store),
        Command::Kill(args) => commands::kill::run(args, &store),
        Command::Delete(args) => commands::delete::run(args, &store),
        Command::Pause(args) => commands::pause::pause(args, &store),
        Command::Resume(args) => commands::pause::resume(args, &store),
        Command::Ps(args) => commands::ps::run(args, &store),
        Command::List(args) => commands::list::run(args, &store),
        Command::Update(args) => commands::update::run(args, &store),
        Command::Events(args) => commands::events::run(args, &store),
        Command::Stats(args) => commands::stats::run(args, &store),
        Command::Mounts(args) => commands::mounts::run(args, &store),
        Command::Check(args) => commands::check::run(args, &store),
        Command::Completion(args) => commands::completion::run(args),
        Command::Complete(args) => commands::completion::complete(args, &store),
        Command::Man(args) => commands::man::run(args),
        Command::Spec(args) => commands::spec::run(args).map(|()| 0),
        Command::Features => commands::features::run().map(|()| 0),
    }
}
