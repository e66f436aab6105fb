//! `update`

use anyhow::{Result, bail};

use crate::container::Store;
use crate::flags;

pub fn run(_args: &flags::Update, _store: &Store) -> Result<i32> {
    bail!("update: not there yet")
}
