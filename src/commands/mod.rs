//! One file per verb; each reads like its man page.

use std::io::Write;

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

/// Writes to standard output, whoever may have closed it.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    sys::io(out.write_all(text.as_bytes()).and_then(|()| out.flush())).context("write to stdout")
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
