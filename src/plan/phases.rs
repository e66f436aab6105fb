//! The order of the steps that make the root filesystem. PURE.

use super::places::{NewFilesystems, Places};
use super::step::Step;

/// The steps, in the order in which init performs them.
#[derive(Debug, Default)]
pub struct Phases {
    /// While the parent makes the network namespace.
    pub before_network: Vec<Step>,
    /// Inside the network namespace.
    pub after_network: Vec<Step>,
    /// After the createRuntime and createContainer hooks, and after the terminal is open. Empty without any of these.
    pub after_hooks: Vec<Step>,
}

impl Phases {
    pub fn all(&self) -> impl Iterator<Item = &Step> {
        let phases = [&self.before_network, &self.after_network, &self.after_hooks];
        phases.into_iter().flatten()
    }
}

/// Sorts the steps into phases. `has_pause` tells whether hooks or a terminal come before `hardening`.
///
/// Mounts keep their order. Another step overtakes a mount that waits for the network, if it acts in a filesystem that was mounted
/// new, at a place apart from those that wait. In the image a link could lead from one place to the other.
pub fn phases(setup: Vec<Step>, hardening: Vec<Step>, has_pause: bool) -> Phases {
    let (late, early) = match has_pause {
        true => (hardening, Vec::new()),
        false => (Vec::new(), hardening),
    };
    let steps: Vec<Step> = setup.into_iter().chain(early).collect();
    let mut waiting = which_wait(&steps).into_iter();
    let waits = |_: &Step| waiting.next() == Some(true);
    let (after_network, before_network) = steps.into_iter().partition(waits);
    Phases {
        before_network,
        after_network,
        after_hooks: late,
    }
}

/// Returns for each step whether it waits for the network.
fn which_wait(steps: &[Step]) -> Vec<bool> {
    let (mut new, mut waiting) = (NewFilesystems::default(), Places::default());
    let mut has_waiting = false;
    let mut waits = |step| {
        let is_free = !has_waiting
            || Step::is_no_mount(step) && new.hold(step) && waiting.are_apart_from(step.place());
        let waits = !is_free || step.shows_network();
        match waits {
            true => waiting.add(step.place()),
            false => new.add(step),
        }
        has_waiting |= waits;
        waits
    };
    steps.iter().map(&mut waits).collect()
}
