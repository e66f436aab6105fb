//! PARENT: the calls that engines make, read without clap.
//!
//! To define a verb for clap takes longer than all that `state` does afterwards. Whatever is in any way unusual is left to
//! clap, which knows the errors and the help: this gives what clap would give, or nothing. A test compares the two.

use std::ffi::OsString;
use std::slice;

use clap::ValueEnum;

use crate::cli::args::{Create, CreateFlags, Delete, Exec, Format, Kill, List, Run, Start, State};
use crate::cli::{CgroupManager, Cli, Command, Global, Rootless, normalize};

/// What is left of a call, and what the flag that was read last has behind its `=`.
struct Words<'a> {
    rest: slice::Iter<'a, OsString>,
    value: Option<OsString>,
}

/// The words behind the program's name.
pub fn read(words: &[OsString]) -> Option<Cli> {
    let mut words = Words {
        rest: words.iter(),
        value: None,
    };
    let mut global = Global {
        log_format: "text".to_string(),
        ..Global::default()
    };
    let verb = words.operand(|name, words| global.set(name, words))?;
    let command = match verb.to_str()? {
        "create" => Command::Create(create(&mut words)?),
        "run" => Command::Run(run(&mut words)?),
        "start" => Command::Start(Start {
            id: words.only_operand(|_, _| None)?,
        }),
        "state" => Command::State(State {
            id: words.only_operand(|_, _| None)?,
        }),
        "exec" => Command::Exec(exec(&mut words)?),
        "kill" => Command::Kill(kill(&mut words)?),
        "delete" => Command::Delete(delete(&mut words)?),
        "list" => Command::List(list(&mut words)?),
        _ => return None,
    };
    Some(Cli {
        global,
        command,
        verb: verb.to_str()?.to_string(),
    })
}

fn create_flags() -> CreateFlags {
    CreateFlags {
        bundle: ".".into(),
        ..CreateFlags::default()
    }
}

fn create(words: &mut Words) -> Option<Create> {
    let mut create = Create {
        flags: create_flags(),
        ..Create::default()
    };
    create.id = words.only_operand(|name, words| {
        match name {
            "detach" | "d" => create.detach = words.switch()?,
            "no-subreaper" => create.no_subreaper = words.switch()?,
            _ => create.flags.set(name, words)?,
        }
        Some(())
    })?;
    Some(create)
}

fn run(words: &mut Words) -> Option<Run> {
    let mut run = Run {
        flags: create_flags(),
        ..Run::default()
    };
    run.id = words.only_operand(|name, words| {
        match name {
            "detach" | "d" => run.detach = words.switch()?,
            "keep" => run.keep = words.switch()?,
            "no-subreaper" => run.no_subreaper = words.switch()?,
            "layer" => run.layers.push(words.value()?.into()),
            "upper" => run.upper = Some(words.value()?.into()),
            _ => run.flags.set(name, words)?,
        }
        Some(())
    })?;
    Some(run)
}

/// What follows the name is the program of the container, whatever it looks like.
fn exec(words: &mut Words) -> Option<Exec> {
    let mut exec = Exec::default();
    let id = words.operand(|name, words| exec.set(name, words))?;
    exec.id = id.into_string().ok()?;
    let command = words
        .rest
        .by_ref()
        .map(|word| word.to_str().map(str::to_string));
    exec.command = command.collect::<Option<_>>()?;
    exec.command
        .first()
        .is_none_or(|word| word != "--")
        .then_some(exec)
}

fn kill(words: &mut Words) -> Option<Kill> {
    let mut kill = Kill::default();
    let mut set = |name: &str, words: &mut Words| {
        match name {
            "all" | "a" => kill.all = words.switch()?,
            "regex" | "r" => kill.regex = words.switch()?,
            _ => return None,
        }
        Some(())
    };
    let id = words.operand(&mut set)?;
    kill.signal = words.only_operand(set)?;
    kill.id = id.into_string().ok()?;
    Some(kill)
}

fn delete(words: &mut Words) -> Option<Delete> {
    let mut delete = Delete::default();
    delete.id = words.only_operand(|name, words| {
        match name {
            "force" | "f" => delete.force = words.switch()?,
            "regex" | "r" => delete.regex = words.switch()?,
            _ => return None,
        }
        Some(())
    })?;
    Some(delete)
}

fn list(words: &mut Words) -> Option<List> {
    let mut list = List {
        format: Format::Table,
        quiet: false,
    };
    let set = |name: &str, words: &mut Words| {
        match name {
            "format" | "f" => list.format = Format::from_str(&words.text()?, false).ok()?,
            "quiet" | "q" => list.quiet = words.switch()?,
            _ => return None,
        }
        Some(())
    };
    words.no_operand(set)?;
    Some(list)
}

