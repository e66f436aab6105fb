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
        check(&file, &field, namespaces)?;
        list.push(Sysctl {
            name: name.clone(),
            file: PathBuf::from(file),
            value: value.clone(),
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
fn check(file: &str, field: &str, namespaces: &Namespaces) -> Result<()> {
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
    Ok(())
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "sysctl {} = {}", self.name, self.value)
    }
}
