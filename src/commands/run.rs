//! `run`: creates a container, starts it and, unless detached, waits for its end and removes it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::spec;
use crate::bundle::Bundle;
use crate::bundle::overlay::{Overlay, Upper};
use crate::cli::{Global, args};
use crate::lifecycle::create::{Request, Verb};
use crate::lifecycle::run;
use crate::state::state_dir;
use crate::state::store::Store;
use crate::{protect, sys};

#[inline(never)]
pub fn run(args: &args::Run, global: &Global, store: &Store) -> Result<i32> {
    if !args.flags.dry_run {
        protect::protect()?;
    }
    let bundle = bundle(args)?;
    let (id, flags) = (args.id.as_str(), &args.flags);
    let request = Request {
        id,
        flags,
        global,
        bundle,
        verb: match args.detach {
            true => Verb::RunDetached,
            false => Verb::Run,
        },
    };
    if flags.dry_run {
        super::print(&request.plan()?.1.to_string())?;
        return Ok(0);
    }
    match args.detach {
        true => run::run_detached(request, store).map(|()| 0),
        false => run::run_in_foreground(request, store, args.no_subreaper, args.keep),
    }
}

/// The bundle that is named, or one made of layers; with the command that is given, if any.
fn bundle(args: &args::Run) -> Result<Bundle> {
    let flags = &args.flags;
    let mut bundle = if args.layers.is_empty() {
        ensure!(args.upper.is_none(), "--upper: has no use without --layer");
        Bundle::load(&flags.bundle, flags.config.as_deref())?
    } else {
        bundle_from_layers(args)?
    };
    if !args.command.is_empty() {
        let process = bundle.spec.process_mut().as_mut();
        process
            .context("process: missing in the config")?
            .set_args(Some(args.command.clone()));
    }
    Ok(bundle)
}

/// No bundle at all: the defaults of `spec`, on an overlay.
fn bundle_from_layers(args: &args::Run) -> Result<Bundle> {
    let absolute = |dir: &PathBuf| {
        sys::path::real(dir).map_err(|error| match sys::path::check_only_directories(dir) {
            Err(reason) => reason.context("--layer"),
            Ok(()) => error.context(format!("--layer: {}", dir.display())),
        })
    };
    let lower = args
        .layers
        .iter()
        .map(absolute)
        .collect::<Result<Vec<_>>>()?;
    let ids = (
        nix::unistd::geteuid().as_raw(),
        nix::unistd::getegid().as_raw(),
    );
    let mut config = spec::default_spec(ids.0 != 0, ids);
    let interactive = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    merge(
        &mut config,
        "/process/terminal",
        json!(interactive && !args.detach),
    );
    merge(&mut config, "/root/readonly", json!(false));
    let here = sys::io(std::env::current_dir()).context("the current directory")?;
    let mut bundle = Bundle::of_config(here, &config)?;
    let upper = args
        .upper
        .as_deref()
        .map(|dir| upper(dir, args.flags.dry_run))
        .transpose()?;
    bundle.overlay = Some(Overlay {
        lower,
        upper,
        user_attributes: false,
    });
    Ok(bundle)
}

fn merge(config: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = config.pointer_mut(pointer) {
        *place = value;
    }
}

/// Overlay needs a work directory on the same filesystem, and not inside: it is put beside.
fn upper(dir: &Path, dry_run: bool) -> Result<Upper> {
    let dir = sys::io(std::path::absolute(dir)).context("--upper")?;
    let mut work = dir.clone().into_os_string();
    work.push(".work");
    let upper = Upper {
        work: PathBuf::from(work),
        dir,
    };
    for dir in [&upper.dir, &upper.work].into_iter().filter(|_| !dry_run) {
        state_dir::make_all(dir, 0o777).map_err(|error| match sys::errno(&error) {
            Some(_) => error.context(format!("--upper: {}", dir.display())),
            None => error.context("--upper"),
        })?;
    }
    Ok(upper)
}
