//! The forward pass, from token ids to logits.
//!
//! Read [`transform`] and [`head`], then the functions below them: this is the whole computation.

use std::ops::Range;

use sparse_core::{Activations, BatchMode, Compute, ExpertFfn, FfnCounts, SparseFfn, StoredFfn};
use sparse_simd::{Kernels, MatMut};
use web_time::Instant;

use crate::attention::Seen;
use crate::sequence::LayerState;
use crate::weights::{Attention, Layer, MixerWeights, Norm, ShortConv};
use crate::workspace::{Row, Workspace, group};
use crate::{Error, FeedForward, Model, Sequence};

/// Called with what each layer's feed-forward network is given.
pub(crate) type Watch<'a> = dyn FnMut(usize, &Activations) + 'a;

/// The first tokens of a sequence that wait, for which it has room.
#[derive(Debug)]
pub(crate) struct Part<'a> {
    pub(crate) sequence: &'a mut Sequence,
    pub(crate) count: usize,
}

/// How a batch is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Tokens of one sequence, in the fastest way.
    Prompt,
    /// Each token as if it came alone, whatever sequence it is of.
    Steps,
}

/// What all functions of a pass share.
#[derive(Clone, Copy)]
struct Pass<'m> {
    model: &'m Model,
    compute: &'m Compute,
    mode: Mode,
}

/// Runs a batch through all layers; the result is in `residual`, part after part.
pub(crate) fn transform(
    model: &Model,
    w: &mut Workspace,
    parts: &mut [Part<'_>],
    mode: Mode,
    watch: &mut Watch<'_>,
) -> Result<(), Error> {
    let compute = if mode == Mode::Steps { model.step_compute() } else { model.compute() };
    let p = Pass { model, compute, mode };
    w.rows.clear();
    for (i, part) in parts.iter().enumerate() {
        let first = part.sequence.position;
        w.rows.extend((first..first + part.count).map(|position| Row { part: i, position }));
    }
    let n = w.rows.len();
    embed(p, w, parts);
    prepare_angles(p, w, parts);
    for (i, layer) in model.weights().layers.iter().enumerate() {
        let start = Instant::now();
        route_early(p, w, i, layer);
        normalize(p, w, layer.mixer_norm.as_ref(), 0..n);
        match &layer.mixer {
            MixerWeights::Attention(weights) => attention(p, w, parts, i, weights),
            MixerWeights::ShortConv(weights) => short_conv(p, w, parts, i, weights),
        }
        add_delta(p, w, layer.mixer_post_norm.as_ref());
        let middle = Instant::now();
        normalize(p, w, layer.ffn_norm.as_ref(), 0..n);
        watch(i, &w.normed);
        feed_forward(p, w, i, layer)?;
        add_delta(p, w, layer.ffn_post_norm.as_ref());
        if n == 1 {
            w.times.attention += middle - start;
            w.times.feed_forward += middle.elapsed();
        }
    }
    for part in parts {
        part.sequence.position += part.count;
    }
    Ok(())
}

/// What the head is given for the tokens in `range` of the last batch, in `normed`.
pub(crate) fn head_input(model: &Model, w: &mut Workspace, range: Range<usize>) {
    let p = Pass { model, compute: model.compute(), mode: Mode::Prompt };
    normalize(p, w, Some(&model.weights().output_norm), range);
}

/// Logits of the tokens in `range` of the last batch, `[tokens x vocabulary]`.
pub(crate) fn head(
    model: &Model,
    compute: &Compute,
    w: &mut Workspace,
    range: Range<usize>,
    logits: &mut [f32],
) {
    head_input(model, w, range);
    self::logits(model, compute, &w.normed, logits);
}

/// Logits of tokens whose head inputs are `x`, `[tokens x vocabulary]`.
pub(crate) fn logits(model: &Model, compute: &Compute, x: &Activations, logits: &mut [f32]) {
    let k = compute.kernels;
    model.head().matmul(compute, x, logits);
    if let Some(bias) = &model.weights().head_bias {
        logits.chunks_mut(bias.len()).for_each(|logits| k.add(logits, bias));
    }
    if let Some(cap) = model.config().logit_softcap {
        sparse_core::soft_cap(k, cap, logits);
    }
}

/// `residual = embedding[token]`.
fn embed(p: Pass<'_>, w: &mut Workspace, parts: &[Part<'_>]) {
    let (width, scale) = (p.model.config().embedding, p.model.config().embedding_scale);
    for (x, row) in w.residual.chunks_mut(width).zip(&w.rows) {
        let token = parts[row.part].sequence.tokens[row.position];
        p.model.weights().embedding.decode_row(token as usize, x);
        if scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// Cosines and sines of the positions.
fn prepare_angles(p: Pass<'_>, w: &mut Workspace, parts: &[Part<'_>]) {
    for ((frequencies, rope), angles) in
        p.model.weights().frequencies.iter().zip(&p.model.config().ropes).zip(&mut w.angles)
    {
        for (t, row) in w.rows.iter().enumerate() {
            let frequencies = frequencies.of(parts[row.part].sequence.context());
            let pairs = frequencies.len();
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (row.position as f32 * frequency).sin_cos();
                angles.cos[t * pairs + i] = cos * rope.magnitude;
                angles.sin[t * pairs + i] = sin * rope.magnitude;
            }
        }
    }
}

