//! The forward pass, from token ids to logits.
//!
//! Read [`transform`] and [`head`], then the functions below them: this is the whole computation.

use std::ops::Range;

use sparse_core::{Activations, BatchMode};
use sparse_simd::{Kernels, MatMut};
use web_time::Instant;

use crate::Model;
use crate::state::{LayerState, State, group};
use crate::weights::{Attention, Layer, MixerWeights, Norm, ShortConv};

/// Called with what each layer's feed-forward network is given.
pub(crate) type Watch<'a> = dyn FnMut(usize, &Activations) + 'a;

/// Runs a batch through all layers; the result is in `residual`.
pub(crate) fn transform(model: &Model, s: &mut State, tokens: &[u32], watch: &mut Watch<'_>) {
    let n = tokens.len();
    embed(model, s, tokens);
    prepare_angles(model, s, n);
    for (i, layer) in model.weights().layers.iter().enumerate() {
        let start = Instant::now();
        normalize(model, s, layer.mixer_norm.as_ref(), 0..n);
        match &layer.mixer {
            MixerWeights::Attention(weights) => attention(model, s, i, weights, n),
            MixerWeights::ShortConv(weights) => short_conv(model, s, i, weights, n),
        }
        add_delta(model, s, layer.mixer_post_norm.as_ref(), n);
        let middle = Instant::now();
        normalize(model, s, layer.ffn_norm.as_ref(), 0..n);
        watch(i, &s.normed);
        feed_forward(model, s, i, layer, n);
        add_delta(model, s, layer.ffn_post_norm.as_ref(), n);
        if n == 1 {
            s.times.attention += middle - start;
            s.times.feed_forward += middle.elapsed();
        }
    }
    s.position += n;
}

/// What the head is given for the tokens in `range` of the last batch, in `normed`.
pub(crate) fn head_input(model: &Model, s: &mut State, range: Range<usize>) {
    normalize(model, s, Some(&model.weights().output_norm), range);
}

/// Logits of the tokens in `range` of the last batch, `[tokens x vocabulary]`.
pub(crate) fn head(model: &Model, s: &mut State, range: Range<usize>, logits: &mut [f32]) {
    head_input(model, s, range);
    self::logits(model, &s.normed, logits);
}

/// Logits of tokens whose head inputs are `x`, `[tokens x vocabulary]`.
pub(crate) fn logits(model: &Model, x: &Activations, logits: &mut [f32]) {
    let k = model.compute().kernels;
    model.head().matmul(model.compute(), x, logits);
    if let Some(bias) = &model.weights().head_bias {
        logits.chunks_mut(bias.len()).for_each(|logits| k.add(logits, bias));
    }
    if let Some(cap) = model.config().logit_softcap {
        sparse_core::soft_cap(k, cap, logits);
    }
}

/// `residual = embedding[token]`.
fn embed(model: &Model, s: &mut State, tokens: &[u32]) {
    let (width, scale) = (model.config().embedding, model.config().embedding_scale);
    for (x, &id) in s.residual.chunks_mut(width).zip(tokens) {
        model.weights().embedding.decode_row(id as usize, x);
        if scale != 1.0 {
            x.iter_mut().for_each(|x| *x *= scale);
        }
    }
}

/// Cosines and sines of the next `n` positions.
fn prepare_angles(model: &Model, s: &mut State, n: usize) {
    for ((frequencies, rope), angles) in
        model.weights().frequencies.iter().zip(&model.config().ropes).zip(&mut s.angles)
    {
        let frequencies = frequencies.of(s.context);
        let pairs = frequencies.len();
        for t in 0..n {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = ((s.position + t) as f32 * frequency).sin_cos();
                angles.cos[t * pairs + i] = cos * rope.magnitude;
                angles.sin[t * pairs + i] = sin * rope.magnitude;
            }
        }
    }
}

/// `normed = norm(residual)` for the tokens in `range`; without a norm it is the residual itself.
fn normalize(model: &Model, s: &mut State, norm: Option<&Norm>, range: Range<usize>) {
    let (k, width) = (model.compute().kernels, model.config().embedding);
    s.normed.reshape(range.len(), width);
    let x = &s.residual[range.start * width..range.end * width];
    match norm {
        Some(norm) => {
            for (x, out) in x.chunks(width).zip(s.normed.x_mut().chunks_mut(width)) {
                norm.apply(k, model.config().norm_epsilon, x, out);
            }
        }
        None => s.normed.x_mut().copy_from_slice(x),
    }
    s.normed.quantize(k);
}

