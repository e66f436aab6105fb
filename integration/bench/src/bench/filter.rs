//! The seccomp filter that the floor installs: the one that the first runtime has made of the profile, read from a
//! container of it. So the floor has the same instructions, and no time to make them.

use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::ptrace::{self, Options};
use nix::sys::wait::waitpid;

use crate::config::{Variant, write_bundle};
use crate::runtime::{Runtime, init_of};
use serde_json::json;

pub fn of(subject: &Runtime, work: &Path, variant: &Variant) -> Result<Option<Vec<u8>>> {
    if variant.config["linux"]["seccomp"].is_null() {
        return Ok(None);
    }
    let mut config = variant.config.clone();
    let cgroup = "/bench/filter";
    config["linux"]["cgroupsPath"] = json!(cgroup);
    config["process"]["args"] = json!(["/pause"]);
    let bundle = write_bundle(
        &work.join("bundles").join(&variant.name).join("filter"),
        &config,
        None,
    )?;
    subject.perform("create", &bundle, "filter")?;
    subject.perform("start", &bundle, "filter")?;
    let init = init_of(cgroup)?;
    ptrace::seize(init, Options::empty())?;
    ptrace::interrupt(init)?;
    waitpid(init, None)?;
    let program = bench_sys::seccomp_filter_of(init).context("the filter of a container");
    ptrace::detach(init, None)?;
    subject.perform("delete --force", &bundle, "filter")?;
    program.map(Some)
}
