//! `man`: the manual pages, one for the program and one for each verb.
//!
//! Run by the parent without a container, for `make install`. What a verb takes comes from the definition
//! that the parser reads; here are the sections that it cannot know. Must not look at the host.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::cli::{self, args};
use crate::lifecycle::pid_file;
use crate::sys;

const SECTION: &str = "8";

/// Verb and what it does, at more length than in `--help`.
const DESCRIPTIONS: &[(&str, &str)] = &[
    (
        "check",
        "Tries out what containers of this user need: calls of the kernel, namespaces, ids, cgroups, file \
         systems, programs. Each line has a name, ok, limited or missing, and what was found; where something \
         can be done about it, the next line says what. All is tried in children and in a cgroup that are gone \
         afterwards.",
    ),
    (
        "cofferdam",
        "Runs containers from OCI bundles, called by engines such as containerd, Docker or podman, or by hand. \
         Options of the program go before the command, those of a command after it.",
    ),
    (
        "create",
        "Makes the container that the config.json of a bundle describes: namespaces, root file system, cgroup \
         and limits. Its program does not run yet, but waits for cofferdam-start(8). Of a container that \
         cannot be made nothing is left.",
    ),
    (
        "delete",
        "Removes the cgroup of a container, its record, and what else was made for it, then runs its poststop \
         hooks. The container must have stopped, or not have been started yet.",
    ),
    (
        "events",
        "Prints what a container uses, a JSON object a line: once, or again and again until its last process \
         ends. An object of type oom says that the kernel has killed a process for want of memory. Times are \
         in nanoseconds.",
    ),
    (
        "exec",
        "Runs another process in the namespaces and the cgroup of a container, with the environment, user and \
         capabilities of the container's own process, but for what the options change.",
    ),
    (
        "run",
        "Does what create, start and delete do, in the foreground: signals go to the program, and its standard \
         streams are those of the caller, or a terminal where process.terminal is true. With --layer no \
         bundle is needed.",
    ),
    (
        "spec",
        "Writes a config.json for a shell on a terminal. With a command, process.terminal is false: its output \
         can be piped, and create needs no --console-socket. A file that is there already is left alone.",
    ),
    (
        "start",
        "Lets the program of a created container run, after the startContainer hooks, and returns when it runs. \
         Where a hook fails or the program cannot be executed, start fails and says why.",
    ),
    (
        "state",
        "Prints a JSON object with the status: creating, created, running, paused or stopped. The kernel is \
         asked for it each time.",
    ),
    (
        "stats",
        "Shows what containers use, renewed every second until q or ^C; once, where standard output is no \
         terminal. A dash is what the kernel does not count, for want of a controller. CPU 100 % is one \
         processor. PSI is the share of the last ten seconds in which some process waited for a processor, \
         for memory or for IO. THROTTLED is the share of periods in which the CPU quota ran out.",
    ),
];

/// Verb and an example of it. Those of `--help` come first.
const EXAMPLES: &[(&str, &str)] = &[
    ("check", "cofferdam check | grep -A1 missing"),
    ("check", "cofferdam check --format json | jq .usable"),
    (
        "completion",
        "cofferdam completion bash > ~/.local/share/bash-completion/completions/cofferdam",
    ),
    (
        "create",
        "cofferdam create --bundle /srv/web --pid-file /run/web.pid web",
    ),
    ("create", "cofferdam create --bundle /srv/web --dry-run web"),
    ("delete", "cofferdam delete --force web"),
    ("events", "cofferdam events --stats web"),
    ("exec", "cofferdam exec web ls /"),
    (
        "exec",
        "cofferdam exec --tty --user 1000:1000 --env TERM=xterm web sh",
    ),
    ("kill", "cofferdam kill web KILL"),
    ("list", "cofferdam list --quiet"),
    ("ps", "cofferdam ps web -o pid,comm"),
    ("spec", "cofferdam spec --bundle /srv/web"),
    (
        "spec",
        "cofferdam spec --rootless --hostname web -- sh -c 'echo hi'",
    ),
    ("stats", "cofferdam stats"),
    ("stats", "cofferdam stats --format json web"),
    (
        "update",
        "cofferdam update --memory 512m --pids-limit 100 web",
    ),
];

const EXIT_STATUS: &str =
    "0 on success. 1 on failure, with one line on standard error that says why.";

/// Verbs whose exit status says more.
const EXIT_STATUSES: &[(&str, &str)] = &[
    (
        "check",
        "0 if containers can run for this user. 1 if not, or if the check itself fails.",
    ),
    (
        "exec",
        "That of the process, or 128 and the number of the signal that killed it. 255 if it could not be run. \
         With --detach 0 once it runs.",
    ),
    (
        "run",
        "That of the program, or 128 and the number of the signal that killed it. 1 if it could not be run. \
         With --detach 0 once it runs.",
    ),
];

const FILES: &[(&str, &str)] = &[
    (
        "/run/cofferdam",
        "The containers' records, a directory each; --root names another place.",
    ),
    (
        "$XDG_RUNTIME_DIR/cofferdam",
        "The same for a user who is not root.",
    ),
    (
        "config.json",
        "In a bundle: what the container is to be, as the OCI runtime specification defines it.",
    ),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "XDG_RUNTIME_DIR",
        "Where records are kept without root and without --root.",
    ),
    (
        "LISTEN_FDS",
        "How many descriptors, from 3 on, create and run hand on to the container (sd_listen_fds(3)).",
    ),
    (
        "NOTIFY_SOCKET",
        "The socket of the service manager (sd_notify(3)). A container that is created with it gets a socket of its own. \
         start and run --detach wait until the container is ready and forward READY=1 with MAINPID; run in the foreground \
         forwards all messages about the service.",
    ),
];

