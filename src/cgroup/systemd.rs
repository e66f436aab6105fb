//! The systemd driver: a transient scope around the container's processes, asked for over D-Bus. Parent only.
//!
//! What is recorded of a scope is where its manager was reached: later commands get no flags and hardly an environment
//! from engines. Every exchange has one deadline. Nothing here touches a cgroup file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::dbus::{self, Bus, Message, Object, Value};
use crate::plan::systemd::{Manager, Property, Scope};

/// For all of one command's exchange with systemd, which may be busy with a reload.
const PATIENCE: Duration = Duration::from_secs(30);

const MANAGER: Object = Object {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};

/// A scope that was made, as the record has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    pub name: String,
    pub bus: PathBuf,
    /// Whether it is a broker's socket, and not systemd's own.
    pub broker: bool,
}

impl Scope {
    /// Has systemd make the scope with this process in it.
    pub fn start(&self, pid: i32) -> Result<Unit> {
        let explain = || format!("systemd: start {}", self.unit);
        let (mut bus, unit) = self.connect().with_context(explain)?;
        watch_jobs(&mut bus).with_context(explain)?;
        let mut properties = self.properties.clone();
        let mut reset = false;
        loop {
            let error = match self.try_start(&mut bus, pid, &properties) {
                Ok(()) => return Ok(unit),
                Err(error) => error,
            };
            match dbus::refusal(&error) {
                // One of that name has failed earlier, and was kept to be looked at.
                Some("org.freedesktop.systemd1.UnitExists") if !reset => {
                    reset = true;
                    unit.reset(&mut bus).with_context(explain)?;
                }
                _ if leave_out(&mut properties, &error) => {}
                _ => return Err(error.context(explain())),
            }
        }
    }

    fn try_start(&self, bus: &mut Bus, pid: i32, properties: &[Property]) -> Result<()> {
        let process = Value::Array("u".to_string(), vec![Value::U32(pid as u32)]);
        let mut properties = encoded(properties);
        if !self.unit.ends_with(".slice") {
            properties.push(pair("PIDs", process));
        }
        let arguments = [
            Value::text(&*self.unit),
            Value::text("replace"),
            Value::Array("(sv)".to_string(), properties),
            Value::Array("(sa(sv))".to_string(), Vec::new()),
        ];
        do_job(bus, "StartTransientUnit", &arguments)
    }

