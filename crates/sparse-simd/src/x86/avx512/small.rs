//! The formats with blocks of 32 values: steps of eight blocks, in two halves.
//!
//! Of each half, one vector holds the first 16 codes of the four blocks and another the last 16, so both have
//! a block per lane. Two loads cover a half; a byte permutation sorts its codes into lanes.

use super::format::{Bytes, Format, Step, bytes};
use crate::BlockFormat;
use crate::layout::IQ4_NL_VALUES;
use core::arch::x86_64::*;

/// First and last 16 codes of blocks 0 to 3, then of blocks 4 to 7.
pub(super) const GROUPS: [[usize; 4]; 4] = [[0, 2, 4, 6], [1, 3, 5, 7], [8, 10, 12, 14], [9, 11, 13, 15]];

/// `vpermt2b` indices that gather, for each of four blocks of `stride` bytes, the 16 bytes `part` of it; the
/// second source begins `second` bytes after the first.
pub(super) const fn gather(stride: usize, second: usize, part: [usize; 16]) -> [u8; 64] {
    let mut index = [0; 64];
    let mut i = 0;
    while i < 64 {
        let at = stride * (i / 16) + part[i % 16];
        index[i] = if at < 64 { at as u8 } else { (64 + at - second) as u8 };
        i += 1;
    }
    index
}

/// 16 bytes from `from` on.
const fn run(from: usize) -> [usize; 16] {
    let mut part = [0; 16];
    let mut i = 0;
    while i < 16 {
        part[i] = from + i;
        i += 1;
    }
    part
}

/// `vpermt2w` indices of the scales of eight blocks (words 0 to 7) and of the words behind them (8 to 15);
/// each source begins with a half.
const fn scales_of_both(stride: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = (stride / 2 * (i % 4) + i / 8 % 2 + 32 * (i / 4 % 2)) as u16;
        i += 1;
    }
    index
}

/// `vpermt2w` indices of the scales of four blocks of one half, and of the words behind them, twice each; the
/// second source begins `second` bytes after the first.
pub(super) const fn scales_of_half(stride: usize, second: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        let at = stride * (i % 4) + 2 * (i / 8 % 2);
        index[i] = if at < 64 { at as u16 / 2 } else { (64 + at - second) as u16 / 2 };
        i += 1;
    }
    index
}

/// The scales and what follows them, from both halves' sources for [`scales_of_half`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn merge(index: &[u16; 32], [a, b]: [__m512i; 2], [c, d]: [__m512i; 2]) -> __m512i {
    let index = bytes(index);
    let first = _mm512_maskz_permutex2var_epi16(0x0f0f, a, index, b);
    _mm512_or_si512(first, _mm512_maskz_permutex2var_epi16(0xf0f0, c, index, d))
}

/// The floats that 16 halves are.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn halves(words: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_castsi512_si256(words))
}

/// Low and high nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn nibbles(x: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(15);
    [_mm512_and_si512(x, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask)]
}

