//! Controllers of cgroup v2: which a cgroup needs, where they are, and how they get there.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{explain, open_directory, write_at};
use crate::plan::resources::{Resources, Setting};
use crate::sys;
use crate::text::fault::coded;

const PAGES: &str = "/sys/kernel/mm/hugepages";

/// Enables the controllers that the limits need in every cgroup above this one. With `all`, also each other controller that can
/// be had: engines read statistics of containers without limits from their files. Nothing is written that is so already.
pub fn enable(mount: &Path, path: &Path, resources: &Resources, all: bool) -> Result<()> {
    let wanted: Vec<String> = resources
        .controllers()
        .into_iter()
        .map(str::to_string)
        .collect();
    let offered = match all {
        true => words(mount, "cgroup.controllers")?,
        false => Vec::new(),
    };
    let Some(parent) = path
        .parent()
        .filter(|_| !wanted.is_empty() || !offered.is_empty())
    else {
        return Ok(());
    };
    let enabled = words(parent, "cgroup.subtree_control")?;
    if wanted
        .iter()
        .chain(&offered)
        .all(|name| enabled.contains(name))
    {
        return Ok(());
    }
    let below = parent.strip_prefix(mount).unwrap_or(parent);
    let mut level = mount.to_path_buf();
    for component in std::iter::once(Path::new("")).chain(below.iter().map(Path::new)) {
        if component != Path::new("") {
            level.push(component);
        }
        let enabled = words(&level, "cgroup.subtree_control")?;
        let is_missing = |name: &String| !enabled.contains(name);
        let needed: Vec<String> = wanted
            .iter()
            .filter(|name| is_missing(name))
            .cloned()
            .collect();
        let mut others = match all {
            true => words(&level, "cgroup.controllers")?,
            false => Vec::new(),
        };
        others.retain(|name| is_missing(name) && !wanted.contains(name));
        hand_on(&level, &needed, &others)?;
    }
    Ok(())
}

/// Enables controllers for the children of a cgroup. Fails where a wanted one cannot be enabled; the others may be refused.
fn hand_on(level: &Path, wanted: &[String], others: &[String]) -> Result<()> {
    if wanted.is_empty() && others.is_empty() {
        return Ok(());
    }
    let directory = open_directory(level)?;
    let write = |names: &[String]| {
        let text = names.iter().map(|name| format!("+{name}"));
        let text = text.collect::<Vec<_>>().join(" ");
        write_at(&directory, "cgroup.subtree_control", &text)
    };
    let Err(error) = write(&[wanted, others].concat()) else {
        return Ok(());
    };
    if !wanted.is_empty() {
        write(wanted)
            .map_err(|error| explain::not_handed_down(error, level, &wanted.join(", ")))?;
    }
    // The kernel takes all of one write, or none.
    if !super::is_refusal(&error) {
        for name in others {
            write(std::slice::from_ref(name)).ok();
        }
    }
    Ok(())
}

/// All that a cgroup has, to those on the way down from it.
pub fn hand_down(top: &Path, below: &Path) -> Result<()> {
    let mut level = top.to_path_buf();
    for component in below.components() {
        let file = level.join("cgroup.controllers");
        let text =
            sys::io(std::fs::read_to_string(&file)).with_context(|| format!("read {file:?}"))?;
        let words: Vec<String> = text
            .split_whitespace()
            .map(|name| format!("+{name}"))
            .collect();
        write_at(
            &open_directory(&level)?,
            "cgroup.subtree_control",
            &words.join(" "),
        )
        .map_err(|error| explain::not_handed_down(error, &level, text.trim()))?;
        level.push(component);
    }
    Ok(())
}

/// Whether the host has what the limits need; before anything is made.
pub fn check(mount: &Path, resources: &Resources) -> Result<()> {
    for size in resources.page_sizes() {
        check_page_size(size, Path::new(PAGES))?;
    }
    let wanted = resources.controllers();
    if wanted.is_empty() {
        return Ok(());
    }
    let missing = missing(mount, "cgroup.controllers", &wanted)?;
    let Some(controller) = missing.first() else {
        return Ok(());
    };
    let needs = |setting: &&Setting| setting.controller == *controller;
    let field = resources
        .settings
        .iter()
        .find(needs)
        .map_or("", |setting| &setting.field);
    bail!(coded(
        "controller-missing",
        format!(
            "{field}: controller {controller} is not available in {}: {}",
            mount.display(),
            place_of(controller, mount)
        )
    ))
}

/// Where a controller is instead, and what to do.
fn place_of(controller: &str, mount: &Path) -> String {
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    let (place, hint) = if v1.is_dir() {
        (
            format!("it is mounted as cgroup v1 at {}", v1.display()),
            "boot with cgroup v2 alone",
        )
    // Docs of the kernel, cgroup-v2.rst: the file is in all cgroups but the root.
    } else if mount.join("cgroup.events").exists() {
        (
            "the cgroup above does not hand it down to this cgroup namespace".to_string(),
            "enable it there in cgroup.subtree_control",
        )
    } else {
        (
            "the kernel offers it nowhere".to_string(),
            "boot with cgroup v2 alone",
        )
    };
    format!("{place}; remove the limit, or {hint}")
}

