//! `events`: reports what a container uses, once or again and again, and that it ran out of memory.
//!
//! One JSON object a line, whose names engines know (report.rs). The stream ends with the container's
//! last process. Changes nothing.

mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cgroup::Cgroup;
use crate::cli::args;
use crate::facility::{resctrl, resctrl_usage};
use crate::state::container::{Container, Status};
use crate::state::store::Store;

pub fn run(args: &args::Events, store: &Store) -> Result<i32> {
    let container = store.find(&args.id)?;
    let interval = interval(&args.interval)?;
    ensure!(
        container.status()? != Status::Stopped,
        "container with id {} is not running",
        args.id
    );
    let cgroup = container
        .cgroup()?
        .context("the container has no cgroup, which would count what it uses")?;
    if args.stats {
        report(&container, &cgroup)?;
    } else {
        stream(&container, &cgroup, interval)?;
    }
    Ok(0)
}

fn stream(container: &Container, cgroup: &Cgroup, interval: Duration) -> Result<()> {
    let Some(mut watch) = cgroup.watch()? else {
        return Ok(());
    };
    let mut next = Instant::now() + interval;
    loop {
        let happened = watch.wait(next)?;
        if happened.oom {
            super::print(&report::oom(&container.state.id)?)?;
        }
        if happened.ended {
            return Ok(());
        }
        if Instant::now() >= next {
            report(container, cgroup)?;
            // What a stopped reader or a suspended machine has missed is not made up for.
            next = (next + interval).max(Instant::now());
        }
    }
}

/// Nothing, if the container ends meanwhile.
fn report(container: &Container, cgroup: &Cgroup) -> Result<()> {
    let Some(stats) = cgroup.stats()? else {
        return Ok(());
    };
    let groups = container.state.rdt.as_ref();
    let rdt = groups.map(|groups| resctrl_usage::usage(resctrl::ROOT.as_ref(), groups));
    super::print(&report::stats(&container.state.id, &stats, rdt.as_ref())?)
}

/// A duration as Go writes them: numbers with units in a row.
pub fn interval(text: &str) -> Result<Duration> {
    let Some(nanoseconds) = nanoseconds(text) else {
        bail!(
            "--interval: {text:?}: is no time; give numbers with units, such as 5s, 500ms or 1m30s"
        );
    };
    ensure!(
        nanoseconds >= 1.0,
        "--interval: {text}: must be greater than 0"
    );
    // As in Go, 292 years are the most.
    ensure!(
        nanoseconds < i64::MAX as f64,
        "--interval: {text}: is too long"
    );
    Ok(Duration::from_nanos(nanoseconds as u64))
}

fn nanoseconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let mut sum = 0.0;
    loop {
        let (number, after) = rest.split_at(rest.find(|c| !is_number(c))?);
        let (unit, after) = after.split_at(after.find(is_number).unwrap_or(after.len()));
        sum += number.parse::<f64>().ok()? * nanoseconds_of(unit)?;
        if after.is_empty() {
            return Some(sign * sum);
        }
        rest = after;
    }
}

fn nanoseconds_of(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        // The micro sign, and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_as_go_writes_them() {
        let milliseconds = |text| interval(text).expect("a time").as_millis();
        assert_eq!(milliseconds("5s"), 5000);
        assert_eq!(milliseconds("500ms"), 500);
        assert_eq!(milliseconds("1m30s"), 90_000);
        assert_eq!(milliseconds("+1.5h"), 5_400_000);
        assert_eq!(milliseconds(".5s"), 500);
        assert_eq!(milliseconds("2000us"), 2);
        assert_eq!(milliseconds("3000\u{b5}s"), 3);
        assert_eq!(interval("7ns").expect("a time").as_nanos(), 7);
    }

    #[test]
    fn what_is_no_interval() {
        for text in [
            "", "5", "s", "5 s", "5x", "1.2.3s", "5s ", "--5s", "1h5", "inf",
        ] {
            let error = interval(text).expect_err(text).to_string();
            assert!(error.contains("is no time"), "{error}");
        }
        for text in ["0", "0s", "-1s", "0.1ns"] {
            let error = interval(text).expect_err(text).to_string();
            assert!(error.contains("must be greater than 0"), "{error}");
        }
        assert!(interval("999999999h").is_err());
    }
}
