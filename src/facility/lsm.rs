//! AppArmor profiles and SELinux labels. The parent asks whether the host has the module; the child
//! writes the label that exec is to give it, through a procfs that nothing can stand in for.

use std::path::Path;

use anyhow::{Context, Error, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::readlinkat;
use nix::unistd::write;

use crate::plan::process::Labels;
use crate::sys::{self, again, named, path};

/// A label for a module that is not there would be a promise not kept.
pub fn check(labels: &Labels, mount_label: Option<&str>) -> Result<()> {
    if let Some(profile) = &labels.apparmor {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        ensure!(
            enabled.is_ok_and(|text| text.starts_with('Y')),
            "process.apparmorProfile: {profile}: AppArmor is not enabled on this host; remove the profile"
        );
    }
    let of_process = labels
        .selinux
        .as_deref()
        .map(|label| ("process.selinuxLabel", label));
    let of_mounts = mount_label.map(|label| ("linux.mountLabel", label));
    for (field, label) in of_process.into_iter().chain(of_mounts) {
        ensure!(
            Path::new("/sys/fs/selinux/enforce").exists(),
            "{field}: {label}: SELinux is not enabled on this host; remove the label"
        );
    }
    Ok(())
}

/// Takes effect at exec.
pub fn set(labels: &Labels, proc: &std::os::fd::OwnedFd) -> Result<()> {
    if let Some(profile) = &labels.apparmor {
        // The module's own directory (Linux 5.8), and the one that it shares with others.
        let text = format!("exec {profile}");
        write_attribute(proc, "apparmor/exec", &text)
            .or_else(|_| write_attribute(proc, "exec", &text))
            .map_err(explain_unloaded)
            .with_context(|| format!("process.apparmorProfile: {profile}"))?;
    }
    if let Some(label) = &labels.selinux {
        for attribute in ["exec", "keycreate"] {
            write_attribute(proc, attribute, label)
                .with_context(|| format!("process.selinuxLabel: {label}"))?;
        }
    }
    Ok(())
}

/// aa_change_onexec(2): the kernel knows no profile of that name. Its file is there, or the error were another.
fn explain_unloaded(error: Error) -> Error {
    match sys::errno(&error) {
        Some(Errno::ENOENT) => error.context("is not loaded; load it with apparmor_parser"),
        _ => error,
    }
}

fn write_attribute(proc: &std::os::fd::OwnedFd, attribute: &str, text: &str) -> Result<()> {
    // A link to the number that this procfs knows the process by; links are not followed below.
    let own = named(readlinkat(proc, "self"), || {
        "readlinkat(/proc/self)".to_string()
    })?;
    let file = Path::new(&own).join("attr").join(attribute);
    let open = path::open_strict(proc, &file, libc::O_WRONLY)
        .with_context(|| format!("`/proc/self/attr/{attribute}`"))?;
    named(again(|| write(&open, text.as_bytes())), || {
        format!("write({text:?})")
    })
    .map(drop)
}
