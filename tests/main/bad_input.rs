//! What is refused, with which words, and what must be tolerated. Nothing is left of what is refused.

use crate::support::Bundle;
use serde_json::{Value, json};
use std::fs;

/// Refused with code 1, and as if it had never been asked.
fn refused(c: &Bundle, text: &str) {
    let output = c.create().fails_naming(text);
    c.assert_gone();
    let state = c.call(&["state", &c.id]).finish();
    assert_ne!(
        state.code(),
        0,
        "the container exists after {}",
        output.describe()
    );
}

#[test]
fn a_missing_config() {
    let c = bundle!();
    let dir = c.dir.display().to_string();
    c.call(&["create", "--bundle", &dir, &c.id])
        .finish()
        .fails_with("config.json");
    c.call(&["create", "--bundle", "/no/such/bundle", &c.id])
        .finish()
        .fails();
    c.assert_gone();
}

/// The kernel tells its path with words behind it, which may be that of another.
#[test]
fn a_bundle_that_was_deleted_is_no_other() {
    let c = bundle!();
    let gone = c.dir.join("gone");
    fs::create_dir(&gone).expect("make a directory");
    fs::create_dir(c.dir.join("gone (deleted)")).expect("make a directory");
    let call = c.call(&["create", "--bundle", ".", &c.id]).cwd(&gone);
    let call = call.through_shell("rmdir \"$PWD\" && exec \"$0\" \"$@\"");
    call.finish().fails_with("bundle \".\": No such file");
    c.assert_gone();
}

#[test]
fn a_config_that_is_no_json_tells_where() {
    let mut c = bundle!();
    c.raw = Some("{\n  \"ociVersion\": \"1.0.2\",\n  oops\n}\n".into());
    refused(&c, "line 3");
    refused(&c, "column 3");
}

#[test]
fn configs_that_are_not_objects() {
    let mut c = bundle!();
    for text in [
        "",
        "null",
        "[]",
        "7",
        "\"text\"",
        "{",
        "{}{}",
        "\u{feff}{}",
        "{\"ociVersion\":",
    ] {
        c.raw = Some(text.into());
        refused(&c, "config.json");
    }
}

#[test]
fn lists_in_the_place_of_objects() {
    for (place, field) in [
        ("/hooks", "hooks"),
        ("/linux/resources", "linux.resources"),
        ("/linux/resources/memory", "linux.resources.memory"),
        ("/process/capabilities", "process.capabilities"),
        ("/linux/seccomp", "linux.seccomp"),
        ("/process/consoleSize", "process.consoleSize"),
        ("/mounts/0", "mounts[0]"),
        ("/hooks/prestart/0", "hooks.prestart[0]"),
    ] {
        let hooks = json!({"prestart": [{"path": "/bin/true"}]});
        let c = bundle!().set("/hooks", hooks).set(place, json!([]));
        c.create()
            .fails_naming(&format!("{field}: must be an object, not a list"));
        c.assert_gone();
    }
    // Under names of others, lists are theirs.
    bundle!()
        .set("/vendor", json!({"hooks": [], "linux": [1]}))
        .run()
        .ok();
}

#[test]
fn text_after_the_config() {
    let mut c = bundle!();
    c.raw = Some(format!("{} trailing", c.spec));
    refused(&c, "config.json");
}

#[test]
fn a_wrong_type_names_the_field() {
    let mut c = bundle!();
    let cases: &[(&str, Value)] = &[
        ("/process/args", json!("text")),
        ("/process/user/uid", json!("root")),
        ("/process/user/uid", json!(-1)),
        ("/process/terminal", json!("yes")),
        ("/mounts", json!({})),
        ("/linux/namespaces", json!("all")),
        ("/root/path", json!(5)),
    ];
    let before = c.spec.clone();
    for (pointer, value) in cases {
        c.spec = before.clone();
        c = c.set(pointer, value.clone());
        let field = pointer.trim_start_matches('/').replace('/', ".");
        refused(&c, &field);
    }
}

#[test]
fn the_version_is_required_and_must_be_a_one() {
    let mut c = bundle!();
    for version in [
        json!("invalid"),
        json!("2.0.0"),
        json!("0.9.0"),
        json!(""),
        json!("1"),
        Value::Null,
    ] {
        c = c.set("/ociVersion", version);
        refused(&c, "ociVersion");
    }
    let c = c.remove("/ociVersion");
    refused(&c, "ociVersion");
}

