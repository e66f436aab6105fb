//! `create`: makes a container that waits to be started.

use anyhow::Result;

use crate::bundle::Bundle;
use crate::cli::{Global, args};
use crate::lifecycle::create::{Request, Verb};
use crate::protect;
use crate::state::store::Store;

#[inline(never)]
pub fn run(args: &args::Create, global: &Global, store: &Store) -> Result<i32> {
    let flags = &args.flags;
    if !flags.dry_run {
        protect::protect()?;
    }
    let request = Request {
        id: &args.id,
        flags,
        global,
        bundle: Bundle::load(&flags.bundle, flags.config.as_deref())?,
        verb: Verb::Create,
    };
    if flags.dry_run {
        super::print(&request.plan()?.1.to_string())?;
        return Ok(0);
    }
    request.create(store)?.detach().map(|()| 0)
}
