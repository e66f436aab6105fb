//! JSON -> values without types, where no object has a field twice. Parent only.
//!
//! A reader of bare values takes the last of them, the reader of types refuses it, and others take the first: whoever has
//! judged a config before must not have judged another one.

use std::collections::HashSet;
use std::fmt;

use anyhow::{Result, anyhow};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

pub fn read(text: &[u8]) -> Result<Value> {
    // What is no JSON is said first, in the words for that.
    let value = serde_json::from_slice(text)?;
    let mut reader = serde_json::Deserializer::from_slice(text);
    let Once = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| anyhow!("{}: {}", error.path(), error.inner()))?;
    Ok(value)
}

/// Any value with each field once; nothing else of it is kept.
struct Once;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Once, D::Error> {
        reader.deserialize_any(Once)
    }
}

impl<'de> Visitor<'de> for Once {
    type Value = Once;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_str<E>(self, _: &str) -> Result<Once, E> {
        Ok(Once)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Once, A::Error> {
        while let Some(Once) = list.next_element()? {}
        Ok(Once)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
            names.insert(name);
            let Once = map.next_value()?;
        }
        Ok(Once)
    }
}

#[cfg(test)]
mod tests {
    use super::read;
    use serde_json::json;

    #[test]
    fn every_kind_of_value_is_read() {
        let value = json!({"a": [null, true, -1, 5, 1.5, "x", {}], "b": {"a": []}});
        assert_eq!(read(value.to_string().as_bytes()).unwrap(), value);
    }

    #[test]
    fn a_field_given_twice_is_told_with_its_place() {
        let text = r#"{"a": [{"b": {"c": 1, "c": 2}}]}"#;
        let error = read(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("a[0].b"), "{error}");
        assert!(error.contains(": duplicate field `c` at line 1"), "{error}");
        assert!(read(br#"{"a": {"c": 1}, "c": 2}"#).is_ok());
    }
}
