//! `completion`: the script by which a shell completes calls of this program, and `complete`, which such a script calls.
//!
//! Run by the parent without a container. What is offered comes from the definition that the parser reads, and for ids from the
//! records of containers; nothing is changed.

use anyhow::Result;
use clap::{Arg, Command};
use nix::sys::signal::Signal;

use crate::cli::args::{self, Shell};
use crate::cli::{self, normalize};
use crate::state::container::{Container, Status};
use crate::state::store::Store;

pub fn run(args: &args::Completion) -> Result<i32> {
    super::print(match args.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    })?;
    Ok(0)
}

/// Bash makes `=` a word of its own, and replaces only what comes after it.
const BASH: &str = r#"_cofferdam() {
    local IFS=$'\n' line current=${COMP_WORDS[COMP_CWORD]}
    [[ $current == = ]] && current=
    COMPREPLY=()
    for line in $("${1/#\~/$HOME}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
        case $line in
            :files) compopt -o filenames; COMPREPLY+=( $(compgen -f -- "$current") ) ;;
            :directories) compopt -o filenames; COMPREPLY+=( $(compgen -d -- "$current") ) ;;
            *)
                line=${line%%$'\t'*}
                [[ $COMP_WORDBREAKS != *=* ]] || line=${line#--*=}
                COMPREPLY+=( "$line" )
                ;;
        esac
    done
}
complete -F _cofferdam cofferdam
"#;

