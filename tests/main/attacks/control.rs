//! A runtime with known faults fails the attacks that are about them: they can fail. With COFFERDAM_CONTROL=1 and runc 1.1.5,
//! of Debian 12, as RUNTIME: `make control`.

use crate::support::binary;
use std::path::Path;
use std::process::Command;

/// The attacks, what the failure says, or else says, and how often a race is run before it counts as lost.
const KNOWN: [(&str, &[&str], u32); 11] = [
    (
        "proc::t05_a_sysctl_is_not_written_into_a_fake_proc",
        &["\"UNTOUCHED\""],
        1,
    ),
    (
        "races::t07_a_directory_above_the_target_becomes_a_link",
        &[": a race\n", ": a race: opened on the host"],
        10,
    ),
    (
        "nodes::t13_i_a_link_in_the_place_of_null_is_not_bound",
        &["write /etc/tomask PWN => ok"],
        1,
    ),
    (
        "nodes::t13_iii_a_file_in_the_place_of_null_is_not_bound",
        &["write /etc/tomask PWN => ok"],
        1,
    ),
    (
        "links::t16_a_link_at_dev_changes_nothing_on_the_host",
        &["\"stdin\": \"120777"],
        1,
    ),
    (
        "links::t16_a_device_behind_a_link_at_dev_is_not_made_on_the_host",
        &["\"stdin\": \"120777"],
        1,
    ),
    (
        "streams::t23_a_process_that_joins_does_not_hold_the_null_device_of_the_host",
        &["left: \"20000 0 0 "],
        1,
    ),
    (
        "files::t30_no_home_is_read_from_procfs",
        &["left: \"/evil\""],
        1,
    ),
    (
        "keyrings::t31_a_keyring_that_has_the_name_already_is_not_joined",
        &["`left != right` failed"],
        1,
    ),
    (
        "cgroups::t34_one_that_may_be_written_is_the_hosts_too",
        &["left: \"cgroup2 false "],
        1,
    ),
    (
        "shown::t33_nobody_reads_the_command_line_of_the_runtime",
        &["runc init"],
        1,
    ),
];

#[test]
fn a_runtime_with_known_faults_fails_the_attacks_on_them() {
    let control = std::env::var_os("COFFERDAM_CONTROL").is_some();
    needs!(control, "for runc: make control");
    let version = version();
    for (name, says, times) in KNOWN {
        let seen = (0..times).find_map(|_| failure(&format!("attacks::{name}")));
        let said = seen.unwrap_or_else(|| panic!("{name} passes with {version}"));
        assert!(
            says.iter().any(|words| said.contains(words)),
            "{name} fails for another reason: {said}"
        );
        println!("{name}: fails, as it should");
    }
    // What runc makes behind the link of a T06 that is tried with it.
    assert!(!Path::new("/a").exists(), "left on the host");
}

fn version() -> String {
    let output = Command::new(binary()).arg("--version").output();
    let text = String::from_utf8_lossy(&output.expect("run it").stdout).into_owned();
    text.lines().next().expect("a version").to_string()
}

/// What the test says in a process of its own, if it fails.
fn failure(test: &str) -> Option<String> {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", test])
        .env("COFFERDAM_TORTURE", "1")
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("run the test");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("running 1 test\n"), "{test}: {said}");
    (!output.status.success()).then_some(said)
}
