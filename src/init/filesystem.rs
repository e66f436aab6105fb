//! CHILD: makes new filesystems, each as a detached mount.
//!
//! fsconfig(2) takes a string of 255 bytes at most. A filesystem with a longer one is made by mount(2). An overlay first tries
//! to name its directories one by one.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use libc::MOUNT_ATTR__ATIME as ATIME;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::stat::{Mode, mkdirat};

use crate::sys::mount::{self, Attributes, Configuration, MAX_STRING};
use crate::sys::{self, named, path};

/// The bytes of the options, and of the source, that mount(2) takes: a page without its last byte.
const MAX_DATA: usize = 4095;

pub struct New<'a> {
    pub kind: &'a str,
    pub source: Option<&'a str>,
    /// Paths of an overlay have overlay's own escapes.
    pub options: &'a [String],
    pub attributes: u64,
}

/// Makes the filesystem. `place` is a directory on which something may be mounted for a moment; with None mount(2) is not
/// tried.
pub fn make(new: &New, place: Option<&OwnedFd>) -> Result<OwnedFd> {
    let has_long = has_long_string(new);
    let filesystem = Configuration::open(new.kind)?;
    let configured = if has_long && new.kind == "overlay" {
        configure_overlay(&filesystem, new)
    } else {
        configure(&filesystem, new.source, new.options)
    };
    match (
        configured.and_then(|()| filesystem.mount(new.attributes)),
        place,
    ) {
        // An older kernel also says EINVAL to `lowerdir+`, before Linux 6.5 not until it makes the superblock.
        (Err(error), Some(place)) if has_long && sys::errno(&error) == Some(Errno::EINVAL) => {
            make_by_mount(new, place)
        }
        (made, _) => made,
    }
}

fn has_long_string(new: &New) -> bool {
    let parts = |option: &str| match option.split_once('=') {
        Some((key, value)) => key.len().max(value.len()),
        None => option.len(),
    };
    let options = new.options.iter().map(|option| parts(option));
    let longest = options.chain(new.source.map(str::len)).max();
    longest > Some(MAX_STRING)
}

/// Sets the source and the options of a new filesystem.
pub fn configure(
    filesystem: &Configuration,
    source: Option<&str>,
    options: &[String],
) -> Result<()> {
    if let Some(source) = source {
        filesystem.string("source", source)?;
    }
    options
        .iter()
        .try_for_each(|option| filesystem.option(option))
}

/// Names the layers one by one (Linux 6.8), and directories with a long path by a descriptor (Linux 6.13).
fn configure_overlay(filesystem: &Configuration, new: &New) -> Result<()> {
    if let Some(source) = new.source {
        filesystem.string("source", source)?;
    }
    let set = |key: &str, directory: &str, text: &str| match text.len() > MAX_STRING {
        true => filesystem.descriptor(key, path::open_directory(Path::new(directory))?),
        false => filesystem.string(key, text),
    };
    for option in new.options {
        match option.split_once('=') {
            Some(("lowerdir", list)) => {
                for (key, layer) in layers(list) {
                    set(key, &layer, &layer)?;
                }
            }
            Some((key @ ("upperdir" | "workdir"), path)) => set(key, &unescaped(path), path)?,
            _ => filesystem.option(option)?,
        }
    }
    Ok(())
}

/// Returns the layers of overlay's `lowerdir` with the options that add them. Layers after `::` hold data only.
fn layers(list: &str) -> Vec<(&'static str, String)> {
    let mut is_escaped = false;
    let parts = list.split(|letter| {
        let ends = letter == ':' && !is_escaped;
        is_escaped = letter == '\\' && !is_escaped;
        ends
    });
    let mut key = "lowerdir+";
    let mut layers = Vec::new();
    for part in parts {
        match part {
            "" => key = "datadir+",
            layer => layers.push((key, unescaped(layer))),
        }
    }
    layers
}

fn unescaped(text: &str) -> String {
    let mut letters = text.chars();
    let next = || match letters.next() {
        Some('\\') => letters.next(),
        other => other,
    };
    std::iter::from_fn(next).collect()
}

