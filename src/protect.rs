//! Keeps the runtime's own binary out of a container's reach: CVE-2019-5736.
//!
//! A process of the container can find this program in /proc/PID/exe, keep a descriptor of it, and open it for writing
//! once it runs no more. A read-only flag of a mount is no protection: CAP_SYS_ADMIN clears the flag. Therefore each command
//! that enters a container runs from a file that no capability makes writable: a file of a read-only overlay superblock, or a
//! sealed copy in memory. It goes over to that file in place (`sys::image`), or executes itself again.

use std::fs::{File, Metadata};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, openat};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, Statfs, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys::mount::{Configuration, layer_list};
use crate::sys::{self, image, named, process};
use crate::text::timings;

/// Set once this program is known to run from a protected file. Nothing takes that back.
static PROTECTED: AtomicBool = AtomicBool::new(false);

/// The mount of the overlay. It need not live as long as the files that were opened through it.
static MOUNT: Mutex<Option<OwnedFd>> = Mutex::new(None);

const EXE: &str = "/proc/self/exe";

/// Names the device of the overlay for the program that is executed from it: the number of the device that stat(2) shows.
const OVERLAY: &str = "COFFERDAM_OVERLAY";

/// A second lower directory, without which overlayfs makes no mount that has no upper one. It holds no devices.
const SECOND_LAYER: &str = "/sys/fs";

const SEALS: SealFlag = SealFlag::F_SEAL_SEAL
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_WRITE);

/// Protects this program, if a word of the command line names a verb that enters a container, before anything is done that
/// the second execution would repeat. A failure is left for [`protect`] to report.
#[cfg_attr(test, allow(dead_code))]
pub fn protect_at_start() {
    if may_enter_container() {
        protect().ok();
    }
}

pub fn may_enter_container() -> bool {
    sys::words().any(|word| [c"create", c"exec", c"run", c"mounts"].contains(&word))
}

/// Returns if this program runs from a file that cannot be written, else executes it from one.
///
/// Fails where neither an overlay nor a sealed copy can be made or executed.
pub fn protect() -> Result<()> {
    if cfg!(feature = "measure-unprotected") || PROTECTED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let own = sys::io(File::open(EXE)).with_context(|| format!("open {EXE}"))?;
    if is_protected(&own)? {
        PROTECTED.store(true, Ordering::Relaxed);
        // Hooks inherit the environment.
        process::remove_variable(OVERLAY);
        return process::set_name(c"cofferdam");
    }
    let copy = match read_only_overlay(&own) {
        Ok((mount, copy)) if image::go_on_from(&copy).is_ok() => {
            PROTECTED.store(true, Ordering::Relaxed);
            // A standard stream that the caller has closed gets its number back.
            let kept = Some(mount).filter(|mount| mount.as_raw_fd() > libc::STDERR_FILENO);
            *MOUNT.lock().unwrap_or_else(PoisonError::into_inner) = kept;
            return Ok(());
        }
        Ok((_, copy)) => {
            process::set_variable(OVERLAY, &device_of(&copy)?.to_string());
            copy
        }
        // Without CAP_SYS_ADMIN, or where overlayfs does not take the directory.
        Err(_) => sealed_copy(own)?,
    };
    if let Some(begun) = timings::begun() {
        process::set_variable(timings::BEGUN, &begun);
    }
    let errno = sys::execute_again(copy);
    named(Err(errno), || "execveat(a copy)".to_string())
        .context("execute a protected copy of this program")
}

/// Ends the mount of the overlay. The kernel waits for a grace period then, with the last process that has the mount open. The
/// caller has something else to wait for meanwhile.
pub fn close_exe_mount() {
    drop(MOUNT.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Asks the kernel which file this program runs from. The variable alone proves nothing: a caller may have inherited it.
/// The kernel gives the number of a mounted superblock to no other one.
fn is_protected(own: &File) -> Result<bool> {
    let seals = fcntl(own, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    if seals.is_ok_and(|seals| seals.contains(SEALS)) {
        return Ok(true);
    }
    let device = device_of(own)?;
    let is_named = std::env::var(OVERLAY).is_ok_and(|text| text == device.to_string());
    Ok(is_named && is_on_overlay(own))
}

fn device_of(file: &File) -> Result<u64> {
    let meta = sys::io(file.metadata()).with_context(|| format!("stat {EXE}"))?;
    Ok(meta.dev())
}

fn is_on_overlay(file: &File) -> bool {
    let is_read_only = fstatvfs(file).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
    let is_overlay = |fs: Statfs| fs.filesystem_type() == OVERLAYFS_SUPER_MAGIC;
    is_read_only && fstatfs(file).is_ok_and(is_overlay)
}

/// Opens this program through an overlay of the directory that holds it. An overlay without an upper directory has
/// a read-only superblock, and the kernel refuses to make it writable (fs/overlayfs/super.c, ovl_reconfigure).
fn read_only_overlay(own: &File) -> Result<(OwnedFd, File)> {
    let path = sys::io(std::fs::read_link(EXE)).with_context(|| format!("read {EXE}"))?;
    let place = path.parent().zip(path.file_name());
    let (directory, name) = place.context("the program has no path")?;
    let overlay = Configuration::open("overlay")?;
    overlay.string(
        "lowerdir",
        &layer_list(&[directory, Path::new(SECOND_LAYER)]),
    )?;
    let mount = overlay.mount(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let opened = named(openat(&mount, name, flags, Mode::empty()), || {
        format!("openat({name:?})")
    })?;
    let copy = File::from(opened);
    let (meant, found) = (sys::io(own.metadata())?, sys::io(copy.metadata())?);
    // Not the number of the device, which is the overlay's own.
    let facts = |meta: &Metadata| {
        (
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime_nsec(),
        )
    };
    let is_same = facts(&meant) == facts(&found);
    ensure!(is_same && is_on_overlay(&copy), "{path:?}: is another file");
    Ok((mount, copy))
}

fn sealed_copy(mut own: File) -> Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // Linux 6.3 and later want to be told that it will be executed; earlier ones do not know the flag.
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let made = match memfd_create("cofferdam", flags | executable) {
        Err(Errno::EINVAL) => memfd_create("cofferdam", flags),
        made => made,
    };
    let refused = matches!(made, Err(Errno::EACCES));
    let made: Result<OwnedFd> = named(made, || "memfd_create(cofferdam)".to_string());
    let mut copy = File::from(made.with_context(|| match refused {
        true => "vm.memfd_noexec is 2, which lets no copy of this program in memory be executed; set it to 1 or 0",
        false => "make a copy of this program in memory",
    })?);
    sys::io(std::io::copy(&mut own, &mut copy)).context("copy this program into memory")?;
    copy.flush()?;
    let sealed = fcntl(&copy, FcntlArg::F_ADD_SEALS(SEALS));
    named(sealed, || "fcntl(F_ADD_SEALS)".to_string())?;
    Ok(copy)
}
