//! The command line as engines use it, and the commands that need no container.

use crate::support::{Bundle, Output, binary};
use serde_json::{Value, json};
use std::fs;

fn said(output: &Output) -> String {
    output.stdout() + &output.stderr()
}

/// The version as a list of lines, asked without any other flag.
fn version(c: &Bundle, program: &std::path::Path) -> Vec<String> {
    let call = crate::support::Call::new(&c.dir, vec!["--version"]).program(program);
    call.finish()
        .ok()
        .silent()
        .stdout()
        .lines()
        .map(String::from)
        .collect()
}

#[test]
fn the_version_has_the_shape_that_engines_parse() {
    let c = bundle!();
    let lines = version(&c, &binary());
    let name = binary()
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();
    assert!(
        lines[0].starts_with(&format!("{name} version ")),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("commit: "), "{lines:?}");
    assert!(lines.iter().any(|l| l.starts_with("spec: 1.")), "{lines:?}");
    assert_eq!(
        lines.iter().filter(|l| l.contains("version")).count(),
        1,
        "{lines:?}"
    );
}

#[test]
fn the_spec_version_is_the_newest() {
    let c = bundle!();
    assert!(version(&c, &binary()).contains(&"spec: 1.3.0".to_string()));
}

#[test]
fn called_as_runc_it_says_runc() {
    let c = bundle!();
    let link = c.dir.join("runc");
    std::os::unix::fs::symlink(binary(), &link).expect("symlink");
    assert!(version(&c, &link)[0].starts_with("runc version "));
}

