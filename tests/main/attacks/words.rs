//! T37: names of a config, an image or a bundle that would steer the terminal of who reads them. T41: errors of the kernel that
//! do not say what is wrong.

use crate::support::refused::may_end;
use crate::support::trace::{Fault, Kind, trace};
use crate::support::{Bundle, Chance, node, seed};
use serde_json::json;
use std::fs;

/// Clears a screen, ends a line, turns the order of letters.
const NAME: &str = "a\u{1b}[2J\nb\u{202e}c";

#[track_caller]
fn assert_plain(text: &str, lines: Option<usize>) {
    let steers = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(steers), "{text:?}");
    if let Some(lines) = lines {
        assert_eq!(text.lines().count(), lines, "{text:?}");
    }
}

/// In a directory of that name.
fn moved(c: Bundle) -> (Bundle, String) {
    let dir = c.path(NAME);
    fs::create_dir(&dir).expect("mkdir");
    let rootfs = c.rootfs();
    let c = c.set("/root/path", json!(rootfs)).asks(&["pause"]);
    c.write_config();
    fs::rename(c.path("config.json"), format!("{dir}/config.json")).expect("rename");
    (c, dir)
}

#[test]
fn t37_the_list_has_a_line_for_each_container() {
    let (c, dir) = moved(bundle!());
    c.call(&["create", "--bundle", &dir, &c.id]).finish().ok();
    let list = c.call(&["list"]).finish().ok().stdout();
    assert_plain(&list, Some(2));
    assert!(list.contains("/a\\u{1b}[2J\\nb\\u{202e}c "), "{list}");
    // JSON has escapes of its own, and is for programs.
    assert_eq!(c.state()["bundle"], json!(dir));
}

#[test]
fn t37_timings_and_plans_have_a_line_for_each_step() {
    let place = format!("/{NAME}");
    let c = bundle!()
        .mount("tmpfs", "tmpfs", &place, &[])
        .asks(&["exit 0"]);
    let flags = ["--timings", "text"];
    let c = c.global(&flags);
    let told = c.run().ok().stderr();
    assert_plain(&told, None);
    let own = |line: &str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    assert!(told.lines().all(own), "{told}");
    assert!(told.contains("/a\\u{1b}[2J\\nb\\u{202e}c"), "{told}");

    let rdt = json!({"closID": "name", "schemata": ["L3:0=\u{1b}[2J"]});
    let hook = json!([{"path": place, "args": [NAME], "env": [format!("A={NAME}")]}]);
    let c = bundle!()
        .mount("tmpfs", NAME, &place, &[NAME])
        .push("/linux/maskedPaths", json!(place))
        .push("/linux/readonlyPaths", json!(place))
        .push("/process/env", json!(format!("A={NAME}")))
        .set("/process/args", json!([NAME]))
        .set("/process/cwd", json!(place))
        .set("/process/apparmorProfile", json!(NAME))
        .set("/process/selinuxLabel", json!(NAME))
        .set("/linux/cgroupsPath", json!(place))
        .set("/linux/devices", json!([{"type": "p", "path": place}]))
        .set("/linux/resources/unified", json!({"memory.high": NAME}))
        .set("/linux/intelRdt", rdt)
        .set("/hooks/poststop", hook);
    let c = c.flag(&["--dry-run"]);
    let output = c.run();
    assert_plain(&output.stdout(), None);
    assert_plain(&output.stderr(), Some(0));
    assert_eq!(output.code(), 0);
    c.assert_gone();
}

#[test]
fn t37_the_report_of_check_has_a_line_for_each_finding() {
    let c = bundle!();
    let root = c.path(NAME);
    let call = c
        .call(&["check"])
        .only_env(vec![("PATH".into(), NAME.into())]);
    assert_plain(&call.finish().stdout(), None);
    let call = c.call(&["--root", &root, "check"]);
    let report = call.finish().stdout();
    assert_plain(&report, None);
    assert!(report.contains("can run for root"), "{report}");
}

#[test]
fn t37_the_words_of_a_process_do_not_steer() {
    let c = bundle!().set("/process/args", json!(["/payload", "pause", NAME]));
    c.up();
    let shown = c
        .call(&["ps", &c.id, "-o", "pid,args"])
        .finish()
        .ok()
        .stdout();
    assert_plain(&shown, Some(2));
    assert!(shown.contains("/payload"), "{shown}");
}

/// Replaces what is at this path of the rootfs.
fn with(c: Bundle, path: &str, kind: &str) -> Bundle {
    let place = c.rootfs().join(path.trim_start_matches('/'));
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(place.parent().expect("a parent")).expect("mkdir");
    let text = place.display().to_string();
    match kind {
        "fifo" => node(&text, libc::S_IFIFO, 0, 0),
        "socket" => node(&text, libc::S_IFSOCK, 0, 0),
        "file" => fs::write(place, "").expect("write"),
        _ => fs::create_dir_all(place).expect("mkdir"),
    }
    c
}

