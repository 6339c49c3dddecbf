//! Activations to int8.

use super::load;
use crate::{Q8Mut, q8};
use core::arch::x86_64::*;

/// # Safety
/// As for [`Kernels::quantize`](crate::Kernels).
#[target_feature(enable = "sse4.1")]
pub(super) fn quantize(x: &[f32], out: &mut Q8Mut<'_>) {
    let parts = out.q.as_chunks_mut().0.iter_mut().zip(out.d.iter_mut()).zip(out.sums.as_chunks_mut().0);
    for (x, ((q, d), sums)) in x.as_chunks().0.iter().zip(parts) {
        *d = block(x, q, sums);
    }
}

/// Quantizes one block and returns its scale.
#[inline]
#[target_feature(enable = "sse4.1")]
fn block(x: &[f32; 32], q: &mut [i8; 32], sums: &mut [i16; 2]) -> f32 {
    let x = x.as_chunks().0;
    // Compared as integers, NaN is above infinity and infinity above the rest.
    let magnitude = _mm_set1_epi32(0x7FFF_FFFF);
    let mut max = _mm_setzero_si128();
    for x in x {
        max = _mm_max_epi32(max, _mm_and_si128(_mm_castps_si128(load::floats(x)), magnitude));
    }
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b01_00_11_10>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b00_00_00_01>(max));
    let (d, inverse) = q8::scale(f32::from_bits(_mm_cvtsi128_si32(max) as u32));
    if inverse == 0.0 {
        (*q, *sums) = ([0; 32], [0; 2]);
        return d;
    }
    let inverse = _mm_set1_ps(inverse);
    let mut fours = [_mm_setzero_si128(); 2];
    for (i, q) in q.as_chunks_mut().0.iter_mut().enumerate() {
        let mut codes = [_mm_setzero_si128(); 4];
        for (codes, x) in codes.iter_mut().zip(&x[4 * i..]) {
            *codes = _mm_cvtps_epi32(_mm_mul_ps(load::floats(x), inverse));
        }
        let [x0, x1, x2, x3] = codes;
        let codes = _mm_packs_epi16(_mm_packs_epi32(x0, x1), _mm_packs_epi32(x2, x3));
        load::store_bytes(codes, q);
        fours[i] = _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(1), codes), _mm_set1_epi16(1));
    }
    let eights = _mm_hadd_epi32(fours[0], fours[1]);
    let all = _mm_hadd_epi32(eights, eights);
    *sums = [_mm_extract_epi32::<0>(all) as i16, _mm_extract_epi32::<1>(all) as i16];
    d
}
