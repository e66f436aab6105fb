//! `linux.memoryPolicy` -> the numbers that set_mempolicy(2) takes. PURE.
//!
//! What every kernel refuses is refused here, with the field's name. Whether the host has the nodes, and
//! whether the container's cpuset leaves any of them, only the kernel can say.

use std::fmt;

use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{
    LinuxMemoryPolicy, MemoryPolicyFlagType as Flag, MemoryPolicyModeType as Mode,
};

use crate::plan::cpu_list;

/// The largest kernels have 1 << CONFIG_NODES_SHIFT nodes, which is 10 at most.
const MOST_NODES: usize = 1024;

const RELATIVE: i32 = 1 << 14;
const STATIC: i32 = 1 << 15;
const BALANCING: i32 = 1 << 13;

/// include/uapi/linux/mempolicy.h
pub const MODES: &[(Mode, &str, i32)] = &[
    (Mode::MpolDefault, "MPOL_DEFAULT", 0),
    (Mode::MpolPreferred, "MPOL_PREFERRED", 1),
    (Mode::MpolBind, "MPOL_BIND", 2),
    (Mode::MpolInterleave, "MPOL_INTERLEAVE", 3),
    (Mode::MpolLocal, "MPOL_LOCAL", 4),
    (Mode::MpolPreferredMany, "MPOL_PREFERRED_MANY", 5),
    (Mode::MpolWeightedInterleave, "MPOL_WEIGHTED_INTERLEAVE", 6),
];

pub const FLAGS: &[(Flag, &str, i32)] = &[
    (Flag::MpolFNumaBalancing, "MPOL_F_NUMA_BALANCING", BALANCING),
    (Flag::MpolFRelativeNodes, "MPOL_F_RELATIVE_NODES", RELATIVE),
    (Flag::MpolFStaticNodes, "MPOL_F_STATIC_NODES", STATIC),
];

#[derive(Clone, Debug, PartialEq)]
pub struct MemoryPolicy {
    /// Mode and flags in one, as the kernel takes them.
    pub mode: i32,
    /// A bit for each node.
    pub nodes: Vec<u64>,
    text: String,
}

pub fn memory_policy(spec: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    let text = spec.nodes().as_deref().unwrap_or_default().trim();
    let nodes = cpu_list::bits(text, MOST_NODES)
        .with_context(|| format!("linux.memoryPolicy.nodes: {text:?}"))?;
    let given = spec.flags().as_deref().unwrap_or_default();
    let given: Vec<_> = FLAGS.iter().filter(|row| given.contains(&row.0)).collect();
    let flags = given.iter().fold(0, |bits, row| bits | row.2);
    check_nodes(spec.mode(), text, &nodes)?;
    check_flags(spec.mode(), flags, &nodes)?;
    let mut words = vec![spec.mode().to_string()];
    words.extend((!text.is_empty()).then(|| format!("on nodes {text}")));
    words.extend(given.iter().map(|row| row.1.to_string()));
    Ok(MemoryPolicy {
        mode: number(spec.mode()) | flags,
        nodes,
        text: words.join(" "),
    })
}

fn number(mode: Mode) -> i32 {
    let row = MODES.iter().find(|row| row.0 == mode);
    row.map_or(0, |row| row.2)
}

fn check_nodes(mode: Mode, text: &str, nodes: &[u64]) -> Result<()> {
    match mode {
        Mode::MpolDefault | Mode::MpolLocal => ensure!(
            nodes.is_empty(),
            "linux.memoryPolicy.nodes: {text:?}: {mode} takes no nodes; leave them out"
        ),
        Mode::MpolPreferred => {}
        _ => ensure!(
            !nodes.is_empty(),
            "linux.memoryPolicy.nodes: {text:?}: {mode} needs at least one node"
        ),
    }
    Ok(())
}

fn check_flags(mode: Mode, flags: i32, nodes: &[u64]) -> Result<()> {
    let numbering = flags & (STATIC | RELATIVE);
    ensure!(
        numbering != STATIC | RELATIVE,
        "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other"
    );
    let by_number = numbering == 0 || !nodes.is_empty() || mode == Mode::MpolDefault;
    ensure!(
        by_number,
        "linux.memoryPolicy.flags: MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES: {mode} without nodes \
         takes neither"
    );
    let balanced = matches!(mode, Mode::MpolBind | Mode::MpolPreferredMany);
    ensure!(
        balanced || flags & BALANCING == 0,
        "linux.memoryPolicy.flags: MPOL_F_NUMA_BALANCING: is for MPOL_BIND and MPOL_PREFERRED_MANY only"
    );
    Ok(())
}

impl fmt::Display for MemoryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "memory policy {}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn policy(spec: Value) -> Result<MemoryPolicy> {
        memory_policy(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn modes_and_flags_are_one_number() {
        let bind = json!({"mode": "MPOL_BIND", "nodes": "0-1",
            "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]});
        let bind = policy(bind).unwrap();
        assert_eq!((bind.mode, bind.nodes.as_slice()), (2 | 5 << 13, &[3][..]));
        assert_eq!(
            bind.to_string(),
            "memory policy MPOL_BIND on nodes 0-1 MPOL_F_NUMA_BALANCING MPOL_F_STATIC_NODES"
        );
        let local = policy(json!({"mode": "MPOL_LOCAL", "nodes": null, "flags": null})).unwrap();
        assert_eq!((local.mode, local.nodes.len()), (4, 0));
        assert_eq!(local.to_string(), "memory policy MPOL_LOCAL");
    }

    #[test]
    fn the_tables_have_the_names_of_the_spec() {
        let names = MODES.iter().map(|row| (row.0.to_string(), row.1));
        let flags = FLAGS.iter().map(|row| (row.0.to_string(), row.1));
        names.chain(flags).for_each(|(a, b)| assert_eq!(a, b));
    }

    #[test]
    fn what_the_kernel_takes_and_what_it_refuses() {
        const NO: [&str; 0] = [];
        let fits = |mode: &str, nodes: &str, flags: &[&str]| {
            policy(json!({"mode": mode, "nodes": nodes, "flags": flags})).is_ok()
        };
        let (fixed, relative) = ("MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES");
        let balancing = "MPOL_F_NUMA_BALANCING";
        for mode in ["MPOL_DEFAULT", "MPOL_LOCAL"] {
            assert!(fits(mode, "", &NO) && !fits(mode, "0", &NO), "{mode}");
            assert!(!fits(mode, "", &[balancing]), "{mode}");
        }
        for mode in [
            "BIND",
            "INTERLEAVE",
            "WEIGHTED_INTERLEAVE",
            "PREFERRED_MANY",
        ] {
            let mode = format!("MPOL_{mode}");
            assert!(fits(&mode, "0", &NO) && !fits(&mode, "", &NO), "{mode}");
            assert!(fits(&mode, "0", &[fixed]) && fits(&mode, "0", &[relative]));
            assert!(!fits(&mode, "0", &[fixed, relative]), "{mode}");
            let balanced = !mode.ends_with("INTERLEAVE");
            assert_eq!(fits(&mode, "0", &[balancing]), balanced, "{mode}");
        }
        assert!(fits("MPOL_PREFERRED", "", &NO) && fits("MPOL_PREFERRED", "0", &[fixed]));
        assert!(!fits("MPOL_PREFERRED", "", &[fixed]) && !fits("MPOL_LOCAL", "", &[relative]));
        assert!(!fits("MPOL_PREFERRED", "0", &[balancing]));
        assert!(fits("MPOL_DEFAULT", "", &[fixed]));
    }
}
