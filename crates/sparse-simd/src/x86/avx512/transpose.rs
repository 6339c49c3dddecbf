//! Transposition of 16 x 16 dwords, and sums across lanes that are a part of it.

use core::arch::x86_64::*;

/// `result[i]` holds lane `i` of every vector of `rows`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn transpose(rows: &[__m512i; 16]) -> [__m512i; 16] {
    let mut a = *rows;
    let mut b = [_mm512_setzero_si512(); 16];
    // Pairs of rows, then fours: 4 x 4 dwords are transposed inside each 128-bit lane.
    for i in (0..16).step_by(2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for i in (0..16).step_by(4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    // a[4 g + i], lane l: column 4 l + i of rows 4 g... Lanes to rows, in two steps.
    for i in 0..4 {
        for pair in [0, 8] {
            b[pair + i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a[pair + i], a[pair + 4 + i]);
            b[pair + 4 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a[pair + i], a[pair + 4 + i]);
        }
    }
    for i in 0..4 {
        a[i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(b[i], b[8 + i]);
        a[8 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(b[i], b[8 + i]);
        a[4 + i] = _mm512_shuffle_i32x4::<0b10_00_10_00>(b[4 + i], b[12 + i]);
        a[12 + i] = _mm512_shuffle_i32x4::<0b11_01_11_01>(b[4 + i], b[12 + i]);
    }
    a
}

/// The sum of the lanes of each vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn totals(rows: &[__m512; 16]) -> [f32; 16] {
    let mut sums = *rows;
    // Each step adds halves of two vectors into one, as a transposition would interleave them.
    for i in 0..8 {
        let (a, b) = (sums[2 * i], sums[2 * i + 1]);
        sums[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    }
    for i in 0..4 {
        let (a, b) = (_mm512_castps_pd(sums[2 * i]), _mm512_castps_pd(sums[2 * i + 1]));
        let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
        sums[i] = _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
    }
    for n in [2, 1] {
        for i in 0..n {
            let (a, b) = (sums[2 * i], sums[2 * i + 1]);
            let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
            sums[i] = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b));
        }
    }
    let mut totals = [0.0; 16];
    // SAFETY: 16 floats.
    unsafe { _mm512_storeu_ps(totals.as_mut_ptr(), sums[0]) };
    totals
}
