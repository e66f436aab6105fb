//! Options of mounts, from one table: each alone and against its opposite, on new file systems and on
//! binds; words that are none; flags that a user namespace may not lift; remounts.

use crate::binds::bound;
use crate::mounts::{has, options_of};
use crate::support::{Bundle, Output, Runtime, runtime};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A word, what mountinfo shows of it, and the word that undoes it.
const FLAGS: [(&str, &str, &str); 9] = [
    ("ro", "ro", "rw"),
    ("nosuid", "nosuid", "suid"),
    ("nodev", "nodev", "dev"),
    ("noexec", "noexec", "exec"),
    ("noatime", "noatime", "atime"),
    ("noatime", "noatime", "strictatime"),
    ("relatime", "relatime", "strictatime"),
    ("nodiratime", "nodiratime", "diratime"),
    ("nosymfollow", "nosymfollow", "symfollow"),
];

/// Two words that mean the same.
const SYNONYMS: [(&str, &str); 3] = [
    ("norelatime", "relatime"),
    ("nostrictatime", "relatime"),
    ("atime", "relatime"),
];

/// What a file system shows of its own options; nothing for those that undo, or that the kernel ignores.
const OF_FILE_SYSTEMS: [(&str, &str); 12] = [
    ("defaults", ""),
    ("sync", "sync"),
    ("async", ""),
    ("dirsync", "dirsync"),
    ("lazytime", "lazytime"),
    ("nolazytime", ""),
    ("mand", ""),
    ("nomand", ""),
    ("iversion", ""),
    ("noiversion", ""),
    ("silent", ""),
    ("loud", ""),
];

const PROPAGATION: [(&str, &str); 8] = [
    ("private", ""),
    ("rprivate", ""),
    ("slave", ""),
    ("rslave", ""),
    ("shared", "shared:"),
    ("rshared", "shared:"),
    ("unbindable", "unbindable"),
    ("runbindable", "unbindable"),
];

/// Words with a test of their own.
const ELSEWHERE: [&str; 8] = [
    "bind",
    "rbind",
    "remount",
    "idmap",
    "ridmap",
    "tmpcopyup",
    "copy-symlink",
    "src-nofollow",
];

/// One container with a mount for each list of options; gives the lines of mountinfo, in order.
fn mountinfo(
    mut c: Bundle,
    kind: &str,
    source: &str,
    below: &str,
    lists: &[Vec<&str>],
) -> Vec<String> {
    let questions: Vec<String> = (0..lists.len())
        .map(|index| format!("mountinfo /m{index}{below}"))
        .collect();
    for (index, options) in lists.iter().enumerate() {
        c = c.mount(kind, source, &format!("/m{index}"), options);
    }
    let words: Vec<&str> = questions.iter().map(String::as_str).collect();
    let c = c.asks(&words);
    let output: Output = c.run().ok();
    questions
        .iter()
        .map(|question| output.answer(question))
        .collect()
}

fn shows(line: &str, option: &str) -> bool {
    has(&options_of(line).0, option)
}

#[test]
fn every_flag_and_its_opposite_on_a_new_file_system() {
    let c = bundle!();
    let mut lists = vec![];
    for (word, _, opposite) in FLAGS {
        lists.extend([vec![word], vec![word, opposite], vec![opposite, word]]);
    }
    let lines = mountinfo(c, "tmpfs", "tmpfs", "", &lists);
    for (lines, (word, shown, opposite)) in lines.chunks(3).zip(FLAGS) {
        assert!(shows(&lines[0], shown), "{word}: {lines:?}");
        assert!(!shows(&lines[1], shown), "{word},{opposite}: {lines:?}");
        assert!(shows(&lines[2], shown), "{opposite},{word}: {lines:?}");
    }
}

#[test]
fn every_flag_and_its_opposite_on_a_bind() {
    let c = bundle!().with_tmpfs("source", 0);
    let source = c.path("source");
    let mut lists = vec![];
    for (word, _, opposite) in FLAGS {
        lists.extend([
            vec!["bind", word],
            vec!["bind", word, opposite],
            vec![opposite, "rbind", word],
        ]);
    }
    let lines = mountinfo(c, "bind", &source, "", &lists);
    for (lines, (word, shown, opposite)) in lines.chunks(3).zip(FLAGS) {
        assert!(shows(&lines[0], shown), "{word}: {lines:?}");
        assert!(!shows(&lines[1], shown), "{word},{opposite}: {lines:?}");
        assert!(shows(&lines[2], shown), "{opposite},{word}: {lines:?}");
    }
}

