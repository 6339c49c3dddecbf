//! How local activations are: which share of the neurons has which share of the mass.

use std::sync::Arc;

use serde::Serialize;
use sparse_model::Model;

use crate::Error;
use crate::error::one_network;
use crate::progress::Progress;
use crate::samples::collect;

/// Shares of the neurons at which curves are given.
pub const SHARES: [f64; 12] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
/// Tokens of a layer that are looked at.
const TOKENS: usize = 512;
/// Share of the neurons whose overlap between consecutive tokens is counted where none is exactly
/// zero.
const ACTIVE: f64 = 0.3;

/// What a layer's neurons do. A neuron's mass is `|h|` times the norm of its column of the down
/// projection: its part in the output.
#[derive(Clone, Debug, Serialize)]
pub struct LayerProfile {
    /// Number of the layer.
    pub layer: usize,
    /// Neurons.
    pub neurons: usize,
    /// Share of the neurons that are exactly zero, mean over tokens.
    pub zeros: f64,
    /// Mass of the heaviest [`SHARES`] of the neurons, chosen anew for each token: what an oracle
    /// could skip by.
    pub per_token: Vec<f64>,
    /// Mass of the neurons that are heaviest over all tokens: what a fixed hot set could skip by.
    pub across_tokens: Vec<f64>,
    /// Share of a token's active neurons that were active for the token before, too. Active are
    /// those that are not zero, or the heaviest 30 %.
    pub overlap: f64,
    /// The same if each token chose at random.
    pub chance: f64,
    /// Share of the neurons that were active for no token at all.
    pub never: f64,
    /// Numbers of all neurons by their mass over all tokens, the hottest first, the coldest last.
    pub order: Vec<usize>,
}

/// Watches the feed-forward layers of `model` while it reads `text` in windows of `window` tokens.
///
/// # Errors
/// If the text is shorter than one window, the model fails, or `progress` asks to stop.
pub fn profile(
    model: &Arc<Model>,
    text: &[u32],
    window: usize,
    progress: &mut dyn Progress,
) -> Result<Vec<LayerProfile>, Error> {
    one_network(model, "the profile of neurons", "")?;
    let windows: Vec<Vec<u32>> =
        text.chunks_exact(window.max(1)).take(TOKENS.div_ceil(window.max(1))).map(<[u32]>::to_vec).collect();
    if windows.is_empty() || window < 2 {
        return Err(Error::TextTooShort { found: text.len(), needed: window.max(2), windows: 1, window });
    }
    progress.begin("watching the layers", windows.len());
    let samples = collect(model, &windows, progress)?;
    let layers = model.ffns().zip(&samples).enumerate().map(|(layer, (ffn, samples))| {
        let tokens = samples.tokens().min(TOKENS);
        let hidden = samples.neurons(model.compute(), ffn, 0..tokens).hidden;
        let norms = ffn.down().norms();
        let mass: Vec<f32> = hidden.iter().zip(norms.iter().cycle()).map(|(h, n)| h.abs() * n).collect();
        LayerProfile { layer, ..of_mass(&mass, ffn.neurons(), ffn.activation().has_zeros()) }
    });
    Ok(layers.collect())
}

/// The profile of `mass`, `[tokens x neurons]`.
fn of_mass(mass: &[f32], n: usize, zeros: bool) -> LayerProfile {
    let tokens = mass.len() / n;
    let mut totals = vec![0.0; n];
    let mut per_token = vec![0.0; SHARES.len()];
    let (mut zero, mut both, mut active_pairs, mut active_all) = (0_usize, 0_usize, 0_usize, 0_usize);
    let mut before: Option<Vec<bool>> = None;
    let mut ever = vec![false; n];
    for token in mass.chunks(n) {
        totals.iter_mut().zip(token).for_each(|(t, m)| *t += f64::from(*m));
        zero += token.iter().filter(|m| **m == 0.0).count();
        let mut sorted: Vec<f64> = token.iter().map(|m| f64::from(*m)).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        per_token.iter_mut().zip(heaviest(&sorted)).for_each(|(sum, m)| *sum += m / tokens as f64);
        let bound = if zeros { 0.0 } else { sorted[(ACTIVE * n as f64) as usize] };
        let active: Vec<bool> = token.iter().map(|m| f64::from(*m) > bound).collect();
        active_all += active.iter().filter(|a| **a).count();
        ever.iter_mut().zip(&active).for_each(|(ever, active)| *ever |= active);
        if let Some(before) = &before {
            both += active.iter().zip(before).filter(|(a, b)| **a && **b).count();
            active_pairs += active.iter().filter(|a| **a).count();
        }
        before = Some(active);
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| totals[*b].total_cmp(&totals[*a]).then(a.cmp(b)));
    let sorted: Vec<f64> = order.iter().map(|j| totals[*j]).collect();
    LayerProfile {
        layer: 0,
        neurons: n,
        zeros: zero as f64 / mass.len() as f64,
        per_token,
        across_tokens: heaviest(&sorted),
        overlap: both as f64 / active_pairs.max(1) as f64,
        chance: active_all as f64 / mass.len() as f64,
        never: ever.iter().filter(|e| !**e).count() as f64 / n as f64,
        order,
    }
}

/// The parts of the sum that the first [`SHARES`] of the values have.
fn heaviest(sorted: &[f64]) -> Vec<f64> {
    let all: f64 = sorted.iter().sum();
    let part = |share: f64| sorted[..(share * sorted.len() as f64).round() as usize].iter().sum::<f64>();
    SHARES.iter().map(|s| if all > 0.0 { part(*s) / all } else { 1.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hot_set_and_a_wandering_one_differ_across_tokens_only() {
        let n = 100;
        let mass = |hot: &dyn Fn(usize) -> usize| -> Vec<f32> {
            (0..20)
                .flat_map(|t| {
                    let first = hot(t);
                    (0..n).map(move |j| if (first..first + 10).contains(&j) { 1.0 } else { 0.0 })
                })
                .collect()
        };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        let fixed = of_mass(&mass(&|_| 40), n, true);
        close(fixed.per_token[3], 1.0);
        close(fixed.across_tokens[3], 1.0);
        assert_eq!((fixed.overlap, fixed.zeros), (1.0, 0.9));
        close(fixed.never, 0.9);
        assert_eq!((&fixed.order[..3], &fixed.order[97..]), (&[40, 41, 42][..], &[97, 98, 99][..]));
        let wandering = of_mass(&mass(&|t| t % 10 * 10), n, true);
        close(wandering.per_token[3], 1.0);
        assert_eq!(wandering.overlap, 0.0);
        close(wandering.across_tokens[3], 0.1);
        close(wandering.chance, 0.1);
        assert_eq!(wandering.never, 0.0);
    }
}
