//! `state`: one JSON document about one container.

use anyhow::Result;

use crate::cli::args;
use crate::state::store::Store;

pub fn run(args: &args::State, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    super::print(&format!(
        "{}\n",
        container.report(container.status()?).json()?
    ))?;
    Ok(0)
}
