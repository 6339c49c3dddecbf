//! The K formats: a step is one super-block.

use super::format::{Bytes, Format, Step, bytes};
use crate::BlockFormat;
use core::arch::x86_64::*;

/// 64 bytes at `p`.
///
/// # Safety
/// - They can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn load64(p: *const u8) -> __m512i {
    // SAFETY: the caller promises that 64 bytes can be read.
    unsafe { _mm512_loadu_si512(p.cast()) }
}

/// 32 bytes at `p`, twice.
///
/// # Safety
/// - They can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn load32(p: *const u8) -> __m512i {
    // SAFETY: the caller promises that 32 bytes can be read.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(p.cast()) })
}

/// 16 bytes at `p`.
///
/// # Safety
/// - They can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn load16(p: *const u8) -> __m128i {
    // SAFETY: the caller promises that 16 bytes can be read.
    unsafe { _mm_loadu_si128(p.cast()) }
}

/// The half-precision number at `p` in all lanes.
///
/// # Safety
/// - Its two bytes can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn half(p: *const u8) -> __m512 {
    // SAFETY: the caller promises that two bytes can be read.
    _mm512_cvtph_ps(_mm256_set1_epi16(unsafe { p.cast::<i16>().read_unaligned() }))
}

/// 16 bytes for a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn bytes16(x: &[u8; 16]) -> __m128i {
    // SAFETY: 16 bytes.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

/// `(low & low_mask) | (high & high_mask)` for a `low_mask` and a `high_mask` inside `both` that do not
/// overlap.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn join(low_mask: u8, low: __m512i, high: __m512i, both: u8) -> __m512i {
    let select = _mm512_set1_epi8(low_mask as i8);
    let joined = _mm512_ternarylogic_epi64::<0b11001010>(select, low, high);
    _mm512_and_si512(joined, _mm512_set1_epi8(both as i8))
}

/// Bit offsets for `vpmultishiftqb` that move bit `from[lane]` of every byte of a lane of 16 to bit `to`.
const fn move_bits(from: [usize; 4], to: usize) -> [u8; 64] {
    let mut offset = [0; 64];
    let mut i = 0;
    while i < 64 {
        offset[i] = ((8 * (i % 8) + from[i / 16] + 64 - to) % 64) as u8;
        i += 1;
    }
    offset
}

/// The header of Q4_K and Q5_K: `d * scale` of eight sub-blocks, then `dmin * min`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn scales_and_mins(header: __m128i) -> __m512 {
    const NONE: u8 = 0x80;
    // Low bits of scales 0..4, 4..8, minima 0..4, 4..8; then the upper bits of the second and fourth four.
    const LOW: [u8; 16] = [4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15];
    const HIGH: [u8; 16] = [NONE, NONE, NONE, NONE, 4, 5, 6, 7, NONE, NONE, NONE, NONE, 8, 9, 10, 11];
    const D_DMIN: [i32; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1];
    let low = _mm_srlv_epi32(_mm_shuffle_epi8(header, bytes16(&LOW)), _mm_setr_epi32(0, 0, 0, 4));
    let high = _mm_srli_epi16::<2>(_mm_shuffle_epi8(header, bytes16(&HIGH)));
    let high = _mm_and_si128(high, _mm_set1_epi8(0x30));
    let low_mask = _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f);
    // `low & low_mask | high`
    let six = _mm_ternarylogic_epi64::<0b11101010>(low, low_mask, high);
    let d = _mm512_permutexvar_ps(bytes(&D_DMIN), _mm512_castps128_ps512(_mm_cvtph_ps(header)));
    _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(six)), d)
}

/// The low nibbles of sub-blocks 0, 2, 4, 6, first and last 16 codes, and the high ones, of 1, 3, 5, 7.
const NIBBLE_GROUPS: [[usize; 4]; 4] = [[0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]];

/// The 128 bytes of nibbles at `p`, sorted so that their low nibbles are vectors 0 and 1 of
/// [`NIBBLE_GROUPS`].
///
/// # Safety
/// - They can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn load_nibbles(p: *const u8) -> [__m512i; 2] {
    // SAFETY: the caller promises that the bytes of the nibbles can be read.
    let (a, b) = unsafe { (load64(p), load64(p.add(64))) };
    [_mm512_shuffle_i64x2::<0b10_00_10_00>(a, b), _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b)]
}