#[test]
fn t41_a_filesystem_needs_a_directory() {
    for kind in ["fifo", "socket", "file"] {
        for (path, mount) in [
            ("/dev", "mounts[1]: mount tmpfs on /dev"),
            ("/sys/fs/cgroup", "mounts[6]: mount cgroup2"),
        ] {
            let c = with(
                bundle!().without("/mounts", "destination", "/sys"),
                path,
                kind,
            );
            let says = format!(
                "a new file system needs a directory, and the image has a {kind} at the destination: not a directory"
            );
            let c = c.set("/linux/maskedPaths", json!([]));
            let mount = mount.replace("[6]", "[5]");
            c.create().fails_naming(&says).fails_naming(&mount);
            c.assert_gone();
        }
        for path in ["/proc", "/sys"] {
            let c = with(bundle!(), path, kind);
            let says = format!("must be an ordinary directory, and the image has a {kind} there");
            c.create().fails_naming(&says);
        }
    }
}

#[test]
fn t41_a_bind_needs_its_like() {
    let directory = "a directory as source does not go onto the";
    let file = "a file as source does not go onto the directory";
    for (kind, source, says) in [
        ("fifo", "rootfs/etc", format!("{directory} fifo")),
        ("socket", "rootfs/etc", format!("{directory} socket")),
        ("file", "rootfs/etc", format!("{directory} file")),
        ("directory", "config.json", file.to_string()),
    ] {
        let c = with(bundle!(), "/place", kind);
        let source = c.path(source);
        let c = c.mount("bind", &source, "/place", &["bind"]);
        c.create().fails_naming(&says);
        c.assert_gone();
    }
    // A node of the host is bound in a user namespace.
    let c = with(bundle!(), "/node", "directory").in_user_namespace();
    let device = json!([{"type": "c", "path": "/dev/null", "major": 1, "minor": 3}]);
    let c = c
        .set("/linux/devices", device)
        .without("/mounts", "destination", "/dev");
    let c = c.without("/mounts", "destination", "/dev/pts");
    let c = c.without("/mounts", "destination", "/dev/shm");
    let c = c
        .without("/mounts", "destination", "/dev/mqueue")
        .folder("/dev/null");
    c.create().fails_naming("linux.devices[0]: bind the host's /dev/null: a file as source does not go onto the directory");
}

#[test]
fn t41_a_link_that_leads_nowhere_is_named() {
    let c = bundle!().asks(&["exit 0"]);
    c.write_config();
    let (link, target) = (c.path("link"), c.path("nowhere"));
    std::os::unix::fs::symlink(&target, &link).expect("symlink");
    let says = format!("{link:?} is a symbolic link to {target:?}, which is not there");
    for place in [link.clone(), format!("{link}/below")] {
        let args = ["--root", &place, "create", "--bundle", &c.path(""), &c.id];
        c.call(&args)
            .finish()
            .fails_naming(&format!("--root: {says}"));
        let layer = c.rootfs().display().to_string();
        let args = [
            "run", "--layer", &layer, "--upper", &place, &c.id, "--", "/payload",
        ];
        c.call(&args)
            .finish()
            .fails_naming(&format!("--upper: {says}"));
    }
    let args = ["run", "--layer", &link, &c.id, "--", "/payload"];
    c.call(&args)
        .finish()
        .fails_naming(&format!("--layer: {says}"));
    let args = ["create", "--bundle", &link, &c.id];
    c.call(&args)
        .finish()
        .fails_naming(&format!("bundle {link:?}: {says}"));
    let file = c.path("config.json");
    let args = ["--root", &file, "create", "--bundle", &c.path(""), &c.id];
    c.call(&args)
        .finish()
        .fails_naming(&format!("--root: {file:?} is no directory"));
    assert!(!fs::exists(&target).expect("look"));
}

/// Killed before each call of a command that looks at it or joins it: what is told is that it has stopped.
#[test]
fn t41_a_container_that_ends_meanwhile_has_stopped() {
    let c = bundle!().folder("/a").asks(&["pause"]);
    let mut chance = Chance::new(seed());
    let commands: [&[&str]; 7] = [
        &["mounts", "list"],
        &["mounts", "add", "/", "/a"],
        &["mounts", "remove", "/a"],
        &["ps"],
        &["stats", "--no-stream"],
        &["events", "--stats"],
        &["exec", "/payload", "exit", "0"],
    ];
    for words in commands {
        let (verb, rest) = words.split_at(if words[0] == "mounts" { 2 } else { 1 });
        let mut args = verb.to_vec();
        args.push(&c.id);
        args.extend(rest);
        // The shortest is tried before each of its calls.
        let step =
            match std::env::var_os("COFFERDAM_TORTURE").is_some() || words == ["mounts", "list"] {
                true => 1,
                false => 16,
            };
        let mut call = chance.below(step);
        loop {
            c.up();
            let kind = Kind::KillOther(c.pid());
            let traced = trace(
                c.call(&args),
                Some(Fault {
                    process: 0,
                    call,
                    kind,
                }),
            );
            let (code, said) = (traced.output.code(), traced.output.stderr());
            let stopped = ["stopped", "not running", "nothing is mounted there"];
            let told = stopped.iter().any(|words| said.contains(words));
            let fine = code == 0 || code == 137 || told;
            if !fine {
                may_end(code, &said);
            }
            assert!(fine, "{words:?}, before call {call}: {code}: {said}");
            c.delete(&["--force"]).ok();
            if !traced.reached {
                break;
            }
            call += step;
        }
    }
}