/// `delta = attention(normed)`, and the batch's keys and values into the cache.
fn attention(model: &Model, s: &mut State, i: usize, layer: &Attention, n: usize) {
    let (spec, compute, epsilon) = (&layer.spec, model.compute(), model.config().norm_epsilon);
    let k = compute.kernels;
    let (q_width, kv_width) = (spec.query_width(), spec.kv_width());
    let (query, key) = (&mut s.query[..n * q_width], &mut s.key[..n * kv_width]);
    let value = &mut s.value[..n * kv_width];
    layer.query.forward(compute, &s.normed, query);
    layer.key.forward(compute, &s.normed, key);
    layer.value.forward(compute, &s.normed, value);
    for (norm, x) in [(&layer.query_norm, &mut *query), (&layer.key_norm, &mut *key)] {
        if let Some(norm) = norm {
            norm.apply_in_place(k, epsilon, x, &mut s.row);
        }
    }
    if let Some(rope) = spec.rope {
        let (rope, angles) = (&model.config().ropes[rope], &s.angles[rope]);
        let pairs = rope.dims / 2;
        for t in 0..n {
            let (cos, sin) = (&angles.cos[t * pairs..][..pairs], &angles.sin[t * pairs..][..pairs]);
            let queries = query[t * q_width..][..q_width].chunks_mut(spec.head_dim);
            let keys = key[t * kv_width..][..kv_width].chunks_mut(spec.head_dim);
            queries.chain(keys).for_each(|head| rope.rotate(k, head, cos, sin));
        }
    }
    let LayerState::Kv(cache) = &mut s.layers[i] else { unreachable!("made for this model") };
    let position = s.position;
    for (t, (key, value)) in key.chunks(kv_width).zip(value.chunks(kv_width)).enumerate() {
        cache.write(k, position + t, key, value);
    }

    // Heads that share keys and values are computed together, so that those are read once.
    let (group, cache, query) = (group(spec), &*cache, &*query);
    s.mixed.reshape(n, q_width);
    let (out, tile) = (MatMut::new(s.mixed.x_mut(), q_width), (group.tokens(), group.width()));
    compute.pool.for_tiles(&mut s.scratch, out, tile, |scratch, tokens, columns, mut out| {
        let head = columns.start / group.width();
        let first = |t: usize| spec.window.map_or(0, |w| (position + t + 1).saturating_sub(w));
        let rows = first(tokens.start)..position + tokens.end;
        let seen = |t: usize| {
            let t = tokens.start + t;
            first(t) - rows.start..position + t + 1 - rows.start
        };
        let queries = query.chunks(q_width).skip(tokens.start).map(|q| &q[columns.clone()]);
        group.attend(k, cache.rows(head, rows.clone()), seen, queries, scratch, &mut out);
    });
    if let Some(norm) = &layer.sub_norm {
        norm.apply_in_place(k, epsilon, s.mixed.x_mut(), &mut s.row);
    }
    s.mixed.quantize(k);
    layer.output.forward(compute, &s.mixed, &mut s.delta[..n * model.config().embedding]);
}

/// `delta = output(c * conv(b * x))` where `(b, c, x) = input(normed)`, per channel.
fn short_conv(model: &Model, s: &mut State, i: usize, layer: &ShortConv, n: usize) {
    let (compute, width) = (model.compute(), model.config().embedding);
    let projected = &mut s.query[..n * 3 * width];
    layer.input.forward(compute, &s.normed, projected);
    let LayerState::Conv(state) = &mut s.layers[i] else { unreachable!("made for this model") };
    s.mixed.reshape(n, width);
    for (projected, out) in projected.chunks_mut(3 * width).zip(s.mixed.x_mut().chunks_mut(width)) {
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
    s.mixed.quantize(compute.kernels);
    layer.output.forward(compute, &s.mixed, &mut s.delta[..n * width]);
}

/// `delta = ffn(normed)`, that is `down(act(gate(normed)) * up(normed))`, of the neurons that matter.
fn feed_forward(model: &Model, s: &mut State, i: usize, layer: &Layer, n: usize) {
    let width = model.config().embedding;
    if layer.ffn.has_predictor_input() {
        s.ffn_scratch.set_predictor_input(model.compute(), &s.residual[..n * width], width);
    }
    let out = &mut s.delta[..n * width];
    let counts = layer.ffn.forward(model.compute(), &s.normed, s.batch_mode, &mut s.ffn_scratch, out);
    if n == 1 || s.batch_mode == BatchMode::Masked {
        s.ffn_counts[i] += counts;
    }
}

/// `residual += scale * norm(delta)`.
fn add_delta(model: &Model, s: &mut State, norm: Option<&Norm>, n: usize) {
    let (k, c) = (model.compute().kernels, model.config());
    let values = n * c.embedding;
    let delta = &mut s.delta[..values];
    if let Some(norm) = norm {
        norm.apply_in_place(k, c.norm_epsilon, delta, &mut s.row);
    }
    k.axpy_f32(c.residual_scale, delta, &mut s.residual[..values]);
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
