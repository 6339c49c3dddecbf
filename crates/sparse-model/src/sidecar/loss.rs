//! What a sparse model loses, as its sidecar states it.

use sparse_gguf::Metadata;

use crate::Error;

/// Divergence, in nats, above which a sidecar is worth a warning: text is likely to suffer.
const BAD_KL: f64 = 0.03;
/// Share of equal top tokens below which it is worth one, too.
const BAD_TOP: f64 = 0.85;
/// Scored tokens below which an interval says little: a few tokens cause most of the divergence.
const FEW_TOKENS: usize = 4096;
/// Ratio of the dense model's perplexities, of a text over its own, beyond which the text is not
/// the model's.
const FOREIGN: f64 = 4.0;

/// Loss of a sparse model against the dense one, on the same text.
///
/// The loss is `exp(KL) - 1`: by how much perplexity grows on text that the dense model writes
/// itself. It is never negative, whatever the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredLoss {
    /// Mean Kullback-Leibler divergence from the dense model's predictions, in nats.
    pub kl: f64,
    /// Standard error of `kl`; 0 in sidecars that do not state it.
    pub kl_error: f64,
    /// Relative change of perplexity on this text: 0.01 is 1 %. A drop is no gain: the predictions
    /// are others.
    pub perplexity_increase: f64,
    /// Standard error of `perplexity_increase`, from paired differences.
    pub standard_error: f64,
    /// Share of the tokens whose most probable continuation is the same.
    pub top1: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// The same on text that the dense model made up, unless the text was that already.
    pub own: Option<OwnText>,
}

/// What was measured on text that the dense model made up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OwnText {
    /// Mean divergence of the sparse model there, in nats.
    pub kl: f64,
    /// Standard error of `kl`.
    pub kl_error: f64,
    /// Tokens scored.
    pub tokens: usize,
    /// Perplexity of the dense model there.
    pub perplexity: f64,
    /// Perplexity of the dense model on the text that calibration was given.
    pub text_perplexity: f64,
}

impl OwnText {
    /// What is to be said if the text that calibration was given is unlike what the model writes:
    /// its perplexity is four times as high, or four times as low.
    pub fn foreign_text(&self) -> Option<String> {
        let ratio = self.text_perplexity / self.perplexity;
        // What is not a number is no text of the model's.
        let own = (1.0 / FOREIGN..=FOREIGN).contains(&ratio);
        (!own).then(|| {
            format!(
                "the calibration text is not the model's: the dense model's perplexity is {:.1} there, and {:.1} on text that it \
                 makes up itself; calibrate on text like that which the model is for",
                self.text_perplexity, self.perplexity
            )
        })
    }
}

impl MeasuredLoss {
    /// The loss: `exp(KL) - 1`.
    pub fn loss(&self) -> f64 {
        self.kl.exp_m1()
    }

    /// Upper end of the 95 % confidence interval of the [loss](Self::loss), of the worse text of
    /// the two.
    pub fn upper(&self) -> f64 {
        let upper = |kl: f64, error: f64| (kl + 1.96 * error).exp_m1();
        let here = upper(self.kl, self.kl_error);
        self.own.map_or(here, |own| {
            let there = upper(own.kl, own.kl_error);
            // NaN is worse than anything.
            if there > here || there.is_nan() { there } else { here }
        })
    }

    /// The 95 % confidence interval of the change of perplexity.
    pub fn perplexity_interval(&self) -> (f64, f64) {
        let half = 1.96 * self.standard_error;
        (self.perplexity_increase - half, self.perplexity_increase + half)
    }

    /// What speaks against using the sidecar, a sentence each: predictions far from the dense
    /// model's, too few tokens for a claim, a text that was not the model's.
    pub fn concerns(&self) -> Vec<String> {
        let mut concerns = Vec::new();
        let kl = self.own.map_or(self.kl, |own| if own.kl > self.kl { own.kl } else { self.kl });
        if !kl.is_finite() {
            concerns.push(
                "it does not say how far predictions are from the dense model's: calibrate again".into(),
            );
        } else if kl > BAD_KL || self.top1 < BAD_TOP {
            concerns.push(format!(
                "with it predictions are far from the dense model's, and text may suffer: KL {kl:.3} nats, as much as {:.1} % of \
                 perplexity, same top token {:.1} %",
                100.0 * kl.exp_m1(),
                100.0 * self.top1
            ));
        }
        if self.tokens < FEW_TOKENS {
            concerns.push(format!(
                "its loss was measured on {} tokens only, too few to rely on (at least {FEW_TOKENS}): give a longer text",
                self.tokens
            ));
        }
        concerns.extend(self.own.and_then(|own| own.foreign_text()));
        concerns
    }

