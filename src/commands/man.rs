//! `man`

use anyhow::{Result, bail};

use crate::flags;

pub fn run(_args: &flags::Man) -> Result<i32> {
    bail!("man: not there yet")
}
