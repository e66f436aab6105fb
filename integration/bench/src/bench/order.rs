//! Which functions of the program the commands of a container's life call, and the linker script that puts these side by
//! side. A file is mapped page by page, sixteen at a fault: text that is called is not to lie among text that is not. Hashes
//! in the names are left open, so the script outlives changes; a name that is gone does no harm.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::config::Variant;
use crate::rounds::{self, ROUND, Step};
use crate::runtime::{self, Runtime};
use crate::{Settings, filter, measure};

/// Of these only `run` is followed.
const BESIDES: [&str; 3] = ["seccomp", "userns", "docker-config"];

/// The first that is called by a protected program.
const AFTERWARDS: &str = "9cofferdam5start";

/// By address; what is between two functions belongs to none.
struct Functions {
    all: Vec<(u64, u64, String)>,
}

/// By address: the function that begins there, and what the breakpoint has replaced.
struct Breakpoints {
    of: HashMap<u64, (usize, [u8; 1])>,
}

/// `bench order` writes the script.
pub fn order(settings: &Settings) -> Result<()> {
    bench_sys::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0)?;
    let (name, program) = settings.subject.split_once('=').context("--subject")?;
    let functions = Functions::of(Path::new(program))?;
    let runtime = Runtime::new(name, Path::new(program), &settings.work)?;
    let mut calls: Vec<Vec<usize>> = Vec::new();
    // It begins with what is done before the program is protected.
    let (run, others): (Vec<_>, Vec<_>) = ROUND.iter().partition(|step| step.0 == "run");
    for variant in measure::make_ready(settings)? {
        let is_base = variant.name == "base";
        if is_base || BESIDES.contains(&variant.name.as_str()) {
            eprintln!("bench: {}", variant.name);
            let steps = run.iter().chain(others.iter().filter(|_| is_base));
            follow_life(settings, &runtime, &variant, steps, &functions, &mut calls)?;
        }
    }
    fs::write(&settings.out, script(&functions, &calls)?)
        .with_context(|| settings.out.display().to_string())
}

/// What `create` leaves cannot live on after it was followed; `run` calls what it does.
fn follow_life<'a>(
    settings: &Settings,
    runtime: &Runtime,
    variant: &Variant,
    steps: impl Iterator<Item = &'a &'a Step>,
    functions: &Functions,
    calls: &mut Vec<Vec<usize>>,
) -> Result<()> {
    let filter = filter::of(runtime, &settings.work, variant)?;
    let bundles = rounds::bundles(&settings.work, variant, &runtime.name, filter.as_deref())?;
    for (operation, container, measured) in steps {
        let (bundle, id) = (bundles.of(*container), container.to_string());
        if *measured && *operation != "create" {
            let words = runtime.words(operation, bundle, &id);
            let called = follow(runtime.command(&words)?, functions);
            calls.push(called.with_context(|| format!("{operation}: {}", runtime.last_words()))?);
        } else {
            runtime.perform(operation, bundle, &id)?;
        }
        if let Ok(init) = runtime::init_of(&bundles.cgroup)
            && *operation == "kill"
        {
            runtime::wait_until_dead(init)?;
        }
        runtime::reap();
    }
    Ok(())
}

/// The functions that a command and its children call, each once. At the start of each lies a breakpoint, which goes when it
/// is met. The protected copy takes the place of the text: until then one instruction after the other is followed.
fn follow(mut command: Command, functions: &Functions) -> Result<Vec<usize>> {
    let child = bench_sys::traced(&mut command).spawn()?;
    let main = Pid::from_raw(child.id() as i32);
    waitpid(main, None)?;
    let options = Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::setoptions(main, options)?;
    let mut called = follow_until_protected(main, functions)?;
    let breakpoints = Breakpoints::lay(main, functions, &called)?;
    ptrace::cont(main, None)?;
    loop {
        let (pid, signal) = match waitpid(None, Some(WaitPidFlag::__WALL))? {
            WaitStatus::Exited(pid, 0) if pid == main => break,
            WaitStatus::Exited(pid, status) if pid == main => bail!("exit status {status}"),
            WaitStatus::PtraceEvent(pid, _, event)
                if pid != main && event == Event::PTRACE_EVENT_EXEC as i32 =>
            {
                // The container's program.
                ptrace::detach(pid, None)?;
                continue;
            }
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => {
                called.extend(breakpoints.take_away(pid).unwrap_or_default());
                (pid, None)
            }
            WaitStatus::PtraceEvent(pid, ..) | WaitStatus::Stopped(pid, Signal::SIGSTOP) => {
                (pid, None)
            }
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            _ => continue,
        };
        // One that was killed meanwhile says so next.
        ptrace::cont(pid, signal).ok();
    }
    // Who has a memory of its own meets breakpoints of its own.
    retain_first(&mut called);
    Ok(called)
}

