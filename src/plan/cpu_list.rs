//! Lists of numbers such as `0-3,7`, in the format of cpuset(7) -> a bit for each. PURE.

use anyhow::{Result, bail, ensure};

const WORD: usize = u64::BITS as usize;

/// The numbers below `most`, the lowest in the lowest bit of the first word; blanks and empty parts do no harm.
pub fn bits(list: &str, most: usize) -> Result<Vec<u64>> {
    let mut bits = Vec::new();
    let parts = list.split(',').map(str::trim);
    for part in parts.filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first, most)?, number(last, most)?);
        ensure!(first <= last, "{part}: the first is above the last");
        for number in first..=last {
            set(&mut bits, number);
        }
    }
    Ok(bits)
}

fn number(text: &str, most: usize) -> Result<usize> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if plain && number < most => Ok(number),
        _ => bail!("{text:?}: give numbers below {most}, and ranges, as in 0-3,7"),
    }
}

fn set(bits: &mut Vec<u64>, number: usize) {
    let word = number / WORD;
    bits.resize(bits.len().max(word + 1), 0);
    bits[word] |= 1 << (number % WORD);
}

#[cfg(test)]
mod tests {
    use super::bits;

    #[test]
    fn lists_of_numbers() {
        let bits = |list: &str| bits(list, 1024);
        let good = |list: &str| bits(list).unwrap();
        assert_eq!(good(""), Vec::<u64>::new());
        assert_eq!(good("0"), [1]);
        assert_eq!(good("0-3,7"), [0b1000_1111]);
        assert_eq!(good("7, 0-3,,2-2"), [0b1000_1111]);
        assert_eq!(good("63"), [1 << 63]);
        assert_eq!(good("63-64"), [1 << 63, 1]);
        assert_eq!(good("64,0"), [1, 1]);
        assert_eq!(good("0-1023"), [u64::MAX; 16]);
        for bad in [
            "a", "-", "1-", "-1", "3-1", "+1", "0x1", "1-2-3", "1024", "0-1024", "1;2",
        ] {
            assert!(bits(bad).is_err(), "{bad}");
        }
        assert!(bits("99999999999999999999").is_err());
    }
}
