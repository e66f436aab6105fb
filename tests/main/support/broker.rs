//! A stand-in for systemd on the system bus: a thread that speaks the handful of messages of the driver, and makes
//! scopes in the cgroup tree as systemd does. A runtime sees it through a private /run.

use super::call::{Call, private_run};
use super::host::{PATIENCE, cgroup_root, holds_within};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What systemd does with a call of this name.
#[derive(Clone, Copy, PartialEq)]
pub enum Whim {
    /// The error of D-Bus with this name, `NAME: TEXT`, so many times.
    Refuses(&'static str, &'static str, usize),
    /// The job ends so.
    Ends(&'static str, &'static str),
    /// It is done and answered, and the end of its job is never told.
    NoJob(&'static str),
    /// No answer, until the bus is dropped.
    Hangs(&'static str),
    /// The connection is closed instead of an answer.
    Drops(&'static str),
    /// The process is left where it is.
    Forgets,
}

pub struct Broker {
    dir: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    /// Of the scopes.
    slice: PathBuf,
    whims: Mutex<Vec<Whim>>,
    calls: Mutex<Vec<(String, Value)>>,
    open: Mutex<Vec<UnixStream>>,
}

impl Broker {
    /// Listens below the directory; scopes are made in the slice.
    pub fn new(dir: &Path, slice: &str, whims: &[Whim]) -> Broker {
        let dir = dir.join("bus");
        fs::create_dir_all(&dir).expect("make a directory");
        let listener = UnixListener::bind(dir.join("system_bus_socket")).expect("listen");
        let shared = Arc::new(Shared {
            slice: cgroup_root().join(slice),
            whims: Mutex::new(whims.to_vec()),
            calls: Mutex::default(),
            open: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let copy = stream.try_clone().expect("duplicate the stream");
                accepting.open.lock().unwrap().push(copy);
                let shared = accepting.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Broker { dir, shared }
    }

    /// A call that finds this bus where the system's is.
    pub fn seen_by(&self, call: Call) -> Call {
        let script = format!(
            "mkdir /run/dbus && ln -s {}/system_bus_socket /run/dbus/ && exec \"$0\" \"$@\"",
            self.dir.display()
        );
        call.setup(private_run).through_shell(&script)
    }

    pub fn whims(&self, whims: &[Whim]) {
        *self.shared.whims.lock().unwrap() = whims.to_vec();
    }

    /// The names of what was called, without the bus's own.
    pub fn called(&self) -> Vec<String> {
        let calls = self.shared.calls.lock().unwrap();
        let names = calls.iter().map(|(name, _)| name.clone());
        let own = ["Hello", "AddMatch", "Subscribe"];
        names.filter(|name| !own.contains(&name.as_str())).collect()
    }

    /// The arguments of the last call of this name.
    pub fn last(&self, name: &str) -> Value {
        let calls = self.shared.calls.lock().unwrap();
        let mut found = calls.iter().rev().filter(|(called, _)| called == name);
        found
            .next()
            .map(|(_, arguments)| arguments.clone())
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// As when the bus ends: nobody answers any more.
    pub fn end(&self) {
        fs::remove_file(self.dir.join("system_bus_socket")).expect("remove the socket");
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        holds_within(PATIENCE, || {
            fs::remove_dir(&self.shared.slice).is_ok() || !self.shared.slice.exists()
        });
    }
}

/// Removes a cgroup and those below it, as far as nobody is in them.
fn remove_cgroups(cgroup: &Path) {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    below
        .filter(|entry| entry.path().is_dir())
        .for_each(|entry| remove_cgroups(&entry.path()));
    let _ = fs::remove_dir(cgroup);
}

/// One connection, until its end.
fn serve(mut stream: UnixStream, shared: &Shared) -> Option<()> {
    let mut greeting = *b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
    stream.read_exact(&mut greeting).ok()?;
    stream.write_all(b"DATA\r\nOK 12\r\n").ok()?;
    loop {
        let (serial, name, arguments) = read_call(&mut stream)?;
        let mut calls = shared.calls.lock().unwrap();
        calls.push((name.clone(), arguments.clone()));
        drop(calls);
        match shared.whim(&name) {
            Some(Whim::Refuses(_, error, _)) => send(&mut stream, error_to(serial, error))?,
            Some(Whim::Hangs(_)) => {}
            Some(Whim::Drops(_)) => {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return None;
            }
            Some(Whim::Ends(_, result)) => shared.do_job(&mut stream, serial, result)?,
            Some(Whim::NoJob(_)) => {
                shared.perform(&name, &arguments);
                send(&mut stream, reply_to(serial, "/job/1"))?;
            }
            Some(Whim::Forgets) | None => {
                shared.perform(&name, &arguments);
                match name.as_str() {
                    "StartTransientUnit" | "StopUnit" => {
                        shared.do_job(&mut stream, serial, "done")?
                    }
                    _ => send(&mut stream, reply_to(serial, ""))?,
                }
            }
        }
    }
}

impl Shared {
    fn whim(&self, name: &str) -> Option<Whim> {
        let mut whims = self.whims.lock().unwrap();
        let concerns = |whim: &&mut Whim| match whim {
            Whim::Refuses(call, _, left) => *call == name && *left > 0,
            Whim::Ends(call, _) | Whim::NoJob(call) | Whim::Hangs(call) | Whim::Drops(call) => {
                *call == name
            }
            Whim::Forgets => name == "StartTransientUnit",
        };
        let found = whims.iter_mut().find(concerns)?;
        if let Whim::Refuses(_, _, left) = found {
            *left -= 1;
        }
        Some(*found)
    }

    fn perform(&self, name: &str, arguments: &Value) {
        let unit = self.slice.join(arguments[0].as_str().unwrap_or("none"));
        match name {
            "StartTransientUnit" if self.whim(name) != Some(Whim::Forgets) => {
                let pids = property(arguments, "PIDs");
                fs::create_dir_all(&unit).expect("make the scope");
                fs::write(unit.join("cgroup.procs"), pids[0].to_string()).expect("fill the scope");
            }
            "AttachProcessesToUnit" => {
                let below = arguments[1].as_str().expect("a path");
                let place = unit.join(below.trim_start_matches('/'));
                let pid = arguments[2][0].to_string();
                fs::write(place.join("cgroup.procs"), pid).expect("attach a process");
            }
            "StopUnit" => {
                let _ = fs::write(unit.join("cgroup.kill"), "1");
                holds_within(PATIENCE, || {
                    remove_cgroups(&unit);
                    !unit.exists()
                });
            }
            _ => {}
        }
    }

    /// The signal comes before the answer, as it may.
    fn do_job(&self, stream: &mut UnixStream, serial: u32, result: &str) -> Option<()> {
        let mut body = 1u32.to_le_bytes().to_vec();
        for word in ["/job/1", "x.scope", result] {
            put_text(&mut body, word);
        }
        let fields = [
            (1, 'o', "/m"),
            (2, 's', "i"),
            (3, 's', "JobRemoved"),
            (8, 'g', "uoss"),
        ];
        send(stream, message(4, None, &fields, body))?;
        send(stream, reply_to(serial, "/job/1"))
    }
}

/// What a scope was asked for under this name.
pub fn property<'a>(arguments: &'a Value, name: &str) -> &'a Value {
    let list = arguments[2].as_array().expect("properties");
    let found = list.iter().find(|property| property[0] == name);
    found.map_or(&Value::Null, |property| &property[1])
}

fn send(stream: &mut UnixStream, bytes: Vec<u8>) -> Option<()> {
    stream.write_all(&bytes).ok()
}

fn reply_to(serial: u32, path: &str) -> Vec<u8> {
    let mut body = Vec::new();
    if path.is_empty() {
        return message(2, Some(serial), &[], body);
    }
    put_text(&mut body, path);
    message(2, Some(serial), &[(8, 'g', "o")], body)
}

fn error_to(serial: u32, name: &str) -> Vec<u8> {
    let (name, text) = name.split_once(": ").unwrap_or((name, "no"));
    let mut body = Vec::new();
    put_text(&mut body, text);
    message(3, Some(serial), &[(4, 's', name), (8, 'g', "s")], body)
}

fn message(kind: u8, reply: Option<u32>, texts: &[(u8, char, &str)], body: Vec<u8>) -> Vec<u8> {
    let mut fields = Vec::new();
    if let Some(serial) = reply {
        fields.extend([5, 1, b'u', 0]);
        fields.extend(serial.to_le_bytes());
    }
    for (code, kind, text) in texts {
        pad(&mut fields, 8);
        fields.extend([*code, 1, *kind as u8, 0]);
        match kind {
            'g' => {
                fields.push(text.len() as u8);
                fields.extend(text.bytes().chain([0]));
            }
            _ => put_text(&mut fields, text),
        }
    }
    let mut bytes = vec![b'l', kind, 0, 1];
    for number in [body.len(), 1, fields.len()] {
        bytes.extend((number as u32).to_le_bytes());
    }
    bytes.extend(fields);
    pad(&mut bytes, 8);
    bytes.extend(body);
    bytes
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.bytes().chain([0]));
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

/// Serial number, method and arguments.
fn read_call(stream: &mut UnixStream) -> Option<(u32, String, Value)> {
    let mut start = [0; 16];
    stream.read_exact(&mut start).ok()?;
    let number = |at: usize| u32::from_le_bytes(start[at..at + 4].try_into().unwrap());
    let (body, fields) = (number(4) as usize, number(12) as usize);
    let mut rest = vec![0; fields.next_multiple_of(8) + body];
    stream.read_exact(&mut rest).ok()?;
    let body = rest.split_off(fields.next_multiple_of(8));
    let mut header = Reader {
        bytes: &rest[..fields],
        at: 0,
    };
    let (mut name, mut signature) = (String::new(), String::new());
    while header.at < fields {
        let field = header.value(&mut "(yv)".chars());
        match field[0].as_u64() {
            Some(3) => name = field[1].as_str()?.to_string(),
            Some(8) => signature = field[1].as_str()?.to_string(),
            _ => {}
        }
    }
    let mut reader = Reader {
        bytes: &body,
        at: 0,
    };
    let mut kinds = signature.chars().peekable();
    let mut arguments = Vec::new();
    while kinds.peek().is_some() {
        arguments.push(reader.value(&mut kinds));
    }
    Some((number(8), name, Value::Array(arguments)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn number(&mut self, size: usize) -> u64 {
        self.at = self.at.next_multiple_of(size);
        let bytes = &self.bytes[self.at..self.at + size];
        self.at += size;
        bytes
            .iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn text(&mut self, length: usize) -> String {
        let text = &self.bytes[self.at..self.at + length];
        self.at += length + 1;
        String::from_utf8(text.to_vec()).expect("a text")
    }

    /// Of the type whose signature comes next.
    fn value(&mut self, kinds: &mut dyn Iterator<Item = char>) -> Value {
        match kinds.next().expect("a type") {
            'y' => json!(self.number(1)),
            'b' => json!(self.number(4) == 1),
            'u' | 'i' => json!(self.number(4)),
            't' | 'x' => json!(self.number(8)),
            's' | 'o' => {
                let length = self.number(4) as usize;
                json!(self.text(length))
            }
            'g' => {
                let length = self.number(1) as usize;
                json!(self.text(length))
            }
            'v' => {
                let length = self.number(1) as usize;
                let signature = self.text(length);
                self.value(&mut signature.chars())
            }
            'a' => self.list(&one_type(kinds)),
            '(' => self.structure(kinds),
            other => panic!("no {other} in calls of the driver"),
        }
    }

    fn list(&mut self, kind: &str) -> Value {
        let length = self.number(4) as usize;
        self.at = self
            .at
            .next_multiple_of(if kind.starts_with('(') || kind == "t" {
                8
            } else {
                1
            });
        let end = self.at + length;
        let mut values = Vec::new();
        while self.at < end {
            values.push(self.value(&mut kind.chars()));
        }
        Value::Array(values)
    }

    fn structure(&mut self, kinds: &mut dyn Iterator<Item = char>) -> Value {
        self.at = self.at.next_multiple_of(8);
        let mut inner = String::new();
        let mut depth = 1;
        for kind in kinds {
            depth += i32::from(kind == '(') - i32::from(kind == ')');
            if depth == 0 {
                break;
            }
            inner.push(kind);
        }
        let mut inner = inner.chars().peekable();
        let mut values = Vec::new();
        while inner.peek().is_some() {
            values.push(self.value(&mut inner));
        }
        Value::Array(values)
    }
}

/// Takes one complete type from a signature.
fn one_type(kinds: &mut dyn Iterator<Item = char>) -> String {
    let mut depth = 0;
    let mut taken = String::new();
    for kind in kinds {
        taken.push(kind);
        depth += i32::from(kind == '(') - i32::from(kind == ')');
        if depth == 0 && kind != 'a' {
            break;
        }
    }
    taken
}
