//! Products of float weights with f32 activations, and the KV cache's half-precision rows.

use super::load::{self, floats, half_to_float, part, part_halves, sum};
use super::product::{self, Product};
use crate::{MatMut, Rows};
use bytemuck::{Pod, Zeroable};
use core::arch::x86_64::*;
use core::marker::PhantomData;
use half::f16;

/// How weights are stored.
pub(super) trait Weights {
    /// Sixteen weights as bytes.
    type Sixteen: Pod;

    /// # Safety
    /// - The CPU has SSE4.1.
    unsafe fn load(w: &Self::Sixteen) -> [__m128; 4];
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

impl Weights for F32 {
    type Sixteen = [[u8; 16]; 4];

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn load(w: &[[u8; 16]; 4]) -> [__m128; 4] {
        let mut out = [_mm_setzero_ps(); 4];
        for (out, w) in out.iter_mut().zip(w) {
            *out = _mm_castsi128_ps(load::bytes16(w));
        }
        out
    }
}

impl Weights for F16 {
    type Sixteen = [[u8; 16]; 2];

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn load(w: &[[u8; 16]; 2]) -> [__m128; 4] {
        let [a, b, c, d] = upper_halves(w);
        [half_to_float(a), half_to_float(b), half_to_float(c), half_to_float(d)]
    }
}

impl Weights for Bf16 {
    type Sixteen = [[u8; 16]; 2];

    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn load(w: &[[u8; 16]; 2]) -> [__m128; 4] {
        let [a, b, c, d] = upper_halves(w);
        [_mm_castsi128_ps(a), _mm_castsi128_ps(b), _mm_castsi128_ps(c), _mm_castsi128_ps(d)]
    }
}

/// Sixteen values of 16 bits as the upper halves of 32.
#[inline]
#[target_feature(enable = "sse4.1")]
fn upper_halves(w: &[[u8; 16]; 2]) -> [__m128i; 4] {
    let (zero, a, b) = (_mm_setzero_si128(), load::bytes16(&w[0]), load::bytes16(&w[1]));
    [
        _mm_unpacklo_epi16(zero, a),
        _mm_unpackhi_epi16(zero, a),
        _mm_unpacklo_epi16(zero, b),
        _mm_unpackhi_epi16(zero, b),
    ]
}

struct Floats<'a, W> {
    w: Rows<'a>,
    x: &'a [f32],
    storage: PhantomData<W>,
}

impl<W: Weights> Product for Floats<'_, W> {
    #[inline]
    #[target_feature(enable = "sse4.1")]
    unsafe fn dot<const R: usize, const T: usize>(&self, r: [usize; R], t: usize) -> [[f32; T]; R] {
        let mut rows: [&[u8]; R] = [&[]; R];
        for (row, r) in rows.iter_mut().zip(r) {
            *row = self.w.row(r);
        }
        let mut tokens: [&[f32]; T] = [&[]; T];
        for (token, x) in tokens.iter_mut().zip(self.x.chunks_exact(self.w.cols()).skip(t)) {
            *token = x;
        }
        dot::<W, R, T>(rows, tokens)
    }
}

/// # Safety
/// As for [`MatmulF32`](crate::kernels::MatmulF32).
#[target_feature(enable = "sse4.1")]
pub(super) fn matmul<W: Weights>(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    product::write(&Floats::<W> { w, x, storage: PhantomData }, out);
}

/// `R` rows times `T` tokens.
///
/// Arrays are filled by loops here: closures that need CPU features do not get inlined into `map` and `from_fn`,
/// which have none.
#[inline]
#[target_feature(enable = "sse4.1")]
fn dot<W: Weights, const R: usize, const T: usize>(rows: [&[u8]; R], x: [&[f32]; T]) -> [[f32; T]; R] {
    let blocks = x[0].len() / 16;
    let bytes = blocks * size_of::<W::Sixteen>();
    let mut weights: [&[W::Sixteen]; R] = [&[]; R];
    for (weights, row) in weights.iter_mut().zip(rows) {
        *weights = bytemuck::cast_slice(&row[..bytes]);
    }
    let mut values: [&[[f32; 16]]; T] = [&[]; T];
    for (values, x) in values.iter_mut().zip(x) {
        *values = &x.as_chunks().0[..blocks];
    }
    let mut sums = [[_mm_setzero_ps(); T]; R];
    for i in 0..blocks {
        for r in 0..R {
            // SAFETY: this function asks for the same features.
            let w = unsafe { W::load(&weights[r][i]) };
            for t in 0..T {
                sums[r][t] = _mm_add_ps(sums[r][t], products(w, &values[t][i]));
            }
        }
    }
    if !x[0].len().is_multiple_of(16) {
        for r in 0..R {
            let mut rest = W::Sixteen::zeroed();
            let left = &rows[r][bytes..];
            bytemuck::bytes_of_mut(&mut rest)[..left.len()].copy_from_slice(left);
            // SAFETY: as above.
            let w = unsafe { W::load(&rest) };
            for t in 0..T {
                let mut rest = [0.0; 16];
                let left = &x[t][blocks * 16..];
                rest[..left.len()].copy_from_slice(left);
                sums[r][t] = _mm_add_ps(sums[r][t], products(w, &rest));
            }
        }
    }
    let mut out = [[0.0; T]; R];
    for (out, sums) in out.iter_mut().flatten().zip(sums.iter().flatten()) {
        *out = sum(*sums);
    }
    out
}

/// The products of sixteen values, in four sums.
#[inline]
#[target_feature(enable = "sse4.1")]
fn products(w: [__m128; 4], x: &[f32; 16]) -> __m128 {
    let x = x.as_chunks().0;
    let first = _mm_add_ps(_mm_mul_ps(w[0], floats(&x[0])), _mm_mul_ps(w[1], floats(&x[1])));
    let second = _mm_add_ps(_mm_mul_ps(w[2], floats(&x[2])), _mm_mul_ps(w[3], floats(&x[3])));
    _mm_add_ps(first, second)
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    dot::<F32, 1, 1>([bytemuck::cast_slice(a)], [b])[0][0]
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn dot_f16(x: &[f32], w: &[f16]) -> f32 {
    dot::<F16, 1, 1>([bytemuck::cast_slice(w)], [x])[0][0]
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn axpy_f16(a: f32, w: &[f16], y: &mut [f32]) {
    let a = _mm_set1_ps(a);
    let (w, w_rest) = w.as_chunks();
    let (y, y_rest) = y.as_chunks_mut();
    for (y, w) in y.iter_mut().zip(w) {
        load::store(_mm_add_ps(_mm_mul_ps(a, load::halves(w)), floats(y)), y);
    }
    if !y_rest.is_empty() {
        load::store_part(_mm_add_ps(_mm_mul_ps(a, part_halves(w_rest)), part(y_rest, 0.0)), y_rest);
    }
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn to_f16(x: &[f32], out: &mut [f16]) {
    let (x, x_rest) = x.as_chunks();
    let (out, out_rest) = out.as_chunks_mut();
    for (x, out) in x.iter().zip(out) {
        load::store_halves(floats(x), out);
    }
    let mut rest = [f16::ZERO; 4];
    load::store_halves(part(x_rest, 0.0), &mut rest);
    out_rest.copy_from_slice(&rest[..out_rest.len()]);
}
