//! A D-Bus connection for the few calls that systemd's manager is asked: methods, their replies, and one signal.
//! Parent only.
//!
//! Written here because the authentication must not name a user: a broker outside of a user namespace would
//! compare another number. Sent in one piece, it needs no answer before the first call (D-Bus specification,
//! "Authentication Protocol"). Every wait has the connection's deadline.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};

use crate::plan::gvariant::Value;
use crate::sys::{self, socket, wait};

/// No answer that is waited for is longer.
const LONGEST: usize = 1 << 20;

pub struct Bus {
    socket: UnixStream,
    /// Of this program's last call; 0 before the first.
    serial: u32,
    deadline: Instant,
    /// A broker routes by names; systemd's own socket is no broker and has none.
    broker: bool,
}

/// What a call is addressed to.
pub struct Object<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
}

/// An error that the other side has answered with: its name tells which.
#[derive(Debug)]
pub struct Refusal {
    pub name: String,
    text: String,
}

/// A message that has come.
#[derive(Debug, Default)]
pub struct Message {
    kind: u8,
    reply_to: u32,
    pub member: String,
    error: String,
    signature: String,
    body: Vec<u8>,
}

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

impl Bus {
    /// A broker's socket, or with `broker` false a peer's.
    pub fn connect(path: &Path, broker: bool, patience: Duration) -> Result<Bus> {
        let socket = socket::connect_within(path, nix::sys::socket::SockType::Stream, patience)?;
        let mut bus = Bus {
            socket: socket.into(),
            serial: 0,
            deadline: Instant::now() + patience,
            broker,
        };
        bus.authenticate()
            .with_context(|| format!("authenticate to the bus {path:?}"))?;
        if broker {
            let itself = Object {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
            };
            bus.call(&itself, "Hello", &[])?;
        }
        Ok(bus)
    }

    fn authenticate(&mut self) -> Result<()> {
        self.send(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        let challenge = self.line()?;
        let accepted = match challenge.as_str() {
            "DATA" => self.line()?,
            _ => challenge,
        };
        ensure!(accepted.starts_with("OK "), "refused: {accepted:?}");
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.fill(&mut byte)?;
            line.push(byte[0]);
            ensure!(line.len() < 512, "an endless line");
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_string())
    }

    /// Asks for a broadcast signal, which otherwise would not come.
    pub fn subscribe(&mut self, rule: &str) -> Result<()> {
        if !self.broker {
            return Ok(());
        }
        let itself = Object {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
        };
        self.call(&itself, "AddMatch", &[Value::Text(rule.to_string())])
            .map(drop)
    }

    /// Calls and waits for the reply; signals that come before it are kept by nobody.
    pub fn call(&mut self, object: &Object, method: &str, arguments: &[Value]) -> Result<Message> {
        self.call_with(object, method, arguments, |_| ())
    }

    /// The same for one who needs the signals that come before the reply.
    pub fn call_with(
        &mut self,
        object: &Object,
        method: &str,
        arguments: &[Value],
        mut on_signal: impl FnMut(&Message),
    ) -> Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        let message = encode_call(object, method, arguments, serial, self.broker);
        self.send(&message)
            .with_context(|| format!("call {method}"))?;
        loop {
            let message = self
                .receive()
                .with_context(|| format!("wait for the answer to {method}"))?;
            match message.kind {
                METHOD_RETURN if message.reply_to == serial => return Ok(message),
                ERROR if message.reply_to == serial => {
                    return Err(Error::new(message.refusal()).context(method.to_string()));
                }
                SIGNAL => on_signal(&message),
                _ => {}
            }
        }
    }

    /// The next signal.
    pub fn signal(&mut self) -> Result<Message> {
        loop {
            let message = self.receive()?;
            if message.kind == SIGNAL {
                return Ok(message);
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        let mut start = [0; 16];
        self.fill(&mut start)?;
        let (fields, body) = lengths(&start)?;
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        self.fill(&mut rest)?;
        Message::read(start[1], fields, rest)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket
            .set_write_timeout(Some(self.left()?))
            .context("setsockopt(SO_SNDTIMEO)")?;
        sys::io(self.socket.write_all(bytes).map_err(timely))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            // A signal that stops this command ends the wait too.
            let [ready] = wait::poll_readable([self.socket.as_fd()], Some(self.left()?))?;
            if !ready {
                continue;
            }
            match self.socket.read(&mut buffer[filled..]) {
                Ok(0) => bail!("the bus has closed the connection"),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return sys::io(Err(error)),
            }
        }
        Ok(())
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "no answer from the bus in time");
        Ok(left)
    }
}