impl Global {
    fn set(&mut self, name: &str, words: &mut Words) -> Option<()> {
        match name {
            "root" => self.root = Some(words.value()?.into()),
            "log" => self.log = Some(words.value()?.into()),
            "log-format" => self.log_format = words.one_of(&["text", "json"])?,
            "log-level" => {
                self.log_level = Some(words.one_of(&["error", "warning", "debug"])?);
            }
            "timings" => self.timings = Some(words.one_of(&["text", "json"])?),
            "debug" => self.debug = words.switch()?,
            "systemd-cgroup" | "s" => self.systemd_cgroup = words.switch()?,
            "cgroup-manager" => {
                self.cgroup_manager = Some(CgroupManager::from_str(&words.text()?, false).ok()?);
            }
            "rootless" => self.rootless = Rootless::from_str(&words.text()?, false).ok()?,
            _ => return None,
        }
        Some(())
    }
}

impl CreateFlags {
    fn set(&mut self, name: &str, words: &mut Words) -> Option<()> {
        match name {
            "bundle" | "b" => self.bundle = words.value()?.into(),
            "config" | "f" => self.config = Some(words.value()?.into()),
            "pid-file" => self.pid_file = Some(words.value()?.into()),
            "dry-run" => self.dry_run = words.switch()?,
            "console-socket" => self.console_socket = Some(words.value()?.into()),
            "pidfd-socket" => self.pidfd_socket = Some(words.value()?.into()),
            "preserve-fds" => self.preserve_fds = words.text()?.parse().ok()?,
            "no-pivot" => self.no_pivot = words.switch()?,
            "no-new-keyring" => self.no_new_keyring = words.switch()?,
            _ => return None,
        }
        Some(())
    }
}

impl Exec {
    fn set(&mut self, name: &str, words: &mut Words) -> Option<()> {
        match name {
            "process" | "p" => self.process = Some(words.value()?.into()),
            "tty" | "t" => self.tty = words.switch()?,
            "user" | "u" => self.user = Some(words.text()?),
            "additional-gids" | "g" => self.additional_gids.push(words.text()?.parse().ok()?),
            "cwd" => self.cwd = Some(words.text()?),
            "env" | "e" => self.env.push(words.text()?),
            "cap" | "c" => self.cap.push(words.text()?),
            "no-new-privs" => self.no_new_privs = words.switch()?,
            "apparmor" => self.apparmor = Some(words.text()?),
            "process-label" => self.process_label = Some(words.text()?),
            "cgroup" => self.cgroup.push(words.text()?),
            "detach" | "d" => self.detach = words.switch()?,
            "pid-file" => self.pid_file = Some(words.value()?.into()),
            "console-socket" => self.console_socket = Some(words.value()?.into()),
            "pidfd-socket" => self.pidfd_socket = Some(words.value()?.into()),
            "preserve-fds" => self.preserve_fds = words.text()?.parse().ok()?,
            "no-subreaper" => self.no_subreaper = words.switch()?,
            "ignore-paused" => self.ignore_paused = words.switch()?,
            _ => return None,
        }
        Some(())
    }
}

