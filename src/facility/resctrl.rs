//! resctrl: makes and fills the groups that limit and count a container's use of caches and memory
//! bandwidth, and removes those that were made for it alone. Parent only.
//!
//! Every function takes the root of the tree. Tools that change the tree hold a lock on that directory
//! (Documentation/filesystems/resctrl.rst, "Reading/writing the RDT data"); so does this one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollTimeout, poll};
use nix::sys::statfs::{RDTGROUP_SUPER_MAGIC, statfs};

use crate::plan::rdt::{Groups, Rdt, Schema};
use crate::sys;

pub const ROOT: &str = "/sys/fs/resctrl";

/// How long another tool may take to change the tree.
const PATIENCE: Duration = Duration::from_secs(10);
/// Milliseconds.
const PAUSE: u8 = 10;

/// The directories that were just made; removed on drop, the last one first, unless kept.
#[derive(Debug, Default)]
pub struct Made {
    directories: Vec<PathBuf>,
}

/// Resource and domain, and the value of that.
pub type Values = BTreeMap<(String, String), String>;

pub fn check_mounted(root: &Path) -> Result<()> {
    let mounted = statfs(root).is_ok_and(|fs| fs.filesystem_type() == RDTGROUP_SUPER_MAGIC);
    let place = root.display();
    ensure!(
        mounted,
        "linux.intelRdt: resctrl is not mounted on {place}; mount it (mount -t resctrl resctrl {place}) \
         or remove intelRdt"
    );
    Ok(())
}

/// Before anything is noted as this container's: what is there already is not.
pub fn check(root: &Path, plan: &Rdt) -> Result<()> {
    let Groups {
        class,
        own,
        monitor,
    } = &plan.groups;
    let made_anew = [own.then_some(class), monitor.as_ref()];
    for group in made_anew.into_iter().flatten() {
        let path = root.join(group);
        ensure!(
            !path.exists(),
            "linux.intelRdt: group {path:?}: is there already; remove it, or use another container id"
        );
    }
    let path = root.join(class);
    ensure!(
        *own || !plan.schemata.is_empty() || path.is_dir(),
        "linux.intelRdt.closID: {}: is no group of resctrl; make {path:?}, or give its schemata",
        class.display()
    );
    ensure!(
        monitor.is_none() || root.join("mon_groups").is_dir(),
        "linux.intelRdt.enableMonitoring: true: this machine cannot monitor caches or memory bandwidth; \
         remove it"
    );
    Ok(())
}

/// Makes the groups, with their schemata but without tasks; a group that is there must have the same schemata.
pub fn make(root: &Path, plan: &Rdt) -> Result<Made> {
    let _lock = lock(root)?;
    let groups = &plan.groups;
    let class = root.join(&groups.class);
    let mut made = Made::default();
    if groups.own || !class.is_dir() {
        made.add(root, class.clone())?;
        write_schemata(root, &class, &plan.schemata)?;
    } else {
        compare(root, &class, &plan.schemata)?;
    }
    if let Some(monitor) = &groups.monitor {
        made.add(root, root.join(monitor))?;
    }
    if !groups.own {
        // A class that has a name may be another container's as soon as the lock is gone.
        made.directories.retain(|directory| *directory != class);
    }
    Ok(made)
}

/// Gives the container's group new schemata, line by line; after a refusal it has the old ones.
pub fn update(root: &Path, groups: &Groups, schemata: &[Schema]) -> Result<()> {
    let _lock = lock(root)?;
    let class = root.join(&groups.class);
    let file = class.join("schemata");
    let before =
        sys::io(std::fs::read_to_string(&file)).with_context(|| format!("read {file:?}"))?;
    write_schemata(root, &class, schemata).inspect_err(|_| {
        let old = before.lines().map(|line| Schema {
            field: String::new(),
            line: line.trim().to_string(),
        });
        write_schemata(root, &class, &old.collect::<Vec<_>>()).ok();
    })
}

/// Puts a process in. Its children will be in the same groups.
pub fn enter(root: &Path, groups: &Groups, pid: i32) -> Result<()> {
    // In this order: a monitoring group takes only tasks of the class above it.
    let both = [Some(&groups.class), groups.monitor.as_ref()];
    for group in both.into_iter().flatten() {
        let file = root.join(group).join("tasks");
        sys::io(std::fs::write(&file, pid.to_string())).with_context(|| {
            format!(
                "linux.intelRdt: write {pid} to {file:?}{}",
                last_words(root)
            )
        })?;
    }
    Ok(())
}

/// Removes what was made for one container; what is gone is gone.
pub fn remove(root: &Path, groups: &Groups) -> Result<()> {
    let own = [groups.monitor.as_ref(), groups.own.then_some(&groups.class)];
    for group in own.into_iter().flatten() {
        let path = root.join(group);
        match std::fs::remove_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => {
                sys::io(removed).with_context(|| format!("remove the resctrl group {path:?}"))?
            }
        }
    }
    Ok(())
}