#[test]
fn newer_minor_versions_are_accepted() {
    let mut c = bundle!().asks(&["exit 3"]);
    for version in [
        "1.0.0",
        "1.2.1",
        "1.3.0",
        "1.3.0+dev",
        "1.99.0",
        "1.1.0-rc.1",
    ] {
        c = c.set("/ociVersion", json!(version));
        c.run().exits(3);
    }
}

#[test]
fn unknown_fields_and_annotations_are_ignored() {
    let c = bundle!()
        .asks(&["exit 3"])
        .set("/unknown", json!({"a": [1, 2]}))
        .set("/process/unknown", json!(true))
        .set("/linux/unknown", json!("x"))
        .set("/linux/resources/unknown", json!({}))
        .set("/vm", json!({"kernel": {"path": "/vmlinuz"}}))
        .set("/windows", json!({"layerFolders": ["a"]}))
        .set(
            "/annotations",
            json!({"org.example.unknown": "", "dev.example": "x"}),
        );
    c.run().exits(3);
}

#[test]
fn null_is_the_same_as_absent() {
    let mut c = bundle!().asks(&["exit 3"]);
    let pointers = [
        "/annotations",
        "/hooks",
        "/hostname",
        "/process/rlimits",
        "/process/capabilities",
        "/process/oomScoreAdj",
        "/process/user/additionalGids",
        "/process/consoleSize",
        "/process/apparmorProfile",
        "/process/scheduler",
        "/linux/uidMappings",
        "/linux/gidMappings",
        "/linux/sysctl",
        "/linux/devices",
        "/linux/seccomp",
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/linux/mountLabel",
        "/linux/rootfsPropagation",
        "/linux/intelRdt",
        "/linux/timeOffsets",
        "/linux/resources/devices",
        "/linux/resources/memory",
        "/linux/resources/cpu",
        "/linux/resources/pids",
        "/linux/resources/blockIO",
        "/linux/resources/hugepageLimits",
        "/linux/resources/network",
        "/linux/resources/unified",
    ];
    for pointer in pointers {
        c = c.set(pointer, Value::Null);
    }
    c.run().exits(3);
}

#[test]
fn null_lists_below_are_the_same_as_absent() {
    let mut c = bundle!().asks(&["exit 3"]);
    c = c.set(
        "/hooks",
        json!({"prestart": null, "createRuntime": [], "poststop": null}),
    );
    c = c.set("/process/capabilities/ambient", Value::Null);
    c.spec["mounts"][0]["options"] = Value::Null;
    c.run().exits(3);
}

#[test]
fn without_a_root_there_is_nothing_to_run() {
    let c = bundle!().remove("/root");
    refused(&c, "root");
}

#[test]
fn a_missing_rootfs_is_named() {
    let mut c = bundle!().set("/root/path", json!("nowhere"));
    refused(&c, "nowhere");
    c = c.set("/root/path", json!("config.json"));
    refused(&c, "root");
    c = c.set("/root/path", json!(""));
    refused(&c, "root");
}

#[test]
fn an_absolute_root_is_fine() {
    let c = bundle!().asks(&["exit 3"]);
    let path = c.path("rootfs");
    let c = c.set("/root/path", json!(path));
    c.run().exits(3);
}

#[test]
fn an_existing_id_leaves_the_first_untouched() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    c.create().fails_with("already exists");
    assert_eq!(c.status(), "running");
    assert!(c.cgroup().exists());
}

#[test]
fn bad_environments_are_refused() {
    let mut c = bundle!();
    for entry in ["NOVALUE", "=noname", "NUL=a\0b"] {
        c = c.set("/process/env", json!([entry]));
        refused(&c, "process.env");
    }
}

#[test]
fn zero_bytes_in_arguments_are_refused() {
    let c = bundle!().set("/process/args", json!(["/payload", "a\0b"]));
    refused(&c, "process.args");
}

#[test]
fn the_largest_uid_is_no_uid() {
    let c = bundle!().set("/process/user/uid", json!(4294967295u32));
    refused(&c, "process.user.uid");
}

#[test]
fn an_out_of_memory_score_out_of_range() {
    let mut c = bundle!();
    for score in [1001, -1001] {
        c = c.set("/process/oomScoreAdj", json!(score));
        refused(&c, "process.oomScoreAdj");
    }
}

#[test]
fn mounts_without_a_destination() {
    let c = bundle!().push("/mounts", json!({"type": "tmpfs", "source": "tmpfs"}));
    refused(&c, "destination");
}

