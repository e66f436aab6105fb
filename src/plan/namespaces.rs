//! `linux.namespaces`, id maps and time offsets -> what to create and what to join.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use crate::host::Host;
use crate::sys::clone;

/// A kind of namespace: its name in the spec, its file in /proc/PID/ns, its clone flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    pub file: &'static str,
    pub flag: u64,
}

/// In the order in which they are joined: the user namespace last, while the caller still has its
/// capabilities over the others (see `launch`).
pub const KINDS: [Kind; 8] = [
    Kind {
        name: "mount",
        file: "mnt",
        flag: clone::NEWNS,
    },
    Kind {
        name: "cgroup",
        file: "cgroup",
        flag: clone::NEWCGROUP,
    },
    Kind {
        name: "uts",
        file: "uts",
        flag: clone::NEWUTS,
    },
    Kind {
        name: "ipc",
        file: "ipc",
        flag: clone::NEWIPC,
    },
    Kind {
        name: "pid",
        file: "pid",
        flag: clone::NEWPID,
    },
    Kind {
        name: "network",
        file: "net",
        flag: clone::NEWNET,
    },
    Kind {
        name: "time",
        file: "time",
        flag: clone::NEWTIME,
    },
    Kind {
        name: "user",
        file: "user",
        flag: clone::NEWUSER,
    },
];

#[derive(Debug, Default)]
pub struct Namespaces {
    /// Clone flags of the namespaces to create.
    pub create: u64,
    pub join: Vec<Join>,
    /// Clone flags of those that are joined through the pidfd of a container's init.
    pub enter: u64,
    pub uids: Vec<IdMap>,
    pub gids: Vec<IdMap>,
    /// An unprivileged user may map the own group only after giving up setgroups(2) (user_namespaces(7)).
    pub deny_setgroups: bool,
    pub time_offsets: Vec<TimeOffset>,
}

#[derive(Debug)]
pub struct Join {
    pub field: String,
    pub kind: Kind,
    pub path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdMap {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

#[derive(Debug)]
pub struct TimeOffset {
    pub clock: String,
    pub seconds: i64,
    pub nanoseconds: u32,
}

pub fn namespaces(linux: &Linux, host: &Host) -> Result<Namespaces> {
    let mut plan = Namespaces::default();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let kind = kind(namespace.typ());
        ensure!(
            !plan.has(kind.flag),
            "{field}.type: {}: this type is listed twice; list each type once",
            kind.name
        );
        match namespace
            .path()
            .clone()
            .filter(|path| !path.as_os_str().is_empty())
        {
            None => plan.create |= kind.flag,
            Some(path) => {
                ensure!(
                    path.is_absolute(),
                    "{field}.path: {path:?}: must be absolute"
                );
                plan.join.push(Join {
                    field: format!("{field}.path"),
                    kind,
                    path,
                });
            }
        }
    }
    plan.join
        .sort_by_key(|join| KINDS.iter().position(|kind| *kind == join.kind));
    plan.uids = id_maps(linux.uid_mappings(), "linux.uidMappings")?;
    plan.gids = id_maps(linux.gid_mappings(), "linux.gidMappings")?;
    plan.check_maps(host)?;
    plan.deny_setgroups =
        plan.creates(clone::NEWUSER) && host.euid != 0 && is_single(&plan.gids, host.egid);
    plan.time_offsets = time_offsets(linux, &plan)?;
    Ok(plan)
}

impl Namespaces {
    pub fn creates(&self, flag: u64) -> bool {
        self.create & flag != 0
    }

    pub fn joins(&self, flag: u64) -> bool {
        self.join.iter().any(|join| join.kind.flag == flag)
    }

    /// Whether the container has this namespace apart from the host's: created or joined.
    pub fn has(&self, flag: u64) -> bool {
        self.creates(flag) || self.joins(flag) || self.enter & flag != 0
    }

    /// The host's id for an id of the container, if the container's user namespace maps it.
    pub fn maps_to_host(maps: &[IdMap], id: u32) -> Option<u32> {
        maps.iter().find_map(|map| {
            let offset = id
                .checked_sub(map.container)
                .filter(|offset| *offset < map.size)?;
            map.host.checked_add(offset)
        })
    }

