//! The systemd driver: a transient scope around the container's processes, asked for over D-Bus. Parent only.
//!
//! What is recorded of a scope is where its manager was reached: later commands get no flags and hardly an environment
//! from engines. Every exchange has one deadline. Nothing here touches a cgroup file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::plan::gvariant::Value;
use crate::plan::namespaces::IdMap;
use crate::plan::systemd::{Instance, Property, Scope};
use crate::sys;
use crate::sys::wait::Interrupted;
use crate::systemd::bus::{self, Bus, Message, Object};

/// For all of one command's exchange with systemd, which may be busy with a reload.
const PATIENCE: Duration = Duration::from_secs(30);

/// For what is asked for when that was in vain.
const HASTE: Duration = Duration::from_secs(5);

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

/// systemd, reached, and the scope that it is going to be asked for.
pub struct Manager {
    bus: Bus,
    pub unit: Unit,
}

impl Manager {
    /// Before anything is made, so that a missing bus costs nothing.
    pub fn connect(scope: &Scope) -> Result<Manager> {
        let mut failed = Vec::new();
        for (path, broker) in buses(scope.instance) {
            match Bus::connect(&path, broker, PATIENCE) {
                Ok(bus) => {
                    let unit = Unit {
                        name: scope.unit.clone(),
                        bus: path,
                        broker,
                    };
                    return Ok(Manager { bus, unit });
                }
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => failed.push(format!("{error:#}")),
            }
        }
        bail!(
            "--systemd-cgroup: {} was not found ({}); {}, or leave the flag out",
            match scope.instance {
                Instance::System => "the bus of systemd",
                Instance::User => "the session bus of the user",
            },
            failed.join("; "),
            match scope.instance {
                Instance::System => "run systemd",
                Instance::User => "log in, or have \"loginctl enable-linger\" done",
            }
        )
    }

    /// Has systemd make the scope with this process in it.
    pub fn start(&mut self, scope: &Scope, pid: i32) -> Result<()> {
        let started = self.try_start(scope, pid);
        // Without a word of systemd's the scope may be there, or come yet.
        if started.as_ref().is_err_and(is_unanswered) {
            self.unit.withdraw().ok();
        }
        started.with_context(|| format!("systemd: start {}", scope.unit))
    }

    fn try_start(&mut self, scope: &Scope, pid: i32) -> Result<()> {
        watch_jobs(&mut self.bus)?;
        let mut properties = scope.properties.clone();
        let mut reset = false;
        loop {
            let Err(error) = self.ask_to_start(pid, &properties) else {
                return Ok(());
            };
            match bus::refusal(&error) {
                // One of that name has failed earlier, and was kept to be looked at.
                Some("org.freedesktop.systemd1.UnitExists") if !reset => {
                    reset = true;
                    self.unit.reset(&mut self.bus)?;
                }
                Some("org.freedesktop.systemd1.UnitExists") => {
                    return Err(error.context("choose another linux.cgroupsPath"));
                }
                Some(_) if leave_out(&mut properties, &error) => {}
                _ => return Err(error),
            }
        }
    }

    fn ask_to_start(&mut self, pid: i32, properties: &[Property]) -> Result<()> {
        let process = Value::Array("u".to_string(), vec![Value::U32(pid as u32)]);
        let mut properties = encoded(properties);
        properties.push(pair("PIDs", process));
        let arguments = [
            Value::text(&*self.unit.name),
            Value::text("replace"),
            Value::Array("(sv)".to_string(), properties),
            Value::Array("(sa(sv))".to_string(), Vec::new()),
        ];
        let result = do_job(&mut self.bus, "StartTransientUnit", &arguments)?;
        if result != "done" {
            // It may be kept as a failed one.
            self.unit.reset(&mut self.bus).ok();
        }
        check_done("StartTransientUnit", &result)
    }
}

fn buses(instance: Instance) -> Vec<(PathBuf, bool)> {
    let root = nix::unistd::geteuid().is_root();
    match instance {
        Instance::System => system_buses(),
        // Root of a user namespace may be a user, or root of a system inside it.
        Instance::User if root => [user_buses(), system_buses()].concat(),
        Instance::User => user_buses(),
    }
}

/// The broker of the system, or where there is none systemd itself, which takes calls of root only.
fn system_buses() -> Vec<(PathBuf, bool)> {
    vec![
        (PathBuf::from("/run/dbus/system_bus_socket"), true),
        (PathBuf::from("/run/systemd/private"), false),
    ]
}

/// As sd_bus_open_user(3) finds it, and where it is when the environment was not handed on.
fn user_buses() -> Vec<(PathBuf, bool)> {
    let addresses = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let paths = addresses.split(';').filter_map(path_of);
    let mut found: Vec<_> = paths.map(|path| (path, true)).collect();
    let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => Path::new("/run/user").join(uid_outside().to_string()),
    };
    found.push((directory.join("bus"), true));
    found.push((directory.join("systemd/private"), false));
    found
}