#[test]
fn bad_schedulers_are_refused() {
    let mut c = bundle!();
    let cases = [
        (
            "process.scheduler",
            json!({"scheduler": {"policy": "SCHED_NOPE"}}),
        ),
        (
            "process.scheduler",
            json!({"scheduler": {"policy": "SCHED_FIFO", "nice": 5}}),
        ),
        (
            "process.scheduler.policy: SCHED_ISO: no Linux kernel has it",
            json!({"scheduler": {"policy": "SCHED_ISO"}}),
        ),
        (
            "process.scheduler: runtime 10, deadline 5, period 5: SCHED_DEADLINE needs",
            json!({"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 10, "deadline": 5}}),
        ),
        (
            "expected one of `SCHED_FLAG_RESET_ON_FORK`",
            json!({"scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOPE"]}}),
        ),
        (
            "process.ioPriority",
            json!({"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}}),
        ),
    ];
    let before = c.spec.clone();
    for (field, value) in cases {
        c.spec = before.clone();
        let (key, value) = value
            .as_object()
            .and_then(|o| o.iter().next())
            .map(|(k, v)| (k.clone(), v.clone()))
            .expect("one");
        c = c.set(&format!("/process/{key}"), value);
        refused(&c, field);
    }
}

#[test]
fn a_hard_limit_out_of_reach_is_explained() {
    let privileged = caps::has_cap(
        None,
        caps::CapSet::Effective,
        caps::Capability::CAP_SYS_RESOURCE,
    );
    needs!(
        !privileged.expect("capabilities"),
        "needs a caller without CAP_SYS_RESOURCE"
    );
    let limit = json!([{"type": "RLIMIT_NPROC", "soft": 1, "hard": u64::MAX}]);
    let c = bundle!().set("/process/rlimits", limit);
    c.create().fails_naming(
        "process.rlimits[0].hard: 18446744073709551615: RLIMIT_NPROC of the runtime is",
    );
    c.assert_gone();
}

#[test]
fn labels_without_their_module_are_refused() {
    needs!(
        !fs::exists("/sys/kernel/security/apparmor").unwrap_or(false),
        "AppArmor is on here"
    );
    let c = bundle!().set("/process/apparmorProfile", json!("some-profile"));
    refused(&c, "process.apparmorProfile");
    for (place, field) in [
        ("/process/selinuxLabel", "process.selinuxLabel"),
        ("/linux/mountLabel", "linux.mountLabel"),
    ] {
        let c = bundle!().set(place, json!("system_u:system_r:container_t:s0"));
        refused(&c, field);
    }
}

#[test]
fn deep_and_large_configs_end_soon() {
    let mut c = bundle!();
    c.raw = Some(format!(
        "{{\"ociVersion\":\"1.0.2\",\"x\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    ));
    refused(&c, "");
    c.raw = Some(format!(
        "{{\"ociVersion\":\"1.0.2\",\"x\":\"{}",
        "y".repeat(5_000_000)
    ));
    refused(&c, "config.json");
}

#[test]
fn numbers_out_of_range_are_refused() {
    let mut c = bundle!();
    let text = c.set("/process/oomScoreAdj", json!("NUMBER"));
    let spec = text.spec.to_string();
    c = text;
    for number in ["1e400", "18446744073709551616", "1.5"] {
        c.raw = Some(spec.replace("\"NUMBER\"", number));
        refused(&c, "config.json");
    }
}

#[test]
fn a_large_spec_is_no_problem() {
    let env: Vec<String> = (0..2000)
        .map(|i| format!("V{i}={}", "x".repeat(100)))
        .collect();
    let c = bundle!()
        .set("/process/env", json!(env))
        .asks(&["env V1999"]);
    let c = c.set(
        "/annotations",
        json!({"org.example.long": "y".repeat(500_000)}),
    );
    assert_eq!(c.run().ok().answer("env V1999").len(), 100);
}

#[test]
fn a_refused_run_leaves_nothing_either() {
    let c = bundle!().mount("nonsensefs", "none", "/mnt", &[]);
    c.run().fails();
    c.assert_gone();
}

#[test]
fn the_reason_is_never_lost() {
    let c = bundle!().mount("bind", "/no/such/source", "/mnt", &["bind"]);
    for _ in 0..20 {
        c.create().fails_with("/no/such/source");
    }
    c.assert_gone();
}

#[test]
fn a_missing_console_socket_is_an_error() {
    let c = bundle!()
        .set("/process/terminal", json!(true))
        .flag(&["--console-socket", "/no/such/socket"]);
    c.create().fails();
    c.assert_gone();
}

#[test]
fn errors_are_one_line_without_decoration() {
    let c = bundle!().set("/ociVersion", json!("2.0.0"));
    let text = c.create().fails().stderr();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    assert!(
        !text.contains("panicked") && !text.contains("backtrace") && !text.contains("failed to"),
        "{text}"
    );
}
