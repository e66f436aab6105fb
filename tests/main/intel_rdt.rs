//! Intel RDT: what can be tested on any machine, with or without the hardware.

use crate::support::Bundle;
use serde_json::json;
use std::path::Path;

/// `schemata` is there in groups only, and so in a resctrl that is mounted.
fn is_mounted() -> bool {
    Path::new("/sys/fs/resctrl/schemata").exists()
}

fn refused(c: &Bundle, words: &str) {
    c.create().fails_naming(words);
    c.assert_gone();
}

#[test]
fn without_resctrl_intel_rdt_is_refused() {
    needs!(!is_mounted(), "resctrl is mounted here");
    let words = "linux.intelRdt: resctrl is not mounted on /sys/fs/resctrl; mount it (mount -t resctrl \
                 resctrl /sys/fs/resctrl) or remove intelRdt";
    let c = bundle!();
    for spec in [
        json!({}),
        json!({"closID": "web"}),
        json!({"closID": "/", "enableMonitoring": true}),
        json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50"}),
    ] {
        let c = bundle!().set("/linux/intelRdt", spec);
        refused(&c, words);
    }
    c.set("/linux/intelRdt", json!(null)).run().ok();
}

#[test]
fn a_class_of_service_that_leads_elsewhere_is_refused() {
    for name in ["..", "a/b", "/a", "info"] {
        let c = bundle!().set("/linux/intelRdt/closID", json!(name));
        refused(&c, "linux.intelRdt.closID");
    }
}

#[test]
fn the_plan_names_the_groups() {
    let c = bundle!().set(
        "/linux/intelRdt",
        json!({"closID": "web", "schemata": ["L3:0=f"], "enableMonitoring": true}),
    );
    let output = c.call_new("create", &["--dry-run"]).finish().ok();
    let id = &c.id;
    for line in [
        "resctrl group /web that is shared".to_string(),
        "schemata L3:0=f".to_string(),
        format!("resctrl monitoring group /web/mon_groups/{id}"),
    ] {
        assert!(output.stdout().lines().any(|l| l == line), "{line}");
    }
}

#[test]
fn the_features_have_it() {
    let c = bundle!();
    let output = c.call(&["features"]).finish().ok();
    let features: serde_json::Value = serde_json::from_str(&output.stdout()).expect("JSON");
    let all = json!({"enabled": true, "schemata": true, "monitoring": true});
    assert_eq!(features["linux"]["intelRdt"], all);
}
