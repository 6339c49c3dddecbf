//! What calibration found.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use sparse_core::{BatchMode, Compute, FfnCounts, FfnScratch, Selector, SelectorQuality, SparseFfn};
use sparse_model::Sidecar;
use sparse_model::sidecar::MeasuredLoss;

use crate::head::HeadCalibration;
use crate::samples::Samples;
use crate::speed::Speed;
use crate::trials::Candidate;

/// The result of [`calibrate`](crate::calibrate).
#[derive(Debug)]
pub struct Calibration {
    /// Everything that was tried, dense first.
    pub candidates: Vec<Candidate>,
    /// The fastest configuration inside the budget; nothing if none was.
    pub chosen: Option<Chosen>,
    /// What speaks against the text, or against what was chosen, a sentence each.
    pub concerns: Vec<String>,
    /// The screens of the head that were tried.
    pub head: Option<HeadCalibration>,
    /// What to keep: the selectors of the chosen configuration, or dense ones if it gains nothing
    /// and was not [asked for](crate::Options::keep) all the same.
    pub sidecar: Sidecar,
}

/// A configuration that was measured in full.
#[derive(Clone, Debug, Serialize)]
pub struct Chosen {
    /// Its name among the candidates.
    pub name: String,
    /// Its layers.
    pub layers: Vec<LayerReport>,
    /// Its loss on text that nothing was fitted to, and on the model's own.
    #[serde(serialize_with = "loss_fields")]
    pub loss: MeasuredLoss,
    /// Share of the dense layers' bytes that it reads per token.
    pub bytes_share: f64,
    /// How fast the whole model decodes with it, as it runs: dense in `slower` layers.
    pub speed: Speed,
    /// Layers that stay dense on this machine, because skipping is slower in them; none if
    /// selectors are kept whatever they gain.
    pub slower: usize,
    /// Whether that is faster than the dense model.
    pub pays: bool,
}

impl Calibration {
    /// Nothing was tried: what was there before stays.
    pub(crate) fn of(sidecar: Sidecar) -> Self {
        Self { candidates: Vec::new(), chosen: None, concerns: Vec::new(), head: None, sidecar }
    }

    /// What came of it, in a sentence for neurons and one for the head.
    pub fn verdict(&self) -> String {
        let ffn = (!self.candidates.is_empty()).then(|| self.ffn_verdict());
        let head = self.head.as_ref().map(HeadCalibration::verdict);
        ffn.into_iter().chain(head).collect::<Vec<_>>().join("\n")
    }

    fn ffn_verdict(&self) -> String {
        let Some(chosen) = &self.chosen else {
            return "nothing that was tried saves time inside the budget: the model stays dense".into();
        };
        let Chosen { name, loss, speed, bytes_share, slower, .. } = chosen;
        let measured = format!(
            "{name} reads {:.1} % of the feed-forward weights; {}; {}",
            100.0 * bytes_share,
            loss_verdict(loss),
            speed.verdict()
        );
        let layers = chosen.layers.len();
        match chosen.pays {
            true if *slower == 0 => measured,
            true => format!(
                "{measured}; {slower} of {layers} layers stay dense on this machine, where skipping is slower"
            ),
            false if *slower == layers => {
                format!(
                    "{measured}: skipping is slower than the dense path in every layer here, the model stays dense"
                )
            }
            false => format!("{measured}: the model stays dense"),
        }
    }
}

/// What a loss comes to, in words. A change of perplexity is claimed only if its interval does not
/// include none.
pub(crate) fn loss_verdict(loss: &MeasuredLoss) -> String {
    let (low, high) = loss.perplexity_interval();
    let (low, high) = (100.0 * low, 100.0 * high);
    let perplexity = match low <= 0.0 && high >= 0.0 {
        true => format!("no change of perplexity is shown ({low:+.2} to {high:+.2} %)"),
        false => format!(
            "perplexity changes by {:+.2} % ({low:+.2} to {high:+.2} %)",
            100.0 * loss.perplexity_increase
        ),
    };
    format!(
        "its loss is {:.2} % (at most {:.2} %, KL on {} tokens{}), {perplexity}",
        100.0 * loss.loss(),
        100.0 * loss.upper(),
        loss.tokens,
        loss.own.map_or_else(String::new, |own| format!(
            ", {:.2} % on {} tokens of the model's own",
            100.0 * own.kl.exp_m1(),
            own.tokens
        ))
    )
}

/// [`MeasuredLoss`] with its upper bound and what speaks against it.
pub(crate) fn loss_fields<S: Serializer>(loss: &MeasuredLoss, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Own {
        kl: f64,
        kl_error: f64,
        tokens: usize,
        perplexity: f64,
        text_perplexity: f64,
    }
    let own = loss.own.map(|own| Own {
        kl: own.kl,
        kl_error: own.kl_error,
        tokens: own.tokens,
        perplexity: own.perplexity,
        text_perplexity: own.text_perplexity,
    });
    let mut fields = serializer.serialize_struct("MeasuredLoss", 10)?;
    fields.serialize_field("loss", &loss.loss())?;
    fields.serialize_field("upper", &loss.upper())?;
    fields.serialize_field("kl", &loss.kl)?;
    fields.serialize_field("kl_error", &loss.kl_error)?;
    fields.serialize_field("perplexity_increase", &loss.perplexity_increase)?;
    fields.serialize_field("standard_error", &loss.standard_error)?;
    fields.serialize_field("top1", &loss.top1)?;
    fields.serialize_field("tokens", &loss.tokens)?;
    fields.serialize_field("own", &own)?;
    fields.serialize_field("concerns", &loss.concerns())?;
    fields.end()
}

