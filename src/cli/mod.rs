//! The command line: every flag of every verb, in every form in which engines write it.
//!
//! Run by the parent, once. The structures, of which those of a verb are in `flags`, say what was asked. `parse` asks `plain` first;
//! what that leaves is brought into the form that clap reads, whose errors get the texts that engines look for. Reads no file and no
//! environment, prints nothing, and decides nothing but whether the words are well formed.

pub mod args;
pub mod fast;
pub mod log_options;
pub mod normalize;

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cli::args::*;

#[derive(Debug)]
pub struct Cli {
    pub global: Global,
    pub command: Command,
    /// The name of the command.
    pub verb: String,
}

/// What goes before the verb.
#[derive(Debug, Default, Parser)]
#[command(
    name = "cofferdam",
    version = env!("CARGO_PKG_VERSION"),
    about = "Run containers from OCI bundles: directories with a config.json and a root file system",
    after_help = EXAMPLES,
    args_override_self = true,
    disable_help_subcommand = true,
    disable_version_flag = true,
    arg_required_else_help = true,
    subcommand_required = true,
)]
pub struct Global {
    /// Keep the state of containers below DIR [default: /run/cofferdam, or
    /// $XDG_RUNTIME_DIR/cofferdam when not root]
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    // `log` reads these three itself, before the parse can fail.
    /// Append to FILE: the error of a command that fails
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// Write the log as text, or as one JSON object a line
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Log every step, as --log-level debug does
    #[arg(long)]
    pub debug: bool,
    /// Log this and what is more severe [default: warning; error in a JSON log]
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warning", "debug"])]
    pub log_level: Option<String>,
    /// Print to standard error how long each step took
    #[arg(long, value_name = "FORMAT", value_parser = ["text", "json"])]
    pub timings: Option<String>,
    /// Let systemd make the cgroups; linux.cgroupsPath is then SLICE:PREFIX:NAME
    #[arg(short, long)]
    pub systemd_cgroup: bool,
    /// Who makes the cgroups: cgroupfs (this program), systemd, or disabled (nobody)
    #[arg(long, value_name = "MANAGER")]
    pub cgroup_manager: Option<CgroupManager>,
    /// Go on without cgroups that this user may not make; auto: only when not root
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: Rootless,
    /// Print version, commit, spec version and libseccomp version
    #[arg(short, long, action = ArgAction::Version)]
    pub version: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    True,
    False,
    #[default]
    Auto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

impl Global {
    /// The flag of its own says more than the older switch.
    pub fn cgroup_manager(&self) -> CgroupManager {
        let switch = match self.systemd_cgroup {
            true => CgroupManager::Systemd,
            false => CgroupManager::Cgroupfs,
        };
        self.cgroup_manager.unwrap_or(switch)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container from a bundle, ready to start
    Create(Create),
    /// Run the program of a created container
    Start(Start),
    /// Create a container, run its program, wait for its end, delete it
    #[command(after_help = RUN_EXAMPLES)]
    Run(Run),
    /// Print the state of a container as JSON
    State(State),
    /// Send a signal to a container
    Kill(Kill),
    /// Remove a container that has stopped
    Delete(Delete),
    /// Run another process in a container
    Exec(Exec),
    /// Freeze the processes of a container
    Pause(Pause),
    /// Let the processes of a paused container go on
    Resume(Pause),
    /// List the processes of a container
    Ps(Ps),
    /// List the containers
    List(List),
    /// Change the limits of a container
    Update(Update),
    /// Print what a container uses, and when it runs out of memory, as JSON
    Events(Events),
    /// Show what containers use
    Stats(Stats),
    /// Add, remove or list mounts of a running container
    Mounts(Mounts),
    /// Write a config.json to start from
    Spec(Spec),
    /// Print what this runtime supports, as JSON
    Features,
    /// Tell what this host offers to containers, and what it lacks
    Check(Check),
    /// Print the completion script of a shell
    Completion(Completion),
    /// Print what the last word of a call may become, for the scripts of shells
    #[command(hide = true)]
    Complete(Complete),
    /// Write the man pages
    #[command(hide = true)]
    Man(Man),
}

const EXAMPLES: &str = "\
Examples:
  cofferdam spec --bundle /srv/web           write a config.json
  cofferdam run --bundle /srv/web web        run the container `web` in the foreground
  cofferdam create --bundle /srv/web web     or step by step: create, start, kill, delete

Global options go before the command. `cofferdam COMMAND --help` explains a command.";

const RUN_EXAMPLES: &str = "\
Examples:
  cofferdam run --detach web                 the bundle is the current directory
  cofferdam run web -- sh -c 'ls /'          another command than the bundle's
  cofferdam run --layer /srv/app --layer /srv/base web

The exit status is that of the program, or 128 and the number of the signal that killed it.";

/// Where the state of containers is without `--root`.
///
/// That of runc for who calls it so: its `list` shows what it showed. Engines call some verbs with and some without flags, and must meet the same directory. Podman
/// without root calls from a user namespace, as uid 0 there.
pub fn default_root(
    program: &str,
    euid: u32,
    in_user_namespace: bool,
    xdg_runtime_dir: Option<&OsStr>,
) -> PathBuf {
    let rootless = euid != 0 || in_user_namespace;
    match xdg_runtime_dir.map(Path::new) {
        Some(dir) if rootless && dir.is_absolute() => dir.join(program),
        _ => Path::new("/run").join(program),
    }
}

#[derive(Debug)]
pub enum Parsed {
    Command(Box<Cli>),
    /// The text of the help, for stdout; the exit status is 0.
    Help(String),
    Version,
}

/// Reads the words of a call, the program's name first.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed> {
    let mut args = args;
    let program = args.next().unwrap_or_default();
    let args: Vec<OsString> = args.collect();
    if let Some(cli) = fast::read(&args) {
        return well_formed(cli);
    }
    let call = normalize::canonical(&mut args.into_iter())?;
    let cli = read(call.command, &call.words).or_else(|_| read(every_verb(), &call.words));
    match cli {
        Ok(cli) => well_formed(cli),
        Err(error) => match error.kind() {
            ErrorKind::DisplayVersion => Ok(Parsed::Version),
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                let text = error.render().to_string();
                Ok(Parsed::Help(
                    text.replace("cofferdam", normalize::program(&program)),
                ))
            }
            _ => Err(refusal(normalize::program(&program), &call.verb, &error)),
        },
    }
}

