//! Configs that are very long, very deep, or written as no one should: refused with the place, or carried out, in bounds.
//! Every call has the deadline of the tests, in which it must end; how fast it is says the benchmark.

use crate::support::{Bundle, Call, Output, PATIENCE, holds_within, lines};
use nix::sys::resource::{Resource, setrlimit};
use serde_json::{Value, json};
use std::fs;
use std::io;

fn little_memory() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_AS, 256 << 20, 256 << 20)?)
}

fn little_stack() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_STACK, 512 << 10, 512 << 10)?)
}

fn few_descriptors() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_NOFILE, 64, 64)?)
}

/// A call with this text as config.json.
fn create_from(c: &Bundle, text: impl AsRef<[u8]>) -> Call {
    fs::write(c.path("config.json"), text).expect("write config.json");
    c.call(&["create", "--bundle", &c.path(""), &c.id])
}

fn refused(c: &Bundle, text: impl AsRef<[u8]>, words: &str) {
    create_from(c, text).finish().fails_naming(words);
    c.assert_gone();
}

fn config(c: &Bundle) -> String {
    c.write_config();
    fs::read_to_string(c.path("config.json")).expect("read config.json")
}

/// The config with this text in the place of `"HERE"`.
fn with(c: &Bundle, text: &str) -> String {
    let config = config(c);
    assert!(config.contains("\"HERE\""), "{config}");
    config.replace("\"HERE\"", text)
}

/// What nobody reads may be as deep as it likes; what is read is a list where none is expected.
#[test]
fn a_config_of_any_depth_does_no_harm() {
    let deep =
        |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    for place in [
        "/annotations",
        "/hooks",
        "/linux/resources/unified",
        "/linux/seccomp",
        "/process/args",
        "/unknown",
    ] {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let c = bundle!().set(place, json!("HERE"));
            let call = create_from(&c, with(&c, &deep(open, close)));
            let output = call.setup(little_stack).finish();
            let is_read = open == "[" && place != "/unknown";
            if is_read || output.code() != 0 {
                output.fails_naming("at line 1 column");
                c.assert_gone();
            }
        }
    }
}

#[test]
fn the_longest_config_fits_into_little_memory() {
    let c = bundle!()
        .set("/unknown", json!("HERE"))
        .set("/ociVersion", json!("0"));
    let refused = |text: String, words: &str| {
        let call = create_from(&c, text).setup(little_memory);
        call.finish().fails_naming(words);
    };
    let table = [
        (900_000, ["0,", "\"\",", "1.5,", "\"xxx\","]),
        (190_000, ["[],", "[0],", "{\"\":0},", "{},"]),
    ];
    for (count, items) in table {
        for item in items {
            let text = |count| format!("[{}0]", item.repeat(count));
            refused(with(&c, &text(count)), "ociVersion");
            refused(with(&c, &text(1_010_000)), "and no config has that many");
        }
    }
    let long = "\\n".repeat(3_900_000);
    refused(with(&c, &format!("\"{long}\"")), "ociVersion");
    refused(" ".repeat(100 << 20), "no config is that long");
}

#[test]
fn other_encodings_are_refused() {
    let c = bundle!();
    let text = config(&c);
    let wide = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    refused(&c, wide(u16::to_le_bytes), "line 1");
    refused(&c, wide(u16::to_be_bytes), "line 1");
    refused(
        &c,
        [b"\xff\xfe".to_vec(), wide(u16::to_le_bytes)].concat(),
        "line 1",
    );
    refused(&c, format!("\u{feff}{text}"), "line 1");
    let c = c.set("/process/args", json!(["/payload", "HERE"]));
    let bytes = |bytes: &[u8]| {
        let text = config(&c);
        let (before, after) = text.split_once("HERE").expect("the place");
        [before.as_bytes(), bytes, after.as_bytes()].concat()
    };
    for wrong in [
        &b"\xff"[..],
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xc3",
    ] {
        refused(&c, bytes(wrong), "at line 1 column");
    }
}

#[test]
fn half_a_surrogate_is_no_character() {
    let c = bundle!().set("/process/args", json!(["/payload", "HERE"]));
    for text in [
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\ud800\"",
        "\"\\ud800x\"",
        "\"\\ud8\"",
    ] {
        refused(&c, with(&c, text), "at line 1 column");
    }
    let c = bundle!().set("/annotations", json!("HERE"));
    refused(&c, with(&c, "{\"\\udfff\": \"\"}"), "line 1");
    let c = bundle!()
        .asks(&["env A"])
        .set("/process/env", json!(["HERE"]));
    create_from(&c, with(&c, "\"A=\\ud83d\\ude00\""))
        .finish()
        .ok();
    c.start().ok();
    c.wait_stopped();
}

#[test]
fn numbers_out_of_range_name_their_field() {
    let cases: &[(&str, &[&str])] = &[
        (
            "/process/user/uid",
            &["-0", "-1", "4294967296", "1e2", "1.0"],
        ),
        (
            "/process/rlimits/0/soft",
            &["-0", "-1", "18446744073709551616", "1e19"],
        ),
        (
            "/process/oomScoreAdj",
            &["9223372036854775808", "-9223372036854775809", "1e3"],
        ),
        (
            "/linux/resources/memory/limit",
            &["9223372036854775808", "0.5"],
        ),
        (
            "/linux/resources/cpu/shares",
            &["-1", "18446744073709551616", "1E0"],
        ),
        ("/linux/uidMappings/0/size", &["-0", "4294967296", "1e1"]),
    ];
    for (place, numbers) in cases {
        let field = place[1..].replace("/0/", "[0].").replace('/', ".");
        let c = bundle!()
            .set(
                "/process/rlimits",
                json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]),
            )
            .set(
                "/linux/uidMappings",
                json!([{"containerID": 0, "hostID": 0, "size": 1}]),
            )
            .set(place, json!("HERE"));
        for number in *numbers {
            refused(&c, with(&c, number), &field);
        }
        for none in ["1e400", "-1e400", "NaN", "01", "0x10", "+1", "-"] {
            refused(&c, with(&c, none), "at line 1 column");
        }
    }
}

