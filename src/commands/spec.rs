//! `spec`: a config.json to start from, with what the flags say in place of the defaults.
//!
//! Run by the parent without a container. Writes one new file, and never over one that exists. What a
//! flag sets must be what `create` accepts.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{getegid, geteuid};
use serde_json::{Value, json};

use super::features::SPEC_VERSION;
use crate::cli::args;
use crate::facility::accounts;
use crate::sys;

/// The kernel's limit (uname(2)).
const LONGEST_HOSTNAME: usize = 64;

pub fn run(args: &args::Spec) -> Result<()> {
    let ids = (geteuid().as_raw(), getegid().as_raw());
    let mut spec = default_spec(args.rootless, ids);
    adapt(&mut spec, args)?;
    let text = text(&spec);
    let path = args.bundle.join("config.json");
    let path = path.strip_prefix(".").unwrap_or(&path);
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(mut file) => {
            let written = file.write_all(text.as_bytes());
            sys::io(written).with_context(|| format!("write {}", path.display()))
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!(
                "{} exists; remove it, or choose another --bundle",
                path.display()
            )
        }
        Err(error) => Err(error).with_context(|| format!("create {}", path.display())),
    }
}

fn adapt(spec: &mut Value, args: &args::Spec) -> Result<()> {
    if let Some(name) = &args.hostname {
        ensure!(
            (1..=LONGEST_HOSTNAME).contains(&name.len()),
            "--hostname: {name:?}: must have 1 to {LONGEST_HOSTNAME} bytes"
        );
        spec["hostname"] = json!(name);
    }
    if let Some(dir) = &args.rootfs {
        ensure!(!dir.is_empty(), "--rootfs: must not be empty");
        spec["root"]["path"] = json!(dir);
    }
    adapt_process(&mut spec["process"], args)
}

fn adapt_process(process: &mut Value, args: &args::Spec) -> Result<()> {
    for variable in &args.env {
        set_variable(&mut process["env"], variable)?;
    }
    if let Some(dir) = &args.cwd {
        ensure!(
            dir.starts_with('/'),
            "--cwd: {dir:?}: must be an absolute path"
        );
        process["cwd"] = json!(dir);
    }
    if let Some(text) = &args.user {
        let (uid, gid) = user(text, args.rootless)?;
        process["user"] = json!({"uid": uid, "gid": gid});
    }
    if let Some(command) = command(args)? {
        process["args"] = json!(command);
        // Its output can then be piped, and `create` needs no --console-socket.
        process["terminal"] = json!(false);
    }
    Ok(())
}

/// Replaces a variable of the same name.
fn set_variable(env: &mut Value, variable: &str) -> Result<()> {
    let name = variable.split_once('=').map_or("", |(name, _)| name);
    ensure!(!name.is_empty(), "--env: {variable:?}: must be NAME=VALUE");
    let is_other = |entry: &&Value| {
        let entry = entry.as_str().and_then(|entry| entry.split_once('='));
        entry.is_none_or(|(other, _)| other != name)
    };
    let others = env.as_array().into_iter().flatten().filter(is_other);
    *env = others.cloned().chain([json!(variable)]).collect();
    Ok(())
}

/// Names would have to be looked up in a root filesystem that need not be there yet.
fn user(text: &str, rootless: bool) -> Result<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let id =
        |text| accounts::number(text, "--user")?.context("--user: must be UID[:GID], by number");
    let (uid, gid) = (id(uid)?, id(gid)?);
    ensure!(
        !rootless || (uid, gid) == (0, 0),
        "--user: {text}: --rootless maps no user but 0"
    );
    Ok((uid, gid))
}

fn command(args: &args::Spec) -> Result<Option<&[String]>> {
    ensure!(
        args.args.is_empty() || args.command.is_empty(),
        "--args: {:?}: cannot be used with a command after --",
        args.args[0]
    );
    let words = match args.command.is_empty() {
        true => &args.args,
        false => &args.command,
    };
    let Some(program) = words.first() else {
        return Ok(None);
    };
    let flag = if args.command.is_empty() {
        "--args"
    } else {
        "--"
    };
    ensure!(!program.is_empty(), "{flag}: \"\": is no program");
    Ok(Some(words))
}

/// What one changes first comes first.
fn text(spec: &Value) -> String {
    let field = |name: &str| {
        let value = format!("{:#}", spec[name]).replace('\n', "\n  ");
        format!("  {name:?}: {value}")
    };
    let fields = [
        "ociVersion",
        "process",
        "root",
        "hostname",
        "mounts",
        "linux",
    ];
    format!("{{\n{}\n}}\n", fields.map(field).join(",\n"))
}