/// `normed = norm(residual)` for the tokens in `range`; without a norm it is the residual itself.
fn normalize(p: Pass<'_>, w: &mut Workspace, norm: Option<&Norm>, range: Range<usize>) {
    let (k, width) = (p.compute.kernels, p.model.config().embedding);
    w.normed.reshape(range.len(), width);
    let x = &w.residual[range.start * width..range.end * width];
    match norm {
        Some(norm) => {
            for (x, out) in x.chunks(width).zip(w.normed.x_mut().chunks_mut(width)) {
                norm.apply(k, p.model.config().norm_epsilon, x, out);
            }
        }
        None => w.normed.x_mut().copy_from_slice(x),
    }
    w.normed.quantize(k);
}

/// `delta = attention(normed)`, and the batch's keys and values into the caches.
fn attention(p: Pass<'_>, w: &mut Workspace, parts: &mut [Part<'_>], i: usize, layer: &Attention) {
    let (spec, compute, epsilon) = (&layer.spec, p.compute, p.model.config().norm_epsilon);
    let (k, n) = (compute.kernels, w.rows.len());
    let (q_width, kv_width) = (spec.query_width(), spec.kv_width());
    let (query, key) = (&mut w.query[..n * q_width], &mut w.key[..n * kv_width]);
    let value = &mut w.value[..n * kv_width];
    layer.query.forward(compute, &w.normed, query);
    layer.key.forward(compute, &w.normed, key);
    layer.value.forward(compute, &w.normed, value);
    for (norm, x) in [(&layer.query_norm, &mut *query), (&layer.key_norm, &mut *key)] {
        if let Some(norm) = norm {
            norm.apply_in_place(k, epsilon, x, &mut w.row);
        }
    }
    if let Some(rope) = spec.rope {
        let (rope, angles) = (&p.model.config().ropes[rope], &w.angles[rope]);
        let pairs = rope.dims / 2;
        for t in 0..n {
            let (cos, sin) = (&angles.cos[t * pairs..][..pairs], &angles.sin[t * pairs..][..pairs]);
            let queries = query[t * q_width..][..q_width].chunks_mut(spec.head_dim);
            let keys = key[t * kv_width..][..kv_width].chunks_mut(spec.head_dim);
            queries.chain(keys).for_each(|head| rope.rotate(k, head, cos, sin));
        }
    }
    for (row, (key, value)) in w.rows.iter().zip(key.chunks(kv_width).zip(value.chunks(kv_width))) {
        let LayerState::Kv(cache) = &mut parts[row.part].sequence.layers[i] else {
            unreachable!("made for this model")
        };
        cache.write(k, row.position, key, value);
    }

    // Heads that share keys and values are computed together, so that those are read once.
    let (group, parts, query, rows) = (group(spec), &*parts, &*query, &w.rows);
    let batch = p.mode == Mode::Prompt;
    w.mixed.reshape(n, q_width);
    let tile = (if batch { group.tokens() } else { 1 }, group.width());
    compute.pool.for_tiles(
        &mut w.scratch,
        MatMut::new(w.mixed.x_mut(), q_width),
        tile,
        |scratch, tokens, columns, mut out| {
            let Row { part, position } = rows[tokens.start];
            let LayerState::Kv(cache) = &parts[part].sequence.layers[i] else {
                unreachable!("made for this model")
            };
            let first = |t: usize| spec.window.map_or(0, |w| (position + t + 1).saturating_sub(w));
            let positions = first(0)..position + tokens.len();
            let seen = |t: usize| first(t) - positions.start..position + t + 1 - positions.start;
            let queries = query.chunks(q_width).skip(tokens.start).map(|q| &q[columns.clone()]);
            let heads = columns.start / spec.head_dim..columns.end / spec.head_dim;
            let cached = Seen {
                cache,
                head: columns.start / group.width(),
                positions: positions.clone(),
                sinks: layer.sinks.get(heads).unwrap_or_default(),
            };
            group.attend(k, &cached, seen, queries, batch, scratch, &mut out);
        },
    );
    if let Some(norm) = &layer.sub_norm {
        norm.apply_in_place(k, epsilon, w.mixed.x_mut(), &mut w.row);
    }
    w.mixed.quantize(k);
    layer.output.forward(compute, &w.mixed, &mut w.delta[..n * p.model.config().embedding]);
}

