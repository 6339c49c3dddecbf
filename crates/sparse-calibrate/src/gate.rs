//! Thresholds on the exact gate and on what the down projection multiplies.
//!
//! A neuron's share in the output is `|h_j|` times the norm of its column of `down`; before `up` is
//! read, `|u_j|` is taken to be its mean. Layers differ in how much a lost share costs: the
//! divergence that each causes alone, divided by the energy that it then lacks, scales its shares,
//! so that one threshold serves all layers and gives each its own density.

use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::Model;

use crate::Error;
use crate::family::{Family, alone_in, set_selectors};
use crate::loss::{Reference, Until};
use crate::progress::{Progress, Silent, step};
use crate::samples::{Samples, stride};

/// For tables: all families of this kind.
pub(crate) const NAME: &str = "gate and intermediate";
/// Tokens of a layer that thresholds are chosen by.
const TOKENS: usize = 1024;
/// Share of the neurons that is left out to see what that costs.
const PROBE: f32 = 0.5;
/// Shares of `|h|` to leave out that the search begins with, and goes up to.
const RANGE: (f32, f32) = (0.35, 0.9);

/// Ratios of what is left out of `up` and of `down` that are tried.
const RATIOS: [f32; 3] = [0.0, 0.4, 0.75];
/// Every so many neurons of a token are looked at, or a few more.
const STRIDE: usize = 7;

/// What the shares of a layer's neurons are made of.
struct LayerShares {
    /// Times `|act(gate)|`: the expected share.
    by_gate: Vec<f32>,
    /// Times `|h|`: the share.
    by_hidden: Vec<f32>,
}

/// Shares of all layers on one scale.
pub(crate) struct Shares {
    layers: Vec<LayerShares>,
    gated: bool,
    /// Expected shares of sampled neurons, ascending.
    gate: Vec<f32>,
    /// Their shares, ascending.
    hidden: Vec<f32>,
}

impl Shares {
    /// Puts the layers on one scale by what each costs alone on the first `probes` windows of
    /// `reference`.
    pub(crate) fn new(
        dense: &Arc<Model>,
        sparse: &mut Arc<Model>,
        samples: &[Samples],
        reference: &mut Reference,
        probes: usize,
        progress: &mut dyn Progress,
    ) -> Result<Self, Error> {
        let (mut layers, mut gate, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        let layer_count = samples.len();
        let gated = dense.ffns().all(|ffn| ffn.gate().is_some());
        progress.begin("measuring how much each layer matters", samples.len());
        for (i, (ffn, samples)) in dense.ffns().zip(samples).enumerate() {
            let n = ffn.neurons();
            let tokens = samples.fitted().len().min(TOKENS);
            let values = samples.neurons(dense.compute(), ffn, 0..tokens);
            let norms = ffn.down().norms();
            // The mean of |h / act(gate)| is that of |u|, weighted by how much the gate lets
            // through.
            let mean =
                |values: &[f32], j: usize| values.iter().skip(j).step_by(n).map(|v| v.abs()).sum::<f32>();
            let up = |j| mean(&values.hidden, j) / mean(&values.gate, j).max(f32::MIN_POSITIVE);
            let mut layer =
                LayerShares { by_gate: (0..n).map(|j| up(j) * norms[j]).collect(), by_hidden: norms };
            let mut of_layer: Vec<f32> = shares(&values.hidden, &layer.by_hidden).collect();
            of_layer.sort_by(f32::total_cmp);
            let probe = quantile(&of_layer, PROBE);
            let lost: f64 =
                of_layer.iter().take_while(|s| **s <= probe).map(|s| f64::from(s * s)).sum::<f64>()
                    / tokens as f64;
            set_selectors(
                sparse,
                alone_in(
                    layer_count,
                    i,
                    Selector::Intermediate { hidden: thresholds(&layer.by_hidden, probe) },
                ),
            )?;
            let cost = reference.measure(sparse, Until::Windows(probes), &mut Silent)?.loss.kl;
            // KL grows with the square of the error.
            let scale = (cost.max(1e-9) / lost.max(1e-30)).sqrt() as f32;
            layer.by_gate.iter_mut().chain(&mut layer.by_hidden).for_each(|s| *s *= scale);
            gate.extend(shares(&values.gate, &layer.by_gate).step_by(stride(STRIDE, n)));
            hidden.extend(shares(&values.hidden, &layer.by_hidden).step_by(stride(STRIDE, n)));
            layers.push(layer);
            step(progress)?;
        }
        gate.sort_by(f32::total_cmp);
        hidden.sort_by(f32::total_cmp);
        Ok(Self { layers, gated, gate, hidden })
    }

    /// Ratios that are worth trying: without a gate there is nothing to tell apart.
    pub(crate) fn ratios(&self) -> &'static [f32] {
        if self.gated { &RATIOS } else { &RATIOS[..1] }
    }
}

/// `|value| * scale`, neuron by neuron, token after token.
fn shares<'a>(values: &'a [f32], scales: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    values.iter().zip(scales.iter().cycle()).map(|(v, s)| v.abs() * s)
}