    /// The loss that a sidecar states, if it states one.
    pub(super) fn read(meta: &Metadata) -> Result<Option<Self>, Error> {
        let number = |key: &str| Ok::<_, Error>(meta.opt_f32(&format!("sparse.loss.{key}"))?.map(f64::from));
        let count = |key: &str| Ok::<_, Error>(meta.opt_usize(&format!("sparse.loss.{key}"))?);
        let (Some(perplexity_increase), Some(tokens)) = (number("perplexity_increase")?, count("tokens")?)
        else {
            return Ok(None);
        };
        let own = match (number("own.kl")?, count("own.tokens")?) {
            (Some(kl), Some(tokens)) => Some(OwnText {
                kl,
                kl_error: number("own.kl_error")?.unwrap_or(0.0),
                tokens,
                perplexity: number("own.perplexity")?.unwrap_or(f64::NAN),
                text_perplexity: number("text_perplexity")?.unwrap_or(f64::NAN),
            }),
            _ => None,
        };
        Ok(Some(Self {
            kl: number("kl")?.unwrap_or(f64::NAN),
            kl_error: number("kl_error")?.unwrap_or(0.0),
            perplexity_increase,
            standard_error: number("standard_error")?.unwrap_or(f64::NAN),
            top1: number("top1")?.unwrap_or(f64::NAN),
            tokens,
            own,
        }))
    }

    pub(super) fn write(&self, meta: &mut Metadata) {
        let mut number = |key: &str, value: f64| {
            meta.insert(format!("sparse.loss.{key}"), value as f32);
        };
        number("perplexity_increase", self.perplexity_increase);
        number("standard_error", self.standard_error);
        number("kl", self.kl);
        number("kl_error", self.kl_error);
        number("top1", self.top1);
        if let Some(own) = self.own {
            number("own.kl", own.kl);
            number("own.kl_error", own.kl_error);
            number("own.perplexity", own.perplexity);
            number("text_perplexity", own.text_perplexity);
            meta.insert("sparse.loss.own.tokens", own.tokens as u64);
        }
        meta.insert("sparse.loss.tokens", self.tokens as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> MeasuredLoss {
        let own = OwnText { kl: 0.004, kl_error: 0.001, tokens: 1500, perplexity: 5.0, text_perplexity: 6.0 };
        MeasuredLoss {
            kl: 0.003,
            kl_error: 0.0001,
            perplexity_increase: -0.01,
            standard_error: 0.002,
            top1: 0.97,
            tokens: 10_000,
            own: Some(own),
        }
    }

    #[test]
    fn the_loss_is_that_of_the_worse_text() {
        let loss = good();
        assert!((loss.upper() - (0.004_f64 + 0.00196).exp_m1()).abs() < 1e-12);
        assert!(
            (MeasuredLoss { own: None, ..loss }.upper() - (0.003_f64 + 0.000_196).exp_m1()).abs() < 1e-12
        );
        // A lower perplexity makes nothing good.
        assert_eq!(MeasuredLoss { perplexity_increase: -0.5, ..loss }.upper(), loss.upper());
        let unknown = OwnText { kl: f64::NAN, ..loss.own.unwrap() };
        assert!(MeasuredLoss { own: Some(unknown), ..loss }.upper().is_nan());
        let (low, high) = loss.perplexity_interval();
        assert!((low + 0.01392).abs() < 1e-9 && (high + 0.00608).abs() < 1e-9);
    }

    #[test]
    fn what_speaks_against_a_sidecar_is_said() {
        let loss = good();
        assert_eq!(loss.concerns(), Vec::<String>::new());
        let said = |loss: MeasuredLoss, part: &str| {
            let concerns = loss.concerns();
            assert!(concerns.len() == 1 && concerns[0].contains(part), "{part}: {concerns:?}");
        };
        let own = loss.own.unwrap();
        said(MeasuredLoss { kl: 0.087, top1: 0.81, ..loss }, "KL 0.087");
        said(MeasuredLoss { top1: 0.81, own: None, ..loss }, "same top token 81.0 %");
        said(MeasuredLoss { own: Some(OwnText { kl: 0.05, ..own }), ..loss }, "KL 0.050");
        said(MeasuredLoss { kl: f64::NAN, own: None, ..loss }, "calibrate again");
        said(MeasuredLoss { tokens: 1020, ..loss }, "1020 tokens only");
        for text_perplexity in [812.0, 1.2, f64::NAN] {
            said(MeasuredLoss { own: Some(OwnText { text_perplexity, ..own }), ..loss }, "not the model's");
        }
    }
}
