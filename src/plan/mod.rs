//! The plan: what the parent makes of a spec, and all that the child will do. PURE: no side effects,
//! no descriptors. Its text (`--dry-run`) is what a person reads to know what will happen.

pub mod bpf;
pub mod cgroup;
pub mod cpu_list;
pub mod devices;
pub mod exec;
#[cfg(test)]
mod golden;
pub mod gvariant;
pub mod hooks;
pub mod ignored_v1;
pub mod mempolicy;
pub mod mounts;
pub mod namespaces;
pub mod netdev;
mod notify_socket;
pub mod options;
pub mod phases;
mod places;
pub mod process;
pub mod rdt;
pub mod resources;
pub mod rootfs;
pub mod scheduling;
pub mod seccomp;
pub mod step;
pub mod sysctl;
pub mod systemd;
#[cfg(test)]
pub mod tests;
pub mod update;

/// The models by which fuzz targets judge filters and device programs, for the unit tests.
#[cfg(test)]
#[allow(
    dead_code,
    reason = "the targets themselves are called by tests/corpus.rs"
)]
#[path = "../../fuzz/src/targets"]
mod oracle {
    pub mod cbpf;
    pub mod devices;
    pub mod seccomp;
}

use std::fmt;

use anyhow::{Result, ensure};
use oci_spec::runtime::Linux;

use crate::bundle::Bundle;
use crate::host::Host;
use crate::sys::clone;
use crate::text::log::printable;

/// What the command line adds to the config.
#[derive(Debug, Default)]
pub struct Flags {
    pub id: String,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    pub preserve_fds: u32,
    /// Descriptors handed on by socket activation (sd_listen_fds(3)).
    pub listen_fds: u32,
    pub systemd_cgroup: bool,
    /// The container stays in the caller's cgroup.
    pub no_cgroup: bool,
    /// Whether the container gets a socket for sd_notify(3).
    pub has_notify_socket: bool,
    /// Whether cgroups that may not be made are done without; `None`: only where the caller is confined.
    pub rootless: Option<bool>,
}

#[derive(Debug)]
pub struct Plan {
    pub namespaces: namespaces::Namespaces,
    pub net_devices: Vec<netdev::NetDevice>,
    /// `None` for a process that joins a container, and for a container that stays where its caller is.
    pub cgroup: Option<cgroup::CgroupPlan>,
    pub rdt: Option<rdt::Rdt>,
    /// `None` for a process that joins a container.
    pub rootfs: Option<rootfs::Rootfs>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub sysctl: Vec<sysctl::Sysctl>,
    pub process: process::Process,
    pub hooks: hooks::Hooks,
    /// What the config asks for in vain.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Whether a filesystem may be on a block device. It is mounted before the device rules hold.
    pub fn mounts_a_device(&self) -> bool {
        self.rootfs.iter().any(rootfs::Rootfs::may_open_a_device)
    }

    /// Returns the cgroup whose device rules are attached only after that.
    pub fn rules_after_mounts(&self) -> Option<&cgroup::CgroupPlan> {
        self.cgroup.as_ref().filter(|_| self.mounts_a_device())
    }

    /// Whether init waits for its parent between the mounts and the hooks of createContainer.
    pub fn waits_after_mounts(&self) -> bool {
        let hooks = &self.hooks;
        !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() || self.mounts_a_device()
    }