/// `delta = output(c * conv(b * x))` where `(b, c, x) = input(normed)`, per channel.
fn short_conv(p: Pass<'_>, w: &mut Workspace, parts: &mut [Part<'_>], i: usize, layer: &ShortConv) {
    let (compute, width, n) = (p.compute, p.model.config().embedding, w.rows.len());
    let projected = &mut w.query[..n * 3 * width];
    layer.input.forward(compute, &w.normed, projected);
    w.mixed.reshape(n, width);
    let outs = w.mixed.x_mut().chunks_mut(width);
    for ((projected, out), row) in projected.chunks_mut(3 * width).zip(outs).zip(&w.rows) {
        let LayerState::Conv(state) = &mut parts[row.part].sequence.layers[i] else {
            unreachable!("made for this model")
        };
        let (b, rest) = projected.split_at_mut(width);
        let (c, x) = rest.split_at(width);
        b.iter_mut().zip(x).for_each(|(b, x)| *b *= x);
        let seen = state.push(b);
        out.fill(0.0);
        for (taps, z) in layer.taps.chunks(width).zip(seen.chunks(width)) {
            out.iter_mut().zip(taps.iter().zip(z)).for_each(|(y, (w, z))| *y += w * z);
        }
        out.iter_mut().zip(c).for_each(|(y, c)| *y *= c);
    }
    w.mixed.quantize(compute.kernels);
    layer.output.forward(compute, &w.mixed, &mut w.delta[..n * width]);
}

/// `delta = ffn(normed)`, of the neurons that matter.
fn feed_forward(p: Pass<'_>, w: &mut Workspace, i: usize, layer: &Layer) -> Result<(), Error> {
    let mode = if p.mode == Mode::Steps { BatchMode::Each } else { w.batch_mode };
    let counts = match &layer.ffn {
        FeedForward::Network(ffn) => network(p, w, i, ffn, mode),
        FeedForward::Experts(ffn) => experts(p, w, i, ffn, mode)?,
        FeedForward::Stored(ffn) => stored(p, w, i, ffn, mode)?,
    };
    if matches!(mode, BatchMode::Each | BatchMode::Masked) {
        w.ffn_counts[i] += counts;
    }
    Ok(())
}

/// `delta = down(act(gate(normed)) * up(normed))`.
fn network(p: Pass<'_>, w: &mut Workspace, i: usize, ffn: &SparseFfn, mode: BatchMode) -> FfnCounts {
    let (width, n) = (p.model.config().embedding, w.rows.len());
    if ffn.has_predictor_input() {
        w.ffn_scratch.set_predictor_input(p.compute, &w.residual[..n * width], width);
    }
    let counts = ffn.forward(p.compute, &w.normed, mode, &mut w.ffn_scratch, &mut w.delta[..n * width]);
    if let (1, Some(neurons)) = (n, &mut w.neurons) {
        w.ffn_scratch.last_hidden(&mut neurons[i]);
    }
    counts
}

