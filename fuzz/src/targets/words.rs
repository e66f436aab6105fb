//! Texts of a line or a few: what stands in strings of the config and on the command line, and the files by which users are found.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, PathBuf};

use serde_json::{Value, json};

use super::{assert_printable, callers};
use cofferdam::bundle::Bundle;
use cofferdam::cli::{self, fast, normalize};
use cofferdam::commands::{events, kill, update};
use cofferdam::facility::{accounts, id_maps};
use cofferdam::plan::namespaces::{IdMap, Namespaces};
use cofferdam::plan::options::{self, Options};
use cofferdam::plan::{Plan, cpu_list, gvariant, mounts as planned};
use cofferdam::state::store::check_id;

/// The first line is the type, the second the destination, the third the source; the others are options.
pub fn mounts(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.split('\n').collect();
    let [kind, destination, source, words @ ..] = &lines[..] else {
        return;
    };
    let words: Vec<String> = words.iter().flat_map(|line| planned::split(line)).collect();
    let options = Options::parse(&words);
    for word in options.data.iter().take(8) {
        assert!(!options::names().contains(&word.as_str()), "{word}");
        options::nearest(word);
    }
    assert_eq!(options.attributes.set & options.attributes.clear & !0x70, 0);
    let entry =
        json!({"type": kind, "destination": destination, "source": source, "options": words});
    for plan in plans(
        json!([entry, {"destination": "/proc", "type": "proc"}]),
        "/mounts",
    ) {
        assert_printable(&plan.to_string());
    }
    let clean = planned::clean(destination.as_ref());
    assert!(clean.is_absolute() && !clean.components().any(|part| part == Component::ParentDir));
}

/// A small config with this value at this place, planned for each caller that may have it.
fn plans(value: Value, place: &str) -> Vec<Plan> {
    let kinds = ["mount", "pid", "uts", "ipc", "network", "cgroup", "user"];
    let map = json!([{"containerID": 0, "hostID": 100000, "size": 65536}]);
    let mut config = json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "linux": {"uidMappings": map, "gidMappings": map},
    });
    config["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
    let (parent, name) = place.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = config.pointer_mut(parent) {
        parent[name] = value;
    }
    let Ok(bundle) = Bundle::of_config(PathBuf::from("/bundle"), &config) else {
        return Vec::new();
    };
    let planned = |(host, flags)| Plan::create(&bundle, &host, &flags).ok();
    callers().into_iter().filter_map(planned).collect()
}

/// Lines of three numbers, as /proc has them. Ids are mapped as in arithmetic without an end.
pub fn idmap(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let maps = IdMap::parse_lines(&text);
    assert_eq!(IdMap::parse_lines(&id_maps::lines_of(&maps)), maps);
    let entry =
        |map: &IdMap| json!({"containerID": map.container, "hostID": map.host, "size": map.size});
    let list: Vec<Value> = maps.iter().map(entry).collect();
    let ids = maps.iter().flat_map(|map| {
        [
            map.container,
            map.container.wrapping_add(map.size),
            map.size,
            map.host,
        ]
    });
    for id in ids
        .take(40)
        .flat_map(|id| [id.wrapping_sub(1), id, id.wrapping_add(1)])
    {
        let known = maps.iter().find_map(|map| {
            let (id, first, size) = (u64::from(id), u64::from(map.container), u64::from(map.size));
            let inside = id >= first && id < first + size;
            let host = inside.then(|| u64::from(map.host) + id - first);
            host.filter(|host| u32::try_from(*host).is_ok())
        });
        if let Some(host) = Namespaces::maps_to_host(&maps, id) {
            assert_eq!(known, Some(host.into()), "{id}");
        }
    }
    for plan in plans(Value::Array(list), "/linux/uidMappings") {
        for map in &plan.namespaces.uids {
            let ends =
                [map.container, map.host].map(|first| u64::from(first) + u64::from(map.size));
            assert!(map.size > 0 && ends.iter().all(|end| *end <= u64::from(u32::MAX)));
        }
    }
}

/// Each line goes to every parser of a single word, and they are the names of settings of the kernel.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    check_sysctl(
        text.split('\n')
            .take(8)
            .map(|name| (name.to_string(), json!("1"))),
    );
    for line in text.split('\n').take(8) {
        if let Ok(signal) = kill::parse(line) {
            assert!((0..=64).contains(&signal));
        }
        if let Ok(time) = events::interval(line) {
            assert!(!time.is_zero());
        }
        if let Ok(size) = update::bytes(line) {
            assert!(size >= 0 || line.trim().starts_with('-'), "{line}: {size}");
        }
        if check_id(line).is_ok() {
            assert!(
                PathBuf::from(line)
                    .components()
                    .eq([Component::Normal(OsStr::new(line))])
            );
        }
        check_list(line);
        if let Ok(value) = gvariant::parse(line) {
            drop((value.signature(), value.to_string()));
        }
        accounts::number(line, "--user").ok();
        options::propagation(line, "linux.rootfsPropagation").ok();
    }
}

fn check_list(text: &str) {
    const MOST: usize = 1024;
    let Ok(bits) = cpu_list::bits(text, MOST) else {
        return;
    };
    let has = |number: usize| {
        bits.get(number / 64)
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    };
    let listed = |number: usize| {
        text.split(',').map(str::trim).any(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let ends = first.parse::<usize>().ok().zip(last.parse::<usize>().ok());
            ends.is_some_and(|(first, last)| first <= number && number <= last)
        })
    };
    assert!(
        (0..MOST).all(|number| has(number) == listed(number)),
        "{text}: {bits:x?}"
    );
}

/// A file that is written lies below the directory of a namespace of the container.
fn check_sysctl(settings: impl Iterator<Item = (String, Value)>) {
    for plan in plans(Value::Object(settings.collect()), "/linux/sysctl") {
        for sysctl in &plan.sysctl {
            let plain = |part| matches!(part, Component::Normal(_));
            assert!(sysctl.file.components().all(plain), "{sysctl:?}");
        }
    }
}

/// A line for each word of the call. What is read without clap is what clap reads.
pub fn args(data: &[u8]) {
    let words = data.split(|byte| *byte == b'\n').map(OsStr::from_bytes);
    let words: Vec<OsString> = words.map(OsStr::to_os_string).collect();
    if let Some(read) = fast::read(&words) {
        let call = normalize::canonical(&mut words.iter().cloned());
        let by_clap = call.map(|call| cli::read(call.command, &call.words));
        let by_clap = by_clap.expect("words").expect("a call");
        assert_eq!(format!("{read:?}"), format!("{by_clap:?}"));
    }
    let program = [OsString::from("cofferdam")].into_iter();
    match cli::parse(program.chain(words)) {
        Ok(parsed) => drop(format!("{parsed:?}")),
        Err(error) => assert!(!format!("{error:#}").is_empty()),
    }
}

/// What `--user` is given, /etc/passwd and /etc/group, with a line `--` between.
pub fn users(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parts: Vec<&str> = text.splitn(3, "\n--\n").collect();
    let [user, passwd, group] = parts[..] else {
        return;
    };
    let Ok(found) = accounts::resolve_in(user, passwd, group, 7) else {
        return;
    };
    let by_number = user
        .split(':')
        .next()
        .is_some_and(|name| name.parse::<u32>().is_ok());
    assert_eq!(by_number, found.groups.is_none(), "{user}");
    let ids = [found.uid, found.gid]
        .into_iter()
        .chain(found.groups.unwrap_or_default());
    assert!(
        ids.into_iter().all(|id| id != u32::MAX),
        "{user}: (uid_t)-1 is no id"
    );
}