#[test]
fn a_bind_keeps_what_it_is_not_told_to_change() {
    let all = libc::MS_RDONLY
        | libc::MS_NOSUID
        | libc::MS_NODEV
        | libc::MS_NOEXEC
        | libc::MS_NOATIME
        | libc::MS_NODIRATIME;
    let c = bundle!().with_tmpfs("source", all);
    let source = c.path("source");
    let shown = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"];
    let opposites = ["rw", "suid", "dev", "exec", "strictatime", "diratime"];
    let mut lists = vec![vec!["bind"], vec!["bind", "defaults"]];
    lists.extend(opposites.map(|word| vec!["bind", word]));
    let lines = mountinfo(c, "bind", &source, "", &lists);
    for (index, line) in lines.iter().enumerate() {
        for (flag, name) in shown.iter().enumerate() {
            let lifted = index == flag + 2;
            assert_eq!(shows(line, name), !lifted, "{:?}: {line}", lists[index]);
        }
    }
}

#[test]
fn words_with_an_r_reach_what_is_mounted_below() {
    let c = bundle!()
        .with_tmpfs("source", 0)
        .with_tmpfs("source/sub", 0);
    let source = c.path("source");
    let words: Vec<[String; 2]> = FLAGS
        .iter()
        .map(|(word, _, opposite)| [format!("r{word}"), format!("r{opposite}")])
        .collect();
    let mut lists = vec![];
    for ([word, opposite], (plain, ..)) in words.iter().zip(FLAGS) {
        lists.extend([
            vec!["rbind", word],
            vec!["rbind", word, opposite],
            vec!["rbind", plain],
        ]);
    }
    let lines = mountinfo(c, "bind", &source, "/sub", &lists);
    for (lines, (word, shown, _)) in lines.chunks(3).zip(FLAGS) {
        assert!(shows(&lines[0], shown), "r{word}: {lines:?}");
        assert!(!shows(&lines[1], shown), "r{word} undone: {lines:?}");
        assert_eq!(shows(&lines[2], shown), shown == "relatime", "{lines:?}");
    }
}

#[test]
fn words_that_mean_the_same() {
    let c = bundle!();
    let recursive = SYNONYMS.map(|(word, _)| format!("r{word}"));
    let mut lists = vec![];
    for ((word, _), recursive) in SYNONYMS.iter().zip(&recursive) {
        lists.extend([vec!["strictatime", word], vec!["strictatime", recursive]]);
    }
    let lines = mountinfo(c, "tmpfs", "tmpfs", "", &lists);
    for (line, options) in lines.iter().zip(&lists) {
        assert!(shows(line, "relatime"), "{options:?}: {line}");
    }
}

#[test]
fn options_that_belong_to_file_systems() {
    let c = bundle!();
    let lists: Vec<Vec<&str>> = OF_FILE_SYSTEMS
        .iter()
        .map(|(word, _)| vec![*word])
        .collect();
    let lines = mountinfo(c, "tmpfs", "tmpfs", "", &lists);
    for (line, (word, shown)) in lines.iter().zip(OF_FILE_SYSTEMS) {
        let (_, options) = options_of(line);
        let all: Vec<&str> = ["sync", "dirsync", "lazytime"]
            .into_iter()
            .filter(|name| has(&options, name))
            .collect();
        let wanted: Vec<&str> = Some(shown).into_iter().filter(|s| !s.is_empty()).collect();
        assert_eq!(all, wanted, "{word}: {line}");
    }
}

#[test]
fn propagation_of_binds() {
    let c = bundle!().with_tmpfs("source", 0);
    let source = c.path("source");
    let lists: Vec<Vec<&str>> = PROPAGATION
        .iter()
        .map(|(word, _)| vec!["rbind", word])
        .collect();
    let lines = mountinfo(c, "bind", &source, "", &lists);
    for (line, (word, shown)) in lines.iter().zip(PROPAGATION) {
        let (mount, _) = line.split_once(" - ").expect("a separator");
        let state: String = mount.split(' ').skip(3).collect();
        let found = ["shared:", "unbindable"]
            .into_iter()
            .find(|s| state.contains(s));
        assert_eq!(found.unwrap_or(""), shown, "{word}: {line}");
    }
}

/// Returns the options of mounts that `features` lists.
pub fn of_features(c: &Bundle) -> BTreeSet<String> {
    let text = c.call(&["features"]).finish().ok().stdout();
    let features: Value = serde_json::from_str(&text).expect("JSON");
    let listed = features["mountOptions"].as_array().expect("a list").iter();
    let listed = listed.filter_map(|word| word.as_str().map(String::from));
    listed.collect()
}

