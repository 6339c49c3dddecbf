//! Rotary position embedding and its scaling types.
//!
//! A head's values are rotated in adjacent pairs: pair `i` of position `p` by the angle `p * frequency(i)`
//! (RoFormer, arXiv 2104.09864). Longer contexts come from slower rotation: linear scaling divides all
//! frequencies (arXiv 2306.15595); YaRN divides the slow ones only and stretches the result (arXiv 2309.00071);
//! Llama 3 ships a divisor per pair as tensor `rope_freqs.weight`.

use std::f32::consts::PI;

use sparse_gguf::Metadata;

use crate::Error;

/// How positions turn into angles.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeConfig {
    /// Values per head; even, and all are rotated.
    pub dims: usize,
    /// Base of the geometric sequence of frequencies.
    pub base: f32,
    /// Context extension.
    pub scaling: RopeScaling,
    /// Factor on the rotated values.
    pub magnitude: f32,
}

/// Context extension of rotary embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Frequencies as trained.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Slow frequencies divided by `factor`, fast ones kept, a ramp between.
    Yarn {
        /// The divisor.
        factor: f32,
        /// Context length the model was trained on before extension.
        original_context: usize,
        /// Turns within the original context above which a frequency is kept.
        beta_fast: f32,
        /// Turns below which it is divided.
        beta_slow: f32,
    },
}

impl RopeConfig {
    /// Reads `llama.rope.*`; `head_dim` and `context` are the defaults of the keys that may be absent.
    pub(crate) fn from_metadata(meta: &Metadata, head_dim: usize, context: usize) -> Result<Self, Error> {
        let finite = |key: &str, default: f32| match meta.opt_f32(key)? {
            Some(v) if v.is_finite() && v > 0.0 => Ok(v),
            Some(v) => Err(Error::metadata(key, format!("{v} is not a positive number"))),
            None => Ok(default),
        };
        let dims = meta.opt_usize("llama.rope.dimension_count")?.unwrap_or(head_dim);
        if dims != head_dim || dims % 2 != 0 {
            let problem = format!("{dims} is not the head's width {head_dim}, or that is odd");
            return Err(Error::metadata("llama.rope.dimension_count", problem));
        }
        // Old files have the linear factor alone.
        let legacy = match meta.opt_f32("llama.rope.scale_linear")? {
            Some(v) if v.is_finite() && v > 0.0 => v,
            _ => 1.0,
        };
        let factor = match meta.opt_f32("llama.rope.scaling.factor")? {
            Some(0.0) | None => legacy,
            Some(_) => finite("llama.rope.scaling.factor", 1.0)?,
        };
        let attention_factor = finite("llama.rope.scaling.attn_factor", 1.0)?;
        let (scaling, magnitude) = match meta.opt_string("llama.rope.scaling.type")?.unwrap_or("linear") {
            "none" => (RopeScaling::None, attention_factor),
            "linear" if factor == 1.0 => (RopeScaling::None, attention_factor),
            "linear" => (RopeScaling::Linear { factor }, attention_factor),
            "yarn" => {
                let scaling = RopeScaling::Yarn {
                    factor,
                    original_context: meta
                        .opt_usize("llama.rope.scaling.original_context_length")?
                        .unwrap_or(context),
                    beta_fast: finite("llama.rope.scaling.yarn_beta_fast", 32.0)?,
                    beta_slow: finite("llama.rope.scaling.yarn_beta_slow", 1.0)?,
                };
                (scaling, attention_factor * (1.0 + 0.1 * factor.ln()))
            }
            other => {
                let problem = format!("\"{other}\" is not supported (supported: none, linear, yarn)");
                return Err(Error::metadata("llama.rope.scaling.type", problem));
            }
        };
        Ok(Self { dims, base: finite("llama.rope.freq_base", 10_000.0)?, scaling, magnitude })
    }

    /// Angle per position of each pair, in radians; `divisors` is the content of `rope_freqs.weight`.
    pub(crate) fn frequencies(&self, divisors: Option<&[f32]>) -> Vec<f32> {
        let pairs = self.dims / 2;
        (0..pairs)
            .map(|i| {
                let divisor = divisors.map_or(1.0, |d| d[i]);
                let trained = self.base.powf(-(2.0 * i as f32) / self.dims as f32) / divisor;
                match self.scaling {
                    RopeScaling::None => trained,
                    RopeScaling::Linear { factor } => trained / factor,
                    RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow } => {
                        // The pair that turns `beta` times within the original context.
                        let pair = |beta: f32| {
                            self.dims as f32 * (original_context as f32 / (beta * 2.0 * PI)).ln()
                                / (2.0 * self.base.ln())
                        };
                        let low = pair(beta_fast).floor().max(0.0);
                        let high = pair(beta_slow).ceil().min(self.dims as f32 - 1.0);
                        let slow = ((i as f32 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                        trained * (1.0 - slow) + trained / factor * slow
                    }
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(scaling: RopeScaling) -> RopeConfig {
        RopeConfig { dims: 64, base: 10_000.0, scaling, magnitude: 1.0 }
    }

    #[test]
    fn frequencies_are_geometric() {
        let f = config(RopeScaling::None).frequencies(None);
        assert_eq!(f.len(), 32);
        assert_eq!(f[0], 1.0);
        let ratio = 10_000f32.powf(-2.0 / 64.0);
        assert!(f.windows(2).all(|w| (w[1] / w[0] - ratio).abs() < 1e-5));
    }

    #[test]
    fn linear_scaling_and_divisors_divide() {
        let plain = config(RopeScaling::None).frequencies(None);
        let linear = config(RopeScaling::Linear { factor: 4.0 }).frequencies(None);
        let divided = config(RopeScaling::None).frequencies(Some(&[4.0; 32]));
        for i in 0..32 {
            assert!((linear[i] * 4.0 / plain[i] - 1.0).abs() < 1e-6);
            assert!((divided[i] * 4.0 / plain[i] - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_divides_slow_ones() {
        let plain = config(RopeScaling::None).frequencies(None);
        let scaling =
            RopeScaling::Yarn { factor: 8.0, original_context: 4096, beta_fast: 32.0, beta_slow: 1.0 };
        let yarn = config(scaling).frequencies(None);
        // 4096 / (2 pi 32) = 20.4 turns: pair 64 ln(20.4) / (2 ln 10^4) = 10.5; one turn: pair 22.5.
        assert_eq!(yarn[..=10], plain[..=10]);
        assert!((23..32).all(|i| (yarn[i] * 8.0 / plain[i] - 1.0).abs() < 1e-6));
        assert!((11..23).all(|i| yarn[i] < plain[i] && yarn[i] > plain[i] / 8.0));
    }
}
