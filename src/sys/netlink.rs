//! rtnetlink(7): the few messages about links and addresses that moving a device takes.
//!
//! A socket speaks for the network namespace in which it was opened, wherever its process goes later.
//! The messages are written here by hand: a library that knows all of rtnetlink would add half a
//! megabyte to the program.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::{Refused, check, named};

/// Of nlmsghdr: length, type, flags, sequence number, port.
const HEADER: usize = 16;
/// Of ifinfomsg and of ifaddrmsg.
const LINK: usize = 16;
const ADDRESS: usize = 8;
/// Of nlattr: length, type.
const ATTRIBUTE: usize = 4;
/// Large enough for any part of a dump (netlink(7): the kernel sends at most 32 KiB).
const BUFFER: usize = 32 * 1024;

/// rtnetlink(7), if_addr.h: what makes an address. Its label would name the device as it was called before.
const KEPT: [u16; 5] = [
    libc::IFA_ADDRESS,
    libc::IFA_LOCAL,
    libc::IFA_BROADCAST,
    libc::IFA_CACHEINFO,
    IFA_RT_PRIORITY,
];
const IFA_RT_PRIORITY: u16 = 9;
/// The others are the kernel's to set.
const KEPT_FLAGS: u32 = libc::IFA_F_NODAD
    | libc::IFA_F_HOMEADDRESS
    | libc::IFA_F_MANAGETEMPADDR
    | libc::IFA_F_NOPREFIXROUTE
    | libc::IFA_F_MCAUTOJOIN;

pub struct Netlink {
    socket: OwnedFd,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Link {
    pub index: i32,
    pub name: String,
}

/// An address as the kernel tells it, less what it decides itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    pub index: i32,
    pub permanent: bool,
    pub global: bool,
    family: u8,
    prefix: u8,
    attributes: Vec<u8>,
}

impl Netlink {
    /// For the network namespace that this process is in now.
    pub fn open() -> Result<Netlink> {
        let made = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        );
        let socket = named(made, || "socket(AF_NETLINK, NETLINK_ROUTE)".to_string())?;
        // Without it a refusal says less; with it the kernel's own words come along.
        set_option(&socket, libc::NETLINK_EXT_ACK)?;
        Ok(Netlink { socket })
    }

    /// The device with this name, or with this alternative name.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        let mut body = vec![0; LINK];
        push_name(&mut body, name);
        let call = || format!("RTM_GETLINK({name:?})");
        let parts = match self.ask(libc::RTM_GETLINK, 0, &body, call) {
            Err(error) if super::errno(&error) == Some(Errno::ENODEV) => return Ok(None),
            parts => parts?,
        };
        Ok(parts.iter().find_map(|part| parse_link(part)))
    }

    /// Changes nothing, but is refused if a change would be.
    pub fn touch_link(&self, index: i32) -> Result<()> {
        let body = link_message(index, 0);
        self.ask(libc::RTM_SETLINK, 0, &body, || {
            format!("RTM_SETLINK({index})")
        })
        .map(drop)
    }

    /// Moves a device into the network namespace of a process, and names it. It is down afterwards,
    /// and has lost its addresses.
    pub fn move_link(&self, index: i32, pid: i32, name: &str) -> Result<()> {
        let mut body = link_message(index, 0);
        push_attribute(&mut body, libc::IFLA_NET_NS_PID, &pid.to_ne_bytes());
        push_name(&mut body, name);
        self.ask(libc::RTM_SETLINK, 0, &body, || {
            format!("RTM_SETLINK({index}, process {pid}, {name:?})")
        })
        .map(drop)
    }

    pub fn set_up(&self, index: i32) -> Result<()> {
        let body = link_message(index, libc::IFF_UP);
        self.ask(libc::RTM_SETLINK, 0, &body, || {
            format!("RTM_SETLINK({index}, IFF_UP)")
        })
        .map(drop)
    }

    /// All addresses of the namespace.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        /// Others change addresses too; a list that they have changed meanwhile is asked for again.
        const TRIES: usize = 10;
        let flags = libc::NLM_F_DUMP as u16;
        let ask = || {
            self.ask(libc::RTM_GETADDR, flags, &[0; ADDRESS], || {
                "RTM_GETADDR".into()
            })
        };
        let mut parts = ask();
        for _ in 1..TRIES {
            match &parts {
                Err(error) if super::errno(error) == Some(Errno::EINTR) => parts = ask(),
                _ => break,
            }
        }
        let parts = parts?;
        Ok(parts
            .iter()
            .filter_map(|part| parse_address(part))
            .collect())
    }

    pub fn add_address(&self, index: i32, address: &Address) -> Result<()> {
        let mut body = vec![address.family, address.prefix, 0, libc::RT_SCOPE_UNIVERSE];
        body.extend(index.to_ne_bytes());
        body.extend(&address.attributes);
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let call = || format!("RTM_NEWADDR({index}, {address})");
        self.ask(libc::RTM_NEWADDR, flags, &body, call).map(drop)
    }

    /// Sends one request and gives the bodies of what comes back for it.
    fn ask(
        &self,
        kind: u16,
        flags: u16,
        body: &[u8],
        call: impl Fn() -> String,
    ) -> Result<Vec<Vec<u8>>> {
        let fd = self.socket.as_raw_fd();
        // Whatever is asked, an acknowledgement or the end of a dump comes last.
        let flags = flags | (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let request = request(kind, flags, body);
        named(send(fd, &request, MsgFlags::empty()), &call)?;
        let mut buffer = vec![0; BUFFER];
        let mut answers = Answers::default();
        loop {
            let length = match recv(fd, &mut buffer, MsgFlags::MSG_TRUNC) {
                Err(Errno::EINTR) => continue,
                length => named(length, &call)?,
            };
            let Some(packet) = buffer.get(..length) else {
                bail!("{}: {length} bytes in one answer", call());
            };
            if let Some(end) = answers.take(packet) {
                end.map_err(|(errno, words)| refused(errno, &words, call()))?;
                return Ok(answers.bodies);
            }
        }
    }
}

