//! Which fields a config must have: the JSON schema of the runtime specification, field by field. A field that the schema leaves
//! optional may be absent or null; one that it requires is asked for by name.

use crate::support::{Bundle, Runtime, runtime};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

const FILES: [&str; 4] = [
    "config-schema.json",
    "config-linux.json",
    "defs.json",
    "defs-linux.json",
];

/// Fields of other systems.
const ELSEWHERE: [&str; 6] = [
    "/solaris",
    "/windows",
    "/vm",
    "/zos",
    "/process/commandLine",
    "/process/user/username",
];

/// Fields of later versions of the specification (config.md, config-linux.md), and whether they are required.
const LATER: [(&str, bool); 19] = [
    ("/process/ioPriority", false),
    ("/process/ioPriority/class", true),
    ("/process/ioPriority/priority", false),
    ("/process/scheduler", false),
    ("/process/scheduler/policy", true),
    ("/process/scheduler/nice", false),
    ("/process/scheduler/priority", false),
    ("/process/scheduler/flags", false),
    ("/process/execCPUAffinity", false),
    ("/process/execCPUAffinity/initial", false),
    ("/process/execCPUAffinity/final", false),
    ("/linux/timeOffsets", false),
    ("/linux/timeOffsets/boottime", false),
    ("/linux/timeOffsets/boottime/secs", false),
    ("/linux/timeOffsets/boottime/nanosecs", false),
    ("/linux/memoryPolicy", false),
    ("/linux/memoryPolicy/mode", true),
    ("/linux/memoryPolicy/flags", false),
    ("/linux/netDevices", false),
];

struct Schema(HashMap<&'static str, Value>);

impl Schema {
    fn read() -> Schema {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runtime-spec");
        let read = |file| {
            let text = fs::read_to_string(dir.join(file)).expect("read the schema");
            (file, serde_json::from_str(&text).expect("JSON"))
        };
        Schema(FILES.map(read).into())
    }

    /// All fields below a node of the schema that the config has at `place`, with whether they are required.
    fn fields(&self, file: &str, node: &Value, config: &Value, place: &str) -> Vec<(String, bool)> {
        let mut found = vec![];
        if let Some(text) = node["$ref"].as_str() {
            let (other, pointer) = text.split_once('#').expect("a reference");
            let file = if other.is_empty() { file } else { other };
            let (name, all) = self.0.get_key_value(file).expect("a file");
            let node = all.pointer(pointer).expect("a definition");
            found.extend(self.fields(name, node, config, place));
        }
        for part in ["allOf", "anyOf"] {
            for node in node[part].as_array().into_iter().flatten() {
                found.extend(self.fields(file, node, config, place));
            }
        }
        if node["items"].is_object() {
            found.extend(self.fields(file, &node["items"], config, &format!("{place}/0")));
        }
        if node["additionalProperties"].is_object() {
            let map = config.pointer(place).and_then(Value::as_object);
            let name = map.and_then(|map| map.keys().next()).expect("an entry");
            let place = format!("{place}/{name}");
            found.extend(self.fields(file, &node["additionalProperties"], config, &place));
        }
        let required = node["required"].as_array();
        for (name, node) in node["properties"].as_object().into_iter().flatten() {
            let place = format!("{place}/{name}");
            if !ELSEWHERE.contains(&place.as_str()) {
                let required = required.is_some_and(|list| list.contains(&json!(name)));
                found.push((place.clone(), required));
                found.extend(self.fields(file, node, config, &place));
            }
        }
        found
    }
}

/// A config with every field of the schema.
fn full() -> Value {
    let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]);
    let maps = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    let caps = json!(["CAP_KILL"]);
    let device = json!([{"major": 8, "minor": 0, "rate": 1000}]);
    json!({
        "ociVersion": "1.2.0",
        "hooks": {
            "prestart": hook, "createRuntime": hook, "createContainer": hook,
            "startContainer": hook, "poststart": hook, "poststop": hook,
        },
        "annotations": {"a": "b"},
        "hostname": "a",
        "domainname": "b",
        "mounts": [{
            "destination": "/m", "type": "none", "source": "rootfs", "options": ["bind"],
            "uidMappings": maps, "gidMappings": maps,
        }],
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "args": ["/payload"],
            "consoleSize": {"height": 2, "width": 3},
            "cwd": "/",
            "env": ["A=b"],
            "terminal": false,
            "user": {"uid": 1, "gid": 2, "umask": 18, "additionalGids": [3]},
            "capabilities": {
                "bounding": caps, "permitted": caps, "effective": caps, "inheritable": caps, "ambient": caps,
            },
            "apparmorProfile": "", "selinuxLabel": "",
            "oomScoreAdj": 100,
            "noNewPrivileges": true,
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "scheduler": {"policy": "SCHED_BATCH", "nice": 1, "priority": 0, "flags": []},
            "execCPUAffinity": {"initial": "0", "final": "0"},
        },
        "linux": {
            "devices": [{"type": "c", "path": "/dev/n", "fileMode": 438, "major": 1, "minor": 3, "uid": 0, "gid": 0}],
            "uidMappings": maps, "gidMappings": maps,
            "namespaces": [
                {"type": "mount", "path": ""}, {"type": "user"}, {"type": "uts"}, {"type": "ipc"},
                {"type": "network"}, {"type": "pid"}, {"type": "time"},
            ],
            "resources": {
                "unified": {"cgroup.max.depth": "5"},
                "devices": [{"allow": false, "type": "a", "major": -1, "minor": -1, "access": "rwm"}],
                "pids": {"limit": 10},
                "blockIO": {
                    "weight": 100, "leafWeight": 100,
                    "throttleReadBpsDevice": device, "throttleWriteBpsDevice": device,
                    "throttleReadIOPSDevice": device, "throttleWriteIOPSDevice": device,
                    "weightDevice": [{"major": 8, "minor": 0, "weight": 100, "leafWeight": 100}],
                },
                "cpu": {
                    "cpus": "0", "mems": "0", "period": 100000, "quota": 50000, "burst": 0,
                    "realtimePeriod": 1000000, "realtimeRuntime": 0, "shares": 100, "idle": 0,
                },
                "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
                "memory": {
                    "kernel": 0, "kernelTCP": 0, "limit": 10000000, "reservation": 5000000, "swap": 20000000,
                    "swappiness": 60, "disableOOMKiller": false, "useHierarchy": false, "checkBeforeUpdate": false,
                },
                "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 100}},
            },
            "cgroupsPath": "/cofferdam-test/schema",
            "rootfsPropagation": "private",
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/tmp/schema.sock", "listenerMetadata": "a",
                "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [{
                    "names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
                    "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
                }],
            },
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "",
            "intelRdt": {
                "closID": "a", "l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=10", "enableCMT": false, "enableMBM": false,
            },
            "personality": {"domain": "LINUX", "flags": []},
            "timeOffsets": {"boottime": {"secs": 1, "nanosecs": 1}},
            "memoryPolicy": {"mode": "MPOL_PREFERRED", "nodes": "0", "flags": []},
            "netDevices": {"none0": {}},
        },
    })
}

