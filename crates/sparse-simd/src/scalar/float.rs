//! Float weights, the KV cache's half-precision rows, norms and activations.

use crate::activation::{TANH_FORM, TANH_FORM_CUBE};
use crate::layout::Float;
use crate::{Activation, BlockFormat, Columns, MatMut, Rows};
use core::ops::Range;
use half::f16;

/// Sum of `x[i] * value(w[i])`, in eight partial sums so that compilers can use vectors.
fn dot<W: Copy>(x: &[f32], w: &[W], value: impl Fn(W) -> f32) -> f32 {
    let mut sums = [0.0f32; 8];
    for (x, w) in x.chunks(8).zip(w.chunks(8)) {
        for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
            *sum += x * value(w);
        }
    }
    sums.iter().sum()
}

pub(super) fn matmul<W: Float>(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    for r in 0..w.rows() {
        let row = bytemuck::cast_slice(w.row(r));
        for (t, x) in x.chunks_exact(w.cols()).enumerate() {
            out.row(t)[r] = dot(x, row, W::value);
        }
    }
}

pub(super) fn matmul_rows<W: Float>(w: Rows<'_>, active: &[u32], x: &[f32], out: &mut [f32]) {
    for (r, out) in active.iter().zip(out.chunks_mut(1)) {
        matmul::<W>(w.slice(*r as usize..*r as usize + 1), x, &mut MatMut::new(out, 1));
    }
}

pub(super) fn axpy_columns<W: Float>(
    w: Columns<'_>,
    active: &[u32],
    h: &[f32],
    rows: Range<usize>,
    out: &mut [f32],
) {
    out.fill(0.0);
    for &c in active {
        let (h, column) = (h[c as usize], bytemuck::cast_slice(w.column(c as usize)));
        for (y, w) in out.iter_mut().zip(&column[rows.clone()]) {
            *y += h * W::value(*w);
        }
    }
}

pub(super) fn weighted_sum(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>) {
    for t in 0..out.tokens() {
        let out = out.row(t);
        out.fill(0.0);
        for (r, x) in x[t * w.rows()..][..w.rows()].iter().enumerate() {
            add_row(*x, w.format(), w.row(r), out);
        }
    }
}

pub(super) fn add_rows(w: Rows<'_>, active: &[u32], h: &[f32], cols: Range<usize>, out: &mut [f32]) {
    let (len, bytes) = (w.format().block_len(), w.format().block_bytes());
    for (r, h) in active.iter().zip(h) {
        let row = &w.row(*r as usize)[cols.start / len * bytes..cols.end / len * bytes];
        add_row(*h, w.format(), row, out);
    }
}

/// `out += h * row`.
fn add_row(h: f32, format: BlockFormat, row: &[u8], out: &mut [f32]) {
    /// A multiple of every block length.
    const STRIP: usize = 256;
    let bytes = STRIP / format.block_len() * format.block_bytes();
    for (out, row) in out.chunks_mut(STRIP).zip(row.chunks(bytes)) {
        let mut values = [0.0; STRIP];
        let values = &mut values[..out.len()];
        format.decode(row, values).expect("whole blocks, as many as there are columns");
        axpy_f32(h, values, out);
    }
}

pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b, |b| b)
}

pub(super) fn axpy_f32(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

pub(super) fn to_f16(x: &[f32], out: &mut [f16]) {
    for (y, &x) in out.iter_mut().zip(x) {
        *y = f16::from_f32(x);
    }
}

pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let factor = 1.0 / libm::sqrtf(dot_f32(x, x) / x.len() as f32 + eps);
    for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
        *y = x * factor * w;
    }
}

pub(super) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    // In f64: the deviations of values far from zero are no better than the mean.
    let mean = (x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64) as f32;
    for (y, x) in out.iter_mut().zip(x) {
        *y = x - mean;
    }
    let factor = 1.0 / libm::sqrtf(dot_f32(out, out) / n + eps);
    for ((y, w), b) in out.iter_mut().zip(weight).zip(bias) {
        *y = *y * factor * w + b;
    }
}

pub(super) fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for x in x.iter_mut() {
        *x = libm::expf(*x - max);
        sum += *x;
    }
    for x in x {
        *x /= sum;
    }
}

/// The exponential is of `-|x|`, so that neither end loses digits.
fn sigmoid(x: f32) -> f32 {
    let e = libm::expf(-x.abs());
    if x < 0.0 { e / (1.0 + e) } else { 1.0 / (1.0 + e) }
}

fn evaluate(f: Activation, x: f32) -> f32 {
    match f {
        Activation::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        Activation::Exp => libm::expf(x),
        Activation::Tanh => libm::tanhf(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::Silu => x * sigmoid(x),
        // In f64, as the tail's relative error grows with the square of x.
        Activation::Gelu => x * (0.5 * libm::erfc(f64::from(x) * -core::f64::consts::FRAC_1_SQRT_2)) as f32,
        Activation::GeluTanh => x * sigmoid(x * (x * x * TANH_FORM_CUBE + TANH_FORM)),
    }
}

pub(super) fn activate(f: Activation, x: &mut [f32]) {
    for x in x {
        *x = evaluate(f, *x);
    }
}

pub(super) fn activate_mul(f: Activation, gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = evaluate(f, *g) * u;
    }
}

pub(super) fn add(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

pub(super) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, c), s) in x.as_chunks_mut::<2>().0.iter_mut().zip(cos).zip(sin) {
        *pair = [pair[0] * c - pair[1] * s, pair[0] * s + pair[1] * c];
    }
}

pub(super) fn rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (a, b) = x.split_at_mut(cos.len());
    for (((a, b), c), s) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        (*a, *b) = (*a * c - *b * s, *a * s + *b * c);
    }
}
