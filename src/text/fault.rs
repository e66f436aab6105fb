//! What an error says to a machine besides its text: the keys of a line in the JSON log, listed in docs/errors.md.
//!
//! A code is attached where the cause is known; field, errno and hint are read off the error as it stands, because every
//! message is made to one pattern: `field: what: why; hint`.

use std::fmt;

use anyhow::Error;
use nix::errno::Errno;
use serde::Serialize;

use crate::sys;

#[derive(Debug, Serialize)]
pub struct Fault {
    pub code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// An error, or the context of one, that has a code of its own. Also what is left of one that crossed the channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Coded {
    pub code: String,
    pub errno: i32,
    pub text: String,
}

pub fn coded(code: &str, text: impl Into<String>) -> Coded {
    Coded {
        code: code.to_string(),
        errno: 0,
        text: text.into(),
    }
}

impl Coded {
    /// The whole of an error, for one who gets bytes only.
    pub fn of(error: &Error) -> Coded {
        let known = error.downcast_ref::<Coded>();
        Coded {
            code: known.map(|known| known.code.clone()).unwrap_or_default(),
            errno: errno(error).map_or(0, |errno| errno as i32),
            text: line(error),
        }
    }
}

/// The code that an error was given.
pub fn code(error: &Error) -> Option<&str> {
    error
        .downcast_ref::<Coded>()
        .map(|known| known.code.as_str())
        .filter(|code| !code.is_empty())
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Coded {}

impl Fault {
    pub fn internal() -> Fault {
        Fault {
            code: "internal".to_string(),
            field: None,
            errno: None,
            hint: None,
        }
    }

    pub fn of(error: &Error) -> Fault {
        let text = line(error);
        let (mut field, errno) = (field(&text), errno(error));
        let known = error
            .downcast_ref::<Coded>()
            .map(|known| known.code.clone());
        let code = known.filter(|code| !code.is_empty());
        if code.as_ref().is_some_and(|code| code.starts_with("exec-")) {
            field = Some("process.args[0]".to_string());
        }
        Fault {
            code: code.unwrap_or_else(|| derived(field.as_deref(), errno).to_string()),
            field,
            errno: errno.map(|errno| format!("{errno:?}")),
            hint: without_hint(&text).1.map(str::to_string),
        }
    }
}

/// The whole error: what was done, down to the cause, and only after that what to do about it.
pub fn line(error: &Error) -> String {
    // The library puts a number behind the kernel's words.
    let number = |code| format!(" (os error {code})");
    let io = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    let numbers: Vec<String> = io
        .filter_map(std::io::Error::raw_os_error)
        .map(number)
        .collect();
    let plain = |text: String| {
        numbers
            .iter()
            .fold(text, |text, number| text.replace(number, ""))
    };
    let parts: Vec<String> = error
        .chain()
        .map(|cause| plain(cause.to_string()))
        .collect();
    let (acts, hints): (Vec<&str>, Vec<Option<&str>>) =
        parts.iter().map(|part| without_hint(part)).unzip();
    let hints = hints.into_iter().flatten().map(|hint| format!("; {hint}"));
    acts.join(": ") + &hints.collect::<String>()
}

/// What others have said stands between quotes, and gives no hints.
fn without_hint(part: &str) -> (&str, Option<&str>) {
    let split = part.rsplit_once("; ");
    let hint = split.filter(|(act, _)| act.matches('"').count() % 2 == 0);
    hint.map_or((part, None), |(act, hint)| (act, Some(hint)))
}

/// Returns the errno of the call that failed, in this process or in the one that told of it. None if no call failed.
pub fn errno(error: &Error) -> Option<Errno> {
    let crossed = error
        .downcast_ref::<Coded>()
        .filter(|known| known.errno != 0);
    sys::errno(error).or(crossed.map(|known| Errno::from_raw(known.errno)))
}

fn derived(field: Option<&str>, errno: Option<Errno>) -> &'static str {
    match (field, errno) {
        (_, Some(_)) => "system-call",
        (Some(flag), None) if flag.starts_with("--") => "usage",
        (Some(_), None) => "config-invalid",
        (None, None) => "failed",
    }
}

