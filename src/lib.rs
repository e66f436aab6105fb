//! cofferdam, a low-level OCI container runtime.
//!
//! Imports point down this list only (tests/layers.rs): `commands`, `lifecycle`, `init`, `state`, `cgroup`, `systemd`,
//! `programs`, `facility`, `supervise`, `channel`, `plan`, `bundle`, `cli`, `host`, `protect`, `text`, `sys`.

#![deny(unsafe_code)]
// Tests may panic and be long.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::too_many_lines,
        clippy::unimplemented,
        clippy::unwrap_used
    )
)]

// The models of fuzz/src/targets name the library as the fuzz targets do.
#[cfg(test)]
extern crate self as cofferdam;

pub mod bundle;
pub mod cgroup;
pub mod channel;
pub mod cli;
pub mod commands;
pub mod facility;
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
