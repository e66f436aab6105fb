//! Values of D-Bus as text, in the format of GVariant: `true`, `'a'`, `5`, `uint64 5`, `['a', 'b']`, `@t 5`.
//!
//! Pure. Engines give properties of systemd this way. Tuples and dictionaries are left out: no property of a
//! scope that can be set has one.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};

/// A value with the type that the receiver expects.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Byte(u8),
    Bool(bool),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    Path(String),
    Signature(String),
    /// All of one type, whose signature is given, because there may be none.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    /// D-Bus specification, "Type System".
    pub fn signature(&self) -> String {
        match self {
            Value::Array(of, _) => format!("a{of}"),
            Value::Struct(values) => {
                let inner: String = values.iter().map(Value::signature).collect();
                format!("({inner})")
            }
            simple => simple.code().to_string(),
        }
    }

    /// Returns the first letter of the signature.
    pub fn code(&self) -> char {
        match self {
            Value::Byte(_) => 'y',
            Value::Bool(_) => 'b',
            Value::I16(_) => 'n',
            Value::U16(_) => 'q',
            Value::I32(_) => 'i',
            Value::U32(_) => 'u',
            Value::I64(_) => 'x',
            Value::U64(_) => 't',
            Value::Double(_) => 'd',
            Value::Text(_) => 's',
            Value::Path(_) => 'o',
            Value::Signature(_) => 'g',
            Value::Variant(_) => 'v',
            Value::Array(..) => 'a',
            Value::Struct(_) => '(',
        }
    }
}

/// One value, and nothing behind it.
pub fn parse(text: &str) -> Result<Value> {
    let (value, rest) = value(text, None, 0).with_context(|| format!("{text:?}: is no value"))?;
    ensure!(
        rest.trim().is_empty(),
        "{text:?}: {:?} is behind the value",
        rest.trim()
    );
    Ok(value)
}

/// D-Bus takes no more levels of arrays; each is also a call of this parser.
const DEEPEST: usize = 32;

/// The names that may stand before a value, with the type's letter.
const TYPES: [(&str, char); 11] = [
    ("boolean", 'b'),
    ("byte", 'y'),
    ("int16", 'n'),
    ("uint16", 'q'),
    ("int32", 'i'),
    ("uint32", 'u'),
    ("int64", 'x'),
    ("uint64", 't'),
    ("double", 'd'),
    ("string", 's'),
    ("objectpath", 'o'),
];

/// A value and what follows it. The type is the one that is wanted, or else that of the text itself.
fn value<'a>(text: &'a str, wanted: Option<&str>, level: usize) -> Result<(Value, &'a str)> {
    ensure!(level < DEEPEST, "has more than {DEEPEST} levels");
    let text = text.trim_start();
    if let Some(rest) = text.strip_prefix('@') {
        let (signature, rest) = rest
            .split_once(char::is_whitespace)
            .context("a value must follow the type")?;
        check_signature(signature)?;
        return value(rest, Some(signature), level + 1);
    }
    if let Some(rest) = text.strip_prefix('[') {
        return array(rest, wanted, level + 1);
    }
    if text.starts_with(['\'', '"']) {
        let (content, rest) = quoted(text)?;
        return Ok((of_text(content, wanted)?, rest));
    }
    let end = text
        .find(|c: char| c.is_whitespace() || ",]".contains(c))
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match TYPES.iter().find(|(name, _)| *name == word) {
        Some((_, letter)) => value(rest, Some(&letter.to_string()), level + 1),
        None => Ok((of_word(word, wanted)?, rest)),
    }
}

/// Of a single type, or of arrays of it.
fn check_signature(signature: &str) -> Result<()> {
    let item = signature.trim_start_matches('a');
    let known = TYPES.iter().any(|(_, letter)| item == letter.to_string());
    ensure!(
        known && signature.len() <= DEEPEST,
        "{signature:?}: is no type"
    );
    Ok(())
}

/// All items have the type that is wanted, or that of the first.
fn array<'a>(text: &'a str, wanted: Option<&str>, level: usize) -> Result<(Value, &'a str)> {
    let inner = wanted.map(|signature| {
        signature
            .strip_prefix('a')
            .context("a list is not of this type")
    });
    let mut signature = inner.transpose()?.map(str::to_string);
    let mut items = Vec::new();
    let mut rest = text.trim_start();
    while !rest.starts_with(']') {
        let (item, after) = value(rest, signature.as_deref(), level)?;
        signature.get_or_insert_with(|| item.signature());
        items.push(item);
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after) => after.trim_start(),
            None if rest.starts_with(']') => rest,
            None => bail!("a list must end with ]"),
        };
    }
    let signature = signature.context("an empty list needs its type, such as @as []")?;
    Ok((Value::Array(signature, items), &rest[1..]))
}