const ZSH: &str = r#"#compdef cofferdam
_cofferdam() {
    local line
    local -a offers
    for line in ${(f)"$(${(Q)words[1]/#\~/$HOME} complete -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)"}; do
        case $line in
            :files) compset -P '--*='; _files ;;
            :directories) compset -P '--*='; _files -/ ;;
            *) offers+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    (( ! $#offers )) || _describe cofferdam offers
}
if [[ $funcstack[1] = _cofferdam ]]; then _cofferdam "$@"; else compdef _cofferdam cofferdam; fi
"#;

const FISH: &str = r#"function __cofferdam_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l flag (string match -r -- '^--[^=]*=' $current)
    set -l value (string replace -r -- '^--[^=]*=' '' $current)
    for line in ($words[1] complete -- $words[2..-1] $current 2>/dev/null)
        switch $line
            case :files
                string replace -r -- '^' "$flag" (__fish_complete_path $value)
            case :directories
                string replace -r -- '^' "$flag" (__fish_complete_directories $value '')
            case '*'
                echo $line
        end
    end
end
complete -c cofferdam -f -a '(__cofferdam_complete)'
"#;

/// Prints what the last word may become, one offer a line: the word, a tab, its meaning. A line `:files` or `:directories` has
/// the shell offer those.
pub fn complete(args: &args::Complete, store: &Store) -> Result<i32> {
    let words = joined(&args.words);
    let cursor = Cursor::new(&words);
    let lines = match cursor.offer() {
        Offer::Nothing => Vec::new(),
        Offer::Files => vec![":files".to_string()],
        Offer::Directories => vec![":directories".to_string()],
        Offer::Words(lines) => cursor.fitting(&lines),
        Offer::Ids(states) => {
            let containers = match cursor.root {
                Some(root) => Store::new(root.into()).list()?,
                None => store.list()?,
            };
            cursor.fitting(&ids(&containers, states))
        }
    };
    super::print(&lines.concat())?;
    Ok(0)
}

/// Makes one word again of a name, `=` and a value.
fn joined(words: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut before = "";
    for word in words {
        match all.last_mut() {
            Some(last) if word == "=" || before == "=" => last.push_str(word),
            _ => all.push(word.clone()),
        }
        before = word;
    }
    all
}

enum Offer {
    Nothing,
    Files,
    Directories,
    /// Each with a tab and its meaning.
    Words(Vec<String>),
    /// Names of containers in one of these states.
    Ids(&'static [Status]),
}

/// Where in a call the word is that is to be completed.
struct Cursor<'a> {
    /// The definition of the verb, or before one is given that of the program.
    level: Command,
    /// The flag whose value the word is.
    flag: Option<Arg>,
    /// How many operands of the verb come before.
    operands: usize,
    /// The word belongs to the command that runs in the container.
    foreign: bool,
    root: Option<&'a str>,
    /// `--flag=`, if that is a part of the word.
    prefix: &'a str,
    word: &'a str,
}

impl<'a> Cursor<'a> {
    fn new(words: &'a [String]) -> Cursor<'a> {
        let mut cursor = Cursor {
            level: cli::every_verb(),
            flag: None,
            operands: 0,
            foreign: false,
            root: None,
            prefix: "",
            word: "",
        };
        let Some((word, before)) = words.split_last() else {
            return cursor;
        };
        before.iter().for_each(|word| cursor.pass(word));
        cursor.word = word;
        let value = word.find('=').filter(|_| word.starts_with('-'));
        if let Some(at) = value.filter(|_| cursor.flag.is_none() && !cursor.foreign) {
            cursor.prefix = &word[..=at];
            let name = word[..at].trim_start_matches('-');
            cursor.flag = normalize::find(&cursor.level, name).cloned();
        }
        cursor
    }

    /// Takes note of a word before the one that is to be completed.
    fn pass(&mut self, word: &'a str) {
        if let Some(flag) = self.flag.take() {
            if flag.get_id() == "root" {
                self.root = Some(word);
            }
        } else if self.foreign {
        } else if word == "--" {
            self.foreign = true;
        } else if let Some((name, value)) = normalize::flag(word.as_ref()) {
            let flag =
                normalize::find(&self.level, &name).filter(|arg| arg.get_action().takes_values());
            match (name.as_str(), value) {
                ("root", Some(_)) => self.root = word.split_once('=').map(|(_, root)| root),
                (_, None) => self.flag = flag.cloned(),
                _ => {}
            }
        } else if self.level.has_subcommands() {
            let verb = self.level.find_subcommand(word).cloned();
            self.level = verb.unwrap_or_default();
        } else {
            self.foreign = self.operand().is_some_and(Arg::is_trailing_var_arg_set);
            self.operands += 1;
        }
    }

    /// The operand at this place. The last one may take several words.
    fn operand(&self) -> Option<&Arg> {
        let all = self
            .level
            .get_positionals()
            .filter(|arg| !arg.is_last_set());
        let all: Vec<&Arg> = all.collect();
        let repeated = |arg: &&&Arg| matches!(arg.get_action(), clap::ArgAction::Append);
        all.get(self.operands)
            .or(all.last().filter(repeated))
            .copied()
    }

    fn offer(&self) -> Offer {
        if let Some(flag) = &self.flag {
            return value(flag);
        }
        if self.foreign {
            return Offer::Files;
        }
        if self.word.starts_with('-') {
            return Offer::Words(flags_of(&self.level));
        }
        if self.level.has_subcommands() {
            let verbs = self
                .level
                .get_subcommands()
                .filter(|verb| !verb.is_hide_set());
            let line = |verb: &Command| line(verb.get_name(), verb.get_about());
            return Offer::Words(verbs.map(line).collect());
        }
        match self.operand() {
            Some(arg) if arg.get_id() == "id" || arg.get_id() == "ids" => {
                Offer::Ids(states(self.level.get_name()))
            }
            Some(arg) if arg.get_id() == "signal" => Offer::Words(signals(self.word)),
            Some(arg) => value(arg),
            None => Offer::Nothing,
        }
    }

    /// The whole words that begin with this one, as lines.
    fn fitting(&self, lines: &[String]) -> Vec<String> {
        let lines = lines.iter().map(|line| format!("{}{line}\n", self.prefix));
        lines.filter(|line| line.starts_with(self.word)).collect()
    }
}

fn line(word: &str, meaning: Option<&clap::builder::StyledStr>) -> String {
    let meaning = meaning.map(ToString::to_string).unwrap_or_default();
    format!("{word}\t{}", meaning.lines().next().unwrap_or_default())
}

fn flags_of(level: &Command) -> Vec<String> {
    let mut lines = Vec::new();
    for arg in level.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let short = arg.get_short().map(|letter| format!("-{letter}"));
        let long = arg.get_long().map(|name| format!("--{name}"));
        let words = short.into_iter().chain(long);
        lines.extend(words.map(|word| line(&word, arg.get_help())));
    }
    lines.push("--help\tPrint help".to_string());
    lines
}

/// Returns the words that a flag or an operand takes, by the name of its value.
fn value(arg: &Arg) -> Offer {
    let names = arg.get_value_names().unwrap_or_default();
    let name = names.first().map_or("", |name| name.as_str());
    let words: Vec<String> = arg
        .get_possible_values()
        .iter()
        .map(|value| line(value.get_name(), value.get_help()))
        .collect();
    match name {
        _ if !words.is_empty() => Offer::Words(words),
        "DIR" => Offer::Directories,
        "FILE" | "PATH" | "SOCKET" | "COMMAND" => Offer::Files,
        _ => Offer::Nothing,
    }
}

/// The states of the containers that a verb works on. `create` and `run` take a new id.
fn states(verb: &str) -> &'static [Status] {
    use Status::{Created, Creating, Paused, Running, Stopped};
    match verb {
        "create" | "run" => &[],
        "start" => &[Created],
        "exec" | "pause" => &[Running],
        "resume" => &[Paused],
        "state" | "delete" => &[Creating, Created, Running, Paused, Stopped],
        _ => &[Created, Running, Paused],
    }
}

