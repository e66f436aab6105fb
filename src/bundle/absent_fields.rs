//! Fields that the config leaves out and the types fill in. Parent only.
//!
//! The reader of types gives a default where the spec knows an absent field from one that is zero, or demands one. Looked
//! at again, as text, are the few configs in which such a default was found.

use anyhow::{Result, ensure};
use oci_spec::runtime::{LinuxIdMapping, LinuxResources, Process, Spec};
use serde_json::{Value, json};

use crate::bundle::reject_arrays;

/// Fields that the spec requires. The reader of types takes a missing one for zero, false or empty.
const REQUIRED: [(&str, &[&str]); 15] = [
    ("linux.gidMappings.*", &["containerID", "hostID"]),
    ("linux.resources.blockIO.throttleReadBpsDevice.*", NUMBER),
    ("linux.resources.blockIO.throttleReadIOPSDevice.*", NUMBER),
    ("linux.resources.blockIO.throttleWriteBpsDevice.*", NUMBER),
    ("linux.resources.blockIO.throttleWriteIOPSDevice.*", NUMBER),
    ("linux.resources.blockIO.weightDevice.*", NUMBER),
    ("linux.resources.devices.*", &["allow"]),
    ("linux.resources.hugepageLimits.*", &["limit"]),
    (
        "linux.resources.network.priorities.*",
        &["name", "priority"],
    ),
    ("linux.uidMappings.*", &["containerID", "hostID"]),
    ("mounts.*.gidMappings.*", &["containerID", "hostID"]),
    ("mounts.*.uidMappings.*", &["containerID", "hostID"]),
    ("process.consoleSize", &["height", "width"]),
    ("process.ioPriority", &["class"]),
    ("process.rlimits.*", &["soft", "hard"]),
];
const NUMBER: &[&str] = &["major", "minor"];

/// Whether the text has to be looked at again.
pub fn in_doubt(spec: &Spec, text: &[u8]) -> bool {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    // These are zero or false more often than not: their names are counted.
    let mut maps = linux.map_or(0, |linux| {
        count(linux.uid_mappings()) + count(linux.gid_mappings())
    });
    for mount in spec.mounts().iter().flatten() {
        maps += count(mount.uid_mappings()) + count(mount.gid_mappings());
    }
    let rules = resources.and_then(|resources| resources.devices().as_ref());
    let named = [
        ("\"containerID\"", maps),
        ("\"hostID\"", maps),
        ("\"allow\"", rules.map_or(0, Vec::len)),
    ];
    let text = || std::str::from_utf8(text).unwrap_or_default();
    let lacks = |(name, wanted): (&str, usize)| wanted > 0 && text().matches(name).count() < wanted;
    named.into_iter().any(lacks)
        || resources.is_some_and(resources_in_doubt)
        || spec.process().as_ref().is_some_and(process_in_doubt)
}

fn count(maps: &Option<Vec<LinuxIdMapping>>) -> usize {
    maps.as_ref().map_or(0, Vec::len)
}

fn process_in_doubt(process: &Process) -> bool {
    let mut limits = process.rlimits().iter().flatten();
    let size = process.console_size();
    process.io_priority().is_some()
        || limits.any(|limit| limit.soft() == 0 || limit.hard() == 0)
        || size.is_some_and(|size| size.height() == 0 || size.width() == 0)
}

fn resources_in_doubt(resources: &LinuxResources) -> bool {
    let block = resources.block_io().as_ref();
    let block = block.is_some_and(|block| {
        let throttled = [
            block.throttle_read_bps_device(),
            block.throttle_read_iops_device(),
            block.throttle_write_bps_device(),
            block.throttle_write_iops_device(),
        ];
        let mut throttled = throttled.into_iter().flatten().flatten();
        let mut weighed = block.weight_device().iter().flatten();
        throttled.any(|device| device.major() == 0 || device.minor() == 0)
            || weighed.any(|device| device.major() == 0 || device.minor() == 0)
    });
    let network = resources.network().as_ref();
    let mut pages = resources.hugepage_limits().iter().flatten();
    block
        || network.is_some_and(|network| network.priorities().is_some())
        || pages.any(|page| page.limit() == 0)
        || resources.pids().is_some_and(|pids| pids.limit() == 0)
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
    if let Some(process) = config.get_mut("process").and_then(Value::as_object_mut) {
        // config.md: each of its fields has a default.
        process
            .entry("user")
            .or_insert_with(|| json!({"uid": 0, "gid": 0}));
    }
    for (object, names) in REQUIRED {
        for name in names {
            let lacks =
                |value: &Value| value.is_object() && value.get(name).is_none_or(Value::is_null);
            let place = reject_arrays::find(config, object, &lacks);
            let place = place.as_deref().unwrap_or_default();
            let hint = match *name {
                "class" => "; give IOPRIO_CLASS_RT, IOPRIO_CLASS_BE or IOPRIO_CLASS_IDLE",
                _ => "; the specification requires it",
            };
            ensure!(place.is_empty(), "{place}.{name}: missing{hint}");
        }
    }
    Ok(())
}
