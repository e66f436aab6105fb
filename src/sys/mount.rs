//! The mount API of Linux 5.2 and later: mounts are made detached, given their attributes, then attached.

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr::null;

use anyhow::{Context, Result, anyhow};
use libc::{AT_EMPTY_PATH, AT_RECURSIVE, c_long};
use nix::errno::Errno;

use super::{Refused, c_string, check, check_fd};

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSPICK_EMPTY_PATH: libc::c_uint = 8;

/// The bytes of a string that fsconfig(2) takes (fs/fsopen.c).
pub const MAX_STRING: usize = 255;

/// Changes to the attributes of a mount; `recursive` takes in all mounts below it (mount_setattr(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    pub recursive: bool,
}

impl Attributes {
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

/// A filesystem being configured (fsopen(2)); its errors carry the kernel's own explanation.
pub struct Configuration {
    fd: OwnedFd,
    kind: String,
}

impl Configuration {
    pub fn open(kind: &str) -> Result<Configuration> {
        let name = c_string(kind)?;
        // SAFETY: name is a NUL-terminated string.
        let result =
            unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), libc::FSOPEN_CLOEXEC) };
        let fd = check_fd(result, || format!("fsopen({kind:?})"))?;
        Ok(Configuration {
            fd,
            kind: kind.to_string(),
        })
    }

    /// Takes the superblock of an existing mount, to reconfigure it.
    pub fn pick(mount: impl AsFd) -> Result<Configuration> {
        let fd = mount.as_fd().as_raw_fd();
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the path is an empty NUL-terminated string.
        let result = unsafe { libc::syscall(libc::SYS_fspick, fd, c"".as_ptr(), flags) };
        let picked = check_fd(result, || format!("fspick(fd {fd})"))?;
        Ok(Configuration {
            fd: picked,
            kind: "superblock".to_string(),
        })
    }

    /// Sets what an entry of `mounts[].options` says.
    pub fn option(&self, option: &str) -> Result<()> {
        match option.split_once('=') {
            Some((key, value)) => self.string(key, value),
            None => self.flag(option),
        }
    }

    pub fn string(&self, key: &str, value: &str) -> Result<()> {
        if value.len() > MAX_STRING {
            let call = format!(
                "option {key}: has {} bytes, fsconfig(2) takes {MAX_STRING}",
                value.len()
            );
            let errno = Errno::EINVAL;
            return Err(Refused { call, errno }.into());
        }
        let text = c_string(value)?;
        self.config(FSCONFIG_SET_STRING, Some(key), Some(&text), 0)
            .with_context(|| format!("option {key}={value}"))
    }

    pub fn flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
            .with_context(|| format!("option {key}"))
    }

    pub fn descriptor(&self, key: &str, value: impl AsFd) -> Result<()> {
        let fd = value.as_fd().as_raw_fd();
        self.config(FSCONFIG_SET_FD, Some(key), None, fd)
            .with_context(|| format!("option {key}"))
    }

    /// Makes the superblock and a detached mount of it.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)?;
        let fd = self.fd.as_raw_fd();
        // SAFETY: no pointers are passed.
        let result =
            unsafe { libc::syscall(libc::SYS_fsmount, fd, libc::FSMOUNT_CLOEXEC, attributes) };
        check_fd(result, || {
            format!("fsmount({}, attributes {attributes:#x})", self.kind)
        })
    }

    pub fn reconfigure(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    }

    fn config(
        &self,
        command: u32,
        key: Option<&str>,
        value: Option<&CString>,
        number: i32,
    ) -> Result<()> {
        let key = key.map(c_string).transpose()?;
        let key_pointer = key.as_ref().map_or(null(), |key| key.as_ptr());
        let value_pointer = value.map_or(null(), |value| value.as_ptr());
        let fd = self.fd.as_raw_fd();
        // SAFETY: key and value are NULL or NUL-terminated and outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                fd,
                command,
                key_pointer,
                value_pointer,
                number,
            )
        };
        let call = || format!("fsconfig({}, {})", self.kind, command_name(command));
        check(result, call)
            .map(drop)
            .map_err(|error| match self.explanation() {
                Some(words) => error.context(anyhow!("{words}")),
                None => error,
            })
    }

    /// The last error line of the filesystem, such as `tmpfs: Bad value for 'size'`.
    fn explanation(&self) -> Option<String> {
        let mut log = std::fs::File::from(self.fd.try_clone().ok()?);
        let mut last = None;
        let mut line = [0u8; 1024];
        // Each read gives one message, until ENODATA (fsopen(2)).
        while let Ok(length @ 1..) = log.read(&mut line) {
            let text = String::from_utf8_lossy(&line[..length]);
            last = text.trim().strip_prefix("e ").map(str::to_string).or(last);
        }
        last
    }
}

/// Returns the value of overlayfs's `lowerdir`, the top layer first (Documentation/filesystems/overlayfs.rst).
pub fn layer_list(layers: &[&Path]) -> String {
    let escaped = |layer: &&Path| escaped(layer).replace(':', "\\:");
    layers.iter().map(escaped).collect::<Vec<_>>().join(":")
}

/// Returns the path as overlayfs's options take it, which also comma and backslash end.
pub fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('\\', "\\\\").replace(',', "\\,")
}

