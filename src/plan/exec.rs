//! `exec`: the process of the config, or of a file, changed by flags -> the process to run.

use anyhow::{Result, ensure};
use oci_spec::runtime::{LinuxMemoryPolicy, LinuxPersonality, Process as Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Flags;
use super::seccomp::Filter;

/// What is kept of a config for processes that join the container later.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    pub process: Value,
    pub linux: Value,
    pub keyring: Option<String>,
    /// Clone flags of those that were made for it.
    pub namespaces: u64,
    /// To compile that of Docker takes as long as all the rest of `exec`.
    pub filter: Option<Filter>,
}

/// The same when it is written.
#[derive(Serialize)]
pub struct Keep<'a> {
    pub process: Option<&'a Spec>,
    pub linux: KeepLinux<'a>,
    pub keyring: Option<&'a str>,
    pub namespaces: u64,
    pub filter: Option<&'a Filter>,
}

#[derive(Serialize)]
pub struct KeepLinux<'a> {
    pub personality: Option<&'a LinuxPersonality>,
    #[serde(rename = "memoryPolicy")]
    pub memory_policy: Option<&'a LinuxMemoryPolicy>,
    /// For mounts that are added later.
    #[serde(rename = "mountLabel")]
    pub mount_label: Option<&'a str>,
}

/// The changes that the command line asks for.
#[derive(Debug, Default)]
pub struct Changes {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub terminal: bool,
    pub user: Option<(u32, u32)>,
    pub groups: Vec<u32>,
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub apparmor: Option<String>,
    pub label: Option<String>,
}

/// What a process file does not say is as in the config.
const INHERITED: [&str; 8] = [
    "apparmorProfile",
    "capabilities",
    "execCPUAffinity",
    "ioPriority",
    "oomScoreAdj",
    "rlimits",
    "scheduler",
    "selinuxLabel",
];

/// The process of a file, with what it leaves open taken from the container's.
pub fn of_file(saved: &Value, file: Value) -> Result<Value> {
    let mut process = file;
    ensure!(process.is_object(), "--process: must be a JSON object");
    for name in INHERITED {
        let given = process.get(name).is_some_and(|value| !value.is_null());
        if let (false, Some(value)) = (given, saved.get(name)) {
            process[name] = value.clone();
        }
    }
    keep_no_new_privileges(saved, &mut process);
    Ok(process)
}

/// The container's process, changed.
pub fn of_changes(saved: &Value, changes: Changes) -> Result<Value> {
    let mut process = saved.clone();
    ensure!(
        process.is_object(),
        "the container's config has no process to start from; give --process"
    );
    for name in ["user", "capabilities"] {
        let value = &process[name];
        ensure!(
            value.is_object() || value.is_null(),
            "the container's record is damaged: process.{name}: must be an object; give --process"
        );
    }
    process["args"] = json!(changes.args);
    process["terminal"] = json!(changes.terminal);
    let mut env: Vec<Value> = saved["env"].as_array().cloned().unwrap_or_default();
    env.extend(changes.env.into_iter().map(Value::from));
    process["env"] = Value::Array(env);
    if let Some(cwd) = changes.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some((uid, gid)) = changes.user {
        process["user"]["uid"] = json!(uid);
        process["user"]["gid"] = json!(gid);
    }
    if !changes.groups.is_empty() {
        process["user"]["additionalGids"] = json!(changes.groups);
    }
    if changes.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    for (name, label) in [
        ("apparmorProfile", changes.apparmor),
        ("selinuxLabel", changes.label),
    ] {
        if let Some(label) = label {
            process[name] = json!(label);
        }
    }
    add_capabilities(&mut process, &changes.capabilities);
    Ok(process)
}

/// Never inheritable, and ambient only where the container's are: CVE-2022-29162.
fn add_capabilities(process: &mut Value, names: &[String]) {
    if names.is_empty() {
        return;
    }
    let inheritable = process["capabilities"]["inheritable"].clone();
    for set in ["bounding", "effective", "permitted", "ambient"] {
        let allowed = |name: &&String| {
            let listed = inheritable
                .as_array()
                .is_some_and(|list| list.contains(&json!(name)));
            set != "ambient" || listed
        };
        let mut list = process["capabilities"][set]
            .as_array()
            .cloned()
            .unwrap_or_default();
        list.extend(names.iter().filter(allowed).map(|name| json!(name)));
        process["capabilities"][set] = Value::Array(list);
    }
}

fn keep_no_new_privileges(saved: &Value, process: &mut Value) {
    if saved["noNewPrivileges"] == json!(true) {
        process["noNewPrivileges"] = json!(true);
    }
}

/// Flags of a process that joins: the keyring is the container's.
pub fn flags(id: &str, preserve_fds: u32, listen_fds: u32, saved: &Saved) -> Flags {
    let no_new_keyring = saved.keyring.is_none();
    Flags {
        id: id.to_string(),
        preserve_fds,
        listen_fds,
        no_new_keyring,
        ..Flags::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Value {
        json!({
            "args": ["sh"], "cwd": "/", "env": ["A=1"], "user": {"uid": 5, "gid": 6},
            "noNewPrivileges": true, "capabilities": {"bounding": ["CAP_KILL"], "inheritable": ["CAP_KILL"]},
        })
    }

    #[test]
    fn a_file_inherits_what_it_does_not_say() {
        let file = json!({"args": ["x"], "cwd": "/tmp", "user": {"uid": 0, "gid": 0}, "noNewPrivileges": false});
        let process = of_file(&saved(), file).unwrap();
        assert_eq!(process["noNewPrivileges"], true);
        assert_eq!(process["user"]["uid"], 0);
        assert_eq!(process["capabilities"], saved()["capabilities"]);
        assert!(of_file(&saved(), json!([])).is_err());
    }

    #[test]
    fn a_damaged_record_is_an_error() {
        for name in ["user", "capabilities"] {
            let mut saved = saved();
            saved[name] = json!(7);
            let changes = Changes {
                user: Some((1, 1)),
                capabilities: vec!["CAP_KILL".into()],
                ..Changes::default()
            };
            let error = of_changes(&saved, changes).unwrap_err().to_string();
            assert!(error.contains(&format!("process.{name}: ")), "{error}");
        }
    }

    #[test]
    fn added_capabilities_are_not_inheritable() {
        let capabilities = vec!["CAP_NET_ADMIN".to_string(), "CAP_KILL".to_string()];
        let changes = Changes {
            args: vec!["x".into()],
            capabilities,
            ..Changes::default()
        };
        let process = of_changes(&saved(), changes).unwrap();
        let count = |set: &str| process["capabilities"][set].as_array().unwrap().len();
        assert_eq!(
            (count("inheritable"), count("effective"), count("ambient")),
            (1, 2, 1)
        );
        assert_eq!(process["env"], json!(["A=1"]));
    }
}