/// The two loads of each half of a step: 64 bytes at its beginning and `N` bytes `second` further. If
/// `HALVES` is 1 those of the second half are zero.
///
/// # Safety
/// As for [`Format::decode`]; if `FULL` the bytes are there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) unsafe fn load<const FULL: bool, const HALVES: usize, const N: usize>(
    w: Bytes,
    half: usize,
    second: usize,
) -> [[__m512i; 2]; 2] {
    let mut loads = [[_mm512_setzero_si512(); 2]; 2];
    for (h, load) in loads.iter_mut().take(HALVES).enumerate() {
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`.
        *load = unsafe { [w.load::<FULL, 64>(h * half), w.load::<FULL, N>(h * half + second)] };
    }
    loads
}

/// The vectors of codes of a step from those of its halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn both(halves: [[__m512i; 2]; 2], decode: impl Fn([__m512i; 2]) -> [__m512i; 2]) -> [__m512i; 4] {
    let ([a, b], [c, d]) = (decode(halves[0]), decode(halves[1]));
    [a, b, c, d]
}

pub(super) struct Q4_0;
impl Format for Q4_0 {
    const BYTES: usize = 8 * BlockFormat::Q4_0.block_bytes();
    const SUB: usize = 32;
    const OFFSET: i32 = 8;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        const CODES: [u8; 64] = gather(18, 64, run(2));
        const SCALES: [u16; 32] = scales_of_both(18);
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a half has 72 bytes.
        let loads = unsafe { load::<FULL, HALVES, 8>(w, 72, 64) };
        let scales = _mm512_permutex2var_epi16(loads[0][0], bytes(&SCALES), loads[1][0]);
        Step {
            codes: both(loads, |[a, b]| nibbles(_mm512_permutex2var_epi8(a, bytes(&CODES), b))),
            scales: halves(scales),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Iq4Nl;
impl Format for Iq4Nl {
    const BYTES: usize = 8 * BlockFormat::Iq4Nl.block_bytes();
    const SUB: usize = 32;
    const OFFSET: i32 = 128;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        const CODES: [u8; 64] = gather(18, 64, run(2));
        const SCALES: [u16; 32] = scales_of_both(18);
        // Four copies, since `vpermb` looks at six bits: what is above the nibble does not matter.
        const VALUES: [u8; 64] = {
            let mut values = [0; 64];
            let mut i = 0;
            while i < 64 {
                values[i] = (IQ4_NL_VALUES[i % 16] as i32 + 128) as u8;
                i += 1;
            }
            values
        };
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a half has 72 bytes.
        let loads = unsafe { load::<FULL, HALVES, 8>(w, 72, 64) };
        let scales = _mm512_permutex2var_epi16(loads[0][0], bytes(&SCALES), loads[1][0]);
        let values = bytes(&VALUES);
        Step {
            codes: both(loads, |[a, b]| {
                let low = _mm512_permutex2var_epi8(a, bytes(&CODES), b);
                let high = _mm512_srli_epi16::<4>(low);
                [_mm512_permutexvar_epi8(low, values), _mm512_permutexvar_epi8(high, values)]
            }),
            scales: halves(scales),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Q4_1;
impl Format for Q4_1 {
    const BYTES: usize = 8 * BlockFormat::Q4_1.block_bytes();
    const SUB: usize = 32;
    const MINS: i32 = 1;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        const CODES: [u8; 64] = gather(20, 64, run(4));
        const SCALES: [u16; 32] = scales_of_both(20);
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a half has 80 bytes.
        let loads = unsafe { load::<FULL, HALVES, 16>(w, 80, 64) };
        let scales = halves(_mm512_permutex2var_epi16(loads[0][0], bytes(&SCALES), loads[1][0]));
        Step {
            codes: both(loads, |[a, b]| nibbles(_mm512_permutex2var_epi8(a, bytes(&CODES), b))),
            scales,
            mins: scales,
        }
    }
}

/// For each of 16 bytes the byte of a block's fifth bits that [`fifth_bits`] wants there: in turn of the
/// first 16 codes and of the last, from `at` on.
const fn fifth(at: usize) -> [usize; 16] {
    let mut part = [0; 16];
    let mut i = 0;
    while i < 16 {
        part[i] = at + i / 8 + 2 * (i % 2);
        i += 1;
    }
    part
}

/// Adds the fifth bits to two vectors of four-bit codes. A quadword of `bits` is four times the 8 bits of its
/// codes in the first vector, followed by those of the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn fifth_bits(nibbles: __m512i, bits: __m512i) -> [__m512i; 2] {
    /// Bit offsets that move bit `from + i` to bit 4 of byte `i`.
    const fn offsets(from: usize) -> [u8; 64] {
        let mut offset = [0; 64];
        let mut i = 0;
        while i < 64 {
            offset[i] = ((i % 8 + from + 60) % 64) as u8;
            i += 1;
        }
        offset
    }
    const FIRST: [u8; 64] = offsets(0);
    const LAST: [u8; 64] = offsets(8);
    let low = _mm512_set1_epi8(15);
    let five = _mm512_set1_epi8(31);
    // `low ? code : bit`
    let join = |code, bit| _mm512_and_si512(_mm512_ternarylogic_epi64::<0b11001010>(low, code, bit), five);
    [
        join(nibbles, _mm512_multishift_epi64_epi8(bytes(&FIRST), bits)),
        join(_mm512_srli_epi16::<4>(nibbles), _mm512_multishift_epi64_epi8(bytes(&LAST), bits)),
    ]
}

pub(super) struct Q5_0;
impl Format for Q5_0 {
    const BYTES: usize = 8 * BlockFormat::Q5_0.block_bytes();
    const SUB: usize = 32;
    const OFFSET: i32 = 16;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        const CODES: [u8; 64] = gather(22, 24, run(6));
        const FIFTH: [u8; 64] = gather(22, 24, fifth(2));
        const SCALES: [u16; 32] = scales_of_half(22, 24);
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a half has 88 bytes.
        let loads = unsafe { load::<FULL, HALVES, 64>(w, 88, 24) };
        Step {
            codes: both(loads, |[a, b]| {
                fifth_bits(
                    _mm512_permutex2var_epi8(a, bytes(&CODES), b),
                    _mm512_permutex2var_epi8(a, bytes(&FIFTH), b),
                )
            }),
            scales: halves(merge(&SCALES, loads[0], loads[1])),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Q5_1;
impl Format for Q5_1 {
    const BYTES: usize = 8 * BlockFormat::Q5_1.block_bytes();
    const SUB: usize = 32;
    const MINS: i32 = 1;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        const CODES: [u8; 64] = gather(24, 32, run(8));
        const FIFTH: [u8; 64] = gather(24, 32, fifth(4));
        const SCALES: [u16; 32] = scales_of_half(24, 32);
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a half has 96 bytes.
        let loads = unsafe { load::<FULL, HALVES, 64>(w, 96, 32) };
        let scales = halves(merge(&SCALES, loads[0], loads[1]));
        Step {
            codes: both(loads, |[a, b]| {
                fifth_bits(
                    _mm512_permutex2var_epi8(a, bytes(&CODES), b),
                    _mm512_permutex2var_epi8(a, bytes(&FIFTH), b),
                )
            }),
            scales,
            mins: scales,
        }
    }
}

pub(super) struct Q8_0;
impl Format for Q8_0 {
    const BYTES: usize = 8 * BlockFormat::Q8_0.block_bytes();
    const SUB: usize = 32;
    const OFFSET: i32 = 128;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        // A half is four blocks of 34 bytes: loads at 0 and 68 cover the scales and the first 16 codes of all
        // four, loads at 4 and 72 the last 16.
        const FIRST: [u8; 64] = gather(34, 68, run(2));
        const LAST: [u8; 64] = gather(34, 68, run(14));
        const SCALES: [u16; 32] = scales_of_half(34, 68);
        let shifted = Bytes { at: w.at.wrapping_add(4), len: w.len - 4 };
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a half has 136 bytes.
        let (first, last) =
            unsafe { (load::<FULL, HALVES, 64>(w, 136, 68), load::<FULL, HALVES, 64>(shifted, 136, 68)) };
        let codes = |index: &[u8; 64], [a, b]: [__m512i; 2]| {
            _mm512_xor_si512(_mm512_permutex2var_epi8(a, bytes(index), b), _mm512_set1_epi8(-128))
        };
        Step {
            codes: [
                codes(&FIRST, first[0]),
                codes(&LAST, last[0]),
                codes(&FIRST, first[1]),
                codes(&LAST, last[1]),
            ],
            scales: halves(merge(&SCALES, first[0], first[1])),
            mins: _mm512_setzero_ps(),
        }
    }
}
