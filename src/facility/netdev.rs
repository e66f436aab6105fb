//! Network devices of the host that become the container's. Parent, and a helper process of its own.
//!
//! The helper is in both network namespaces at once: by a socket from before it has joined the
//! container's, and by one from after. It has the caller's rights in both, which init may not have.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail, ensure};

use crate::plan::netdev::NetDevice;
use crate::supervise;
use crate::sys::netlink::{Address, Link, Netlink};
use crate::sys::{self, clone};

/// A device that is there and may be moved, and the addresses that the move will take from it.
pub struct Found<'a> {
    device: &'a NetDevice,
    index: i32,
    addresses: Vec<Address>,
}

/// Looks the devices up before there is anything to move them to. Changes nothing.
pub fn find(devices: &[NetDevice]) -> Result<Vec<Found<'_>>> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let host = Netlink::open()?;
    let mut found = Vec::new();
    for device in devices {
        let index = find_one(&host, device).with_context(|| device.field.clone())?;
        found.push(Found {
            device,
            index,
            addresses: Vec::new(),
        });
    }
    for address in host.addresses()? {
        if let Some(found) = found.iter_mut().find(|one| one.index == address.index) {
            found.remember(address);
        }
    }
    Ok(found)
}

impl Found<'_> {
    /// Not what a router or a lease has given, nor what is only good on one link: that belongs to the
    /// host's network.
    fn remember(&mut self, address: Address) {
        if !address.permanent || !address.global {
            return;
        }
        // They are listed in the order in which they were added, but those of IPv6 the other way round.
        let at = if address.is_v6() {
            0
        } else {
            self.addresses.len()
        };
        self.addresses.insert(at, address);
    }
}

fn find_one(host: &Netlink, device: &NetDevice) -> Result<i32> {
    let Some(Link { index, name }) = host.link(&device.device)? else {
        bail!("there is no such network device; \"ip link\" shows those that are there");
    };
    ensure!(
        name == device.device,
        "is another name of the network device {name:?}; give that"
    );
    host.touch_link(index)
        .context("moving it needs CAP_NET_ADMIN over its network namespace")?;
    Ok(index)
}

/// Moves them to the network namespace of the container's init, which waits meanwhile.
pub fn move_to(init: i32, pidfd: BorrowedFd, devices: &[Found]) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    supervise::run_in_child("move network devices", || {
        join_and_move(init, pidfd, devices)
    })
}

/// What can be refused is refused before the first one moves.
fn join_and_move(init: i32, pidfd: BorrowedFd, devices: &[Found]) -> Result<()> {
    let host = Netlink::open()?;
    let own = namespace()?;
    clone::setns(pidfd, clone::NEWNET).context("join the container's network namespace")?;
    ensure!(
        namespace()? != own,
        "linux.netDevices: the container's network namespace is the one that the devices are in already"
    );
    let inside = Netlink::open()?;
    for Found { device, .. } in devices {
        ensure!(
            device.is_template() || inside.link(&device.name)?.is_none(),
            "{}: the container's network namespace has a device {:?} already",
            device.field,
            device.name
        );
    }
    for found in devices {
        let device = found.device;
        move_one(init, &host, &inside, found)
            .with_context(|| format!("{}: {device}", device.field))?;
    }
    Ok(())
}

fn move_one(init: i32, host: &Netlink, inside: &Netlink, found: &Found) -> Result<()> {
    let name = free_name(inside, found.device)?;
    host.move_link(found.index, init, &name)?;
    // It may have got another index.
    let link = inside.link(&name)?.context("it is gone after the move")?;
    for address in &found.addresses {
        inside.add_address(link.index, address)?;
    }
    inside.set_up(link.index)
}

/// Given a template the kernel would number twice, for the move and for the change of the name, and
/// count the device itself.
fn free_name(inside: &Netlink, device: &NetDevice) -> Result<String> {
    if !device.is_template() {
        return Ok(device.name.clone());
    }
    for number in 0.. {
        let name = device.name.replace("%d", &number.to_string());
        ensure!(
            name.len() <= NetDevice::LONGEST_NAME,
            "no number is left for {:?}",
            device.name
        );
        if inside.link(&name)?.is_none() {
            return Ok(name);
        }
    }
    bail!("no number is left for {:?}", device.name)
}

/// Which network namespace this process is in.
fn namespace() -> Result<(u64, u64)> {
    let path = "/proc/self/ns/net";
    let metadata = sys::io(std::fs::metadata(path)).with_context(|| format!("stat {path:?}"))?;
    Ok((metadata.dev(), metadata.ino()))
}
