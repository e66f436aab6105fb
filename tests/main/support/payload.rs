//! Builds the payload once, with plain rustc, as a static binary.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(build)
}

/// Under a file lock, as another test process may be doing the same.
fn build() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/main/payload");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("payload");
    fs::create_dir_all(env!("CARGO_TARGET_TMPDIR")).expect("make the target directory");
    let lock = File::create(target.with_extension("lock")).expect("open the lock");
    lock.lock().expect("lock");
    let files = fs::read_dir(&sources).expect("read the sources").flatten();
    let mut times = files.map(|file| modified(&file.path()));
    if times.any(|time| time > modified(&target)) {
        compile(&sources.join("payload.rs"), &target);
    }
    target
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn compile(source: &Path, target: &Path) {
    let fresh = target.with_extension("new");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
        ])
        .args(["-C", "panic=abort", "-C", "strip=symbols", "-o"])
        .args([&fresh, source])
        .output()
        .expect("run rustc");
    assert!(
        output.status.success(),
        "payload: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::rename(&fresh, target).expect("install the payload");
}
