//! The three ways to run a container that an attack is tried in, and the world outside that it must not change.

use crate::support::{Bundle, Output, refused};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// A bundle for each way, one after the other; leaves the test when it does not apply here.
macro_rules! each_way {
    () => {{
        fn here() {}
        let test = std::any::type_name_of_val(&here).trim_end_matches("::here");
        if $crate::support::skips(test) {
            return;
        }
        $crate::attacks::ways::each(test)
    }};
}
pub(crate) use each_way;

pub const USER: u32 = 23456;

/// What makes a bundle one of that way.
type Change = fn(Bundle) -> Bundle;

pub fn each(test: &'static str) -> impl Iterator<Item = Bundle> {
    let ways: [(&str, Change); 3] = [
        ("as root", |c| c),
        (
            "as root, in a user namespace",
            Bundle::owned_in_user_namespace,
        ),
        ("as an ordinary user", |c| c.of_user(USER)),
    ];
    ways.into_iter().map(move |(name, change)| {
        println!("{name}");
        let c = change(Bundle::new(test));
        // The attack is to be what fails, not the bundle.
        if refused::everywhere().is_none() {
            c.run().ok();
        }
        c
    })
}

/// For a test that would wait for what a container says that cannot be made with what is refused.
pub fn runs_at_all(c: &Bundle) {
    if refused::everywhere().is_some() {
        c.run().ok();
    }
}

/// A directory of the host, next to the rootfs, that anybody could change.
pub struct Outside {
    pub dir: String,
    before: BTreeMap<String, String>,
}

impl Outside {
    pub fn new(c: &Bundle, files: &[&str]) -> Outside {
        let dir = c.path("outside");
        fs::create_dir(&dir).expect("mkdir");
        for name in files {
            let path = format!("{dir}/{name}");
            fs::write(&path, "of the host").expect("write");
            fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("chmod");
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o777)).expect("chmod");
        let before = facts(Path::new(&dir));
        Outside { dir, before }
    }

    /// The same directory on a way that links inside the rootfs can take if nobody stops them at its root.
    pub fn upwards(&self) -> String {
        format!("../../../../../../../../../../..{}", self.dir)
    }

    pub fn is_untouched(&self) -> bool {
        facts(Path::new(&self.dir)) == self.before
    }

    pub fn assert_untouched(&self, what: &str) {
        assert_eq!(facts(Path::new(&self.dir)), self.before, "{what}");
    }
}

/// Names, kinds, inodes and contents. The owner and mode too, but who calls owns the bundle.
fn facts(dir: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(dir).expect("read").flatten();
    let fact = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("stat");
        let text = match meta.is_file() {
            true => fs::read_to_string(path).expect("read"),
            false => String::new(),
        };
        let owner = meta.uid() == USER || meta.uid() == 0;
        format!("{:o} {owner} {} {text}", meta.mode(), meta.ino())
    };
    let own = ("".to_string(), fact(dir));
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let all = entries.map(|entry| (name(&entry), fact(&entry.path())));
    std::iter::once(own).chain(all).collect()
}

/// Runs it, and creates and starts another.
pub fn run_and_start(c: &Bundle) -> [Output; 2] {
    let run = c.run();
    let mut created = c.create();
    if created.code() == 0 {
        let started = c.start();
        if started.code() != 0 {
            created = started;
        }
    }
    c.delete(&["--force"]);
    [run, created]
}
