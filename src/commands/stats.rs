//! `stats`

use anyhow::{Result, bail};

use crate::container::Store;
use crate::flags;

pub fn run(_args: &flags::Stats, _store: &Store) -> Result<i32> {
    bail!("stats: not there yet")
}
