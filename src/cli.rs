//! The command line: every flag of every verb, in every form in which engines write it.
//!
//! Run by the parent, once. The structures say what was asked; `parse` brings the words into the
//! form that clap reads and gives its errors the texts that engines look for. Reads no file and no
//! environment, prints nothing, and decides nothing but whether the words are well formed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::argv;
use crate::commands::features::version;

#[derive(Debug)]
pub struct Cli {
    pub global: Global,
    pub command: Command,
}

/// What goes before the verb.
#[derive(Debug, Parser)]
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
    log: Option<PathBuf>,
    /// Write the log as text, or as one JSON object a line
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
    /// Log every step
    #[arg(long)]
    debug: bool,
    /// Let systemd make the cgroups; linux.cgroupsPath is then SLICE:PREFIX:NAME
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Go on without cgroups that this user may not make; auto: only when not root
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub rootless: Rootless,
    /// Print version, commit, spec version and libseccomp version
    #[arg(short, long, action = ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    True,
    False,
    Auto,
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
    /// Write a config.json to start from
    Spec(Spec),
    /// Print what this runtime supports, as JSON
    Features,
}

#[derive(Args, Debug)]
pub struct Create {
    #[command(flatten)]
    pub flags: CreateFlags,
    // Engines may send these two: create never waits, and so it adopts nobody.
    #[arg(short, long, hide = true)]
    detach: bool,
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Name of the new container: letters, digits, and any of _ + . -
    pub id: String,
}

/// What create and run have in common.
#[derive(Args, Debug)]
pub struct CreateFlags {
    /// The bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Read FILE instead of the bundle's config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the process id to FILE once the container is created
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Print what would be done and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Send the terminal to this unix socket, for process.terminal
    #[arg(long, value_name = "SOCKET", help_heading = "Descriptors")]
    pub console_socket: Option<PathBuf>,
    /// Send a pidfd of the container to this unix socket
    #[arg(long, value_name = "SOCKET", help_heading = "Descriptors")]
    pub pidfd_socket: Option<PathBuf>,
    /// Hand on N more descriptors, from 3 + $LISTEN_FDS upwards
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "Descriptors"
    )]
    pub preserve_fds: u32,
    /// Change the root without pivot_root, for a root file system on a ramdisk; less safe
    #[arg(long, help_heading = "Isolation")]
    pub no_pivot: bool,
    /// Share the session keyring of the caller
    #[arg(long, help_heading = "Isolation")]
    pub no_new_keyring: bool,
}

