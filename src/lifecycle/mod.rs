//! How a container comes and goes.

pub mod bind_sources;
pub mod foreground;
pub mod pid_file;
pub mod sd_notify;
pub mod seccomp_notify;
pub mod spawn;
pub mod spawn_plan;
pub mod start;
