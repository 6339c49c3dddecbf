//! Numbers that look random, from the digits of pi.

use alloc::vec::Vec;

use super::digits::TABLES;

/// Rounds of the network. Three make a good pseudo-random permutation of a good function (Luby and Rackoff, 1988); the
/// function here is a few table look-ups, so there are more.
const ROUNDS: usize = 8;

/// Deterministic numbers that look random: the same on every platform, for ever.
///
/// Number `i` is a function of `i` alone, so that any of them costs the same, and there is no state. The function is a
/// Feistel network over 64 bits whose tables and round keys are the first 4096 hexadecimal digits of pi (as Blowfish has
/// them: Schneier, 1993). It is no cipher and no source of secrets.
///
/// ```
/// use sparse_precision::pi::PiChaos;
///
/// let chaos = PiChaos::new();
/// assert_eq!(chaos.jitter(7), chaos.jitter(7));
/// // Who goes first changes from round to round, and everybody can work it out.
/// assert_eq!(chaos.schedule_order(4, 0).len(), 4);
/// assert_ne!(chaos.schedule_order(100, 0), chaos.schedule_order(100, 1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PiChaos(());

impl PiChaos {
    /// The digits of pi are the only seed.
    pub const fn new() -> Self {
        Self(())
    }

    /// A number from -1 to 1 (exclusive), evenly distributed, for `index`.
    pub fn jitter(&self, index: usize) -> f32 {
        // 24 bits, which a float can hold.
        (word(0, index as u64) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }

    /// The numbers `0..n` in the order for `round`: a shuffle (Fisher and Yates) in which all orders are equally likely.
    pub fn schedule_order(&self, n: usize, round: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        let mut used = 0;
        for i in (1..n).rev() {
            order.swap(i, below(i as u64 + 1, round as u64 + 1, &mut used) as usize);
        }
        order
    }
}

/// Number `index` of a stream.
fn word(stream: u64, index: u64) -> u64 {
    permute(permute(stream) ^ index)
}

/// A number below `bound`, all equally likely (Lemire 2019, arXiv 1805.10941): numbers that would favor some results are
/// left out. `used` counts the numbers of the stream.
fn below(bound: u64, stream: u64, used: &mut u64) -> u64 {
    let unfair = bound.wrapping_neg() % bound;
    loop {
        let product = u128::from(word(stream, *used)) * u128::from(bound);
        *used += 1;
        if product as u64 >= unfair {
            return (product >> 64) as u64;
        }
    }
}

/// A permutation of all numbers of 64 bits.
fn permute(x: u64) -> u64 {
    let (mut left, mut right) = ((x >> 32) as u32, x as u32);
    for key in &TABLES[1][..ROUNDS] {
        (left, right) = (right, left ^ mixed(right ^ key));
    }
    u64::from(left) << 32 | u64::from(right)
}

fn mixed(x: u32) -> u32 {
    let [a, b, c, d] = x.to_le_bytes().map(usize::from);
    let high = TABLES[0][a].wrapping_add(TABLES[1][b]);
    let low = TABLES[0][c].rotate_left(8).wrapping_add(TABLES[1][d].rotate_left(16));
    high ^ low
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    /// Sum over bins of squared deviations over expectation.
    fn chi_square(bins: &[u32]) -> f64 {
        let expected = bins.iter().sum::<u32>() as f64 / bins.len() as f64;
        bins.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn draws_are_even() {
        let chaos = PiChaos::new();
        for start in [0, 1 << 20, usize::MAX / 2] {
            let mut bins = [0; 100];
            let mut pairs = [0; 100];
            for i in 0..100_000 {
                let bin = |x: f32| ((x + 1.0) * 50.0) as usize;
                let (x, next) = (chaos.jitter(start + i), chaos.jitter(start + i + 1));
                assert!((-1.0..1.0).contains(&x));
                bins[bin(x)] += 1;
                pairs[bin(x) / 10 * 10 + bin(next) / 10] += 1;
            }
            // 99 degrees of freedom: beyond 61 and 149 in one of a thousand.
            for found in [chi_square(&bins), chi_square(&pairs)] {
                assert!((61.0..149.0).contains(&found), "from {start}: {found}");
            }
        }
    }

    #[test]
    fn every_bit_of_the_index_turns_half_of_the_bits() {
        for bit in 0..64 {
            let turned: u32 = (0..2000u64).map(|i| (permute(i) ^ permute(i ^ 1 << bit)).count_ones()).sum();
            let mean = f64::from(turned) / 2000.0;
            assert!((mean - 32.0).abs() < 0.6, "bit {bit}: {mean}");
        }
    }

    #[test]
    fn all_orders_are_reached_and_equally_often() {
        let chaos = PiChaos::new();
        for n in 0..=6usize {
            let orders = (1..=n).product::<usize>();
            let mut counts = alloc::collections::BTreeMap::new();
            for round in 0..orders * 40 {
                let order = chaos.schedule_order(n, round);
                assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), n);
                *counts.entry(order).or_insert(0u32) += 1;
            }
            assert_eq!(counts.len(), orders, "orders of {n}");
            let counts: Vec<u32> = counts.into_values().collect();
            // Mean of the statistic: one less than the bins; deviation: the root of twice that.
            let (freedom, found) = (orders as f64 - 1.0, chi_square(&counts));
            assert!((found - freedom).abs() <= 4.0 * (2.0 * freedom).sqrt(), "{n}: {found} for {freedom}");
        }
    }

    /// What nobody may ever change.
    #[test]
    fn numbers_are_the_same_for_ever() {
        let chaos = PiChaos::new();
        let words: Vec<u64> = (0..3).map(|i| word(0, i)).collect();
        assert_eq!(words, [3_770_442_417_269_407_852, 7_514_051_990_475_173_245, 14_669_485_060_353_602_934]);
        assert_eq!(chaos.schedule_order(8, 0), [3, 5, 2, 1, 0, 6, 7, 4]);
    }
}
