//! The state document of a container (runtime.md, "Record").

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::state::container::Status;
use crate::state::record::Record;

/// The document that `state`, `list` and hooks get.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report<'a> {
    pub oci_version: &'a str,
    pub id: &'a str,
    pub pid: i32,
    pub status: String,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub created: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

pub fn report(state: &Record, status: Status, pid: i32) -> Report<'_> {
    Report {
        oci_version: &state.oci_version,
        id: &state.id,
        pid,
        status: status.to_string(),
        bundle: &state.bundle,
        rootfs: &state.rootfs,
        created: &state.created,
        annotations: &state.annotations,
        owner: None,
    }
}

impl Report<'_> {
    /// As hooks get it on standard input.
    pub fn line(&self) -> Result<String> {
        serde_json::to_string(self).context("write the state")
    }

    /// As people read it.
    pub fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).context("write the state")
    }
}