/// The part of the config, or the flag, that the first words name.
fn field(text: &str) -> Option<String> {
    let mut parts = text.split(": ").take(3);
    parts
        .find(|part| is_flag(part) || is_field(part))
        .map(str::to_string)
}

fn is_flag(part: &str) -> bool {
    part.starts_with("--") && !part.contains(char::is_whitespace)
}

/// A name of the config's first level, and what follows it without a blank.
fn is_field(part: &str) -> bool {
    const FIRST: [&str; 9] = [
        "annotations",
        "domainname",
        "hooks",
        "hostname",
        "linux",
        "mounts",
        "ociVersion",
        "process",
        "root",
    ];
    let rest = FIRST.iter().find_map(|name| part.strip_prefix(name));
    rest.is_some_and(|rest| {
        let plain = !rest.contains(char::is_whitespace);
        plain && (rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    fn fault(text: &str) -> (String, Option<String>, Option<String>) {
        let fault = Fault::of(&anyhow!("{text}"));
        (fault.code, fault.field, fault.hint)
    }

    #[test]
    fn the_pattern_of_messages_gives_field_and_hint() {
        let some = |text: &str| Some(text.to_string());
        for (text, code, field, hint) in [
            (
                "process.user.uid: -1: must be a number",
                "config-invalid",
                some("process.user.uid"),
                None,
            ),
            (
                "mounts[3]: mount tmpfs on /x",
                "config-invalid",
                some("mounts[3]"),
                None,
            ),
            (
                "linux.resources.unified[\"a.b\"]: x",
                "config-invalid",
                some("linux.resources.unified[\"a.b\"]"),
                None,
            ),
            (
                "/b/config.json: root.path: missing",
                "config-invalid",
                some("root.path"),
                None,
            ),
            (
                "--bundle: x: gone; name another",
                "usage",
                some("--bundle"),
                some("name another"),
            ),
            (
                "--process: process.args: empty",
                "usage",
                some("--process"),
                None,
            ),
            ("rootless: x", "failed", None, None),
            ("container not running", "failed", None, None),
        ] {
            assert_eq!(fault(text), (code.to_string(), field, hint), "{text}");
        }
    }

    #[test]
    fn the_hint_follows_the_cause() {
        let failed = std::io::Error::from_raw_os_error(libc::EACCES);
        let error = Error::new(failed)
            .context("mkdirat(x)")
            .context("cgroup /x: not yours; log in");
        let want = "cgroup /x: not yours: mkdirat(x): Permission denied; log in";
        assert_eq!(line(&error), want);
        assert_eq!(Fault::of(&error).hint.as_deref(), Some("log in"));
        assert_eq!(line(&Error::new(Coded::of(&error))), want);
        assert_eq!(fault("hooks.prestart[0]: it said \"a; b\"").2, None);
    }

    #[test]
    fn a_code_is_found_below_other_contexts_and_crosses_the_channel() {
        let failed = std::io::Error::from_raw_os_error(libc::EACCES);
        let error = Error::new(failed)
            .context(coded("exec-permission", "exec: \"/x\""))
            .context("start");
        let fault = Fault::of(&error);
        assert_eq!(
            (fault.code.as_str(), fault.errno.as_deref()),
            ("exec-permission", Some("EACCES"))
        );
        let crossed = Error::new(Coded::of(&error));
        assert_eq!(line(&crossed), line(&error));
        let fault = Fault::of(&crossed);
        assert_eq!(
            (fault.code.as_str(), fault.errno.as_deref()),
            ("exec-permission", Some("EACCES"))
        );
    }

    #[test]
    fn a_failed_call_is_told_by_its_errno() {
        let failed: Result<(), _> = Err(std::io::Error::from_raw_os_error(libc::ENOENT));
        let error = failed.context("mounts[0]: bind /a on /b").unwrap_err();
        let fault = Fault::of(&error);
        assert_eq!(fault.code, "system-call");
        assert_eq!(fault.errno.as_deref(), Some("ENOENT"));
        assert_eq!(fault.field.as_deref(), Some("mounts[0]"));
    }
}