    fn check_maps(&self, host: &Host) -> Result<()> {
        if !self.creates(clone::NEWUSER) {
            let mapped = !self.uids.is_empty() || !self.gids.is_empty();
            ensure!(
                !mapped || self.joins(clone::NEWUSER),
                "linux.uidMappings: maps need a user namespace; add {{\"type\": \"user\"}} to linux.namespaces"
            );
            return Ok(());
        }
        for (maps, field) in [
            (&self.uids, "linux.uidMappings"),
            (&self.gids, "linux.gidMappings"),
        ] {
            ensure!(
                !maps.is_empty(),
                "{field}: missing; a new user namespace needs at least one map, such as \
                 {{\"containerID\": 0, \"hostID\": {}, \"size\": 1}}",
                host.euid
            );
        }
        Ok(())
    }
}

fn kind(kind: LinuxNamespaceType) -> Kind {
    let name = match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    };
    KINDS[KINDS.iter().position(|kind| kind.name == name).unwrap_or(0)]
}

/// Whether the map covers nothing but this id, which needs no helper.
pub fn is_single(maps: &[IdMap], id: u32) -> bool {
    matches!(maps, [IdMap { host, size: 1, .. }] if *host == id)
}

pub fn id_maps(maps: &Option<Vec<LinuxIdMapping>>, field: &str) -> Result<Vec<IdMap>> {
    /// user_namespaces(7): a map has at most 340 lines since Linux 4.15.
    const MOST: usize = 340;
    let maps = maps.as_deref().unwrap_or_default();
    ensure!(
        maps.len() <= MOST,
        "{field}: {} maps: the kernel takes at most {MOST}",
        maps.len()
    );
    let one = |(index, map): (usize, &LinuxIdMapping)| {
        let (container, host, size) = (map.container_id(), map.host_id(), map.size());
        if size == 0
            || container.checked_add(size - 1).is_none()
            || host.checked_add(size - 1).is_none()
        {
            bail!("{field}[{index}].size: {size}: must be at least 1 and end below 4294967296");
        }
        Ok(IdMap {
            container,
            host,
            size,
        })
    };
    maps.iter().enumerate().map(one).collect()
}

fn time_offsets(linux: &Linux, plan: &Namespaces) -> Result<Vec<TimeOffset>> {
    let Some(offsets) = linux
        .time_offsets()
        .as_ref()
        .filter(|offsets| !offsets.is_empty())
    else {
        return Ok(Vec::new());
    };
    ensure!(
        plan.creates(clone::NEWTIME),
        "linux.timeOffsets: offsets need a new time namespace; add {{\"type\": \"time\"}} to linux.namespaces"
    );
    let mut list = Vec::new();
    for (clock, offset) in offsets {
        let field = format!("linux.timeOffsets.{clock}");
        ensure!(
            matches!(clock.as_str(), "boottime" | "monotonic"),
            "{field}: no such clock; the clocks are boottime and monotonic"
        );
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        ensure!(
            nanoseconds < 1_000_000_000,
            "{field}.nanosecs: {nanoseconds}: must be below 1000000000"
        );
        let seconds = offset.secs().unwrap_or(0);
        list.push(TimeOffset {
            clock: clock.clone(),
            seconds,
            nanoseconds,
        });
    }
    list.sort_by(|a, b| a.clock.cmp(&b.clock));
    Ok(list)
}

impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for kind in KINDS {
            if self.creates(kind.flag) {
                writeln!(f, "new {} namespace", kind.name)?;
            }
        }
        for join in &self.join {
            writeln!(
                f,
                "join {} namespace {}",
                join.kind.name,
                join.path.display()
            )?;
        }
        for (name, maps) in [("uid", &self.uids), ("gid", &self.gids)] {
            for map in maps {
                writeln!(f, "map {name} {map}")?;
            }
        }
        for offset in &self.time_offsets {
            let TimeOffset {
                clock,
                seconds,
                nanoseconds,
            } = offset;
            writeln!(f, "time offset {clock} {seconds}s {nanoseconds}ns")?;
        }
        Ok(())
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}:{}", self.container, self.host, self.size)
    }
}
