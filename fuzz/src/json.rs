//! JSON -> other JSON: one to four values are replaced, removed, doubled or moved. Keys and texts come from the document
//! itself, so a seed with many of them is a good one.

use serde_json::{Map, Value, json};

/// Changes a document in place, three times of four. Returns its new size, or None where libFuzzer shall change bytes:
/// these seldom get past the parser.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> Option<usize> {
    let text = (!seed.is_multiple_of(4)).then(|| change(&data[..size], seed))??;
    let place = data[..max_size].get_mut(..text.len())?;
    place.copy_from_slice(&text);
    Some(text.len())
}

/// Writes a document made of two, cut to the size of `out`, and returns its size: 0 if one of the two is no JSON.
pub fn crossover(one: &[u8], other: &[u8], out: &mut [u8], seed: u32) -> usize {
    let crossed = cross(one, other, seed).unwrap_or_default();
    let size = crossed.len().min(out.len());
    out[..size].copy_from_slice(&crossed[..size]);
    size
}

fn change(text: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(text).ok()?;
    let mut random = Random(u64::from(seed) << 1 | 1);
    for _ in 0..1 + random.below(4) {
        let donor = pick(&document, &mut random)?.clone();
        let place = place(&document, &mut random)?;
        let value = document.pointer_mut(&place)?;
        change_value(value, donor, &mut random);
    }
    serde_json::to_vec(&document).ok()
}

/// One document with a value of the other, at the other's place where there is such a place.
fn cross(one: &[u8], other: &[u8], seed: u32) -> Option<Vec<u8>> {
    let mut document: Value = serde_json::from_slice(one).ok()?;
    let other: Value = serde_json::from_slice(other).ok()?;
    let mut random = Random(u64::from(seed) << 1 | 1);
    let from = place(&other, &mut random)?;
    let (parent, name) = from.rsplit_once('/')?;
    let value = other.pointer(&from)?.clone();
    match document.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.insert(name.to_string(), value)),
        Some(Value::Array(list)) => list.push(value),
        _ => *document.pointer_mut(&place(&document, &mut random)?)? = value,
    }
    serde_json::to_vec(&document).ok()
}

fn change_value(value: &mut Value, donor: Value, random: &mut Random) {
    match (random.below(8), &mut *value) {
        (0, Value::Array(list)) => list.extend_from_within(..list.len().min(3)),
        (1, Value::Array(list)) => list.push(donor),
        (2, Value::Array(list)) => drop(list.pop()),
        (0 | 1, Value::Object(map)) => rename(map, random),
        (2, Value::Object(map)) => drop(map.remove(&name(map, random))),
        (0..4, Value::Number(number)) => *value = near(number.as_i64(), random),
        (0..4, Value::String(text)) => *text = words(text, &donor, random),
        (0..6, _) => *value = edge(random),
        _ => *value = donor,
    }
}

/// The value of one key goes to another.
fn rename(map: &mut Map<String, Value>, random: &mut Random) {
    let (from, to) = (name(map, random), name(map, random));
    if let Some(value) = map.get(&from).cloned() {
        map.insert(to, value);
    }
}

fn name(map: &Map<String, Value>, random: &mut Random) -> String {
    let at = random.below(map.len().max(1));
    map.keys().nth(at).cloned().unwrap_or_default()
}

fn near(number: Option<i64>, random: &mut Random) -> Value {
    let number = number.unwrap_or(0);
    let near = [
        number.wrapping_add(1),
        number.wrapping_sub(1),
        number.wrapping_neg(),
        number.wrapping_mul(1024),
    ];
    json!(near[random.below(near.len())])
}

fn words(text: &str, donor: &Value, random: &mut Random) -> String {
    let other = donor.as_str().unwrap_or("../");
    let middle = (0..=text.len() / 2)
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let (head, tail) = text.split_at(middle.unwrap_or(0));
    match random.below(6) {
        0 => head.to_string(),
        1 => format!("{text}{other}"),
        2 => format!("{head}{other}{tail}"),
        3 => format!("{text}/../{other}"),
        4 => format!("{tail}\0"),
        _ => other.to_string(),
    }
}

fn edge(random: &mut Random) -> Value {
    let edges = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(i32::MAX),
        json!(u32::MAX),
        json!(1u64 << 32),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(-0.5),
        json!(1e300),
        json!(""),
        json!("/"),
        json!("a/../../b"),
        json!("a\nb\u{1b}[2J\u{202e}"),
        json!("x".repeat(300)),
        json!([]),
        json!({}),
        json!([[]]),
    ];
    edges[random.below(edges.len())].clone()
}

fn pick<'a>(document: &'a Value, random: &mut Random) -> Option<&'a Value> {
    document.pointer(&place(document, random)?)
}

/// A pointer to any value, each as often as another.
fn place(document: &Value, random: &mut Random) -> Option<String> {
    let mut places = Vec::new();
    collect(document, String::new(), &mut places);
    let at = random.below(places.len());
    Some(places.swap_remove(at))
}

fn collect(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Array(list) => {
            let members = list.iter().enumerate();
            members.for_each(|(index, value)| collect(value, format!("{place}/{index}"), places));
        }
        Value::Object(map) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            let members = map.iter();
            members.for_each(|(key, value)| {
                collect(value, format!("{place}/{}", escaped(key)), places)
            });
        }
        _ => {}
    }
    places.push(place);
}

/// splitmix64: the fuzzer's seed repeats a change.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as usize % limit.max(1)
    }
}