    fn connect(&self) -> Result<(Bus, Unit)> {
        let candidates = match self.manager {
            Manager::System => system_buses(),
            Manager::User => user_buses()?,
        };
        let mut failed = None;
        for (path, broker) in candidates {
            match Bus::connect(&path, broker, PATIENCE) {
                Ok(bus) => {
                    let name = self.unit.clone();
                    return Ok((
                        bus,
                        Unit {
                            name,
                            bus: path,
                            broker,
                        },
                    ));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let hint = match self.manager {
            Manager::System => "is systemd running here? without it leave --systemd-cgroup out",
            Manager::User => {
                "has this user a session? see \"loginctl enable-linger\"; without it leave --systemd-cgroup out"
            }
        };
        Err(failed
            .unwrap_or_else(|| anyhow::anyhow!("no bus is known"))
            .context(hint))
    }
}

/// The broker of the system, or where there is none systemd itself, which takes calls of root only.
fn system_buses() -> Vec<(PathBuf, bool)> {
    vec![
        (PathBuf::from("/run/dbus/system_bus_socket"), true),
        (PathBuf::from("/run/systemd/private"), false),
    ]
}

/// As sd_bus_open_user(3) finds it.
fn user_buses() -> Result<Vec<(PathBuf, bool)>> {
    let mut found = Vec::new();
    if let Ok(addresses) = std::env::var("DBUS_SESSION_BUS_ADDRESS") {
        found.extend(
            addresses
                .split(';')
                .filter_map(path_of)
                .map(|path| (path, true)),
        );
    }
    if let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR") {
        let directory = Path::new(&directory);
        found.push((directory.join("bus"), true));
        found.push((directory.join("systemd/private"), false));
    }
    ensure!(
        !found.is_empty(),
        "the bus of the user is not known: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set"
    );
    Ok(found)
}

/// Of `unix:path=/run/user/7/bus,guid=..`; other transports are not for a bus of this machine.
fn path_of(address: &str) -> Option<PathBuf> {
    let keys = address.strip_prefix("unix:")?;
    let path = keys
        .split(',')
        .find_map(|pair| pair.strip_prefix("path="))?;
    Some(PathBuf::from(path))
}

impl Unit {
    /// Gives systemd new limits; without this it would undo at its next reload what was written to the files.
    pub fn set(&self, properties: &[Property]) -> Result<()> {
        let explain = || format!("systemd: set properties of {}", self.name);
        let mut bus = self.connect().with_context(explain)?;
        let mut properties = properties.to_vec();
        loop {
            let arguments = [
                Value::text(&*self.name),
                // Until the next boot: a scope does not outlive it anyway.
                Value::Bool(true),
                Value::Array("(sv)".to_string(), encoded(&properties)),
            ];
            match bus.call(&MANAGER, "SetUnitProperties", &arguments) {
                Ok(_) => return Ok(()),
                Err(error) if leave_out(&mut properties, &error) => {}
                Err(error) => return Err(error.context(explain())),
            }
        }
    }

    /// Has systemd move a process into the scope, which this user may not do without it.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let explain = || format!("systemd: attach process {pid} to {}", self.name);
        let mut bus = self.connect().with_context(explain)?;
        let pids = Value::Array("u".to_string(), vec![Value::U32(pid as u32)]);
        let arguments = [Value::text(&*self.name), Value::text(""), pids];
        bus.call(&MANAGER, "AttachProcessesToUnit", &arguments)
            .map(drop)
            .with_context(explain)
    }

    /// Ends the scope, and forgets that it may have failed. One that has ended by itself is fine.
    pub fn stop(&self) -> Result<()> {
        let explain = || format!("systemd: stop {}", self.name);
        let mut bus = self.connect().with_context(explain)?;
        watch_jobs(&mut bus).with_context(explain)?;
        let arguments = [Value::text(&*self.name), Value::text("replace")];
        match do_job(&mut bus, "StopUnit", &arguments) {
            Err(error) if is_unknown(&error) => {}
            stopped => stopped.with_context(explain)?,
        }
        self.reset(&mut bus).with_context(explain)
    }

    fn reset(&self, bus: &mut Bus) -> Result<()> {
        match bus.call(&MANAGER, "ResetFailedUnit", &[Value::text(&*self.name)]) {
            Err(error) if is_unknown(&error) => Ok(()),
            reset => reset.map(drop),
        }
    }

    fn connect(&self) -> Result<Bus> {
        Bus::connect(&self.bus, self.broker, PATIENCE)
    }
}

fn is_unknown(error: &anyhow::Error) -> bool {
    dbus::refusal(error) == Some("org.freedesktop.systemd1.NoSuchUnit")
}

/// Before the job is asked for: it may be done before the answer is read.
fn watch_jobs(bus: &mut Bus) -> Result<()> {
    bus.subscribe("type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',member='JobRemoved'")?;
    bus.call(&MANAGER, "Subscribe", &[]).map(drop)
}

/// Calls a method that answers with a job, and waits for the end of that job.
fn do_job(bus: &mut Bus, method: &str, arguments: &[Value]) -> Result<()> {
    let mut ended = Vec::new();
    let reply = bus.call_with(&MANAGER, method, arguments, |signal| {
        ended.extend(ended_job(signal))
    })?;
    let job = reply
        .texts()
        .into_iter()
        .next()
        .context("systemd answered without a job")?;
    let result = match ended.into_iter().find(|(path, _)| *path == job) {
        Some((_, result)) => result,
        None => loop {
            let signal = bus
                .signal()
                .with_context(|| format!("wait for the end of {method}"))?;
            match ended_job(&signal) {
                Some((path, result)) if path == job => break result,
                _ => {}
            }
        },
    };
    match result.as_str() {
        "done" => Ok(()),
        _ => {
            bail!("{method}: the job has ended with {result:?}; see \"journalctl\" for the reason")
        }
    }
}

/// Path and result of a job: JobRemoved is `id, job, unit, result`.
fn ended_job(signal: &Message) -> Option<(String, String)> {
    let mut texts = signal.texts().into_iter().skip(1);
    let job = texts.next().filter(|_| signal.member == "JobRemoved")?;
    Some((job, texts.nth(1)?))
}

/// Takes out the property that the error names, if it is one that an older systemd need not know.
fn leave_out(properties: &mut Vec<Property>, error: &anyhow::Error) -> bool {
    let unknown = [
        "org.freedesktop.DBus.Error.PropertyReadOnly",
        "org.freedesktop.DBus.Error.UnknownProperty",
    ];
    if !dbus::refusal(error).is_some_and(|name| unknown.contains(&name)) {
        return false;
    }
    let text = format!("{error:#}");
    let named = |property: &Property| {
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        !property.asked && words.any(|word| word == property.name)
    };
    let before = properties.len();
    properties.retain(|property| !named(property));
    properties.len() < before
}

fn encoded(properties: &[Property]) -> Vec<Value> {
    let encode = |property: &Property| pair(&property.name, property.value.clone());
    properties.iter().map(encode).collect()
}

fn pair(name: &str, value: Value) -> Value {
    Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_bus() {
        for (address, path) in [
            ("unix:path=/run/user/7/bus", Some("/run/user/7/bus")),
            ("unix:path=/run/user/7/bus,guid=12", Some("/run/user/7/bus")),
            ("unix:guid=12,path=/b", Some("/b")),
            ("unix:abstract=/tmp/x", None),
            ("tcp:host=localhost", None),
        ] {
            assert_eq!(
                path_of(address).as_deref(),
                path.map(Path::new),
                "{address}"
            );
        }
    }
}
