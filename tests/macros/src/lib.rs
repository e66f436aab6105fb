//! The attribute `#[test]` of the black-box tests, which stands in for the compiler's.

use proc_macro::TokenStream;

/// Keeps the function, and registers it with `tests/main/harness.rs`.
#[proc_macro_attribute]
pub fn test(_: TokenStream, function: TokenStream) -> TokenStream {
    let mut tokens = function.clone().into_iter();
    tokens.find(|token| token.to_string() == "fn");
    let name = tokens.next().expect("#[test] stands before a function");
    let entry = format!(
        "::inventory::submit! {{ crate::harness::Test {{ \
            name: concat!(module_path!(), \"::{name}\"), run: {name} }} }}"
    );
    let entry: TokenStream = entry.parse().expect("a macro call");
    function.into_iter().chain(entry).collect()
}
