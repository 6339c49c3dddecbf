//! Products of interleaved rows with int8 activations.
//!
//! A register, a *word*, holds four columns of eight rows. Activations are broadcast by fours, so `vpmaddubsw` makes
//! sixteen sums of two products, and these are added in 16 bits as long as they fit. `vpmaddwd` then leaves one
//! integer per row.
//!
//! One token is multiplied with codes as they are unpacked ([`one`]). For several, codes are unpacked once ([`batch`]).

mod batch;
mod one;
mod parts;
mod small;
mod super_blocks;

use crate::interleaved::{Interleaved, ROWS};
use crate::layout::BlockFormat;
use crate::table::MatmulInterleaved;
use crate::{MatMut, Q8};
use core::arch::x86_64::*;
use small::*;
use super_blocks::*;

/// Words of a group of 32 columns.
const WORDS: usize = 8;

/// What a format subtracts, or adds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mins {
    /// Nothing.
    None,
    /// A minimum per row and group.
    PerGroup,
    /// One per half of a group, as integers with a factor of the block.
    PerHalf,
}

/// How codes are multiplied.
trait Arithmetic: Copy {
    /// Words whose products are added in 16 bits: as many as fit. Codes are signed if it is one.
    const EXACT: usize;
    /// Whether halves of a group have scales of their own, as integers with a factor of the block.
    const HALVES: bool;
    /// What codes are too large by, if halves have scales. Otherwise it is in the minimum.
    const OFFSET: i16 = 0;
    const MINS: Mins;
}

/// Eight rows of one block column.
///
/// `SPAN` groups of 32 columns that follow each other have codes in the same bytes: a *run* of groups.
trait Tile<const SPAN: usize>: Copy {
    const FORMAT: BlockFormat;
    /// Groups of 32 columns.
    const GROUPS: usize = Self::FORMAT.block_len() / 32;
    const BYTES: usize = ROWS * Self::FORMAT.block_bytes();
    type Arithmetic: Arithmetic;
    /// What the groups of a block share.
    type Factors: Copy;

    /// # Safety
    /// - The CPU has AVX2, FMA and F16C; `tile` has [`BYTES`](Self::BYTES) bytes.
    unsafe fn factors(tile: *const u8) -> Self::Factors;

    /// The scales of group `g`, a row each; of the block, if halves have scales.
    ///
    /// # Safety
    /// As for [`factors`](Self::factors); `g` is below [`GROUPS`](Self::GROUPS).
    unsafe fn scale(f: &Self::Factors, g: usize) -> __m256;

    /// The minima of group `g`, a row each; of the block, if halves have minima.
    ///
    /// # Safety
    /// As for [`scale`](Self::scale).
    unsafe fn min(_f: &Self::Factors, _g: usize) -> __m256 {
        // SAFETY: the caller knows that the CPU has AVX2.
        unsafe { _mm256_setzero_ps() }
    }

    /// The scales of half `i` of group `g`, a row each, twice in 16 bits.
    ///
    /// # Safety
    /// As for [`scale`](Self::scale).
    unsafe fn half_scale(_tile: *const u8, _g: usize, _i: usize) -> __m256i {
        // SAFETY: the caller knows that the CPU has AVX2.
        unsafe { _mm256_set1_epi16(1) }
    }

    /// The minima of both halves of group `g`, a row each, in 16 bits.
    ///
    /// # Safety
    /// As for [`scale`](Self::scale).
    unsafe fn half_mins(_tile: *const u8, _g: usize) -> __m256i {
        // SAFETY: the caller knows that the CPU has AVX2.
        unsafe { _mm256_setzero_si256() }
    }

    /// Word `k` of the codes of group `J` of run `run`.
    ///
    /// # Safety
    /// As for [`factors`](Self::factors); all numbers are in range.
    unsafe fn codes<const J: usize>(tile: *const u8, run: usize, k: usize) -> __m256i;
}

/// Products of the formats that have them.
pub(in crate::x86) const fn matmul(format: BlockFormat) -> Option<MatmulInterleaved> {
    Some(match format {
        BlockFormat::Q4_0 => products::<Q4_0, 1>,
        BlockFormat::Q4_1 => products::<Q4_1, 1>,
        BlockFormat::Q5_0 => products::<Q5_0, 1>,
        BlockFormat::Q5_1 => products::<Q5_1, 1>,
        BlockFormat::Q8_0 => products::<Q8_0, 1>,
        BlockFormat::Q2K => products::<Q2K, 4>,
        BlockFormat::Q3K => products::<Q3K, 4>,
        BlockFormat::Q4K => products::<Q4K, 2>,
        BlockFormat::Q5K => products::<Q5K, 2>,
        BlockFormat::Q6K => products::<Q6K, 4>,
        BlockFormat::Iq4Nl => products::<Iq4Nl, 1>,
        BlockFormat::Iq4Xs => products::<Iq4Xs, 1>,
        BlockFormat::MxFp4 => products::<MxFp4, 1>,
        _ => return None,
    })
}

/// # Safety
/// As for [`Table`](crate::table::Table).
#[target_feature(enable = "avx2,fma,f16c")]
fn products<F: Tile<SPAN>, const SPAN: usize>(w: Interleaved<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    debug_assert_eq!(w.layout().format(), F::FORMAT);
    if x.tokens() == 1 {
        one::products::<F, SPAN>(w, x, out);
    } else {
        batch::products::<F, SPAN>(w, x, out);
    }
}

/// Calls `$body` with a constant `$J` for every group of a run.
macro_rules! groups_of_a_run {
    ($span:expr, $J:ident => $body:expr) => {{
        groups_of_a_run!(@ 0 1 2 3, $span, $J, $body);
    }};
    (@ $($n:literal)*, $span:expr, $J:ident, $body:expr) => {
        $(if $n < $span {
            const $J: usize = $n;
            $body;
        })*
    };
}
use groups_of_a_run;
