//! `completion`

use anyhow::{Result, bail};

use crate::flags;

pub fn run(_args: &flags::Completion) -> Result<i32> {
    bail!("completion: not there yet")
}
