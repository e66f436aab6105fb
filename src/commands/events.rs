//! `events`

use anyhow::{Result, bail};

use crate::container::Store;
use crate::flags;

pub fn run(_args: &flags::Events, _store: &Store) -> Result<i32> {
    bail!("events: not there yet")
}
