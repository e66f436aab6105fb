//! CHILD: the sources of mounts that another process opens for init.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};

use crate::channel::{Down, ParentEnd, Up};

/// The trees that another process opens for init, by their index in the plan. Each is used once.
#[derive(Default)]
pub struct Trees {
    opened: Vec<Option<OwnedFd>>,
    /// The process that opens the others, each when it is asked.
    opener: Option<ParentEnd>,
}

impl Trees {
    pub fn opened(trees: Vec<OwnedFd>) -> Trees {
        Trees {
            opened: trees.into_iter().map(Some).collect(),
            opener: None,
        }
    }

    pub fn coming(count: usize, opener: ParentEnd) -> Trees {
        Trees {
            opened: (0..count).map(|_| None).collect(),
            opener: Some(opener),
        }
    }

    /// Waits for the trees that are opened before anything is mounted. Returns the directory for the new root, if the opener
    /// has found it.
    pub fn wait(&mut self) -> Result<Option<OwnedFd>> {
        let Some(opener) = &self.opener else {
            return Ok(None);
        };
        let anchor = next(opener)?;
        for tree in &mut self.opened {
            *tree = next(opener)?;
        }
        Ok(anchor)
    }

    /// Returns a tree. One that shows earlier mounts is opened now: the steps ask for these in the order of the plan.
    pub fn take(&mut self, slot: usize) -> Result<OwnedFd> {
        if let Some(tree) = self.opened.get_mut(slot).and_then(Option::take) {
            return Ok(tree);
        }
        let opener = self.opener.as_ref().context("nobody has opened it")?;
        opener.send(Down::Go)?;
        next(opener)?.context("it was not opened when asked for")
    }

    /// Returns all, where none waits for a mount.
    pub fn all(mut self) -> Result<Vec<OwnedFd>> {
        self.wait()?;
        (0..self.opened.len()).map(|slot| self.take(slot)).collect()
    }
}

/// None for a tree that is opened later.
fn next(opener: &ParentEnd) -> Result<Option<OwnedFd>> {
    match opener.receive()? {
        Some(Up::Tree(tree)) => Ok(Some(tree)),
        Some(Up::Later) => Ok(None),
        Some(Up::Failed(text)) => bail!(text),
        other => bail!("opening the sources of mounts ended early: {other:?}"),
    }
}