/// A shell on the terminal, apart from the host in all but users; `ids` are the caller's uid and gid.
pub fn default_spec(rootless: bool, ids: (u32, u32)) -> Value {
    let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
    json!({
        "ociVersion": SPEC_VERSION,
        "root": {"path": "rootfs", "readonly": true},
        "mounts": mounts(rootless),
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "hostname": "cofferdam",
        "linux": if rootless { rootless_linux(ids) } else { linux() },
    })
}

fn linux() -> Value {
    let deny_all = json!({"allow": false, "access": "rwm"});
    json!({
        "resources": {"devices": [deny_all]},
        "namespaces": namespaces(&["pid", "network", "ipc", "uts", "mount", "cgroup"]),
        "maskedPaths": masked_paths(),
        "readonlyPaths": readonly_paths(),
    })
}

/// One who is not root may map only the own ids, and set no limits before cgroups are delegated.
fn rootless_linux((uid, gid): (u32, u32)) -> Value {
    json!({
        "uidMappings": [{"containerID": 0, "hostID": uid, "size": 1}],
        "gidMappings": [{"containerID": 0, "hostID": gid, "size": 1}],
        "namespaces": namespaces(&["pid", "ipc", "uts", "mount", "cgroup", "user"]),
        "maskedPaths": masked_paths(),
        "readonlyPaths": readonly_paths(),
    })
}

fn namespaces(kinds: &[&str]) -> Vec<Value> {
    kinds.iter().map(|kind| json!({"type": kind})).collect()
}

fn mounts(rootless: bool) -> Value {
    json!([
        mount("proc", "proc", "/proc", ""),
        mount(
            "tmpfs",
            "tmpfs",
            "/dev",
            "nosuid strictatime mode=755 size=65536k"
        ),
        devpts(rootless),
        mount(
            "tmpfs",
            "shm",
            "/dev/shm",
            "nosuid noexec nodev mode=1777 size=65536k"
        ),
        mount("mqueue", "mqueue", "/dev/mqueue", "nosuid noexec nodev"),
        sys(rootless),
        mount(
            "cgroup",
            "cgroup",
            "/sys/fs/cgroup",
            "nosuid noexec nodev relatime ro"
        ),
    ])
}

/// The group tty, 5, has no id in a user namespace of one user.
fn devpts(rootless: bool) -> Value {
    let group = if rootless { "" } else { " gid=5" };
    let options = format!("nosuid noexec newinstance ptmxmode=0666 mode=0620{group}");
    mount("devpts", "devpts", "/dev/pts", &options)
}

/// The kernel gives a new sysfs only to those who own the network namespace.
fn sys(rootless: bool) -> Value {
    match rootless {
        true => mount("none", "/sys", "/sys", "rbind nosuid noexec nodev ro"),
        false => mount("sysfs", "sysfs", "/sys", "nosuid noexec nodev ro"),
    }
}

fn mount(kind: &str, source: &str, destination: &str, options: &str) -> Value {
    let mut mount = json!({"destination": destination, "type": kind, "source": source});
    if !options.is_empty() {
        mount["options"] = options.split(' ').collect();
    }
    mount
}

fn masked_paths() -> Value {
    json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
    ])
}