/// Readers differ in which one counts: an engine that judges the first must not be answered with the last.
#[test]
fn a_field_given_twice_is_refused() {
    let objects = [
        ("/root", "\"path\": \"rootfs\", \"path\": \"/\"", "path"),
        ("/process/user", "\"uid\": 7, \"gid\": 0, \"uid\": 0", "uid"),
        (
            "/linux/resources/memory",
            "\"limit\": 1048576, \"limit\": -1",
            "limit",
        ),
        (
            "/hooks",
            "\"poststop\": [], \"poststop\": [{\"path\": \"/bin/true\"}]",
            "poststop",
        ),
    ];
    for (place, fields, name) in objects {
        let words = format!("duplicate field `{name}`");
        // Also where something else makes the config be looked at again.
        for (other, value) in [
            ("/unknown", json!(7)),
            ("/process/capabilities/bounding", json!(["CAP_NEW"])),
            ("/annotations", Value::Null),
            ("/linux/resources/pids", json!({})),
            ("/unknown", json!([[]])),
        ] {
            let c = bundle!().set(other, value).set(place, json!("HERE"));
            refused(&c, with(&c, &format!("{{{fields}}}")), &words);
        }
    }
}

/// With few descriptors, which are the container's too. What is linear ends long before, whoever else is busy.
fn run(c: &Bundle) -> Output {
    let mut running = c.call_new("run", &[]).setup(few_descriptors).spawn();
    let mut status = None;
    let ends = || {
        status = running.child.try_wait().expect("wait");
        status.is_some()
    };
    assert!(holds_within(10 * PATIENCE, ends), "still running");
    running.output(status.expect("a status"))
}

#[test]
fn ten_thousand_mounts() {
    const COUNT: usize = 10_000;
    let mounts: Vec<Value> = (0..COUNT)
        .map(|number| {
            json!({"destination": format!("/many/{number}"), "type": "bind", "source": "/dev/null",
                "options": ["bind", "ro"]})
        })
        .collect();
    let c = bundle!()
        .remove("/process/rlimits")
        .mount("tmpfs", "tmpfs", "/many", &[])
        .asks(&["stat /many/9999"]);
    let mut all = c.spec["mounts"].as_array().cloned().expect("mounts");
    all.extend(mounts);
    let c = c.set("/mounts", json!(all));
    let output = run(&c).ok();
    assert!(output.answer("stat /many/9999").starts_with("char 1:3"));
    assert!(
        lines("/proc/self/mountinfo".as_ref()).len() < 1000,
        "they stay in the container"
    );
}

#[test]
fn four_thousand_masked_paths_of_which_many_are_the_same() {
    let c = bundle!().remove("/process/rlimits").folder("/m");
    for number in 0..1024 {
        fs::write(c.rootfs().join(format!("m/{number}")), "SECRET").expect("write");
    }
    let twice = |prefix: &str| -> Vec<String> {
        (0..4096)
            .map(|number| format!("{prefix}{}", number % 1024))
            .collect()
    };
    let mut masked = twice("/m/");
    masked.extend(["/proc/kcore", "/no/such"].map(String::from));
    let c = c
        .set("/linux/maskedPaths", json!(masked))
        .set("/linux/readonlyPaths", json!(vec!["/proc/sys"; 4096]))
        .asks(&["read /m/0", "read /m/1023"]);
    let output = run(&c).ok();
    assert_eq!(output.answer("read /m/0"), "");
    assert_eq!(output.answer("read /m/1023"), "");
}

/// execve(2): one argument has at most 32 pages.
#[test]
fn an_argument_is_as_long_as_the_kernel_takes_it() {
    let long = |length| json!(["/payload", "x".repeat(length)]);
    let c = bundle!().set("/process/args", long(131_071));
    c.create().ok();
    c.start().ok();
    let c = bundle!().set("/process/args", long(1 << 20));
    c.run().fails_with("rgument list too long");
    c.assert_gone();
}

/// A limit of the kernel is named, and the reason is never cut off behind a long value.
#[test]
fn values_longer_than_the_kernel_takes_are_named_with_their_limit() {
    let long = "x".repeat(5000);
    let path = format!("/{}", vec!["x".repeat(200); 30].join("/"));
    let groups: Vec<u32> = (0..65537).collect();
    let cases = [
        ("/hostname", json!(long), "longer than 64 bytes"),
        (
            "/linux/cgroupsPath",
            json!(path),
            "linux.cgroupsPath: has 6030 bytes; must have at most 3840",
        ),
        (
            "/process/user/additionalGids",
            json!(groups),
            "process.user.additionalGids: has 65537 groups; the kernel takes at most 65536",
        ),
        (
            "/linux/sysctl",
            json!({"net.ipv4.ip_local_port_range": format!("1024 {}", "6".repeat(5000))}),
            "Invalid argument",
        ),
        ("/process/args", json!([format!("/{long}")]), "ame too long"),
        ("/process/cwd", json!(path), "File name too long"),
        ("/linux/maskedPaths", json!([path]), "File name too long"),
    ];
    for (place, value, words) in cases {
        let c = bundle!().set(place, value);
        c.create().fails_naming(words);
        c.assert_gone();
    }
}
