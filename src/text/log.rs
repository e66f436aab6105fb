//! The log: `--log`, `--log-format`, `--log-level` and `--debug`; the only global state of the program.
//!
//! Opened by the parent before anything can fail, the parse of the command line included: an
//! engine that finds no log file tells its user of that and of nothing else. In JSON the file gets
//! one error at most and, unless a level is asked for, nothing besides: podman reads it as a single object.
//! Must not be used by the child.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::sys::caller_file;
use crate::text::fault::{self, Fault};

static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Default)]
struct Log {
    file: Option<File>,
    json: bool,
    level: Level,
}

/// What is logged besides the error: what is no more verbose than this.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub enum Level {
    Error,
    #[default]
    Warning,
    Debug,
}

/// Opens the log. After an error the log still works, on standard error.
pub fn init(options: LogOptions) -> Result<()> {
    let refused = options.path.as_deref().filter(|path| is_backend(path));
    let path = options.path.as_ref().filter(|_| refused.is_none());
    let opened = path.map(open).transpose();
    let (file, failed) = opened.map_or_else(|error| (None, Some(error)), |file| (file, None));
    LOG.get_or_init(|| Log {
        file,
        json: options.format == "json",
        level: options.level(),
    });
    failed.map_or(Ok(()), Err)?;
    if let Some(path) = refused {
        bail!(
            "--log: {path:?}: only files are supported; give a path, as ./NAME for a file of such a name"
        );
    }
    let known = options.format == "text" || options.format == "json";
    ensure!(
        known,
        "--log-format: {}: must be text or json",
        options.format
    );
    Ok(())
}

/// The one error of this run, as one line: to stderr for the caller, to the file for the engine.
pub fn failure(error: &anyhow::Error) {
    say(&fault::line(error), Some(Fault::of(error)));
}

/// The same for one who has no more than words: a defect of the program.
pub fn error(message: &str) {
    say(message, Some(Fault::internal()));
}

fn say(message: &str, fault: Option<Fault>) {
    let log = log();
    let line = log.line("error", message, fault);
    match &log.file {
        Some(file) => {
            write(file, &line);
            write(std::io::stderr(), &one_line(message));
        }
        None if log.json => write(std::io::stderr(), &line),
        None => write(std::io::stderr(), &one_line(message)),
    }
}

/// What the user may want to know although the command goes on.
pub fn warn(message: &str) {
    let log = log();
    if log.level >= Level::Warning {
        log.note("warning", message);
    }
}

/// Whether `debug` writes anything.
pub fn is_verbose() -> bool {
    log().level >= Level::Debug
}

pub fn debug(message: &str) {
    if is_verbose() {
        log().note("debug", message);
    }
}

/// `2026-01-31T23:59:59Z`
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    format!("{}Z", date_and_time(seconds))
}

/// `2026-01-31T23:59:59.123456789Z`
pub fn rfc3339_nanos(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = since.subsec_nanos();
    format!("{}.{nanos:09}Z", date_and_time(since.as_secs()))
}

fn log() -> &'static Log {
    LOG.get_or_init(Log::default)
}

impl Log {
    fn note(&self, level: &str, message: &str) {
        match &self.file {
            Some(file) => write(file, &self.line(level, message, None)),
            None if self.json => write(std::io::stderr(), &self.line(level, message, None)),
            None => write(
                std::io::stderr(),
                &format!("{level}: {}", one_line(message)),
            ),
        }
    }

    /// A line of the log file. containerd refuses the file if a time is not RFC 3339.
    fn line(&self, level: &str, message: &str, fault: Option<Fault>) -> String {
        let time = rfc3339(SystemTime::now());
        if self.json {
            let mut line = json!({"level": level, "msg": message, "time": time});
            let keys = json!(fault);
            if let (Some(line), Value::Object(keys)) = (line.as_object_mut(), keys) {
                line.extend(keys);
            }
            return line.to_string();
        }
        format!("time={time:?} level={level} msg={message:?}")
    }
}

