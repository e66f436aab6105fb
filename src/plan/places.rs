//! Which steps of the root filesystem may change their order: those whose places have nothing to do with each other. PURE.

use std::collections::BTreeSet;
use std::path::Path;

use super::step::Step;

/// Places in the root, to be compared with others without a look at each of them.
#[derive(Default)]
pub struct Places<'a>(BTreeSet<&'a Path>);

impl<'a> Places<'a> {
    /// Adds a place.
    pub fn add(&mut self, place: &'a Path) {
        self.0.insert(place);
    }

    /// Returns whether no place is at, above or below this one. All below a place follow it in the order of paths.
    pub fn are_apart_from(&self, place: &Path) -> bool {
        let next = self.0.range::<&Path, _>(place..).next();
        !self.contain_one_above(place) && next.is_none_or(|next| !next.starts_with(place))
    }

    /// Whether one is at or above this one.
    fn contain_one_above(&self, place: &Path) -> bool {
        !self.0.is_empty() && place.ancestors().any(|above| self.0.contains(above))
    }
}

/// The places where filesystems were mounted new, which have nothing of the image.
#[derive(Default)]
pub struct NewFilesystems<'a> {
    /// The image has no say in whose place either: a procfs is mounted through no link.
    sure: Places<'a>,
    others: Places<'a>,
}

impl<'a> NewFilesystems<'a> {
    /// Adds the place of a step that mounts a new filesystem. A new root covers all of them.
    pub fn add(&mut self, step: &'a Step) {
        if matches!(step, Step::Mount(_) | Step::Bind(_)) && step.place() == Path::new("/") {
            *self = NewFilesystems::default();
        }
        match step {
            Step::Mount(mount) if mount.kind == "proc" => self.sure.add(&mount.target),
            Step::Mount(mount) if !mount.copy_up => self.others.add(&mount.target),
            _ => {}
        }
    }

    /// Whether the place of this step is in one of them. What hides or protects has to be in one that is sure.
    pub fn hold(&self, step: &Step) -> bool {
        let protects = matches!(step, Step::ReadOnly { .. } | Step::Mask { .. });
        let place = step.place();
        self.sure.contain_one_above(place) || !protects && self.others.contain_one_above(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_apart_if_none_is_at_above_or_below_the_other() {
        let mut places = Places::default();
        assert!(places.are_apart_from(Path::new("/")));
        for place in ["/a/b", "/a-c", "/d"] {
            places.add(Path::new(place));
        }
        for near in ["/", "/a", "/a/b", "/a/b/c", "/a-c", "/d/e/f"] {
            assert!(!places.are_apart_from(Path::new(near)), "{near}");
        }
        for apart in ["/a/bc", "/a/a", "/a-", "/a-c-d", "/a/-", "/e"] {
            assert!(places.are_apart_from(Path::new(apart)), "{apart}");
        }
    }
}
