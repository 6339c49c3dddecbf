//! How probable tokens are.

use crate::log_sum_exp;

/// Logarithms of probabilities, in nats: those that the model gives, before biases, penalties and temperature.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenLogprobs {
    /// Of the chosen token.
    pub logprob: f32,
    /// Of the most probable tokens, the best first; as many as were asked for.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Of `token` and the `n` best, from the logits of all tokens.
    pub(super) fn new(logits: &[f32], token: u32, n: usize) -> Self {
        let total = log_sum_exp(logits);
        let logprob = |id: u32| (f64::from(logits[id as usize]) - total) as f32;
        let better = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
        let n = n.min(ids.len());
        if n > 0 && n < ids.len() {
            ids.select_nth_unstable_by(n - 1, better);
        }
        ids.truncate(n);
        ids.sort_unstable_by(better);
        Self { logprob: logprob(token), top: ids.into_iter().map(|id| (id, logprob(id))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_the_best_come_first() {
        let logits = [1.0, 3.0, 2.0, 3.0, -1.0];
        let all = TokenLogprobs::new(&logits, 2, 9);
        assert_eq!(all.top.iter().map(|t| t.0).collect::<Vec<_>>(), [1, 3, 2, 0, 4]);
        assert_eq!(all.logprob, all.top[2].1);
        let sum: f32 = all.top.iter().map(|t| t.1.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-5);
        assert_eq!(TokenLogprobs::new(&logits, 0, 2).top, all.top[..2]);
        assert!(TokenLogprobs::new(&logits, 0, 0).top.is_empty());
    }
}