    pub fn create(bundle: &Bundle, host: &Host, flags: &Flags) -> Result<Plan> {
        let default = Linux::default();
        let linux = bundle.spec.linux().as_ref().unwrap_or(&default);
        let namespaces = namespaces::namespaces(linux, host)?;
        let mut cgroup = cgroup::cgroup(bundle, &namespaces, host, flags)?;
        let mut process = process::process(bundle, &namespaces, host, flags)?;
        let mut warnings = bundle.warnings.clone();
        warnings.append(&mut cgroup.resources.warnings);
        warnings.append(&mut process.warnings);
        let hooks = hooks::hooks(bundle)?;
        let has_pause = !hooks.are_none_of_create() || process.terminal.is_some();
        let mut rootfs = rootfs::rootfs(bundle, host, &namespaces, flags, has_pause)?;
        warnings.append(&mut rootfs.warnings);
        Ok(Plan {
            rootfs: Some(rootfs),
            hostname: uts_name(bundle.spec.hostname(), "hostname", &namespaces)?,
            domainname: uts_name(bundle.spec.domainname(), "domainname", &namespaces)?,
            net_devices: netdev::net_devices(linux, &namespaces, host)?,
            sysctl: sysctl::sysctl(linux, &namespaces)?,
            process,
            hooks,
            warnings,
            namespaces,
            cgroup: (!flags.no_cgroup).then_some(cgroup),
            rdt: linux
                .intel_rdt()
                .as_ref()
                .map(|spec| rdt::rdt(spec, &flags.id))
                .transpose()?,
        })
    }

    /// A process that joins all namespaces of a container: no root to make, no cgroup, no hooks.
    pub fn exec(bundle: &Bundle, host: &Host, flags: &Flags, enter: u64) -> Result<Plan> {
        let namespaces = namespaces::Namespaces {
            enter,
            ..Default::default()
        };
        let mut process = process::process(bundle, &namespaces, host, flags)?;
        Ok(Plan {
            warnings: [
                bundle.warnings.clone(),
                std::mem::take(&mut process.warnings),
            ]
            .concat(),
            process,
            namespaces,
            cgroup: None,
            rdt: None,
            rootfs: None,
            hostname: None,
            domainname: None,
            sysctl: Vec::new(),
            net_devices: Vec::new(),
            hooks: hooks::Hooks::default(),
        })
    }
}

fn uts_name(
    name: &Option<String>,
    field: &str,
    namespaces: &namespaces::Namespaces,
) -> Result<Option<String>> {
    /// sethostname(2): HOST_NAME_MAX.
    const LONGEST: usize = 64;
    let Some(name) = name.as_ref().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    ensure!(
        namespaces.has(clone::NEWUTS),
        "{field}: {name:?}: needs a uts namespace; add {{\"type\": \"uts\"}} to linux.namespaces"
    );
    ensure!(
        !name.contains('\0'),
        "{field}: {name:?}: must not contain a NUL"
    );
    ensure!(
        name.len() <= LONGEST,
        "{field}: {name:?}: longer than {LONGEST} bytes"
    );
    Ok(Some(name.clone()))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "warning: {}", printable(warning))?;
        }
        if let Some(cgroup) = &self.cgroup {
            cgroup.fmt(f)?;
        }
        if let Some(rdt) = &self.rdt {
            rdt.fmt(f)?;
        }
        self.namespaces.fmt(f)?;
        for device in &self.net_devices {
            writeln!(f, "{}", printable(&device.to_string()))?;
        }
        for (what, name) in [
            ("hostname", &self.hostname),
            ("domainname", &self.domainname),
        ] {
            if let Some(name) = name {
                writeln!(f, "{what} {}", printable(name))?;
            }
        }
        for sysctl in &self.sysctl {
            writeln!(f, "{}", printable(&sysctl.to_string()))?;
        }
        let hooks = self.hooks.lists();
        if let Some(rootfs) = &self.rootfs {
            rootfs.write_setup(f)?;
            write_hooks(f, &hooks[..3])?;
            rootfs.write_rest(f)?;
        }
        write_hooks(f, &hooks[3..4])?;
        self.process.fmt(f)?;
        write_hooks(f, &hooks[4..])
    }
}

fn write_hooks(f: &mut fmt::Formatter, lists: &[(&str, &[hooks::Hook])]) -> fmt::Result {
    let all = lists
        .iter()
        .flat_map(|(name, list)| list.iter().map(move |hook| (name, hook)));
    all.into_iter()
        .try_for_each(|(name, hook)| writeln!(f, "{name} {}", printable(&hook.to_string())))
}
