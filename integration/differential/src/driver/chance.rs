//! Random numbers that one number determines.

use serde_json::Value;

/// A generator by Steele, Lea and Flood (splitmix64).
pub struct Chance(u64);

impl Chance {
    /// Begins at a place that depends on the seed of the run and on the number of the config.
    pub fn new(seed: u64, number: u64) -> Chance {
        let mut chance = Chance(seed);
        chance.0 = chance.next() ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub fn below(&mut self, count: usize) -> usize {
        (self.next() >> 16) as usize % count
    }

    /// Returns true once in `count` times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Returns one element of a JSON array.
    pub fn pick(&mut self, list: &Value) -> Value {
        let list = list.as_array().expect("a list");
        list[self.below(list.len())].clone()
    }

    /// Returns up to `most` different elements, in any order.
    pub fn some<T: Copy>(&mut self, list: &[T], most: usize) -> Vec<T> {
        let mut left = list.to_vec();
        let count = self.below(most + 1).min(left.len());
        (0..count)
            .map(|_| left.remove(self.below(left.len())))
            .collect()
    }
}
