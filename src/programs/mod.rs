//! Programs of the host: hooks and helpers.

pub mod descendants;
pub mod hooks;
pub mod output;
