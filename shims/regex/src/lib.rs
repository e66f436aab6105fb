//! oci-spec wants a regular expression for one short field. The crate `regex` would be a quarter of the program for it;
//! regex-lite has the same interface and is here anyway.

pub use regex_lite::{Captures, Error, Match, Regex, RegexBuilder};
