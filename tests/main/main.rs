//! Black-box tests: the binary, bundles made for each test, and a static payload inside.
//! `RUNTIME=/usr/sbin/runc cargo test --test main` runs the same tests on another runtime: that
//! proves the tests. What another runtime does otherwise is one line in `differences`.
//! Needs root. A test that cannot run here is reported as ignored, with the reason.
#![allow(unsafe_code)]

/// The attribute `#[test]`.
#[macro_use]
extern crate test_macros;

#[macro_use]
mod harness;
#[macro_use]
mod support;

mod annotations; // what engines add: agents, receivers, files for hooks; the owner of a cgroup
mod attacks; // those of past advisories, by their number in docs/security.md
mod bad_input; // what is refused, with which words, and that nothing stays behind
mod binds; // bind mounts, recursive attributes, id maps, what may be covered
mod bounds; // very long, very deep, and in no encoding: refused or carried out, with little memory
mod budgets; // counts of what each verb costs
mod capabilities; // users, groups, capabilities
mod captures; // what engines have sent, on a rootfs that stands in for theirs
mod cgroup; // the leaf, its limits, and which cgroups are refused
mod check; // what this host, and poorer ones, offer to containers
mod cli; // flags as engines send them, and the commands that need no container
mod completion; // scripts for shells, man pages, what make installs
mod descriptors; // which files are open where, and how few are enough
mod devices; // nodes, links and the device rules of the cgroup
mod errors; // what errors say, to people, to machines and to engines
mod events; // one report, the stream, its end
mod exec; // processes that join a running container
mod exec_inherits; // their place, user and limits

mod faults; // killed half-way, broken records, tiny limits
mod features; // the same document for everybody
mod hints; // slips of people, and what they are told
mod hooks; // six kinds, their order, their state, their failures
mod hostile; // images, records and configs that mean harm
mod hotplug; // mounts of a running container: added, removed, listed
mod intel_rdt; // refused where the hardware or the mount is missing
mod interrupted; // every call that a signal can interrupt is
mod joined_user; // user namespaces by their path: maps and clock
mod kill; // signals by name and number, to one and to all
mod killed; // before each system call: nothing is left behind
mod lifecycle; // create, start, state, delete: states, ids, pid files, the log
mod limits; // each limit of a container that lives, where the host has the controllers
mod long_values; // sources and options of mounts that are longer than one call takes
mod memory_policy; // on which nodes memory is taken
mod mounts; // file systems, propagation, the order, and the targets that are refused
mod mounts_on_root; // the root that a mount on / makes
mod namespaces; // new, joined, inherited; id maps and clock offsets
mod netdev; // devices of the host that move into the container
mod notify; // NOTIFY_SOCKET: when the container is ready
mod old_kernels; // and sandboxes that do not know the newer calls
mod options; // every option of a mount, and the words that are none
mod overlay; // a root file system from layers
mod pairs; // two options of a mount that set one thing, in both orders
mod paths; // masked, read-only, read-only root
mod patience; // what is stopped, frozen or interrupted half-way
mod process; // environment, directory, limits, files, signals
mod puzzles; // what callers who may less than root are told
mod records; // damaged, old, of another boot, and those that cannot be written
mod replay; // whole sequences of calls as engines make them
mod rude_hooks; // hooks that misbehave, and those that call back
mod run; // run in the foreground and detached
mod samples; // config-samples as their readers run them
mod sandbox; // callers that may less, and that do not listen
mod scheduling; // policies, classes, and which numbers they take
mod schema; // each field of the JSON schema, absent and null
mod seccomp; // filters as the payload feels them
mod security; // attacks of the past
mod shortages; // of memory, processes and second tries
mod soak; // for minutes or for a day, nothing grows
mod sources; // of binds, in the root that other mounts have changed
mod spec; // the config that spec writes from its flags
mod stats; // the table, and the terminal that shows it
mod streams; // what callers hand on: broken streams, signals, limits, sockets
mod systemd; // scopes, asked for from a stand-in for systemd
mod terminal; // console socket and the foreground terminal
mod timings; // how long each step took
mod together; // many commands at once
mod unprivileged; // maps of users, masks in user namespaces, the program in memory
mod update; // limits that change while the container lives
mod visible; // what others see meanwhile, and what is no reason to wait
mod zombies; // an init that is dead and not reaped

fn main() -> std::process::ExitCode {
    harness::main()
}
