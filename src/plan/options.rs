//! The options of `mounts[]`: ONE table of names feeds the parser, the printed plan and `features`.

use anyhow::{Result, bail};
use libc::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV,
    MOUNT_ATTR_NODIRATIME as NODIRATIME, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY,
    MOUNT_ATTR_RELATIME as RELATIME, MOUNT_ATTR_STRICTATIME as STRICTATIME, MS_PRIVATE, MS_SHARED,
    MS_SLAVE, MS_UNBINDABLE,
};

use super::step::Propagation;
use crate::sys::mount::Attributes;
use crate::text::suggest;

/// One entry's options, sorted by what they act on.
#[derive(Default)]
pub struct Options {
    pub bind: Option<bool>,
    pub remount: bool,
    pub attributes: Attributes,
    pub recursive_attributes: Attributes,
    pub propagation: Vec<Propagation>,
    pub superblock: Vec<String>,
    pub data: Vec<String>,
    pub idmap: Option<bool>,
    pub copy_up: bool,
    pub copy_symlink: bool,
    pub source_nofollow: bool,
    pub destination_nofollow: bool,
}

/// What an option of the spec's table does.
#[derive(Clone, Copy)]
enum Effect {
    /// Nothing that the mount API can say, or the kernel's default.
    Nothing,
    Set(u64),
    Clear(u64),
    /// One of the three ways to keep access times, which exclude each other.
    AccessTime(u64),
    /// A flag of the superblock, by its name for fsconfig(2).
    Superblock(&'static str),
    Bind,
    Remount,
    Propagation(u64),
    Idmap,
    CopyUp,
    /// A source that is a symbolic link is copied as a link, not mounted.
    CopySymlink,
    /// A source that is a symbolic link is bound itself, not what it points to.
    SourceNofollow,
    /// A destination that is a symbolic link is covered itself.
    DestinationNofollow,
}

use Effect::{AccessTime, Clear, CopyUp, Nothing, Set, Superblock};

/// Option, effect, whether it takes in all mounts below. The first name of an attribute is its printed one.
const OPTIONS: &[(&str, Effect, bool)] = &[
    ("defaults", Nothing, false),
    ("ro", Set(RDONLY), false),
    ("rw", Clear(RDONLY), false),
    ("nosuid", Set(NOSUID), false),
    ("suid", Clear(NOSUID), false),
    ("nodev", Set(NODEV), false),
    ("dev", Clear(NODEV), false),
    ("noexec", Set(NOEXEC), false),
    ("exec", Clear(NOEXEC), false),
    ("noatime", AccessTime(NOATIME), false),
    ("atime", AccessTime(RELATIME), false),
    ("relatime", AccessTime(RELATIME), false),
    ("norelatime", AccessTime(RELATIME), false),
    ("strictatime", AccessTime(STRICTATIME), false),
    ("nostrictatime", AccessTime(RELATIME), false),
    ("nodiratime", Set(NODIRATIME), false),
    ("diratime", Clear(NODIRATIME), false),
    ("nosymfollow", Set(NOSYMFOLLOW), false),
    ("symfollow", Clear(NOSYMFOLLOW), false),
    ("sync", Superblock("sync"), false),
    ("async", Superblock("async"), false),
    ("dirsync", Superblock("dirsync"), false),
    ("lazytime", Superblock("lazytime"), false),
    ("nolazytime", Superblock("nolazytime"), false),
    ("mand", Superblock("mand"), false),
    ("nomand", Superblock("nomand"), false),
    ("iversion", Nothing, false),
    ("noiversion", Nothing, false),
    ("silent", Nothing, false),
    ("loud", Nothing, false),
    ("bind", Effect::Bind, false),
    ("rbind", Effect::Bind, true),
    ("remount", Effect::Remount, false),
    ("shared", Effect::Propagation(MS_SHARED), false),
    ("rshared", Effect::Propagation(MS_SHARED), true),
    ("slave", Effect::Propagation(MS_SLAVE), false),
    ("rslave", Effect::Propagation(MS_SLAVE), true),
    ("private", Effect::Propagation(MS_PRIVATE), false),
    ("rprivate", Effect::Propagation(MS_PRIVATE), true),
    ("unbindable", Effect::Propagation(MS_UNBINDABLE), false),
    ("runbindable", Effect::Propagation(MS_UNBINDABLE), true),
    ("idmap", Effect::Idmap, false),
    ("ridmap", Effect::Idmap, true),
    ("tmpcopyup", CopyUp, false),
    ("copy-symlink", Effect::CopySymlink, false),
    ("src-nofollow", Effect::SourceNofollow, false),
    ("dest-nofollow", Effect::DestinationNofollow, false),
    ("rro", Set(RDONLY), true),
    ("rrw", Clear(RDONLY), true),
    ("rnosuid", Set(NOSUID), true),
    ("rsuid", Clear(NOSUID), true),
    ("rnodev", Set(NODEV), true),
    ("rdev", Clear(NODEV), true),
    ("rnoexec", Set(NOEXEC), true),
    ("rexec", Clear(NOEXEC), true),
    ("rnoatime", AccessTime(NOATIME), true),
    ("ratime", AccessTime(RELATIME), true),
    ("rrelatime", AccessTime(RELATIME), true),
    ("rnorelatime", AccessTime(RELATIME), true),
    ("rstrictatime", AccessTime(STRICTATIME), true),
    ("rnostrictatime", AccessTime(RELATIME), true),
    ("rnodiratime", Set(NODIRATIME), true),
    ("rdiratime", Clear(NODIRATIME), true),
    ("rnosymfollow", Set(NOSYMFOLLOW), true),
    ("rsymfollow", Clear(NOSYMFOLLOW), true),
];

pub fn names() -> Vec<&'static str> {
    OPTIONS.iter().map(|(name, ..)| *name).collect()
}