/// Makes the filesystem by mount(2), on a tmpfs that lies on `place` meanwhile. A copy of the mount is left.
fn make_by_mount(new: &New, place: &OwnedFd) -> Result<OwnedFd> {
    let (flags, data) = flags_and_data(new.options);
    let source = new.source.map_or(0, str::len);
    ensure!(
        source <= MAX_DATA,
        "source: has {source} bytes; mount(2) takes at most {MAX_DATA}"
    );
    ensure!(
        data.len() <= MAX_DATA,
        "options: have {} bytes together; mount(2) takes at most {MAX_DATA}",
        data.len()
    );
    let scratch = Configuration::open("tmpfs")?.mount(0)?;
    mount::move_mount(&scratch, place).context("attach a tmpfs for a moment")?;
    let here = format!("/proc/self/fd/{}", scratch.as_raw_fd());
    let made = mkdirat(&scratch, "new", Mode::S_IRWXU);
    let made = named(made, || "mkdirat(\"new\")".to_string()).and_then(|()| {
        let target = format!("{here}/new");
        let mounted = nix::mount::mount(
            new.source,
            target.as_str(),
            Some(new.kind),
            flags,
            Some(data.as_str()),
        );
        named(mounted, || format!("mount({})", new.kind))?;
        mount::clone_tree(Path::new(&target), false)
    });
    let left = umount2(here.as_str(), MntFlags::MNT_DETACH);
    let made = made?;
    named(left, || "umount(tmpfs, MNT_DETACH)".to_string())?;
    let attributes = Attributes {
        set: new.attributes,
        clear: ATIME,
        recursive: false,
    };
    mount::set_attributes(&made, attributes)?;
    Ok(made)
}

/// Sorts the options for mount(2): the superblock's own are flags there.
fn flags_and_data(options: &[String]) -> (MsFlags, String) {
    let mut flags = MsFlags::empty();
    let mut data = Vec::new();
    for option in options {
        match option.as_str() {
            "ro" => flags |= MsFlags::MS_RDONLY,
            "sync" => flags |= MsFlags::MS_SYNCHRONOUS,
            "async" => flags -= MsFlags::MS_SYNCHRONOUS,
            "dirsync" => flags |= MsFlags::MS_DIRSYNC,
            "lazytime" => flags |= MsFlags::MS_LAZYTIME,
            "nolazytime" => flags -= MsFlags::MS_LAZYTIME,
            "mand" => flags |= MsFlags::MS_MANDLOCK,
            "nomand" => flags -= MsFlags::MS_MANDLOCK,
            other => data.push(match other.split_once("context=") {
                Some((name, value)) if value.contains(',') => format!("{name}context=\"{value}\""),
                _ => other.to_string(),
            }),
        }
    }
    (flags, data.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_layers_is_split_where_no_backslash_stands_before_the_colon() {
        let (lower, data) = ("lowerdir+", "datadir+");
        let cases = [
            ("/a", vec![(lower, "/a")]),
            ("/a:/b", vec![(lower, "/a"), (lower, "/b")]),
            (
                r"/a\:b\,c:/d\\:/e",
                vec![(lower, "/a:b,c"), (lower, r"/d\"), (lower, "/e")],
            ),
            (
                "/a::/b::/c",
                vec![(lower, "/a"), (data, "/b"), (data, "/c")],
            ),
        ];
        for (list, want) in cases {
            let found = layers(list);
            let found: Vec<(&str, &str)> = found
                .iter()
                .map(|(key, layer)| (*key, layer.as_str()))
                .collect();
            assert_eq!(found, want, "{list}");
        }
    }

    #[test]
    fn the_last_flag_of_a_superblock_counts() {
        let sorted = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            flags_and_data(&words)
        };
        let found = sorted(&[
            "ro",
            "sync",
            "async",
            "size=1k",
            "lazytime",
            "context=a:s0:c1,c2",
        ]);
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_LAZYTIME;
        assert_eq!(found, (flags, "size=1k,context=\"a:s0:c1,c2\"".to_string()));
    }
}
