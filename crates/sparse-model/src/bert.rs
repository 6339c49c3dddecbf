//! The forward pass of the BERT architecture, from token ids to one vector per token.
//!
//! Read [`Pass::run`], then `embed`, `attention` and `feed_forward`: this is the whole computation. Sentences are computed
//! many at a time without padding: the tokens of all stand in one matrix, and only attention knows where one ends.
//! (Devlin et al. 2018, arXiv 1810.04805; sentence embeddings: Reimers and Gurevych 2019, arXiv 1908.10084.)

mod config;
mod dense;
mod encoder;
mod files;
mod folder;
mod head;
mod modules;
mod options;
mod prompt;
mod safetensors;
mod sparse;
mod stream;
mod tensors;
mod text;
mod tokenizer_config;
mod weights;

pub use config::BertConfig;
pub use encoder::Encoder;
pub use files::{ModelFiles, ReadSeek};
pub use options::{EncoderFormat, EncoderOptions, EncoderSparsity, Pooling};
pub use prompt::{Prompt, Prompted};
pub use sparse::{FfnTiming, low_bit_copy};
pub use stream::EmbedStream;

use sparse_core::{Activations, BatchMode, Compute, FfnScratch, Selector, SparseFfn};
use sparse_simd::{BlockFormat, MatMut, Rows};

use weights::{Layer, Norm, Weights};

/// Queries of a sentence that are computed at a time: enough to read keys and values seldom, few enough that their scores
/// stay in a cache.
const QUERIES: usize = 256;
/// Tokens that a thread takes at a time where each is computed by itself.
const TOKENS: usize = 8;

/// One run of the model over some sentences.
struct Pass<'a> {
    config: &'a BertConfig,
    weights: &'a Weights,
    compute: &'a Compute,
}

/// Is given the number of a feed-forward layer and its input for every token.
type Watch<'a> = &'a mut dyn FnMut(usize, &Activations);

/// Buffers of a run. They grow to what the largest run needs.
#[derive(Debug, Default)]
struct Scratch {
    /// One vector per token, `[tokens x embedding]`: what goes from layer to layer.
    x: Activations,
    /// A copy of `x` for a product to read.
    input: Activations,
    /// Query, key and value of every token, `[tokens x 3 embedding]`.
    projected: Vec<f32>,
    /// Output of the attention heads.
    attended: Activations,
    /// Output of attention or feed-forward part, to be added to `x`.
    delta: Vec<f32>,
    /// What the neurons give, `[tokens x neurons]`.
    hidden: Activations,
    /// Of the layers that leave neurons out.
    sparse: FfnScratch,
    /// Buffers of one thread each.
    workers: Vec<Worker>,
}

/// Buffers of one thread.
#[derive(Debug, Default)]
struct Worker {
    /// One vector.
    sum: Vec<f32>,
    /// Queries of one head, times the factor on scores, `[queries x values]`.
    queries: Vec<f32>,
    /// Keys of one head, transposed: `[values x tokens]`.
    keys: Vec<f32>,
    /// Values of one head, `[tokens x values]`.
    values: Vec<f32>,
    /// `[queries x tokens]`.
    scores: Vec<f32>,
}

