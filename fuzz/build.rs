//! The program is built as a library, with the targets in it.

fn main() {
    println!("cargo::rustc-cfg=fuzzing");
}
