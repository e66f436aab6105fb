//! Words that are close to others: for "did you mean".

use strsim::osa_distance;

/// Returns the name that is closest to a word, or None if more than a third of the letters differ.
pub fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let most = word.len() / 3;
    // No less than the difference of the lengths: a long word is compared with none.
    let possible = names.filter(|name| name.len().abs_diff(word.len()) <= most);
    let near = possible.map(|name| (osa_distance(&word, &name.to_lowercase()), name));
    let (distance, name) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= most).then_some(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn near_names_are_found() {
        let nearest = |word| super::nearest(word, ["process", "env", "root"].into_iter());
        assert_eq!(nearest("proces"), Some("process"));
        assert_eq!(nearest("evn"), Some("env"));
        assert_eq!(nearest("Rot"), Some("root"));
        assert_eq!(nearest("mounts"), None);
    }
}
