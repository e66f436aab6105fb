//! How results and errors are said.

pub mod fault;
pub mod log;
pub mod suggest;
pub mod timings;
