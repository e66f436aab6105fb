//! `features` and `--version`: what engines ask for when they start, to learn what they deal with.
//!
//! Run by the parent without a container. Everything here is known when the program is built:
//! must not look at the host, at the state directory or at who runs it.

use std::ffi::OsStr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::normalize;
use crate::plan::hooks::Hooks;
use crate::plan::{mempolicy, namespaces, options, seccomp};

/// The newest spec that this runtime follows.
pub const SPEC_VERSION: &str = "1.3.0";

const SYSTEMD_CGROUP: bool = true;
const APPARMOR: bool = true;
const SELINUX: bool = true;
const INTEL_RDT: bool = true;
const NET_DEVICES: bool = true;

const CHECKPOINT: bool = false;

/// Without a meaning until containers can be checkpointed.
const RESERVED: &str = "org.criu.config";

/// Annotations in config.json that can give a container more power and are followed by this build, or reserved: a later one
/// may follow them. A final dot ends a prefix.
const UNSAFE_ANNOTATIONS: [(&str, bool); 4] = [
    ("dev.cofferdam.overlay.", true),
    (RESERVED, true),
    ("org.systemd.property.", SYSTEMD_CGROUP),
    ("run.oci.", true),
];

/// Prints what this runtime supports as JSON.
pub fn run() -> Result<()> {
    super::print(&format!("{:#}\n", features()))
}

fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": Hooks::default().lists().map(|(name, _)| name),
        "mountOptions": sorted(options::names()),
        "linux": {
            "namespaces": sorted(namespaces::KINDS.map(|kind| kind.name)),
            "capabilities": capabilities(),
            "cgroup": {
                "v1": false,
                "v2": true,
                "systemd": SYSTEMD_CGROUP,
                "systemdUser": SYSTEMD_CGROUP,
                "rdma": true,
            },
            "seccomp": seccomp_features(),
            "apparmor": {"enabled": APPARMOR},
            "selinux": {"enabled": SELINUX},
            "intelRdt": {
                "enabled": INTEL_RDT,
                "schemata": INTEL_RDT,
                "monitoring": INTEL_RDT,
            },
            "memoryPolicy": {
                "modes": sorted(mempolicy::MODES.iter().map(|entry| entry.1)),
                "flags": sorted(mempolicy::FLAGS.iter().map(|entry| entry.1)),
            },
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": NET_DEVICES},
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": libseccomp_version(),
            "org.opencontainers.runc.checkpoint.enabled": CHECKPOINT.to_string(),
        },
        "potentiallyUnsafeConfigAnnotations": unsafe_annotations(),
    })
}

fn seccomp_features() -> Value {
    let flags = sorted(seccomp::FLAGS.iter().map(|entry| entry.1));
    json!({
        "enabled": true,
        "actions": sorted(seccomp::ACTIONS.iter().map(|entry| entry.1)),
        "operators": sorted(seccomp::OPERATORS.iter().map(|entry| entry.1)),
        "archs": sorted(seccomp::supported_architectures()),
        "knownFlags": flags,
        "supportedFlags": flags,
    })
}

fn unsafe_annotations() -> Vec<&'static str> {
    let followed = UNSAFE_ANNOTATIONS.iter().filter(|(_, built)| *built);
    followed.map(|(name, _)| *name).collect()
}

fn capabilities() -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_by_key(|capability| capability.index());
    all.iter().map(ToString::to_string).collect()
}

/// The text of `--version`.
///
/// Docker takes name and version from any line with the word "version", so it is in one only; some
/// engines accept no other name than that of the program which this one stands in for.
pub fn version(program: &OsStr) -> String {
    let name = normalize::program(program);
    let lines = [
        format!("{name} version {}", env!("CARGO_PKG_VERSION")),
        format!(
            "commit: {}",
            option_env!("COFFERDAM_COMMIT").unwrap_or("unknown")
        ),
        format!("spec: {SPEC_VERSION}"),
        format!("libseccomp: {}", libseccomp_version()),
    ];
    lines.map(|line| line + "\n").concat()
}

/// The version of the library that this program is linked with.
fn libseccomp_version() -> String {
    match libseccomp::ScmpVersion::current() {
        Ok(version) => format!("{}.{}.{}", version.major, version.minor, version.micro),
        Err(_) => "unknown".to_string(),
    }
}

