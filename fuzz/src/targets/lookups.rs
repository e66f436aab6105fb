//! Files of the image and of the host that name programs, users and limits, and the answers of rtnetlink(7).

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::path::Path;

use cofferdam::facility::{id_maps, resctrl as groups};
use cofferdam::init::exec::home_of;
use cofferdam::init::explain;
use cofferdam::sys::netlink::{Answers, parse_address, parse_link};
use nix::errno::Errno;

use super::assert_printable;

/// A file that execve(2) refuses: an ELF program, a script, or neither.
pub fn program(data: &[u8]) {
    let name = format!("cofferdam-fuzz-program-{}", std::process::id());
    let file = std::env::temp_dir().join(name);
    fs::write(&file, data).expect("write the program");
    let path = CString::new(file.as_os_str().as_encoded_bytes()).expect("a path without NUL");
    for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC] {
        assert_printable(&format!("{:#}", explain::failed_exec(&path, errno)));
    }
    fs::remove_file(&file).expect("remove the program");
}

/// A home directory comes from field 6 of a line of passwd(5) that has the uid as field 3.
pub fn home(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let numbers = text.split([':', '\n']).filter_map(|word| word.parse().ok());
    for uid in numbers.take(16) {
        let Some(home) = home_of(&text, uid) else {
            continue;
        };
        assert!(home.starts_with('/') && !home.contains('\0'), "{home:?}");
        let is_source = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            fields.get(2) == Some(&&*uid.to_string()) && fields.get(5) == Some(&&*home)
        };
        assert!(text.lines().any(is_source), "{uid}: {home:?}");
    }
}

/// Every range that subuid(5) grants stands behind the name or the number of the user.
pub fn subids(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let granted = id_maps::granted_in(&text, 1000, Some("user"));
    let own = |line: &&str| ["user:", "1000:"].iter().any(|user| line.starts_with(user));
    let ranges = text
        .lines()
        .filter(own)
        .filter_map(|line| line.split_once(':'));
    let ranges: Vec<&str> = ranges.map(|(_, range)| range).collect();
    let expected = match &ranges[..] {
        [] => "nothing".to_string(),
        ranges => ranges.join(", "),
    };
    assert_eq!(granted, expected);
}

/// One packet of the kernel, and the body of one message.
pub fn netlink(data: &[u8]) {
    let mut answers = Answers::default();
    answers.take(data);
    let bytes: usize = answers.bodies.iter().map(Vec::len).sum();
    assert!(bytes <= data.len(), "{bytes} of {} bytes", data.len());
    for body in answers.bodies.iter().map(Vec::as_slice).chain([data]) {
        parse_link(body);
        if let Some(address) = parse_address(body) {
            drop((address.to_string(), address.is_v6()));
        }
    }
}

/// Schemata: a value is found again when it is the only one of its line, and equals itself.
pub fn resctrl(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in text.lines().take(32) {
        for ((resource, domain), value) in groups::values(line).unwrap_or_default() {
            let again = groups::values(&format!("{resource}:{domain}={value}"));
            assert!(
                resource.contains('/')
                    || groups::same(Path::new("/none"), &resource, &value, &value)
            );
            assert_eq!(again, Some(BTreeMap::from([((resource, domain), value)])));
        }
    }
}