/// The messages that have come for one request.
#[derive(Default)]
pub struct Answers {
    pub bodies: Vec<Vec<u8>>,
    interrupted: bool,
}

impl Answers {
    /// The outcome, with the kernel's words for a refusal, once the last message has come.
    pub fn take(&mut self, packet: &[u8]) -> Option<Result<(), (Errno, String)>> {
        const ERROR: u16 = libc::NLMSG_ERROR as u16;
        const DONE: u16 = libc::NLMSG_DONE as u16;
        let mut rest = packet;
        while let Some((header, body, after)) = split_message(rest) {
            self.interrupted |= header.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
            match (header.kind, number(body, 0).unwrap_or(0)) {
                (ERROR | DONE, code @ ..0) => {
                    return Some(Err((
                        Errno::from_raw(code.wrapping_neg()),
                        words(&header, body),
                    )));
                }
                (ERROR | DONE, _) if self.interrupted => {
                    return Some(Err((Errno::EINTR, String::new())));
                }
                (ERROR | DONE, _) => return Some(Ok(())),
                _ => self.bodies.push(body.to_vec()),
            }
            rest = after;
        }
        None
    }
}

fn refused(errno: Errno, words: &str, call: String) -> Refused {
    let call = match words {
        "" => call,
        words => format!("{call}: {words}"),
    };
    Refused { call, errno }
}

/// What the kernel says about a refusal, behind a copy of the refused request.
fn words(header: &Header, body: &[u8]) -> String {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let (capped, told) = (libc::NLM_F_CAPPED as u16, libc::NLM_F_ACK_TLVS as u16);
    let request = match number(body, 4).map(usize::try_from) {
        Some(Ok(length)) if header.flags & capped == 0 => aligned(length),
        _ => HEADER,
    };
    let after = body.get(4 + request..).filter(|_| header.flags & told != 0);
    let mut attributes = attributes(after.unwrap_or_default());
    let message = attributes.find(|(kind, _)| *kind == NLMSGERR_ATTR_MSG);
    message.map_or_else(String::new, |(_, value)| text(value))
}

