//! The words of a call, brought into the one form that clap is given, from all the forms in which
//! engines write them: repeated flags, one dash or two, `=` or a space before the value.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, anyhow, bail};
use clap::{Arg, CommandFactory};

use crate::cli::{Global, every_verb, one_verb};
use crate::sys;

/// A call in the one form that clap is given: the program, the global flags, the verb, its flags,
/// each with its value in one word, `--`, the operands.
pub struct Call {
    pub words: Vec<OsString>,
    pub verb: OsString,
    pub command: clap::Command,
}

/// What this program is called, and calls itself: engines and people may know it as runc.
pub fn program(word: &OsStr) -> &'static str {
    match Path::new(word).file_name() == Some(OsStr::new("runc")) {
        true => "runc",
        false => "cofferdam",
    }
}

/// The name in this call.
pub fn called() -> &'static str {
    program(&sys::arguments().next().unwrap_or_default())
}

pub fn canonical(args: &mut impl Iterator<Item = OsString>) -> Result<Call> {
    let global = Global::command();
    let mut words = vec![OsString::from("cofferdam")];
    let verb = next_operand(&global, args, &mut words)?.unwrap_or_default();
    if let Some((name, _)) = flag(&verb) {
        bail!("flag provided but not defined: -{name}");
    }
    if verb == "help" {
        words.extend(args.next());
        words.push("--help".into());
    } else if !verb.is_empty() {
        words.push(verb.clone());
    }
    let command = match one_verb(&verb) {
        Some(level) => {
            let operands = operands(&global, &level, args, &mut words)?;
            words.extend(operands);
            global.subcommand(level)
        }
        None => every_verb(),
    };
    Ok(Call {
        words,
        verb,
        command,
    })
}

/// The operands of a verb, with the `--` that keeps clap from taking one for a flag.
fn operands(
    global: &clap::Command,
    level: &clap::Command,
    args: &mut impl Iterator<Item = OsString>,
    words: &mut Vec<OsString>,
) -> Result<Vec<OsString>> {
    let takes_hyphens = level.get_positionals().any(Arg::is_allow_hyphen_values_set);
    let passes_on = level.get_positionals().any(Arg::is_trailing_var_arg_set);
    let runs_command = level.get_positionals().any(Arg::is_last_set);
    let mut operands = Vec::new();
    while let Some(word) = next_operand(level, args, words)? {
        if word == "--" {
            operands.extend(runs_command.then_some(word));
            operands.extend(args.by_ref());
        } else if let Some((name, _)) = flag(&word)
            && (operands.is_empty() || !takes_hyphens)
        {
            let hint = find(global, &name).map_or("", |_| "; it goes before the command");
            bail!("flag provided but not defined: -{name}{hint}");
        } else {
            operands.push(word);
            if passes_on {
                // What follows the container's name is another program's, whatever it looks like.
                operands.extend(args.next().filter(|word| word != "--"));
                operands.extend(args.by_ref());
            }
        }
    }
    if !runs_command {
        operands.insert(0, "--".into());
    }
    Ok(operands)
}

/// Reads flags into `words`, up to a word that is none or that `level` does not know.
fn next_operand(
    level: &clap::Command,
    args: &mut impl Iterator<Item = OsString>,
    words: &mut Vec<OsString>,
) -> Result<Option<OsString>> {
    while let Some(word) = args.next() {
        let Some((name, value)) = flag(&word) else {
            return Ok(Some(word));
        };
        if name == "help" || name == "h" {
            words.push("--help".into());
            continue;
        }
        let Some(arg) = find(level, &name) else {
            return Ok(Some(word));
        };
        let long = format!("--{}", arg.get_long().unwrap_or_default());
        if arg.get_action().takes_values() {
            let value = value.or_else(|| args.next());
            let value = value.ok_or_else(|| anyhow!("flag needs an argument: {long}"))?;
            words.push([OsString::from(long), value].join(OsStr::new("=")));
        } else {
            set_switch(words, long, value.as_deref())?;
        }
    }
    Ok(None)
}

fn set_switch(words: &mut Vec<OsString>, long: String, value: Option<&OsStr>) -> Result<()> {
    let value = value.unwrap_or(OsStr::new("true"));
    match value.to_str() {
        Some("true") => words.push(long.into()),
        Some("false") => words.retain(|word| *word != *long),
        _ => bail!("{long}: {value:?}: must be true or false"),
    }
    Ok(())
}

pub fn find<'a>(level: &'a clap::Command, name: &str) -> Option<&'a Arg> {
    level.get_arguments().find(|arg| {
        let short = |letter: char| letter.encode_utf8(&mut [0; 4]) == name;
        arg.get_long() == Some(name) || arg.get_short().is_some_and(short)
    })
}

/// Name and value of `--name`, `-name`, `--name=value` or `-name=value`; `-` and `--` are no flags.
pub fn flag(word: &OsStr) -> Option<(String, Option<OsString>)> {
    let dashless = word.as_bytes().strip_prefix(b"-")?;
    let dashless = dashless.strip_prefix(b"-").unwrap_or(dashless);
    let mut parts = dashless.splitn(2, |byte| *byte == b'=');
    let name = String::from_utf8_lossy(parts.next()?).into_owned();
    let value = parts.next().map(OsStr::from_bytes);
    (!name.is_empty()).then(|| (name, value.map(OsStr::to_os_string)))
}
