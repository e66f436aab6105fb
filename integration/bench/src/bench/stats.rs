//! Order statistics, and the confidence interval of a ratio of medians by bootstrap. Rounds are pairs: two runtimes
//! have been measured next to each other in each, so that rounds are drawn, not samples.

const RESAMPLES: usize = 1000;

/// A small generator with a fixed start: the same measurements give the same report.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// The value below which `share` of all lie.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

#[derive(Clone, Copy)]
pub struct Ratio {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

/// median(a) / median(b), with the interval that holds 95 % of what other draws of the rounds give.
pub fn ratio(a: &[f64], b: &[f64]) -> Option<Ratio> {
    let rounds = a.len().min(b.len());
    if rounds < 5 {
        return None;
    }
    let mut random = Random::new(rounds as u64);
    let mut draws: Vec<f64> = (0..RESAMPLES)
        .map(|_| draw(&mut random, &a[..rounds], &b[..rounds]))
        .collect();
    draws.sort_by(f64::total_cmp);
    Some(Ratio {
        value: median(a) / median(b),
        low: draws[RESAMPLES / 40],
        high: draws[RESAMPLES - 1 - RESAMPLES / 40],
    })
}

fn draw(random: &mut Random, a: &[f64], b: &[f64]) -> f64 {
    let drawn: Vec<usize> = (0..a.len()).map(|_| random.below(a.len())).collect();
    let of = |values: &[f64]| median(&drawn.iter().map(|at| values[*at]).collect::<Vec<_>>());
    of(a) / of(b)
}

/// How far the first and the last third of a series are apart, as a share of the whole.
pub fn drift(values: &[f64]) -> f64 {
    let third = values.len() / 3;
    if third == 0 {
        return f64::NAN;
    }
    let (first, last) = (
        median(&values[..third]),
        median(&values[values.len() - third..]),
    );
    (first - last).abs() / median(values)
}

/// The middle half of a series as a share of its median.
pub fn spread(values: &[f64]) -> f64 {
    (quantile(values, 0.75) - quantile(values, 0.25)) / median(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_series() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(
            [0.0, 0.5, 0.99].map(|share| quantile(&values, share)),
            [1.0, 3.0, 5.0]
        );
    }

    #[test]
    fn a_ratio_lies_in_its_interval_and_equals_give_one() {
        let a: Vec<f64> = (0..60).map(|n| 200.0 + f64::from(n % 7)).collect();
        let b: Vec<f64> = (0..60).map(|n| 100.0 + f64::from(n % 5)).collect();
        let found = ratio(&a, &b).unwrap();
        assert!(found.low <= found.value && found.value <= found.high);
        assert!(found.low > 1.9 && found.high < 2.1);
        let same = ratio(&a, &a).unwrap();
        assert_eq!([same.low, same.value, same.high], [1.0; 3]);
        assert!(ratio(&a[..4], &b).is_none());
    }

    #[test]
    fn a_machine_that_slows_down_drifts() {
        let steady: Vec<f64> = (0..30).map(|n| 100.0 + f64::from(n % 3)).collect();
        let slowing: Vec<f64> = (0..30).map(|n| 100.0 + f64::from(n * 2)).collect();
        assert!(drift(&steady) < 0.02);
        assert!(drift(&slowing) > 0.2);
    }

    #[test]
    fn a_shuffle_keeps_all() {
        let mut items: Vec<usize> = (0..50).collect();
        Random::new(1).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
