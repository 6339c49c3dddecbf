//! The precision lanes of 3 and 7 bits: steps of eight blocks, in two halves of four.
//!
//! Codes follow each other without regard to bytes, eight of them in as many bytes as a code has bits. A byte
//! permutation gives each eight a quadword, and `vpmultishiftqb` cuts that into codes.

use super::format::{Bytes, Format, Step, bytes, first};
use super::small::{GROUPS, gather, halves, load, merge, scales_of_half};
use crate::BlockFormat;
use crate::generic::lanes::part;
use core::arch::x86_64::*;

/// For each of 16 bytes the byte of a block that belongs there: two eights of codes, from code `first` on.
const fn eights(bits: usize, first: usize) -> [usize; 16] {
    let mut part = [0; 16];
    let mut i = 0;
    while i < 16 {
        // The last bytes of a quadword do not matter.
        let byte = if i % 8 < bits { i % 8 } else { bits - 1 };
        part[i] = 2 + bits * (first / 8 + i / 8) + byte;
        i += 1;
    }
    part
}

/// Where the eight codes of a quadword begin.
const fn shifts(bits: usize) -> [u8; 64] {
    let mut shift = [0; 64];
    let mut i = 0;
    while i < 64 {
        shift[i] = (bits * (i % 8)) as u8;
        i += 1;
    }
    shift
}

/// The signed codes of one block of a precision lane of `bits` bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn codes(bits: u32, block: &[u8]) -> __m256i {
    match bits {
        3 => one_block::<3>(block),
        5 => five_bits(block),
        _ => one_block::<7>(block),
    }
}

/// The signed codes of one block of Q5_0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn five_bits(block: &[u8]) -> __m256i {
    let (high, low): (&[u8; 4], &[u8; 16]) = (part(block, 2), part(block, 6));
    // SAFETY: 16 bytes.
    let low = unsafe { _mm_loadu_si128(low.as_ptr().cast()) };
    let codes = _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(low), low), _mm256_set1_epi8(15));
    let center = _mm256_set1_epi8(16);
    // A set bit adds as much as the offset takes.
    _mm256_mask_sub_epi8(codes, !u32::from_le_bytes(*high), codes, center)
}

/// The signed codes of one block of `BITS` bits that follow each other.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn one_block<const BITS: usize>(block: &[u8]) -> __m256i {
    const fn all(bits: usize) -> [[usize; 16]; 2] {
        [eights(bits, 0), eights(bits, 16)]
    }
    let index = const {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 32 {
            index[i] = all(BITS)[i / 16][i % 16] as u8;
            i += 1;
        }
        index
    };
    let mask = first(block.len().min(32)) as u32;
    // SAFETY: the mask ends with the block; the constants have 32 bytes and more.
    let (block, index, shifts) = unsafe {
        (
            _mm256_maskz_loadu_epi8(mask, block.as_ptr().cast()),
            _mm256_loadu_si256(index.as_ptr().cast()),
            _mm256_loadu_si256(const { &shifts(BITS) }.as_ptr().cast()),
        )
    };
    let codes = _mm256_multishift_epi64_epi8(shifts, _mm256_permutexvar_epi8(index, block));
    let codes = _mm256_and_si256(codes, _mm256_set1_epi8(((1u8 << BITS) - 1) as i8));
    _mm256_sub_epi8(codes, _mm256_set1_epi8(1 << (BITS - 1)))
}

/// The codes of `BITS` bits in quadwords.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn cut<const BITS: usize>(eights: __m512i) -> __m512i {
    let codes = _mm512_multishift_epi64_epi8(bytes(const { &shifts(BITS) }), eights);
    _mm512_and_si512(codes, _mm512_set1_epi8(((1u8 << BITS) - 1) as i8))
}

pub(super) struct Bit3;
impl Format for Bit3 {
    const BYTES: usize = 8 * BlockFormat::Bit3.block_bytes();
    const SUB: usize = 32;
    const OFFSET: i32 = 4;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        // Half a step is 56 bytes: loads at 0 and 48 cover a half each, the latter from byte 8 on.
        const SECOND: usize = 48;
        const fn after(skip: usize, first: usize) -> [u8; 64] {
            let mut index = gather(14, 64, eights(3, first));
            let mut i = 0;
            while i < 64 {
                index[i] += skip as u8;
                i += 1;
            }
            index
        }
        const CODES: [[u8; 64]; 4] = [after(0, 0), after(0, 16), after(8, 0), after(8, 16)];
        const SCALES: [u16; 32] = {
            let mut index = [0; 32];
            let mut i = 0;
            while i < 32 {
                index[i] = (7 * (i % 4) + i / 4 % 2 * (32 + 4)) as u16;
                i += 1;
            }
            index
        };
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a step has 112 bytes.
        let first = unsafe { w.load::<FULL, 64>(0) };
        let mut second = _mm512_setzero_si512();
        if HALVES == 2 {
            // SAFETY: the caller promises the features of this level, and that `w` can be read,
            // whole if `FULL`.
            second = unsafe { w.load::<FULL, 64>(SECOND) };
        }
        let mut codes = [first, first, second, second];
        for (codes, index) in codes.iter_mut().zip(&CODES) {
            *codes = cut::<3>(_mm512_permutexvar_epi8(bytes(index), *codes));
        }
        Step {
            codes,
            scales: halves(_mm512_permutex2var_epi16(first, bytes(&SCALES), second)),
            mins: _mm512_setzero_ps(),
        }
    }
}

pub(super) struct Bit7;
impl Format for Bit7 {
    const BYTES: usize = 8 * BlockFormat::Bit7.block_bytes();
    const SUB: usize = 32;
    const OFFSET: i32 = 64;
    const GROUPS: [[usize; 4]; 4] = GROUPS;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step {
        const FIRST: [u8; 64] = gather(30, 56, eights(7, 0));
        const LAST: [u8; 64] = gather(30, 56, eights(7, 16));
        const SCALES: [u16; 32] = scales_of_half(30, 56);
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`; a half has 120 bytes.
        let loads = unsafe { load::<FULL, HALVES, 64>(w, 120, 56) };
        let mut codes = [_mm512_setzero_si512(); 4];
        for (h, [a, b]) in loads.into_iter().enumerate() {
            codes[2 * h] = cut::<7>(_mm512_permutex2var_epi8(a, bytes(&FIRST), b));
            codes[2 * h + 1] = cut::<7>(_mm512_permutex2var_epi8(a, bytes(&LAST), b));
        }
        Step { codes, scales: halves(merge(&SCALES, loads[0], loads[1])), mins: _mm512_setzero_ps() }
    }
}