impl Options {
    /// Sorts the words; what the table does not know is for the filesystem.
    pub fn parse(words: &[String]) -> Options {
        let mut options = Options::default();
        for word in words.iter().filter(|word| !word.is_empty()) {
            match OPTIONS.iter().find(|(name, ..)| name == word) {
                Some((_, effect, recursive)) => options.apply(*effect, *recursive),
                None => options.data.push(word.clone()),
            }
        }
        options
    }

    /// The attributes of a new filesystem, which has no mounts below it: what takes those in comes last.
    pub fn of_new_mount(&self) -> u64 {
        self.attributes.set & !self.recursive_attributes.clear | self.recursive_attributes.set
    }

    fn apply(&mut self, effect: Effect, recursive: bool) {
        let attributes = if recursive {
            &mut self.recursive_attributes
        } else {
            &mut self.attributes
        };
        attributes.recursive = recursive;
        match effect {
            Effect::Nothing => {}
            Effect::Set(flag) => change(attributes, flag, flag, 0),
            Effect::Clear(flag) => change(attributes, flag, 0, flag),
            // mount_setattr(2): to set any of them, the whole field must be cleared.
            Effect::AccessTime(flag) => change(attributes, ATIME, flag, ATIME),
            Effect::Superblock(name) => self.superblock.push(name.to_string()),
            // As flags of mount(2) they add up: "bind" does not undo the MS_REC of "rbind".
            Effect::Bind => self.bind = Some(recursive || self.bind == Some(true)),
            Effect::Remount => self.remount = true,
            Effect::Propagation(kind) => self.propagation.push(Propagation { kind, recursive }),
            Effect::Idmap => self.idmap = Some(recursive),
            Effect::CopyUp => self.copy_up = true,
            Effect::CopySymlink => self.copy_symlink = true,
            Effect::SourceNofollow => self.source_nofollow = true,
            Effect::DestinationNofollow => self.destination_nofollow = true,
        }
    }
}

/// What people write for an option whose name is another.
const ALIASES: [(&str, &str); 6] = [
    ("readonly", "ro"),
    ("read-only", "ro"),
    ("readwrite", "rw"),
    ("read-write", "rw"),
    ("writable", "rw"),
    ("recursive", "rbind"),
];

/// The option that somebody may have meant by a word that is none.
pub fn nearest(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    let alias = ALIASES.iter().find(|(alias, _)| *alias == word);
    let close = || suggest::nearest(&word, OPTIONS.iter().map(|(name, ..)| *name));
    alias.map(|(_, name)| *name).or_else(close)
}

/// The last word on a flag counts.
fn change(attributes: &mut Attributes, field: u64, set: u64, clear: u64) {
    attributes.set = attributes.set & !field | set;
    attributes.clear = attributes.clear & !field | clear;
}

/// The options that say these changes, in the words of the table.
pub fn attribute_names(set: u64, clear: u64, prefix: &str) -> Vec<String> {
    let named = |(name, effect, recursive): &(&str, Effect, bool)| {
        let stated = match effect {
            _ if *recursive => false,
            Set(flag) => set & flag != 0,
            Clear(flag) => clear & flag != 0,
            AccessTime(flag) => match *name {
                "noatime" | "strictatime" => set & ATIME == *flag,
                "relatime" => clear & ATIME != 0 && set & ATIME == 0,
                _ => false,
            },
            _ => false,
        };
        stated.then(|| format!("{prefix}{name}"))
    };
    OPTIONS.iter().filter_map(named).collect()
}

pub fn propagation_name(propagation: Propagation) -> &'static str {
    let same = |entry: &&(&str, Effect, bool)| {
        matches!(entry.1, Effect::Propagation(kind) if kind == propagation.kind)
            && entry.2 == propagation.recursive
    };
    OPTIONS.iter().find(same).map_or("", |(name, ..)| name)
}