fn fields() -> Vec<(String, bool)> {
    let (schema, config) = (Schema::read(), full());
    let mut fields = schema.fields(FILES[0], &schema.0[FILES[0]], &config, "");
    fields.extend(LATER.map(|(place, required)| (place.to_string(), required)));
    for (place, _) in &fields {
        assert!(
            config.pointer(place).is_some(),
            "the config of this test lacks {place}"
        );
    }
    assert!(fields.len() > 150, "{}", fields.len());
    fields
}

fn without(mut config: Value, place: &str) -> Value {
    let (parent, name) = place.rsplit_once('/').expect("a place");
    let object = config.pointer_mut(parent).and_then(Value::as_object_mut);
    object.expect("an object").remove(name).expect("a field");
    config
}

fn with_null(mut config: Value, place: &str) -> Value {
    *config.pointer_mut(place).expect("a field") = Value::Null;
    config
}

/// The first line of a dry run's error, or nothing.
fn said(c: &Bundle, config: &Value) -> String {
    fs::write(c.path("config.json"), config.to_string()).expect("write config.json");
    let output = c
        .call(&["create", "--dry-run", "--bundle", &c.path(""), &c.id])
        .finish();
    match output.code() {
        0 => String::new(),
        _ => output.stderr(),
    }
}

/// Optional in the schema, but not beside the other fields of this config, or not by the text of the specification.
const NEEDED_HERE: [(&str, &str); 12] = [
    ("/linux/gidMappings", "linux.gidMappings: missing"),
    ("/linux/namespaces", "maps need a user namespace"),
    // config-linux.md, "Personality".
    ("/linux/personality/domain", "missing field `domain`"),
    (
        "/linux/resources/devices/0/access",
        "must have at least one of r, w and m",
    ),
    (
        "/linux/resources/memory/limit",
        "needs linux.resources.memory.limit",
    ),
    (
        "/linux/seccomp/listenerPath",
        "without linux.seccomp.listenerPath",
    ),
    ("/linux/uidMappings", "linux.uidMappings: missing"),
    (
        "/mounts/0/gidMappings",
        "give uidMappings and gidMappings, or neither",
    ),
    ("/mounts/0/options", "only binds can be idmapped"),
    ("/mounts/0/source", "mounts[0].source: missing"),
    (
        "/mounts/0/uidMappings",
        "give uidMappings and gidMappings, or neither",
    ),
    // config.md: required on Linux.
    ("/process/args", "process.args: empty"),
];