fn well_formed(cli: Cli) -> Result<Parsed> {
    check_root(cli.global.root.as_deref())?;
    Ok(Parsed::Command(Box::new(cli)))
}

pub fn read(mut definition: clap::Command, words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = definition.try_get_matches_from_mut(words)?;
    Ok(Cli {
        verb: matches.subcommand_name().unwrap_or_default().to_string(),
        global: Global::from_arg_matches_mut(&mut matches)?,
        command: Command::from_arg_matches_mut(&mut matches)?,
    })
}

/// The definition that knows the help of every verb, and which verb a misspelt one resembles.
pub fn every_verb() -> clap::Command {
    Command::augment_subcommands(Global::command())
}

/// The definition of one verb, for calls without a fault: all of them together take as much memory,
/// page fault by page fault, as the rest of a short call.
pub fn one_verb(name: &OsStr) -> Option<clap::Command> {
    let new = clap::Command::new;
    Some(match name.to_str()? {
        "create" => Create::augment_args(new("create")),
        "start" => Start::augment_args(new("start")),
        "run" => Run::augment_args(new("run")),
        "state" => State::augment_args(new("state")),
        "kill" => Kill::augment_args(new("kill")),
        "delete" => Delete::augment_args(new("delete")),
        "exec" => Exec::augment_args(new("exec")),
        "pause" => Pause::augment_args(new("pause")),
        "resume" => Pause::augment_args(new("resume")),
        "ps" => Ps::augment_args(new("ps")),
        "list" => List::augment_args(new("list")),
        "spec" => Spec::augment_args(new("spec")),
        "update" => Update::augment_args(new("update")),
        "events" => Events::augment_args(new("events")),
        "stats" => Stats::augment_args(new("stats")),
        "mounts" => Mounts::augment_args(new("mounts")),
        "features" => new("features"),
        "check" => Check::augment_args(new("check")),
        "completion" => Completion::augment_args(new("completion")),
        "complete" => Complete::augment_args(new("complete")),
        "man" => Man::augment_args(new("man")),
        _ => return None,
    })
}

