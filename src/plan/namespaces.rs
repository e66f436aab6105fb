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

impl IdMap {
    /// Reads the lines of /proc/PID/uid_map or gid_map (user_namespaces(7)). Skips other lines.
    pub fn parse_lines(text: &str) -> Vec<IdMap> {
        let parse_line = |line: &str| {
            let numbers: Result<Vec<u32>, _> = line.split_whitespace().map(str::parse).collect();
            match numbers.ok()?[..] {
                [container, host, size] => Some(IdMap {
                    container,
                    host,
                    size,
                }),
                _ => None,
            }
        };
        text.lines().filter_map(parse_line).collect()
    }
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
    let alone = host.euid != 0 && is_single(&plan.gids, host.egid);
    plan.deny_setgroups = host.denies_setgroups || plan.creates(clone::NEWUSER) && alone;
    plan.time_offsets = time_offsets(linux, &plan)?;
    Ok(plan)
}

impl Namespaces {
    pub fn creates(&self, flag: u64) -> bool {
        self.create & flag != 0
    }

    /// Returns the namespaces that clone3(2) makes for init. Init makes the others. A time namespace with offsets is among
    /// these, as no process may be in it when its offsets are set (time_namespaces(7)).
    pub fn clone_flags(&self) -> u64 {
        let time = if self.time_offsets.is_empty() {
            0
        } else {
            clone::NEWTIME
        };
        self.create & !self.made_by_init() & !time
    }

    /// Returns the namespaces that init makes as root of its user namespace. The cgroup namespace is rooted at the cgroup that its maker
    /// is in. The kernel makes the root directory of mqueue with the IPC namespace, for the user who makes that.
    pub fn made_by_init(&self) -> u64 {
        let ipc = match self.creates(clone::NEWUSER) {
            true => clone::NEWIPC,
            false => 0,
        };
        self.create & (clone::NEWCGROUP | ipc)
    }

