//! `exec`: runs another process in a container.

use anyhow::{Error, Result};

use crate::cli::args;
use crate::lifecycle::exec;
use crate::protect;
use crate::state::store::Store;
use crate::text::fault::Coded;

#[inline(never)]
pub fn run(args: &args::Exec, store: &Store) -> Result<i32> {
    protect::protect()?;
    let container = store.find(&args.id)?;
    exec::exec(args, &container).map_err(|error| name_flag(args, error))
}

/// Names the flag that set a field of the process, where the error names the field.
fn name_flag(args: &args::Exec, error: Error) -> Error {
    let flags = [
        (args.cwd.is_some(), "process.cwd", "--cwd"),
        (args.user.is_some(), "process.user", "--user"),
        (!args.env.is_empty(), "process.env", "--env"),
        (!args.cap.is_empty(), "process.capabilities", "--cap"),
        (
            args.apparmor.is_some(),
            "process.apparmorProfile",
            "--apparmor",
        ),
        (
            args.process_label.is_some(),
            "process.selinuxLabel",
            "--process-label",
        ),
    ];
    let fault = Coded::of(&error);
    let meant = flags
        .iter()
        .find(|(is_given, field, _)| *is_given && fault.text.starts_with(field));
    let Some(((_, _, flag), (_, rest))) = meant.zip(fault.text.split_once(": ")) else {
        return error;
    };
    let text = format!("{flag}: {rest}");
    Coded { text, ..fault }.into()
}
