//! `--timings`: how long each step of a command took, printed to standard error at its end.
//!
//! A clock of its own on each side of the clone: init has a copy of the parent's memory, starts its part anew, and sends
//! it over the channel before it is ready. Without the flag a step costs the look at one static.

use std::ffi::CStr;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::text::log::printable;
use crate::{protect, sys};

/// Hands the first start's time on, over the execution of the protected copy.
pub const BEGUN: &str = "COFFERDAM_TIMINGS_BEGUN";

static CLOCK: OnceLock<Mutex<Clock>> = OnceLock::new();

struct Clock {
    begun: u64,
    last: u64,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub step: String,
    pub microseconds: u64,
    /// Done by the container's init, while the parent waited for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
}

/// Begins to measure, with what has passed since the program was started, and since it was protected.
pub fn begin(started: [Instant; 2]) {
    let now = monotonic();
    let since = |instant: Instant| now.saturating_sub(instant.elapsed().as_micros() as u64);
    let [begun, started] = started.map(since);
    let first = std::env::var(BEGUN).ok().and_then(|text| text.parse().ok());
    let begun = first.unwrap_or(begun);
    let clock = CLOCK.get_or_init(|| {
        Mutex::new(Clock {
            begun,
            last: begun,
            steps: Vec::new(),
        })
    });
    if protect::may_enter_container() {
        note(clock, "run from a protected copy".to_string(), started);
    }
    note(clock, "read the command line".to_string(), now);
}

/// The time of the first start, as the environment of the second has it.
pub fn begun() -> Option<String> {
    let asked = |word: &CStr| word.to_bytes().starts_with(b"--timings");
    match CLOCK.get().and_then(lock) {
        Some(clock) => Some(clock.begun.to_string()),
        None => sys::words().any(asked).then(|| monotonic().to_string()),
    }
}

/// Says what has been done since the last step.
pub fn step(name: impl FnOnce() -> String) {
    if let Some(clock) = CLOCK.get() {
        note(clock, name(), monotonic());
    }
}

/// init: forgets what the parent has done.
pub fn restart() {
    if let Some(mut clock) = CLOCK.get().and_then(lock) {
        clock.last = monotonic();
        clock.steps.clear();
    }
}

/// init: its steps, in pieces that fit into a packet.
pub fn pieces(longest: usize) -> Vec<String> {
    let Some(mut clock) = CLOCK.get().and_then(lock) else {
        return Vec::new();
    };
    let steps = std::mem::take(&mut clock.steps);
    let mut pieces = vec![String::new()];
    for step in steps {
        let line = json!(Step { init: true, ..step }).to_string() + "\n";
        match pieces.last_mut() {
            Some(piece) if piece.len() + line.len() <= longest => piece.push_str(&line),
            _ => pieces.push(line.chars().take(longest).collect()),
        }
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// The parent: what came from init.
pub fn add(piece: &str) {
    if let Some(mut clock) = CLOCK.get().and_then(lock) {
        let steps = piece
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        clock.steps.extend(steps);
    }
}

/// The report, in the format that `--timings` names.
pub fn report(command: &str, format: &str) -> Result<String> {
    let clock = CLOCK.get().and_then(lock).context("no timings")?;
    let total = monotonic().saturating_sub(clock.begun);
    Ok(match format {
        "json" => {
            json!({"command": command, "microseconds": total, "steps": clock.steps}).to_string()
        }
        _ => table(&clock.steps, total),
    })
}

fn table(steps: &[Step], total: u64) -> String {
    let mut text = String::new();
    for Step {
        step,
        microseconds,
        init,
    } in steps
    {
        let side = if *init { "  init: " } else { "" };
        let step = printable(step);
        let _ = writeln!(text, "{microseconds:>9} us  {side}{step}");
    }
    let _ = write!(text, "{total:>9} us  in all");
    text
}

fn note(clock: &Mutex<Clock>, step: String, now: u64) {
    if let Some(mut clock) = lock(clock) {
        let microseconds = now.saturating_sub(clock.last);
        clock.last = now;
        clock.steps.push(Step {
            step,
            microseconds,
            init: false,
        });
    }
}

fn lock(clock: &Mutex<Clock>) -> Option<MutexGuard<'_, Clock>> {
    clock.lock().ok()
}

/// Microseconds since boot: the same in every process.
fn monotonic() -> u64 {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(|time| time.tv_sec() as u64 * 1_000_000 + time.tv_nsec() as u64 / 1000)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let step = |step: &str, microseconds, init| Step {
            step: step.to_string(),
            microseconds,
            init,
        };
        let steps = [
            step("plan", 12, false),
            step("mount proc on /proc", 3456, true),
        ];
        assert_eq!(
            table(&steps, 4000),
            "       12 us  plan\n     3456 us    init: mount proc on /proc\n     4000 us  in all"
        );
    }
}