fn retain_first(functions: &mut Vec<usize>) {
    let mut seen = HashSet::new();
    functions.retain(|function| seen.insert(*function));
}

fn follow_until_protected(main: Pid, functions: &Functions) -> Result<Vec<usize>> {
    let (mut called, mut seen) = (Vec::new(), HashSet::new());
    loop {
        if let Some(function) = functions.at(ptrace::getregs(main)?.rip)
            && seen.insert(function)
        {
            called.push(function);
            if functions.all[function].2.contains(AFTERWARDS) {
                return Ok(called);
            }
        }
        ptrace::step(main, None)?;
        match waitpid(main, None)? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) | WaitStatus::PtraceEvent(..) => (),
            other => bail!("{AFTERWARDS}: never called: {other:?}"),
        }
    }
}

impl Breakpoints {
    const INSTRUCTION: [u8; 1] = [0xcc];

    /// In all functions but those that were called before.
    fn lay(pid: Pid, functions: &Functions, called: &[usize]) -> Result<Breakpoints> {
        let memory = memory(pid)?;
        let mut of = HashMap::new();
        for (start, ..) in &functions.all {
            let Some(function) = functions.at(*start).filter(|one| !called.contains(one)) else {
                continue;
            };
            // Functions of equal text have one start.
            if let Entry::Vacant(entry) = of.entry(*start) {
                let mut replaced = [0];
                memory.read_exact_at(&mut replaced, *start)?;
                memory.write_all_at(&Self::INSTRUCTION, *start)?;
                entry.insert((function, replaced));
            }
        }
        Ok(Breakpoints { of })
    }

    /// The function whose breakpoint the process stands behind; it is to go on at the function's start.
    fn take_away(&self, pid: Pid) -> Result<Option<usize>> {
        let mut registers = ptrace::getregs(pid)?;
        registers.rip -= Self::INSTRUCTION.len() as u64;
        let Some((function, replaced)) = self.of.get(&registers.rip) else {
            return Ok(None);
        };
        memory(pid)?.write_all_at(replaced, registers.rip)?;
        ptrace::setregs(pid, registers)?;
        Ok(Some(*function))
    }
}

fn memory(pid: Pid) -> Result<File> {
    let path = format!("/proc/{pid}/mem");
    let opened = File::options().read(true).write(true).open(&path);
    opened.with_context(|| path)
}

impl Functions {
    fn of(program: &Path) -> Result<Functions> {
        let nm = Command::new("nm")
            .arg("-S")
            .arg(program)
            .stderr(Stdio::inherit())
            .output()?;
        let text = String::from_utf8(nm.stdout)?;
        let mut all: Vec<(u64, u64, String)> = text.lines().filter_map(function).collect();
        all.sort();
        let ends: Vec<u64> = all.iter().skip(1).map(|next| next.0).collect();
        for ((start, size, _), end) in all.iter_mut().zip(ends) {
            if *size == 0 {
                *size = end - *start;
            }
        }
        if all.is_empty() {
            bail!(
                "{}: has no names; build it with strip = \"none\"",
                program.display()
            );
        }
        Ok(Functions { all })
    }

    /// Of which the section has any.
    fn names(&self, number: usize) -> impl Iterator<Item = &str> {
        let start = self.all[number].0;
        let first = self.all.partition_point(|function| function.0 < start);
        let same = self.all[first..]
            .iter()
            .take_while(move |function| function.0 == start);
        same.map(|function| function.2.as_str())
    }

    fn at(&self, address: u64) -> Option<usize> {
        let before = self.all.partition_point(|(start, ..)| *start <= address);
        let number = before.checked_sub(1)?;
        let (start, size, _) = &self.all[number];
        (address < start + size).then_some(number)
    }
}