#[test]
fn no_option_of_features_is_without_a_test() {
    let c = bundle!();
    needs!(runtime() == Runtime::Cofferdam, "reads its features");
    let listed = of_features(&c);
    let mut tested: BTreeSet<String> = ELSEWHERE.map(String::from).into();
    tested.insert("dest-nofollow".into());
    for (word, _, opposite) in FLAGS {
        tested.extend([word, opposite].map(String::from));
        tested.extend([word, opposite].map(|word| format!("r{word}")));
    }
    for (word, _) in SYNONYMS {
        tested.extend([word.into(), format!("r{word}")]);
    }
    tested.extend(OF_FILE_SYSTEMS.map(|(word, _)| word.into()));
    tested.extend(PROPAGATION.map(|(word, _)| word.into()));
    assert_eq!(listed, tested);
}

#[test]
fn a_misspelt_flag_of_a_bind_is_an_error() {
    let mut c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let before = c.spec.clone();
    for (word, hint) in [
        ("readonly", "did you mean ro?"),
        ("nosiud", "did you mean nosuid?"),
        ("z", "cofferdam features"),
    ] {
        c.spec = before.clone();
        c = bound(c, "source", "/mnt", &["bind", word]);
        c.create()
            .fails_naming(&format!("options: {word}: is no option of a bind"))
            .fails_naming(hint);
        c.assert_gone();
    }
}

#[test]
fn words_with_a_value_are_warned_of() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let c = bound(c, "source", "/mnt", &["bind", "a=1k", "x-comment"]);
    let c = c.asks(&["ls /mnt"]);
    let said = c.run().ok().stderr();
    assert!(said.contains("a=1k: has no effect on a bind"), "{said}");
    assert!(said.contains("x-comment: has no effect"), "{said}");
}

#[test]
fn several_options_in_one_entry_are_told_apart() {
    let mut c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let before = c.spec.clone();
    for options in [&["rbind", "ro,nosuid"][..], &["rbind,ro"]] {
        c.spec = before.clone();
        c = bound(c, "source", "/mnt", options);
        c.create()
            .fails_naming("stands in one entry with others; give each option an entry of its own");
        c.assert_gone();
    }
}

/// A bind that ignored them would have the owners, the access or the size of its source.
#[test]
fn options_that_a_bind_must_not_ignore_are_refused() {
    let mut c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let before = c.spec.clone();
    let idmap = "takes no value; give uidMappings and gidMappings in mounts[7]";
    for (word, hint) in [
        ("idmap=uids=0-1000-10;gids=0-1000-10", idmap),
        ("ridmap=uids=0-1000-10;gids=0-1000-10", idmap),
        ("X-mount.idmap=b:0:1000:10", idmap),
        ("uid=5", "has no effect on a bind"),
        ("GID=5", "has no effect on a bind"),
        ("umask=077", "has no effect on a bind"),
        ("dmode=0700", "has no effect on a bind"),
        ("file_mode=0600", "has no effect on a bind"),
        ("nr_inodes=9", "has no effect on a bind"),
        ("rootcontext=u:r:t:s0", "has no effect on a bind"),
        ("X-mount.owner=5", "has no effect on a bind"),
    ] {
        c.spec = before.clone();
        c = bound(c, "source", "/mnt", &["bind", word]);
        c.create()
            .fails_naming(&format!("mounts[7].options: {word}: {hint}"));
        c.assert_gone();
    }
}

#[test]
fn what_the_source_forbids_stays_forbidden_in_a_user_namespace() {
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC | libc::MS_RDONLY;
    let mut c = bundle!().in_user_namespace().with_tmpfs("source", flags);
    let before = c.spec.clone();
    let path = c.path("source");
    let mut with = |options: &[&str]| {
        c.spec = before.clone();
        c.spec["mounts"].as_array_mut().expect("mounts").push(
            json!({"destination": "/mnt", "source": path, "type": "bind", "options": options}),
        );
        c.spec["process"]["args"] = json!(["/payload", "mountinfo", "/mnt"]);
        c.run()
    };
    for options in [&["bind"][..], &["rbind", "rprivate"], &["bind", "ro"]] {
        let line = with(options).ok().answer("mountinfo /mnt");
        let (found, _) = options_of(&line);
        for flag in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(has(&found, flag), "{options:?}: {found:?}");
        }
    }
    for (word, flag) in [
        ("rw", "ro"),
        ("suid", "nosuid"),
        ("dev", "nodev"),
        ("exec", "noexec"),
    ] {
        let wanted = format!("{word}: locked in a user namespace, the source is mounted {flag}");
        with(&["rbind", word]).fails_naming(&wanted);
    }
    for word in ["noatime", "nodiratime"] {
        let wanted = format!("{word}: locked in a user namespace, where times of access");
        with(&["rbind", word]).fails_naming(&wanted);
    }
}