impl Made {
    fn add(&mut self, root: &Path, directory: PathBuf) -> Result<()> {
        sys::io(std::fs::create_dir(&directory)).with_context(|| {
            let why = last_words(root);
            format!("linux.intelRdt: make the resctrl group {directory:?}{why}")
        })?;
        self.directories.push(directory);
        Ok(())
    }

    pub fn keep(mut self) {
        self.directories.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for directory in self.directories.iter().rev() {
            std::fs::remove_dir(directory).ok();
        }
    }
}

fn lock(root: &Path) -> Result<Flock<File>> {
    lock_within(root, PATIENCE)
}

/// flock(2) knows no deadline, so it is asked again and again.
fn lock_within(root: &Path, patience: Duration) -> Result<Flock<File>> {
    let begun = Instant::now();
    let mut directory = sys::io(File::open(root)).with_context(|| format!("open {root:?}"))?;
    loop {
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, Errno::EWOULDBLOCK | Errno::EINTR)) => directory = unlocked,
            Err((_, errno)) => bail!("flock({root:?}): {}", errno.desc()),
        }
        ensure!(
            begun.elapsed() < patience,
            "linux.intelRdt: flock({root:?}): another program has held the lock for {patience:?}; find it with \
             \"fuser {}\"",
            root.display()
        );
        poll(&mut [], PollTimeout::from(PAUSE)).ok();
    }
}

/// One line at a time: a write with two values for one domain is refused, and the error names the line.
fn write_schemata(root: &Path, class: &Path, schemata: &[Schema]) -> Result<()> {
    if schemata.is_empty() {
        return Ok(());
    }
    let path = class.join("schemata");
    let mut file = sys::io(File::create(&path)).with_context(|| format!("open {path:?}"))?;
    for Schema { field, line } in schemata {
        let text = format!("{line}\n");
        sys::io(file.write_all(text.as_bytes())).with_context(|| {
            let why = last_words(root);
            format!("{field}: {line:?}: write it to {path:?}{why}")
        })?;
    }
    Ok(())
}

/// The kernel's own reason for the last refusal, which an errno cannot tell.
fn last_words(root: &Path) -> String {
    let text = std::fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    match text.trim() {
        "" | "ok" => String::new(),
        reason => format!(" (resctrl says: {reason})"),
    }
}

/// A class is shared as it is: nobody's limits change under them.
fn compare(root: &Path, class: &Path, schemata: &[Schema]) -> Result<()> {
    if schemata.is_empty() {
        return Ok(());
    }
    let path = class.join("schemata");
    let text = sys::io(std::fs::read_to_string(&path)).with_context(|| format!("read {path:?}"))?;
    let mut found = Values::new();
    text.lines()
        .for_each(|line| found.extend(values(line).into_iter().flatten()));
    let mut wanted = BTreeMap::new();
    for Schema { field, line } in schemata {
        let Some(values) = values(line) else {
            bail!("{field}: {line:?}: must be a resource and a value for each domain");
        };
        wanted.extend(
            values
                .into_iter()
                .map(|(place, value)| (place, (field, value))),
        );
    }
    for ((resource, domain), (field, value)) in wanted {
        let is = found.get(&(resource.clone(), domain.clone()));
        ensure!(
            is.is_some_and(|is| same(root, &resource, &value, is)),
            "{field}: {resource}:{domain}={value}: differs from {path:?}, which has {}; give the same \
             schemata, or another closID",
            is.map_or("no such domain", String::as_str)
        );
    }
    Ok(())
}

/// Parses a line of schemata such as `L3:0=ff;1=f`; returns None if a domain has no value.
pub fn values(line: &str) -> Option<Values> {
    let (resource, domains) = line.split_once(':')?;
    let one = |text: &str| {
        let (domain, value) = text.split_once('=')?;
        let place = (resource.trim().to_string(), domain.trim().to_string());
        Some((place, value.trim().to_string()))
    };
    domains.split(';').map(one).collect()
}

