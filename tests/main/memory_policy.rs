//! `linux.memoryPolicy`: the mode and the nodes that the program finds, and what is refused.

use crate::support::Bundle;
use serde_json::{Value, json};

/// Node 0 is always there; a kernel without NUMA knows neither call.
fn has_policies() -> bool {
    // SAFETY: the default policy takes no nodes.
    unsafe { libc::syscall(libc::SYS_set_mempolicy, 0, 0, 0) == 0 }
}

fn policy(c: Bundle, spec: Value) -> Bundle {
    c.set("/linux/memoryPolicy", spec).asks(&["mempolicy"])
}

fn refused(c: Bundle, words: &str) {
    c.create().fails_naming(words);
    c.assert_gone();
}

#[test]
fn the_program_has_the_memory_policy() {
    needs!(has_policies(), "set_mempolicy(2) is not in this kernel");
    let cases = [
        (json!({"mode": "MPOL_DEFAULT"}), "0 0"),
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "2 1"),
        (
            json!({"mode": "MPOL_PREFERRED", "nodes": "0", "flags": []}),
            "1 1",
        ),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": null}),
            "3 1",
        ),
        (json!({"mode": "MPOL_LOCAL", "nodes": ""}), "4 0"),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"]}),
            "a002 1",
        ),
        (
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}),
            "4003 1",
        ),
    ];
    for (spec, expected) in cases {
        let c = policy(bundle!(), spec.clone());
        assert_eq!(c.run().ok().answer("mempolicy"), expected, "{spec}");
    }
}

/// The highest bit of a word is lost if the kernel is told the number of bits and no more.
#[test]
fn nodes_that_are_not_there_are_passed_on_too() {
    needs!(has_policies(), "set_mempolicy(2) is not in this kernel");
    let spec = json!({"mode": "MPOL_BIND", "nodes": "0,63", "flags": ["MPOL_F_STATIC_NODES"]});
    let c = policy(bundle!(), spec);
    let output = c.create();
    if output.code() == 0 {
        c.start().ok();
        output.wait_for("mempolicy => ");
        assert_eq!(output.answer("mempolicy"), "8002 8000000000000001");
        return;
    }
    // A kernel built for fewer nodes than that.
    output.fails_with("linux.memoryPolicy");
    c.assert_gone();
}

#[test]
fn a_process_that_joins_has_it_too() {
    needs!(has_policies(), "set_mempolicy(2) is not in this kernel");
    let spec = json!({"mode": "MPOL_BIND", "nodes": "0"});
    let c = policy(bundle!(), spec).asks(&["pause"]);
    c.up();
    let output = c.call(&["exec", &c.id, "/payload", "mempolicy"]).finish();
    assert_eq!(output.ok().answer("mempolicy"), "2 1");
}

#[test]
fn without_a_memory_policy_the_callers_stays() {
    needs!(has_policies(), "set_mempolicy(2) is not in this kernel");
    let c = bundle!().asks(&["mempolicy"]);
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: MPOL_LOCAL takes no nodes.
        match unsafe { libc::syscall(libc::SYS_set_mempolicy, 4, 0, 0) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    assert_eq!(call.finish().ok().answer("mempolicy"), "4 0");
}

#[test]
fn a_node_that_the_host_has_not_is_refused() {
    needs!(has_policies(), "set_mempolicy(2) is not in this kernel");
    let online = std::fs::read_to_string("/sys/devices/system/node/online").unwrap_or_default();
    needs!(online.trim() == "0", "this host has more than one node");
    let c = policy(bundle!(), json!({"mode": "MPOL_BIND", "nodes": "1"}));
    refused(c, "linux.memoryPolicy: memory policy MPOL_BIND on nodes 1");
}

#[test]
fn contradictions_are_refused() {
    let flags = "linux.memoryPolicy.flags";
    let nodes = "linux.memoryPolicy.nodes";
    let cases = [
        (json!({"mode": "MPOL_BIND"}), nodes),
        (json!({"mode": "MPOL_BIND", "nodes": "3-1"}), nodes),
        (json!({"mode": "MPOL_BIND", "nodes": "x"}), nodes),
        (json!({"mode": "MPOL_DEFAULT", "nodes": "0"}), nodes),
        (
            json!({"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]}),
            flags,
        ),
        (
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}),
            flags,
        ),
        (json!({"mode": "MPOL_NONE"}), "linux.memoryPolicy.mode"),
        (json!({"mode": "MPOL_LOCAL", "flags": ["MPOL_F_X"]}), flags),
    ];
    for (spec, words) in cases {
        refused(policy(bundle!(), spec), words);
    }
}
