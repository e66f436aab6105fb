//! Two options of a mount that set one thing, every pair in both orders: on the mount, and on what is mounted below its source.

use crate::mounts::options_of;
use crate::options::of_features;
use crate::support::{Bundle, Runtime, lines, runtime};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Options of the mount and of the file system, and the propagation.
type Shown = (Vec<String>, Vec<String>, String);

/// All ordered pairs.
fn pairs<'a>(words: &[&'a str]) -> Vec<[&'a str; 2]> {
    let with = |first: &&'a str| {
        words
            .iter()
            .map(|second| [*first, *second])
            .collect::<Vec<_>>()
    };
    words.iter().flat_map(with).collect()
}

/// Mounts one after the other in one container, and returns what each place of the container's mountinfo shows.
fn shown(mut c: Bundle, kind: &str, source: &str, lists: &[Vec<&str>]) -> HashMap<String, Shown> {
    for (index, options) in lists.iter().enumerate() {
        c = c.mount(kind, source, &format!("/m{index}"), options);
    }
    let c = c.asks(&["pause"]);
    c.create().ok();
    let table = lines(Path::new(&format!("/proc/{}/mountinfo", c.pid())));
    let entry = |line: &String| {
        let fields: Vec<&str> = line.split(' ').collect();
        let own = fields[6..].iter().take_while(|field| **field != "-");
        let own = own.map(|field| field.split(':').next().unwrap_or_default());
        let propagation = own.collect::<Vec<_>>().join(" ");
        let (mount, filesystem) = options_of(&fields[3..].join(" "));
        (fields[4].to_string(), (mount, filesystem, propagation))
    };
    let shown = table.iter().map(entry).collect();
    c.delete(&["--force"]).ok();
    shown
}

/// A source with a mount below it.
fn source(c: Bundle) -> (Bundle, String) {
    let c = c.with_tmpfs("source", 0).with_tmpfs("source/sub", 0);
    let source = c.path("source");
    (c, source)
}

fn has(options: &[String], word: &str) -> bool {
    options.iter().any(|option| option == word)
}

