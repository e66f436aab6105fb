//! What the tests of the plan share: a small config to change, and hosts that are written down here, so that a plan is the same everywhere.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Flags, Plan};
use crate::bundle::Bundle;
use crate::host::{Hierarchy, Host};

/// JSON pointers and what is to be there.
pub type Changes<'a> = &'a [(&'a str, Value)];

/// What makes a user namespace of the container's own.
pub fn user_namespace() -> [(&'static str, Value); 3] {
    let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    [
        ("/linux/namespaces/-", json!({"type": "user"})),
        ("/linux/uidMappings", map.clone()),
        ("/linux/gidMappings", map),
    ]
}

/// A host whose caller is root.
pub fn host() -> Host {
    Host {
        euid: 0,
        egid: 0,
        in_user_namespace: false,
        denies_setgroups: false,
        capabilities: u64::MAX,
        cgroup: Hierarchy {
            mount: PathBuf::from("/sys/fs/cgroup"),
            own: PathBuf::from("/user.slice/session.scope"),
        },
    }
}

/// A host whose caller is an ordinary user.
pub fn users_host() -> Host {
    Host {
        euid: 1000,
        egid: 1001,
        capabilities: 0,
        ..host()
    }
}

pub fn flags() -> Flags {
    Flags {
        id: "c".to_string(),
        ..Flags::default()
    }
}

pub fn config(changes: Changes) -> Value {
    let mut config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": [
            {"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"},
            {"type": "cgroup"},
        ]},
    });
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match config.pointer_mut(parent) {
            Some(Value::Array(list)) => list.push(value.clone()),
            Some(object) => object[name] = value.clone(),
            None => panic!("{pointer}: its parent is missing"),
        }
    }
    config
}

pub fn bundle(changes: Changes) -> Bundle {
    Bundle::of_config(PathBuf::from("/bundle"), &config(changes)).unwrap()
}

pub fn plan_for(host: &Host, changes: Changes) -> anyhow::Result<Plan> {
    let bundle = Bundle::of_config(PathBuf::from("/bundle"), &config(changes))?;
    Plan::create(&bundle, host, &flags())
}

pub fn plan(changes: Changes) -> Plan {
    plan_for(&host(), changes).unwrap_or_else(|error| panic!("{changes:?}: {error:#}"))
}

/// Why there is no plan.
pub fn fault(changes: Changes) -> String {
    match plan_for(&host(), changes) {
        Ok(plan) => panic!("{changes:?} was planned:\n{plan}"),
        Err(error) => format!("{error:#}"),
    }
}

/// Every table of faults: a pointer, a wrong value, and how the error begins.
pub fn assert_faults(table: &[(&str, Value, &str)]) {
    for (pointer, value, words) in table {
        let fault = fault(&[(pointer, value.clone())]);
        assert!(fault.starts_with(words), "{pointer} {value}: {fault}");
    }
}
