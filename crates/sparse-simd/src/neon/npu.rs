//! Products of bytes by the instructions that vendors sell as neural processing: experimental, behind feature `npu`.
//!
//! - `dotprod`: `sdot` adds four products to each of four sums (ARMv8.2).
//! - `i8mm`: `usmmla` multiplies matrices of 2 x 8 bytes (ARMv8.6), for packed int8 weights.
//!
//! They are inline assembly, as Rust's names for them are not stable. Everything else is the NEON level's.

use super::packed::int8_step;
use super::*;
use crate::generic::int8::{Int8Step, PANELS, Sums};
use crate::int8::BLOCK;
use crate::layout::Float;
use crate::panels::Line;

/// The kernels of `level`, if the CPU has its instructions.
pub(super) fn kernels(level: Level) -> Option<&'static Kernels> {
    match level {
        Level::Dotprod if has_dotprod() => Some(&dotprod::KERNELS),
        Level::I8mm if has_dotprod() && std::arch::is_aarch64_feature_detected!("i8mm") => {
            Some(&i8mm::KERNELS)
        }
        _ => None,
    }
}

fn has_dotprod() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// The level with `sdot`.
mod dotprod {
    use super::*;

    pub(super) static KERNELS: Kernels = Kernels(TABLE);

    pub(super) const TABLE: Table = Table {
        level: Level::Dotprod,
        formats: formats!(stored, steps, decoded),
        panels_int8,
        scan,
        ..super::super::TABLE
    };

    int8_products!(Neon<Sdot>, "neon,dotprod");

    const fn stored<W: Float>() -> FormatKernels {
        super::super::TABLE.formats[W::FORMAT as usize]
    }

    const fn steps<S: Step, B: Block>() -> FormatKernels {
        with_products(B::FORMAT, products::<S, B>())
    }

    const fn decoded<B: Groups>() -> FormatKernels {
        with_products(B::FORMAT, decoded_products::<B>())
    }

    const fn with_products(format: crate::BlockFormat, products: Int8Products) -> FormatKernels {
        FormatKernels { products: Products::Int8(products), ..super::super::TABLE.formats[format as usize] }
    }

    #[target_feature(enable = "neon,dotprod")]
    fn scan(w: Tiles<'_>, x: Q8<'_>, out: &mut [f32]) {
        tiles::scan(Neon::<Sdot>::new(), w, x, out);
    }

    #[target_feature(enable = "neon,dotprod")]
    fn panels_int8(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
        int8::multiply::<_, { <Neon<Sdot> as Int8Step>::TOKENS }>(Neon::<Sdot>::new(), w, x, out);
    }
}

/// The level with `usmmla`.
mod i8mm {
    use super::*;

    pub(super) static KERNELS: Kernels = Kernels(Table { level: Level::I8mm, panels_int8, ..dotprod::TABLE });

    #[target_feature(enable = "neon,dotprod,i8mm")]
    fn panels_int8(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
        // SAFETY: this function is compiled for the same features, so the CPU that runs it has
        // them.
        let proof = unsafe { Neon::<Matrices>::assume() };
        int8::multiply::<_, { <Neon<Matrices> as Int8Step>::TOKENS }>(proof, w, x, out);
    }
}

/// Four products per sum and instruction.
#[derive(Clone, Copy)]
struct Sdot;

impl Neon<Sdot> {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    fn new() -> Self {
        // SAFETY: this function is compiled for the same features, so the CPU that runs it has
        // them.
        unsafe { Self::assume() }
    }
}

