//! Controllers of cgroup v2: which a cgroup needs, where they are, and how they get there.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{explain, open_directory, write_at};
use crate::fault::coded;
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
            write_at(&directory, "cgroup.subtree_control", &words.join(" "))
                .map_err(|error| explain::not_handed_down(error, &level, &missing.join(", ")))?;
        }
    }
    Ok(())
}

/// Whether the host has what the limits need; before anything is made.
pub fn check(mount: &Path, resources: &Resources) -> Result<()> {
    for size in resources.page_sizes() {
        check_page_size(size)?;
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
    let mount = mount.display();
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    let place = if v1.is_dir() {
        format!("it is mounted as cgroup v1 at {}", v1.display())
    } else {
        "the kernel offers it nowhere".to_string()
    };
    bail!(coded(
        "controller-missing",
        format!(
            "{field}: controller {controller} is not available in {mount}: {place}; remove the limit, or boot with cgroup v2 alone"
        )
    ))
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

/// Docs of the kernel, hugetlbpage.rst: a directory for each size, which it counts in kB.
fn check_page_size((size, field): (&str, &str)) -> Result<()> {
    let (number, unit) = size.split_at(size.len() - 2);
    let factor = match unit {
        "GB" => 1 << 20,
        "MB" => 1 << 10,
        _ => 1,
    };
    let kilobytes = number.parse::<u64>().unwrap_or(0).saturating_mul(factor);
    let directory = Path::new("/sys/kernel/mm/hugepages");
    let known = directory.join(format!("hugepages-{kilobytes}kB")).is_dir();
    ensure!(
        known || !directory.is_dir(),
        "{field}.pageSize: {size}: the kernel has no huge pages of this size; {directory:?} lists those that it has"
    );
    Ok(())
}