#[test]
fn called_as_runc_it_keeps_its_containers_where_runc_does() {
    let c = bundle!();
    let link = c.dir.join("runc");
    std::os::unix::fs::symlink(binary(), &link).expect("symlink");
    // An ordinary user has a directory of his own, and cannot see what is in the other.
    let own = c.dir.join("runtime-dir");
    fs::create_dir(&own).expect("mkdir");
    std::os::unix::fs::chown(&own, Some(1000), Some(1000)).expect("chown");
    let state = own.join("runc");
    fs::write(&state, "no directory").expect("write");
    let call = crate::support::Call::new(&c.dir, vec!["list"]);
    let call = call
        .program(&link)
        .env("XDG_RUNTIME_DIR", &own.display().to_string());
    let call = call.setup(|| {
        // SAFETY: plain calls.
        match unsafe { (libc::setgid(1000), libc::setuid(1000)) } {
            (0, 0) => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    call.finish().fails_naming(&state.display().to_string());
    let call = crate::support::Call::new(&c.dir, vec!["start"]).program(&link);
    call.finish()
        .fails_with("\"runc start\" requires exactly 1 argument");
}

#[test]
fn the_log_has_what_its_level_asks_for() {
    let mut c = bundle!().asks(&["exit 0"]).flag(&["--detach"]);
    c = c.push("/process/capabilities/bounding", json!("CAP_NONSENSE"));
    let log = c.path("log");
    let flags = |level: &[&str], format: &str| {
        let mut all = vec!["--log", &log, "--log-format", format];
        all.extend(level);
        all.iter().map(|word| word.to_string()).collect::<Vec<_>>()
    };
    for (level, format, wanted) in [
        (&[][..], "text", (true, false)),
        (&["--log-level", "error"], "text", (false, false)),
        (&["--log-level=debug"], "text", (true, true)),
        (&[], "json", (false, false)),
        (&["--log-level", "warning"], "json", (true, false)),
        (&["--log-level", "error", "--debug"], "json", (true, true)),
    ] {
        let _ = fs::remove_file(&log);
        c.globals = flags(level, format);
        c.run().ok();
        let text = fs::read_to_string(&log).unwrap_or_default();
        let has = |level: &str| {
            text.contains(&format!("level={level}")) || text.contains(&format!("\"{level}\""))
        };
        assert_eq!(
            (has("warning"), has("debug")),
            wanted,
            "{level:?} {format}: {text}"
        );
        c.globals.clear();
        c.delete(&["--force"]).ok();
    }
    c.globals = vec!["--log-level".into(), "loud".into()];
    c.run().fails_naming("--log-level");
}

#[test]
fn of_repeated_flags_the_last_wins() {
    let mut c = bundle!().asks(&["pause"]);
    let (wrong, root) = (c.path("wrong"), c.state_root().display().to_string());
    c = c.global(&[
        "--root",
        &wrong,
        "--root",
        &root,
        "--log-format",
        "json",
        "--log-format",
        "text",
    ]);
    c.call_new(
        "create",
        &["--pid-file", &wrong, "--pid-file", &c.path("right")],
    )
    .finish()
    .ok();
    assert!(c.dir.join("right").exists() && !c.dir.join("wrong").exists());
    assert!(c.state_root().join(&c.id).exists());
}

#[test]
fn values_after_an_equals_sign() {
    let c = bundle!().asks(&["pause"]);
    c.write_config();
    let pid_file = format!("--pid-file={}", c.path("pid"));
    let bundle = format!("--bundle={}", c.dir.display());
    c.call(&["--log-format=json", "create", &bundle, &pid_file, &c.id])
        .finish()
        .ok();
    assert_eq!(
        fs::read_to_string(c.path("pid")).expect("a pid"),
        c.pid().to_string()
    );
}

#[test]
fn switches_take_true_and_false() {
    let c = bundle!()
        .asks(&["exit 3"])
        .global(&["--debug=false", "--systemd-cgroup=false"]);
    c.call_new(
        "run",
        &["--no-pivot=false", "--no-subreaper=true", "--keep=false"],
    )
    .finish()
    .exits(3);
    c.assert_gone();
}

#[test]
fn flags_of_the_engines_are_taken() {
    let mut c = bundle!().asks(&["exit 3"]);
    let globals: [&[&str]; 4] = [
        &["--rootless=auto"],
        &["--rootless", "false"],
        &["--log", "/dev/null"],
        &["--log-format", "json"],
    ];
    for flags in globals {
        c.globals.clear();
        c = c.global(flags);
        c.run().exits(3);
    }
    c.globals.clear();
    for flags in [
        &["--no-new-keyring"][..],
        &["--no-subreaper"],
        &["--preserve-fds", "0"],
    ] {
        c.call_new("run", flags).finish().exits(3);
    }
}

#[test]
fn long_flags_with_one_dash() {
    let c = bundle!().asks(&["exit 3"]);
    c.call_new("run", &["-no-subreaper"]).finish().exits(3);
    c.call_new("run", &["-no-new-keyring"]).finish().exits(3);
    let (dir, root) = (
        c.dir.display().to_string(),
        c.state_root().display().to_string(),
    );
    c.call(&["-root", &root, "run", "-bundle", &dir, &c.id])
        .finish()
        .exits(3);
}

#[test]
fn chroot_instead_of_pivot() {
    let c = bundle!()
        .asks(&["ls /", "mountinfo /"])
        .flag(&["--no-pivot"]);
    let answer = c.run().ok().answer("ls /");
    assert!(
        answer.contains("payload") && !answer.contains("usr"),
        "{answer}"
    );
}

#[test]
fn unknown_flags_are_named() {
    let c = bundle!();
    for args in [
        &["state", "--bogus", "x"][..],
        &["--bogus", "list"],
        &["create", "--bogus=3", "x"],
    ] {
        let output = c.call(args).finish().fails();
        assert!(
            said(&output).contains("flag provided but not defined: -bogus"),
            "{}",
            output.describe()
        );
    }
}

#[test]
fn a_flag_without_its_value_is_named() {
    let c = bundle!();
    for (args, flag) in [
        (&["create", "--bundle"][..], "bundle"),
        (&["create", "--pid-file"], "pid-file"),
        (&["--log"], "log"),
    ] {
        let output = c.call(args).finish().fails();
        let wanted = [
            format!("flag needs an argument: --{flag}"),
            format!("flag needs an argument: -{flag}"),
        ];
        assert!(
            wanted.iter().any(|w| said(&output).contains(w)),
            "{}",
            output.describe()
        );
    }
}

#[test]
fn unknown_commands_are_errors() {
    let c = bundle!();
    let output = c.call(&["bogus"]).finish();
    assert_ne!(output.code(), 0);
    assert_eq!(said(&output).trim_end().lines().count(), 1);
    assert!(!output.stderr().contains("mounts"), "{}", output.describe());
    for verb in ["start", "state", "delete"] {
        c.call(&[verb, "one", "two"]).finish().fails();
    }
}

#[test]
fn unknown_commands_have_a_status_of_their_own() {
    let c = bundle!();
    for verb in ["bogus", "creat", "checkpoint"] {
        c.call(&[verb]).finish().exits(3);
    }
}

#[test]
fn no_words_of_the_library_reach_the_user() {
    let c = bundle!();
    let (id, gone) = (c.id.as_str(), "/nonesuch/file");
    for words in [
        &["create", "--preserve-fds", "x", id][..],
        &["exec", "--additional-gids", "4294967296", id, "x"],
        &["update", "--pids-limit", "99999999999999999999", id],
        &["update", "--blkio-weight", "", id],
        &["--log", gone, "list"],
        &["create", "--bundle", gone, id],
        &["create", "--config", gone, id],
        &["spec", "--bundle", gone],
        &["run", "--layer", gone, id],
        &["man", "/proc/nonesuch"],
    ] {
        let output = c.call(words).finish().fails();
        let text = output.stderr();
        for foreign in [
            "os error",
            "digit",
            "target type",
            "parse integer",
            "is not in",
        ] {
            assert!(!text.contains(foreign), "{words:?}: {text}");
        }
        assert_eq!(text.lines().count(), 1, "{words:?}: {text}");
    }
}

#[test]
fn help_is_no_error() {
    let c = bundle!();
    for args in [
        &["--help"][..],
        &["create", "--help"],
        &["run", "--help"],
        &["kill", "--help"],
        &["delete", "--help"],
    ] {
        let output = c.call(args).finish().ok().silent();
        assert!(!output.stdout().is_empty(), "{args:?}");
    }
}

#[test]
fn the_features_are_one_json_object() {
    let c = bundle!();
    let output = crate::support::Call::new(&c.dir, vec!["--root", "/proc/nowhere", "features"])
        .finish()
        .ok()
        .silent();
    let features: Value = serde_json::from_str(&output.stdout()).expect("JSON");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(
        features["ociVersionMax"]
            .as_str()
            .is_some_and(|v| v.starts_with("1."))
    );
    let list = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .expect("a list")
            .iter()
            .map(|v| v.as_str().unwrap_or("?").into())
            .collect()
    };
    for hook in crate::hooks::KINDS {
        assert!(list(&features["hooks"]).contains(&hook.into()), "{hook}");
    }
    for option in [
        "ro",
        "rro",
        "rbind",
        "rprivate",
        "nosuid",
        "noatime",
        "tmpcopyup",
    ] {
        assert!(
            list(&features["mountOptions"]).contains(&option.into()),
            "{option}"
        );
    }
    for kind in ["pid", "network", "mount", "ipc", "uts", "user", "cgroup"] {
        assert!(
            list(&features["linux"]["namespaces"]).contains(&kind.into()),
            "{kind}"
        );
    }
    assert!(list(&features["linux"]["capabilities"]).contains(&"CAP_SYS_ADMIN".into()));
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

#[test]
fn the_features_of_the_newest_spec() {
    let c = bundle!();
    let features: Value =
        serde_json::from_str(&c.call(&["features"]).finish().ok().stdout()).expect("JSON");
    let text = features["mountOptions"].to_string();
    for option in [
        "idmap",
        "ridmap",
        "nosymfollow",
        "rnosymfollow",
        "unbindable",
    ] {
        assert!(text.contains(&format!("\"{option}\"")), "{option}");
    }
    assert!(features["linux"]["namespaces"].to_string().contains("time"));
    assert_eq!(
        features["linux"]["mountExtensions"]["idmap"]["enabled"],
        true
    );
    assert!(features["linux"]["apparmor"]["enabled"].is_boolean());
    assert!(features["linux"]["seccomp"]["supportedFlags"].is_array());
}

#[test]
fn spec_writes_a_config_that_runs() {
    let mut c = bundle!();
    c.call(&["spec"]).finish().ok().silent();
    let text = fs::read_to_string(c.dir.join("config.json")).expect("a config");
    let cgroup = c.spec["linux"]["cgroupsPath"].clone();
    c.spec = serde_json::from_str(&text).expect("JSON");
    assert_eq!(c.spec["process"]["args"], json!(["sh"]));
    assert!(
        c.spec["process"]["capabilities"]["inheritable"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    c = c
        .set("/process/terminal", json!(false))
        .set("/linux/cgroupsPath", cgroup)
        .asks(&["exit 9"]);
    c.run().exits(9);
}

#[test]
fn spec_replaces_nothing() {
    let c = bundle!();
    fs::write(c.dir.join("config.json"), "mine").expect("write");
    c.call(&["spec"]).finish().fails();
    assert_eq!(
        fs::read_to_string(c.dir.join("config.json")).expect("read"),
        "mine"
    );
}

#[test]
fn spec_in_another_bundle_for_other_users() {
    let c = bundle!();
    fs::create_dir(c.path("other")).expect("mkdir");
    c.call(&["spec", "--rootless", "--bundle", &c.path("other")])
        .finish()
        .ok();
    let text = fs::read_to_string(c.path("other/config.json")).expect("a config");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    assert!(spec["linux"]["namespaces"].to_string().contains("user"));
    assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    assert!(!spec["mounts"].to_string().contains("gid=5"));
}

#[test]
fn list_shows_the_containers() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let ids = c.call(&["list", "--quiet"]).finish().ok().silent().stdout();
    assert_eq!(ids, format!("{}\n", c.id));
    assert_eq!(c.call(&["list", "-q"]).finish().ok().stdout(), ids);
    let json = c
        .call(&["list", "--format", "json"])
        .finish()
        .ok()
        .silent()
        .stdout();
    let list: Value = serde_json::from_str(&json).expect("JSON");
    let pid = c.pid();
    assert_eq!(
        (&list[0]["id"], &list[0]["pid"], &list[0]["status"]),
        (&json!(c.id), &json!(pid), &json!("running"))
    );
    assert_eq!(list[0]["bundle"], c.dir.display().to_string());
    let table = c.call(&["list"]).finish().ok().silent().stdout();
    let mut lines = table.lines();
    let header: Vec<&str> = lines
        .next()
        .expect("a header")
        .split_whitespace()
        .take(4)
        .collect();
    let header: Vec<&str> = header
        .iter()
        .map(|h| if *h == "NAME" { "ID" } else { h })
        .collect();
    assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE"]);
    let row: Vec<&str> = lines.next().expect("a row").split_whitespace().collect();
    assert!(
        row[0] == c.id && row[1] == pid.to_string() && row[2] == "running",
        "{row:?}"
    );
}

#[test]
fn an_empty_list() {
    let c = bundle!();
    let json = c
        .call(&["list", "-f", "json"])
        .finish()
        .ok()
        .silent()
        .stdout();
    let list: Value = serde_json::from_str(&json).expect("JSON");
    assert!(list.is_null() || list == json!([]), "{json}");
    assert_eq!(c.call(&["list", "-q"]).finish().ok().stdout(), "");
}

#[test]
fn one_broken_state_does_not_hide_the_others() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    let broken = c.state_root().join("broken");
    fs::create_dir(&broken).expect("mkdir");
    fs::write(broken.join("state.json"), "garbage").expect("write");
    fs::write(broken.join("status"), "garbage").expect("write");
    assert!(c.call(&["list", "-q"]).finish().stdout().contains(&c.id));
    c.call(&["delete", "--force", "broken"]).finish();
}

#[test]
fn ps_shows_the_processes() {
    let c = bundle!().asks(&["children 2", "pause"]);
    let output = c.up();
    output.wait_for("children 2 => ok");
    let json = c
        .call(&["ps", "--format", "json", &c.id])
        .finish()
        .ok()
        .silent()
        .stdout();
    let pids: Vec<i32> = serde_json::from_str(&json).expect("JSON");
    assert!(pids.len() == 3 && pids.contains(&c.pid()), "{pids:?}");
}

#[test]
fn ps_passes_its_arguments_on() {
    let c = bundle!().asks(&["pause"]);
    c.up();
    for args in [
        &["ps", &c.id][..],
        &["ps", &c.id, "-ef"],
        &["ps", &c.id, "-o", "pid,comm"],
    ] {
        let table = c.call(args).finish().ok().stdout();
        assert!(
            table.lines().count() == 2 && table.contains("PID"),
            "{table}"
        );
        assert!(table.contains(&c.pid().to_string()), "{table}");
    }
}

#[test]
fn state_prints_json_and_nothing_else() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let output = c.call(&["state", &c.id]).finish().ok().silent();
    assert!(serde_json::from_str::<Value>(&output.stdout()).is_ok_and(|v| v.is_object()));
}

#[test]
fn the_state_root_may_be_missing_or_deep() {
    let mut c = bundle!().asks(&["exit 3"]);
    let deep = c.path("deep/er/root");
    c = c.global(&["--root", &deep]);
    c.run().exits(3);
    c.call(&["list"]).finish().ok();
}

#[test]
fn an_almost_empty_environment_is_enough() {
    let c = bundle!().asks(&["pause"]);
    c.create().ok();
    let call = c
        .call(&["state", &c.id])
        .through_shell("unset PATH HOME; exec \"$0\" \"$@\"");
    call.finish().ok();
    let call = c
        .call(&["start", &c.id])
        .through_shell("unset PATH HOME; exec \"$0\" \"$@\"");
    call.finish().ok().silent();
    assert_eq!(c.status(), "running");
}
