//! Fields that the config leaves out and the types fill in. Parent only.
//!
//! The reader of types gives a default where the spec knows an absent field from one that is zero, or demands one. Looked
//! at again, as text, are the few configs in which such a default was found.

use anyhow::{Result, ensure};
use oci_spec::runtime::Spec;
use serde_json::Value;

/// Whether the text has to be looked at again.
pub fn in_doubt(spec: &Spec) -> bool {
    let process = spec.process().as_ref();
    let resources = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.resources().as_ref());
    let pids = resources.and_then(|resources| resources.pids().as_ref());
    pids.is_some_and(|pids| pids.limit() == 0)
        || process.is_some_and(|process| process.io_priority().is_some())
}

/// Takes out objects that say nothing; refuses those that lack what the spec requires.
pub fn settle(config: &mut Value) -> Result<()> {
    let resources = config
        .pointer_mut("/linux/resources")
        .and_then(Value::as_object_mut);
    if let Some(resources) = resources
        && resources
            .get("pids")
            .is_some_and(|pids| pids.get("limit").is_none_or(Value::is_null))
    {
        resources.remove("pids");
    }
    let priority = config
        .pointer("/process/ioPriority")
        .filter(|value| !value.is_null());
    ensure!(
        priority.is_none_or(|priority| priority.get("class").is_some()),
        "process.ioPriority.class: missing; give IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE"
    );
    Ok(())
}