fn check_root(root: Option<&Path>) -> Result<()> {
    match root {
        Some(root) if root.components().eq(Path::new("/").components()) => {
            bail!("--root: {}: must not be the root directory", root.display())
        }
        _ => Ok(()),
    }
}

/// What clap has refused, as one line.
fn refusal(program: &str, verb: &OsStr, error: &clap::Error) -> anyhow::Error {
    match (error.kind(), one_verb(verb)) {
        (ErrorKind::InvalidSubcommand, _) => unknown_command(program, error),
        (ErrorKind::MissingSubcommand, _) => anyhow!("no command given; see `{program} --help`"),
        (ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument, Some(level)) => {
            wrong_count(program, &level)
        }
        (ErrorKind::InvalidValue, _) if context(error, ContextKind::InvalidValue).is_empty() => {
            anyhow!("flag needs an argument: {}", subject(error))
        }
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, level) => {
            wrong_value(level.as_ref(), error)
        }
        _ => {
            let text = error.render().to_string();
            let lines = text.lines().take_while(|line| !line.is_empty());
            let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
            anyhow!("{}", line.trim_start_matches("error: "))
        }
    }
}

/// The flag without the name of its value, or the name of the operand.
fn subject(error: &clap::Error) -> String {
    let arg = context(error, ContextKind::InvalidArg);
    let name = arg.split(' ').next().unwrap_or_default();
    name.trim_matches(['<', '>', '[', ']']).to_string()
}

/// In words of our own: the library's tell of digits and of types.
fn wrong_value(level: Option<&clap::Command>, error: &clap::Error) -> anyhow::Error {
    let (subject, value) = (subject(error), context(error, ContextKind::InvalidValue));
    let arg = level.and_then(|level| normalize::find(level, subject.trim_start_matches('-')));
    let wanted = match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(words)) => alternatives(words),
        _ => arg.map_or("another value", range).to_string(),
    };
    anyhow!("{subject}: {value:?}: must be {wanted}")
}

fn alternatives(words: &[String]) -> String {
    match words {
        [some @ .., last] if !some.is_empty() => format!("{} or {last}", some.join(", ")),
        _ => words.concat(),
    }
}

/// Which numbers a flag takes.
fn range(arg: &Arg) -> &'static str {
    let kind = arg.get_value_parser().type_id();
    if kind == TypeId::of::<u16>() {
        "a whole number from 0 to 65535"
    } else if kind == TypeId::of::<u32>() {
        "a whole number from 0 to 4294967295"
    } else if kind == TypeId::of::<u64>() {
        "a whole number, 0 or more, below 2^64"
    } else if kind == TypeId::of::<i64>() {
        "a whole number between -2^63 and 2^63"
    } else {
        "another value"
    }
}

/// A command that is none of ours: callers that probe for one tell this by its exit status.
#[derive(Debug)]
pub struct UnknownCommand(String);

impl UnknownCommand {
    pub const EXIT_CODE: i32 = 3;
}

