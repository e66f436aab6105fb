//! Who the process is: groups, ids, capabilities, no new privileges. Raw calls that act on this thread.

use anyhow::{Context, Result};
use nix::errno::Errno;

use crate::plan::namespaces::Namespaces;
use crate::plan::process::Identity;
use crate::sys::cred::{self, Sets};
use crate::sys::{self, process};

const SYS_ADMIN: u64 = 1 << 21;

/// In a new user namespace: takes on its root, so that what is made belongs to the container.
///
/// Where 0 is not mapped the caller's own id is, and that will do.
pub fn become_root(namespaces: &Namespaces) -> Result<()> {
    if Namespaces::maps_to_host(&namespaces.gids, 0).is_some() {
        cred::set_gid(0)?;
    }
    if Namespaces::maps_to_host(&namespaces.uids, 0).is_some() {
        cred::set_uid(0)?;
    }
    Ok(())
}

/// Takes on the identity. With `keep_admin` CAP_SYS_ADMIN stays permitted, but not effective, for
/// loading a filter right before exec; exec computes its new sets without it.
pub fn assume(identity: &Identity, confined: bool, keep_admin: bool) -> Result<()> {
    let grantable = cred::capabilities()?.permitted;
    let sets = Sets {
        effective: identity.sets.effective & identity.sets.permitted & grantable,
        permitted: identity.sets.permitted & grantable,
        inheritable: identity.sets.inheritable & grantable,
    };
    let admin = if keep_admin { SYS_ADMIN & grantable } else { 0 };
    cred::limit_bounding_set(identity.bounding)?;
    cred::keep_capabilities(true)?;
    set_groups(identity, confined)?;
    cred::set_gid(identity.gid).with_context(|| unmapped("process.user.gid", identity.gid))?;
    cred::set_uid(identity.uid).with_context(|| unmapped("process.user.uid", identity.uid))?;
    cred::keep_capabilities(false)?;
    cred::set_capabilities(Sets {
        permitted: sets.permitted | admin,
        ..sets
    })?;
    cred::set_ambient_capabilities(identity.ambient & sets.permitted & sets.inheritable);
    if identity.no_new_privileges {
        process::set_no_new_privileges()?;
    }
    Ok(())
}

/// Makes the kept CAP_SYS_ADMIN effective.
pub fn raise_admin() -> Result<()> {
    cred::set_capabilities(with_admin()?)
}

/// The sets of this process with the kept CAP_SYS_ADMIN effective.
pub fn with_admin() -> Result<Sets> {
    let now = cred::capabilities()?;
    Ok(Sets {
        effective: now.effective | SYS_ADMIN & now.permitted,
        ..now
    })
}

fn set_groups(identity: &Identity, confined: bool) -> Result<()> {
    let Some(groups) = &identity.groups else {
        return Ok(());
    };
    match cred::set_groups(groups) {
        // A joined user namespace in which setgroups(2) is denied; no group was asked for.
        Err(error) if confined && groups.is_empty() && sys::errno(&error) == Some(Errno::EPERM) => {
            Ok(())
        }
        Err(error) if sys::errno(&error) == Some(Errno::EINVAL) => Err(error.context(
            "process.user.additionalGids: take them on (are all mapped in the container's user namespace?)",
        )),
        result => result.context("process.user.additionalGids"),
    }
}

fn unmapped(field: &str, id: u32) -> String {
    format!("{field}: {id}: take it on (is it mapped in the container's user namespace?)")
}
