//! `state`: one JSON document about one container.

use anyhow::Result;

use crate::container::Store;
use crate::flags;

pub fn run(args: &flags::State, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    super::print(&format!(
        "{}\n",
        container.report(container.status()?).json()?
    ))?;
    Ok(0)
}
