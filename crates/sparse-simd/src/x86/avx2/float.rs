//! Products of float weights with f32 activations, and the KV cache's half-precision rows.

use super::load::{self, floats, halves, part, part_halves, sum};
use super::rows::update;
use crate::{MatMut, Rows};
use bytemuck::{Pod, Zeroable};
use core::arch::x86_64::*;
use half::f16;

/// Tokens per tile of a batch: weights are loaded once for all of them.
const TOKENS: usize = 4;

/// How weights are stored.
pub(super) trait Weights {
    /// Eight weights as bytes.
    type Eight: Pod;

    /// # Safety
    /// - The CPU has AVX2, FMA and F16C.
    unsafe fn load(w: &Self::Eight) -> __m256;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct Bf16;

impl Weights for F32 {
    type Eight = [u8; 32];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(w: &[u8; 32]) -> __m256 {
        _mm256_castsi256_ps(load::bytes32(w))
    }
}

impl Weights for F16 {
    type Eight = [u8; 16];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(w: &[u8; 16]) -> __m256 {
        _mm256_cvtph_ps(load::bytes16(w))
    }
}

impl Weights for Bf16 {
    type Eight = [u8; 16];

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load(w: &[u8; 16]) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load::bytes16(w))))
    }
}

/// # Safety
/// As for [`MatmulF32`](crate::kernels::MatmulF32).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul<W: Weights>(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
    let half = w.rows() / 2;
    for r in 0..half {
        columns::<W, 2>(w, [r, half + r], x, out);
    }
    if 2 * half < w.rows() {
        columns::<W, 1>(w, [2 * half], x, out);
    }
}

// Below, arrays are filled by loops: closures that need CPU features do not get inlined into `map` and `from_fn`,
// which have none.

/// Rows `r` times all tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn columns<W: Weights, const R: usize>(w: Rows<'_>, r: [usize; R], x: &[f32], out: &mut MatMut<'_>) {
    let mut rows: [&[u8]; R] = [&[]; R];
    for i in 0..R {
        rows[i] = w.row(r[i]);
    }
    let tiles = out.tokens() / TOKENS * TOKENS;
    for t in (0..tiles).step_by(TOKENS) {
        let mut tile: [&[f32]; TOKENS] = [&[]; TOKENS];
        for (tile, x) in tile.iter_mut().zip(x[t * w.cols()..].chunks_exact(w.cols())) {
            *tile = x;
        }
        let sums = dot::<W, R, TOKENS>(&rows, &tile);
        for i in 0..TOKENS {
            let out = out.row(t + i);
            for (r, sums) in r.iter().zip(&sums) {
                out[*r] = sums[i];
            }
        }
    }
    for t in tiles..out.tokens() {
        let sums = dot::<W, R, 1>(&rows, &[&x[t * w.cols()..][..w.cols()]]);
        let out = out.row(t);
        for (r, [sum]) in r.iter().zip(&sums) {
            out[*r] = *sum;
        }
    }
}

/// `R` rows times `T` tokens.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<W: Weights, const R: usize, const T: usize>(rows: &[&[u8]; R], x: &[&[f32]; T]) -> [[f32; T]; R] {
    let blocks = x[0].len() / 8;
    let bytes = blocks * size_of::<W::Eight>();
    let mut weights: [&[W::Eight]; R] = [&[]; R];
    let mut x_blocks: [&[[f32; 8]]; T] = [&[]; T];
    for r in 0..R {
        weights[r] = bytemuck::cast_slice(&rows[r][..bytes]);
    }
    for t in 0..T {
        x_blocks[t] = x[t].as_chunks().0;
    }
    let mut sums = [[_mm256_setzero_ps(); T]; R];
    for i in 0..blocks {
        for r in 0..R {
            // SAFETY: this function asks for the same features.
            let w = unsafe { W::load(&weights[r][i]) };
            for t in 0..T {
                sums[r][t] = _mm256_fmadd_ps(w, floats(&x_blocks[t][i]), sums[r][t]);
            }
        }
    }
    if !x[0].len().is_multiple_of(8) {
        for r in 0..R {
            let mut rest = W::Eight::zeroed();
            let left = &rows[r][bytes..];
            bytemuck::bytes_of_mut(&mut rest)[..left.len()].copy_from_slice(left);
            // SAFETY: as above.
            let w = unsafe { W::load(&rest) };
            for t in 0..T {
                sums[r][t] = _mm256_fmadd_ps(w, part(&x[t][blocks * 8..], 0.0), sums[r][t]);
            }
        }
    }
    let mut out = [[0.0; T]; R];
    for (out, sums) in out.iter_mut().zip(&sums) {
        for (out, sums) in out.iter_mut().zip(sums) {
            *out = sum(*sums);
        }
    }
    out
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let mut sums = [_mm256_mul_ps(part(a_rest, 0.0), part(b_rest, 0.0)), _mm256_setzero_ps()];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        sums[i % 2] = _mm256_fmadd_ps(floats(a), floats(b), sums[i % 2]);
    }
    sum(_mm256_add_ps(sums[0], sums[1]))
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot_f16(x: &[f32], w: &[f16]) -> f32 {
    let ((x, x_rest), (w, w_rest)) = (x.as_chunks(), w.as_chunks());
    let mut sums = [_mm256_mul_ps(part(x_rest, 0.0), part_halves(w_rest)), _mm256_setzero_ps()];
    for (i, (x, w)) in x.iter().zip(w).enumerate() {
        sums[i % 2] = _mm256_fmadd_ps(floats(x), halves(w), sums[i % 2]);
    }
    sum(_mm256_add_ps(sums[0], sums[1]))
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn axpy_f32(a: f32, x: &[f32], y: &mut [f32]) {
    let a = _mm256_set1_ps(a);
    update(y, x, |y, x| _mm256_fmadd_ps(a, x, y));
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn axpy_f16(a: f32, w: &[f16], y: &mut [f32]) {
    let a = _mm256_set1_ps(a);
    let (w, w_rest) = w.as_chunks();
    let (y, y_rest) = y.as_chunks_mut();
    for (y, w) in y.iter_mut().zip(w) {
        load::store(_mm256_fmadd_ps(a, halves(w), floats(y)), y);
    }
    if !y_rest.is_empty() {
        load::store_part(_mm256_fmadd_ps(a, part_halves(w_rest), part(y_rest, 0.0)), y_rest);
    }
}

/// # Safety
/// As for the field of [`Kernels`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn to_f16(x: &[f32], out: &mut [f16]) {
    let (x, x_rest) = x.as_chunks();
    let (out, out_rest) = out.as_chunks_mut();
    for (x, out) in x.iter().zip(out) {
        load::store_halves(floats(x), out);
    }
    let mut rest = [f16::ZERO; 8];
    load::store_halves(part(x_rest, 0.0), &mut rest);
    out_rest.copy_from_slice(&rest[..out_rest.len()]);
}
