//! `mounts`

use anyhow::{Result, bail};

use crate::container::Store;
use crate::flags;

pub fn run(_args: &flags::Mounts, _store: &Store) -> Result<i32> {
    bail!("mounts: not there yet")
}