#[test]
fn without_a_user_namespace_flags_of_the_source_can_be_lifted() {
    let c = bundle!().with_tmpfs("source", libc::MS_NOSUID | libc::MS_RDONLY);
    let c = bound(c, "source", "/mnt", &["bind", "rw", "suid"]);
    let line = c
        .asks(&["mountinfo /mnt"])
        .run()
        .ok()
        .answer("mountinfo /mnt");
    let (found, _) = options_of(&line);
    assert!(has(&found, "rw") && !has(&found, "nosuid"), "{found:?}");
}

/// Who runs in a user namespace already gets the kernel's locks.
#[test]
fn locks_of_the_kernel_are_named() {
    let c = bundle!().with_tmpfs("source", libc::MS_NOSUID);
    let c = bound(c, "source", "/mnt", &["bind", "suid"]);
    let call = c.call_new("run", &[]).setup(|| {
        // SAFETY: plain calls that touch no memory of ours.
        let done = unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) };
        if done < 0 {
            return Err(std::io::Error::last_os_error());
        }
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", "0 0 1")?;
        fs::write("/proc/self/gid_map", "0 0 1")
    });
    call.finish()
        .fails_naming("suid: locked in a user namespace, the source is mounted nosuid");
}

#[test]
fn what_is_no_mount_cannot_be_remounted() {
    for options in [&["bind", "remount"][..], &["bind", "remount", "ro"]] {
        let c = bundle!().folder("/plain");
        let c = c.mount("none", "none", "/plain", options);
        c.create().fails_naming("nothing is mounted there");
        c.assert_gone();
    }
}

#[test]
fn a_mount_is_remounted() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let c = bound(c, "source", "/mnt", &["bind", "nodev"])
        .mount("none", "none", "/mnt", &["bind", "remount", "ro", "noexec"])
        .mount("tmpfs", "tmpfs", "/t", &["size=64k"])
        .mount("tmpfs", "tmpfs", "/t", &["remount", "size=128k"])
        .asks(&["mountinfo /mnt", "mountinfo /t"]);
    let output = c.run().ok();
    let (found, _) = options_of(&output.answer("mountinfo /mnt"));
    assert!(has(&found, "ro") && has(&found, "noexec"), "{found:?}");
    let (_, found) = options_of(&output.answer("mountinfo /t"));
    assert!(has(&found, "size=128k"), "{found:?}");
}

#[test]
fn nothing_is_copied_up_into_a_bind() {
    let c = bundle!();
    fs::create_dir(c.path("source")).expect("mkdir");
    let c = bound(c, "source", "/mnt", &["bind", "tmpcopyup"]);
    c.create().fails_naming("tmpcopyup: only a new tmpfs");
    c.assert_gone();
}

/// mount_namespaces(7): flags of mounts that came from a more privileged namespace.
#[test]
fn what_the_source_forbids_cannot_be_lifted_from_inside() {
    let remount = libc::MS_REMOUNT | libc::MS_BIND;
    let lift = format!("syscall 165 z s:/mnt z {remount} 0");
    let c = bundle!()
        .in_user_namespace()
        .with_tmpfs("source", libc::MS_RDONLY | libc::MS_NOSUID)
        .caps(&["CAP_SYS_ADMIN"]);
    let c = bound(c, "source", "/mnt", &["bind"]).asks(&[&lift, "mountinfo /mnt"]);
    let output = c.run().ok();
    assert_eq!(
        output.answer(&lift),
        "EPERM",
        "{}",
        output.answer("mountinfo /mnt")
    );
}

/// Below a link of the image, a place may be new as well.
#[test]
fn a_tmpfs_in_a_new_place_has_its_own_mode() {
    let c = bundle!().folder("/run/old").folder("/var");
    fs::set_permissions(c.rootfs().join("run/old"), PermissionsExt::from_mode(0o710))
        .expect("chmod");
    let places = [
        "/var/run/app",
        "/run/app2",
        "/var/run/deep/er",
        "/var/run/old",
        "/dangling",
    ];
    let c = c.link("/var/run", "/run").link("/dangling", "/run/named");
    let mount = |c: Bundle, place: &&str| c.mount("tmpfs", "tmpfs", place, &[]);
    let c = places.iter().fold(c, mount);
    let questions = places.map(|place| format!("stat {place}"));
    let c = c.asks(&questions.each_ref().map(String::as_str));
    let output = c.run().ok();
    let modes = questions.map(|question| output.answer(&question));
    let (new, old) = ("dir 1777 0:0", "dir 0710 0:0");
    assert_eq!(modes, [new, new, new, old, new]);
}