/// What the first 16 bytes of a message say of the rest: the length of its fields, and of its body.
pub fn lengths(start: &[u8; 16]) -> Result<(usize, usize)> {
    let (body, fields) = (number(start, 4) as usize, number(start, 12) as usize);
    // Brokers turn nothing round: who writes on this machine writes as this machine does.
    ensure!(start[0] == b'l', "the bus speaks another protocol");
    ensure!(
        body < LONGEST && fields < LONGEST,
        "the bus sent a message of {body} bytes"
    );
    Ok((fields, body))
}

fn timely(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
        _ => error,
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} ({})", self.text, self.name)
    }
}

impl std::error::Error for Refusal {}

/// The name of the error that the other side has answered with.
pub fn refusal(error: &Error) -> Option<&str> {
    error
        .chain()
        .find_map(|cause| Some(cause.downcast_ref::<Refusal>()?.name.as_str()))
}

impl Message {
    /// The fields, filled up to a multiple of eight, and the body.
    pub fn read(kind: u8, fields: usize, mut rest: Vec<u8>) -> Result<Message> {
        let mut message = Message {
            kind,
            body: rest.split_off(fields.next_multiple_of(8)),
            ..Message::default()
        };
        message.read_fields(&rest[..fields])?;
        Ok(message)
    }

    fn refusal(&self) -> Refusal {
        Refusal {
            name: self.error.clone(),
            text: self.texts().into_iter().next().unwrap_or_default(),
        }
    }

    /// The leading values of the body that are texts, paths or 32-bit numbers, all as text.
    pub fn texts(&self) -> Vec<String> {
        let mut reader = Reader {
            bytes: &self.body,
            at: 0,
        };
        let simple = self.signature.chars().map_while(|kind| match kind {
            's' | 'o' => reader.text(),
            'u' => reader.u32().map(|number| number.to_string()),
            _ => None,
        });
        simple.collect()
    }

    /// The fields of the header: an array of structures of a code and a variant.
    fn read_fields(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader { bytes, at: 0 };
        while reader.at < bytes.len() {
            self.read_field(&mut reader)
                .context("the bus sent a broken message")?;
        }
        Ok(())
    }

    fn read_field(&mut self, reader: &mut Reader) -> Option<()> {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (3, "s") => self.member = reader.text()?,
            (4, "s") => self.error = reader.text()?,
            (5, "u") => self.reply_to = reader.u32()?,
            (8, "g") => self.signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return None,
        }
        Some(())
    }
}

/// Positions count from the beginning of what is read, which is aligned.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        Some(number(bytes, 0))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.piece(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()? as usize;
        self.piece(length)
    }

    /// Text of this length and the zero behind it.
    fn piece(&mut self, length: usize) -> Option<String> {
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length + 1;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

fn encode_call(
    object: &Object,
    method: &str,
    arguments: &[Value],
    serial: u32,
    broker: bool,
) -> Vec<u8> {
    let signature: String = arguments.iter().map(Value::signature).collect();
    let mut body = Vec::new();
    arguments
        .iter()
        .for_each(|argument| argument.encode(&mut body));
    let field = |code: u8, value: Value| {
        Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))])
    };
    let text = |text: &str| Value::Text(text.to_string());
    let mut fields = vec![
        field(1, Value::Path(object.path.to_string())),
        field(2, text(object.interface)),
        field(3, text(method)),
    ];
    if broker {
        fields.push(field(6, text(object.destination)));
    }
    if !signature.is_empty() {
        fields.push(field(8, Value::Signature(signature)));
    }
    let mut message = vec![b'l', METHOD_CALL, 0, 1];
    Value::U32(body.len() as u32).encode(&mut message);
    Value::U32(serial).encode(&mut message);
    Value::Array("(yv)".to_string(), fields).encode(&mut message);
    pad(&mut message, 8);
    message.extend(body);
    message
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