fn readonly_paths() -> Value {
    json!([
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_what_the_spec_says() {
        for rootless in [false, true] {
            let spec = default_spec(rootless, (1000, 100));
            let text = text(&spec);
            assert_eq!(
                serde_json::from_str::<Value>(&text).unwrap(),
                spec,
                "{text}"
            );
            serde_json::from_str::<oci_spec::runtime::Spec>(&text).unwrap();
            assert!(
                text.contains("\n  \"root\": {\n    \"path\": \"rootfs\",\n"),
                "{text}"
            );
            assert!(text.find("\"process\"") < text.find("\"linux\""));
        }
    }

    #[test]
    fn without_root_the_caller_is_root_inside() {
        let spec = default_spec(true, (1000, 100));
        let mapping = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1}]);
        assert_eq!(spec["linux"]["uidMappings"], mapping(1000));
        assert_eq!(spec["linux"]["gidMappings"], mapping(100));
        let kinds = spec["linux"]["namespaces"].to_string();
        assert!(kinds.contains("user") && !kinds.contains("network"));
        assert_eq!(spec["linux"].get("resources"), None);
        assert!(!spec["mounts"].to_string().contains("gid="));
        assert_eq!(spec["mounts"][5]["type"], "none");
    }

    #[test]
    fn no_capability_outlives_a_change_of_user() {
        let spec = default_spec(false, (0, 0));
        let sets = spec["process"]["capabilities"].as_object().unwrap();
        let names: Vec<&String> = sets.keys().collect();
        assert_eq!(names, ["bounding", "effective", "permitted"]);
    }

    fn adapted(change: impl FnOnce(&mut args::Spec)) -> Result<Value> {
        let mut args = args::Spec::default();
        change(&mut args);
        let mut spec = default_spec(args.rootless, (1000, 100));
        adapt(&mut spec, &args).map(|()| spec)
    }

    #[test]
    fn a_command_has_no_terminal() {
        let words = || vec!["sh".to_string(), "-c".to_string(), "id".to_string()];
        let shell = adapted(|_| ()).unwrap();
        assert_eq!(shell["process"]["terminal"], true);
        let after = adapted(|args| args.command = words()).unwrap();
        let by_flag = adapted(|args| args.args = words()).unwrap();
        assert_eq!(after, by_flag);
        assert_eq!(after["process"]["args"], json!(["sh", "-c", "id"]));
        assert_eq!(after["process"]["terminal"], false);
    }

    #[test]
    fn the_last_value_of_a_variable_stays() {
        let given = ["A=1", "PATH=/bin", "A=b=c", "E="].map(String::from);
        let spec = adapted(|args| args.env = given.to_vec()).unwrap();
        let expected = json!(["TERM=xterm", "PATH=/bin", "A=b=c", "E="]);
        assert_eq!(spec["process"]["env"], expected);
    }

    #[test]
    fn users_are_numbers() {
        let user = |text: &str, rootless| {
            let text = Some(text.to_string());
            let spec = adapted(|args| (args.user, args.rootless) = (text, rootless));
            spec.map(|spec| spec["process"]["user"].clone())
        };
        let ids = |uid, gid| json!({"uid": uid, "gid": gid});
        assert_eq!(user("7", false).unwrap(), ids(7, 0));
        assert_eq!(user("7:8", false).unwrap(), ids(7, 8));
        assert_eq!(user("0:0", true).unwrap(), ids(0, 0));
        for (text, rootless) in [("ann", false), ("1:", false), ("-1", false), ("7", true)] {
            let error = format!("{:#}", user(text, rootless).unwrap_err());
            assert!(error.starts_with("--user: "), "{error}");
        }
    }

    #[test]
    fn a_wrong_value_names_its_flag() {
        let long = "x".repeat(65);
        let wrong = |change: fn(&mut args::Spec, String), value: &str| {
            let error = adapted(|args| change(args, value.to_string())).unwrap_err();
            format!("{error:#}")
        };
        let hostname: fn(&mut args::Spec, String) = |args, text| args.hostname = Some(text);
        let table = [
            (wrong(hostname, ""), "--hostname: \"\": must"),
            (wrong(hostname, &long), "--hostname: \"xxx"),
            (wrong(|args, text| args.rootfs = Some(text), ""), "--rootfs"),
            (
                wrong(|args, text| args.cwd = Some(text), "tmp"),
                "--cwd: \"tmp\"",
            ),
            (wrong(|args, text| args.env.push(text), "A"), "--env: \"A\""),
            (
                wrong(|args, text| args.env.push(text), "=1"),
                "--env: \"=1\"",
            ),
            (wrong(|args, text| args.args.push(text), ""), "--args: \"\""),
            (wrong(|args, text| args.command.push(text), ""), "--: \"\""),
        ];
        for (error, start) in table {
            assert!(error.starts_with(start), "{error}");
        }
        let both = adapted(|args| {
            args.args.push("a".into());
            args.command.push("b".into());
        });
        assert!(both.is_err());
    }

    #[test]
    fn an_existing_file_stays() {
        let bundle = std::env::temp_dir().join(format!("cofferdam-spec-{}", std::process::id()));
        std::fs::create_dir(&bundle).unwrap();
        let args = args::Spec {
            bundle: bundle.clone(),
            ..Default::default()
        };
        run(&args).unwrap();
        let before = std::fs::read(bundle.join("config.json")).unwrap();
        let error = format!("{:#}", run(&args).unwrap_err());
        assert!(error.contains("config.json exists"), "{error}");
        assert_eq!(std::fs::read(bundle.join("config.json")).unwrap(), before);
        std::fs::remove_dir_all(bundle).unwrap();
    }
}
