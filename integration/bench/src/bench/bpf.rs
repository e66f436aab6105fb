//! The device filter of the floor: the shortest program that allows what the config and the default devices allow.
//! A device is a pair of numbers with all rights, as engines write them; any device may be made with mknod.

use std::collections::BTreeMap;

use serde_json::Value;

/// null, zero, full, random, urandom; tty, console, ptmx; pts.
const ALWAYS: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const AND: u8 = 0x57;
const EXIT: u8 = 0x95;
const JUMP: u8 = 0x05;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_UNEQUAL: u8 = 0x55;
const CONTEXT: u8 = 1;

struct Program(Vec<[u8; 8]>);

pub fn device_filter(config: &Value) -> String {
    let majors = allowed(config);
    let block = |minors: &Vec<Option<i64>>| minors.len() + 1 + usize::from(minors[0].is_some());
    let length: usize = majors.values().map(block).sum();
    let mut program = Program(Vec::new());
    program.push(LOAD_WORD, 2 | CONTEXT << 4, 0, 0);
    program.push(MOVE, 0, 0, 1);
    // Access is in the upper half, the kind of device in the lower: 1 is mknod, 2 is a character device.
    program.push(JUMP_EQUAL, 2, length as i16 + 6, 1 << 16 | 2);
    program.push(JUMP_EQUAL, 2, length as i16 + 5, 1 << 16 | 1);
    program.push(AND, 2, 0, 0xffff);
    program.push(JUMP_UNEQUAL, 2, length as i16 + 2, 2);
    program.push(LOAD_WORD, 2 | CONTEXT << 4, 4, 0);
    program.push(LOAD_WORD, 3 | CONTEXT << 4, 8, 0);
    let mut left = length as i16;
    for (major, minors) in majors {
        program.push(JUMP_UNEQUAL, 2, block(&minors) as i16 - 1, major as i32);
        left -= 1;
        for minor in &minors {
            left -= 1;
            match minor {
                Some(minor) => program.push(JUMP_EQUAL, 3, left + 1, *minor as i32),
                None => program.push(JUMP, 0, left + 1, 0),
            }
        }
        // The kernel refuses what cannot be reached.
        if minors[0].is_some() {
            left -= 1;
            program.push(JUMP, 0, left, 0);
        }
    }
    program.push(MOVE, 0, 0, 0);
    program.push(EXIT, 0, 0, 0);
    hex(&program.0.concat())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Program {
    fn push(&mut self, code: u8, registers: u8, offset: i16, value: i32) {
        let mut bytes = [code, registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&offset.to_le_bytes());
        bytes[4..].copy_from_slice(&value.to_le_bytes());
        self.0.push(bytes);
    }
}

fn allowed(config: &Value) -> BTreeMap<i64, Vec<Option<i64>>> {
    let rules = config["linux"]["resources"]["devices"].as_array();
    let rules = rules.into_iter().flatten();
    let named = rules.filter(|rule| rule["allow"] == true && rule["major"].is_i64());
    let named = named.map(|rule| (rule["major"].as_i64().unwrap_or(0), rule["minor"].as_i64()));
    let mut majors: BTreeMap<i64, Vec<Option<i64>>> = BTreeMap::new();
    for (major, minor) in ALWAYS.into_iter().chain(named) {
        let minors = majors.entry(major).or_default();
        if minor.is_none() {
            *minors = vec![None];
        } else if !minors.contains(&minor) && !minors.contains(&None) {
            minors.push(minor);
        }
    }
    majors
}
