//! Decides what a difference is: cofferdam sees something else than both rivals, or than the only one that ran the config,
//! or than each of two that differ.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::observe::Seen;
use crate::world::LINKS;

#[derive(Clone, Debug)]
pub struct Difference {
    /// The name of what was seen.
    pub key: String,
    /// `both`: the rivals agree. `each`: all three differ. `runc`, `crun`: only this one could be compared.
    pub who: &'static str,
    pub cofferdam: String,
    pub runc: String,
    pub crun: String,
    /// The last lines that cofferdam, runc and crun have printed.
    pub words: [String; 3],
}

const ABSENT: &str = "absent";

/// Compares three observations; None stands for a runtime that cannot run this config here.
pub fn compare(cofferdam: &Seen, runc: Option<&Seen>, crun: Option<&Seen>) -> Vec<Difference> {
    let own = cofferdam.iter().filter(|(key, _)| key.starts_with("left/"));
    let other = |seen: Option<&Seen>, key| seen.map(|seen| seen.get(key).cloned());
    let left = own.filter_map(|(key, value)| {
        let (r, c) = (other(runc, key), other(crun, key));
        judged(
            key,
            Some(value),
            r.as_ref().map(Option::as_ref),
            c.as_ref().map(Option::as_ref),
        )
    });
    let mut found: Vec<_> = left.collect();
    let outcome = |seen: Option<&Seen>| seen.map(|seen| seen["outcome"].clone());
    let mine = cofferdam["outcome"].clone();
    let (r, c) = (outcome(runc), outcome(crun));
    if r.as_ref() != Some(&mine) && c.as_ref() != Some(&mine) {
        found.extend(judged(
            "outcome",
            Some(&mine),
            runc.map(|_| r.as_ref()),
            crun.map(|_| c.as_ref()),
        ));
        return found;
    }
    if mine != "ran" {
        return found;
    }
    // Only runtimes that ran it have seen something.
    let ran = |seen: Option<&Seen>| seen.is_some_and(|seen| seen["outcome"] == "ran");
    let (runc, crun) = (
        runc.filter(|seen| ran(Some(seen))),
        crun.filter(|seen| ran(Some(seen))),
    );
    let all = [Some(cofferdam), runc, crun];
    let keys: BTreeSet<&String> = all.iter().flatten().flat_map(|seen| seen.keys()).collect();
    for key in keys.into_iter().filter(|key| !key.starts_with("left/")) {
        let (r, c) = (
            runc.map(|seen| seen.get(key)),
            crun.map(|seen| seen.get(key)),
        );
        found.extend(judged(key, cofferdam.get(key), r, c));
    }
    found
}

fn judged(
    key: &str,
    mine: Option<&String>,
    runc: Option<Option<&String>>,
    crun: Option<Option<&String>>,
) -> Option<Difference> {
    let who = match (runc, crun) {
        (None, None) => return None,
        (Some(r), _) if r == mine => return None,
        (_, Some(c)) if c == mine => return None,
        (Some(r), Some(c)) if r == c => "both",
        (Some(_), Some(_)) => "each",
        (Some(_), None) => "runc",
        (None, Some(_)) => "crun",
    };
    Some(difference(key, who, mine, runc.flatten(), crun.flatten()))
}

fn difference(
    key: &str,
    who: &'static str,
    mine: Option<&String>,
    runc: Option<&String>,
    crun: Option<&String>,
) -> Difference {
    let text = |value: Option<&String>| value.cloned().unwrap_or(ABSENT.into());
    Difference {
        key: key.into(),
        who,
        cofferdam: text(mine),
        runc: text(runc),
        crun: text(crun),
        words: Default::default(),
    }
}

/// One line of `differences`: the key, who, conditions, and behind a colon the reason.
pub struct Known {
    pub key: String,
    pub who: String,
    conditions: Vec<(String, String)>,
    pub reason: String,
}

pub fn table() -> Vec<Known> {
    let lines = include_str!("../../differences").lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| Known::parse(line).unwrap_or_else(|| panic!("differences: {line}")))
        .collect()
}

