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
    ("norelatime", AccessTime(STRICTATIME), false),
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
    ("rnorelatime", AccessTime(STRICTATIME), true),
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
            Effect::Bind => self.bind = Some(recursive),
            Effect::Remount => self.remount = true,
            Effect::Propagation(kind) => self.propagation.push(Propagation { kind, recursive }),
            Effect::Idmap => self.idmap = Some(recursive),
            Effect::CopyUp => self.copy_up = true,
        }
    }
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