fn missing<'a>(directory: &Path, file: &str, wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let have = words(directory, file)?;
    let is_missing = |name: &&str| !have.iter().any(|known| known == name);
    Ok(wanted.iter().copied().filter(is_missing).collect())
}

fn words(directory: &Path, file: &str) -> Result<Vec<String>> {
    let file = directory.join(file);
    let text = sys::io(sys::read_text(&file)).with_context(|| format!("read {file:?}"))?;
    Ok(text.split_whitespace().map(str::to_string).collect())
}

/// A kernel without huge pages has no such directory, and lacks the controller too.
fn check_page_size((size, field): (&str, &str), directory: &Path) -> Result<()> {
    let entries = sys::read_dir(directory).into_iter().flatten().flatten();
    let sizes: Vec<String> = entries
        .filter_map(|entry| page_size(entry.file_name().to_str()?))
        .collect();
    ensure!(
        sizes.is_empty() || sizes.iter().any(|known| known == size),
        "{field}.pageSize: {size}: the kernel has no huge pages of this size; it has {}",
        sizes.join(", ")
    );
    Ok(())
}

/// Docs of the kernel, hugetlbpage.rst: a directory for each size, which it counts in kB; and mm/hugetlb_cgroup.c,
/// mem_fmt: how files of cgroups are named after it.
fn page_size(directory: &str) -> Option<String> {
    let number = directory.strip_prefix("hugepages-")?.strip_suffix("kB")?;
    let kilobytes: u64 = number.parse().ok()?;
    Some(match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..1_048_576 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::resources::resources;

    #[test]
    fn sizes_of_huge_pages_are_those_of_the_machine() {
        let directory =
            std::env::temp_dir().join(format!("cofferdam-pages-{}", std::process::id()));
        for name in ["hugepages-2048kB", "hugepages-64kB", "hugepages-1048576kB"] {
            std::fs::create_dir_all(directory.join(name)).unwrap();
        }
        let field = "linux.resources.hugepageLimits[0]";
        for size in ["64KB", "2MB", "1GB"] {
            check_page_size((size, field), &directory).unwrap();
        }
        for size in ["3MB", "2048KB", "1024MB", "2GB"] {
            let error = check_page_size((size, field), &directory).unwrap_err();
            let error = error.to_string();
            let start = format!(
                "{field}.pageSize: {size}: the kernel has no huge pages of this size; it has "
            );
            assert!(error.starts_with(&start), "{error}");
            assert!(error.contains("64KB") && error.contains("1GB"), "{error}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
        check_page_size(("3MB", field), &directory).unwrap();
    }

    #[test]
    fn each_level_hands_down_what_its_parent_gave() {
        let mount = std::env::temp_dir().join(format!("cofferdam-levels-{}", std::process::id()));
        std::fs::create_dir_all(mount.join("a/b/c")).unwrap();
        for (level, has) in [("", "cpu memory"), ("a", "memory"), ("a/b", "")] {
            let level = mount.join(level);
            std::fs::write(level.join("cgroup.controllers"), "cpu memory pids").unwrap();
            std::fs::write(level.join("cgroup.subtree_control"), has).unwrap();
        }
        let spec =
            serde_json::from_str(r#"{"memory": {"limit": 1}, "pids": {"limit": 1}}"#).unwrap();
        let plan = resources(Some(&spec)).unwrap();
        check(&mount, &plan).unwrap();
        enable(&mount, &mount.join("a/b/c"), &plan, false).unwrap();
        // A file keeps what it said behind what is written; the kernel would not.
        for (level, says) in [
            ("", "+pidsemory"),
            ("a", "+pidsy"),
            ("a/b", "+memory +pids"),
        ] {
            let text = std::fs::read_to_string(mount.join(level).join("cgroup.subtree_control"));
            assert_eq!(text.unwrap(), says, "{level:?}");
            std::fs::write(mount.join(level).join("cgroup.subtree_control"), "").unwrap();
        }
        let none = resources(None).unwrap();
        enable(&mount, &mount.join("a/b/c"), &none, true).unwrap();
        for level in ["", "a", "a/b"] {
            let text = std::fs::read_to_string(mount.join(level).join("cgroup.subtree_control"));
            assert_eq!(text.unwrap(), "+cpu +memory +pids", "{level:?}");
        }
        std::fs::write(mount.join("cgroup.controllers"), "cpu memory").unwrap();
        let error = check(&mount, &plan).unwrap_err().to_string();
        let start = "linux.resources.pids.limit: controller pids is not available in ";
        assert!(error.starts_with(start), "{error}");
        std::fs::remove_dir_all(&mount).unwrap();
    }
}
