//! The overlay that annotations of the config ask for.

use std::path::PathBuf;

/// Directories of an overlay, top first, absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    pub lower: Vec<PathBuf>,
    /// Where changes go; absent: a tmpfs that dies with the container.
    pub upper: Option<Upper>,
    /// Overlay attributes as `user.overlay.*`, all that a user namespace may set.
    pub user_attributes: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upper {
    pub dir: PathBuf,
    pub work: PathBuf,
}
