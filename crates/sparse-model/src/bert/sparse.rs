//! Feed-forward layers of an encoder that leave neurons out, where that is faster.

use sparse_core::{Activations, Compute, Down, Linear, Selector, SparseFfn, median};
use sparse_precision::PrecisionLane;
use web_time::Instant;

use super::dense::matrix;
use super::weights::{Layer, Weights};
use super::{BertConfig, EncoderFormat, Pass, Scratch};
use crate::Error;

/// Tokens computed together at which leaving neurons out is timed.
const SIZES: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Leaving neurons out has to be this much faster: less is noise.
const GAIN: f64 = 0.97;

/// A layer that may leave neurons out.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) ffn: SparseFfn,
    /// Tokens computed together, at most, for which it is used.
    pub(super) most: usize,
}

/// Seconds that all feed-forward layers of an encoder take for some tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FfnTiming {
    /// Tokens that are computed together.
    pub tokens: usize,
    /// With all neurons.
    pub dense: f64,
    /// With those that the selectors choose, which includes choosing.
    pub sparse: f64,
}

/// A copy of `up`, in 3 bits per weight and a scale for 32 of them, that says about which neurons matter.
///
/// # Errors
/// If its rows are no whole number of 32 weights, or one of them is not finite.
pub fn low_bit_copy(up: &Linear) -> Result<Linear, Error> {
    let (rows, cols) = (up.weight().rows(), up.weight().cols());
    let mut weights = vec![0.0; rows * cols];
    weights.chunks_mut(cols).enumerate().for_each(|(r, row)| up.weight().decode_row(r, row));
    let copy = matrix(PrecisionLane::Bit3.into(), "the copy of a feed-forward layer", cols, &weights)?;
    Ok(Linear::new(copy, up.bias().map(<[f32]>::to_vec))?)
}

impl Sparse {
    /// A layer that leaves out nothing yet. `up` is `[neurons x width]`, `down` `[width x neurons]`; each with its bias.
    pub(super) fn new(
        config: &BertConfig,
        format: EncoderFormat,
        name: &str,
        (up, up_bias): (&[f32], Vec<f32>),
        (down, down_bias): (&[f32], Vec<f32>),
    ) -> Result<Self, Error> {
        let (width, neurons) = (config.embedding, config.feed_forward);
        let blocks = format.blocks(width);
        let mut records = vec![0.0; down.len()];
        for (j, record) in records.chunks_mut(width).enumerate() {
            record.iter_mut().zip(down[j..].iter().step_by(neurons)).for_each(|(to, from)| *to = *from);
        }
        let up = Linear::new(matrix(blocks, name, width, up)?, Some(up_bias))?;
        let down = Down::Neurons(matrix(blocks, name, width, &records)?.into());
        let ffn = SparseFfn::plain(up, down, config.activation)?.with_down_bias(down_bias)?;
        Ok(Self { ffn, most: usize::MAX })
    }
}

/// Times layers on what a text of random words gives them.
pub(super) struct Stopwatch<'a> {
    pass: Pass<'a>,
    /// What each layer is given, of as many tokens as the largest size.
    inputs: Vec<Vec<f32>>,
    scratch: Scratch,
}

impl<'a> Stopwatch<'a> {
    pub(super) fn new(config: &'a BertConfig, weights: &'a Weights, compute: &'a Compute) -> Self {
        let pass = Pass { config, weights, compute };
        let tokens = SIZES[SIZES.len() - 1];
        let words = (0..tokens as u32).map(|i| i.wrapping_mul(2_654_435_761) % config.vocabulary as u32);
        let ids: Vec<u32> = words.collect();
        let sentences: Vec<&[u32]> = ids.chunks(config.positions.min(32)).collect();
        let (mut scratch, mut inputs) = (Scratch::default(), Vec::new());
        pass.run_watched(&sentences, &mut scratch, &mut |_, x| inputs.push(x.x().to_vec()));
        Self { pass, inputs, scratch }
    }

    /// Seconds of layer `i` for so many tokens, with all its neurons and with those that its selector chooses.
    fn layer(&mut self, i: usize, layer: &Layer, ffn: &SparseFfn, tokens: usize) -> (f64, f64) {
        let (s, width) = (&mut self.scratch, self.pass.config.embedding);
        s.delta.resize(tokens * width, 0.0);
        let fill = |input: &mut Activations| {
            input.reshape(tokens, width);
            input.x_mut().copy_from_slice(&self.inputs[i][..tokens * width]);
        };
        let (mut dense, mut sparse) = (Vec::new(), Vec::new());
        for _ in 0..(64 / tokens).clamp(3, 9) {
            fill(&mut s.input);
            let start = Instant::now();
            self.pass.dense(layer, s);
            dense.push(start.elapsed().as_secs_f64());
            fill(&mut s.input);
            let start = Instant::now();
            self.pass.sparse(layer, ffn, s);
            sparse.push(start.elapsed().as_secs_f64());
        }
        (median(dense), median(sparse))
    }

    /// Up to how many tokens leaving out neurons is faster, of layer `i`: zero if it never is.
    pub(super) fn most(&mut self, i: usize) -> usize {
        let weights = self.pass.weights;
        let layer = &weights.layers[i];
        let Some(sparse) = &layer.sparse else { return 0 };
        if matches!(sparse.ffn.selector(), Selector::Dense) {
            return 0;
        }
        let faster = SIZES.iter().take_while(|&&tokens| {
            let (dense, sparse) = self.layer(i, layer, &sparse.ffn, tokens);
            sparse < GAIN * dense
        });
        match faster.last() {
            Some(&size) if size == SIZES[SIZES.len() - 1] => usize::MAX,
            most => most.copied().unwrap_or(0),
        }
    }

    /// All layers together; layers that leave out nothing take the same time either way.
    pub(super) fn all(&mut self, tokens: usize) -> FfnTiming {
        let (weights, tokens) = (self.pass.weights, tokens.clamp(1, SIZES[SIZES.len() - 1]));
        let mut timing = FfnTiming { tokens, dense: 0.0, sparse: 0.0 };
        for (i, layer) in weights.layers.iter().enumerate() {
            let Some(sparse) = &layer.sparse else { continue };
            let (dense, some) = self.layer(i, layer, &sparse.ffn, tokens);
            timing.dense += dense;
            timing.sparse += if matches!(sparse.ffn.selector(), Selector::Dense) { dense } else { some };
        }
        timing
    }
}
