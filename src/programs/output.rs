//! PARENT: runs a program of the host for its output, with a deadline.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::sys::{self, process, wait};

/// For a program that only asks the kernel, or writes two files.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the output and the status. Fails if the program cannot be started, or is not done within 30 seconds.
///
/// The output goes to files in memory: a pipe would be full one day while nobody reads.
pub fn output(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_owned();
    let (stdout, stderr) = (sys::memory_file("stdout")?, sys::memory_file("stderr")?);
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?);
    let mut child = sys::io(command.spawn()).with_context(|| format!("run {name:?}"))?;
    let pidfd = process::pidfd_open(child.id() as i32)?;
    let ended = wait::poll_readable([pidfd.as_fd()], Some(TIMEOUT));
    if !matches!(ended, Ok([true])) {
        child.kill().ok();
        ensure!(wait::wait_killed(&pidfd), "{name:?}: does not die");
    }
    let status = sys::io(child.wait()).with_context(|| format!("wait for {name:?}"))?;
    if let [false] = ended? {
        bail!("{name:?}: is not done after {} seconds", TIMEOUT.as_secs());
    }
    Ok(Output {
        status,
        stdout: contents(stdout)?,
        stderr: contents(stderr)?,
    })
}

fn contents(mut file: File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    sys::io(file.rewind().and_then(|()| file.read_to_end(&mut bytes)))?;
    Ok(bytes)
}
