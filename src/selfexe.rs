//! Keeps the runtime's own binary out of a container's reach: CVE-2019-5736.
//!
//! A container sees its first process, which is this program, in /proc/PID/exe, and could open that
//! for writing once it runs no more. So whoever enters a container runs from a read-only copy of the
//! mount that nothing else can reach, or from a sealed copy in memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys::mount::{self, Attributes};
use crate::sys::{self, image, named, process};
use crate::timings;

/// Nothing takes it back.
static PROTECTED: AtomicBool = AtomicBool::new(false);

/// The mount of the copy, which need not live as long as the files that were opened through it.
static MOUNT: Mutex<Option<OwnedFd>> = Mutex::new(None);

const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Protects this program, if the words of its call may make it enter a container, before anything is done that would have
/// to be done again. `protect` decides, and says what went wrong.
#[cfg_attr(test, allow(dead_code))]
pub fn protect_early() {
    if is_early() {
        protect().ok();
    }
}

pub fn is_early() -> bool {
    sys::words().any(|word| [c"create", c"exec", c"run"].contains(&word))
}

/// Has this program run from a copy that cannot be written, once.
pub fn protect() -> Result<()> {
    if !cfg!(feature = "measure-unprotected") && !PROTECTED.load(Ordering::Relaxed) {
        run_from_copy()?;
        PROTECTED.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// The kernel waits for a grace period when a mount ends, with the last process that has it open. Whoever calls this has
/// something else to wait for meanwhile.
pub fn let_go_of_mount() {
    drop(MOUNT.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Goes over to it in place, or executes this program again; nothing is to be done if it runs from one already.
fn run_from_copy() -> Result<()> {
    let own = sys::io(File::open("/proc/self/exe")).context("open /proc/self/exe")?;
    if is_protected(&own) {
        return Ok(());
    }
    let copy = match read_only_mount(&own) {
        Ok((mount, copy)) if image::go_on_from(&copy).is_ok() => {
            // A standard stream that the caller has closed gets its number back.
            let kept = Some(mount).filter(|mount| mount.as_raw_fd() > libc::STDERR_FILENO);
            *MOUNT.lock().unwrap_or_else(PoisonError::into_inner) = kept;
            return Ok(());
        }
        Ok((_, copy)) => copy.into(),
        // Without CAP_SYS_ADMIN there are no mounts to be made.
        Err(_) => sealed_copy(own)?,
    };
    if let Some(begun) = timings::begun() {
        process::set_variable(timings::BEGUN, &begun);
    }
    let errno = sys::execute_again(copy);
    named(Err(errno), || "execveat(a copy)".to_string())
        .context("execute a protected copy of this program")
}

/// On a read-only mount, as our own copy is, or sealed: asked from the kernel, never from the environment.
fn is_protected(own: &File) -> bool {
    let read_only = fstatvfs(own).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
    let seals = fcntl(own, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    read_only || seals.is_ok_and(|seals| seals.contains(SEALS))
}

fn read_only_mount(own: &File) -> Result<(OwnedFd, File)> {
    let mount = mount::clone_tree_at(own, false)?;
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID;
    mount::set_attributes(
        &mount,
        Attributes {
            set,
            ..Attributes::default()
        },
    )?;
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let copy = sys::io(File::open(&path)).with_context(|| format!("open {path:?}"))?;
    Ok((mount, copy))
}

fn sealed_copy(mut own: File) -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Linux 6.3 and later want to be told that it will be executed; earlier ones do not know the flag.
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let made = match memfd_create("cofferdam", flags | executable) {
        Err(Errno::EINVAL) => memfd_create("cofferdam", flags),
        made => made,
    };
    let refused = matches!(made, Err(Errno::EACCES));
    let made = named(made, || "memfd_create(cofferdam)".to_string());
    let mut copy = File::from(made.with_context(|| match refused {
        true => "vm.memfd_noexec is 2, which lets no copy of this program in memory be executed; set it to 1 or 0",
        false => "make a copy of this program in memory",
    })?);
    sys::io(std::io::copy(&mut own, &mut copy)).context("copy this program into memory")?;
    copy.flush()?;
    let sealed = fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS));
    named(sealed, || "fcntl(F_ADD_SEALS)".to_string())?;
    Ok(copy.into())
}