/// One layer of the chosen configuration.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// Number of the layer.
    pub layer: usize,
    /// Its selector.
    pub selector: &'static str,
    /// Share of the gates computed.
    pub gate_density: f64,
    /// Share of `up` computed.
    pub up_density: f64,
    /// Share of `down` used.
    pub down_density: f64,
    /// Share of the neurons that an oracle would have taken that were kept: for ReLU those that are
    /// not zero, for others as many as were chosen.
    pub recall: f64,
    /// Share of the neurons kept, or named by a predictor, that an oracle would have taken.
    pub precision: f64,
    /// Share of the output's energy that was kept.
    pub kept_energy: f64,
    /// The divergence, in nats, that the layer causes if all others are dense; nothing for
    /// encoders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
    /// Bytes read per token.
    pub bytes: f64,
    /// Bytes read per token when dense.
    pub dense_bytes: usize,
}

impl LayerReport {
    pub(crate) fn new(layer: usize, ffn: &SparseFfn, counts: &FfnCounts, quality: &SelectorQuality) -> Self {
        let tokens = counts.tokens.max(1) as f64;
        let density = |n: u64| n as f64 / tokens / ffn.neurons() as f64;
        // Zeros that a predictor named are not among what was kept in the end.
        let named = if ffn.gate().is_some() { counts.gate } else { counts.up };
        let precision = match ffn.selector() {
            Selector::LowRank { .. } if ffn.activation().has_zeros() => {
                counts.down as f64 / named.max(1) as f64
            }
            _ => quality.precision(),
        };
        Self {
            layer,
            selector: ffn.selector().name(),
            gate_density: density(counts.gate),
            up_density: density(counts.up),
            down_density: density(counts.down),
            recall: quality.recall(),
            precision,
            kl: None,
            kept_energy: quality.kept_energy(),
            bytes: counts.bytes as f64 / tokens,
            dense_bytes: ffn.bytes(),
        }
    }
}

/// How well the selector of `ffn` chooses on inputs that it was not fitted to, and what single
/// tokens would take, and the share of the tokens that used each neuron.
pub(crate) fn quality(
    compute: &Compute,
    ffn: &SparseFfn,
    samples: &Samples,
) -> (SelectorQuality, FfnCounts, Vec<f32>) {
    let range = samples.held();
    let all = samples.neurons(compute, ffn, range.clone()).hidden;
    let x = samples.activations(compute, range.clone());
    let mut scratch = FfnScratch::new(range.len(), [ffn]);
    let mut out = vec![0.0; range.len() * ffn.outputs()];
    let counts = ffn.forward(compute, &x, BatchMode::Masked, &mut scratch, &mut out);
    let norms = ffn.down().norms();
    let n = ffn.neurons();
    let (mut quality, mut heat) = (SelectorQuality::default(), vec![0.0; n]);
    for (chosen, all) in scratch.hidden().chunks(n).zip(all.chunks(n)) {
        let mean = |j: usize| ffn.means().map_or(0.0, |means| means[j]);
        let share = |j: usize| (all[j] - mean(j)).abs() * norms[j];
        let count = chosen.iter().filter(|h| **h != 0.0).count();
        // What an oracle would have taken: everything that is not zero, or the best of as many as
        // were chosen.
        let bound = match ffn.activation().has_zeros() || count == 0 {
            true => f32::MIN_POSITIVE,
            false => {
                let mut sorted: Vec<f32> = (0..n).map(share).collect();
                *sorted.select_nth_unstable_by(n - count, f32::total_cmp).1
            }
        };
        for (j, h) in chosen.iter().enumerate() {
            quality.add(*h != 0.0, share(j) >= bound, share(j));
            heat[j] += f32::from(u8::from(*h != 0.0));
        }
    }
    heat.iter_mut().for_each(|count| *count /= range.len() as f32);
    (quality, counts, heat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_perplexity_is_claimed_only_if_it_is_shown() {
        let loss = |perplexity_increase| MeasuredLoss {
            kl: 0.002,
            kl_error: 0.0001,
            perplexity_increase,
            standard_error: 0.001,
            top1: 0.98,
            tokens: 5000,
            own: None,
        };
        let said = loss_verdict(&loss(0.0031));
        assert!(said.contains("perplexity changes by +0.31 % (+0.11 to +0.51 %)"), "{said}");
        assert!(said.contains("its loss is 0.20 % (at most 0.22 %, KL on 5000 tokens)"), "{said}");
        assert!(loss_verdict(&loss(-0.04)).contains("perplexity changes by -4.00 %"));
        for none in [0.0019, -0.0019] {
            let said = loss_verdict(&loss(none));
            assert!(said.contains("no change of perplexity is shown"), "{said}");
        }
    }
}
