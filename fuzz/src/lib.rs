//! The fuzz targets of cofferdam, in the layout of cargo-fuzz: each file of fuzz_targets is a program.

pub mod json;
pub mod targets;

/// Defines a program that gives JSON to a target, and changes it as JSON.
#[macro_export]
macro_rules! fuzz_json {
    ($target:path) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $target(data));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            match $crate::json::mutate(data, size, max_size, seed) {
                Some(size) => size,
                None => libfuzzer_sys::fuzzer_mutate(data, size, max_size),
            }
        });
        libfuzzer_sys::fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
            $crate::json::crossover(one, other, out, seed)
        });
    };
}