fn sorted(names: impl IntoIterator<Item = &'static str>) -> Vec<&'static str> {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_has_its_word_once() {
        for (program, name) in [
            ("cofferdam", "cofferdam"),
            ("/usr/sbin/runc", "runc"),
            ("/usr/sbin/runc2", "cofferdam"),
        ] {
            let text = version(OsStr::new(program));
            assert!(text.starts_with(&format!("{name} version 0.")), "{text}");
            assert_eq!(text.matches("version").count(), 1);
            let names = text
                .lines()
                .skip(1)
                .map(|line| line.split(": ").next().unwrap());
            assert_eq!(names.collect::<Vec<_>>(), ["commit", "spec", "libseccomp"]);
        }
    }

    #[test]
    fn engines_find_what_they_gate_on() {
        let document = features();
        assert_eq!(
            document["linux"]["mountExtensions"]["idmap"]["enabled"],
            true
        );
        let lists = |pointer: &str, name: &str| {
            let list = document.pointer(pointer).unwrap().as_array().unwrap();
            list.iter().any(|item| item == name)
        };
        assert!(lists("/mountOptions", "rro"));
        assert!(lists("/linux/namespaces", "user"));
        assert!(lists("/linux/seccomp/archs", "SCMP_ARCH_X86_64"));
        assert_eq!(document["linux"]["cgroup"]["v2"], true);
    }

    #[test]
    fn the_document_is_a_features_document() {
        let known: oci_spec::runtime::Features = serde_json::from_value(features()).unwrap();
        let mut back = serde_json::to_value(known).unwrap();
        assert_eq!(back, features(), "a key that the spec does not define");
        back["extra"] = true.into();
        assert_ne!(back, features());
    }

    #[test]
    fn all_capabilities_are_there_in_the_order_of_the_kernel() {
        let names = capabilities();
        assert_eq!(names.len(), 41);
        assert_eq!(
            (names[0].as_str(), names[40].as_str()),
            ("CAP_CHOWN", "CAP_CHECKPOINT_RESTORE")
        );
    }

    #[test]
    fn nothing_is_null() {
        assert!(!features().to_string().contains("null"));
    }

    fn list(pointer: &str) -> Vec<String> {
        serde_json::from_value(features().pointer(pointer).unwrap().clone()).unwrap()
    }

    #[test]
    fn lists_are_sorted_and_name_nothing_twice() {
        for pointer in [
            "/mountOptions",
            "/linux/namespaces",
            "/linux/seccomp/actions",
            "/linux/seccomp/operators",
            "/linux/seccomp/archs",
            "/linux/seccomp/knownFlags",
            "/linux/memoryPolicy/modes",
            "/linux/memoryPolicy/flags",
            "/potentiallyUnsafeConfigAnnotations",
        ] {
            let names = list(pointer);
            assert!(!names.is_empty() && names.is_sorted(), "{pointer}");
            assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{pointer}");
        }
    }

    /// Whether the config takes each of these names for a `T`.
    fn all_are<T: serde::de::DeserializeOwned>(pointer: &str) {
        for name in list(pointer) {
            let taken = serde_json::from_value::<T>(json!(name));
            assert!(taken.is_ok(), "{pointer}: {name}");
        }
    }

    #[test]
    fn what_is_listed_is_what_the_config_takes() {
        use oci_spec::runtime as oci;
        all_are::<oci::LinuxSeccompAction>("/linux/seccomp/actions");
        all_are::<oci::LinuxSeccompOperator>("/linux/seccomp/operators");
        all_are::<oci::Arch>("/linux/seccomp/archs");
        all_are::<oci::LinuxSeccompFilterFlag>("/linux/seccomp/supportedFlags");
        all_are::<oci::LinuxNamespaceType>("/linux/namespaces");
        all_are::<oci::MemoryPolicyModeType>("/linux/memoryPolicy/modes");
        all_are::<oci::MemoryPolicyFlagType>("/linux/memoryPolicy/flags");
        all_are::<oci::Capability>("/linux/capabilities");
        for option in list("/mountOptions") {
            let parsed = options::Options::parse(std::slice::from_ref(&option));
            assert!(parsed.data.is_empty(), "{option}");
        }
        for hook in list("/hooks") {
            let hooks: oci::Hooks =
                serde_json::from_value(json!({hook: [{"path": "/h"}]})).unwrap();
            assert_ne!(hooks, oci::Hooks::default());
        }
    }

    /// Every annotation that the source names, apart from those that `features` itself gives.
    fn annotations() -> Vec<String> {
        let prefixes = ["run.oci.", "dev.cofferdam.", "org.systemd.", "org.criu."];
        let mut found = Vec::new();
        let mut pending = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(next) = pending.pop() {
            for path in std::fs::read_dir(next)
                .unwrap()
                .map(|entry| entry.unwrap().path())
            {
                if path.is_dir() {
                    pending.push(path);
                } else if !path.ends_with("commands/features.rs") {
                    let text = std::fs::read_to_string(path).unwrap();
                    let words = text.split('"').map(String::from);
                    found.extend(words.filter(|word| prefixes.iter().any(|p| word.starts_with(p))));
                }
            }
        }
        found
    }

    #[test]
    fn annotations_that_are_followed_are_listed() {
        let listed = list("/potentiallyUnsafeConfigAnnotations");
        let followed = annotations();
        let covers = |listed: &String, name: &String| match listed.ends_with('.') {
            true => name.starts_with(listed.as_str()),
            false => name == listed,
        };
        for name in &followed {
            assert!(listed.iter().any(|entry| covers(entry, name)), "{name}");
        }
        for entry in listed.iter().filter(|entry| *entry != RESERVED) {
            assert!(followed.iter().any(|name| covers(entry, name)), "{entry}");
        }
    }
}
