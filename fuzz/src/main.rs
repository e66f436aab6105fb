//! libFuzzer around one of the targets; the environment's FUZZ_TARGET names it. One program for all of them is built once.
//! JSON is changed as JSON, three times of four: what is changed byte by byte seldom gets past the parser.

#![no_main]

mod json;

use std::sync::LazyLock;

use cofferdam::fuzz::{self, Target};
use libfuzzer_sys::{fuzz_crossover, fuzz_mutator, fuzz_target, fuzzer_mutate};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let names = fuzz::TARGETS.map(|target| target.name).join(" ");
    let found = fuzz::TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET={name}: must be one of {names}"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let changed = (TARGET.json && !seed.is_multiple_of(4))
        .then(|| json::change(&data[..size], seed))
        .flatten()
        .filter(|text| text.len() <= max_size);
    match changed {
        Some(text) => {
            data[..text.len()].copy_from_slice(&text);
            text.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
    let crossed = match TARGET.json {
        true => json::cross(one, other, seed),
        false => halves(one, other, seed),
    };
    let crossed = crossed.unwrap_or_default();
    let length = crossed.len().min(out.len());
    out[..length].copy_from_slice(&crossed[..length]);
    length
});

/// The beginning of one with the end of the other.
fn halves(one: &[u8], other: &[u8], seed: u32) -> Option<Vec<u8>> {
    let seed = seed as usize;
    let head = &one[..seed % (one.len() + 1)];
    let tail = &other[(seed >> 8) % (other.len() + 1)..];
    Some([head, tail].concat())
}
