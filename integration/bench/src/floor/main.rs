//! The floor: does for a container what the kernel has to be asked for, and nothing else. No config is parsed: the
//! launcher has turned it into a list of calls (see ../bench/calls.rs), which the child makes one after the other.
//! It has the command line of a runtime, so that it is measured like one. `serve` does the same without a process
//! start per operation. It checks nothing, and is no runtime.

mod calls;
mod operations;

use std::io::{BufRead, Write};
use std::time::Instant;

use anyhow::Result;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.get(1..) {
        Some(["serve"]) => serve(),
        Some(["--root", root, rest @ ..]) => operations::perform(root, rest),
        _ => Err(anyhow::anyhow!("usage: floor --root DIR OPERATION ..")),
    };
    match done {
        Ok(()) => bench_sys::exit_now(0),
        Err(error) => {
            eprintln!("floor: {error:#}");
            bench_sys::exit_now(1);
        }
    }
}

/// Each line is a command line; the answer is the time that it took, in nanoseconds.
fn serve() -> Result<()> {
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let ["--root", root, rest @ ..] = &words[..] else {
            anyhow::bail!("{line}: must begin with --root DIR");
        };
        let start = Instant::now();
        let done = operations::perform(root, rest);
        let spent = start.elapsed().as_nanos();
        match done {
            Ok(()) => writeln!(std::io::stderr(), "{spent}")?,
            Err(error) => writeln!(std::io::stderr(), "{error:#}")?,
        }
    }
    Ok(())
}
