//! The formats with blocks of 32 values: steps of four blocks.
//!
//! One vector holds the first 16 codes of the four blocks, the other the last 16: both have a block per lane, so
//! one integer sum and one vector of scales, each four times, serve a whole step.

use super::format::{Bytes, Format, Step, StepX, bytes, floats, gather};
use crate::BlockFormat;
use crate::layout::IQ4_NL_VALUES;
use core::arch::x86_64::*;
use core::marker::PhantomData;
use core::mem::MaybeUninit;

/// A format with blocks of 32.
pub(super) trait Small {
    const FORMAT: BlockFormat;
    const OFFSET: i32 = 0;
    const MINS: i32 = 0;

    /// Decodes four blocks, scales and minima four times each.
    ///
    /// # Safety
    /// As for [`Format::decode`].
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]>;
}

/// A [`Small`] format as a [`Format`].
pub(super) struct Blocks<B>(PhantomData<B>);

/// Activations of four blocks.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub(super) struct SmallX {
    codes: [[[i8; 16]; 4]; 2],
    scales: [[f32; 4]; 4],
    /// What the offset takes from each block's integer sum, in the first of its lanes.
    start: [[i32; 4]; 4],
    /// The sum of each block's values, a quarter in each of its lanes.
    sums: [[f32; 4]; 4],
}

impl<B: Small> Format for Blocks<B> {
    const BYTES: usize = 4 * B::FORMAT.block_bytes();
    const VALUES: usize = 128;
    const SUB: usize = 32;
    const OFFSET: i32 = B::OFFSET;
    const MINS: i32 = B::MINS;
    const GROUPS: &'static [[usize; 4]] = &[[0, 2, 4, 6], [1, 3, 5, 7]];
    const SCALES: (usize, usize) = (0, 4);
    const MIN_LANES: (usize, usize) = (0, 4);

    type X = SmallX;
    type Codes = [__m512i; 2];

    #[inline]
    fn arrange(x: &StepX<'_>, out: &mut MaybeUninit<SmallX>) {
        let (q, d) = (&x.q.as_chunks().0[..8], &x.d[..4]);
        let (sums, _) = x.sums[..8].as_chunks::<2>();
        let sum = |block: usize| i32::from(sums[block][0]) + i32::from(sums[block][1]);
        let blocks = [0, 1, 2, 3];
        out.write(SmallX {
            codes: [gather(q, Self::GROUPS[0]), gather(q, Self::GROUPS[1])],
            scales: blocks.map(|b| [d[b]; 4]),
            start: blocks.map(|b| [-B::OFFSET * sum(b), 0, 0, 0]),
            sums: blocks.map(|b| [d[b] * sum(b) as f32 * 0.25; 4]),
        });
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn dot<const FULL: bool>(w: Bytes, x: &SmallX, sum: __m512) -> __m512 {
        // SAFETY: the caller's promises.
        let w = unsafe { B::decode::<FULL>(w) };
        let start = if B::OFFSET == 0 { _mm512_setzero_si512() } else { bytes(&x.start) };
        let first = _mm512_dpbusd_epi32(start, w.codes[0], bytes(&x.codes[0]));
        let both = _mm512_dpbusd_epi32(first, w.codes[1], bytes(&x.codes[1]));
        let scales = _mm512_mul_ps(w.scales, floats(&x.scales));
        let sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(both), scales, sum);
        if B::MINS != 0 { _mm512_fmadd_ps(w.mins, floats(&x.sums), sum) } else { sum }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]> {
        // SAFETY: the caller's promises.
        unsafe { B::decode::<FULL>(w) }
    }
}

/// `vpermt2b` indices that gather, for each of four blocks of `stride` bytes, the 16 bytes `part(i)` of it; the
/// second source begins `second` bytes into the step.
const fn gather_bytes(stride: usize, second: usize, part: [usize; 16]) -> [u8; 64] {
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

/// `vpermt2w` indices of the scales (words 0..16) and of the words behind them (words 16..32), each four times.
const fn gather_scales(stride: usize, second: usize) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        let at = stride * (i % 16 / 4) + 2 * (i / 16);
        index[i] = if at < 64 { at as u16 / 2 } else { (64 + at - second) as u16 / 2 };
        i += 1;
    }
    index
}

/// Low and high nibbles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn nibbles(x: __m512i) -> [__m512i; 2] {
    let mask = _mm512_set1_epi8(15);
    [_mm512_and_si512(x, mask), _mm512_and_si512(_mm512_srli_epi16::<4>(x), mask)]
}

/// The scales, as [`gather_scales`] found them.
#[inline]
#[target_feature(enable = "avx512f")]
fn low_halves(words: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_castsi512_si256(words))
}

/// The minima, as [`gather_scales`] found them.
#[inline]
#[target_feature(enable = "avx512f")]
fn high_halves(words: __m512i) -> __m512 {
    _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(words))
}