    /// Whether the network namespace can be made beside init's first steps: not if it has to belong to a new user namespace.
    pub fn can_defer_netns(&self) -> bool {
        self.creates(clone::NEWNET) && !self.creates(clone::NEWUSER) && self.join.is_empty()
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

    /// The offsets as the kernel reads them.
    pub fn offset_lines(&self) -> impl Iterator<Item = String> {
        let line = |offset: &TimeOffset| {
            format!("{} {} {}", offset.clock, offset.seconds, offset.nanoseconds)
        };
        self.time_offsets.iter().map(line)
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
        for (maps, field, id) in [
            (&self.uids, "linux.uidMappings", host.euid),
            (&self.gids, "linux.gidMappings", host.egid),
        ] {
            ensure!(
                !maps.is_empty(),
                "{field}: missing; a new user namespace needs at least one map, such as \
                 {{\"containerID\": 0, \"hostID\": {id}, \"size\": 1}}"
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
        // The last number is no id: (uid_t)-1.
        if size == 0 || container.checked_add(size).is_none() || host.checked_add(size).is_none() {
            bail!("{field}[{index}].size: {size}: must be at least 1 and end below 4294967295");
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
                crate::text::log::printable(&join.path.to_string_lossy())
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::tests::{
        assert_faults, fault, host, plan, plan_for, user_namespace, users_host,
    };

    #[test]
    fn namespaces_without_a_path_are_created_and_the_others_joined_user_last() {
        let namespaces = plan(&[(
            "/linux/namespaces",
            json!([
                {"type": "user", "path": "/proc/1/ns/user"},
                {"type": "uts", "path": ""},
                {"type": "network", "path": "/run/netns/a"},
                {"type": "mount", "path": "/proc/1/ns/mnt"},
                {"type": "time"},
            ]),
        )])
        .namespaces;
        assert_eq!(namespaces.create, clone::NEWUTS | clone::NEWTIME);
        let joined: Vec<&str> = namespaces.join.iter().map(|join| join.kind.name).collect();
        assert_eq!(joined, ["mount", "network", "user"]);
        assert_eq!(namespaces.join[1].field, "linux.namespaces[2].path");
        assert!(namespaces.has(clone::NEWUSER) && !namespaces.creates(clone::NEWUSER));
        assert!(!namespaces.has(clone::NEWPID));
    }

    #[test]
    fn every_type_of_the_spec_has_its_own_flag() {
        for kind in KINDS {
            let changes = [
                ("/linux/namespaces", json!([{"type": kind.name}])),
                (
                    "/linux/uidMappings",
                    json!([{"containerID": 0, "hostID": 0, "size": 1}]),
                ),
                (
                    "/linux/gidMappings",
                    json!([{"containerID": 0, "hostID": 0, "size": 1}]),
                ),
            ];
            let changes = if kind.name == "user" {
                &changes[..]
            } else {
                &changes[..1]
            };
            assert_eq!(plan(changes).namespaces.create, kind.flag, "{}", kind.name);
        }
    }

    #[test]
    fn faults_name_the_field() {
        let map = |size: u32| json!([{"containerID": 1, "hostID": 0, "size": size}]);
        assert_faults(&[
            (
                "/linux/namespaces/-",
                json!({"type": "pid", "path": "/x"}),
                "linux.namespaces[6].type: pid: this type is listed twice",
            ),
            (
                "/linux/namespaces/-",
                json!({"type": "user", "path": "ns/user"}),
                "linux.namespaces[6].path: \"ns/user\": must be absolute",
            ),
            (
                "/linux/namespaces/-",
                json!({"type": "user"}),
                "linux.uidMappings: missing",
            ),
            (
                "/linux/gidMappings",
                map(1),
                "linux.uidMappings: maps need a user namespace",
            ),
            (
                "/linux/uidMappings",
                map(0),
                "linux.uidMappings[0].size: 0: must be",
            ),
            (
                "/linux/uidMappings",
                map(u32::MAX),
                "linux.uidMappings[0].size: 4294967295: must be",
            ),
            (
                "/linux/timeOffsets",
                json!({"monotonic": {"secs": 1}}),
                "linux.timeOffsets: offsets need",
            ),
        ]);
        let many: Vec<_> = (0..341)
            .map(|id| json!({"containerID": id, "hostID": id, "size": 1}))
            .collect();
        assert_faults(&[(
            "/linux/gidMappings",
            json!(many),
            "linux.gidMappings: 341 maps: the kernel",
        )]);
        let time = ("/linux/namespaces/-", json!({"type": "time"}));
        for (offsets, words) in [
            (
                json!({"realtime": {"secs": 1}}),
                "linux.timeOffsets.realtime: no such clock",
            ),
            (
                json!({"boottime": {"nanosecs": 1_000_000_000}}),
                "linux.timeOffsets.boottime.nanosecs: 1000000000: must",
            ),
        ] {
            let fault = fault(&[time.clone(), ("/linux/timeOffsets", offsets)]);
            assert!(fault.starts_with(words), "{fault}");
        }
    }

    #[test]
    fn the_hint_for_missing_maps_has_the_ids_of_the_caller() {
        let user = ("/linux/namespaces/-", json!({"type": "user"}));
        let map = (
            "/linux/uidMappings",
            json!([{"containerID": 0, "hostID": 1000, "size": 1}]),
        );
        let fault = plan_for(&users_host(), std::slice::from_ref(&user))
            .unwrap_err()
            .to_string();
        assert!(
            fault.ends_with("{\"containerID\": 0, \"hostID\": 1000, \"size\": 1}"),
            "{fault}"
        );
        let fault = plan_for(&users_host(), &[user, map])
            .unwrap_err()
            .to_string();
        assert!(
            fault.ends_with("{\"containerID\": 0, \"hostID\": 1001, \"size\": 1}"),
            "{fault}"
        );
    }

    #[test]
    fn ids_are_mapped_up_to_the_end_of_a_map() {
        let map = |container, host, size| IdMap {
            container,
            host,
            size,
        };
        let maps = [map(0, 1000, 1), map(5, 100_000, 10)];
        let cases = [
            (0, Some(1000)),
            (1, None),
            (4, None),
            (5, Some(100_000)),
            (14, Some(100_009)),
            (15, None),
        ];
        for (id, mapped) in cases {
            assert_eq!(Namespaces::maps_to_host(&maps, id), mapped, "{id}");
        }
        assert!(is_single(&maps[..1], 1000));
        assert!(
            !is_single(&maps[..1], 0)
                && !is_single(&maps, 1000)
                && !is_single(&[map(0, 1000, 2)], 1000)
        );
    }

    #[test]
    fn setgroups_is_given_up_only_where_an_ordinary_user_maps_the_own_group() {
        let single = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
        let denied = |host: &Host, gids| {
            let user = ("/linux/namespaces/-", json!({"type": "user"}));
            let changes = [
                user,
                ("/linux/uidMappings", single(1000)),
                ("/linux/gidMappings", gids),
            ];
            plan_for(host, &changes).unwrap().namespaces.deny_setgroups
        };
        assert!(denied(&users_host(), single(1001)));
        assert!(!denied(
            &users_host(),
            json!([{"containerID": 0, "hostID": 100000, "size": 65536}])
        ));
        assert!(!denied(&host(), single(0)));
    }

    #[test]
    fn the_text_says_what_is_made_and_joined() {
        let changes = [
            &user_namespace()[..],
            &[
                ("/linux/namespaces/-", json!({"type": "time"})),
                (
                    "/linux/timeOffsets",
                    json!({"monotonic": {"secs": -5}, "boottime": {"secs": 1, "nanosecs": 2}}),
                ),
            ],
        ];
        let text = plan(&changes.concat()).namespaces.to_string();
        let tail = "new user namespace\nmap uid 0:100000:65536\nmap gid 0:100000:65536\n\
                    time offset boottime 1s 2ns\ntime offset monotonic -5s 0ns\n";
        assert!(text.ends_with(tail), "{text}");
        assert!(
            text.starts_with("new mount namespace\nnew cgroup namespace\n"),
            "{text}"
        );
    }
}
