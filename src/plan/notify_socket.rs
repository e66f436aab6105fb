//! The socket on which the container's program tells that it is ready (sd_notify(3)).

use std::path::PathBuf;

use super::step::{Mount, Step};

/// Where the container finds the socket for sd_notify(3), as under runc.
pub const PATH: &str = "/run/notify/notify.sock";

/// Returns the steps for the socket of sd_notify(3). The socket is in a filesystem of the container's own.
pub fn steps() -> [Step; 2] {
    let path = PathBuf::from(PATH);
    let target = path.parent().unwrap_or(&path).to_path_buf();
    let mount = Mount {
        field: "NOTIFY_SOCKET".to_string(),
        kind: "tmpfs".to_string(),
        source: None,
        target,
        options: vec!["mode=0755".to_string(), "size=4k".to_string()],
        attributes: libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        propagation: Vec::new(),
        copy_up: false,
    };
    [Step::Mount(mount), Step::BindSocket { path }]
}
