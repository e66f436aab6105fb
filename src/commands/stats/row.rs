//! One container's line of `stats`: shares and sums, computed from two samples and written for people or
//! as JSON. PURE, but for the size of the host's memory.
//!
//! What the kernel does not count, for want of a controller, is a dash in the table and null in JSON.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::cgroup::stats::{Cpu, Device, Memory, Pressure, Stats, UNLIMITED};

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    id: String,
    /// Of one CPU: two that are busy make 200.
    cpu_percent: Option<f64>,
    memory_usage: Option<u64>,
    memory_limit: Option<u64>,
    memory_percent: Option<f64>,
    pids: Option<u64>,
    pids_limit: Option<u64>,
    io_read: Option<u64>,
    io_written: Option<u64>,
    pressure: Shares,
    /// Of the periods since the sample before, those in which the quota ran out.
    throttled_percent: Option<f64>,
}

/// Percent of the last ten seconds in which some process had to wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Shares {
    cpu: Option<f64>,
    memory: Option<f64>,
    io: Option<f64>,
}

impl Row {
    pub fn new(
        id: &str,
        before: Option<(&Stats, Duration)>,
        now: &Stats,
        host_memory: Option<u64>,
    ) -> Row {
        let memory = now.memory.as_ref();
        let usage = memory.map(working_set);
        let limit = memory.and_then(|memory| limit(memory.main.limit, host_memory));
        let io = now.io.as_deref();
        Row {
            id: id.to_string(),
            cpu_percent: before.map(|(before, time)| cpu_percent(&before.cpu, &now.cpu, time)),
            memory_usage: usage,
            memory_limit: limit,
            memory_percent: usage.zip(limit).and_then(|(part, all)| percent(part, all)),
            pids: (now.pids.current > 0).then_some(now.pids.current),
            pids_limit: now.pids.limit.filter(|limit| *limit != UNLIMITED),
            io_read: io.map(|devices| sum(devices, "rbytes")),
            io_written: io.map(|devices| sum(devices, "wbytes")),
            pressure: Shares {
                cpu: share(&now.cpu_pressure),
                memory: share(&now.memory_pressure),
                io: share(&now.io_pressure),
            },
            throttled_percent: before.and_then(|(before, _)| throttled(&before.cpu, &now.cpu)),
        }
    }
}

/// The size of the host's memory, for containers that may take all of it.
pub fn memory_of_host() -> Option<u64> {
    parse_meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_meminfo(text: &str) -> Option<u64> {
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Without the page cache that the kernel would give up first.
fn working_set(memory: &Memory) -> u64 {
    let inactive = memory.raw.get("inactive_file").copied().unwrap_or(0);
    memory.main.current.saturating_sub(inactive)
}

fn limit(own: u64, host: Option<u64>) -> Option<u64> {
    match own {
        UNLIMITED => host,
        own => Some(host.map_or(own, |host| host.min(own))),
    }
}

fn cpu_percent(before: &Cpu, now: &Cpu, time: Duration) -> f64 {
    let used = now.usage.saturating_sub(before.usage);
    percent(used, time.as_micros() as u64).unwrap_or(0.0)
}

fn throttled(before: &Cpu, now: &Cpu) -> Option<f64> {
    let periods = now.periods.saturating_sub(before.periods);
    let part = now
        .throttled_periods
        .saturating_sub(before.throttled_periods);
    percent(part, periods)
}

fn percent(part: u64, all: u64) -> Option<f64> {
    // To a hundredth: more would be noise.
    (all > 0).then(|| (part as f64 * 10_000.0 / all as f64).round() / 100.0)
}

fn sum(devices: &[Device], name: &str) -> u64 {
    let values = devices.iter().filter_map(|device| device.values.get(name));
    values.sum()
}

fn share(pressure: &Option<Pressure>) -> Option<f64> {
    pressure.as_ref().map(|pressure| pressure.some.avg10)
}

/// An object a line.
pub fn objects(rows: &[Row]) -> Result<String> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row)?;
        text += "\n";
    }
    Ok(text)
}

const HEADING: [&str; 8] = [
    "ID",
    "CPU %",
    "MEM USAGE / LIMIT",
    "MEM %",
    "PIDS",
    "IO READ / WRITE",
    "PSI CPU/MEM/IO",
    "THROTTLED",
];