fn ids(containers: &[Container], states: &[Status]) -> Vec<String> {
    let known = containers
        .iter()
        .filter_map(|container| Some((container, container.status().ok()?)));
    let fit = known.filter(|(_, status)| states.contains(status));
    fit.map(|(container, status)| format!("{}\t{status}", container.state.id))
        .collect()
}

/// All names, with SIG if the word begins so.
fn signals(word: &str) -> Vec<String> {
    let name = |signal: Signal| match word.starts_with('S') {
        true => signal.as_str(),
        false => signal.as_str().trim_start_matches("SIG"),
    };
    let line = |signal| format!("{}\tsignal {}", name(signal), signal as i32);
    Signal::iterator().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The offered words for a line, without their meanings; `:ids` and the states.
    fn offered(call: &str) -> String {
        let words = joined(&call.split(' ').map(String::from).collect::<Vec<_>>());
        let cursor = Cursor::new(&words);
        let lines = match cursor.offer() {
            Offer::Nothing => vec![],
            Offer::Files => vec![":files".to_string()],
            Offer::Directories => vec![":directories".to_string()],
            Offer::Words(lines) => cursor.fitting(&lines),
            Offer::Ids(states) => vec![format!(":ids {states:?}")],
        };
        let words = lines
            .iter()
            .filter_map(|line| line.trim_end().split('\t').next());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_each_place_of_a_call_takes() {
        for (call, want) in [
            ("cre", "create"),
            ("ma", ""),
            ("--log-l", "--log-level"),
            ("--log-format ", "text json"),
            ("--log-format=j", "--log-format=json"),
            ("--log-format = j", "--log-format=json"),
            ("--root ", ":directories"),
            ("--log x --root y crea", "create"),
            ("create --pid", "--pid-file --pidfd-socket"),
            ("create --pid-file ", ":files"),
            ("create --bundle=/", ":directories"),
            ("create ", ":ids []"),
            ("list --format j", "json"),
            ("list ", ""),
            ("start ", ":ids [Created]"),
            ("start x ", ""),
            ("--root /r exec --tty --env A=B ", ":ids [Running]"),
            ("--root = /r exec --env A = B ", ":ids [Running]"),
            ("exec x ", ":files"),
            ("exec x ls --", ":files"),
            ("run x ", ""),
            ("run x -- ", ":files"),
            ("resume ", ":ids [Paused]"),
            ("kill --all ", ":ids [Created, Running, Paused]"),
            ("kill x KI", "KILL"),
            ("kill x SIGK", "SIGKILL"),
            ("kill x KILL ", ""),
            ("stats x ", ":ids [Created, Running, Paused]"),
            ("mounts ", "add remove list"),
            ("mounts remove ", ":ids [Created, Running, Paused]"),
            ("mounts add x ", ":files"),
            ("update --kernel", ""),
            ("update --resources ", ":files"),
            ("completion ", "bash zsh fish"),
            ("nonsense ", ""),
        ] {
            assert_eq!(offered(call), want, "{call}");
        }
    }

    #[test]
    fn every_shown_verb_and_flag_is_offered_and_no_hidden_one() {
        let verbs = offered("");
        for verb in cli::every_verb().get_subcommands() {
            let name = verb.get_name();
            let is_offered = |words: &str, word: &str| words.split(' ').any(|other| other == word);
            assert_eq!(is_offered(&verbs, name), !verb.is_hide_set(), "{name}");
            let flags = offered(&format!("{name} -"));
            for arg in verb.get_arguments() {
                let Some(long) = arg.get_long() else { continue };
                let long = format!("--{long}");
                assert_eq!(
                    is_offered(&flags, &long),
                    !arg.is_hide_set(),
                    "{name} {long}"
                );
            }
        }
    }

    #[test]
    fn every_file_and_directory_is_known_by_the_name_of_its_value() {
        for verb in cli::every_verb().get_subcommands() {
            let paths = verb.get_arguments().filter(|arg| {
                arg.get_value_parser().type_id() == std::any::TypeId::of::<std::path::PathBuf>()
            });
            for arg in paths.filter(|arg| arg.get_long().is_some()) {
                let offer = value(arg);
                assert!(
                    matches!(offer, Offer::Files | Offer::Directories),
                    "{verb} {arg}"
                );
            }
        }
    }
}
