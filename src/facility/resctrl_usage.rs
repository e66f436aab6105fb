//! resctrl: what the groups of a container may take of caches and memory bandwidth, and what they take.
//!
//! Reads only, as Documentation/filesystems/resctrl.rst lists the files. What the machine does not have
//! is absent. Parent only.

use std::path::Path;

use crate::plan::rdt::Groups;

#[derive(Debug, Default, PartialEq)]
pub struct Usage {
    pub cache: Option<Cache>,
    pub bandwidth: Option<Bandwidth>,
    /// The lines of the root's schemata, and of the class's.
    pub root_schemata: Vec<String>,
    pub schemata: Vec<String>,
    /// One for each domain of L3, by its number; empty where the machine does not monitor.
    pub domains: Vec<Domain>,
}

/// info/L3
#[derive(Debug, Default, PartialEq)]
pub struct Cache {
    pub cbm_mask: String,
    pub min_cbm_bits: u64,
    pub num_closids: u64,
}

/// info/MB
#[derive(Debug, Default, PartialEq)]
pub struct Bandwidth {
    pub gran: u64,
    pub delay_linear: u64,
    pub min: u64,
    pub num_closids: u64,
}

/// mon_data/mon_L3_*
#[derive(Debug, Default, PartialEq)]
pub struct Domain {
    pub llc_occupancy: Option<u64>,
    pub mbm_total_bytes: Option<u64>,
    pub mbm_local_bytes: Option<u64>,
}

pub fn usage(root: &Path, groups: &Groups) -> Usage {
    let class = root.join(&groups.class);
    let monitored = groups.monitor.as_ref().map(|group| root.join(group));
    Usage {
        cache: cache(&root.join("info/L3")),
        bandwidth: bandwidth(&root.join("info/MB")),
        root_schemata: lines(&root.join("schemata")),
        schemata: lines(&class.join("schemata")),
        domains: domains(&monitored.unwrap_or(class).join("mon_data")),
    }
}

fn cache(info: &Path) -> Option<Cache> {
    info.is_dir().then(|| Cache {
        cbm_mask: text(&info.join("cbm_mask")).unwrap_or_default(),
        min_cbm_bits: number(&info.join("min_cbm_bits")).unwrap_or(0),
        num_closids: number(&info.join("num_closids")).unwrap_or(0),
    })
}

fn bandwidth(info: &Path) -> Option<Bandwidth> {
    info.is_dir().then(|| Bandwidth {
        gran: number(&info.join("bandwidth_gran")).unwrap_or(0),
        delay_linear: number(&info.join("delay_linear")).unwrap_or(0),
        min: number(&info.join("min_bandwidth")).unwrap_or(0),
        num_closids: number(&info.join("num_closids")).unwrap_or(0),
    })
}

fn domains(data: &Path) -> Vec<Domain> {
    let entries = std::fs::read_dir(data).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with("mon_L3_"))
        .collect();
    names.sort();
    let domain = |name: &String| Domain {
        llc_occupancy: number(&data.join(name).join("llc_occupancy")),
        mbm_total_bytes: number(&data.join(name).join("mbm_total_bytes")),
        mbm_local_bytes: number(&data.join(name).join("mbm_local_bytes")),
    };
    names.iter().map(domain).collect()
}

fn lines(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.trim().to_string()).collect()
}

/// A counter may say `Unavailable` or `Error`.
fn number(file: &Path) -> Option<u64> {
    text(file)?.parse().ok()
}

fn text(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    }

    #[test]
    fn a_monitored_container() {
        let name = format!("cofferdam-rdt-usage-{}", std::process::id());
        let root = std::env::temp_dir().join(name);
        file(&root, "info/L3/cbm_mask", "fffff\n");
        file(&root, "info/L3/min_cbm_bits", "1\n");
        file(&root, "info/L3/num_closids", "16\n");
        file(&root, "schemata", "    L3:0=fffff;1=fffff\n    MB:0=100\n");
        file(&root, "c/schemata", "L3:0=f\n");
        let own = "c/mon_groups/c/mon_data";
        file(&root, &format!("{own}/mon_L3_01/llc_occupancy"), "77\n");
        file(&root, &format!("{own}/mon_L3_00/llc_occupancy"), "4096\n");
        file(
            &root,
            &format!("{own}/mon_L3_00/mbm_total_bytes"),
            "Unavailable\n",
        );
        let mut groups = Groups {
            class: PathBuf::from("c"),
            own: true,
            monitor: Some(PathBuf::from("c/mon_groups/c")),
        };
        let found = usage(&root, &groups);
        groups.monitor = None;
        let unmonitored = usage(&root, &groups);
        std::fs::remove_dir_all(&root).expect("remove");
        let cache = found.cache.expect("a cache");
        assert_eq!((cache.cbm_mask.as_str(), cache.num_closids), ("fffff", 16));
        assert_eq!(found.bandwidth, None);
        assert_eq!(found.root_schemata, ["L3:0=fffff;1=fffff", "MB:0=100"]);
        assert_eq!(found.schemata, ["L3:0=f"]);
        let occupied: Vec<_> = found.domains.iter().map(|d| d.llc_occupancy).collect();
        assert_eq!(occupied, [Some(4096), Some(77)]);
        assert_eq!(found.domains[0].mbm_total_bytes, None);
        assert_eq!(unmonitored.domains, []);
    }
}