impl fmt::Display for UnknownCommand {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnknownCommand {}

/// Names of commands in other programs for containers.
const HABITS: [(&str, &str); 5] = [
    ("ls", "list"),
    ("rm", "delete"),
    ("stop", "kill"),
    ("inspect", "state"),
    ("unpause", "resume"),
];

fn unknown_command(program: &str, error: &clap::Error) -> anyhow::Error {
    let name = context(error, ContextKind::InvalidSubcommand);
    let all = every_verb();
    let mut shown = all.get_subcommands().filter(|verb| !verb.is_hide_set());
    let habit = HABITS.iter().find(|(habit, _)| *habit == name);
    let meant = shown.find(|verb| match habit {
        Some((_, wanted)) => verb.get_name() == *wanted,
        None => is_slip(&name, verb.get_name()),
    });
    let hint = match (name.as_str(), meant) {
        ("checkpoint" | "restore", _) => ": not supported by this runtime".to_string(),
        (_, Some(verb)) => format!("; did you mean {:?}?", verb.get_name()),
        _ => format!("; see `{program} --help`"),
    };
    UnknownCommand(format!("unknown command {name:?}{hint}")).into()
}

/// Whether one letter makes the difference: wrong, missing, too many, or in the place of its neighbour.
fn is_slip(word: &str, verb: &str) -> bool {
    let (word, verb) = (word.as_bytes(), verb.as_bytes());
    let front = word.iter().zip(verb).take_while(|(a, b)| a == b).count();
    let (word, verb) = (&word[front..], &verb[front..]);
    let ends = word.iter().rev().zip(verb.iter().rev());
    let back = ends.take_while(|(a, b)| a == b).count();
    match (&word[..word.len() - back], &verb[..verb.len() - back]) {
        ([a, b], [c, d]) => (a, b) == (d, c),
        (word, verb) => word.len() <= 1 && verb.len() <= 1,
    }
}

fn wrong_count(program: &str, level: &clap::Command) -> anyhow::Error {
    let all: Vec<&Arg> = level.get_positionals().collect();
    let least = all.iter().filter(|arg| arg.is_required_set()).count();
    let most = all.iter().filter(|arg| !arg.is_last_set()).count();
    let count = match least == most {
        true => format!("exactly {most}"),
        false => format!("{least} to {most}"),
    };
    let last = all.get(most);
    let hint = last.map_or("", |_| "; put -- before the container's command");
    let name = level.get_name();
    anyhow!("\"{program} {name}\" requires {count} argument(s){hint}")
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    let value = error.get(kind).map(ContextValue::to_string);
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::normalize::find;
    use std::os::unix::ffi::OsStrExt;

    fn parsed(line: &str) -> Result<Parsed> {
        parse(line.split(' ').map(OsString::from))
    }

    fn cli(line: &str) -> Cli {
        match parsed(line) {
            Ok(Parsed::Command(cli)) => *cli,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &str) -> String {
        let text = format!("{:#}", parsed(line).expect_err(line));
        assert!(!text.contains('\n'), "{text}");
        text
    }

    fn text(line: &str) -> String {
        match parsed(line) {
            Ok(Parsed::Help(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn create(line: &str) -> Create {
        match cli(line).command {
            Command::Create(create) => create,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn run(line: &str) -> Run {
        match cli(line).command {
            Command::Run(run) => run,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn kill(line: &str) -> Kill {
        match cli(line).command {
            Command::Kill(kill) => kill,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn every_number_is_refused_in_plain_words() {
        let numbers = [
            TypeId::of::<u16>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<i64>(),
        ];
        let mut seen = 0;
        for verb in every_verb().get_subcommands() {
            for arg in verb
                .get_arguments()
                .filter(|arg| arg.get_action().takes_values())
            {
                let kind = arg.get_value_parser().type_id();
                if !numbers.iter().any(|number| kind == *number) {
                    continue;
                }
                let long = arg.get_long().expect("a flag");
                for value in ["x", "", "1.5", "99999999999999999999999"] {
                    let name = verb.get_name();
                    let text = error(&format!("cofferdam {name} --{long}={value} c"));
                    let start = format!("--{long}: {value:?}: must be a whole number");
                    assert!(text.starts_with(&start), "{text}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 40, "{seen}");
    }

    #[test]
    fn one_letter_makes_a_slip() {
        for word in ["creat", "craete", "kreate", "create1", "xcreate"] {
            assert!(is_slip(word, "create"), "{word}");
        }
        for (word, verb) in [
            ("bogus", "mounts"),
            ("creaet1", "create"),
            ("xy", "ps"),
            ("", "ps"),
        ] {
            assert!(!is_slip(word, verb), "{word}");
        }
    }

    #[test]
    fn clap_finds_no_fault_in_the_definition() {
        every_verb().debug_assert();
    }

    #[test]
    fn a_verb_alone_is_defined_as_among_all() {
        let all = every_verb();
        let args = |verb: &clap::Command| format!("{:?}", verb.get_arguments().collect::<Vec<_>>());
        for verb in all.get_subcommands() {
            let name = verb.get_name();
            let alone = one_verb(OsStr::new(name)).expect(name);
            assert_eq!(alone.get_name(), name);
            assert_eq!(args(&alone), args(verb), "{name}");
        }
    }

    #[test]
    fn create_as_containerd_calls_it() {
        let line = "runc --root /run/r --log /b/log.json --log-format json --systemd-cgroup \
                    --rootless=true create --bundle /b --pid-file /b/init.pid \
                    --console-socket /tmp/pty.sock --pidfd-socket /tmp/pidfd.sock --no-pivot \
                    --no-new-keyring --detach --preserve-fds 2 c1";
        let all = cli(line);
        assert_eq!(all.global.root.as_deref(), Some(Path::new("/run/r")));
        assert!(all.global.systemd_cgroup);
        assert_eq!(all.global.rootless, Rootless::True);
        let create = create(line);
        assert_eq!(create.id, "c1");
        assert_eq!(create.flags.bundle, Path::new("/b"));
        assert_eq!(create.flags.pid_file.unwrap(), Path::new("/b/init.pid"));
        assert_eq!(
            create.flags.console_socket.unwrap(),
            Path::new("/tmp/pty.sock")
        );
        assert_eq!(
            create.flags.pidfd_socket.unwrap(),
            Path::new("/tmp/pidfd.sock")
        );
        assert_eq!(create.flags.preserve_fds, 2);
        assert!(create.flags.no_pivot && create.flags.no_new_keyring && !create.flags.dry_run);
    }

    #[test]
    fn the_defaults() {
        let all = cli("cofferdam create c");
        assert_eq!(all.global.root, None);
        assert_eq!(all.global.rootless, Rootless::Auto);
        assert!(!all.global.systemd_cgroup);
        let flags = create("cofferdam create c").flags;
        assert_eq!(flags.bundle, Path::new("."));
        assert_eq!((flags.config, flags.pid_file), (None, None));
        assert_eq!(flags.preserve_fds, 0);
        assert_eq!(kill("cofferdam kill c").signal, "SIGTERM");
    }

    #[test]
    fn who_calls_it_runc_is_answered_so() {
        assert!(error("runc start").starts_with("\"runc start\" requires"));
        assert!(error("/usr/bin/runc frobnicate").ends_with("see `runc --help`"));
        for line in ["/x/runc --help", "runc run --help"] {
            let text = text(line);
            assert!(
                text.contains("runc") && !text.contains("cofferdam"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_manager_of_cgroups_by_either_flag() {
        for (flags, manager) in [
            ("", CgroupManager::Cgroupfs),
            ("--systemd-cgroup", CgroupManager::Systemd),
            ("--cgroup-manager systemd", CgroupManager::Systemd),
            ("--cgroup-manager=disabled", CgroupManager::Disabled),
            (
                "--systemd-cgroup --cgroup-manager cgroupfs",
                CgroupManager::Cgroupfs,
            ),
        ] {
            let line = format!("cofferdam {flags} create c").replace("  ", " ");
            assert_eq!(cli(&line).global.cgroup_manager(), manager, "{flags}");
        }
        assert!(error("cofferdam --cgroup-manager cgroup1 create c").contains("cgroup1"));
    }

    #[test]
    fn a_repeated_flag_counts_once_and_last() {
        let line = "cofferdam --root /a --root=/b --systemd-cgroup --systemd-cgroup create \
                    --bundle /x -b /y --preserve-fds 1 --preserve-fds=3 c";
        assert_eq!(cli(line).global.root.unwrap(), Path::new("/b"));
        let flags = create(line).flags;
        assert_eq!(
            (flags.bundle.as_path(), flags.preserve_fds),
            (Path::new("/y"), 3)
        );
        assert!(!run("cofferdam run --detach --detach=false c").detach);
        assert!(run("cofferdam run --detach=false -d=true c").detach);
        assert!(
            !cli("cofferdam --systemd-cgroup=false list")
                .global
                .systemd_cgroup
        );
    }

    #[test]
    fn long_flags_may_have_one_dash() {
        let line = "cofferdam -root /r run -no-subreaper -bundle=/b -keep c";
        assert_eq!(cli(line).global.root.unwrap(), Path::new("/r"));
        let run = run(line);
        assert!(run.no_subreaper && run.keep);
        assert_eq!(run.flags.bundle, Path::new("/b"));
    }

    #[test]
    fn a_value_may_look_like_a_flag() {
        let flags = create("cofferdam create --pid-file --no-pivot --bundle=-b=c c").flags;
        assert_eq!(flags.pid_file.unwrap(), Path::new("--no-pivot"));
        assert_eq!(flags.bundle, Path::new("-b=c"));
        assert!(!flags.no_pivot);
        assert_eq!(create("cofferdam create -- -c").id, "-c");
        assert_eq!(kill("cofferdam kill c -9").signal, "-9");
        assert_eq!(kill("cofferdam kill c -- -9").signal, "-9");
    }

    #[test]
    fn paths_need_not_be_text() {
        let odd = OsStr::from_bytes(b"/b\xff");
        let joined = OsStr::from_bytes(b"--pid-file=/b\xff");
        let words = ["cofferdam", "create", "c", "--bundle"].map(OsStr::new);
        let words = words.into_iter().chain([odd, joined]);
        let parsed = parse(words.map(OsStr::to_os_string)).unwrap();
        let Parsed::Command(cli) = parsed else {
            panic!("{parsed:?}");
        };
        let Command::Create(create) = cli.command else {
            panic!("{cli:?}");
        };
        assert_eq!(create.flags.bundle.as_os_str(), odd);
        assert_eq!(create.flags.pid_file.unwrap().as_os_str(), odd);
    }

    #[test]
    fn all_behind_the_dashes_belongs_to_the_container() {
        let run = run("cofferdam run --detach c --keep -- sh --help -- -c --detach=false");
        assert_eq!(run.id, "c");
        assert_eq!(run.command, ["sh", "--help", "--", "-c", "--detach=false"]);
        assert!(run.detach && run.keep);
        let error = error("cofferdam run c sh");
        assert_eq!(
            error,
            "\"cofferdam run\" requires exactly 1 argument(s); put -- before the container's command"
        );
    }

    #[test]
    fn layers_keep_their_order() {
        let run = run("cofferdam run --layer /top --layer=/base --upper /up c");
        assert_eq!(run.layers, [Path::new("/top"), Path::new("/base")]);
        assert_eq!(run.upper.unwrap(), Path::new("/up"));
    }

    #[test]
    fn flags_may_follow_the_operands() {
        let kill = kill("cofferdam kill c 9 --all");
        assert_eq!(
            (kill.id.as_str(), kill.signal.as_str(), kill.all),
            ("c", "9", true)
        );
        assert!(create("cofferdam create c --dry-run").flags.dry_run);
    }

    #[test]
    fn the_other_verbs() {
        assert!(matches!(
            cli("x delete -f c").command,
            Command::Delete(Delete { force: true, .. })
        ));
        assert!(matches!(
            cli("x list -q --format=json").command,
            Command::List(List {
                quiet: true,
                format: Format::Json
            })
        ));
        assert!(matches!(
            cli("x list").command,
            Command::List(List {
                format: Format::Table,
                ..
            })
        ));
        assert!(matches!(
            cli("x spec --rootless").command,
            Command::Spec(Spec { rootless: true, .. })
        ));
        assert!(matches!(cli("x start c").command, Command::Start(Start { id }) if id == "c"));
        assert!(matches!(cli("x state c").command, Command::State(State { id }) if id == "c"));
        assert!(matches!(cli("x features").command, Command::Features));
    }

    #[test]
    fn errors_that_engines_look_for() {
        for (line, want) in [
            ("x --log", "flag needs an argument: --log"),
            ("x create --bundle", "flag needs an argument: --bundle"),
            ("x create -b", "flag needs an argument: --bundle"),
            ("x create --bundle= c", "flag needs an argument: --bundle"),
            ("x --foo list", "flag provided but not defined: -foo"),
            ("x create --foo=1 c", "flag provided but not defined: -foo"),
            ("x start -x c", "flag provided but not defined: -x"),
            (
                "x run --root /r c",
                "flag provided but not defined: -root; it goes before the command",
            ),
            (
                "x start",
                "\"cofferdam start\" requires exactly 1 argument(s)",
            ),
            (
                "x start a b",
                "\"cofferdam start\" requires exactly 1 argument(s)",
            ),
            (
                "x start a -- -b",
                "\"cofferdam start\" requires exactly 1 argument(s)",
            ),
            ("x kill", "\"cofferdam kill\" requires 1 to 2 argument(s)"),
            (
                "x list a",
                "\"cofferdam list\" requires exactly 0 argument(s)",
            ),
        ] {
            assert_eq!(error(line), want, "{line}");
        }
    }

    #[test]
    fn errors_for_people() {
        for (line, want) in [
            (
                "x craete c",
                "unknown command \"craete\"; did you mean \"create\"?",
            ),
            (
                "x checkpoint --help",
                "unknown command \"checkpoint\": not supported by this runtime",
            ),
            (
                "x help frobnicate",
                "unknown command \"frobnicate\"; see `cofferdam --help`",
            ),
            ("x --debug", "no command given; see `cofferdam --help`"),
            (
                "x --root / list",
                "--root: /: must not be the root directory",
            ),
            (
                "x --root //. list",
                "--root: //.: must not be the root directory",
            ),
            (
                "x run -d=maybe c",
                "--detach: \"maybe\": must be true or false",
            ),
            (
                "x create --preserve-fds -1 c",
                "--preserve-fds: \"-1\": must be a whole number from 0 to 4294967295",
            ),
            ("x list -f xml", "--format: \"xml\": must be table or json"),
        ] {
            assert_eq!(error(line), want, "{line}");
        }
    }

    #[test]
    fn help_is_text() {
        assert!(text("cofferdam").contains("Commands:"));
        assert_eq!(text("x --help"), text("x help"));
        assert_eq!(text("x --help"), text("x -h --debug create c"));
        assert!(text("x run --help").contains("-- sh -c"));
        assert_eq!(text("x run --help"), text("x help run"));
        assert_eq!(text("x run --help"), text("x run a b --help"));
        let hidden = ["--no-subreaper", "--detach"];
        assert!(
            !hidden
                .iter()
                .any(|flag| text("x create --help").contains(flag))
        );
    }

    #[test]
    fn only_one_who_is_root_indeed_gets_run() {
        let root = |euid, confined, dir: Option<&str>| {
            default_root("cofferdam", euid, confined, dir.map(OsStr::new))
        };
        let users = Some("/run/user/7");
        assert_eq!(root(0, false, users), Path::new("/run/cofferdam"));
        assert_eq!(root(7, false, users), Path::new("/run/user/7/cofferdam"));
        assert_eq!(root(0, true, users), Path::new("/run/user/7/cofferdam"));
        assert_eq!(root(0, true, None), Path::new("/run/cofferdam"));
        assert_eq!(root(7, false, Some("")), Path::new("/run/cofferdam"));
        assert_eq!(root(7, false, Some("tmp")), Path::new("/run/cofferdam"));
        let users = Some(OsStr::new("/run/user/7"));
        let runc = |euid| default_root("runc", euid, false, users);
        assert_eq!(runc(0), Path::new("/run/runc"));
        assert_eq!(runc(7), Path::new("/run/user/7/runc"));
    }

    #[test]
    fn the_log_knows_which_global_flags_have_no_value() {
        let command = Global::command();
        let global = command
            .get_arguments()
            .filter(|arg| !arg.get_action().takes_values());
        for arg in global {
            assert!(
                crate::cli::log_options::SWITCHES.contains(&arg.get_long().unwrap()),
                "{arg}"
            );
        }
        for name in crate::cli::log_options::SWITCHES {
            let takes_value =
                find(&command, name).is_some_and(|arg| arg.get_action().takes_values());
            assert!(!takes_value, "{name}");
        }
    }
}
