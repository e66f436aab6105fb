//! `start`: starts the program of a created container.

use anyhow::Result;

use crate::cli::args;
use crate::lifecycle::start;
use crate::state::store::Store;

pub fn run(args: &args::Start, store: &Store) -> Result<i32> {
    start::start(&args.id, store).map(|()| 0)
}