impl Words<'_> {
    /// The next word that is no flag. `--` and `-=x` are none either, but what they are is for clap to say.
    fn operand(&mut self, set: impl FnMut(&str, &mut Self) -> Option<()>) -> Option<OsString> {
        let word = self.flags(set)?;
        word.filter(|word| !word.as_encoded_bytes().starts_with(b"-"))
    }

    fn no_operand(&mut self, set: impl FnMut(&str, &mut Self) -> Option<()>) -> Option<()> {
        self.flags(set)?.is_none().then_some(())
    }

    /// Reads flags up to a word that is none, which it gives, or to the end.
    fn flags(
        &mut self,
        mut set: impl FnMut(&str, &mut Self) -> Option<()>,
    ) -> Option<Option<OsString>> {
        while let Some(word) = self.rest.next() {
            let Some((name, value)) = normalize::flag(word) else {
                return Some(Some(word.clone()));
            };
            self.value = value;
            set(&name, self)?;
        }
        Some(None)
    }

    fn only_operand(&mut self, set: impl FnMut(&str, &mut Self) -> Option<()>) -> Option<String> {
        let operand = self.operand(set)?.into_string().ok()?;
        self.rest.as_slice().is_empty().then_some(operand)
    }

    /// Of the flag that was read last.
    fn value(&mut self) -> Option<OsString> {
        let value = self.value.take().or_else(|| self.rest.next().cloned())?;
        (!value.is_empty()).then_some(value)
    }

    fn text(&mut self) -> Option<String> {
        self.value()?.into_string().ok()
    }

    fn one_of(&mut self, known: &[&str]) -> Option<String> {
        self.text().filter(|text| known.contains(&text.as_str()))
    }

    /// What is to be seen in the call is true; `=false` is for clap.
    fn switch(&self) -> Option<bool> {
        self.value.is_none().then_some(true)
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::cli::{one_verb, read as read_by_clap};

    const VERBS: [&str; 8] = [
        "create", "run", "start", "state", "exec", "kill", "delete", "list",
    ];

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    /// What clap reads, if it has no fault to find.
    fn by_clap(line: &str) -> Option<String> {
        let call = normalize::canonical(&mut words(line).into_iter()).ok()?;
        let cli = read_by_clap(call.command, &call.words).ok()?;
        Some(format!("{cli:?}"))
    }

    fn plainly(line: &str) -> Option<String> {
        read(&words(line)).map(|cli| format!("{cli:?}"))
    }

    fn rest_of(verb: &str) -> &'static str {
        match verb {
            "kill" => "c 9",
            "exec" => "c sh -c --help",
            "list" => "",
            _ => "c",
        }
    }

    /// Each flag in each form in which it may be written.
    fn forms(arg: &clap::Arg) -> Vec<String> {
        let mut names: Vec<String> = arg
            .get_long()
            .iter()
            .map(|long| format!("--{long}"))
            .collect();
        names.extend(arg.get_long().iter().map(|long| format!("-{long}")));
        names.extend(arg.get_short().iter().map(|short| format!("-{short}")));
        let values = ["7", "x", "text", "debug", "systemd", "auto"];
        match arg.get_action().takes_values() {
            true => {
                let with = |name: &String| {
                    let name = name.clone();
                    values.map(|value| [format!("{name}={value}"), format!("{name} {value}")])
                };
                names.iter().flat_map(with).flatten().collect()
            }
            false => names,
        }
    }

    fn flags_of(level: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
        let left_out = ["help", "version"];
        level
            .get_arguments()
            .filter(move |arg| !arg.is_positional() && !left_out.contains(&arg.get_id().as_str()))
    }

    #[test]
    fn every_flag_is_read_as_clap_reads_it() {
        let (mut same, mut left) = (0, Vec::new());
        for verb in VERBS {
            let level = one_verb(OsStr::new(verb)).unwrap();
            let global = <Global as clap::CommandFactory>::command();
            let before = flags_of(&global).map(|arg| (arg, true));
            for (arg, is_global) in before.chain(flags_of(&level).map(|arg| (arg, false))) {
                for form in forms(arg) {
                    let rest = rest_of(verb);
                    let line = match is_global {
                        true => format!("{form} {verb} {rest}"),
                        false => format!("{verb} {form} {rest}"),
                    };
                    match (plainly(&line), by_clap(&line)) {
                        (Some(plain), clap) => {
                            assert_eq!(Some(plain), clap, "{line}");
                            same += 1;
                        }
                        (None, Some(_)) => left.push(line),
                        (None, None) => (),
                    }
                }
            }
        }
        assert!(same > 300, "{same}");
        assert_eq!(left, Vec::<String>::new());
    }

    #[test]
    fn the_unusual_is_left_to_clap() {
        for line in [
            "",
            "--help",
            "state",
            "state --help c",
            "state a b",
            "--root= state c",
            "--debug=false state c",
            "list c",
            "kill c",
            "kill c -9",
            "kill -- c 9",
            "run c -- sh",
            "exec c -- sh",
            "exec --user",
            "--root /",
            "create --layer x c",
            "create --preserve-fds -1 c",
            "--log-format xml state c",
            "run --keep=true c",
            "start -x c",
            "state -",
            "state --",
            "run -=x",
            "run --=x",
        ] {
            let read = plainly(line);
            assert!(read.is_none() || read == by_clap(line), "{line}: {read:?}");
        }
        assert_eq!(plainly("state --help c"), None);
        assert_eq!(plainly("--debug=false state c"), None);
    }

    #[test]
    fn what_engines_send_is_plain() {
        for line in [
            "--root /run/docker/runtime-runc/moby --log /l.json --log-format json --systemd-cgroup create --bundle /b \
             --pid-file /b/init.pid --console-socket /t/pty.sock c",
            "--root /r --log /l --log-format json exec --process /p --console-socket /t --detach --pid-file /q c",
            "--cgroup-manager=systemd --log-level=error --root=/r --log-format=json create --bundle /b --pid-file /p --no-new-keyring c",
            "--root /r start c",
            "--root /r kill --all c 9",
            "--root /r delete --force c",
            "--root /r state c",
        ] {
            assert_eq!(plainly(line), by_clap(line), "{line}");
            assert!(plainly(line).is_some(), "{line}");
        }
    }
}
