//! PARENT: how init is made: by one clone3, or by a relay that joins first; in which cgroup; and where its network comes from.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;

use crate::cgroup::Cgroup;
use crate::init::Network;
use crate::plan::Plan;
use crate::sys;
use crate::sys::clone::{self, Side};

pub struct Way {
    /// By a process of its own, which joins namespaces first.
    pub relayed: bool,
    /// Until its parent has done something for it.
    pub waits: bool,
    pub outside: bool,
    pub network: Network,
    /// Where the parent comes back to, if it makes the network namespace meanwhile.
    pub own_network: Option<OwnedFd>,
}

impl Way {
    pub fn new(plan: &Plan, joins: bool) -> Way {
        Way {
            relayed: joins,
            waits: joins || plan.namespaces.creates(clone::NEWUSER),
            outside: false,
            network: match plan.namespaces.creates(clone::NEWNET) {
                true => Network::New,
                false => Network::Settled,
            },
            own_network: None,
        }
    }

    /// Where init need not wait for anything else, it does not wait for its network either, until it needs that.
    pub fn clone(
        &mut self,
        plan: &Plan,
        cgroup: Option<&Cgroup>,
        attachable: bool,
    ) -> Result<Side> {
        let own = plan.namespaces.at_the_clone();
        let flags = if self.relayed { 0 } else { own };
        if !self.waits && plan.namespaces.network_is_apart() {
            self.own_network = clone::own_network().ok();
        }
        if self.own_network.is_some() {
            self.network = Network::Coming;
            let side = clone::clone3(flags & !clone::NEWNET, cgroup.map(AsFd::as_fd));
            if !is_refused_but_attachable(&side, attachable) {
                return side;
            }
            (self.own_network, self.network) = (None, Network::New);
        }
        let side = clone::clone3(flags, cgroup.map(AsFd::as_fd));
        if !is_refused_but_attachable(&side, attachable) {
            return side;
        }
        (self.outside, self.waits) = (true, true);
        clone::clone3(flags, None)
    }
}

fn is_refused_but_attachable(side: &Result<Side>, attachable: bool) -> bool {
    let is_refusal = |error| matches!(sys::errno(error), Some(Errno::EACCES | Errno::EPERM));
    attachable && side.as_ref().is_err_and(is_refusal)
}