/// Returns None if the body of RTM_NEWLINK is cut short or has no name.
pub fn parse_link(body: &[u8]) -> Option<Link> {
    let mut attributes = attributes(body.get(LINK..)?);
    let name = attributes.find(|(kind, _)| *kind == libc::IFLA_IFNAME)?;
    Some(Link {
        index: number(body, 4)?,
        name: text(name.1),
    })
}

/// Returns None if the body of RTM_NEWADDR is cut short.
pub fn parse_address(body: &[u8]) -> Option<Address> {
    let [family, prefix, flags, scope] = *body.first_chunk()?;
    let mut kept = Vec::new();
    for (kind, value) in attributes(body.get(ADDRESS..)?) {
        match kind {
            libc::IFA_FLAGS => {
                let flags = number(value, 0)? as u32 & KEPT_FLAGS;
                push_attribute(&mut kept, kind, &flags.to_ne_bytes());
            }
            _ if KEPT.contains(&kind) => push_attribute(&mut kept, kind, value),
            _ => {}
        }
    }
    Some(Address {
        index: number(body, 4)?,
        permanent: u32::from(flags) & libc::IFA_F_PERMANENT != 0,
        global: scope == libc::RT_SCOPE_UNIVERSE,
        family,
        prefix,
        attributes: kept,
    })
}

impl Address {
    pub fn is_v6(&self) -> bool {
        self.family == libc::AF_INET6 as u8
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let values = |wanted| attributes(&self.attributes).find(|(kind, _)| *kind == wanted);
        // With a peer, that is the one in IFA_ADDRESS.
        let found = values(libc::IFA_LOCAL).or_else(|| values(libc::IFA_ADDRESS));
        let bytes = found.map_or(&[][..], |(_, value)| value);
        if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
            write!(f, "{}/{}", IpAddr::from(bytes), self.prefix)
        } else if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
            write!(f, "{}/{}", IpAddr::from(bytes), self.prefix)
        } else {
            write!(f, "{bytes:?}/{}", self.prefix)
        }
    }
}

fn link_message(index: i32, set: libc::c_int) -> Vec<u8> {
    // ifinfomsg: family, type, index, flags, and which of the flags are meant.
    let parts = [0, index, set, set].map(i32::to_ne_bytes);
    parts.concat()
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // One request at a time needs no numbers; the kernel is port 0.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn push_name(body: &mut Vec<u8>, name: &str) {
    push_attribute(body, libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
}

fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(((ATTRIBUTE + value.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(aligned(body.len()), 0);
}

struct Header {
    kind: u16,
    flags: u16,
}

/// The first message of a packet: its header, its body, and what follows it.
fn split_message(packet: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = number(packet, 0)? as usize;
    let header = Header {
        kind: short(packet, 4)?,
        flags: short(packet, 6)?,
    };
    let body = packet.get(HEADER..length)?;
    let after = packet.get(aligned(length)..).unwrap_or_default();
    Some((header, body, after))
}

/// The type and the value of each attribute.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = short(rest, 0)? as usize;
        let kind = short(rest, 2)? & libc::NLA_TYPE_MASK as u16;
        let value = rest.get(ATTRIBUTE..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8], at: usize) -> Option<i32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(i32::from_ne_bytes)
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u16::from_ne_bytes)
}

fn text(value: &[u8]) -> String {
    let value = value.strip_suffix(b"\0").unwrap_or(value);
    String::from_utf8_lossy(value).into_owned()
}

