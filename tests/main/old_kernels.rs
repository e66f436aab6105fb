//! A kernel, or a sandbox around the runtime, without one of the newer calls: a command works as it would elsewhere, or fails
//! at once and says from which Linux on there is that call. What a call would have shown is never taken for granted.

use crate::support::node;
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Whether a file is the image's own, to be changed, or the host's, statx(2) says.
#[test]
fn without_the_numbers_of_mounts_no_file_of_the_host_is_taken_for_one_of_the_image() {
    let c = bundle!().asks(&["exit 0"]);
    let source = c.path("source");
    fs::create_dir(&source).expect("mkdir");
    let there = c.path("source/null");
    node(&there, libc::S_IFCHR, 1, 3);
    let facts = || {
        let meta = fs::metadata(&there).expect("stat");
        (meta.uid(), meta.mode())
    };
    let before = facts();
    let device = json!({"path": "/data/null", "type": "c", "major": 1, "minor": 3, "uid": 7, "fileMode": 0o600});
    let c = c
        .mount("bind", &source, "/data", &["bind"])
        .set("/linux/devices", json!([device]));
    c.run().ok();
    assert_eq!(facts(), before, "with all calls");
    for errno in [libc::ENOSYS, libc::EPERM] {
        let call = c.call_new("run", &[]);
        let output = call.without(libc::SYS_statx, errno).finish();
        assert_eq!(facts(), before, "without statx");
        output.fails_naming("statx(");
    }
    c.assert_gone();
}