/// The propagation that a word of the spec names.
pub fn propagation(word: &str, field: &str) -> Result<Propagation> {
    let found = OPTIONS
        .iter()
        .find_map(|(name, effect, recursive)| match effect {
            Effect::Propagation(kind) if *name == word => Some(Propagation {
                kind: *kind,
                recursive: *recursive,
            }),
            _ => None,
        });
    let Some(found) = found else {
        bail!(
            "{field}: {word}: must be shared, slave, private or unbindable, or one of them after an r"
        );
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        let words: Vec<String> = words.split_whitespace().map(str::to_string).collect();
        Options::parse(&words)
    }

    #[test]
    fn the_last_word_on_an_attribute_counts() {
        let cases = [
            ("defaults", 0, 0),
            ("ro nosuid", RDONLY | NOSUID, 0),
            ("ro rw", 0, RDONLY),
            ("rw ro", RDONLY, 0),
            ("noexec exec dev", 0, NOEXEC | NODEV),
            ("noatime", NOATIME, ATIME),
            ("noatime relatime", RELATIME, ATIME),
            (
                "strictatime noatime nodiratime",
                NOATIME | NODIRATIME,
                ATIME,
            ),
            ("nosymfollow symfollow", 0, NOSYMFOLLOW),
        ];
        for (words, set, clear) in cases {
            let Attributes {
                set: s,
                clear: c,
                recursive,
            } = parse(words).attributes;
            assert_eq!((s, c, recursive), (set, clear, false), "{words}");
        }
    }

    #[test]
    fn words_with_an_r_take_in_what_is_mounted_below() {
        let options = parse("ro rnosuid rnoatime rrw");
        assert_eq!(options.attributes.set, RDONLY);
        let recursive = options.recursive_attributes;
        assert_eq!(recursive.set, NOSUID | NOATIME);
        assert_eq!(recursive.clear, ATIME | RDONLY);
        assert!(recursive.recursive && !options.attributes.recursive);
    }

    #[test]
    fn a_new_mount_has_what_both_kinds_of_words_say() {
        let cases = [
            ("ro rnosuid", RDONLY | NOSUID),
            ("ro rrw", 0),
            ("noatime rstrictatime", STRICTATIME),
            ("rro", RDONLY),
        ];
        for (words, attributes) in cases {
            assert_eq!(parse(words).of_new_mount(), attributes, "{words}");
        }
    }

    #[test]
    fn words_are_sorted_by_what_they_act_on() {
        let options = parse("rbind sync size=1k rshared private tmpcopyup ridmap remount mode=755");
        assert_eq!(options.bind, Some(true));
        assert_eq!(options.idmap, Some(true));
        assert!(options.copy_up && options.remount);
        assert_eq!(options.superblock, ["sync"]);
        assert_eq!(options.data, ["size=1k", "mode=755"]);
        let names = options
            .propagation
            .iter()
            .map(|kind| propagation_name(*kind));
        assert_eq!(names.collect::<Vec<_>>(), ["rshared", "private"]);
        assert_eq!(parse("bind").bind, Some(false));
        assert_eq!(parse("rbind bind").bind, Some(true));
        assert_eq!(parse("idmap").idmap, Some(false));
    }

    #[test]
    fn no_word_of_the_table_reaches_the_filesystem_and_none_is_listed_twice() {
        let mut names = names();
        for name in &names {
            assert_eq!(parse(name).data, [""; 0], "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), OPTIONS.len());
        assert_eq!(parse("RO unknown").data, ["RO", "unknown"]);
    }

    #[test]
    fn a_word_that_is_no_option_is_near_to_one_or_to_none() {
        let cases = [
            ("readonly", Some("ro")),
            ("RO", Some("ro")),
            ("nosiud", Some("nosuid")),
            ("no-exec", Some("noexec")),
            ("rbnd", Some("rbind")),
            ("copysymlink", Some("copy-symlink")),
            ("z", None),
            ("wonderful", None),
            ("", None),
        ];
        for (word, option) in cases {
            assert_eq!(nearest(word), option, "{word}");
        }
    }

    #[test]
    fn attributes_are_printed_in_words_that_parse_to_them() {
        let cases = [
            "ro",
            "rw",
            "nosuid",
            "suid",
            "nodev",
            "dev",
            "noexec",
            "exec",
            "noatime",
            "relatime",
            "strictatime",
            "nodiratime",
            "diratime",
            "nosymfollow",
            "symfollow",
        ];
        for word in cases {
            let Attributes { set, clear, .. } = parse(word).attributes;
            assert_eq!(attribute_names(set, clear, ""), [word]);
        }
        assert_eq!(attribute_names(RDONLY | NOEXEC, 0, "r"), ["rro", "rnoexec"]);
    }

    #[test]
    fn only_words_for_propagation_are_taken_as_such() {
        let found = propagation("rslave", "f").unwrap();
        assert_eq!((found.kind, found.recursive), (MS_SLAVE, true));
        let found = propagation("unbindable", "f").unwrap();
        assert_eq!((found.kind, found.recursive), (MS_UNBINDABLE, false));
        for word in ["ro", "", "Shared", "rrshared"] {
            let error = propagation(word, "f").unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("f: {word}: must be shared")),
                "{error}"
            );
        }
    }
}
