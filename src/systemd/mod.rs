//! systemd as the manager of cgroups.

pub mod bus;
pub mod scope;
