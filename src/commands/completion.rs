//! `completion`: the script by which a shell completes calls of this program.
//!
//! Run by the parent without a container. Made from the definition that the parser reads, so that the
//! two cannot drift apart; must not look at the host.

use anyhow::Result;
use clap_complete::aot;

use crate::cli;
use crate::flags::{self, Shell};

pub fn run(args: &flags::Completion) -> Result<i32> {
    super::print(&script(args.shell))?;
    Ok(0)
}

fn script(shell: Shell) -> String {
    let mut command = visible(&cli::every_verb());
    let mut text = Vec::new();
    let name = "cofferdam";
    match shell {
        Shell::Bash => aot::generate(aot::Bash, &mut command, name, &mut text),
        Shell::Zsh => aot::generate(aot::Zsh, &mut command, name, &mut text),
        Shell::Fish => aot::generate(aot::Fish, &mut command, name, &mut text),
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    match shell {
        Shell::Bash => with_containers(&text, &command),
        _ => text,
    }
}

/// The generated function knows no containers: this one asks for them where a name stands first.
const CONTAINERS: &str = r#"
_cofferdam_containers() {
    _cofferdam "$@"
    local at verb=0
    case "$3" in --all|--detach|--force|--no-stream|--regex|--stats|--tty) ;; -*) return ;; esac
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "${COMP_WORDS[at]}" in
            VERBS) ((verb)) && return; verb=$at ;;
            mounts) ((verb)) && return; verb=$at; ((at++)) ;;
            -*) ;;
            *) ((verb)) && return ;;
        esac
    done
    [[ $2 != -* ]] && ((verb && at == COMP_CWORD)) || return
    COMPREPLY=( $(compgen -W "$("$1" "${COMP_WORDS[@]:1:verb-1}" list --quiet 2>/dev/null)" -- "$2") )
}
"#;

fn with_containers(text: &str, command: &clap::Command) -> String {
    let takes_one = |verb: &&clap::Command| {
        let first = verb.get_positionals().next();
        let named = first.is_some_and(|arg| ["id", "ids"].contains(&arg.get_id().as_str()));
        named && !["create", "run"].contains(&verb.get_name())
    };
    let verbs = command.get_subcommands().filter(takes_one);
    let verbs: Vec<&str> = verbs.map(clap::Command::get_name).collect();
    let function = CONTAINERS.replace("VERBS", &verbs.join("|"));
    text.replace(
        "complete -F _cofferdam ",
        "complete -F _cofferdam_containers ",
    ) + &function
}

/// A copy without the flags and verbs that `--help` hides too: the generators show what they find.
fn visible(command: &clap::Command) -> clap::Command {
    // clap wants names that live as long as the program, which ends after this.
    let name: &'static str = command.get_name().to_string().leak();
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    clap::Command::new(name)
        .about(command.get_about().cloned().unwrap_or_default())
        .version(env!("CARGO_PKG_VERSION"))
        .disable_version_flag(true)
        .disable_help_subcommand(true)
        .args(shown.cloned())
        .subcommands(verbs.map(visible))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

    /// Whether the text has the word, and not only as a part of a longer one.
    fn has(text: &str, word: &str) -> bool {
        let is_part = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        text.match_indices(word).any(|(at, _)| {
            let after = &text[at + word.len()..];
            !text[..at].ends_with(is_part) && !after.starts_with(is_part)
        })
    }

    #[test]
    fn every_shown_flag_of_every_verb_is_there() {
        for shell in SHELLS {
            let text = script(shell);
            for verb in cli::every_verb().get_subcommands() {
                assert_eq!(has(&text, verb.get_name()), !verb.is_hide_set(), "{verb}");
                let shown = verb.get_arguments().filter(|arg| !arg.is_hide_set());
                for long in shown.filter_map(clap::Arg::get_long) {
                    let word = match shell {
                        Shell::Fish => format!("-l {long}"),
                        _ => format!("--{long}"),
                    };
                    assert!(text.contains(&word), "{shell:?}: {verb} {word}");
                }
            }
        }
    }

    #[test]
    fn hidden_flags_are_not_offered() {
        let update = cli::one_verb("update".as_ref()).unwrap();
        assert!(update.get_arguments().any(clap::Arg::is_hide_set));
        for shell in SHELLS {
            let text = script(shell);
            for arg in update.get_arguments().filter(|arg| arg.is_hide_set()) {
                assert!(!text.contains(arg.get_long().unwrap()), "{shell:?}: {arg}");
            }
        }
    }
}
