//! Float weights, the KV cache's half-precision rows, norms and activations.

use crate::{MatMut, Rows};
use half::{bf16, f16};

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

fn matmul<const N: usize>(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>, value: impl Fn([u8; N]) -> f32) {
    for r in 0..w.rows() {
        let row = w.row(r).as_chunks::<N>().0;
        for (t, x) in x.chunks_exact(w.cols()).enumerate() {
            out.row(t)[r] = dot(x, row, &value);
        }
    }
}

pub(super) fn matmul_f32(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    matmul(w, x, out, f32::from_le_bytes);
}

pub(super) fn matmul_f16(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    matmul(w, x, out, |b| f16::from_le_bytes(b).to_f32());
}

pub(super) fn matmul_bf16(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    matmul(w, x, out, |b| bf16::from_le_bytes(b).to_f32());
}

pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b, |b| b)
}

pub(super) fn dot_f16(x: &[f32], w: &[f16]) -> f32 {
    dot(x, w, f16::to_f32)
}

pub(super) fn axpy_f32(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

pub(super) fn axpy_f16(a: f32, w: &[f16], y: &mut [f32]) {
    for (y, w) in y.iter_mut().zip(w) {
        *y += a * w.to_f32();
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

pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + libm::expf(-*g)) * u;
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
