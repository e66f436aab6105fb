//! One file per verb; each reads like its man page.

use std::fmt;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, bail};

use crate::sys;

pub mod check;
pub mod completion;
pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
pub mod kill;
pub mod list;
pub mod man;
pub mod mounts;
pub mod pause;
pub mod ps;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod stats;
pub mod update;

/// The error of a command whose output nobody reads any more, as in `events | head`. It ends as by SIGPIPE, without a message.
#[derive(Debug)]
pub struct ReaderGone;

impl ReaderGone {
    pub const EXIT_CODE: i32 = 128 + libc::SIGPIPE;
}

impl fmt::Display for ReaderGone {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("nobody reads standard output")
    }
}

impl std::error::Error for ReaderGone {}

/// Writes to standard output. Fails with [`ReaderGone`] if nobody reads it.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        written => sys::io(written).context("write to stdout"),
    }
}

/// Does it to each container, whatever becomes of the others.
pub fn for_each(ids: &[String], act: impl Fn(&String) -> Result<()>) -> Result<i32> {
    if let [id] = ids {
        return act(id).map(|()| 0);
    }
    let failed = |id: &String| Some(format!("{id}: {:#}", act(id).err()?));
    let failures: Vec<String> = ids.iter().filter_map(failed).collect();
    match failures.is_empty() {
        true => Ok(0),
        false => bail!(failures.join("; ")),
    }
}