impl Pass<'_> {
    /// Computes the last layer's output for every token of `sentences`: it is then in `s.x`, sentence after sentence.
    ///
    /// What comes out for a sentence depends neither on the others nor on the number of threads, but where layers leave
    /// neurons out up to some number of tokens.
    fn run(&self, sentences: &[&[u32]], s: &mut Scratch) {
        self.run_watched(sentences, s, &mut |_, _| ());
    }

    fn run_watched(&self, sentences: &[&[u32]], s: &mut Scratch, watch: Watch<'_>) {
        s.workers.resize_with(self.compute.pool.threads(), Worker::default);
        self.embed(sentences, s);
        for (i, layer) in self.weights.layers.iter().enumerate() {
            self.attention(layer, sentences, s);
            self.add_and_norm(&layer.attention_norm, s);
            watch(i, &s.x);
            self.feed_forward(layer, s);
            self.add_and_norm(&layer.output_norm, s);
        }
    }

    /// `x = norm(token + position + type)`: the embedding of each token and of its place in its sentence. All are of the
    /// first type, which the positions include.
    fn embed(&self, sentences: &[&[u32]], s: &mut Scratch) {
        let width = self.config.embedding;
        let w = self.weights;
        s.x.reshape(sentences.iter().map(|ids| ids.len()).sum(), width);
        s.delta.resize(s.x.x().len(), 0.0);
        let places = sentences.iter().flat_map(|ids| ids.iter().zip(w.positions.chunks(width)));
        for ((&id, position), (x, token)) in
            places.zip(s.x.x_mut().chunks_mut(width).zip(s.delta.chunks_mut(width)))
        {
            w.tokens.decode_row(id as usize, token);
            x.copy_from_slice(position);
        }
        self.add_and_norm(&w.embedding_norm, s);
    }

    /// `delta = output(softmax(queries keys^T / sqrt(values per head)) values)`, each sentence by itself.
    fn attention(&self, layer: &Layer, sentences: &[&[u32]], s: &mut Scratch) {
        let Scratch { x, input, projected, attended, delta, workers, .. } = s;
        let (width, head) = (self.config.embedding, self.config.embedding / self.config.heads);
        projected.resize(x.tokens() * 3 * width, 0.0);
        copy(x, input);
        layer.query_key_value.forward(self.compute, input, projected);
        attended.reshape(x.tokens(), width);
        let mut out = attended.x_mut();
        let mut projected = &projected[..];
        for ids in sentences {
            let of_sentence = projected.split_off(..ids.len() * 3 * width).expect("rows of all sentences");
            let tokens = out.split_off_mut(..ids.len() * width).expect("rows of all sentences");
            let (out, tile) = (MatMut::new(tokens, width), (QUERIES, head));
            self.compute.pool.for_tiles(workers, out, tile, |worker, queries, columns, mut out| {
                let rows = of_sentence.chunks(3 * width);
                self.attend(rows, queries.start, columns.start, worker, &mut out);
            });
        }
        layer.attention_output.forward(self.compute, attended, delta);
    }

    /// The part of `attention` that one head does for some queries of a sentence, those from `first` on. The head's values
    /// begin at `column` in each of the three parts of `rows`.
    fn attend<'a>(
        &self,
        rows: impl ExactSizeIterator<Item = &'a [f32]> + Clone,
        first: usize,
        column: usize,
        worker: &mut Worker,
        out: &mut MatMut<'_>,
    ) {
        let k = self.compute.kernels;
        let (width, head) = (self.config.embedding, out.cols());
        let (queries, tokens) = (out.tokens(), rows.len());
        let part = |row: &'a [f32], part: usize| &row[part * width + column..][..head];
        let scale = 1.0 / (head as f32).sqrt();
        worker.queries.resize(queries * head, 0.0);
        for (scaled, row) in worker.queries.chunks_mut(head).zip(rows.clone().skip(first)) {
            scaled.iter_mut().zip(part(row, 0)).for_each(|(scaled, value)| *scaled = value * scale);
        }
        worker.keys.resize(tokens * head, 0.0);
        worker.values.resize(tokens * head, 0.0);
        for (t, (values, row)) in worker.values.chunks_mut(head).zip(rows).enumerate() {
            for (keys, value) in worker.keys.chunks_mut(tokens).zip(part(row, 1)) {
                keys[t] = *value;
            }
            values.copy_from_slice(part(row, 2));
        }
        worker.scores.resize(queries * tokens, 0.0);
        k.weighted_sum(
            &worker.queries,
            floats(tokens, &worker.keys),
            &mut MatMut::new(&mut worker.scores, tokens),
        );
        worker.scores.chunks_mut(tokens).for_each(|scores| k.softmax(scores));
        k.weighted_sum(&worker.scores, floats(head, &worker.values), out);
    }

    /// `delta = down(act(up(x)))`, of all neurons or of those that matter, whichever is faster.
    fn feed_forward(&self, layer: &Layer, s: &mut Scratch) {
        let tokens = s.x.tokens();
        copy(&s.x, &mut s.input);
        match &layer.sparse {
            Some(sparse) if tokens <= sparse.most => self.sparse(layer, &sparse.ffn, s),
            _ => self.dense(layer, s),
        }
    }

    /// `delta` of the neurons that the layer's selector chooses for each token of `input`.
    fn sparse(&self, layer: &Layer, ffn: &SparseFfn, s: &mut Scratch) {
        s.sparse.reserve_neurons(1, ffn.neurons());
        if ffn.selector().skips_first() || matches!(ffn.selector(), Selector::Dense) {
            s.input.quantize(self.compute.kernels);
            ffn.forward(self.compute, &s.input, BatchMode::Each, &mut s.sparse, &mut s.delta);
        } else {
            s.hidden.reshape(s.input.tokens(), self.config.feed_forward);
            layer.up.forward(self.compute, &mut s.input, s.hidden.x_mut());
            ffn.forward_from_up(self.compute, s.hidden.x(), &mut s.sparse, &mut s.delta);
        }
    }

    /// `delta` of all neurons for each token of `input`.
    fn dense(&self, layer: &Layer, s: &mut Scratch) {
        s.hidden.reshape(s.input.tokens(), self.config.feed_forward);
        layer.up.forward_activate(self.compute, &mut s.input, self.config.activation, s.hidden.x_mut());
        layer.down.forward(self.compute, &mut s.hidden, &mut s.delta);
    }

    /// `x = norm(x + delta)` for every token.
    fn add_and_norm(&self, norm: &Norm, s: &mut Scratch) {
        let (width, k) = (self.config.embedding, self.compute.kernels);
        let delta = &s.delta;
        let (out, tile) = (MatMut::new(s.x.x_mut(), width), (TOKENS, width));
        self.compute.pool.for_tiles(&mut s.workers, out, tile, |worker, tokens, _, mut out| {
            let sum = &mut worker.sum;
            for (row, t) in tokens.enumerate() {
                sum.clear();
                sum.extend_from_slice(&delta[t * width..][..width]);
                k.add(sum, out.row(row));
                k.layer_norm(sum, &norm.weight, &norm.bias, self.config.epsilon, out.row(row));
            }
        });
    }
}

fn copy(from: &Activations, to: &mut Activations) {
    to.reshape(from.tokens(), from.cols());
    to.x_mut().copy_from_slice(from.x());
}

/// Rows of `cols` values.
fn floats(cols: usize, values: &[f32]) -> Rows<'_> {
    Rows::new(BlockFormat::F32, cols, bytemuck::cast_slice(values)).expect("whole rows that are not empty")
}
