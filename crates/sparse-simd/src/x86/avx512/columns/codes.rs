//! The codes of a chunk of each format: 64 rows of one column.

use super::super::format::bytes;
use super::super::lanes::{Bit3, Bit7};
use super::super::small::{Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use super::super::supers::{Q2K, Q3K, Q4K, Q5K, Q6K};
use super::ColumnFormat;
use crate::layout::*;
use core::arch::x86_64::*;

/// 64 codes of four bits; what is above them is not zero.
///
/// # Safety
/// - 32 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn four_bits(at: *const u8) -> __m512i {
    const SHIFTS: [u32; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4];
    // SAFETY: the caller promises that 32 bytes can be read at `at`.
    let both = _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(at.cast()) });
    _mm512_srlv_epi32(both, bytes(&SHIFTS))
}

/// 64 codes of two bits, at bit `TO`; what is around them is not zero.
///
/// # Safety
/// - 16 bytes can be read at `at`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn two_bits<const TO: u32>(at: *const u8) -> __m512i {
    // To the right by 0, 2, 4, 6 and to the left by TO; no bit that counts leaves its byte.
    const { assert!(TO <= 6) };
    let (a, b, c, d) = (32 - TO, 34 - TO, 36 - TO, 38 - TO);
    let rotate = [a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d];
    // SAFETY: the caller promises that 16 bytes can be read at `at`.
    let all = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(at.cast()) });
    _mm512_rorv_epi32(all, bytes(&rotate))
}

/// A mask of 64 single bits.
///
/// # Safety
/// - 8 bytes can be read at `at`.
#[inline]
unsafe fn one_bit(at: *const u8) -> __mmask64 {
    // SAFETY: the caller promises that 8 bytes can be read at `at`.
    u64::from_le(unsafe { at.cast::<u64>().read_unaligned() })
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn and(x: __m512i, mask: u8) -> __m512i {
    _mm512_and_si512(x, _mm512_set1_epi8(mask as i8))
}

/// Adds `bit` to the codes in `mask`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn with_bit(codes: __m512i, mask: __mmask64, bit: i8) -> __m512i {
    _mm512_mask_add_epi8(codes, mask, codes, _mm512_set1_epi8(bit))
}

macro_rules! column_formats {
    ($($name:ident: $block:ident = |$at:ident| $codes:expr;)*) => {$(
        impl ColumnFormat for $name {
            type Block = $block;

            #[inline]
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
            unsafe fn codes($at: *const u8) -> __m512i {
                // SAFETY: the caller promises that the chunk can be read: a chunk has 8 bytes per
                // bit of a code.
                unsafe { $codes }
            }
        }
    )*};
}

column_formats! {
    Q4_0: BlockQ4_0 = |at| and(four_bits(at), 15);
    Q4_1: BlockQ4_1 = |at| and(four_bits(at), 15);
    Q4K: BlockQ4K = |at| and(four_bits(at), 15);
    Q5_0: BlockQ5_0 = |at| with_bit(and(four_bits(at), 15), one_bit(at.add(32)), 16);
    Q5_1: BlockQ5_1 = |at| with_bit(and(four_bits(at), 15), one_bit(at.add(32)), 16);
    Q5K: BlockQ5K = |at| with_bit(and(four_bits(at), 15), one_bit(at.add(32)), 16);
    Q8_0: BlockQ8_0 = |at| _mm512_xor_si512(_mm512_loadu_si512(at.cast()), _mm512_set1_epi8(-128));
    Q2K: BlockQ2K = |at| and(two_bits::<0>(at), 3);
    Q3K: BlockQ3K = |at| with_bit(and(two_bits::<0>(at), 3), one_bit(at.add(16)), 4);
    Q6K: BlockQ6K = |at| _mm512_or_si512(and(four_bits(at), 15), and(two_bits::<4>(at.add(32)), 0x30));
    Bit3: BlockBit3 = |at| with_bit(and(two_bits::<0>(at), 3), one_bit(at.add(16)), 4);
    Bit7: BlockBit7 = |at| {
        let six = _mm512_or_si512(and(four_bits(at), 15), and(two_bits::<4>(at.add(32)), 0x30));
        with_bit(six, one_bit(at.add(48)), 64)
    };
    Iq4Nl: BlockIq4Nl = |at| _mm512_permutexvar_epi8(four_bits(at), bytes(&IQ4_NL_UNSIGNED));
}

/// The values of IQ4_NL plus its offset, four times: `vpermb` looks at six bits, and what is above the nibble must
/// not matter.
const IQ4_NL_UNSIGNED: [u8; 64] = {
    let mut values = [0; 64];
    let mut i = 0;
    while i < 64 {
        values[i] = (IQ4_NL_VALUES[i % 16] as i32 + 128) as u8;
        i += 1;
    }
    values
};
