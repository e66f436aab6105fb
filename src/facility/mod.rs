//! Facilities of the kernel, one in each file.

pub mod accounts;
pub mod id_maps;
pub mod lsm;
pub mod netdev;
pub mod ns_files;
pub mod resctrl;
pub mod resctrl_usage;
pub mod stream_owner;