/// Messages and attributes start at multiples of four bytes.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn set_option(socket: &OwnedFd, option: libc::c_int) -> Result<()> {
    let on: libc::c_int = 1;
    let (pointer, size) = (&raw const on, size_of_val(&on) as libc::socklen_t);
    // SAFETY: the value outlives the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            pointer.cast(),
            size,
        )
    };
    check(result.into(), || {
        format!("setsockopt(SOL_NETLINK, {option})")
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(kind: i32, flags: i32, body: &[u8]) -> Vec<u8> {
        request(kind as u16, flags as u16, body)
    }

    #[test]
    fn a_refusal_comes_with_the_words_of_the_kernel() {
        // The error, the header of the refused request of 19 bytes, and what it held, padded.
        let mut body = [(-libc::EINVAL).to_ne_bytes(), 19i32.to_ne_bytes()].concat();
        body.extend([0; 12]);
        let mut capped = body.clone();
        body.extend([7; 4]);
        for body in [&mut body, &mut capped] {
            push_attribute(body, 2, &[0; 4]);
            push_attribute(body, 1, b"no such thing\0");
        }
        let both = libc::NLM_F_ACK_TLVS | libc::NLM_F_CAPPED;
        for (flags, body) in [(libc::NLM_F_ACK_TLVS, &body), (both, &capped)] {
            let packet = packet(libc::NLMSG_ERROR, flags, body);
            let refusal = Answers::default().take(&packet).unwrap().unwrap_err();
            assert_eq!(refusal, (Errno::EINVAL, "no such thing".to_string()));
        }
        let wordless = packet(libc::NLMSG_ERROR, 0, &body);
        let refusal = Answers::default().take(&wordless).unwrap().unwrap_err();
        assert_eq!(refusal, (Errno::EINVAL, String::new()));
    }

    #[test]
    fn a_dump_ends_with_its_last_message() {
        let mut answers = Answers::default();
        let part = packet(20, libc::NLM_F_MULTI, b"abc");
        let two = [&part[..], &[0], &part, &[0]].concat();
        assert_eq!(answers.take(&two), None);
        let end = packet(libc::NLMSG_DONE, libc::NLM_F_MULTI, &[0; 4]);
        assert_eq!(answers.take(&end), Some(Ok(())));
        assert_eq!(answers.bodies, [b"abc", b"abc"]);
        let flags = libc::NLM_F_MULTI | libc::NLM_F_DUMP_INTR;
        assert_eq!(answers.take(&packet(20, flags, b"abcd")), None);
        let refusal = answers.take(&end).unwrap().unwrap_err();
        assert_eq!(refusal.0, Errno::EINTR);
    }

    #[test]
    fn of_an_address_only_what_the_host_chose_is_kept() {
        let mut body = vec![libc::AF_INET as u8, 24, 0x80, 0];
        body.extend(7i32.to_ne_bytes());
        push_attribute(&mut body, libc::IFA_ADDRESS, &[10, 0, 0, 2]);
        push_attribute(&mut body, libc::IFA_LOCAL, &[10, 0, 0, 1]);
        let mut expected = body[ADDRESS..].to_vec();
        push_attribute(&mut body, libc::IFA_LABEL, b"eth0:1\0");
        let flags = libc::IFA_F_PERMANENT | libc::IFA_F_NOPREFIXROUTE;
        push_attribute(&mut body, libc::IFA_FLAGS, &flags.to_ne_bytes());
        let kept = libc::IFA_F_NOPREFIXROUTE.to_ne_bytes();
        push_attribute(&mut expected, libc::IFA_FLAGS, &kept);
        let address = parse_address(&body).unwrap();
        assert_eq!(address.to_string(), "10.0.0.1/24");
        assert_eq!(address.index, 7);
        assert!(address.permanent && address.global);
        assert_eq!(address.attributes, expected);
    }

    #[test]
    fn what_is_cut_short_is_passed_over() {
        let mut body = vec![0; LINK];
        push_name(&mut body, "eth0");
        let whole = parse_link(&body).unwrap();
        assert_eq!((whole.index, whole.name.as_str()), (0, "eth0"));
        // The last three bytes are padding.
        for length in 0..body.len() - 3 {
            assert_eq!(parse_link(&body[..length]), None, "{length}");
            assert_eq!(parse_address(&body[..length.min(ADDRESS - 1)]), None);
            let mut answers = Answers::default();
            let packet = packet(16, 0, &body);
            assert_eq!(answers.take(&packet[..HEADER + length]), None);
            assert!(answers.bodies.is_empty());
        }
    }
}