pub(super) struct Q4_0;
impl Small for Q4_0 {
    const FORMAT: BlockFormat = BlockFormat::Q4_0;
    const OFFSET: i32 = 8;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]> {
        const CODES: [u8; 64] = gather_bytes(18, 64, run(2));
        const SCALES: [u16; 32] = gather_scales(18, 64);
        // SAFETY: the caller's promise; the step ends 64 bytes after the second offset.
        let (a, b) = unsafe { (w.load::<FULL, 64>(0), w.load::<FULL, 8>(64)) };
        Step {
            codes: nibbles(_mm512_permutex2var_epi8(a, bytes(&CODES), b)),
            scales: low_halves(_mm512_permutexvar_epi16(bytes(&SCALES), a)),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Iq4Nl;
impl Small for Iq4Nl {
    const FORMAT: BlockFormat = BlockFormat::Iq4Nl;
    const OFFSET: i32 = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]> {
        const CODES: [u8; 64] = gather_bytes(18, 64, run(2));
        const SCALES: [u16; 32] = gather_scales(18, 64);
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
        // SAFETY: the caller's promise; the step ends 64 bytes after the second offset.
        let (a, b) = unsafe { (w.load::<FULL, 64>(0), w.load::<FULL, 8>(64)) };
        let both = _mm512_permutex2var_epi8(a, bytes(&CODES), b);
        let values = bytes(&VALUES);
        Step {
            codes: [both, _mm512_srli_epi16::<4>(both)].map(|i| _mm512_permutexvar_epi8(i, values)),
            scales: low_halves(_mm512_permutexvar_epi16(bytes(&SCALES), a)),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Q4_1;
impl Small for Q4_1 {
    const FORMAT: BlockFormat = BlockFormat::Q4_1;
    const MINS: i32 = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]> {
        const CODES: [u8; 64] = gather_bytes(20, 64, run(4));
        const SCALES: [u16; 32] = gather_scales(20, 64);
        // SAFETY: the caller's promise; the step ends 64 bytes after the second offset.
        let (a, b) = unsafe { (w.load::<FULL, 64>(0), w.load::<FULL, 16>(64)) };
        let scales = _mm512_permutexvar_epi16(bytes(&SCALES), a);
        Step {
            codes: nibbles(_mm512_permutex2var_epi8(a, bytes(&CODES), b)),
            scales: low_halves(scales),
            mins: high_halves(scales),
        }
    }
}

/// For each byte of `run(0)` the byte of the fifth bits that [`fifth_bits`] wants there: in turn that of the
/// block's first 16 codes and of its last, from `at` on.
const fn gather_fifth(at: usize) -> [usize; 16] {
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
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn fifth_bits(nibbles: __m512i, bits: __m512i) -> [__m512i; 2] {
    /// Bit offsets that move the bit of byte `i` to bit 4 of it.
    const fn offsets(from: u8) -> [u8; 64] {
        let mut offset = [0; 64];
        let mut i = 0;
        while i < 64 {
            offset[i as usize] = (i % 8 + from + 60) % 64;
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
impl Small for Q5_0 {
    const FORMAT: BlockFormat = BlockFormat::Q5_0;
    const OFFSET: i32 = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]> {
        const CODES: [u8; 64] = gather_bytes(22, 56, run(6));
        const FIFTH: [u8; 64] = gather_bytes(22, 56, gather_fifth(2));
        const SCALES: [u16; 32] = gather_scales(22, 56);
        // SAFETY: the caller's promise; the step ends 64 bytes after the second offset.
        let (a, b) = unsafe { (w.load::<FULL, 64>(0), w.load::<FULL, 32>(56)) };
        Step {
            codes: fifth_bits(
                _mm512_permutex2var_epi8(a, bytes(&CODES), b),
                _mm512_permutex2var_epi8(a, bytes(&FIFTH), b),
            ),
            scales: low_halves(_mm512_permutex2var_epi16(a, bytes(&SCALES), b)),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Q5_1;
impl Small for Q5_1 {
    const FORMAT: BlockFormat = BlockFormat::Q5_1;
    const MINS: i32 = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]> {
        const CODES: [u8; 64] = gather_bytes(24, 64, run(8));
        const FIFTH: [u8; 64] = gather_bytes(24, 64, gather_fifth(4));
        const SCALES: [u16; 32] = gather_scales(24, 64);
        // SAFETY: the caller's promise; the step ends 64 bytes after the second offset.
        let (a, b) = unsafe { (w.load::<FULL, 64>(0), w.load::<FULL, 32>(64)) };
        let scales = _mm512_permutex2var_epi16(a, bytes(&SCALES), b);
        Step {
            codes: fifth_bits(
                _mm512_permutex2var_epi8(a, bytes(&CODES), b),
                _mm512_permutex2var_epi8(a, bytes(&FIFTH), b),
            ),
            scales: low_halves(scales),
            mins: high_halves(scales),
        }
    }
}

pub(super) struct Q8_0;
impl Small for Q8_0 {
    const FORMAT: BlockFormat = BlockFormat::Q8_0;
    const OFFSET: i32 = 128;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<[__m512i; 2]> {
        /// Two blocks from each of two loads 68 bytes apart.
        const fn two_and_two(part: [usize; 16]) -> [u8; 64] {
            gather_bytes(34, 68, part)
        }
        // The first 16 codes of a block from loads at bytes 0 and 68, the last 16 from loads at 4 and 72.
        const FIRST: [u8; 64] = two_and_two(run(2));
        const LAST: [u8; 64] = two_and_two(run(14));
        const SCALES: [u16; 32] = gather_scales(34, 68);
        // SAFETY: the caller's promise; the step ends 64 bytes after the last offset.
        let (a, b, c, d) = unsafe {
            (w.load::<FULL, 64>(0), w.load::<FULL, 64>(68), w.load::<FULL, 64>(4), w.load::<FULL, 64>(72))
        };
        let flip = _mm512_set1_epi8(-128);
        Step {
            codes: [
                _mm512_xor_si512(_mm512_permutex2var_epi8(a, bytes(&FIRST), b), flip),
                _mm512_xor_si512(_mm512_permutex2var_epi8(c, bytes(&LAST), d), flip),
            ],
            scales: low_halves(_mm512_permutex2var_epi16(a, bytes(&SCALES), b)),
            mins: _mm512_setzero_ps(),
        }
    }
}