impl Value {
    /// Appends the value, aligned as its type wants it from the beginning of the bytes.
    fn encode(&self, bytes: &mut Vec<u8>) {
        pad(bytes, alignment(self.code()));
        match self {
            Value::Byte(value) => bytes.push(*value),
            Value::Bool(value) => bytes.extend(u32::from(*value).to_le_bytes()),
            Value::I16(value) => bytes.extend(value.to_le_bytes()),
            Value::U16(value) => bytes.extend(value.to_le_bytes()),
            Value::I32(value) => bytes.extend(value.to_le_bytes()),
            Value::U32(value) => bytes.extend(value.to_le_bytes()),
            Value::I64(value) => bytes.extend(value.to_le_bytes()),
            Value::U64(value) => bytes.extend(value.to_le_bytes()),
            Value::Double(value) => bytes.extend(value.to_le_bytes()),
            Value::Text(text) | Value::Path(text) => {
                bytes.extend((text.len() as u32).to_le_bytes());
                terminated(text, bytes);
            }
            Value::Signature(text) => {
                bytes.push(text.len() as u8);
                terminated(text, bytes);
            }
            Value::Variant(inner) => {
                Value::Signature(inner.signature()).encode(bytes);
                inner.encode(bytes);
            }
            Value::Array(of, values) => encode_array(of, values, bytes),
            Value::Struct(values) => values.iter().for_each(|value| value.encode(bytes)),
        }
    }
}