impl Dot for Sdot {
    #[inline(always)]
    unsafe fn add_products(mut sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller promises that the CPU has `sdot`; the instruction only touches its
        // registers.
        unsafe {
            asm!(
                "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
                sums = inout(vreg) sums,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }

    #[inline(always)]
    unsafe fn group<S: Step>(
        codes: [int8x16_t; 2],
        x: [int8x16_t; 2],
        sub: int16x8_t,
        g: usize,
    ) -> int32x4_t {
        // SAFETY: the caller promises that the CPU has `sdot`.
        unsafe {
            let none = vdupq_n_s32(0);
            let first = Self::add_products(none, codes[0], x[0]);
            match S::SUB_SCALES {
                SubScales::None => Self::add_products(first, codes[1], x[1]),
                SubScales::Group => {
                    let both = Self::add_products(first, codes[1], x[1]);
                    vmulq_s32(both, everywhere(sub, 2 * g))
                }
                SubScales::Half => {
                    let second = Self::add_products(none, codes[1], x[1]);
                    let first = vmulq_s32(first, everywhere(sub, 2 * g));
                    vmlaq_s32(first, second, everywhere(sub, 2 * g + 1))
                }
            }
        }
    }
}

/// Number `i` of eight integers in all places, in 32 bits.
#[inline]
#[target_feature(enable = "neon")]
fn everywhere(x: int16x8_t, i: usize) -> int32x4_t {
    let half = if i < 4 { vmovl_s16(vget_low_s16(x)) } else { vmovl_high_s16(x) };
    match i % 4 {
        0 => vdupq_laneq_s32::<0>(half),
        1 => vdupq_laneq_s32::<1>(half),
        2 => vdupq_laneq_s32::<2>(half),
        _ => vdupq_laneq_s32::<3>(half),
    }
}

// 16 accumulators of a panel, some vectors of weights and of codes.
int8_step!(Sdot, 4, true, add_fours);
int8_step!(Matrices, 4, false, add_matrices);

/// Adds the products with panel `p` of the tile, without the 128 of the activations' codes.
///
/// # Safety
/// - The CPU has `sdot`.
#[inline(always)]
unsafe fn add_fours<const T: usize>(panel: &[Line], x: [&[[u8; 4]]; T], p: usize, sums: &mut [Sums; T]) {
    // SAFETY: the caller promises that the CPU has `sdot`; loads and stores are as long as the
    // references.
    unsafe {
        let mut totals = [[vdupq_n_s32(0); 4]; T];
        for (totals, sums) in totals.iter_mut().zip(&*sums) {
            for (total, sums) in totals.iter_mut().zip(sums[p].as_chunks::<4>().0) {
                *total = vld1q_s32(sums.as_ptr());
            }
        }
        let (fours, rest) = panel.as_chunks::<4>();
        for (i, lines) in fours.iter().enumerate() {
            let mut codes = [vdupq_n_s8(0); T];
            for (codes, x) in codes.iter_mut().zip(&x) {
                let x: &[u8; 16] = bytemuck::cast_ref(&x.as_chunks::<4>().0[i]);
                *codes = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(x.as_ptr()), vdupq_n_u8(128)));
            }
            add_line::<0, T>(&lines[0], codes, &mut totals);
            add_line::<1, T>(&lines[1], codes, &mut totals);
            add_line::<2, T>(&lines[2], codes, &mut totals);
            add_line::<3, T>(&lines[3], codes, &mut totals);
        }
        for (line, i) in rest.iter().zip(4 * fours.len()..) {
            let mut codes = [vdupq_n_s8(0); T];
            for (codes, x) in codes.iter_mut().zip(&x) {
                let x = vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(x[i])));
                *codes = vreinterpretq_s8_u8(veorq_u8(x, vdupq_n_u8(128)));
            }
            add_line::<0, T>(line, codes, &mut totals);
        }
        for (totals, sums) in totals.iter().zip(sums) {
            for (total, sums) in totals.iter().zip(sums[p].as_chunks_mut::<4>().0) {
                vst1q_s32(sums.as_mut_ptr(), *total);
            }
        }
    }
}

