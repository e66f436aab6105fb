//! From which Linux on there are the newer ones of the calls that are made.
//!
//! A kernel that lacks one says ENOSYS, and so does a sandbox that does not know it; nothing is done in another, weaker
//! way then. Used by parent and child for their errors, and by `check`.

use libc::c_long;

/// The call, its number, and the first kernel that has it (the sections "VERSIONS" and "HISTORY" of their man pages).
pub const NEWER: [(&str, c_long, &str); 18] = [
    ("clone3", libc::SYS_clone3, "5.3"),
    ("close_range", libc::SYS_close_range, "5.9"),
    ("execveat", libc::SYS_execveat, "3.19"),
    ("fsconfig", libc::SYS_fsconfig, "5.2"),
    ("fsmount", libc::SYS_fsmount, "5.2"),
    ("fsopen", libc::SYS_fsopen, "5.2"),
    ("fspick", libc::SYS_fspick, "5.2"),
    ("getrandom", libc::SYS_getrandom, "3.17"),
    ("memfd_create", libc::SYS_memfd_create, "3.17"),
    ("mount_setattr", libc::SYS_mount_setattr, "5.12"),
    ("move_mount", libc::SYS_move_mount, "5.2"),
    ("open_tree", libc::SYS_open_tree, "5.2"),
    ("openat2", libc::SYS_openat2, "5.6"),
    ("pidfd_getfd", libc::SYS_pidfd_getfd, "5.6"),
    ("pidfd_open", libc::SYS_pidfd_open, "5.3"),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, "5.1"),
    ("seccomp", libc::SYS_seccomp, "3.17"),
    ("statx", libc::SYS_statx, "4.11"),
];

/// What follows the kernel's words where it has no such call; nothing for a call that every kernel has.
pub fn hint(call: &str) -> String {
    let name = call.split('(').next().unwrap_or_default();
    let known = NEWER.iter().find(|(newer, ..)| *newer == name);
    known.map_or_else(String::new, |(name, _, version)| {
        format!(
            ": {name} needs Linux {version}; boot a newer kernel, or let the seccomp profile of the outer container allow {name}"
        )
    })
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use crate::sys::Refused;

    fn told(call: &str, errno: Errno) -> String {
        let call = call.to_string();
        Refused { call, errno }.to_string()
    }

    #[test]
    fn a_call_that_is_not_there_is_told_with_its_version() {
        let missing = told("openat2(fd 3, \"a; b\")", Errno::ENOSYS);
        let want = "openat2(fd 3, \"a; b\"): Function not implemented: openat2 needs Linux 5.6; boot a newer kernel, ";
        assert!(missing.starts_with(want), "{missing}");
        let other = told("openat2(fd 3, \"a\")", Errno::ENOENT);
        assert_eq!(other, "openat2(fd 3, \"a\"): No such file or directory");
        assert_eq!(
            told("umask(0o22)", Errno::ENOSYS),
            "umask(0o22): Function not implemented"
        );
    }
}
