//! What differs from one run of the tests to the next. All of it comes from one number.

use serde_json::Value;
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

pub const SEED: &str = "COFFERDAM_SEED";

/// The number of this run: a new one, or that of the run which is to be repeated. Each test that uses it says it.
pub fn seed() -> u64 {
    static NUMBER: OnceLock<u64> = OnceLock::new();
    let now = || UNIX_EPOCH.elapsed().expect("a time").as_micros() as u64;
    let given = |text: String| text.parse().expect("COFFERDAM_SEED is a number");
    let seed = *NUMBER.get_or_init(|| std::env::var(SEED).map_or_else(|_| now(), given));
    println!("{SEED}={seed}");
    seed
}

/// A generator of numbers by Marsaglia (xorshift64).
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        // Zero would stay zero.
        Chance(seed | 1 << 40)
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % count
    }

    pub fn of(&mut self, list: &Value) -> Value {
        let list = list.as_array().expect("a list");
        list[self.below(list.len())].clone()
    }
}