/// Makes `dir` if it is not there, and writes the pages into it.
pub fn run(args: &args::Man) -> Result<i32> {
    let dir = &args.dir;
    sys::io(std::fs::create_dir_all(dir)).with_context(|| format!("make {}", dir.display()))?;
    for (name, text) in pages()? {
        let path = Path::new(dir).join(&name);
        check(&path).with_context(|| format!("write {}", path.display()))?;
        sys::io(std::fs::write(&path, text))
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(0)
}

/// A page replaces a page, and nothing that only has its name.
fn check(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => bail!(
            "is {}; remove it, or name another directory",
            pid_file::kind(&found)
        ),
        _ => Ok(()),
    }
}

/// File names and texts.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = cli::every_verb();
    all.build();
    let verbs: Vec<clap::Command> = all
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set())
        .cloned()
        .collect();
    let mut pages = vec![(format!("cofferdam.{SECTION}"), page(all)?)];
    for verb in verbs {
        let name = format!("cofferdam-{}.{SECTION}", verb.get_name());
        pages.push((name, page(verb)?));
    }
    Ok(pages)
}

fn page(mut command: clap::Command) -> Result<Vec<u8>> {
    let (verb, examples) = (command.get_name().to_string(), examples(&command));
    let title = command.get_display_name().unwrap_or(&verb).to_uppercase();
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_string();
    let is_program = command.has_subcommands();
    if let Some((_, text)) = DESCRIPTIONS.iter().find(|(name, _)| *name == verb) {
        command = command.long_about(*text);
    }
    let command = command
        .override_usage(usage)
        .subcommand_help_heading("COMMANDS");
    let man = Man::new(command)
        .title(title)
        .section(SECTION)
        .source(concat!("cofferdam ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if is_program {
        man.render_subcommands_section(&mut text)?;
    }
    more(&verb, is_program, &examples).to_writer(&mut text)?;
    Ok(text)
}

/// The sections that the definition does not have.
fn more(verb: &str, is_program: bool, examples: &[String]) -> Roff {
    let mut roff = Roff::new();
    let own = EXIT_STATUSES.iter().find(|(name, _)| *name == verb);
    let status = own.map_or(EXIT_STATUS, |(_, text)| text);
    roff.control("SH", ["EXIT STATUS"]).text([roman(status)]);
    if is_program {
        definitions(&mut roff, "FILES", FILES);
        definitions(&mut roff, "ENVIRONMENT", ENVIRONMENT);
    }
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in examples {
            roff.text([roman(line.as_str())]);
        }
        roff.control("fi", []);
    }
    let others = match is_program {
        true => "https://github.com/opencontainers/runtime-spec",
        false => "cofferdam(8)",
    };
    roff.control("SH", ["SEE ALSO"]).text([roman(others)]);
    roff
}

fn definitions(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, meaning) in entries {
        roff.control("TP", [])
            .text([bold(*name)])
            .text([roman(*meaning)]);
    }
}

/// Those below `Examples:` in the help of the verb, and those of the table.
fn examples(command: &clap::Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let lines = help.lines().skip_while(|line| *line != "Examples:").skip(1);
    let in_help = lines.take_while(|line| !line.is_empty()).map(str::trim);
    let name = command.get_name();
    let table = EXAMPLES.iter().filter(|(verb, _)| *verb == name);
    let in_table = table.map(|(_, line)| *line);
    in_help.chain(in_table).map(str::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_name_verbs_that_exist() {
        for (verb, example) in EXAMPLES {
            assert!(cli::one_verb(verb.as_ref()).is_some(), "{verb}");
            assert!(example.contains(&format!("cofferdam {verb}")), "{example}");
        }
        let program = |verb: &str| verb == "cofferdam";
        for (verb, _) in EXIT_STATUSES.iter().chain(DESCRIPTIONS) {
            let known = cli::one_verb(verb.as_ref()).is_some();
            assert!(known || program(verb), "{verb}");
        }
    }

    #[test]
    fn the_examples_parse() {
        for (_, example) in EXAMPLES {
            let call = example.split([';', '|', '>', '\'']).next().unwrap().trim();
            let words = call.split(' ').map(Into::into);
            assert!(
                matches!(cli::parse(words), Ok(cli::Parsed::Command(_))),
                "{call}"
            );
        }
    }

    #[test]
    fn every_shown_flag_has_its_place_and_no_other() {
        let pages = pages().unwrap();
        for verb in cli::every_verb().get_subcommands() {
            let name = format!("cofferdam-{}.8", verb.get_name());
            let page = pages.iter().find(|(file, _)| *file == name);
            assert_eq!(page.is_none(), verb.is_hide_set(), "{name}");
            let Some((_, text)) = page else { continue };
            let text = String::from_utf8_lossy(text);
            for arg in verb.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let header = format!("\\-\\-{}\\fR", long.replace('-', "\\-"));
                assert_eq!(text.contains(&header), !arg.is_hide_set(), "{name} {long}");
            }
        }
    }
}