/// `ADDRESS SIZE t NAME`; what is written in assembly may have no size, and goes on until the next.
fn function(line: &str) -> Option<(u64, u64, String)> {
    let mut words = line.split_whitespace().rev();
    let name = words.next()?.to_string();
    let is_text = matches!(words.next()?, "t" | "T" | "w" | "W");
    let mut number = || u64::from_str_radix(words.next()?, 16).ok();
    let last = number()?;
    let (start, size) = number().map_or((last, 0), |start| (start, last));
    is_text.then_some((start, size, name))
}

/// What is called before the program has gone over to its protected copy, and is mapped twice; then all that the shortest command
/// calls, what the next calls besides, and so on. Each in the order of its first call, what most call first.
fn script(functions: &Functions, calls: &[Vec<usize>]) -> Result<String> {
    let mut by_length: Vec<&Vec<usize>> = calls.iter().collect();
    by_length.sort_by_key(|called| called.len());
    // The shortest command that calls it, and how many do.
    let mut shortest: HashMap<usize, usize> = HashMap::new();
    let mut callers: HashMap<usize, usize> = HashMap::new();
    for (number, called) in by_length.into_iter().enumerate() {
        for function in called {
            shortest.entry(*function).or_insert(number);
            *callers.entry(*function).or_default() += 1;
        }
    }
    let mut order: Vec<usize> = calls.iter().flatten().copied().collect();
    retain_first(&mut order);
    let is_parse = |function: &usize| functions.all[*function].2.contains(AFTERWARDS);
    let early = order.iter().position(is_parse).unwrap_or(0);
    order[early..].sort_by_key(|function| (shortest[function], Reverse(callers[function])));
    let mut text =
        "/* What short commands call, side by side: fewer page faults. Made by `make order`. */\n"
            .to_string();
    text += "SECTIONS\n{\n  .text.first : ALIGN(4096)\n  {\n    *crt1.o(.text)\n";
    let mut seen = HashSet::new();
    for function in order {
        for name in functions.names(function) {
            let pattern = pattern(name);
            if seen.insert(pattern.clone()) {
                writeln!(text, "    {}", sections(&pattern))?;
            }
        }
    }
    text += "  }\n}\nINSERT BEFORE .text;\n";
    Ok(text)
}

/// Where the compiler puts it, if it is cold too. What the C library has written in assembly is in an object of its name.
fn sections(pattern: &str) -> String {
    let own = format!("*(.text.{pattern} .text.unlikely.{pattern})");
    if pattern.starts_with("_R") {
        own
    } else {
        format!("{own} *:{pattern}.*(.text)")
    }
}

/// The name of a function in whatever build: Rust puts a hash at its end, or one behind each crate's `Cs`.
fn pattern(name: &str) -> String {
    let is_hash =
        |rest: &str| rest.len() > 16 && rest[..16].bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some((front, _)) = name.rsplit_once("17h").filter(|(_, rest)| is_hash(rest)) {
        return format!("{front}17h*");
    }
    let name = name.split(".llvm.").next().unwrap_or(name);
    let mut pieces = name.split("Cs");
    let mut text = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        let hash = piece.bytes().take_while(u8::is_ascii_alphanumeric).count();
        match piece[hash..].starts_with('_') {
            true => write!(text, "Cs*{}", &piece[hash..]).ok(),
            false => write!(text, "Cs{piece}").ok(),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_left_open() {
        for (name, expected) in [
            (
                "_ZN9cofferdam3cli5parse17h0123456789abcdefE",
                "_ZN9cofferdam3cli5parse17h*",
            ),
            ("_ZN1a17h0123456789abcdefE.llvm.12", "_ZN1a17h*"),
            (
                "_RNvNtCs7BliBxkEZsN_4core3str4trimCsa_3std",
                "_RNvNtCs*_4core3str4trimCs*_3std",
            ),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(pattern(name), expected);
        }
    }

    #[test]
    fn an_address_is_that_of_the_function_around_it() {
        let line = |line| function(line).unwrap();
        let functions = Functions {
            all: vec![
                line("0000000000001000 0000000000000010 t a"),
                line("0000000000002000 0000000000000008 T b"),
            ],
        };
        assert_eq!(functions.at(0x100f), Some(0));
        assert_eq!(functions.at(0x1010), None);
        assert_eq!(functions.at(0x2000), Some(1));
        assert_eq!(functions.at(0xfff), None);
        assert_eq!(line("0000000000003000 W c"), (0x3000, 0, "c".to_string()));
        assert_eq!(super::function("0000000000003000 d c"), None);
    }
}