impl Known {
    fn parse(line: &str) -> Option<Known> {
        let (pattern, reason) = line.split_once(" : ")?;
        let mut words = pattern.split_whitespace();
        let (key, who) = (words.next()?.to_string(), words.next()?.to_string());
        let condition = |word: &str| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_string(), value.to_string()))
        };
        let conditions = words.map(condition).collect::<Option<Vec<_>>>()?;
        Some(Known {
            key,
            who,
            conditions,
            reason: reason.trim().into(),
        })
    }

    /// Tells whether this line explains the difference. `$` in a condition is the text that the first `*` of the key stands for.
    pub fn explains(&self, difference: &Difference, config: &Value) -> bool {
        let who = self.who == "any" || self.who.split(',').any(|who| who == difference.who);
        let Some(place) = captured(&self.key, &difference.key).filter(|_| who) else {
            return false;
        };
        let place = place.split('#').next().unwrap_or_default();
        let holds = |(name, value): &(String, String)| {
            holds(
                &name.replace('$', place),
                &value.replace('$', place),
                difference,
                config,
            )
        };
        self.conditions.iter().all(holds)
    }
}

/// Tells whether a condition holds: on the value of a runtime, or on any value of the config at a matching pointer.
/// `!` negates it.
fn holds(name: &str, value: &str, difference: &Difference, config: &Value) -> bool {
    if let Some(name) = name.strip_prefix('!') {
        return !holds(name, value, difference, config);
    }
    match name {
        "cofferdam" => matches(value, &difference.cofferdam),
        "runc" => matches(value, &difference.runc),
        "crun" => matches(value, &difference.crun),
        "cofferdam-says" => matches(value, &difference.words[0]),
        "runc-says" => matches(value, &difference.words[1]),
        "crun-says" => matches(value, &difference.words[2]),
        _ => {
            let mut leaves = Vec::new();
            collect(config, String::new(), &mut leaves);
            collect_mounts(config, &mut leaves);
            leaves
                .iter()
                .any(|(pointer, leaf)| matches(name, pointer) && matches(value, leaf))
        }
    }
}

fn collect(value: &Value, pointer: String, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            fields
                .iter()
                .for_each(|(key, value)| collect(value, format!("{pointer}/{key}"), leaves));
        }
        Value::Array(items) if !items.is_empty() => {
            items
                .iter()
                .enumerate()
                .for_each(|(n, value)| collect(value, format!("{pointer}/{n}"), leaves));
        }
        Value::String(text) => leaves.push((pointer, text.clone())),
        other => leaves.push((pointer, other.to_string())),
    }
}

/// Adds the mounts once more, at pointers with the place in the root in the position of the index: `/mounts//dev/options/0`.
fn collect_mounts(config: &Value, leaves: &mut Vec<(String, String)>) {
    for mount in config["mounts"].as_array().into_iter().flatten() {
        let destination = mount["destination"].as_str().unwrap_or_default();
        collect(
            mount,
            format!("/mounts/{}", place_in_root(destination)),
            leaves,
        );
    }
}

/// Returns the place of a destination: absolute, without `..`, and behind the links at the top of the root filesystem.
fn place_in_root(destination: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in destination
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
    {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
        if let Some((_, to)) = LINKS.iter().find(|(link, _)| *link == parts.join("/")) {
            let to = to.split('/').filter(|part| !matches!(*part, "" | ".."));
            parts = to.collect();
        }
    }
    format!("/{}", parts.join("/"))
}

/// Tells whether a text matches: `*` stands for any text, `_` for a space too, `|` separates alternatives.
fn matches(pattern: &str, text: &str) -> bool {
    captured(pattern, text).is_some()
}

/// Returns what the first `*` stands for, or nothing where there is none; None if the text does not match.
fn captured(pattern: &str, text: &str) -> Option<String> {
    let text = text.replace([' ', '\n'], "_");
    pattern
        .split('|')
        .find_map(|pattern| glob(pattern, &text).map(String::from))
}

fn glob<'a>(pattern: &str, text: &'a str) -> Option<&'a str> {
    let Some((head, tail)) = pattern.split_once('*') else {
        return (pattern == text).then_some("");
    };
    let rest = text.strip_prefix(head)?;
    let mut ends = (0..=rest.len()).filter(|at| rest.is_char_boundary(*at));
    ends.find(|at| glob(tail, &rest[*at..]).is_some())
        .map(|at| &rest[..at])
}