/// The length counts from the first value on, without the padding before it.
fn encode_array(of: &str, values: &[Value], bytes: &mut Vec<u8>) {
    let length_at = bytes.len();
    bytes.extend([0; 4]);
    pad(bytes, of.chars().next().map_or(1, alignment));
    let start = bytes.len();
    values.iter().for_each(|value| value.encode(bytes));
    let length = (bytes.len() - start) as u32;
    bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

fn terminated(text: &str, bytes: &mut Vec<u8>) {
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn alignment(code: char) -> usize {
    match code {
        'n' | 'q' => 2,
        'b' | 'i' | 'u' | 's' | 'o' | 'a' => 4,
        'x' | 't' | 'd' | '(' => 8,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        bytes
    }

    #[test]
    fn values_are_aligned_and_carry_their_lengths() {
        assert_eq!(bytes(&Value::text("ab")), b"\x02\0\0\0ab\0");
        assert_eq!(bytes(&Value::Bool(true)), [1, 0, 0, 0]);
        let variant = Value::Variant(Box::new(Value::U64(5)));
        assert_eq!(bytes(&variant), b"\x01t\0\0\0\0\0\0\x05\0\0\0\0\0\0\0");
        let empty = Value::Array("t".to_string(), vec![]);
        assert_eq!(bytes(&empty), [0; 8]);
        let pairs = Value::Array(
            "(su)".to_string(),
            vec![Value::Struct(vec![Value::text("a"), Value::U32(1)])],
        );
        assert_eq!(pairs.signature(), "a(su)");
        assert_eq!(
            bytes(&pairs),
            b"\x0c\0\0\0\0\0\0\0\x01\0\0\0a\0\0\0\x01\0\0\0"
        );
    }

    /// A broker that answers what it is told to, whatever it is asked.
    fn broker(name: &str, answers: Vec<Vec<u8>>) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("cofferdam-bus-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let mut asked = [0; 4096];
            for answer in answers {
                assert!(peer.read(&mut asked).unwrap() > 0);
                peer.write_all(&answer).unwrap();
            }
            // Stays there without a word until the client goes.
            while peer.read(&mut asked).is_ok_and(|count| count > 0) {}
        });
        path
    }

    fn answer(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut payload = Vec::new();
        body.iter().for_each(|value| value.encode(&mut payload));
        let signature: String = body.iter().map(Value::signature).collect();
        let mut fields = fields;
        fields.push((8, Value::Signature(signature)));
        let field =
            |(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut message = vec![b'l', kind, 0, 1];
        Value::U32(payload.len() as u32).encode(&mut message);
        Value::U32(99).encode(&mut message);
        Value::Array("(yv)".to_string(), fields.into_iter().map(field).collect())
            .encode(&mut message);
        pad(&mut message, 8);
        message.extend(payload);
        message
    }

    fn ok() -> Vec<u8> {
        b"DATA\r\nOK 0123456789abcdef\r\n".to_vec()
    }

    fn hello() -> Vec<u8> {
        answer(
            METHOD_RETURN,
            vec![(5, Value::U32(1))],
            &[Value::text(":1.7")],
        )
    }

    const MANAGER: Object = Object {
        destination: "org.freedesktop.systemd1",
        path: "/org/freedesktop/systemd1",
        interface: "org.freedesktop.systemd1.Manager",
    };

    #[test]
    fn a_call_gets_its_reply_and_the_signals_before_it() {
        let removed = [
            Value::U32(7),
            Value::Path("/job/7".into()),
            Value::text("a.scope"),
            Value::text("done"),
        ];
        let signal = answer(SIGNAL, vec![(3, Value::text("JobRemoved"))], &removed);
        let other = answer(METHOD_RETURN, vec![(5, Value::U32(77))], &[]);
        let reply = answer(
            METHOD_RETURN,
            vec![(5, Value::U32(2))],
            &[Value::Path("/job/7".into())],
        );
        let path = broker(
            "reply",
            vec![ok(), hello(), [signal, other, reply].concat()],
        );
        let mut bus = Bus::connect(&path, true, Duration::from_secs(60)).unwrap();
        let mut seen = vec![];
        let call = bus.call_with(&MANAGER, "StopUnit", &[Value::text("a.scope")], |signal| {
            seen.push((signal.member.clone(), signal.texts()))
        });
        assert_eq!(call.unwrap().texts(), ["/job/7"]);
        let texts = ["7", "/job/7", "a.scope", "done"]
            .map(String::from)
            .to_vec();
        assert_eq!(seen, [("JobRemoved".to_string(), texts)]);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn an_error_has_its_name_and_its_text() {
        let name = "org.freedesktop.systemd1.UnitExists";
        let refused = answer(
            ERROR,
            vec![(5, Value::U32(2)), (4, Value::text(name))],
            &[Value::text("there already")],
        );
        let path = broker("error", vec![ok(), hello(), refused]);
        let mut bus = Bus::connect(&path, true, Duration::from_secs(60)).unwrap();
        let error = bus.call(&MANAGER, "StopUnit", &[]).unwrap_err();
        assert_eq!(refusal(&error), Some(name));
        assert_eq!(
            format!("{error:#}"),
            format!("StopUnit: there already ({name})")
        );
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_bus_that_refuses_hangs_drops_or_lies_is_an_error_in_time() {
        let mut huge = vec![b'l', METHOD_RETURN, 0, 1];
        huge.extend([0xff; 12]);
        let cases = [
            (
                "refuses",
                vec![b"REJECTED EXTERNAL\r\n".to_vec()],
                "refused: \"REJECTED EXTERNAL\"",
            ),
            ("hangs", vec![ok()], "no answer from the bus in time"),
            ("silent", vec![], "no answer from the bus in time"),
            ("lies", vec![ok(), huge], "the bus sent a message of"),
            (
                "noise",
                vec![ok(), b"HTTP/1.1 200 OK\r\n\r\n".to_vec()],
                "the bus speaks another protocol",
            ),
        ];
        for (name, answers, want) in cases {
            let path = broker(name, answers);
            // An answer may come late on a busy machine.
            let patience = match want {
                "no answer from the bus in time" => Duration::from_millis(100),
                _ => Duration::from_secs(60),
            };
            let error = match Bus::connect(&path, true, patience) {
                Ok(_) => panic!("{name}"),
                Err(error) => format!("{error:#}"),
            };
            assert!(error.contains(want), "{name}: {error}");
            std::fs::remove_file(path).unwrap();
        }
        let error = Bus::connect(Path::new("/nonexistent/bus"), true, Duration::from_secs(60))
            .err()
            .unwrap();
        assert!(format!("{error:#}").contains("connect(\"/nonexistent/bus\")"));
    }
}