/// Adds the products of a line with the four codes of each token at place `I`.
///
/// # Safety
/// - The CPU has `sdot`.
#[inline(always)]
unsafe fn add_line<const I: usize, const T: usize>(
    line: &Line,
    x: [int8x16_t; T],
    totals: &mut [[int32x4_t; 4]; T],
) {
    for (r, codes) in line.codes().as_chunks::<4>().0.iter().enumerate() {
        let codes: &[i8; 16] = bytemuck::cast_ref(codes);
        // SAFETY: the load is as long as the reference.
        let codes = unsafe { vld1q_s8(codes.as_ptr()) };
        for (totals, x) in totals.iter_mut().zip(x) {
            let sum = &mut totals[r];
            // SAFETY: the caller promises that the CPU has `sdot`; the instruction only touches its
            // registers.
            unsafe {
                asm!(
                    "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.4b[{i}]",
                    sum = inout(vreg) *sum,
                    codes = in(vreg) codes,
                    x = in(vreg) x,
                    i = const I,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
    }
}

/// Products of matrices of 2 x 8 bytes; others are those of [`Sdot`].
#[derive(Clone, Copy)]
struct Matrices;

impl Dot for Matrices {
    #[inline(always)]
    unsafe fn add_products(sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller promises that the CPU has `sdot`.
        unsafe { Sdot::add_products(sums, codes, x) }
    }

    #[inline(always)]
    unsafe fn group<S: Step>(
        codes: [int8x16_t; 2],
        x: [int8x16_t; 2],
        sub: int16x8_t,
        g: usize,
    ) -> int32x4_t {
        // SAFETY: the caller promises that the CPU has `sdot`.
        unsafe { Sdot::group::<S>(codes, x, sub, g) }
    }
}

/// Rows of a panel by twos.
const TWOS: usize = 8;

/// Tokens of a tile by twos, at most.
const PAIRS: usize = 2;

/// Adds the products with panel `p` of the tile.
///
/// # Safety
/// - The CPU has `usmmla`.
#[inline(always)]
unsafe fn add_matrices<const T: usize>(panel: &[Line], x: [&[[u8; 4]]; T], p: usize, sums: &mut [Sums; T]) {
    // Where there is no second token of a pair, it is the first one again, and its sums are dropped.
    let second = |pair: usize| (2 * pair + 1).min(T - 1);
    // SAFETY: the caller promises that the CPU has `usmmla`; loads are as long as the references.
    unsafe {
        // Two rows of each of two tokens.
        let mut totals = [[vdupq_n_s32(0); TWOS]; PAIRS];
        for (pair, totals) in totals.iter_mut().enumerate().take(T.div_ceil(2)) {
            let (a, b) = (&sums[2 * pair][p], &sums[second(pair)][p]);
            for (i, total) in totals.iter_mut().enumerate() {
                let four = [a[2 * i], a[2 * i + 1], b[2 * i], b[2 * i + 1]];
                *total = vld1q_s32(four.as_ptr());
            }
        }
        let none = Line::ZERO;
        for (i, lines) in panel.chunks(2).enumerate() {
            // Columns that are not there are zeros in the weights.
            let lines = [&lines[0], lines.get(1).unwrap_or(&none)];
            let mut codes = [vdupq_n_u8(0); PAIRS];
            for (pair, codes) in codes.iter_mut().enumerate().take(T.div_ceil(2)) {
                let eight = |t: usize| {
                    let x = [x[t][2 * i], *x[t].get(2 * i + 1).unwrap_or(&[0; 4])];
                    vcreate_u8(u64::from_le_bytes(bytemuck::cast(x)))
                };
                *codes = vcombine_u8(eight(2 * pair), eight(second(pair)));
            }
            for four in 0..4 {
                let row = |line: &Line| vld1q_s32(line.codes().as_chunks::<4>().0[four].as_ptr().cast());
                let (a, b) = (row(lines[0]), row(lines[1]));
                // Eight columns of two rows.
                let rows = [vzip1q_s32(a, b), vzip2q_s32(a, b)];
                for (totals, codes) in totals.iter_mut().zip(codes).take(T.div_ceil(2)) {
                    for (total, rows) in totals[2 * four..].iter_mut().zip(rows) {
                        asm!(
                            "usmmla {total:v}.4s, {codes:v}.16b, {rows:v}.16b",
                            total = inout(vreg) *total,
                            codes = in(vreg) codes,
                            rows = in(vreg) rows,
                            options(pure, nomem, nostack, preserves_flags)
                        );
                    }
                }
            }
        }
        for (pair, totals) in totals.iter().enumerate().take(T.div_ceil(2)) {
            for (i, total) in totals.iter().enumerate() {
                let mut four = [0; 4];
                vst1q_s32(four.as_mut_ptr(), *total);
                sums[second(pair)][p][2 * i..][..2].copy_from_slice(&four[2..]);
                // The first token's last: it may be the second one, too.
                sums[2 * pair][p][2 * i..][..2].copy_from_slice(&four[..2]);
            }
        }
    }
}
