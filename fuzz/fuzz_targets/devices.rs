#![no_main]

cofferdam_fuzz::fuzz_json!(cofferdam_fuzz::targets::devices::devices);
