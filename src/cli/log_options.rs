//! The global flags of the log, read before anything else: a fault of the command line goes to the log, too.

use std::ffi::OsString;

use crate::cli::normalize;
use crate::text::log::{Level, LogOptions};

/// The global flags that do not take the next word as their value.
pub const SWITCHES: [&str; 7] = ["debug", "systemd-cgroup", "s", "help", "h", "version", "v"];

/// Reads the words before the verb; faults are left for the parse to find.
///
/// An unknown flag may have a value, so the next word is not taken for the verb. Beyond the verb
/// nothing is read: `--log` may belong to the container's command there.
pub fn log_options(words: impl Iterator<Item = OsString>) -> LogOptions {
    let mut options = LogOptions {
        path: None,
        format: "text".to_string(),
        level: None,
    };
    let mut debug = false;
    let mut words = words;
    while let Some((name, value)) = words.next().and_then(|word| normalize::flag(&word)) {
        let value = match value {
            Some(value) => value,
            None if SWITCHES.contains(&name.as_str()) => OsString::new(),
            None => words.next().unwrap_or_default(),
        };
        match name.as_str() {
            "log" if value.is_empty() => {}
            "log" => options.path = Some(value.into()),
            "log-format" => options.format = value.to_string_lossy().into_owned(),
            "log-level" => options.level = level(&value.to_string_lossy()),
            "debug" => debug = value != "false",
            _ => {}
        }
    }
    if debug {
        options.level = Some(Level::Debug);
    }
    options
}

/// A wrong one is left for the parse to find.
fn level(text: &str) -> Option<Level> {
    match text {
        "error" => Some(Level::Error),
        "warning" => Some(Level::Warning),
        "debug" => Some(Level::Debug),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> (Option<String>, String, bool) {
        let options = log_options(line.split(' ').map(OsString::from));
        let path = options.path.map(|path| path.display().to_string());
        (path, options.format, options.level == Some(Level::Debug))
    }

    #[test]
    fn the_scan_knows_every_form_of_a_flag() {
        let want = (Some("/l".to_string()), "json".to_string(), true);
        for line in [
            "--log /l --log-format json --debug create c",
            "--log=/l --log-format=json --debug=true create c",
            "-log /l -log-format=json -debug create c",
            "--root=/r --log /l --systemd-cgroup --log-format json --rootless auto --debug",
            "--log /first --log /l --log-format text --log-format json --debug",
            "--cgroup-manager disabled --log /l --log-format json --debug create c",
            "--log /l --log-format json --log-level error --log-level=debug create c",
        ] {
            assert_eq!(asked(line), want, "{line}");
        }
    }

    #[test]
    fn the_scan_ends_at_the_verb() {
        for line in [
            "run c -- app --log /etc/passwd --log-format json --debug",
            "exec c app --log /etc/passwd --debug",
            "--root create exec --log /etc/passwd",
            "-- --log /etc/passwd",
        ] {
            assert_eq!(asked(line), (None, "text".to_string(), false), "{line}");
        }
    }

    #[test]
    fn faults_do_not_stop_the_log_options() {
        assert_eq!(asked("--bad=1 --log /l").0.as_deref(), Some("/l"));
        assert_eq!(asked("--log").0, None);
        assert_eq!(asked("--log= --debug"), (None, "text".to_string(), true));
        assert!(!asked("--debug --debug=false list").2);
    }

    #[test]
    fn the_level_is_the_one_asked_for_or_that_of_the_format() {
        for (line, wanted) in [
            ("list", Level::Warning),
            ("--log-format json list", Level::Error),
            ("--log-format json --log-level warning list", Level::Warning),
            ("--log-level error list", Level::Error),
            ("--log-level error --debug list", Level::Debug),
            ("--log-level nonsense list", Level::Warning),
            ("list --log-level debug", Level::Warning),
        ] {
            let words = line.split(' ').map(OsString::from);
            assert_eq!(log_options(words).level(), wanted, "{line}");
        }
    }
}
