//! `linux.sysctl` -> files below /proc/sys, only those that a namespace of the container's own holds.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use oci_spec::runtime::Linux;

use super::namespaces::Namespaces;
use crate::sys::clone;

#[derive(Debug)]
pub struct Sysctl {
    pub name: String,
    /// Below /proc/sys.
    pub file: PathBuf,
    pub value: String,
    /// Clone flag of the namespace that holds it.
    pub namespace: u64,
}

/// Settings of the System V part of an ipc namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

pub fn sysctl(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<Sysctl>> {
    let mut list = Vec::new();
    for (name, value) in linux.sysctl().iter().flatten() {
        let file = file(name);
        let field = format!("linux.sysctl.{name}");
        let plain =
            file.split('/').all(|part| !matches!(part, "" | "." | "..")) && !file.contains('\0');
        ensure!(plain, "{field}: is no name of a sysctl");
        let namespace = check(&file, &field, namespaces)?;
        list.push(Sysctl {
            name: name.clone(),
            file: PathBuf::from(file),
            value: value.clone(),
            namespace,
        });
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// sysctl.conf(5): dots separate, unless the name has slashes, which then leave dots alone.
fn file(name: &str) -> String {
    let first = name.find(['.', '/']).map(|at| name.as_bytes()[at]);
    if first == Some(b'/') {
        name.to_string()
    } else {
        name.replace('.', "/")
    }
}

/// Anything else would change the host.
fn check(file: &str, field: &str, namespaces: &Namespaces) -> Result<u64> {
    let (what, kind) = match file {
        _ if IPC.contains(&file) || file.starts_with("fs/mqueue/") => ("ipc", clone::NEWIPC),
        _ if file.starts_with("net/") => ("network", clone::NEWNET),
        _ if file.starts_with("user/") => ("user", clone::NEWUSER),
        "kernel/domainname" => ("uts", clone::NEWUTS),
        "kernel/hostname" => {
            anyhow::bail!("{field}: is set by the config's hostname");
        }
        _ => anyhow::bail!("{field}: belongs to no namespace; it would change the host"),
    };
    ensure!(
        namespaces.has(kind),
        "{field}: would change the host; add {{\"type\": \"{what}\"}} to linux.namespaces"
    );
    Ok(kind)
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "sysctl {} = {}", self.name, self.value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plan::tests::{fault, plan, user_namespace};

    fn only(name: &str) -> (&'static str, Value) {
        ("/linux/sysctl", json!({name: "1"}))
    }

    #[test]
    fn names_become_files() {
        let cases = [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            (
                "net/ipv4/conf/eno2.100/forwarding",
                "net/ipv4/conf/eno2.100/forwarding",
            ),
            ("net.ipv4.conf.eno2/100.x", "net/ipv4/conf/eno2/100/x"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("kernel.domainname", "kernel/domainname"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ];
        for (name, file) in cases {
            let list = plan(&[only(name)]).sysctl;
            assert_eq!(list[0].file, PathBuf::from(file), "{name}");
        }
        let list = plan(&[("/linux/sysctl", json!({"net.b": "2", "net.a": "x y"}))]).sysctl;
        let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["sysctl net.a = x y", "sysctl net.b = 2"]);
    }

    #[test]
    fn what_belongs_to_no_namespace_is_refused() {
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "fs.file-max",
            "net",
            "kernel.msgmaxx",
            "fs.mqueue",
            "",
        ] {
            let fault = fault(&[only(name)]);
            assert!(
                fault.starts_with(&format!("linux.sysctl.{name}: ")),
                "{name}: {fault}"
            );
        }
        let fault = fault(&[only("kernel.hostname")]);
        assert!(
            fault.ends_with("is set by the config's hostname"),
            "{fault}"
        );
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        for name in [
            "net/../kernel/core_pattern",
            "net.ipv4..x",
            "net//x",
            "net/./x",
            "/net/x",
            "net.",
            "net.a\0",
        ] {
            let fault = fault(&[only(name)]);
            assert!(fault.ends_with("is no name of a sysctl"), "{name}: {fault}");
        }
    }

    #[test]
    fn each_needs_its_namespace() {
        let cases = [
            ("kernel.sem", "ipc"),
            ("fs.mqueue.queues_max", "ipc"),
            ("net.core.somaxconn", "network"),
            ("kernel.domainname", "uts"),
            ("user.max_user_namespaces", "user"),
        ];
        for (name, kind) in cases {
            let fault = fault(&[
                ("/linux/namespaces", json!([{"type": "mount"}])),
                only(name),
            ]);
            assert!(
                fault.contains("would change the host; add") && fault.contains(kind),
                "{fault}"
            );
        }
        let changes = [&user_namespace()[..], &[only("user.max_user_namespaces")]].concat();
        assert_eq!(plan(&changes).sysctl.len(), 1);
    }
}
