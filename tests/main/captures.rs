//! The configs that engines have really sent, each on a rootfs that stands in for theirs: the process
//! and its mounts must be what the config says. What this machine lacks is taken out, and said.

use crate::samples::{limit_to_host, parse, repository, say_without, tree};
use crate::support::{Bundle, Output, Runtime, runtime};
use caps::{CapSet, Capability};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// How many configs of each engine there are.
const CAPTURES: [(&str, usize); 6] = [
    ("buildah", 1),
    ("ctr", 2),
    ("docker", 5),
    ("docker-cgroupfs", 1),
    ("podman", 5),
    ("podman-rootless", 2),
];

#[test]
fn every_captured_config_runs() {
    needs!(
        runtime() != Runtime::Crun,
        "on crun: the installed version knows no spec above 1.0"
    );
    for (engine, count) in CAPTURES {
        let mut configs = tree(&repository("tests/data/captures").join(engine));
        configs.retain(|(path, _)| path.to_string_lossy().ends_with(".config.json"));
        assert_eq!(configs.len(), count, "{engine}");
        for (config, _) in configs {
            // Shown if it fails.
            println!("{}", config.display());
            let c = asking(stand_in(bundle!(), &config));
            let output = c.run().ok();
            check_process(&c.spec, &output.report());
            check_mounts(&c.spec, &output);
        }
    }
}

#[test]
fn a_missing_command_is_told_in_the_words_that_engines_look_for() {
    let config = repository("tests/data/captures/docker/021-create.config.json");
    let c = stand_in(bundle!(), &config);
    c.create().fails_with("no such file or directory");
    c.assert_gone();
}

/// A config of an engine on a rootfs of ours, without what only its own machine has.
pub fn stand_in(mut c: Bundle, config: &Path) -> Bundle {
    let ours = std::mem::replace(&mut c.spec, parse(config));
    c.spec["root"]["path"] = ours["root"]["path"].clone();
    c.spec["linux"]["cgroupsPath"] = ours["linux"]["cgroupsPath"].clone();
    c.spec["process"]["terminal"] = json!(false);
    say_without(&config.display().to_string(), &take_out(&mut c.spec));
    for namespace in list(&mut c.spec, "/linux/namespaces") {
        namespace.as_object_mut().expect("an object").remove("path");
    }
    for (index, mount) in list(&mut c.spec, "/mounts").iter_mut().enumerate() {
        let source = Path::new(mount["source"].as_str().unwrap_or(""));
        if source.is_absolute() && !source.exists() {
            mount["source"] = json!(source_like(mount, c.dir.join(format!("source-{index}"))));
        }
    }
    if let Some(root) = c.spec.pointer("/linux/uidMappings/0/hostID") {
        c.give("rootfs", root.as_u64().expect("an id") as u32);
    }
    c
}

/// Takes out what this machine cannot grant, and names it: programs and profiles are the engine's own.
pub fn take_out(spec: &mut Value) -> Vec<String> {
    let mut missing = limit_to_host(spec);
    for (parent, key) in [("", "hooks"), ("/process", "apparmorProfile")] {
        let parent = spec.pointer_mut(parent).and_then(Value::as_object_mut);
        let value = parent.and_then(|parent| parent.remove(key));
        missing.extend(value.map(|_| key.to_string()));
    }
    missing.extend(filter(spec, "/process/rlimits", can_have));
    let ours = caps::read(None, CapSet::Bounding).expect("capabilities");
    let granted = |name: &Value| ours.contains(&capability(name));
    for set in [
        "ambient",
        "inheritable",
        "permitted",
        "effective",
        "bounding",
    ] {
        let lost = filter(spec, &format!("/process/capabilities/{set}"), granted);
        missing.retain(|name| !lost.contains(name));
        missing.extend(lost);
    }
    missing
}

/// Keeps the items of a list for which this holds; gives the names of the others.
fn filter(spec: &mut Value, list: &str, holds: impl Fn(&Value) -> bool) -> Vec<String> {
    let items = spec.pointer_mut(list).and_then(Value::as_array_mut);
    let items = items.map(std::mem::take).unwrap_or_default();
    let (kept, lost): (Vec<_>, Vec<_>) = items.into_iter().partition(holds);
    if let Some(place) = spec.pointer_mut(list) {
        *place = json!(kept);
    }
    let name = |item: &Value| item.get("type").unwrap_or(item).as_str().map(String::from);
    lost.iter().filter_map(name).collect()
}

/// Whether this process may raise its hard limit so far.
fn can_have(limit: &Value) -> bool {
    let resource = match limit["type"].as_str() {
        Some("RLIMIT_NOFILE") => Resource::RLIMIT_NOFILE,
        Some("RLIMIT_NPROC") => Resource::RLIMIT_NPROC,
        other => panic!("add {other:?} here"),
    };
    let (_, hard) = getrlimit(resource).expect("getrlimit");
    let unbound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE);
    unbound.expect("capabilities") || limit["hard"].as_u64().expect("a number") <= hard
}