#[test]
fn what_the_schema_leaves_optional_may_be_absent_or_null() {
    let c = bundle!();
    needs!(runtime() == Runtime::Cofferdam, "has no dry run");
    assert_eq!(said(&c, &full()), "");
    let optional = fields().into_iter().filter(|(_, required)| !required);
    // config.md: required on Linux.
    let optional = optional.filter(|(place, _)| place != "/root");
    for (place, _) in optional {
        let needed = NEEDED_HERE.iter().find(|(needed, _)| *needed == place);
        for config in [without(full(), &place), with_null(full(), &place)] {
            let said = said(&c, &config);
            match needed {
                Some((_, words)) => assert!(said.contains(words), "{place}: {said}"),
                None => assert_eq!(said, "", "{place}"),
            }
        }
    }
}

/// `pids` without a limit is the exception: it says nothing, and later versions of the specification allow it.
#[test]
fn what_the_schema_requires_is_asked_for_by_name() {
    let c = bundle!();
    needs!(runtime() == Runtime::Cofferdam, "has no dry run");
    let required = fields().into_iter().filter(|(_, required)| *required);
    for (place, _) in required.filter(|(place, _)| place != "/linux/resources/pids/limit") {
        let (object, name) = place.rsplit_once('/').expect("a place");
        let object = object.split('/').filter(|part| !part.is_empty());
        let dotted = object.fold(String::new(), |text, part| match part.parse::<usize>() {
            Ok(index) => format!("{text}[{index}]"),
            Err(_) if text.is_empty() => part.to_string(),
            Err(_) => format!("{text}.{part}"),
        });
        for config in [without(full(), &place), with_null(full(), &place)] {
            let said = said(&c, &config);
            assert!(
                said.contains(&dotted) && said.contains(name),
                "{place}: {said:?}"
            );
        }
    }
}

/// As runc reads them; to pass them over as unknown would be to lose a limit.
#[test]
fn names_of_fields_in_another_case_are_the_same() {
    let c = bundle!();
    needs!(runtime() == Runtime::Cofferdam, "has no dry run");
    let plan = |config: &Value| {
        fs::write(c.path("config.json"), config.to_string()).expect("write config.json");
        let bundle = c.path("");
        let flags = ["create", "--dry-run", "--bundle", &bundle, &c.id];
        c.call(&flags).finish().ok().stdout()
    };
    let wanted = plan(&full());
    assert!(wanted.contains("pids.max"), "{wanted}");
    // The name of a clock is a key of a map, and any other key there is an error.
    let fields = fields().into_iter();
    for (place, _) in fields.filter(|(place, _)| place != "/linux/timeOffsets/boottime") {
        let (parent, name) = place.rsplit_once('/').expect("a place");
        let mut config = full();
        let object = config.pointer_mut(parent).and_then(Value::as_object_mut);
        let object = object.expect("an object");
        let value = object.remove(name).expect("a field");
        let (first, rest) = name.split_at(1);
        object.insert(first.to_uppercase() + &rest.to_lowercase(), value);
        assert_eq!(plan(&config), wanted, "{place}");
    }
}

#[test]
fn a_limit_in_another_case_is_set() {
    let limits = json!([{"TYPE": "RLIMIT_NOFILE", "Soft": 100, "HARD": 200}]);
    let mut c = bundle!();
    let process = c.spec["process"].as_object_mut().expect("a process");
    process.remove("rlimits");
    process.insert("RLimits".into(), limits);
    let report = c.run().ok().report();
    assert_eq!(report["rlimits"]["NOFILE"], json!([100, 200]));
}

/// config.md, "User": each of its fields has a default.
#[test]
fn a_process_without_a_user_is_of_root() {
    let who = |report: Value| {
        let Value::Object(mut report) = report else {
            panic!("no report")
        };
        ["uid", "gid"].map(|name| report.remove(name).expect("an id"))
    };
    for user in [None, Some(Value::Null), Some(json!({}))] {
        let mut c = bundle!();
        let process = c.spec["process"].as_object_mut().expect("a process");
        process.remove("user");
        process.extend(user.map(|user| ("user".to_string(), user)));
        assert_eq!(who(c.run().ok().report()), [0, 0]);
    }
    let c = bundle!().asks(&["pause"]);
    c.up();
    for text in [
        r#"{"args": ["/payload", "report"], "cwd": "/"}"#,
        r#"{"args": ["/payload", "report"], "cwd": "/", "user": null}"#,
    ] {
        fs::write(c.path("process.json"), text).expect("write");
        let args = ["exec", "--process", &c.path("process.json"), &c.id];
        assert_eq!(who(c.call(&args).finish().ok().report()), [0, 0], "{text}");
    }
    c.kill("KILL");
}
