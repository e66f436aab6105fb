//! `check`: what this host offers to containers of this user, what is missing, and what to do about it.
//!
//! Run by the parent without a container. It finds out by trying, in children and in a cgroup of its own
//! that are gone afterwards; must not leave anything behind, and must not fail where a thing is missing.

mod cgroups;
mod kernel;
mod mounts;
mod programs;
mod trial;
mod users;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::args::{self, Format};
use crate::state::store::Store;
use crate::text::log::printable;

/// One line of the report.
struct Finding {
    name: String,
    status: Status,
    /// What was measured.
    value: String,
    /// What to do about it, if anything can be done.
    fix: Option<String>,
    /// Whether no container can run without it.
    needed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Limited,
    Missing,
}

type Group = (&'static str, Vec<Finding>);

pub fn run(args: &args::Check, store: &Store) -> Result<i32> {
    let caller = users::Caller::probe()?;
    let groups = [
        ("kernel", kernel::findings()),
        ("namespaces", users::namespaces(&caller)),
        ("user namespaces", users::findings(&caller)),
        ("cgroup", cgroups::findings(&caller)),
        ("file systems", mounts::findings(&caller)),
        ("programs", programs::findings(&caller, store)),
    ];
    let text = match args.format {
        Format::Table => table(&caller, &groups),
        Format::Json => format!("{:#}\n", document(&caller, &groups)),
    };
    super::print(&text)?;
    Ok(i32::from(!obstacles(&groups).is_empty()))
}

/// What alone keeps every container from running.
fn obstacles(groups: &[Group]) -> Vec<&str> {
    let all = groups.iter().flat_map(|(_, findings)| findings);
    let stops = |finding: &&Finding| finding.needed && finding.status == Status::Missing;
    all.filter(stops)
        .map(|finding| finding.name.as_str())
        .collect()
}

fn table(caller: &users::Caller, groups: &[Group]) -> String {
    let mut lines = Vec::new();
    for (name, findings) in groups {
        lines.push(name.to_string());
        for finding in findings {
            let status = finding.status.word();
            lines.push(format!(
                "  {:<20} {status:<8} {}",
                finding.name, finding.value
            ));
            let fix = finding.fix.iter();
            lines.extend(fix.map(|fix| format!("{:32}fix: {fix}", "")));
        }
    }
    let obstacles = obstacles(groups);
    lines.push(match obstacles.is_empty() {
        true => format!("containers can run for {}", caller.name),
        false => format!(
            "no container can run for {}: missing: {}",
            caller.name,
            obstacles.join(", ")
        ),
    });
    // Paths and words of other programs are in them.
    let lines: Vec<String> = lines.iter().map(|line| printable(line)).collect();
    lines.join("\n") + "\n"
}

fn document(caller: &users::Caller, groups: &[Group]) -> Value {
    let entry = |group: &str, finding: &Finding| {
        let mut entry = json!({
            "group": group,
            "name": finding.name,
            "status": finding.status.word(),
            "value": finding.value,
            "needed": finding.needed,
        });
        if let Some(fix) = &finding.fix {
            entry["fix"] = json!(fix);
        }
        entry
    };
    let entries = groups
        .iter()
        .flat_map(|(group, findings)| findings.iter().map(move |finding| entry(group, finding)));
    json!({
        "user": {"name": caller.name, "uid": caller.uid, "gid": caller.gid},
        "usable": obstacles(groups).is_empty(),
        "checks": entries.collect::<Vec<Value>>(),
    })
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Limited => "limited",
            Status::Missing => "missing",
        }
    }
}

impl Finding {
    fn ok(name: &str, value: impl Into<String>) -> Finding {
        Finding {
            name: name.to_string(),
            status: Status::Ok,
            value: value.into(),
            fix: None,
            needed: false,
        }
    }

    /// It works, but not for everything.
    fn limited(name: &str, value: impl Into<String>) -> Finding {
        let status = Status::Limited;
        Finding {
            status,
            ..Finding::ok(name, value)
        }
    }

    fn missing(name: &str, value: impl Into<String>) -> Finding {
        let status = Status::Missing;
        Finding {
            status,
            ..Finding::ok(name, value)
        }
    }

    fn fix(self, fix: impl Into<String>) -> Finding {
        let fix = Some(fix.into());
        Finding { fix, ..self }
    }

    fn needed(self) -> Finding {
        Finding {
            needed: true,
            ..self
        }
    }
}

fn has_systemd() -> bool {
    std::path::Path::new("/run/systemd/system").is_dir()
}

/// The text of a small file of the kernel's, without the line end; `None` where there is none.
fn fact(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_string())
}