#[derive(Args, Debug)]
pub struct Run {
    #[command(flatten)]
    pub flags: CreateFlags,
    /// Return once the program runs, do not wait for its end
    #[arg(short, long, help_heading = "Foreground")]
    pub detach: bool,
    /// Leave the container when its program has ended
    #[arg(long, help_heading = "Foreground")]
    pub keep: bool,
    /// Do not adopt processes that the container leaves behind
    #[arg(long, help_heading = "Foreground")]
    pub no_subreaper: bool,
    /// Run on an overlay of these directories, without a bundle; once for each, top first
    #[arg(long = "layer", value_name = "DIR", action = ArgAction::Append, help_heading = "Root file system")]
    pub layers: Vec<PathBuf>,
    /// Keep what the container changes above its layers in DIR [default: lost with the container]
    #[arg(long, value_name = "DIR", help_heading = "Root file system")]
    pub upper: Option<PathBuf>,
    /// Name of the new container: letters, digits, and any of _ + . -
    pub id: String,
    /// Run this instead of process.args
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Start {
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct State {
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Kill {
    /// Signal every process of the container; no error if it has stopped
    #[arg(short, long)]
    pub all: bool,
    /// Name of the container
    pub id: String,
    /// A number or a name, with or without SIG
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub signal: String,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// Kill the container if it runs; no error if it does not exist
    #[arg(short, long)]
    pub force: bool,
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Exec {
    /// Take the process from FILE, as in `process` of a config.json
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Run as UID[:GID], or by name as the container's /etc/passwd has it
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Add a group, by number; may be repeated
    #[arg(short = 'g', long, value_name = "GID", action = ArgAction::Append)]
    pub additional_gids: Vec<u32>,
    /// Start in this directory of the container
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set a variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE", action = ArgAction::Append)]
    pub env: Vec<String>,
    /// Add a capability, such as CAP_NET_ADMIN; may be repeated
    #[arg(short, long, value_name = "CAPABILITY", action = ArgAction::Append)]
    pub cap: Vec<String>,
    /// Gain no privileges by exec
    #[arg(long)]
    pub no_new_privs: bool,
    /// AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Run in this cgroup below the container's
    #[arg(long, value_name = "PATH", action = ArgAction::Append)]
    pub cgroup: Vec<String>,
    /// Do not wait for the end of the process
    #[arg(short, long)]
    pub detach: bool,
    /// Write the number of the process to FILE
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the master of the terminal to this socket
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Send a pidfd of the process to this socket
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Hand on N descriptors of the caller, from 3 on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Run in a paused container too; the process waits until it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    #[arg(long, hide = true)]
    no_subreaper: bool,
    /// Name of the container
    pub id: String,
    /// Command and its arguments
    #[arg(
        value_name = "COMMAND",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub command: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Pause {
    /// Name of the container
    pub id: String,
}

#[derive(Args, Debug)]
pub struct Ps {
    /// Print what ps(1) prints, or an array of process numbers
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Name of the container
    pub id: String,
    /// Options of ps(1)
    #[arg(
        value_name = "PS OPTIONS",
        default_value = "-ef",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub ps_args: Vec<String>,
}

#[derive(Args, Debug)]
pub struct List {
    /// Print a table, or a JSON array of states
    #[arg(short, long, default_value = "table")]
    pub format: Format,
    /// Print only the names
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Args, Debug)]
pub struct Spec {
    /// Write it into DIR
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// For a user who is not root: a user namespace with this user as root in it
    #[arg(long)]
    pub rootless: bool,
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
/// Engines call some verbs with and some without flags, and must meet the same directory. Podman
/// without root calls from a user namespace, as uid 0 there.
pub fn default_root(
    euid: u32,
    in_user_namespace: bool,
    xdg_runtime_dir: Option<&OsStr>,
) -> PathBuf {
    let rootless = euid != 0 || in_user_namespace;
    match xdg_runtime_dir.map(Path::new) {
        Some(dir) if rootless && dir.is_absolute() => dir.join("cofferdam"),
        _ => PathBuf::from("/run/cofferdam"),
    }
}

#[derive(Debug)]
pub enum Parsed {
    Command(Box<Cli>),
    /// Help or version, for stdout; the exit status is 0.
    Text(String),
}

/// Reads the words of a call, the program's name first.
pub fn parse(args: impl Iterator<Item = OsString>) -> Result<Parsed> {
    let mut args = args;
    let program = args.next().unwrap_or_default();
    let call = argv::canonical(&mut args)?;
    let cli = read(call.command, &call.words).or_else(|_| read(every_verb(), &call.words));
    match cli {
        Ok(cli) => {
            check_root(cli.global.root.as_deref())?;
            Ok(Parsed::Command(Box::new(cli)))
        }
        Err(error) => match error.kind() {
            ErrorKind::DisplayVersion => Ok(Parsed::Text(version(&program))),
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Ok(Parsed::Text(error.render().to_string()))
            }
            _ => Err(refusal(&call.verb, &error)),
        },
    }
}

fn read(mut definition: clap::Command, words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = definition.try_get_matches_from_mut(words)?;
    Ok(Cli {
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
        "features" => new("features"),
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
fn refusal(verb: &OsStr, error: &clap::Error) -> anyhow::Error {
    match (error.kind(), one_verb(verb)) {
        (ErrorKind::InvalidSubcommand, _) => unknown_command(error),
        (ErrorKind::MissingSubcommand, _) => anyhow!("no command given; see `cofferdam --help`"),
        (ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument, Some(level)) => {
            wrong_count(&level)
        }
        (ErrorKind::InvalidValue, _) if context(error, ContextKind::InvalidValue).is_empty() => {
            let arg = context(error, ContextKind::InvalidArg);
            let long = arg.split(' ').next().unwrap_or_default();
            anyhow!("flag needs an argument: {long}")
        }
        _ => {
            let text = error.render().to_string();
            let lines = text.lines().take_while(|line| !line.is_empty());
            let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
            anyhow!("{}", line.trim_start_matches("error: "))
        }
    }
}

fn unknown_command(error: &clap::Error) -> anyhow::Error {
    let name = context(error, ContextKind::InvalidSubcommand);
    match error.get(ContextKind::SuggestedSubcommand) {
        Some(ContextValue::Strings(near)) if !near.is_empty() => {
            anyhow!("unknown command {name:?}: did you mean {:?}?", near[0])
        }
        _ => anyhow!("unknown command {name:?}; see `cofferdam --help`"),
    }
}

fn wrong_count(level: &clap::Command) -> anyhow::Error {
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
    anyhow!("\"cofferdam {name}\" requires {count} argument(s){hint}")
}

fn context(error: &clap::Error, kind: ContextKind) -> String {
    let value = error.get(kind).map(ContextValue::to_string);
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::argv::find;
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
            Ok(Parsed::Text(text)) => text,
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
                "unknown command \"craete\": did you mean \"create\"?",
            ),
            (
                "x checkpoint --help",
                "unknown command \"checkpoint\"; see `cofferdam --help`",
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
                "invalid value '-1' for '--preserve-fds <N>': -1 is not in 0..=4294967295",
            ),
            (
                "x list -f xml",
                "invalid value 'xml' for '--format <FORMAT>' [possible values: table, json]",
            ),
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
    fn the_version_has_its_word_once() {
        for (line, name) in [
            ("cofferdam --version", "cofferdam"),
            ("/usr/sbin/runc -v", "runc"),
            ("/usr/sbin/runc2 --root /r -v list", "cofferdam"),
        ] {
            let text = text(line);
            assert!(text.starts_with(&format!("{name} version 0.")), "{text}");
            assert_eq!(text.matches("version").count(), 1);
            let names = text
                .lines()
                .skip(1)
                .map(|line| line.split(": ").next().unwrap());
            assert_eq!(names.collect::<Vec<_>>(), ["commit", "spec", "libseccomp"]);
        }
    }

    #[test]
    fn only_one_who_is_root_indeed_gets_run() {
        let root =
            |euid, confined, dir: Option<&str>| default_root(euid, confined, dir.map(OsStr::new));
        let users = Some("/run/user/7");
        assert_eq!(root(0, false, users), Path::new("/run/cofferdam"));
        assert_eq!(root(7, false, users), Path::new("/run/user/7/cofferdam"));
        assert_eq!(root(0, true, users), Path::new("/run/user/7/cofferdam"));
        assert_eq!(root(0, true, None), Path::new("/run/cofferdam"));
        assert_eq!(root(7, false, Some("")), Path::new("/run/cofferdam"));
        assert_eq!(root(7, false, Some("tmp")), Path::new("/run/cofferdam"));
    }

    #[test]
    fn the_log_knows_which_global_flags_have_no_value() {
        let command = Global::command();
        let global = command
            .get_arguments()
            .filter(|arg| !arg.get_action().takes_values());
        for arg in global {
            assert!(
                crate::log::SWITCHES.contains(&arg.get_long().unwrap()),
                "{arg}"
            );
        }
        for name in crate::log::SWITCHES {
            let takes_value =
                find(&command, name).is_some_and(|arg| arg.get_action().takes_values());
            assert!(!takes_value, "{name}");
        }
    }
}
