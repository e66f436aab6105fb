//! What is on disk of a container.

pub mod claim;
pub mod container;
pub mod document;
pub mod locks;
pub mod record;
pub mod root_dir;
pub mod state_dir;
pub mod store;
