//! cofferdam, a low-level OCI container runtime.
//!
//! Imports point down this list only (tests/layers.rs): `commands`, `lifecycle`, `init`, `state`, `cgroup`, `systemd`,
//! `programs`, `facility`, `supervise`, `channel`, `plan`, `bundle`, `cli`, `host`, `protect`, `text`, `sys`.

#![deny(unsafe_code)]

pub mod bundle;
pub mod cgroup;
pub mod channel;
pub mod cli;
pub mod commands;
pub mod facility;
#[cfg(any(test, fuzzing))]
#[path = "../fuzz/targets/mod.rs"]
pub mod fuzz;
pub mod host;
pub mod init;
pub mod lifecycle;
pub mod plan;
pub mod programs;
pub mod protect;
pub mod state;
pub mod supervise;
#[allow(unsafe_code)]
pub mod sys;
pub mod systemd;
pub mod text;
