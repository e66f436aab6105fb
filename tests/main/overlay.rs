//! A root file system from layers: annotations of the spec, and `run --layer`.

use crate::support::Bundle;
use serde_json::json;
use std::fs;
use std::path::Path;

const LOWER: &str = "dev.cofferdam.overlay.lower";
const UPPER: &str = "dev.cofferdam.overlay.upper";
const WORK: &str = "dev.cofferdam.overlay.work";

/// Moves the rootfs to a layer `bottom`, and adds a layer `top` above it.
fn layers(c: Bundle) -> Bundle {
    let c = c.file("/both", "bottom").file("/below", "bottom");
    fs::rename(c.rootfs(), c.dir.join("bottom")).expect("rename");
    for name in ["rootfs", "top", "upper", "work"] {
        fs::create_dir(c.dir.join(name)).expect("mkdir");
    }
    fs::write(c.dir.join("top/both"), "top").expect("write");
    fs::write(c.dir.join("top/above"), "top").expect("write");
    c
}

fn annotated(mut c: Bundle, pairs: &[(&str, &str)]) -> Bundle {
    for (key, value) in pairs {
        c.spec["annotations"][*key] = json!(value);
    }
    c
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("read").flatten();
    let mut names: Vec<String> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Nothing was written into the layers.
fn assert_untouched(c: &Bundle) {
    assert_eq!(names(&c.dir.join("top")), ["above", "both"]);
    assert_eq!(
        fs::read_to_string(c.dir.join("bottom/both")).expect("read"),
        "bottom"
    );
    assert_eq!(
        fs::read_to_string(c.dir.join("top/both")).expect("read"),
        "top"
    );
    assert!(!c.dir.join("bottom/new").exists());
    assert!(names(&c.rootfs()).is_empty(), "{:?}", names(&c.rootfs()));
}

const QUESTIONS: [&str; 5] = [
    "read /both",
    "read /below",
    "read /above",
    "write /new text",
    "write /both changed",
];

#[test]
fn the_first_layer_is_on_top() {
    let c = annotated(layers(bundle!()), &[(LOWER, "top:bottom")]).asks(&QUESTIONS);
    let output = c.run().ok();
    let answers = QUESTIONS.map(|q| output.answer(q));
    assert_eq!(answers, ["top", "bottom", "top", "ok", "ok"]);
    assert_untouched(&c);
}

#[test]
fn absolute_layers() {
    let c = layers(bundle!());
    let lower = format!("{}:{}", c.path("top"), c.path("bottom"));
    let c = annotated(c, &[(LOWER, &lower)]).asks(&["read /both"]);
    assert_eq!(c.run().ok().answer("read /both"), "top");
}

#[test]
fn one_layer_is_enough() {
    let c =
        annotated(layers(bundle!()), &[(LOWER, "bottom")]).asks(&["read /both", "write /new x"]);
    let output = c.run().ok();
    assert_eq!(
        (
            output.answer("read /both").as_str(),
            output.answer("write /new x").as_str()
        ),
        ("bottom", "ok")
    );
    assert_untouched(&c);
}

#[test]
fn what_is_written_dies_with_the_container() {
    let c = annotated(layers(bundle!()), &[(LOWER, "top:bottom")])
        .asks(&["read /new", "write /new text"]);
    for _ in 0..2 {
        assert_eq!(c.run().ok().answer("read /new"), "ENOENT");
    }
    assert_untouched(&c);
}

#[test]
fn what_is_written_goes_to_the_upper_directory() {
    let c = annotated(
        layers(bundle!()),
        &[(LOWER, "top:bottom"), (UPPER, "upper"), (WORK, "work")],
    );
    let c = c.asks(&["write /new text", "rm /above", "read /new"]);
    c.run().ok();
    assert_eq!(
        fs::read_to_string(c.dir.join("upper/new")).expect("written"),
        "text"
    );
    assert_untouched(&c);
    let c = c.asks(&["read /new", "read /above"]);
    let output = c.run().ok();
    assert_eq!(
        (
            output.answer("read /new").as_str(),
            output.answer("read /above").as_str()
        ),
        ("text", "ENOENT")
    );
}

#[test]
fn the_root_is_an_overlay_and_stays_in_the_container() {
    let c = annotated(layers(bundle!()), &[(LOWER, "top:bottom")]).asks(&["mountinfo /", "pause"]);
    let output = c.up();
    output.wait_for("mountinfo / =>");
    assert!(
        output.answer("mountinfo /").contains(" - overlay "),
        "{}",
        output.answer("mountinfo /")
    );
    let host = fs::read_to_string("/proc/self/mountinfo").expect("read");
    assert!(!host.contains(&c.dir.display().to_string()));
}

#[test]
fn a_read_only_root_of_layers() {
    let c =
        annotated(layers(bundle!()), &[(LOWER, "top:bottom")]).set("/root/readonly", json!(true));
    let c = c.asks(&["read /both", "write /new x"]);
    let output = c.run().ok();
    assert_eq!(
        (
            output.answer("read /both").as_str(),
            output.answer("write /new x").as_str()
        ),
        ("top", "EROFS")
    );
    assert_untouched(&c);
}

#[test]
fn layers_in_a_user_namespace() {
    let c = bundle!().in_user_namespace();
    let c = annotated(layers(c), &[(LOWER, "top:bottom")]).asks(&QUESTIONS);
    for name in ["top", "bottom", "rootfs"] {
        c.give(name, 100000);
    }
    let output = c.run().ok();
    assert_eq!(
        QUESTIONS.map(|q| output.answer(q)),
        ["top", "bottom", "top", "ok", "ok"]
    );
    assert_untouched(&c);
}

#[test]
fn an_upper_directory_in_a_user_namespace() {
    let c = bundle!().in_user_namespace();
    let c = annotated(
        layers(c),
        &[(LOWER, "top:bottom"), (UPPER, "upper"), (WORK, "work")],
    )
    .asks(&["write /new text"]);
    for name in ["top", "bottom", "rootfs", "upper", "work"] {
        c.give(name, 100000);
    }
    assert_eq!(c.run().ok().answer("write /new text"), "ok");
    assert_eq!(
        fs::read_to_string(c.dir.join("upper/new")).expect("written"),
        "text"
    );
}

#[test]
fn a_missing_layer_is_named() {
    let c = annotated(layers(bundle!()), &[(LOWER, "top:nowhere:bottom")]);
    c.create().fails_naming("nowhere");
    c.assert_gone();
}

#[test]
fn many_layers() {
    let c = layers(bundle!());
    for index in 0..60 {
        fs::create_dir(c.dir.join(format!("layer-with-a-rather-long-name-{index}")))
            .expect("mkdir");
        fs::write(
            c.dir.join(format!(
                "layer-with-a-rather-long-name-{index}/file-{index}"
            )),
            "x",
        )
        .expect("write");
    }
    let list: Vec<String> = (0..60)
        .map(|i| format!("layer-with-a-rather-long-name-{i}"))
        .collect();
    let c = annotated(c, &[(LOWER, &format!("{}:bottom", list.join(":")))])
        .asks(&["read /file-0", "read /file-59"]);
    let output = c.run().ok();
    assert_eq!(
        (
            output.answer("read /file-0").as_str(),
            output.answer("read /file-59").as_str()
        ),
        ("x", "x")
    );
}

#[test]
fn two_containers_share_the_layers() {
    let mut c =
        annotated(layers(bundle!()), &[(LOWER, "top:bottom")]).asks(&["write /new text", "pause"]);
    let first = c.up();
    first.wait_for("write /new text => ok");
    let id = c.id.clone();
    c.id = format!("{id}-second");
    let cgroup = format!("/cofferdam-test/{}", c.id);
    c = c
        .set("/linux/cgroupsPath", json!(cgroup))
        .asks(&["read /new"]);
    assert_eq!(c.run().ok().answer("read /new"), "ENOENT");
    c.call(&["delete", "--force", &id]).finish().ok();
}

#[test]
fn run_takes_layers_and_a_command() {
    let c = layers(bundle!());
    let (top, bottom) = (c.path("top"), c.path("bottom"));
    let args = [
        "run", "--layer", &top, "--layer", &bottom, &c.id, "--", "/payload", "read", "/above", ";",
        "exit", "6",
    ];
    let output = c.call(&args).finish().exits(6);
    assert_eq!(output.answer("read /above"), "top");
    assert_untouched(&c);
    c.assert_gone();
}

#[test]
fn run_with_one_layer_writes_nothing_into_it() {
    let c = layers(bundle!());
    let bottom = c.path("bottom");
    let args = [
        "run", "--layer", &bottom, &c.id, "--", "/payload", "write", "/new", "x", ";", "report",
    ];
    let output = c.call(&args).finish().ok();
    assert_eq!(output.answer("write /new x"), "ok");
    assert_eq!(output.report()["pid"], 1);
    assert_untouched(&c);
}

#[test]
fn run_with_an_upper_directory_keeps_what_is_written() {
    let c = layers(bundle!());
    let (bottom, upper) = (c.path("bottom"), c.path("upper"));
    let args = [
        "run", "--layer", &bottom, "--upper", &upper, &c.id, "--", "/payload", "write", "/new",
        "text",
    ];
    assert_eq!(c.call(&args).finish().ok().answer("write /new text"), "ok");
    assert_eq!(
        fs::read_to_string(c.dir.join("upper/new")).expect("written"),
        "text"
    );
    assert_untouched(&c);
}

/// The places of all mounts that the container can see.
fn places(answer: &str) -> Vec<&str> {
    // The payload escapes the ends of lines.
    let lines = answer.split("\\n");
    lines.filter_map(|line| line.split(' ').nth(4)).collect()
}

#[test]
fn nothing_of_the_old_root_is_left() {
    let plain = bundle!().asks(&["read /proc/self/mountinfo"]);
    let layered = annotated(layers(plain), &[(LOWER, "top:bottom")]);
    let in_user_namespace = annotated(layers(bundle!().in_user_namespace()), &[(LOWER, "bottom")])
        .asks(&["read /proc/self/mountinfo"]);
    for c in [layered, in_user_namespace] {
        let text = c.run().ok().answer("read /proc/self/mountinfo");
        let roots = places(&text).into_iter().filter(|place| *place == "/");
        assert_eq!(roots.count(), 1, "{text}");
        assert!(!text.contains(" /sys/fs/cgroup/unified "), "{text}");
    }
}

#[test]
fn a_dry_run_makes_no_upper_directory() {
    let c = layers(bundle!());
    let (layer, upper) = (c.path("bottom"), c.path("elsewhere"));
    let flags = [
        "run",
        "--dry-run",
        "--layer",
        &layer,
        "--upper",
        &upper,
        &c.id,
    ];
    let plan = c.call(&flags).finish().ok().stdout();
    assert!(plan.contains("elsewhere.work"), "{plan}");
    assert!(!c.dir.join("elsewhere").exists());
}

/// A directory below `base` whose path, from the bundle, is longer than fsconfig(2) takes of a string (255 bytes).
pub fn long_name(c: &Bundle, base: &str) -> String {
    let name = format!("{}/{base}/{}", "d".repeat(200), "e".repeat(100));
    fs::create_dir_all(c.dir.join(&name)).expect("mkdir");
    name
}

#[test]
fn long_paths_of_layers() {
    let c = layers(bundle!());
    let (lower, upper, work) = (
        long_name(&c, "l"),
        long_name(&c, "upper"),
        long_name(&c, "work"),
    );
    fs::write(c.dir.join(&lower).join("in-long"), "text").expect("write");
    let list = format!("{lower}:bottom");
    let pairs = [
        (LOWER, list.as_str()),
        (UPPER, upper.as_str()),
        (WORK, work.as_str()),
    ];
    let c = annotated(c, &pairs).asks(&["read /in-long", "write /new text"]);
    let output = c.run().ok();
    assert_eq!(output.answer("read /in-long"), "text");
    assert_eq!(output.answer("write /new text"), "ok");
    let written = fs::read_to_string(c.dir.join(&upper).join("new"));
    assert_eq!(written.expect("written"), "text");
}

#[test]
fn run_takes_long_paths_of_layers() {
    let c = layers(bundle!());
    let (bottom, lower, upper) = (c.path("bottom"), long_name(&c, "l"), long_name(&c, "u"));
    let (lower, upper) = (c.path(&lower), c.path(&upper));
    let args = [
        "run", "--layer", &lower, "--layer", &bottom, "--upper", &upper, &c.id, "--", "/payload",
        "write", "/new", "text",
    ];
    assert_eq!(c.call(&args).finish().ok().answer("write /new text"), "ok");
    let written = fs::read_to_string(Path::new(&upper).join("new"));
    assert_eq!(written.expect("written"), "text");
}
