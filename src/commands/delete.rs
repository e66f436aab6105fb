//! `delete`: removes a container.

use anyhow::{Error, Result, bail};

use crate::cli::args;
use crate::lifecycle::remove;
use crate::state::container::Status;
use crate::state::store::Store;
use crate::text::fault::{self, coded};
use crate::text::timings;

pub fn run(args: &args::Delete, store: &Store) -> Result<i32> {
    let delete = |id: &String| delete(id, args.force, store);
    super::for_each(&store.resolve_ids(&args.id, args.regex)?, delete)
}

fn delete(id: &str, force: bool, store: &Store) -> Result<()> {
    let mut container = match store.find(id) {
        Err(error) if force && is_missing(&error) => return Ok(()),
        found => found?,
    };
    match container.status() {
        Ok(Status::Stopped | Status::Created) => {}
        Ok(Status::Creating) if force => {
            container.mark_deleted()?;
            // From now on its creator records nothing that this record does not say.
            container = match store.find(id) {
                Err(error) if is_missing(&error) => return Ok(()),
                found => found?,
            };
        }
        _ if force => {}
        Err(error) => return Err(error),
        Ok(status) => bail!(coded(
            "container-state",
            format!(
                "cannot delete container {id} that is not stopped: {status}; stop it, or use --force"
            )
        )),
    }
    timings::step(|| "find the container".to_string());
    if container.state.pid != 0 || container.damaged || container.is_marked_deleted() {
        return remove::remove(&container);
    }
    match container.lock_records()? {
        Some(_records) => remove::remove(&container),
        None => delete(id, force, store),
    }
}

fn is_missing(error: &Error) -> bool {
    fault::code(error) == Some("container-unknown")
}