/// Returns the effective uid as the user namespace outside of the own one knows it (user_namespaces(7)).
fn uid_outside() -> u32 {
    let own = nix::unistd::geteuid().as_raw();
    let text = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let maps = IdMap::parse_lines(&text);
    let outside = maps.iter().find_map(|map| {
        let offset = own.checked_sub(map.container);
        let offset = offset.filter(|offset| *offset < map.size)?;
        map.host.checked_add(offset)
    });
    outside.unwrap_or(own)
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

    /// Has systemd move a process to a directory below the scope, which this user may not do without it.
    pub fn attach(&self, below: &Path, pid: i32) -> Result<()> {
        let explain = || format!("systemd: attach process {pid} to {}", self.name);
        let mut bus = self.connect().with_context(explain)?;
        let pids = Value::Array("u".to_string(), vec![Value::U32(pid as u32)]);
        // Absolute from the scope on, or empty for the scope itself.
        let below = match below.as_os_str().is_empty() {
            true => String::new(),
            false => format!("/{}", below.display()),
        };
        let arguments = [Value::text(&*self.name), Value::text(below), pids];
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
            stopped => stopped
                .and_then(|result| check_done("StopUnit", &result))
                .with_context(explain)?,
        }
        self.reset(&mut bus).with_context(explain)
    }

    /// Has a scope end that may not have begun, and waits for neither. Calls are done in their order.
    fn withdraw(&self) -> Result<()> {
        let mut bus = Bus::connect(&self.bus, self.broker, HASTE)?;
        let arguments = [Value::text(&*self.name), Value::text("replace")];
        bus.call(&MANAGER, "StopUnit", &arguments)?;
        self.reset(&mut bus)
    }

    /// Of a scope that has ended: that it may have failed is forgotten.
    pub fn forget(&self) -> Result<()> {
        let explain = || format!("systemd: reset {}", self.name);
        let mut bus = self.connect().with_context(explain)?;
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

/// Where systemd has put a process: the cgroup path that ends as the scope's, and is not where it was.
pub fn place_of(pid: i32, scope: &Scope) -> Result<PathBuf> {
    let place = cgroup_of(&pid.to_string())?;
    ensure!(
        place.ends_with(&scope.path) && place != cgroup_of("self")?,
        "systemd: start {}: process {pid} is in /{} and not in /{}, or was there before",
        scope.unit,
        place.display(),
        scope.path.display()
    );
    Ok(place)
}

/// Returns the cgroup of a process, below the top of the tree that this process's cgroup namespace shows (cgroups(7)).
pub fn cgroup_of(process: &str) -> Result<PathBuf> {
    let file = format!("/proc/{process}/cgroup");
    let text = sys::io(std::fs::read_to_string(&file)).with_context(|| format!("read {file}"))?;
    let place = text.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(PathBuf::from(place.unwrap_or_default()))
}

fn is_unanswered(error: &anyhow::Error) -> bool {
    bus::refusal(error).is_none()
}

fn is_unknown(error: &anyhow::Error) -> bool {
    bus::refusal(error) == Some("org.freedesktop.systemd1.NoSuchUnit")
}

/// Before the job is asked for: it may be done before the answer is read.
fn watch_jobs(bus: &mut Bus) -> Result<()> {
    bus.subscribe("type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',member='JobRemoved'")?;
    bus.call(&MANAGER, "Subscribe", &[]).map(drop)
}

/// Calls a method that answers with a job, and waits for the end of that job; gives its result.
fn do_job(bus: &mut Bus, method: &str, arguments: &[Value]) -> Result<String> {
    let mut ended = Vec::new();
    let reply = bus.call_with(&MANAGER, method, arguments, |signal| {
        ended.extend(ended_job(signal))
    })?;
    let job = reply
        .texts()
        .into_iter()
        .next()
        .context("systemd answered without a job")?;
    if let Some((_, result)) = ended.into_iter().find(|(path, _)| *path == job) {
        return Ok(result);
    }
    loop {
        let signal = bus
            .signal()
            .with_context(|| format!("wait for the end of {method}"))?;
        match ended_job(&signal) {
            Some((path, result)) if path == job => return Ok(result),
            _ => {}
        }
    }
}

/// org.freedesktop.systemd1(5), JobRemoved.
fn check_done(method: &str, result: &str) -> Result<()> {
    ensure!(
        result == "done",
        "{method}: the job has ended with {result:?}; see \"journalctl\" for the reason"
    );
    Ok(())
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
    if !bus::refusal(error).is_some_and(|name| unknown.contains(&name)) {
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