/// Names to the left, numbers to the right.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADING.map(str::to_string)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| {
        let cells = lines.iter().map(|line| line[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let line = |cells: &[String; 8]| {
        let padded = cells.iter().zip(widths).enumerate();
        let padded = padded.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ") + "\n"
    };
    lines.iter().map(line).collect()
}

fn cells(row: &Row) -> [String; 8] {
    let share = |share: Option<f64>| share.map_or("-".into(), |share| format!("{share:.1}"));
    let percent = |share: Option<f64>| share.map_or("-".into(), |share| format!("{share:.2}%"));
    let bytes = |count: Option<u64>| count.map_or("-".into(), bytes);
    let pressure = [row.pressure.cpu, row.pressure.memory, row.pressure.io].map(share);
    [
        short(&row.id).to_string(),
        percent(row.cpu_percent),
        format!("{} / {}", bytes(row.memory_usage), bytes(row.memory_limit)),
        percent(row.memory_percent),
        row.pids.map_or("-".into(), |count| count.to_string()),
        format!("{} / {}", bytes(row.io_read), bytes(row.io_written)),
        pressure.join("/"),
        percent(row.throttled_percent),
    ]
}

/// Names of engines are 64 hexadecimal digits, of which people know the first ones.
fn short(id: &str) -> &str {
    let made = id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    if made { &id[..12] } else { id }
}

/// Three digits or more, in the largest unit that has one before the point.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in UNITS {
        // What would be written as 1024 is one of the next.
        if value < 1023.5 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    match value {
        _ if unit == "B" => format!("{count}B"),
        value if value < 9.995 => format!("{value:.2}{unit}"),
        value if value < 99.95 => format!("{value:.1}{unit}"),
        value => format!("{value:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::stats::{Amount, Pids, Stall};

    fn busy() -> Stats {
        let device = |read| Device {
            values: [("rbytes".to_string(), read), ("wbytes".to_string(), 512)].into(),
            ..Device::default()
        };
        let some = Stall {
            avg10: 12.34,
            ..Stall::default()
        };
        Stats {
            cpu: Cpu {
                usage: 1_500_000,
                periods: 30,
                throttled_periods: 12,
                ..Cpu::default()
            },
            memory: Some(Memory {
                main: Amount {
                    current: 48 << 20,
                    limit: 64 << 20,
                    ..Amount::default()
                },
                raw: [("inactive_file".to_string(), 16 << 20)].into(),
                ..Memory::default()
            }),
            pids: Pids {
                current: 4,
                limit: Some(100),
            },
            io: Some(vec![device(1 << 20), device(3 << 20)]),
            cpu_pressure: Some(Pressure {
                some,
                ..Pressure::default()
            }),
            ..Stats::default()
        }
    }

    #[test]
    fn shares_are_those_since_the_sample_before() {
        let mut before = Stats::default();
        before.cpu.usage = 1_000_000;
        before.cpu.periods = 20;
        before.cpu.throttled_periods = 10;
        let since = Some((&before, Duration::from_millis(250)));
        let row = Row::new("web", since, &busy(), Some(1 << 30));
        assert_eq!(row.cpu_percent, Some(200.0));
        assert_eq!(row.throttled_percent, Some(20.0));
        assert_eq!(row.memory_usage, Some(32 << 20));
        assert_eq!(row.memory_percent, Some(50.0));
        assert_eq!((row.io_read, row.io_written), (Some(4 << 20), Some(1024)));
        let first = Row::new("web", None, &busy(), None);
        assert_eq!((first.cpu_percent, first.throttled_percent), (None, None));
    }

    #[test]
    fn the_host_is_the_limit_of_who_has_none() {
        assert_eq!(limit(UNLIMITED, Some(100)), Some(100));
        assert_eq!(limit(40, Some(100)), Some(40));
        assert_eq!(limit(400, Some(100)), Some(100));
        assert_eq!(limit(40, None), Some(40));
        assert_eq!(limit(UNLIMITED, None), None);
        let text = "MemTotal:       16315820 kB\nMemFree:         215020 kB\n";
        assert_eq!(parse_meminfo(text), Some(16315820 * 1024));
    }

    #[test]
    fn what_is_not_counted_is_a_dash() {
        let row = Row::new("web", None, &Stats::default(), Some(1 << 30));
        let text = table(std::slice::from_ref(&row));
        let words: Vec<&str> = text
            .lines()
            .nth(1)
            .expect("a row")
            .split_whitespace()
            .collect();
        let wanted = "web - - / - - - - / - -/-/- -";
        assert_eq!(words.join(" "), wanted);
        let json = objects(&[row]).expect("JSON");
        assert!(json.contains(r#""cpu_percent":null"#), "{json}");
    }

    #[test]
    fn columns_line_up() {
        let before = Stats::default();
        let since = Some((&before, Duration::from_secs(1)));
        let made = "0123456789abcdef".repeat(4);
        let rows = ["a", &made].map(|id| Row::new(id, since, &busy(), None));
        let text = table(&rows);
        let columns = "150.00%  32.0MiB / 64.0MiB  50.00%     4  4.00MiB / 1.00KiB        12.3/-/-     40.00%";
        let wanted = ["a           ", "0123456789ab"].map(|id| format!("{id}  {columns}"));
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), wanted);
        let widths: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    }

    #[test]
    fn sizes_for_people() {
        for (count, wanted) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00KiB"),
            (10_235, "10.0KiB"),
            (1_048_000, "1023KiB"),
            (1_048_575, "1.00MiB"),
            (150 << 20, "150MiB"),
            (3 << 40, "3.00TiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(bytes(count), wanted);
        }
    }
}
