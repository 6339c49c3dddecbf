//! Activations to int8.

use super::load;
use crate::{Q8Mut, q8};
use core::arch::x86_64::*;

/// # Safety
/// As for [`Kernels::quantize`](crate::Kernels).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize(x: &[f32], out: &mut Q8Mut<'_>) {
    let parts = out.q.as_chunks_mut().0.iter_mut().zip(out.d.iter_mut()).zip(out.sums.as_chunks_mut().0);
    for (x, ((q, d), sums)) in x.as_chunks().0.iter().zip(parts) {
        *d = block(x, q, sums);
    }
}

/// Quantizes one block and returns its scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn block(x: &[f32; 32], q: &mut [i8; 32], sums: &mut [i16; 2]) -> f32 {
    let mut values = [_mm256_setzero_ps(); 4];
    for (value, x) in values.iter_mut().zip(x.as_chunks().0) {
        *value = load::floats(x);
    }
    // Compared as integers, NaN is above infinity and infinity above the rest.
    let magnitude = _mm256_set1_epi32(0x7FFF_FFFF);
    let mut max = _mm256_setzero_si256();
    for x in values {
        max = _mm256_max_epi32(max, _mm256_and_si256(_mm256_castps_si256(x), magnitude));
    }
    let max = _mm_max_epi32(_mm256_castsi256_si128(max), _mm256_extracti128_si256::<1>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b01_00_11_10>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b00_00_00_01>(max));
    let (d, inverse) = q8::scale(f32::from_bits(_mm_cvtsi128_si32(max) as u32));
    if inverse == 0.0 {
        (*q, *sums) = ([0; 32], [0; 2]);
        return d;
    }
    let inverse = _mm256_set1_ps(inverse);
    let mut codes = [_mm256_setzero_si256(); 4];
    for (code, x) in codes.iter_mut().zip(values) {
        *code = _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse));
    }
    let [x0, x1, x2, x3] = codes;
    // Packing works within 128-bit halves; the permutation puts the groups of four codes back into order.
    let packed = _mm256_packs_epi16(_mm256_packs_epi32(x0, x1), _mm256_packs_epi32(x2, x3));
    let codes = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    let pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), codes);
    let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    let eights = _mm256_add_epi32(fours, _mm256_shuffle_epi32::<0b01_00_11_10>(fours));
    let all = _mm256_add_epi32(eights, _mm256_shuffle_epi32::<0b00_00_00_01>(eights));
    *sums = [_mm256_extract_epi32::<0>(all) as i16, _mm256_extract_epi32::<4>(all) as i16];
    load::store_bytes(codes, q);
    d
}