const FLAGS: [(&str, &str); 6] = [
    ("ro", "rw"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("noexec", "exec"),
    ("nodiratime", "diratime"),
    ("nosymfollow", "symfollow"),
];

/// A plain word acts on the mount alone, the last one counts; a word with an r acts on all mounts afterwards.
fn check_flag(c: Bundle, (flag, opposite): (&str, &str), opposed: bool) {
    let (r_flag, r_opposite) = (format!("r{flag}"), format!("r{opposite}"));
    let words = [flag, opposite, &r_flag, &r_opposite];
    let mut pairs = pairs(&words);
    pairs.retain(|[a, b]| {
        opposed
            == (a != b
                && [*a, *b]
                    .iter()
                    .all(|word| word.starts_with('r') && words[2..].contains(word)))
    });
    let lists: Vec<_> = pairs.iter().map(|[a, b]| vec!["rbind", a, b]).collect();
    let (c, source) = source(c);
    let shown = shown(c, "bind", &source, &lists);
    let last = |pair: &[&str; 2], sets: &str, clears: &str| {
        let said = pair
            .iter()
            .rev()
            .find(|word| [sets, clears].contains(*word));
        said.map(|word| *word == sets)
    };
    for (index, pair) in pairs.iter().enumerate() {
        let below = last(pair, &r_flag, &r_opposite);
        let top = below.or(last(pair, flag, opposite));
        for (place, wanted) in [("", top), ("/sub", below)] {
            let (mount, ..) = &shown[&format!("/m{index}{place}")];
            assert_eq!(
                has(mount, flag),
                wanted == Some(true),
                "{pair:?}{place}: {mount:?}"
            );
        }
    }
}

#[test]
fn pairs_that_set_read_only() {
    check_flag(bundle!(), FLAGS[0], false);
}

#[test]
fn pairs_that_set_nosuid() {
    check_flag(bundle!(), FLAGS[1], false);
}

#[test]
fn pairs_that_set_nodev() {
    check_flag(bundle!(), FLAGS[2], false);
}

#[test]
fn pairs_that_set_noexec() {
    check_flag(bundle!(), FLAGS[3], false);
}

#[test]
fn pairs_that_set_nodiratime() {
    check_flag(bundle!(), FLAGS[4], false);
}

#[test]
fn pairs_that_set_nosymfollow() {
    check_flag(bundle!(), FLAGS[5], false);
}

#[test]
fn the_last_of_two_opposites_counts_on_all_mounts() {
    for flag in FLAGS {
        check_flag(bundle!(), flag, true);
    }
}

/// The access time that each word leaves; the three ways exclude each other.
const ACCESS_TIMES: [(&str, &str); 6] = [
    ("noatime", "noatime"),
    ("atime", "relatime"),
    ("relatime", "relatime"),
    ("norelatime", "relatime"),
    ("strictatime", ""),
    ("nostrictatime", "relatime"),
];

fn check_times(c: Bundle, prefixes: [&str; 2]) {
    let words: Vec<Vec<String>> = prefixes
        .iter()
        .map(|prefix| {
            ACCESS_TIMES
                .iter()
                .map(|(word, _)| format!("{prefix}{word}"))
                .collect()
        })
        .collect();
    let mut cases = vec![];
    for (first, a) in words[0].iter().zip(ACCESS_TIMES) {
        for (second, b) in words[1].iter().zip(ACCESS_TIMES) {
            // A word with an r counts on all mounts, whether it comes first or last.
            let [r, s] = prefixes.map(|prefix| !prefix.is_empty());
            let top = if r && !s { a.1 } else { b.1 };
            let below = if s {
                b.1
            } else if r {
                a.1
            } else {
                "relatime"
            };
            cases.push((vec!["rbind", first, second], top, below));
        }
    }
    let (c, source) = source(c);
    let lists: Vec<_> = cases.iter().map(|(list, ..)| list.clone()).collect();
    let shown = shown(c, "bind", &source, &lists);
    for (index, (list, top, below)) in cases.iter().enumerate() {
        for (place, wanted) in [("", top), ("/sub", below)] {
            let (mount, ..) = &shown[&format!("/m{index}{place}")];
            let found = ["noatime", "relatime"]
                .into_iter()
                .find(|word| has(mount, word));
            assert_eq!(found.unwrap_or(""), *wanted, "{list:?}{place}: {mount:?}");
        }
    }
}

#[test]
fn pairs_that_set_access_times() {
    check_times(bundle!(), ["", ""]);
}

#[test]
fn pairs_that_set_access_times_of_all_mounts() {
    check_times(bundle!(), ["r", "r"]);
}

#[test]
fn pairs_that_set_access_times_of_one_and_of_all_mounts() {
    check_times(bundle!(), ["", "r"]);
    check_times(bundle!(), ["r", ""]);
}

/// As flags of mount(2), MS_BIND and MS_REC add up.
#[test]
fn bind_and_rbind_add_up() {
    let (c, source) = source(bundle!());
    let lists = [
        vec!["bind"],
        vec!["bind", "rbind"],
        vec!["rbind", "bind"],
        vec!["rbind", "rprivate", "ro", "bind"],
        vec!["bind", "rbind", "bind"],
        vec!["bind", "bind"],
    ];
    let shown = shown(c, "bind", &source, &lists);
    for (index, list) in lists.iter().enumerate() {
        let below = shown.contains_key(&format!("/m{index}/sub"));
        assert_eq!(below, list.contains(&"rbind"), "{list:?}");
    }
}

const PROPAGATION: [&str; 8] = [
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
];

/// Each of them is one call of mount(2), in their order.
#[test]
fn pairs_that_set_propagation() {
    let pairs = pairs(&PROPAGATION);
    let lists: Vec<_> = pairs.iter().map(|[a, b]| vec!["rbind", a, b]).collect();
    let (c, source) = source(bundle!());
    let shown = shown(c, "bind", &source, &lists);
    for (index, pair) in pairs.iter().enumerate() {
        let mut wanted = [String::new(), String::new()];
        for word in pair {
            let (kind, count) = word.strip_prefix('r').map_or((*word, 1), |kind| (kind, 2));
            for place in &mut wanted[..count] {
                *place = match (kind, place.as_str()) {
                    // It is of no group whose master could be left.
                    ("slave", "unbindable") => "unbindable".to_string(),
                    ("private" | "slave", _) => String::new(),
                    (kind, _) => kind.to_string(),
                };
            }
        }
        for (place, wanted) in ["", "/sub"].iter().zip(&wanted) {
            let (.., found) = &shown[&format!("/m{index}{place}")];
            assert_eq!(found, wanted, "{pair:?}{place}");
        }
    }
}

/// The last word on the whole file system counts.
#[test]
fn pairs_that_set_options_of_file_systems() {
    let opposites = [("sync", "async"), ("lazytime", "nolazytime")];
    let mut lists = vec![];
    for (word, opposite) in opposites {
        lists.extend([vec![word, opposite], vec![opposite, word]]);
    }
    lists.extend([vec!["size=64k", "size=128k"], vec!["mode=700", "mode=711"]]);
    let shown = shown(bundle!(), "tmpfs", "tmpfs", &lists);
    for (index, list) in lists.iter().enumerate() {
        let (_, filesystem, _) = &shown[&format!("/m{index}")];
        let [first, last] = [list[0], list[1]];
        let undoes = opposites.iter().any(|(_, opposite)| *opposite == last);
        assert_eq!(has(filesystem, last), !undoes, "{list:?}: {filesystem:?}");
        assert!(!has(filesystem, first), "{list:?}: {filesystem:?}");
    }
}

/// Options that set a thing which no other option sets, or which the kernel ignores.
const ALONE: [&str; 16] = [
    "defaults",
    "dirsync",
    "mand",
    "nomand",
    "iversion",
    "noiversion",
    "silent",
    "loud",
    "remount",
    "idmap",
    "ridmap",
    "tmpcopyup",
    "copy-symlink",
    "src-nofollow",
    "dest-nofollow",
    "bind",
];

#[test]
fn no_option_of_features_is_without_its_pairs() {
    let c = bundle!();
    needs!(runtime() == Runtime::Cofferdam, "reads its features");
    let listed = of_features(&c);
    let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    let flags = FLAGS.iter().flat_map(|(flag, opposite)| [*flag, *opposite]);
    let plain: Vec<&str> = flags.chain(ACCESS_TIMES.map(|(word, _)| word)).collect();
    let recursive: Vec<String> = plain.iter().map(|word| format!("r{word}")).collect();
    let others = ["rbind", "sync", "async", "lazytime", "nolazytime"];
    let tested = plain
        .into_iter()
        .chain(recursive.iter().map(String::as_str));
    let tested = tested.chain(PROPAGATION).chain(others).chain(ALONE);
    assert_eq!(listed, tested.collect());
}
