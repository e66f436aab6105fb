//! cofferdam, a low-level OCI container runtime: opens the log, reads the command line, runs one verb,
//! and says once what went wrong.

#![deny(unsafe_code)]
// sys/entry.rs has the function; unit tests and fuzzing have a harness of their own.
#![cfg_attr(not(any(test, fuzzing)), no_main)]

mod argv;
mod bundle;
mod caller_files;
mod cgroup;
mod channel;
mod cli;
mod commands;
mod container;
mod dbus;
mod descendants;
mod directory;
mod fault;
mod flags;
#[cfg(any(test, fuzzing))]
#[path = "../fuzz/targets/mod.rs"]
pub mod fuzz;
mod hooks;
mod host;
mod idmap;
mod init;
mod intelrdt;
mod joins;
mod launch;
mod log;
mod lsm;
mod netdev;
mod notify;
mod patience;
mod pid_file;
mod plain;
mod plan;
mod program;
mod relay;
mod removal;
mod report;
mod sd_notify;
mod selfexe;
mod slot;
mod spelling;
mod start;
mod state_root;
mod stdio;
#[allow(unsafe_code)]
mod sys;
mod terminal;
mod timings;
mod trees;
mod users;
mod way;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use cli::{Cli, Command, Parsed, UnknownCommand};
use commands::ReaderGone;
use container::Store;
use fault::coded;
use patience::Interrupted;

/// Tests have threads.
#[cfg(not(any(test, fuzzing)))]
#[global_allocator]
static ALLOCATOR: sys::alloc::Allocator = sys::alloc::Allocator::new();

/// Gives the exit code.
#[cfg_attr(any(test, fuzzing), allow(dead_code))]
fn start(begun: Instant) -> i32 {
    let started = Instant::now();
    // A backtrace costs milliseconds. The variable is meant for a program that the caller debugs.
    sys::process::remove_variable("RUST_BACKTRACE");
    // What is made must be usable whatever the caller's is; hooks get this one too.
    sys::process::set_umask(plan::process::UMASK).ok();
    std::panic::set_hook(Box::new(|panic| {
        log::error(&format!("internal error: {panic}"))
    }));
    let done = log::init(sys::arguments()).and_then(|()| run([begun, started]));
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
        Parsed::Text(text) => {
            commands::print(&text)?;
            Ok(0)
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
    cli::default_root(argv::called(), euid, confined, runtime_dir.as_deref())
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