fn command_name(command: u32) -> &'static str {
    match command {
        FSCONFIG_SET_FLAG => "set flag",
        FSCONFIG_SET_STRING => "set string",
        FSCONFIG_SET_FD => "set descriptor",
        FSCONFIG_CMD_CREATE => "create",
        _ => "reconfigure",
    }
}

/// A detached copy of the mount at `path`, or of all the mounts below it too.
pub fn clone_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    open_tree(libc::AT_FDCWD, Some(path), depth(recursive))
}

/// As [`clone_tree`], but what is at the path may be a symbolic link, which is not followed.
pub fn clone_link(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let flags = depth(recursive) | libc::AT_SYMLINK_NOFOLLOW;
    open_tree(libc::AT_FDCWD, Some(path), flags)
}

/// A detached copy of the mount that holds `file`, with `file` as its root.
pub fn clone_tree_at(file: impl AsFd, recursive: bool) -> Result<OwnedFd> {
    let flags = depth(recursive) | AT_EMPTY_PATH;
    open_tree(file.as_fd().as_raw_fd(), None, flags)
}

fn depth(recursive: bool) -> i32 {
    if recursive { AT_RECURSIVE } else { 0 }
}

fn open_tree(at: i32, path: Option<&Path>, flags: i32) -> Result<OwnedFd> {
    let name = c_string(path.unwrap_or(Path::new("")))?;
    let flags = flags as u32 | libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: name is a NUL-terminated string.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, at, name.as_ptr(), flags) };
    check_fd(result, || match path {
        Some(path) => format!("open_tree({path:?})"),
        None => format!("open_tree(fd {at})"),
    })
}

/// Attaches a detached mount on top of `target`.
pub fn move_mount(mount: impl AsFd, target: impl AsFd) -> Result<()> {
    let (from, to) = (mount.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: both paths are empty NUL-terminated strings.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, from, empty, to, empty, flags) };
    check(result, || format!("move_mount(fd {from}, fd {to})")).map(drop)
}

pub fn set_attributes(mount: impl AsFd, attributes: Attributes) -> Result<()> {
    if attributes.is_empty() {
        return Ok(());
    }
    let attr = mount_attr(attributes.set, attributes.clear);
    mount_setattr(mount.as_fd(), attr, attributes.recursive)
}

/// Maps the owners that the mount shows through a user namespace (Linux 5.12).
pub fn set_idmap(mount: impl AsFd, user_namespace: impl AsFd, recursive: bool) -> Result<()> {
    let mut attr = mount_attr(libc::MOUNT_ATTR_IDMAP, 0);
    attr.userns_fd = user_namespace.as_fd().as_raw_fd() as u64;
    mount_setattr(mount.as_fd(), attr, recursive)
}

/// Sets the propagation of a mount: one of MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE.
pub fn set_propagation(mount: impl AsFd, propagation: u64, recursive: bool) -> Result<()> {
    let mut attr = mount_attr(0, 0);
    attr.propagation = propagation;
    mount_setattr(mount.as_fd(), attr, recursive)
}

fn mount_attr(set: u64, clear: u64) -> libc::mount_attr {
    libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: 0,
        userns_fd: 0,
    }
}

fn mount_setattr(mount: BorrowedFd, attr: libc::mount_attr, recursive: bool) -> Result<()> {
    let fd = mount.as_raw_fd();
    let flags = AT_EMPTY_PATH | depth(recursive);
    // SAFETY: the path is empty and NUL-terminated; attr outlives the call and its size is given.
    let result: c_long = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd,
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of_val(&attr),
        )
    };
    check(result, || {
        let (set, clear) = (attr.attr_set, attr.attr_clr);
        format!("mount_setattr(fd {fd}, set {set:#x}, clear {clear:#x})")
    })
    .map(drop)
}

/// Whether this is the root of a mount: what is mounted, not a file or directory in it (statx(2), Linux 5.8).
pub fn is_mount(file: impl AsFd) -> Result<bool> {
    let info = statx(file.as_fd(), 0)?;
    Ok(info.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0)
}

/// The number of the mount; from Linux 6.8 on no later mount gets it again (statx(2)).
pub fn id(file: impl AsFd) -> Result<u64> {
    const STATX_MNT_ID_UNIQUE: u32 = 0x4000;
    let mask = libc::STATX_MNT_ID | STATX_MNT_ID_UNIQUE;
    Ok(statx(file.as_fd(), mask)?.stx_mnt_id)
}

fn statx(file: BorrowedFd, mask: u32) -> Result<libc::statx> {
    let fd = file.as_raw_fd();
    // SAFETY: statx is plain integers; zero is valid for each.
    let mut info: libc::statx = unsafe { std::mem::zeroed() };
    let path = c"".as_ptr();
    // A C library makes do with fstat(2) where the kernel refuses this, which knows of no mounts.
    // SAFETY: the path is empty and NUL-terminated; info outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_statx,
            fd,
            path,
            AT_EMPTY_PATH,
            mask,
            &raw mut info,
        )
    };
    check(result, || format!("statx(fd {fd})"))?;
    Ok(info)
}

/// Makes the current directory the root; the old root stays mounted on top of it (pivot_root(2)).
pub fn pivot_to_current_directory() -> Result<()> {
    let dot = c".".as_ptr();
    // SAFETY: both paths are NUL-terminated strings.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, dot, dot) };
    check(result, || "pivot_root(\".\", \".\")".to_string()).map(drop)
}
