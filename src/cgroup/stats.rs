//! What the kernel counts for a cgroup: CPU time, memory, IO, processes, huge pages, pressure. Parent only.
//!
//! Reading comes first, then the parsers, which are pure. A file of a controller that is not enabled is
//! absent, and so is what it would tell; that is no error. Everything counts what is below, too.
//! The files are those of Documentation/admin-guide/cgroup-v2.rst, pressure is that of accounting/psi.rst.

use std::collections::BTreeMap;

use anyhow::Result;
use nix::errno::Errno;

use super::Cgroup;
use crate::sys;

/// What the kernel writes as `max`.
pub const UNLIMITED: u64 = u64::MAX;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Option<Memory>,
    pub pids: Pids,
    pub io: Option<Vec<Device>>,
    /// By the size of a page, such as 2MB.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    pub cpu_pressure: Option<Pressure>,
    pub memory_pressure: Option<Pressure>,
    pub io_pressure: Option<Pressure>,
}

/// Times are in microseconds. The periods are there with the controller only, and count where a quota is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cpu {
    pub usage: u64,
    pub user: u64,
    pub system: u64,
    pub periods: u64,
    pub throttled_periods: u64,
    pub throttled: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    pub main: Amount,
    /// Without main memory; zero where the kernel does not count swap.
    pub swap: Amount,
    /// memory.stat
    pub raw: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amount {
    pub current: u64,
    pub limit: u64,
    /// 0 where the kernel does not tell: memory.peak is of Linux 5.19, memory.swap.peak of 6.5.
    pub peak: u64,
    /// How often the limit was about to be exceeded.
    pub failures: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pids {
    pub current: u64,
    /// `None` without the controller.
    pub limit: Option<u64>,
}

/// One line of io.stat: bytes and operations, and the costs of blk-iocost in microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Device {
    pub major: u64,
    pub minor: u64,
    pub values: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hugetlb {
    pub current: u64,
    pub failures: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    pub some: Stall,
    pub full: Stall,
}

/// Shares of time in percent over 10, 60 and 300 seconds, and microseconds in all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

impl Cgroup {
    /// `None` if the cgroup is gone.
    pub fn stats(&self) -> Result<Option<Stats>> {
        // cpu.stat is there without its controller, too.
        let Some(cpu) = self.read("cpu.stat")? else {
            return Ok(None);
        };
        Ok(Some(Stats {
            cpu: parse_cpu(&cpu),
            memory: self.memory()?,
            pids: self.pids()?,
            io: self.read("io.stat")?.map(|text| parse_io(&text)),
            hugetlb: self.hugetlb()?,
            cpu_pressure: self.pressure("cpu.pressure")?,
            memory_pressure: self.pressure("memory.pressure")?,
            io_pressure: self.pressure("io.pressure")?,
        }))
    }

    fn memory(&self) -> Result<Option<Memory>> {
        let Some(main) = self.amount("memory")? else {
            return Ok(None);
        };
        let raw = self.read("memory.stat")?.unwrap_or_default();
        Ok(Some(Memory {
            main,
            swap: self.amount("memory.swap")?.unwrap_or_default(),
            raw: parse_flat(&raw),
        }))
    }

    fn amount(&self, of: &str) -> Result<Option<Amount>> {
        let Some(current) = self.read(&format!("{of}.current"))? else {
            return Ok(None);
        };
        let number = |file: &str| -> Result<u64> {
            let text = self.read(&format!("{of}.{file}"))?;
            Ok(text.map_or(0, |text| parse_number(&text)))
        };
        Ok(Some(Amount {
            current: parse_number(&current),
            limit: number("max")?,
            peak: number("peak")?,
            failures: self.failures(of)?,
        }))
    }

    fn pids(&self) -> Result<Pids> {
        let limit = self.read("pids.max")?.map(|text| parse_number(&text));
        let current = match self.read("pids.current")? {
            Some(text) => parse_number(&text),
            None => self.all_processes()?.len() as u64,
        };
        Ok(Pids { current, limit })
    }

    fn hugetlb(&self) -> Result<BTreeMap<String, Hugetlb>> {
        let mut found = BTreeMap::new();
        let entries = sys::read_dir(&self.path).into_iter().flatten();
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(size) = file.to_str().and_then(page_size) else {
                continue;
            };
            let of = format!("hugetlb.{size}");
            let Some(current) = self.read(&format!("{of}.current"))? else {
                continue;
            };
            let usage = Hugetlb {
                current: parse_number(&current),
                failures: self.failures(&of)?,
            };
            found.insert(size.to_string(), usage);
        }
        Ok(found)
    }

    fn failures(&self, of: &str) -> Result<u64> {
        let events = self.read(&format!("{of}.events"))?.unwrap_or_default();
        Ok(parse_flat(&events).get("max").copied().unwrap_or(0))
    }

    fn pressure(&self, file: &str) -> Result<Option<Pressure>> {
        match self.read(file) {
            // psi=0 on the kernel's command line, or 0 in cgroup.pressure.
            Err(error) if sys::errno(&error) == Some(Errno::EOPNOTSUPP) => Ok(None),
            read => Ok(read?.map(|text| parse_pressure(&text))),
        }
    }
}

