//! Numbers of the kernel for names of the spec: namespaces, capabilities, limits of a process.

use anyhow::{Context, Result, bail};

/// In the kernel's order, from bit 0.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP \
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO \
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
    CHECKPOINT_RESTORE";
const RLIMITS: &str = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME";

pub fn capability(name: &str) -> Result<u64> {
    position(CAPABILITIES, name.trim_start_matches("CAP_"))
}

pub fn rlimit(name: &str) -> Result<u64> {
    position(RLIMITS, name.trim_start_matches("RLIMIT_"))
}

fn position(names: &str, name: &str) -> Result<u64> {
    let found = names.split_whitespace().position(|known| known == name);
    Ok(found.with_context(|| format!("{name}: unknown"))? as u64)
}

pub fn namespace(kind: &str) -> Result<u64> {
    Ok(match kind {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "mount" => libc::CLONE_NEWNS,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "user" => libc::CLONE_NEWUSER,
        other => bail!("{other}: the floor has no such namespace"),
    } as u64)
}
