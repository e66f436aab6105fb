//! What the kernel and the bus say. The name of a process, of a mount or of a cgroup in it is anybody's choice.

use super::assert_printable;
use cofferdam::cgroup::stats;
use cofferdam::commands::mounts;
use cofferdam::sys::stat::Stat;
use cofferdam::systemd::bus::{self, Message};

/// Any file may be asked for any of what is in files: a later kernel may write what is not expected.
pub fn files(data: &[u8]) {
    let text = &*String::from_utf8_lossy(data);
    let stat = Stat::new(text.to_string());
    assert!(stat.exit_status().is_none() || stat.state() == Some('Z'));
    stat.start_time();
    stat.is_exiting();
    stats::parse_cpu(text);
    stats::parse_io(text);
    stats::parse_flat(text);
    stats::parse_pressure(text);
    for line in text.lines() {
        stats::parse_number(line);
        stats::page_size(line);
        for cell in mounts::row(line).into_iter().flatten() {
            assert_printable(&cell);
        }
    }
}

/// Messages one after the other, as a connection has them.
pub fn bus(data: &[u8]) {
    let mut rest = data;
    while let Some((start, after)) = rest.split_first_chunk() {
        let Ok((fields, body)) = bus::lengths(start) else {
            return;
        };
        let length = fields.next_multiple_of(8) + body;
        let Some((message, after)) = after.split_at_checked(length) else {
            return;
        };
        if let Ok(message) = Message::read(start[1], fields, message.to_vec()) {
            message.texts();
        }
        rest = after;
    }
}
