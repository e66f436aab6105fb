//! `linux.netDevices` -> which devices of the host move into the container's network namespace, under which names.

use std::fmt;

use anyhow::{Result, anyhow, bail, ensure};
use oci_spec::runtime::Linux;

use super::namespaces::Namespaces;
use crate::host::Host;
use crate::sys::clone;

#[derive(Debug, PartialEq, Eq)]
pub struct NetDevice {
    pub field: String,
    /// Its name on the host.
    pub device: String,
    /// Its name in the container; `%d` in it stands for the lowest number that makes it unique.
    pub name: String,
}

impl NetDevice {
    /// netdevice(7): IFNAMSIZ, less the NUL.
    pub const LONGEST_NAME: usize = 15;

    pub fn is_template(&self) -> bool {
        self.name.contains('%')
    }
}

/// In the order in which they move: templates last, as they can do with what the others leave.
pub fn net_devices(linux: &Linux, namespaces: &Namespaces, host: &Host) -> Result<Vec<NetDevice>> {
    let mut list = Vec::new();
    for (device, given) in linux.net_devices().iter().flatten() {
        let field = format!("linux.netDevices.{device}");
        check_name(device).map_err(|reason| anyhow!("{field}: {reason}"))?;
        ensure!(
            !device.contains('%'),
            "{field}: no device has a % in its name; a template goes into the property name"
        );
        ensure!(
            device != "lo",
            "{field}: every network namespace has one of its own, which stays there"
        );
        let name = given.name().as_ref().unwrap_or(device).clone();
        check_name(&name)
            .and_then(|()| check_template(&name))
            .map_err(|reason| anyhow!("{field}.name: {name:?}: {reason}"))?;
        list.push(NetDevice {
            field,
            device: device.clone(),
            name,
        });
    }
    list.sort_by(|a, b| (a.is_template(), &a.device).cmp(&(b.is_template(), &b.device)));
    if !list.is_empty() {
        check_caller(namespaces, host)?;
        check_unique(&list)?;
    }
    Ok(list)
}

/// What the kernel takes for a name (dev_valid_name in its net/core/dev.c).
fn check_name(name: &str) -> Result<(), &'static str> {
    let forbidden = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '\0');
    match name {
        "" => Err("empty; a network device needs a name"),
        "." | ".." => Err("is no name of a network device"),
        _ if name.len() > NetDevice::LONGEST_NAME => {
            Err("the name of a network device has at most 15 bytes")
        }
        _ if name.contains(forbidden) => {
            Err("the name of a network device has no /, no : and no white space")
        }
        _ => Ok(()),
    }
}

fn check_template(name: &str) -> Result<(), &'static str> {
    if name.replacen("%d", "", 1).contains('%') {
        return Err("% is only for one %d, which stands for a number");
    }
    Ok(())
}

fn check_caller(namespaces: &Namespaces, host: &Host) -> Result<()> {
    /// capabilities(7).
    const CAP_NET_ADMIN: u64 = 1 << 12;
    ensure!(
        namespaces.has(clone::NEWNET),
        "linux.netDevices: the container has no network namespace to move devices into; add \
         {{\"type\": \"network\"}} to linux.namespaces"
    );
    ensure!(
        host.capabilities & CAP_NET_ADMIN != 0,
        "linux.netDevices: moving devices of the host needs CAP_NET_ADMIN; run as root"
    );
    Ok(())
}

fn check_unique(list: &[NetDevice]) -> Result<()> {
    for (index, this) in list.iter().enumerate() {
        let same = |other: &&NetDevice| other.name == this.name && !this.is_template();
        if let Some(other) = list[..index].iter().find(same) {
            bail!(
                "{}.name: {:?}: {} has that name too",
                this.field,
                this.name,
                other.field
            );
        }
    }
    Ok(())
}

