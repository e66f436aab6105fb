//! `check`

use anyhow::{Result, bail};

use crate::flags;

pub fn run(_args: &flags::Check) -> Result<i32> {
    bail!("check: not there yet")
}