/// Returns whether two values are equal to the kernel. Masks of caches are hexadecimal; the kernel rounds bandwidth up.
pub fn same(root: &Path, resource: &str, wanted: &str, is: &str) -> bool {
    let radix = if resource.starts_with('L') { 16 } else { 10 };
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        u64::from_str_radix(digits, radix)
    };
    let (Ok(wanted), Ok(is)) = (number(wanted), number(is)) else {
        return wanted == is;
    };
    let step = std::fs::read_to_string(root.join("info").join(resource).join("bandwidth_gran"));
    let step = step.ok().and_then(|text| text.trim().parse().ok());
    let rounded = wanted.checked_next_multiple_of(step.unwrap_or(1));
    wanted == is || rounded == Some(is)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    /// A directory with what the kernel would have put there; it has no kernel to fill new ones.
    struct Fake {
        root: PathBuf,
    }

    impl Fake {
        fn new(name: &str) -> Fake {
            let name = format!("cofferdam-resctrl-{name}-{}", std::process::id());
            let fake = Fake {
                root: std::env::temp_dir().join(name),
            };
            fake.file("info/last_cmd_status", "ok\n");
            fake.file("info/MB/bandwidth_gran", "10\n");
            fake.group("");
            fake
        }

        fn file(&self, path: &str, text: &str) {
            let path = self.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn group(&self, name: &str) {
            fs::create_dir_all(self.root.join(name).join("mon_groups")).unwrap();
            let schemata = "    MB:0=100;1=80\n    L3:0=fffff;1=000f0\n";
            self.file(&format!("./{name}/schemata"), schemata);
            self.file(&format!("./{name}/tasks"), "");
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.root.join(path)).unwrap_or_else(|_| "none".to_string())
        }

        fn has(&self, path: &str) -> bool {
            self.root.join(path).exists()
        }

        /// As rmdir(2) does on resctrl, where files are no obstacle.
        fn empty(&self, group: &str) {
            for file in ["schemata", "tasks"] {
                fs::remove_file(self.root.join(group).join(file)).unwrap();
            }
        }

        fn make(&self, spec: Value) -> Result<(Rdt, Made)> {
            let plan = plan(spec);
            check(&self.root, &plan)?;
            let made = make(&self.root, &plan)?;
            Ok((plan, made))
        }

        fn error(&self, spec: Value) -> String {
            format!("{:#}", self.make(spec).unwrap_err())
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.root).unwrap();
        }
    }

    fn plan(spec: Value) -> Rdt {
        crate::plan::rdt::rdt(&serde_json::from_value(spec).unwrap(), "c1").unwrap()
    }

    #[test]
    fn any_other_filesystem_is_refused() {
        let fake = Fake::new("mounted");
        let error = check_mounted(&fake.root).unwrap_err().to_string();
        let place = fake.root.display();
        assert_eq!(
            error,
            format!(
                "linux.intelRdt: resctrl is not mounted on {place}; mount it (mount -t resctrl resctrl \
                 {place}) or remove intelRdt"
            )
        );
    }

    #[test]
    fn a_group_of_its_own_lives_as_long_as_the_container() {
        let fake = Fake::new("own");
        let spec = json!({"l3CacheSchema": "L3:0=f", "schemata": ["L3:0=3"]});
        let (plan, made) = fake.make(spec.clone()).unwrap();
        assert_eq!(fake.read("c1/schemata"), "L3:0=f\nL3:0=3\n");
        enter(&fake.root, &plan.groups, 42).unwrap();
        assert_eq!(fake.read("c1/tasks"), "42");
        assert!(fake.error(spec).contains("is there already"));

        made.keep();
        assert!(fake.has("c1"));
        fake.empty("c1");
        remove(&fake.root, &plan.groups).unwrap();
        assert!(!fake.has("c1"));
        remove(&fake.root, &plan.groups).unwrap();
    }

    #[test]
    fn what_was_made_is_undone() {
        let fake = Fake::new("undo");
        let (_, made) = fake.make(json!({})).unwrap();
        assert!(fake.has("c1"));
        drop(made);
        assert!(!fake.has("c1"));
        // The new directory has no place for monitoring groups.
        let error = fake.error(json!({"enableMonitoring": true}));
        assert!(error.contains("c1/mon_groups/c1"), "{error}");
        assert!(!fake.has("c1"));
    }

    #[test]
    fn a_named_group_outlives_the_container_and_its_monitoring_group_does_not() {
        let fake = Fake::new("named");
        fake.group("web");
        let spec = json!({"closID": "web", "enableMonitoring": true});
        let (plan, made) = fake.make(spec.clone()).unwrap();
        enter(&fake.root, &plan.groups, 42).unwrap();
        assert_eq!(fake.read("web/tasks"), "42");
        assert_eq!(fake.read("web/mon_groups/c1/tasks"), "42");
        assert!(fake.error(spec.clone()).contains("is there already"));

        fs::remove_file(fake.root.join("web/mon_groups/c1/tasks")).unwrap();
        drop(made);
        assert!(fake.has("web") && !fake.has("web/mon_groups/c1"));
        fake.make(spec).unwrap().1.keep();
        remove(&fake.root, &plan.groups).unwrap();
        assert!(fake.has("web") && !fake.has("web/mon_groups/c1"));
    }

    #[test]
    fn a_named_group_is_made_for_its_schemata_only() {
        let fake = Fake::new("missing");
        let error = fake.error(json!({"closID": "web"}));
        assert!(error.starts_with("linux.intelRdt.closID: web: "), "{error}");
        assert!(!fake.has("web"));
        let spec = json!({"closID": "web", "memBwSchema": "MB:0=50"});
        let (_, made) = fake.make(spec.clone()).unwrap();
        assert_eq!(fake.read("web/schemata"), "MB:0=50\n");
        fake.make(spec).unwrap();
        fs::remove_file(fake.root.join("web/schemata")).unwrap();
        drop(made);
        assert!(fake.has("web"));
    }

    #[test]
    fn the_default_group_is_never_made_nor_removed() {
        let fake = Fake::new("default");
        let spec = json!({"closID": "/", "enableMonitoring": true, "schemata": ["L3:1=f0"]});
        let (plan, made) = fake.make(spec).unwrap();
        made.keep();
        enter(&fake.root, &plan.groups, 42).unwrap();
        assert_eq!(fake.read("tasks"), "42");
        assert_eq!(fake.read("mon_groups/c1/tasks"), "42");
        fs::remove_file(fake.root.join("mon_groups/c1/tasks")).unwrap();
        remove(&fake.root, &plan.groups).unwrap();
        assert!(fake.has("schemata") && !fake.has("mon_groups/c1"));
    }

    #[test]
    fn what_a_shared_group_has_is_compared() {
        let fake = Fake::new("compare");
        fake.group("web");
        let shared = |schemata: &[&str]| {
            let made = fake.make(json!({"closID": "web", "schemata": schemata}));
            made.map(drop).map_err(|error| format!("{error:#}"))
        };
        let alike: [&[&str]; 6] = [
            &["L3:0=fffff;1=f0", "MB:0=100;1=80"],
            &["L3: 1 = 0xF0"],
            &["L3:1=000000f0"],
            // 71 is rounded to 80.
            &["MB:1=71"],
            &["L3:1=1", "L3:1=f0"],
            &[],
        ];
        for schemata in alike {
            shared(schemata).unwrap();
        }
        let other: [&[&str]; 6] = [
            &["L3:1=f1"],
            &["L3:2=f0"],
            &["L2:0=f"],
            &["MB:1=70"],
            &["L3:1=f0", "L3:1=1"],
            &["L3:0=fffff;=;"],
        ];
        for schemata in other {
            let error = shared(schemata).unwrap_err();
            assert!(error.starts_with("linux.intelRdt.schemata["), "{error}");
        }
        let unchanged = "    MB:0=100;1=80\n    L3:0=fffff;1=000f0\n";
        assert_eq!(fake.read("web/schemata"), unchanged);
    }

    #[test]
    fn a_machine_that_cannot_monitor() {
        let fake = Fake::new("monitor");
        fs::remove_dir(fake.root.join("mon_groups")).unwrap();
        let error = fake.error(json!({"enableMonitoring": true}));
        assert!(
            error.starts_with("linux.intelRdt.enableMonitoring: "),
            "{error}"
        );
        fake.make(json!({"enableMonitoring": false})).unwrap();
    }

    #[test]
    fn new_schemata_are_for_the_group_that_the_container_is_in() {
        let fake = Fake::new("update");
        fake.group("web");
        let spec = json!({"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=50"});
        let schemata = plan(spec).schemata;
        let groups = plan(json!({"closID": "web"})).groups;
        update(&fake.root, &groups, &schemata).unwrap();
        assert_eq!(fake.read("web/schemata"), "L3:0=f\nMB:0=50\n");
        let unchanged = "    MB:0=100;1=80\n    L3:0=fffff;1=000f0\n";
        assert_eq!(fake.read("schemata"), unchanged);
        let gone = plan(json!({"closID": "gone"})).groups;
        assert!(update(&fake.root, &gone, &schemata).is_err());
        assert!(!fake.has("gone"));
    }

    #[test]
    fn the_kernels_own_words_are_in_the_error() {
        let fake = Fake::new("words");
        let groups = plan(json!({})).groups;
        let error = format!("{:#}", enter(&fake.root, &groups, 42).unwrap_err());
        assert!(!error.contains("resctrl says"), "{error}");
        fake.file("info/last_cmd_status", "Out of CLOSIDs\n");
        let error = format!("{:#}", enter(&fake.root, &groups, 42).unwrap_err());
        assert!(error.contains("(resctrl says: Out of CLOSIDs)"), "{error}");
    }

    #[test]
    fn a_lock_that_is_held_too_long_is_an_error() {
        let fake = Fake::new("lock");
        let held = lock(&fake.root).unwrap();
        let error = lock_within(&fake.root, Duration::from_millis(30)).unwrap_err();
        assert!(
            error.to_string().contains("has held the lock for 30ms"),
            "{error}"
        );
        drop(held);
        lock_within(&fake.root, Duration::ZERO).unwrap();
    }
}