pub(super) struct Q4K;
impl Format for Q4K {
    const BYTES: usize = BlockFormat::Q4K.block_bytes();
    const SUB: usize = 32;
    const MINS: i32 = -1;
    const GROUPS: [[usize; 4]; 4] = NIBBLE_GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        let w = w.at;
        // SAFETY: the caller promises that whole super-blocks can be read: 16 bytes of header, 128
        // of nibbles.
        let (header, [a, b]) = unsafe { (load16(w), load_nibbles(w.add(16))) };
        let mask = _mm512_set1_epi8(15);
        let codes = [a, b, _mm512_srli_epi16::<4>(a), _mm512_srli_epi16::<4>(b)];
        let scales = scales_and_mins(header);
        Step { codes: codes.map(|c| _mm512_and_si512(c, mask)), scales, mins: scales }
    }
}

pub(super) struct Q5K;
impl Format for Q5K {
    const BYTES: usize = BlockFormat::Q5K.block_bytes();
    const SUB: usize = 32;
    const MINS: i32 = -1;
    const GROUPS: [[usize; 4]; 4] = NIBBLE_GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        let w = w.at;
        // Sub-block s has bit s.
        const EVEN: [u8; 64] = move_bits([0, 2, 4, 6], 4);
        const ODD: [u8; 64] = move_bits([1, 3, 5, 7], 4);
        // SAFETY: the caller promises that whole super-blocks can be read: 16 bytes of header, 32
        // of fifth bits, 128 of nibbles.
        let (header, first, last, [a, b]) =
            unsafe { (load16(w), load16(w.add(16)), load16(w.add(32)), load_nibbles(w.add(48))) };
        let (first, last) = (_mm512_broadcast_i32x4(first), _mm512_broadcast_i32x4(last));
        let (even, odd) = (bytes(&EVEN), bytes(&ODD));
        let scales = scales_and_mins(header);
        Step {
            codes: [
                join(15, a, _mm512_multishift_epi64_epi8(even, first), 31),
                join(15, b, _mm512_multishift_epi64_epi8(even, last), 31),
                join(15, _mm512_srli_epi16::<4>(a), _mm512_multishift_epi64_epi8(odd, first), 31),
                join(15, _mm512_srli_epi16::<4>(b), _mm512_multishift_epi64_epi8(odd, last), 31),
            ],
            scales,
            mins: scales,
        }
    }
}

pub(super) struct Q6K;
impl Format for Q6K {
    const BYTES: usize = BlockFormat::Q6K.block_bytes();
    const SUB: usize = 16;
    const OFFSET: i32 = 32;
    const GROUPS: [[usize; 4]; 4] = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]];

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        let w = w.at;
        // Per half of 128 values, the 32 values from 32 j on have bits 2j and 2j + 1 of the high bytes.
        const FIRST: [u8; 64] = move_bits([0, 0, 2, 2], 4);
        const LAST: [u8; 64] = move_bits([4, 4, 6, 6], 4);
        // SAFETY: the caller promises that whole super-blocks can be read: 128 bytes of nibbles, 64
        // of high bits, 16 scales, d.
        let (a, b, high_a, high_b, scales, d) = unsafe {
            let (high_a, high_b) = (load32(w.add(128)), load32(w.add(160)));
            (load64(w), load64(w.add(64)), high_a, high_b, load16(w.add(192)), half(w.add(208)))
        };
        let (first, last) = (bytes(&FIRST), bytes(&LAST));
        Step {
            codes: [
                join(15, a, _mm512_multishift_epi64_epi8(first, high_a), 63),
                join(15, _mm512_srli_epi16::<4>(a), _mm512_multishift_epi64_epi8(last, high_a), 63),
                join(15, b, _mm512_multishift_epi64_epi8(first, high_b), 63),
                join(15, _mm512_srli_epi16::<4>(b), _mm512_multishift_epi64_epi8(last, high_b), 63),
            ],
            scales: _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), d),
            mins: _mm512_setzero_ps(),
        }
    }
}