fn quoted(text: &str) -> Result<(String, &str)> {
    let mut characters = text.char_indices();
    let (_, quote) = characters.next().context("no text")?;
    let mut content = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => content.push(unescaped(characters.next().map(|(_, next)| next))?),
            end if end == quote => return Ok((content, &text[at + 1..])),
            other => content.push(other),
        }
    }
    bail!("a text must end with {quote}")
}

fn unescaped(character: Option<char>) -> Result<char> {
    Ok(match character {
        Some('n') => '\n',
        Some('t') => '\t',
        Some(same @ ('\\' | '\'' | '"')) => same,
        other => bail!("{other:?}: must not follow a backslash"),
    })
}

fn of_text(content: String, wanted: Option<&str>) -> Result<Value> {
    match wanted {
        None | Some("s") => Ok(Value::Text(content)),
        Some("o") => Ok(Value::Path(content)),
        Some(other) => bail!("a text is not of type {other}"),
    }
}

fn of_word(word: &str, wanted: Option<&str>) -> Result<Value> {
    let is_float = word.contains(['.', 'e']) && !word.starts_with("0x");
    let by_itself = match word {
        "true" | "false" => "b",
        _ if is_float => "d",
        _ => "i",
    };
    let hint = || {
        format!(
            "{word:?}: is no value of type {}",
            wanted.unwrap_or(by_itself)
        )
    };
    Ok(match wanted.unwrap_or(by_itself) {
        "b" => Value::Bool(word.parse().ok().with_context(hint)?),
        "y" => Value::Byte(whole(word).with_context(hint)?),
        "n" => Value::I16(whole(word).with_context(hint)?),
        "q" => Value::U16(whole(word).with_context(hint)?),
        "i" => Value::I32(whole(word).with_context(hint)?),
        "u" => Value::U32(whole(word).with_context(hint)?),
        "x" => Value::I64(whole(word).with_context(hint)?),
        "t" => Value::U64(whole(word).with_context(hint)?),
        "d" => Value::Double(word.parse().ok().with_context(hint)?),
        _ => bail!(hint()),
    })
}

/// Decimal, or hexadecimal behind 0x, within the range of the type.
fn whole<T: TryFrom<i128>>(word: &str) -> Option<T> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok()?,
        None => word.parse().ok()?,
    };
    number.try_into().ok()
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Value::Byte(value) => write!(f, "{value}"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::I16(value) => write!(f, "{value}"),
            Value::U16(value) => write!(f, "{value}"),
            Value::I32(value) => write!(f, "{value}"),
            Value::U32(value) => write!(f, "{value}"),
            Value::I64(value) => write!(f, "{value}"),
            Value::U64(u64::MAX) => write!(f, "infinity"),
            Value::U64(value) => write!(f, "{value}"),
            Value::Double(value) => write!(f, "{value}"),
            Value::Text(text) | Value::Path(text) | Value::Signature(text) => write!(f, "{text:?}"),
            Value::Variant(inner) => inner.fmt(f),
            Value::Array(_, values) => list(f, "[", values, "]"),
            Value::Struct(values) => list(f, "(", values, ")"),
        }
    }
}

fn list(f: &mut fmt::Formatter, open: &str, values: &[Value], close: &str) -> fmt::Result {
    f.write_str(open)?;
    for (index, value) in values.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { ", " })?;
        write!(f, "{value}")?;
    }
    f.write_str(close)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_type_that_stands_before_them_or_their_own() {
        let texts = |list: &[&str]| {
            let items = list.iter().map(|text| Value::text(*text)).collect();
            Value::Array("s".to_string(), items)
        };
        let cases = [
            ("true", Value::Bool(true)),
            ("'a b'", Value::text("a b")),
            (r#""it's""#, Value::text("it's")),
            (r"'it\'s'", Value::text("it's")),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x10", Value::I32(16)),
            ("1.5", Value::Double(1.5)),
            ("uint64 5000000", Value::U64(5_000_000)),
            ("@t 5", Value::U64(5)),
            ("byte 255", Value::Byte(255)),
            ("objectpath '/a'", Value::Path("/a".to_string())),
            ("['crio.service']", texts(&["crio.service"])),
            ("[ 'a', \"b\" ]", texts(&["a", "b"])),
            ("@as []", texts(&[])),
            (
                "[uint64 1, 2]",
                Value::Array("t".to_string(), vec![Value::U64(1), Value::U64(2)]),
            ),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "x",
            "'a",
            "[1",
            "[]",
            "[1, 'a']",
            "uint64 -1",
            "byte 256",
            "5 6",
            "@t 'a'",
            "@t",
            "'\\x'",
            "{'a': 1}",
            "@z 1",
            "@a []",
            "@as\0 []",
            &format!("@{}s []", "a".repeat(300)),
            &"[".repeat(100_000),
            &"byte ".repeat(100_000),
            &"@y ".repeat(100_000),
            "(1, 2)",
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.starts_with(&format!("{text:?}: ")), "{error}");
        }
    }
}
