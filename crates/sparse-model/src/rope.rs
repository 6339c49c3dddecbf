//! Rotary position embedding and its scaling types.
//!
//! A head's values are rotated in pairs: pair `i` of position `p` by the angle `p * frequency(i)`
//! (RoFormer, arXiv 2104.09864). Longer contexts come from slower rotation: linear scaling divides
//! all frequencies (arXiv 2306.15595); YaRN divides the slow ones only and stretches the result
//! (arXiv 2309.00071); Llama 3 ships a divisor per pair as tensor `rope_freqs.weight`, LongRoPE
//! (arXiv 2402.13753) one tensor for short contexts and one for long ones.

use std::f32::consts::PI;

use sparse_simd::Kernels;

use crate::Error;
use crate::arch::Keys;

/// How positions turn into angles.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RopeConfig {
    /// Values of a head that are rotated, the first ones; even.
    pub dims: usize,
    /// Which of them are rotated together.
    pub pairs: RopePairs,
    /// Base of the geometric sequence of frequencies.
    pub base: f32,
    /// Context extension.
    pub scaling: RopeScaling,
    /// Factor on the rotated values.
    pub magnitude: f32,
    /// Context that the model was trained on before it was extended, in tokens.
    pub original_context: usize,
}

/// Which values of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RopePairs {
    /// Neighbors: 0 and 1, 2 and 3.
    Adjacent,
    /// Value `i` of the first half and value `i` of the second, as GPT-NeoX has them.
    Halves,
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
        /// Turns within the original context above which a frequency is kept.
        beta_fast: f32,
        /// Turns below which it is divided.
        beta_slow: f32,
        /// Whether the ramp is widened to begin and end at whole pairs, as in most models.
        whole_pairs: bool,
    },
}

impl RopeConfig {
    /// Reads `PREFIX.rope.*`; `head_dim` and `context` are the defaults of keys that may be absent.
    pub(crate) fn read(
        keys: &Keys<'_>,
        pairs: RopePairs,
        head_dim: usize,
        context: usize,
    ) -> Result<Self, Error> {
        const DIMS: &str = "rope.dimension_count";
        const TYPE: &str = "rope.scaling.type";
        let dims = keys.opt_usize(DIMS)?.unwrap_or(head_dim);
        if dims > head_dim || dims % 2 != 0 {
            let problem = format!("{dims} is more than the head's width {head_dim}, or odd");
            return Err(keys.problem(DIMS, problem));
        }
        // Old files have the linear factor alone.
        let legacy = keys.opt_f32("rope.scale_linear")?.filter(|v| *v > 0.0).unwrap_or(1.0);
        let factor = match keys.opt_f32("rope.scaling.factor")? {
            Some(0.0) | None => legacy,
            Some(_) => keys.factor("rope.scaling.factor", 1.0)?,
        };
        let attention_factor = keys.factor("rope.scaling.attn_factor", 1.0)?;
        let (scaling, magnitude) = match keys.opt_string(TYPE)?.unwrap_or("linear") {
            // LongRoPE's divisors are tensors.
            "none" | "longrope" => (RopeScaling::None, attention_factor),
            "linear" if factor == 1.0 => (RopeScaling::None, attention_factor),
            "linear" => (RopeScaling::Linear { factor }, attention_factor),
            "yarn" => {
                let scaling = RopeScaling::Yarn {
                    factor,
                    beta_fast: keys.factor("rope.scaling.yarn_beta_fast", 32.0)?,
                    beta_slow: keys.factor("rope.scaling.yarn_beta_slow", 1.0)?,
                    whole_pairs: true,
                };
                (scaling, attention_factor * (1.0 + 0.1 * factor.ln()))
            }
            other => {
                let supported = "none, linear, yarn, longrope";
                let problem = format!("\"{other}\" is not supported (supported: {supported})");
                return Err(keys.problem(TYPE, problem));
            }
        };
        let original = keys.opt_positive("rope.scaling.original_context_length")?;
        Ok(Self {
            dims,
            pairs,
            base: keys.factor("rope.freq_base", 10_000.0)?,
            scaling,
            magnitude,
            original_context: original.unwrap_or(context),
        })
    }

    /// Rotates the first values of `head` by the angles of one position, a pair each.
    pub(crate) fn rotate(&self, k: &Kernels, head: &mut [f32], cos: &[f32], sin: &[f32]) {
        let head = &mut head[..self.dims];
        match self.pairs {
            RopePairs::Adjacent => k.rope(head, cos, sin),
            RopePairs::Halves => k.rope_halves(head, cos, sin),
        }
    }

    /// Angle per position of each pair, in radians; `divisors`, one per pair, are those of the file.
    pub(crate) fn frequencies(&self, divisors: Option<&[f32]>) -> Vec<f32> {
        let pairs = self.dims / 2;
        (0..pairs)
            .map(|i| {
                let divisor = divisors.map_or(1.0, |d| d[i]);
                let trained = self.base.powf(-(2.0 * i as f32) / self.dims as f32) / divisor;
                match self.scaling {
                    RopeScaling::None => trained,
                    RopeScaling::Linear { factor } => trained / factor,
                    RopeScaling::Yarn { factor, beta_fast, beta_slow, whole_pairs } => {
                        // The pair that turns `beta` times within the original context.
                        let pair = |beta: f32| {
                            self.dims as f32 * (self.original_context as f32 / (beta * 2.0 * PI)).ln()
                                / (2.0 * self.base.ln())
                        };
                        let (mut low, mut high) = (pair(beta_fast), pair(beta_slow));
                        if whole_pairs {
                            (low, high) = (low.floor(), high.ceil());
                        }
                        let (low, high) = (low.max(0.0), high.min(self.dims as f32 - 1.0));
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
        RopeConfig {
            dims: 64,
            pairs: RopePairs::Adjacent,
            base: 10_000.0,
            scaling,
            magnitude: 1.0,
            original_context: 4096,
        }
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
        let yarn = |whole_pairs| {
            let scaling = RopeScaling::Yarn { factor: 8.0, beta_fast: 32.0, beta_slow: 1.0, whole_pairs };
            config(scaling).frequencies(None)
        };
        let (exact, yarn) = (yarn(false), yarn(true));
        // 4096 / (2 pi 32) = 20.4 turns: pair 64 ln(20.4) / (2 ln 10^4) = 10.5; one turn: pair 22.5.
        assert_eq!(yarn[..=10], plain[..=10]);
        assert!((23..32).all(|i| (yarn[i] * 8.0 / plain[i] - 1.0).abs() < 1e-6));
        assert!((11..23).all(|i| yarn[i] < plain[i] && yarn[i] > plain[i] / 8.0));
        // The exact ramp begins at pair 10.5 and ends at 22.5.
        let slow = |i: usize| (1.0 - exact[i] / plain[i]) * 8.0 / 7.0;
        assert!((slow(11) - 0.04).abs() < 0.02 && (slow(22) - 0.96).abs() < 0.02);
        assert_eq!(exact[..=10], plain[..=10]);
    }
}
