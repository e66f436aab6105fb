//! Has the program's text linked in the order of `first.ld`.

fn main() {
    println!("cargo:rerun-if-changed=first.ld");
    let here = env!("CARGO_MANIFEST_DIR");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/first.ld");
}
