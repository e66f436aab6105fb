//! `exec --user`: names looked up in the container's own passwd and group files, never by this host's.
//! Run by the parent, on files that may be hostile: read through descriptors, no more than a megabyte.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::sys::regular;

const LARGEST: u64 = 1 << 20;

#[derive(Debug, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// The groups that list a user who was given by name; `None` for one given by number.
    pub groups: Option<Vec<u32>>,
}

/// Resolves `UID`, `UID:GID`, `NAME`, `NAME:GROUP` and mixtures. A number is never looked up as a name.
pub fn resolve(text: &str, root: &OwnedFd, default_gid: u32) -> Result<User> {
    let read = |file: &str| read(root, Path::new(file)).unwrap_or_default();
    resolve_in(text, &read("/etc/passwd"), &read("/etc/group"), default_gid)
}

pub fn resolve_in(text: &str, passwd: &str, group: &str, default_gid: u32) -> Result<User> {
    let (name, group_name) = text
        .split_once(':')
        .map_or((text, None), |(user, group)| (user, Some(group)));
    let mut user = match number(name, "--user")? {
        Some(uid) => User {
            uid,
            gid: default_gid,
            groups: None,
        },
        None => named(name, passwd, group)?,
    };
    if let Some(name) = group_name {
        user.gid = match number(name, "--user")? {
            Some(gid) => gid,
            None => line(group, name)
                .and_then(|fields| id(fields.get(2)?))
                .with_context(|| {
                    format!("--user: {name:?}: no such group in the container's /etc/group")
                })?,
        };
    }
    Ok(user)
}

/// passwd(5): name, password, uid, gid. group(5): name, password, gid, members.
fn named(name: &str, passwd: &str, group: &str) -> Result<User> {
    let fields = line(passwd, name).with_context(|| {
        format!("--user: {name:?}: no such user in the container's /etc/passwd")
    })?;
    let field = |at: usize| fields.get(at).and_then(|field| id(field));
    let (Some(uid), Some(gid)) = (field(2), field(3)) else {
        bail!("--user: {name:?}: its line in the container's /etc/passwd has no valid ids");
    };
    let is_member = |line: &&str| {
        let members = line.split(':').nth(3).unwrap_or_default();
        members.split(',').any(|member| member == name)
    };
    let gid_of = |line: &str| line.split(':').nth(2).and_then(id);
    let groups = group.lines().filter(is_member).filter_map(gid_of).collect();
    Ok(User {
        uid,
        gid,
        groups: Some(groups),
    })
}

fn line<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let lines = text
        .lines()
        .map(|line| line.split(':').collect::<Vec<&str>>());
    lines
        .into_iter()
        .find(|fields| fields.first() == Some(&name))
}

/// `None` for a name. Whatever begins like a number must be one that is an id.
pub fn number(text: &str, flag: &str) -> Result<Option<u32>> {
    ensure!(!text.is_empty(), "{flag}: a user or group is missing");
    if !text.starts_with(|first: char| first.is_ascii_digit() || first == '-') {
        return Ok(None);
    }
    id(text)
        .map(Some)
        .with_context(|| format!("{flag}: {text:?}: is no id; ids are from 0 to 4294967294"))
}

/// (uid_t)-1 means "no change" to the kernel.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn read(root: &OwnedFd, file: &Path) -> Result<String> {
    let mut text = Vec::new();
    let open = regular::open(root, file)?;
    open.take(LARGEST).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\n1000:x:0:0::/:/bin/sh\nann:x:7:8::/home/ann:/bin/sh\nbad:x:y:z::/:\nmax:x:4294967295:0::/:\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:bob,ann\nwheel:x:10:ann\nmax:x:4294967295:ann\n";

    #[test]
    fn users_by_number_and_name() {
        let user = |uid, gid, groups| User { uid, gid, groups };
        let table = [
            ("1000", user(1000, 5, None)),
            ("0:5", user(0, 5, None)),
            ("1000:staff", user(1000, 50, None)),
            ("ann", user(7, 8, Some(vec![50, 10]))),
            ("ann:99", user(7, 99, Some(vec![50, 10]))),
        ];
        for (text, expected) in table {
            assert_eq!(
                resolve_in(text, PASSWD, GROUP, 5).unwrap(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_user_is_refused() {
        for text in [
            "",
            "1:",
            ":1",
            "1:x",
            "nobody",
            "bad",
            "max",
            "1:max",
            "4294967295",
            "4294967297",
            "-1",
            "1x",
        ] {
            assert!(resolve_in(text, PASSWD, GROUP, 0).is_err(), "{text}");
        }
    }
}