/// One write for a line: several runtimes may append to the same file. Neither a failure is told, nor a line
/// for which a pipe has no room.
fn write(mut to: impl Write, line: &str) {
    let _ = to.write_all(format!("{line}\n").as_bytes());
}

/// A text of the config may be as long as the config.
const LONGEST: usize = 16 << 10;

/// Conmon forwards lines, and what a container or a hook printed may hold terminal escapes.
fn one_line(message: &str) -> String {
    let mut line: String = message.trim_end().chars().map(visible).collect();
    if line.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
        line.push_str(" ..");
    }
    line
}

/// Of what a config, an image or a container says: nothing that steers a terminal, ends a line or turns the order of
/// what is read (Unicode Standard Annex 9, "Explicit Directional Formatting").
pub fn printable(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(c: char) -> String {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match c.is_control() || turns {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    }
}

/// The global flags of the log.
#[derive(Debug)]
pub struct LogOptions {
    pub path: Option<PathBuf>,
    pub format: String,
    /// None for the level that the format has by default.
    pub level: Option<Level>,
}

impl LogOptions {
    /// podman reads a JSON log as one object, so there is no more than the error in it unless somebody asks.
    pub fn level(&self) -> Level {
        let usual = match self.format.as_str() {
            "json" => Level::Error,
            _ => Level::Warning,
        };
        self.level.unwrap_or(usual)
    }
}

/// Returns whether crun means by this value a log that is no file.
fn is_backend(path: &Path) -> bool {
    let backends = ["journald:", "syslog:"];
    backends
        .iter()
        .any(|backend| path.to_string_lossy().starts_with(backend))
}

fn open(path: &PathBuf) -> Result<File> {
    caller_file::append(path).with_context(|| format!("open log file {path:?}"))
}

/// The Gregorian date of a count of seconds since 1970, in UTC.
///
/// Counts from 0000-03-01, so that the leap day is the last of a year and of each of its cycles.
fn date_and_time(seconds: u64) -> String {
    const DAYS_BEFORE_1970: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = seconds / 86_400 + DAYS_BEFORE_1970;
    let (cycle, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let leap_days = day / 1_460 - day / 36_524 + day / 146_096;
    let year = (day - leap_days) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    // From March on, the months repeat every five with 153 days.
    let month = (day * 5 + 2) / 153;
    let day = day - (month * 153 + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = cycle * 400 + year + next;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_are_what_engines_decode() {
        let log = Log {
            json: true,
            ..Log::default()
        };
        let line = log.line("error", "a \"quoted\"\nmessage", None);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "error");
        assert_eq!(value["msg"], "a \"quoted\"\nmessage");
        assert_eq!(value["time"].as_str().unwrap().len(), 20);
        assert!(!line.contains('\n'));

        let line = Log::default().line("error", "a\nb", None);
        assert!(line.ends_with("Z\" level=error msg=\"a\\nb\""), "{line}");
    }

    #[test]
    fn a_message_stays_one_line() {
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(one_line(&"ü".repeat(1 << 20)).len(), LONGEST + 3);
        assert_eq!(
            one_line("a\nb\u{1b}[2Jc \u{fc}\n"),
            "a\\nb\\u{1b}[2Jc \u{fc}"
        );
    }

    #[test]
    fn times_are_rfc3339() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (4_107_456_000, "2100-02-28T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), want);
        }
        let time = UNIX_EPOCH + Duration::new(1_767_225_599, 1_002_003);
        assert_eq!(rfc3339_nanos(time), "2025-12-31T23:59:59.001002003Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let date = |day: u64| date_and_time(day * 86_400)[..10].to_string();
        let mut expected = (1970, 1, 1);
        for day in 0..200_000 {
            let (year, month, of_month) = expected;
            assert_eq!(date(day), format!("{year:04}-{month:02}-{of_month:02}"));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let february = if leap { 29 } else { 28 };
            let days = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            expected = match (of_month == days[month - 1], month) {
                (false, _) => (year, month, of_month + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
    }
}
