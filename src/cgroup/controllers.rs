//! Controllers of cgroup v2: which a cgroup needs, where they are, and how they get there.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{open_directory, write_at};
use crate::plan::resources::{Resources, Setting};
use crate::sys;

/// Controllers are handed down from the root, each level by its parent; nothing is written that is so already.
pub fn enable(mount: &Path, path: &Path, resources: &Resources) -> Result<()> {
    let wanted = resources.controllers();
    let Some(parent) = path.parent().filter(|_| !wanted.is_empty()) else {
        return Ok(());
    };
    if missing(parent, "cgroup.subtree_control", &wanted)?.is_empty() {
        return Ok(());
    }
    check_available(mount, resources, &wanted)?;
    let below = parent.strip_prefix(mount).unwrap_or(parent);
    let mut level = mount.to_path_buf();
    for component in std::iter::once(Path::new("")).chain(below.iter().map(Path::new)) {
        level = if component.as_os_str().is_empty() {
            level
        } else {
            level.join(component)
        };
        let missing = missing(&level, "cgroup.subtree_control", &wanted)?;
        if !missing.is_empty() {
            let words: Vec<String> = missing.iter().map(|name| format!("+{name}")).collect();
            let directory = open_directory(&level)?;
            write_at(&directory, "cgroup.subtree_control", &words.join(" ")).with_context(
                || {
                    format!(
                        "give {} controllers of {:?} to its children",
                        missing.join(", "),
                        level
                    )
                },
            )?;
        }
    }
    Ok(())
}

fn check_available(mount: &Path, resources: &Resources, wanted: &[&str]) -> Result<()> {
    let missing = missing(mount, "cgroup.controllers", wanted)?;
    let Some(controller) = missing.first() else {
        return Ok(());
    };
    let needs = |setting: &&Setting| setting.controller == *controller;
    let field = resources
        .settings
        .iter()
        .find(needs)
        .map_or("", |setting| &setting.field);
    let mount = mount.display();
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    let place = if v1.is_dir() {
        format!("it is mounted as cgroup v1 at {}", v1.display())
    } else {
        "the kernel offers it nowhere".to_string()
    };
    bail!(
        "{field}: controller {controller} is not available in {mount}: {place}; remove the limit, or boot with cgroup v2 alone"
    )
}

fn missing<'a>(directory: &Path, file: &str, wanted: &[&'a str]) -> Result<Vec<&'a str>> {
    let file = directory.join(file);
    let text = sys::io(std::fs::read_to_string(&file)).with_context(|| format!("read {file:?}"))?;
    let have: Vec<&str> = text.split_whitespace().collect();
    Ok(wanted
        .iter()
        .copied()
        .filter(|name| !have.contains(name))
        .collect())
}
