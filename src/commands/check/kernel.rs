//! `check`, the kernel itself: its version and calls, filters, security modules, keyrings.
//!
//! Run by the parent; what a process cannot take back is tried in a child. Calls count as there when the
//! kernel refuses them for another reason than that it has none.

use anyhow::Result;
use nix::errno::Errno;

use super::trial::attempt;
use super::{Finding, fact};
use crate::plan::seccomp::Instruction;
use crate::sys::min_kernel::NEWER;
use crate::sys::{self, cred, probe, process};

/// Major and minor number of the oldest kernel that has all that is used.
const OLDEST: (u32, u32) = (5, 14);

pub fn findings() -> Vec<Finding> {
    vec![
        version(),
        calls(),
        seccomp(),
        apparmor(),
        selinux(),
        landlock(),
        keyring(),
    ]
}

fn version() -> Finding {
    let name = "version";
    let release = fact("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (major, minor) = OLDEST;
    match number(&release) {
        Some(version) if version >= OLDEST => Finding::ok(name, release),
        _ => Finding::missing(name, release)
            .fix(format!("boot Linux {major}.{minor} or newer"))
            .needed(),
    }
}

/// Major and minor number of a release such as `6.1.0-13-amd64`.
fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn calls() -> Finding {
    let name = "system calls";
    let missing = NEWER
        .iter()
        .filter(|(_, number, _)| !probe::has_call(*number));
    let missing = missing.map(|(name, _, version)| format!("{name} (Linux {version})"));
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return Finding::ok(name, format!("all {} newer ones", NEWER.len()));
    }
    Finding::missing(name, format!("without {}", missing.join(", ")))
        .fix("boot a newer kernel, or let the seccomp profile of the outer container allow them")
        .needed()
}

fn seccomp() -> Finding {
    let name = "seccomp";
    match attempt(0, load_filter) {
        Ok(_) => {
            let actions = fact("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
            Finding::ok(name, format!("filters load; actions: {actions}"))
        }
        Err(refusal) => Finding::missing(name, refusal.text)
            .fix("boot a kernel with CONFIG_SECCOMP_FILTER, or remove linux.seccomp"),
    }
}

fn load_filter() -> Result<String> {
    process::set_no_new_privileges()?;
    let allow = Instruction {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_ALLOW,
    };
    let loaded = sys::seccomp::load(&[allow], 0, 0);
    sys::named(loaded, || "seccomp(set filter)".to_string()).map(|_| String::new())
}

fn apparmor() -> Finding {
    let name = "AppArmor";
    let enabled = fact("/sys/module/apparmor/parameters/enabled");
    if enabled.is_none_or(|text| text != "Y") {
        return Finding::missing(name, "not enabled; process.apparmorProfile is refused")
            .fix("boot with apparmor=1 security=apparmor, if the kernel has it");
    }
    let profile =
        fact("/proc/self/attr/apparmor/current").or_else(|| fact("/proc/self/attr/current"));
    let profile = profile.unwrap_or_else(|| "unknown".to_string());
    Finding::ok(name, format!("enabled; profile of this process: {profile}"))
}

fn selinux() -> Finding {
    let name = "SELinux";
    let mode = match fact("/sys/fs/selinux/enforce").as_deref() {
        Some("1") => "enforcing",
        Some(_) => "permissive",
        None => {
            return Finding::missing(name, "not enabled; process.selinuxLabel is refused")
                .fix("boot with security=selinux selinux=1, if the kernel has it");
        }
    };
    let label = fact("/proc/self/attr/current").unwrap_or_default();
    Finding::ok(name, format!("{mode}; label of this process: {label}"))
}

fn landlock() -> Finding {
    match probe::landlock_version() {
        Some(version) => Finding::ok(
            "Landlock",
            format!("interface {version}; for programs inside"),
        ),
        None => Finding::missing("Landlock", "not enabled; programs inside cannot use it")
            .fix("boot with lsm=landlock before the modules in use, if the kernel has it"),
    }
}

fn keyring() -> Finding {
    let name = "session keyring";
    let join = || cred::join_session_keyring(None).map(|_| String::new());
    match attempt(0, join) {
        Ok(_) => Finding::ok(name, "a new one was joined"),
        Err(refusal) => {
            let fix = match refusal.errno {
                Some(Errno::EDQUOT) => "sysctl -w kernel.keys.maxkeys=2000, or --no-new-keyring",
                _ => "use --no-new-keyring",
            };
            Finding::limited(name, refusal.text).fix(fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_numbers() {
        assert_eq!(number("6.18.44-fc-v657"), Some((6, 18)));
        assert_eq!(number("5.14.0"), Some((5, 14)));
        assert_eq!(number("6.1-rc3"), Some((6, 1)));
        assert_eq!(number(""), None);
        assert!(number("5.4.0").unwrap() < OLDEST && number("10.0").unwrap() > OLDEST);
    }
}