pub fn parse_cpu(text: &str) -> Cpu {
    let values = parse_flat(text);
    let value = |name: &str| values.get(name).copied().unwrap_or(0);
    Cpu {
        usage: value("usage_usec"),
        user: value("user_usec"),
        system: value("system_usec"),
        periods: value("nr_periods"),
        throttled_periods: value("nr_throttled"),
        throttled: value("throttled_usec"),
    }
}

pub fn parse_number(text: &str) -> u64 {
    match text.trim() {
        "max" => UNLIMITED,
        number => number.parse().unwrap_or(0),
    }
}

/// A key and a value a line. A line that a later kernel writes otherwise is left out.
pub fn parse_flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_string(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

pub fn parse_io(text: &str) -> Vec<Device> {
    text.lines().filter_map(parse_device).collect()
}

/// A device that has done nothing since its statistics were reset has a number and nothing else.
fn parse_device(line: &str) -> Option<Device> {
    let mut words = line.split_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let pair = |word: &str| {
        let (key, value) = word.split_once('=')?;
        Some((key.to_string(), value.parse().ok()?))
    };
    Some(Device {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        values: words.filter_map(pair).collect(),
    })
}

/// The size in `hugetlb.2MB.current`; there is a `hugetlb.2MB.rsvd.current` beside it.
pub fn page_size(file: &str) -> Option<&str> {
    let size = file.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
    (!size.contains('.')).then_some(size)
}

/// Before Linux 5.13 cpu.pressure had no line `full`.
pub fn parse_pressure(text: &str) -> Pressure {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind));
        line.map(parse_stall).unwrap_or_default()
    };
    Pressure {
        some: stall("some "),
        full: stall("full "),
    }
}

fn parse_stall(line: &str) -> Stall {
    let words: BTreeMap<&str, &str> = line
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .collect();
    let share = |key| words.get(key).and_then(|text| text.parse().ok());
    let total = words.get("total").and_then(|text| text.parse().ok());
    Stall {
        avg10: share("avg10").unwrap_or(0.0),
        avg60: share("avg60").unwrap_or(0.0),
        avg300: share("avg300").unwrap_or(0.0),
        total: total.unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_with_and_without_its_controller() {
        let base = "usage_usec 30211754\nuser_usec 21904112\nsystem_usec 8307642\nnice_usec 0\n\
                    core_sched.force_idle_usec 0\n";
        let mut wanted = Cpu {
            usage: 30211754,
            user: 21904112,
            system: 8307642,
            ..Cpu::default()
        };
        assert_eq!(parse_cpu(base), wanted);
        let quota = "nr_periods 842\nnr_throttled 17\nthrottled_usec 923456\nnr_bursts 3\nburst_usec 4410\n";
        wanted.periods = 842;
        wanted.throttled_periods = 17;
        wanted.throttled = 923456;
        assert_eq!(parse_cpu(&format!("{base}{quota}")), wanted);
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_number("max\n"), UNLIMITED);
        assert_eq!(parse_number("268435456\n"), 268435456);
        assert_eq!(parse_number(""), 0);
    }

    #[test]
    fn flat_files() {
        let text = "anon 4415488\nfile 10321920\ninactive_file 8192000\nnew per-node 1\nodd\n";
        let found = parse_flat(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found["inactive_file"], 8192000);
        let events = "low 0\nhigh 0\nmax 52\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(parse_flat(events)["max"], 52);
    }

    #[test]
    fn io_of_several_devices() {
        let text = "253:1 rbytes=1253376 wbytes=40960 rios=61 wios=8 dbytes=0 dios=0\n\
                    7:0 \n\
                    259:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=8192 dios=2 cost.vrate=100.00 cost.usage=75\n";
        let devices = parse_io(text);
        let numbers: Vec<_> = devices.iter().map(|d| (d.major, d.minor)).collect();
        assert_eq!(numbers, [(253, 1), (7, 0), (259, 0)]);
        assert_eq!(devices[0].values["rbytes"], 1253376);
        assert!(devices[1].values.is_empty());
        assert_eq!(devices[2].values["cost.usage"], 75);
        assert_eq!(devices[2].values["dbytes"], 8192);
        assert!(!devices[2].values.contains_key("cost.vrate"));
    }

    #[test]
    fn pressure_of_both_kinds() {
        let some = "some avg10=12.34 avg60=5.00 avg300=0.71 total=8812345\n";
        let both = format!("{some}full avg10=1.50 avg60=0.25 avg300=0.00 total=91234\n");
        let found = parse_pressure(&both);
        assert_eq!((found.some.avg10, found.some.avg60), (12.34, 5.0));
        assert_eq!((found.some.avg300, found.some.total), (0.71, 8812345));
        assert_eq!((found.full.avg10, found.full.total), (1.5, 91234));
        assert_eq!(parse_pressure(some).full, Stall::default());
    }

    #[test]
    fn sizes_of_huge_pages() {
        assert_eq!(page_size("hugetlb.2MB.current"), Some("2MB"));
        assert_eq!(page_size("hugetlb.1GB.rsvd.current"), None);
        assert_eq!(page_size("hugetlb.64KB.max"), None);
        assert_eq!(page_size("memory.current"), None);
    }
}