/// The same of a network whose neurons are read when a token needs them.
fn stored(
    p: Pass<'_>,
    w: &mut Workspace,
    i: usize,
    ffn: &StoredFfn,
    mode: BatchMode,
) -> Result<FfnCounts, Error> {
    let (width, n) = (p.model.config().embedding, w.rows.len());
    if let Some(next) = p.model.weights().layers.get(i + 1).and_then(|layer| layer.ffn.stored()) {
        next.read_ahead(p.compute, &w.normed, &mut w.ffn_scratch);
    }
    if ffn.has_predictor_input() {
        w.ffn_scratch.set_predictor_input(p.compute, &w.residual[..n * width], width);
    }
    let counts = ffn.forward(p.compute, &w.normed, mode, &mut w.ffn_scratch, &mut w.delta[..n * width])?;
    if let (1, Some(neurons)) = (n, &mut w.neurons) {
        w.ffn_scratch.last_hidden(&mut neurons[i]);
    }
    Ok(counts)
}

/// `delta` = sum of `weight * expert(normed)`, of the experts that the router chooses.
fn experts(
    p: Pass<'_>,
    w: &mut Workspace,
    i: usize,
    ffn: &ExpertFfn,
    mode: BatchMode,
) -> Result<FfnCounts, Error> {
    // How many tokens an expert gets depends on the others: no token's bits may.
    let compute = p.model.step_compute();
    if !routed_early(p, i) {
        ffn.route(compute, &w.normed, &mut w.expert_scratch);
        let next = p.model.weights().layers.get(i + 1).and_then(|layer| layer.ffn.experts());
        ffn.read_ahead(compute, next.map(|next| (next, &w.normed)), &mut w.expert_scratch);
    }
    let values = w.rows.len() * p.model.config().embedding;
    Ok(ffn.forward(compute, &w.normed, mode, &mut w.expert_scratch, &mut w.delta[..values])?)
}

/// Chooses a layer's experts by its input, if that is what its router reads.
fn route_early(p: Pass<'_>, w: &mut Workspace, i: usize, layer: &Layer) {
    if let (FeedForward::Experts(ffn), true) = (&layer.ffn, routed_early(p, i)) {
        normalize(p, w, None, 0..w.rows.len());
        ffn.route(p.model.step_compute(), &w.normed, &mut w.expert_scratch);
        ffn.read_ahead(p.model.step_compute(), None, &mut w.expert_scratch);
    }
}

fn routed_early(p: Pass<'_>, i: usize) -> bool {
    p.model.config().layers[i].feed_forward.experts.as_ref().is_some_and(|experts| experts.routed_early)
}

/// `residual += scale * norm(delta)`.
fn add_delta(p: Pass<'_>, w: &mut Workspace, norm: Option<&Norm>) {
    let (k, c) = (p.compute.kernels, p.model.config());
    let values = w.rows.len() * c.embedding;
    let delta = &mut w.delta[..values];
    if let Some(norm) = norm {
        norm.apply_in_place(k, c.norm_epsilon, delta, &mut w.row);
    }
    k.axpy_f32(c.residual_scale, delta, &mut w.residual[..values]);
}

impl Norm {
    /// `out = norm(x) * weight + bias`, of one vector.
    fn apply(&self, k: &Kernels, epsilon: f32, x: &[f32], out: &mut [f32]) {
        match &self.bias {
            Some(bias) => k.layer_norm(x, &self.weight, bias, epsilon, out),
            None => k.rms_norm(x, &self.weight, epsilon, out),
        }
    }

    /// Normalizes each vector of `x`; `row` has room for one.
    fn apply_in_place(&self, k: &Kernels, epsilon: f32, x: &mut [f32], row: &mut [f32]) {
        let width = self.weight.len();
        let row = &mut row[..width];
        for x in x.chunks_mut(width) {
            row.copy_from_slice(x);
            self.apply(k, epsilon, row, x);
        }
    }
}