/// Codes of two bits: bits 2j of the first 32 bytes are values 32 j.., of the last 32 bytes 128 + 32 j...
const PAIR_GROUPS: [[usize; 4]; 4] = [[0, 1, 8, 9], [2, 3, 10, 11], [4, 5, 12, 13], [6, 7, 14, 15]];

pub(super) struct Q3K;
impl Format for Q3K {
    const BYTES: usize = BlockFormat::Q3K.block_bytes();
    const SUB: usize = 16;
    const OFFSET: i32 = 4;
    const GROUPS: [[usize; 4]; 4] = PAIR_GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        let w = w.at;
        const fn third_bits(j: usize) -> [u8; 64] {
            move_bits([j, j, 4 + j, 4 + j], 2)
        }
        const THIRD: [[u8; 64]; 4] = [third_bits(0), third_bits(1), third_bits(2), third_bits(3)];
        // The tail is the last 16 bytes: two codes' bytes, 12 of scales, d.
        const LOW: [u8; 16] = [2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9];
        const HIGH: [u8; 16] = [10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13];
        // Scales 4k.. have bits 2k and 2k + 1 of the high bytes.
        const MOVE_HIGH: [u8; 16] = {
            let mut offset = [0; 16];
            let mut i = 0;
            while i < 16 {
                offset[i] = ((8 * (i % 8) + 2 * (i / 4) + 60) % 64) as u8;
                i += 1;
            }
            offset
        };
        // SAFETY: the caller promises that whole super-blocks can be read: 32 bytes of third bits,
        // 64 of low bits, 12 of scales, d.
        let (high, low, tail, d) =
            unsafe { (load32(w), load64(w.add(32)), load16(w.add(94)), half(w.add(108))) };
        let bits = |j| _mm512_multishift_epi64_epi8(bytes(&THIRD[j]), high);

        let scale_low = _mm_shuffle_epi8(tail, bytes16(&LOW));
        let scale_low = _mm_srlv_epi32(scale_low, _mm_setr_epi32(0, 0, 4, 4));
        let scale_low = _mm_and_si128(scale_low, _mm_set1_epi8(15));
        let scale_high = _mm_shuffle_epi8(tail, bytes16(&HIGH));
        let scale_high = _mm_multishift_epi64_epi8(bytes16(&MOVE_HIGH), scale_high);
        // `scale_high & 0x30 | scale_low`
        let six = _mm_ternarylogic_epi64::<0b11101010>(scale_high, _mm_set1_epi8(0x30), scale_low);
        let scales = _mm_sub_epi8(six, _mm_set1_epi8(32));
        Step {
            codes: [
                join(3, low, bits(0), 7),
                join(3, _mm512_srli_epi16::<2>(low), bits(1), 7),
                join(3, _mm512_srli_epi16::<4>(low), bits(2), 7),
                join(3, _mm512_srli_epi16::<6>(low), bits(3), 7),
            ],
            scales: _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales)), d),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Q2K;
impl Format for Q2K {
    const BYTES: usize = BlockFormat::Q2K.block_bytes();
    const SUB: usize = 16;
    const MINS: i32 = -1;
    const GROUPS: [[usize; 4]; 4] = PAIR_GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        let w = w.at;
        // SAFETY: the caller promises that whole super-blocks can be read: 16 bytes of scales, 64
        // of codes, d, dmin.
        let (header, low, d, dmin) =
            unsafe { (load16(w), load64(w.add(16)), half(w.add(80)), half(w.add(82))) };
        let header = _mm512_cvtepu8_epi32(header);
        let scales = _mm512_and_si512(header, _mm512_set1_epi32(15));
        let mins = _mm512_srli_epi32::<4>(header);
        let mask = _mm512_set1_epi8(3);
        let codes =
            [low, _mm512_srli_epi16::<2>(low), _mm512_srli_epi16::<4>(low), _mm512_srli_epi16::<6>(low)];
        Step {
            codes: codes.map(|c| _mm512_and_si512(c, mask)),
            scales: _mm512_mul_ps(_mm512_cvtepi32_ps(scales), d),
            mins: _mm512_mul_ps(_mm512_cvtepi32_ps(mins), dmin),
        }
    }
}