/// The value below which this part of the sorted values is.
fn quantile(sorted: &[f32], part: f32) -> f32 {
    let at = (part * sorted.len() as f32) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Per neuron: what its value must exceed for its share to exceed `share`.
fn thresholds(scales: &[f32], share: f32) -> Vec<f32> {
    scales.iter().map(|s| share / s.max(f32::MIN_POSITIVE)).collect()
}

/// The family with a fixed ratio between what is left out of `up` and what is left out of `down`.
pub(crate) struct GateFamily {
    pub(crate) shares: Arc<Shares>,
    /// Share left out of `up`, relative to that of `down`; 0 looks at `h` alone.
    pub(crate) ratio: f32,
}

impl Family for GateFamily {
    fn name(&self) -> String {
        match self.ratio {
            0.0 => "intermediate".into(),
            ratio => format!("gate {ratio}"),
        }
    }

    fn selectors(&self, knob: f32) -> Vec<Selector> {
        let s = &*self.shares;
        let by_hidden = quantile(&s.hidden, knob);
        let by_gate = quantile(&s.gate, knob * self.ratio);
        let layers = s.layers.iter().map(|layer| {
            let hidden = thresholds(&layer.by_hidden, by_hidden);
            match s.gated && self.ratio > 0.0 {
                true => Selector::Gate { gate: thresholds(&layer.by_gate, by_gate), hidden: Some(hidden) },
                false => Selector::Intermediate { hidden },
            }
        });
        layers.collect()
    }

    fn range(&self) -> (f32, f32) {
        RANGE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_follow_shares() {
        let sorted: Vec<f32> = (0..100).map(|i| i as f32).collect();
        assert_eq!(
            (quantile(&sorted, 0.0), quantile(&sorted, 0.5), quantile(&sorted, 1.0)),
            (0.0, 50.0, 99.0)
        );
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(thresholds(&[1.0, 2.0], 4.0), [4.0, 2.0]);
        assert_eq!(shares(&[1.0, -2.0, 3.0, 4.0], &[1.0, 10.0]).collect::<Vec<_>>(), [1.0, 20.0, 3.0, 40.0]);
    }

    #[test]
    fn a_ratio_is_of_what_is_left_out_of_up_and_of_down() {
        let ascending = |scale: f32| (0..100).map(|i| scale * i as f32).collect::<Vec<f32>>();
        let layers = vec![LayerShares { by_gate: vec![1.0, 2.0], by_hidden: vec![4.0, 5.0] }];
        let shares = Shares { layers, gated: true, gate: ascending(1.0), hidden: ascending(10.0) };
        let shares = Arc::new(shares);
        let at = |ratio: f32| GateFamily { shares: Arc::clone(&shares), ratio }.selectors(0.5).remove(0);
        // Half of the values of `h` are below 500, a fifth of the gates below 20.
        let Selector::Gate { gate, hidden } = at(0.4) else { panic!("a gate") };
        assert_eq!((gate, hidden), (vec![20.0, 10.0], Some(vec![125.0, 100.0])));
        let Selector::Intermediate { hidden } = at(0.0) else { panic!("no gate") };
        assert_eq!(hidden, [125.0, 100.0]);
    }

    #[test]
    fn shares_are_scaled_by_what_a_layer_costs() {
        use sparse_gguf::Gguf;
        let gguf = Gguf::from_bytes(sparse_testdata::TinyLlama::default().build().to_bytes()).unwrap();
        let open = || Arc::new(Model::from_gguf(&gguf, 1).unwrap());
        let (dense, mut sparse) = (open(), open());
        let windows: Vec<Vec<u32>> =
            (0..4).map(|w| (0..32).map(|t| (w * 71 + t * 37) % 260).collect()).collect();
        let samples = crate::samples::collect(&dense, &windows, &mut Silent).unwrap();
        let mut reference = Reference::new(&dense, windows);
        let shares = Shares::new(&dense, &mut sparse, &samples, &mut reference, 4, &mut Silent).unwrap();
        let mut scales = Vec::new();
        for (i, (layer, ffn)) in shares.layers.iter().zip(dense.ffns()).enumerate() {
            let norms = ffn.down().norms();
            let scale = layer.by_hidden[0] / norms[0];
            let pairs = || layer.by_hidden.iter().zip(&norms);
            assert!(pairs().all(|(share, norm)| (share - scale * norm).abs() < 1e-4 * share.abs()), "{i}");
            // Before `up` is known, its mean stands in for it.
            let values = samples[i].neurons(dense.compute(), ffn, samples[i].fitted());
            let mean = |values: &[f32]| values.iter().step_by(norms.len()).map(|v| v.abs()).sum::<f32>();
            let up = mean(&values.hidden) / mean(&values.gate);
            let expected = scale * norms[0] * up;
            assert!((layer.by_gate[0] - expected).abs() < 1e-3 * expected, "{i}");
            scales.push(scale);
        }
        // Random layers lose energy and predictions at different rates.
        assert!(scales.iter().all(|s| *s > 0.0 && s.is_finite() && *s != 1.0), "{scales:?}");
        assert!((scales[0] / scales[1] - 1.0).abs() > 0.01, "{scales:?}");
    }
}