/// A directory where the container expects one, else a file.
fn source_like(mount: &Value, path: PathBuf) -> PathBuf {
    let target = mount["destination"].as_str().expect("a path");
    if ["/dev/shm", "/v", "/h"].contains(&target) {
        fs::create_dir(&path).expect("mkdir");
    } else {
        fs::write(&path, "").expect("write");
    }
    path
}

/// Asks the payload for all that the config promises.
fn asking(c: Bundle) -> Bundle {
    let mut questions = vec!["report".into(), "mounts".into(), "mountinfo /".into()];
    for (path, _) in hidden(&c.spec) {
        questions.push(format!("mountinfo {path}"));
    }
    c.asks(&questions.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The read-only and the masked paths that exist, and whether they are masked.
fn hidden(spec: &Value) -> Vec<(String, bool)> {
    let paths = |name: &str, masked: bool| {
        let list = spec["linux"][name].as_array().cloned().unwrap_or_default();
        let paths = list
            .into_iter()
            .filter_map(|path| Some(path.as_str()?.to_string()));
        // The container's /proc and /sys have what those of the host have.
        let there = paths.filter(|path| Path::new(path).exists());
        there.map(move |path| (path, masked)).collect::<Vec<_>>()
    };
    [paths("readonlyPaths", false), paths("maskedPaths", true)].concat()
}

fn check_process(spec: &Value, report: &Value) {
    let process = &spec["process"];
    let user = &process["user"];
    assert_eq!(
        (&report["uid"], &report["gid"]),
        (&user["uid"], &user["gid"])
    );
    assert_eq!(report["umask"], *user.get("umask").unwrap_or(&json!(0o022)));
    if spec
        .pointer("/annotations/run.oci.keep_original_groups")
        .is_none()
    {
        let mut groups: Vec<u64> = numbers(&user["additionalGids"]);
        groups.sort();
        assert_eq!(numbers(&report["groups"]), groups);
    }
    if let Some(name) = spec.get("hostname") {
        assert_eq!(report["hostname"], *name);
    }
    if let Some(score) = process.get("oomScoreAdj") {
        assert_eq!(report["oom"], json!(score.to_string()));
    }
    for limit in process["rlimits"].as_array().into_iter().flatten() {
        let name = limit["type"]
            .as_str()
            .expect("a name")
            .trim_start_matches("RLIMIT_");
        assert_eq!(
            report["rlimits"][name],
            json!([limit["soft"], limit["hard"]]),
            "{name}"
        );
    }
    // capabilities(7): at execve(2) a user other than root keeps the ambient ones only.
    let effective = if user["uid"] == 0 {
        "effective"
    } else {
        "ambient"
    };
    for (line, set) in [("CapEff", effective), ("CapBnd", "bounding")] {
        let mask = capabilities(&process["capabilities"][set]);
        let mask = mask.iter().fold(0, |mask, one| mask | one.bitmask());
        assert_eq!(
            report["status"][line],
            json!(format!("{mask:016x}")),
            "{line}"
        );
    }
    let seccomp = if spec["linux"].get("seccomp").is_some() {
        "2"
    } else {
        "0"
    };
    assert_eq!(report["status"]["Seccomp"], seccomp);
    let kept = if process["noNewPrivileges"] == true {
        "1"
    } else {
        "0"
    };
    assert_eq!(report["status"]["NoNewPrivs"], kept);
}

fn check_mounts(spec: &Value, output: &Output) {
    let mounted = output.answer("mounts");
    let mut left = mounted.split(',');
    for entry in spec["mounts"].as_array().expect("mounts") {
        let target = entry["destination"].as_str().expect("a path");
        if spec["linux"].get("uidMappings").is_some() {
            // What must be opened outside of the user namespace comes first in the kernel's list.
            assert!(
                mounted.split(',').any(|place| place == target),
                "{target}: {mounted}"
            );
        } else {
            assert!(left.any(|place| place == target), "{target}: {mounted}");
        }
    }
    let is_read_only = |path: &str| {
        let mount = output.answer(&format!("mountinfo {path}"));
        mount
            .split(' ')
            .nth(2)
            .map(|options| options.starts_with("ro"))
    };
    for (path, masked) in hidden(spec) {
        let read_only = is_read_only(&path);
        let fits = if masked {
            read_only.is_some()
        } else {
            read_only == Some(true)
        };
        assert!(
            fits,
            "{path}: {}",
            output.answer(&format!("mountinfo {path}"))
        );
    }
    assert_eq!(is_read_only("/"), Some(spec["root"]["readonly"] == true));
}

fn capabilities(names: &Value) -> Vec<Capability> {
    let names = names.as_array().into_iter().flatten();
    names.map(capability).collect()
}

fn capability(name: &Value) -> Capability {
    let name = name.as_str().expect("a name");
    name.parse().expect("a capability")
}

fn numbers(list: &Value) -> Vec<u64> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_u64)
        .collect()
}

fn list<'a>(spec: &'a mut Value, pointer: &str) -> &'a mut Vec<Value> {
    let list = spec.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.expect("a list")
}
