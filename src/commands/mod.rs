//! One file per verb; each reads like its man page.

use std::io::Write;

use anyhow::{Context, Result};

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
