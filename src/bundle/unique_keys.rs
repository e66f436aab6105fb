//! JSON -> values without types, where no object has a field twice. Parent only.
//!
//! A reader of bare values takes the last of them, the reader of types refuses it, and others take the first: whoever has
//! judged a config before must not have judged another one.

use std::fmt;

use anyhow::{Error, Result, anyhow};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

pub fn read(text: &[u8]) -> Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let Once(value) = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        match error.inner().is_data() {
            true => anyhow!("{}: {}", error.path(), error.inner()),
            // What is no JSON has its line, and no place in it.
            false => Error::new(error.into_inner()),
        }
    })?;
    reader.end()?;
    Ok(value)
}

/// Any value, with each field once.
struct Once(Value);

struct Reader;

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Once, D::Error> {
        reader.deserialize_any(Reader).map(Once)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Once(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if values.contains_key(&name) {
                return Err(de::Error::custom(format!("duplicate field `{name}`")));
            }
            let Once(value) = map.next_value()?;
            values.insert(name, value);
        }
        Ok(Value::Object(values))
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
    fn what_is_no_json_is_told_with_its_line() {
        for text in [r#"{"a": [{"b": tru}]}"#, r#"{"a": {}"#, "{} {}", ""] {
            let want = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            let error = read(text.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), want.to_string());
        }
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
