//! Kernels for AVX2 with AVX-VNNI, which multiplies bytes and adds four products in one instruction.
//!
//! - Products of formats without sub-scales, by AVX2's driver; with sub-scales, sums in 16 bits are as good.
//! - Products of packed int8 weights.
//!
//! Everything else is the AVX2 level's.

use super::avx2::TABLE as AVX2;
use super::avx2::dot::{Dot, Vex};
use super::avx2::int8::in_memory;
use super::avx2::quantized::{Step, all_rows, some_rows};
use super::avx2::simd::Avx2;
use crate::generic::int8::{self, Int8Step, PANELS, Sums};
use crate::int8::BLOCK;
use crate::layout::*;
use crate::panels::Line;
use crate::table::{ByFormat, FormatKernels, Int8Products, Products, Table};
use crate::{Int8, Kernels, Level, MatMut, Panels, Q8, Rows};
use core::arch::x86_64::*;

pub(crate) static KERNELS: Kernels = Kernels(vex::TABLE);

#[cfg(debug_assertions)]
pub(crate) static BY_AVX512: Kernels = Kernels(evex::TABLE);

/// The table for one form of the instruction: `table!(module, features, form)`.
macro_rules! table {
    ($module:ident, $features:literal, $dot:ty) => {
        mod $module {
            use super::*;

            pub(super) const TABLE: Table =
                Table { level: Level::AvxVnni, formats: formats(), panels_int8, ..AVX2 };

            const fn formats() -> ByFormat {
                let mut formats = AVX2.formats;
                replace::<[BlockQ4_0; 8], BlockQ4_0>(&mut formats);
                replace::<[BlockQ4_1; 8], BlockQ4_1>(&mut formats);
                replace::<[BlockQ5_0; 8], BlockQ5_0>(&mut formats);
                replace::<[BlockQ5_1; 8], BlockQ5_1>(&mut formats);
                replace::<[BlockQ8_0; 8], BlockQ8_0>(&mut formats);
                replace::<[BlockIq4Nl; 8], BlockIq4Nl>(&mut formats);
                replace::<[BlockMxFp4; 8], BlockMxFp4>(&mut formats);
                replace::<BlockTq2_0, BlockTq2_0>(&mut formats);
                replace::<[BlockBit3; 8], BlockBit3>(&mut formats);
                replace::<[BlockBit7; 8], BlockBit7>(&mut formats);
                formats
            }

            /// Replaces the products with rows of a format.
            const fn replace<S: Step, B: Block>(formats: &mut ByFormat) {
                let entry = formats[B::FORMAT as usize];
                let Products::Int8(avx2) = entry.products else { panic!("not quantized") };
                let products = Int8Products { matmul: matmul::<S>, rows: rows::<S>, ..avx2 };
                formats[B::FORMAT as usize] = FormatKernels { products: Products::Int8(products), ..entry };
            }

            #[target_feature(enable = $features)]
            fn matmul<S: Step>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
                // SAFETY: this function is compiled for the same features, so the CPU that runs it
                // has them.
                unsafe { all_rows::<S, $dot>(w, x, out) }
            }

            #[target_feature(enable = $features)]
            fn rows<S: Step>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
                // SAFETY: this function is compiled for the same features, so the CPU that runs it
                // has them.
                unsafe { some_rows::<S, $dot>(w, active, x, out) }
            }

            #[target_feature(enable = $features)]
            fn panels_int8(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
                // SAFETY: this function is compiled for the same features, so the CPU that runs it
                // has them.
                let proof = unsafe { Avx2::<$dot>::assume() };
                int8::multiply::<_, { <Avx2<$dot> as Int8Step>::TOKENS }>(proof, w, x, out);
            }
        }
    };
}

table!(vex, "avx2,fma,f16c,avxvnni", Vex);
#[cfg(debug_assertions)]
table!(evex, "avx2,fma,f16c,avx512f,avx512vl,avx512vnni", super::super::avx2::dot::Evex);

/// Marks the forms of the instruction.
trait Fused: Dot {}

impl Fused for Vex {}
#[cfg(debug_assertions)]
impl Fused for super::avx2::dot::Evex {}

impl<D: Fused> Int8Step for Avx2<D> {
    type Codes = [u8; 4];
    type Room = [[u8; 4]; 0];

    // 12 accumulators of a panel, two vectors of weights and four codes.
    const TOKENS: usize = 6;

    #[inline(always)]
    fn arrange<'a>(self, x: &'a [[u8; 4]], _: &'a mut [[u8; 4]]) -> &'a [[u8; 4]] {
        x
    }

    #[inline(always)]
    fn add_products<const T: usize>(
        self,
        panels: [&[Line]; PANELS],
        x: [&[[u8; 4]]; T],
        sums: &mut [Sums; T],
    ) {
        for (p, panel) in panels.into_iter().enumerate() {
            // SAFETY: `self` proves that the CPU has the features.
            unsafe { add_products::<D, T>(panel, x, p, sums) };
            in_memory(sums);
        }
    }

    #[inline(always)]
    fn to_codes(self, x: [__m256; 4]) -> [u8; BLOCK] {
        // SAFETY: `self` proves that the CPU has AVX2.
        let avx2 = unsafe { Avx2::<super::avx2::dot::Pairs>::assume() };
        avx2.to_codes(x)
    }
}

/// Adds the products with panel `p` of the tile.
///
/// # Safety
/// - The CPU has AVX2 and what `D` needs.
#[inline(always)]
unsafe fn add_products<D: Dot, const T: usize>(
    panel: &[Line],
    mut x: [&[[u8; 4]]; T],
    p: usize,
    sums: &mut [Sums; T],
) {
    for x in &mut x {
        *x = &x[..panel.len()];
    }
    // SAFETY: the caller promises that the CPU has AVX2 and what `D` needs; loads and stores are as
    // long as the references, and `i` is below all lengths.
    unsafe {
        let mut totals = [[_mm256_setzero_si256(); 2]; T];
        for (totals, sums) in totals.iter_mut().zip(&*sums) {
            for (total, sums) in totals.iter_mut().zip(sums[p].as_chunks::<8>().0) {
                *total = _mm256_loadu_si256(sums.as_ptr().cast());
            }
        }
        for (i, line) in panel.iter().enumerate() {
            let mut w = [_mm256_setzero_si256(); 2];
            for (w, codes) in w.iter_mut().zip(line.codes().as_chunks::<8>().0) {
                *w = _mm256_loadu_si256(codes.as_ptr().cast());
            }
            for (totals, x) in totals.iter_mut().zip(&x) {
                let four = _mm256_set1_epi32(i32::from_le_bytes(*x.get_unchecked(i)));
                for (total, w) in totals.iter_mut().zip(w) {
                    *total = D::add(*total, four, w);
                }
            }
        }
        for (totals, sums) in totals.iter().zip(sums) {
            for (total, sums) in totals.iter().zip(sums[p].as_chunks_mut::<8>().0) {
                _mm256_storeu_si256(sums.as_mut_ptr().cast(), *total);
            }
        }
    }
}
