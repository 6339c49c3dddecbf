//! Transposition of 16 x 16 dwords.

use core::arch::x86_64::*;

/// `result[i]` holds lane `i` of every vector of `rows`.
#[inline]
#[target_feature(enable = "avx512f")]
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
