//! How a container comes and goes: what the parent does for each verb.

pub mod bind_sources;
pub mod create;
pub mod exec;
pub mod foreground;
pub mod init_process;
pub mod mounts;
pub mod pid_file;
pub mod remove;
pub mod rollback;
pub mod run;
pub mod sd_notify;
pub mod seccomp_notify;
pub mod spawn;
pub mod start;
