//! Attacks of past advisories, T01 to T20, each as root, as root with a user namespace, and as an ordinary user.

mod binary; // T21: the runtime's program, made writable
mod bulk; // T38, T39: more than there is room or time for
mod callers_files; // T32, T35, T40: files that flags name
mod cgroups; // T34: options of filesystems of the host
mod control; // a runtime that fails some of these
mod credentials; // T15, T17, T19: who the payload is
mod delegated; // T10: cgroups of an ordinary user
mod descriptors; // T11: a descriptor of the host as the way out
mod files; // T29, T30: fifos, devices and files of procfs in the image
mod hooks; // T25, T26, T36: hooks that are less confined than the container, or outlive their end
mod input; // T20: ids, paths and keys that lead elsewhere
mod joining; // T03, T04: the runtime, seen from inside
mod keyrings; // T31: keys that two containers would share
mod links; // T12, T16: links in the image where the runtime makes files
mod masks; // T01: what is hidden or read-only
mod nodes; // T13, T14: false devices
mod odd_values; // C50: configs of odd values
mod places; // C55: more places that come and go
mod post; // what holds after every attack
mod proc; // T05, T06: false procfs
mod races; // T05, T07: links that come and go
mod refused; // all of them, where the kernel refuses one of its calls
mod roots; // T22: ways out of the root
mod shown; // T24, T28, T33: what processes of the runtime show
mod sizes; // T08: values longer than their counters
mod streams; // T23: streams and masks that are nodes of the host
mod typing; // T18: typing into the caller's terminal
mod users; // T02, T09: numbers as users, capabilities that pass on
mod waits; // T27: what is stopped, and who waits for it
mod ways;
mod words; // T37, T41: words that steer a terminal, and words that do not help
