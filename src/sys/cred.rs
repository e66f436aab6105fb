//! Credentials and keyrings by raw calls: they act on this one thread and need no memory.

use std::ptr::null;

use anyhow::{Result, ensure};

use super::process::prctl;
use super::{c_string, check};

/// The three capability sets that capset(2) takes, a bit for each capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the pointer and the length describe one slice.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(result, || format!("setgroups({groups:?})")).map(drop)
}

pub fn set_gid(gid: u32) -> Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) };
    check(result, || format!("setresgid({gid})")).map(drop)
}

pub fn set_uid(uid: u32) -> Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    check(result, || format!("setresuid({uid})")).map(drop)
}

/// Whether a change from uid 0 to another one keeps the permitted capabilities.
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl("PR_SET_KEEPCAPS", libc::PR_SET_KEEPCAPS, keep.into())
}

pub fn set_capabilities(sets: Sets) -> Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let low = |set: u64| set as u32;
    let high = |set: u64| (set >> 32) as u32;
    let header = [VERSION_3, 0];
    let Sets {
        effective,
        permitted,
        inheritable,
    } = sets;
    let data = [
        [low(effective), low(permitted), low(inheritable)],
        [high(effective), high(permitted), high(inheritable)],
    ];
    // SAFETY: header and data have the layout of capset(2) version 3 and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) };
    check(result, || format!("capset({sets:x?})")).map(drop)
}

/// The sets of this process; what is permitted it may use or give away.
pub fn capabilities() -> Result<Sets> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let mut data = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of capget(2) version 3 and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) };
    check(result, || "capget()".to_string())?;
    let set = |index: usize| u64::from(data[0][index]) | u64::from(data[1][index]) << 32;
    Ok(Sets {
        effective: set(0),
        permitted: set(1),
        inheritable: set(2),
    })
}

/// Takes every capability that is not in `keep` out of the bounding set.
pub fn limit_bounding_set(keep: u64) -> Result<()> {
    for capability in (0..64).filter(|capability| keep & (1 << capability) == 0) {
        // SAFETY: no pointers are passed.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        // EINVAL: one past the last capability that this kernel knows.
        if result < 0 && nix::errno::Errno::last() == nix::errno::Errno::EINVAL {
            return Ok(());
        }
        check(result.into(), || {
            format!("prctl(PR_CAPBSET_DROP, {capability})")
        })?;
    }
    Ok(())
}

/// Makes `set` the ambient set; capabilities that cannot be raised are left out.
///
/// The spec lets a runtime go on when a capability cannot be granted.
pub fn set_ambient_capabilities(set: u64) {
    let ambient = libc::PR_CAP_AMBIENT;
    // SAFETY: no pointers are passed.
    unsafe { libc::prctl(ambient, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    for capability in (0..64u64).filter(|capability| set & (1 << capability) != 0) {
        // SAFETY: no pointers are passed.
        unsafe { libc::prctl(ambient, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0) };
    }
}

/// Joins the session keyring of this name, or a new one if the owner may search none of that name (keyctl(2),
/// KEYCTL_JOIN_SESSION_KEYRING). `None` always joins a new one. Gives its serial number.
pub fn join_session_keyring(name: Option<&str>) -> Result<i32> {
    const KEYCTL_JOIN_SESSION_KEYRING: i32 = 1;
    let text = name.map(c_string).transpose()?;
    let pointer = text.as_ref().map_or(null(), |text| text.as_ptr());
    // SAFETY: the name is NULL, or NUL-terminated and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, pointer) };
    check(result, || {
        format!("keyctl(join session keyring {})", name.unwrap_or("_ses"))
    })
    .map(|id| id as i32)
}

/// Lets processes of the keyring's owner join it by its name, as exec into the container needs.
///
/// They may not view or link it: /proc/keys does not show them the name, and the serial number is of no use to them.
pub fn share_keyring(keyring: i32) -> Result<()> {
    const KEYCTL_SETPERM: i32 = 5;
    const POSSESSOR_ALL_USER_SEARCH: u32 = 0x3f08_0000;
    // SAFETY: no pointers are passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_SETPERM,
            keyring,
            POSSESSOR_ALL_USER_SEARCH,
        )
    };
    check(result, || {
        format!("keyctl(set permissions of keyring {keyring})")
    })
    .map(drop)
}

/// A number that nobody can guess, and the same for the life of the process: the kernel gives it to each program that is
/// executed (getauxval(3), AT_RANDOM). A sandbox cannot refuse it, as it can getrandom(2).
pub fn random() -> Result<u128> {
    // SAFETY: no pointers are passed.
    let address = unsafe { libc::getauxval(libc::AT_RANDOM) } as *const [u8; 16];
    ensure!(!address.is_null(), "AT_RANDOM: the kernel has given none");
    // SAFETY: the kernel has put 16 bytes there, which nobody changes.
    Ok(u128::from_ne_bytes(unsafe { *address }))
}