impl fmt::Display for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "move network device {} as {}", self.device, self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::{Value, json};

    use super::*;
    use crate::host::Hierarchy;

    fn planned(devices: Value) -> Result<Vec<NetDevice>> {
        let with_network = Namespaces {
            create: clone::NEWNET,
            ..Namespaces::default()
        };
        plan_in(&with_network, u64::MAX, devices)
    }

    fn plan_in(
        namespaces: &Namespaces,
        capabilities: u64,
        devices: Value,
    ) -> Result<Vec<NetDevice>> {
        let linux: Linux = serde_json::from_value(json!({ "netDevices": devices })).unwrap();
        let host = Host {
            euid: 0,
            egid: 0,
            in_user_namespace: false,
            denies_setgroups: false,
            capabilities,
            cgroup: Hierarchy {
                mount: PathBuf::from("/sys/fs/cgroup"),
                own: PathBuf::from("/"),
            },
        };
        net_devices(&linux, namespaces, &host)
    }

    fn texts(devices: Value) -> Vec<String> {
        let list = planned(devices).unwrap();
        list.iter().map(NetDevice::to_string).collect()
    }

    fn refusal(devices: Value) -> String {
        planned(devices).unwrap_err().to_string()
    }

    #[test]
    fn a_device_keeps_its_name_unless_it_gets_another() {
        let devices = json!({"eth1": {"name": "ctr_eth1"}, "eth0": {}});
        let expected = [
            "move network device eth0 as eth0",
            "move network device eth1 as ctr_eth1",
        ];
        assert_eq!(texts(devices), expected);
        assert!(planned(json!({})).unwrap().is_empty());
    }

    #[test]
    fn templates_come_last() {
        let devices =
            json!({"a": {"name": "eth%d"}, "b": {"name": "eth0"}, "c": {"name": "eth%d"}});
        let expected = [
            "move network device b as eth0",
            "move network device a as eth%d",
            "move network device c as eth%d",
        ];
        assert_eq!(texts(devices), expected);
    }

    #[test]
    fn names_may_be_swapped_but_not_shared() {
        planned(json!({"a": {"name": "b"}, "b": {"name": "a"}})).unwrap();
        let text = refusal(json!({"a": {"name": "c"}, "b": {"name": "c"}}));
        assert_eq!(
            text,
            "linux.netDevices.b.name: \"c\": linux.netDevices.a has that name too"
        );
        let text = refusal(json!({"a": {"name": "b"}, "b": {}}));
        assert!(text.starts_with("linux.netDevices.b.name: \"b\""), "{text}");
    }

    #[test]
    fn bad_names_are_refused() {
        planned(json!({"123456789012345": {"name": "543210987654321"}})).unwrap();
        let names = [
            "",
            ".",
            "..",
            "a/b",
            "a:1",
            "a b",
            "a\tb",
            "a\0",
            "1234567890123456",
            "éééééééé",
            "eth%s",
            "eth%",
            "%d%d",
            "%%d",
        ];
        for name in names {
            let text = refusal(json!({"eth0": {"name": name}}));
            let start = format!("linux.netDevices.eth0.name: {name:?}: ");
            assert!(text.starts_with(&start), "{text}");
            let text = refusal(json!({name: {"name": "eth0"}}));
            assert!(
                text.starts_with(&format!("linux.netDevices.{name}: ")),
                "{text}"
            );
        }
        for device in ["eth%d", "lo"] {
            let text = refusal(json!({device: {"name": "eth0"}}));
            assert!(text.starts_with(&format!("linux.netDevices.{device}: ")));
        }
    }

    #[test]
    fn a_network_namespace_and_privilege_are_needed() {
        let devices = json!({"eth0": {}});
        let without = Namespaces::default();
        let text = plan_in(&without, u64::MAX, devices.clone())
            .unwrap_err()
            .to_string();
        assert!(text.contains("{\"type\": \"network\"}"), "{text}");
        plan_in(&without, 0, json!({})).unwrap();
        let with = Namespaces {
            create: clone::NEWNET,
            ..Namespaces::default()
        };
        let text = plan_in(&with, !(1 << 12), devices).unwrap_err().to_string();
        assert!(text.contains("CAP_NET_ADMIN"), "{text}");
    }
}
