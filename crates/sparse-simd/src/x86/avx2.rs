//! Kernels for AVX2 with FMA and F16C.
//!
//! - `quantized`: products of quantized weights, one driver for all formats; `small` and `super_blocks` tell it
//!   where a format's codes and scales are, and `groups` decodes the others in plain Rust.
//! - `simd`: everything on floats, from the generic kernels; `rope` is what these cannot say.
//! - `quantize`: activations to int8; `int8`: products of packed int8 weights.

mod columns;
pub(super) mod dot;
mod groups;
pub(super) mod int8;
pub(super) mod interleaved;
mod load;
mod quantize;
pub(super) mod quantized;
mod rope;
mod scan;
pub(super) mod simd;
mod small;
mod super_blocks;

use crate::layout::*;
use crate::simd::Stored;
use crate::table::{ByFormat, ColumnProducts, FormatKernels, Int8Products, Table, by_format};
use crate::{Kernels, Level};
use quantized::Step;

pub(super) use simd::float_products;

use half::{bf16, f16};

pub(crate) static KERNELS: Kernels = Kernels(TABLE);

pub(crate) const TABLE: Table = Table {
    level: Level::Avx2,
    quantize: quantize::quantize,
    quantize_rows: simd::quantize_rows,
    panels_f32: simd::panels_f32,
    panels_int8: simd::panels_int8,
    formats: FORMATS,
    prefers_interleaved: |_| true,
    scan: simd::scan,
    dot_f32: simd::dot_f32,
    axpy_f32: simd::axpy_f32,
    to_f16: simd::to_f16,
    rms_norm: simd::rms_norm,
    hadamard: simd::hadamard,
    hadamard_runs: simd::hadamard_runs,
    round_pairs: simd::round_pairs,
    layer_norm: simd::layer_norm,
    softmax: simd::softmax,
    activate: simd::activate,
    activate_mul: simd::activate_mul,
    add: simd::add,
    rope: rope::rope,
    rope_halves: simd::rope_halves,
};

const FORMATS: ByFormat = by_format([
    floats::<f32>(),
    floats::<f16>(),
    floats::<bf16>(),
    blocks::<8, BlockQ4_0>(),
    blocks::<8, BlockQ4_1>(),
    blocks::<8, BlockQ5_0>(),
    blocks::<8, BlockQ5_1>(),
    blocks::<8, BlockQ8_0>(),
    super_blocks::<BlockQ2K>(),
    super_blocks::<BlockQ3K>(),
    super_blocks::<BlockQ4K>(),
    super_blocks::<BlockQ5K>(),
    super_blocks::<BlockQ6K>(),
    blocks::<8, BlockIq4Nl>(),
    super_blocks::<BlockIq4Xs>(),
    blocks::<8, BlockMxFp4>(),
    decoded::<BlockNvFp4>(),
    decoded::<BlockTq1_0>(),
    super_blocks::<BlockTq2_0>(),
    decoded::<BlockQ1_0>(),
    decoded::<BlockQ2_0>(),
    decoded::<BlockIq1S>(),
    decoded::<BlockIq1M>(),
    decoded::<BlockIq2Xxs>(),
    decoded::<BlockIq2Xs>(),
    decoded::<BlockIq2S>(),
    decoded::<BlockIq3Xxs>(),
    decoded::<BlockIq3S>(),
    decoded::<BlockNvFp4Scaled>(),
    blocks::<8, BlockBit3>(),
    blocks::<8, BlockBit7>(),
]);

/// The entry of a format of floats.
const fn floats<W: Stored>() -> FormatKernels {
    simd::floats::<W>(simd::float_products::<W>())
}

/// The entry of a format of which `N` blocks are a step.
const fn blocks<const N: usize, B: Block>() -> FormatKernels
where
    [B; N]: Step,
{
    simd::blocks::<B>(products::<[B; N], B>())
}

/// The entry of a format with blocks of 256.
const fn super_blocks<B: Block + Step>() -> FormatKernels {
    simd::blocks::<B>(products::<B, B>())
}

/// The entry of a quantized format that is decoded in plain Rust.
const fn decoded<B: Groups>() -> FormatKernels {
    let columns = column_products::<B>();
    simd::groups::<B>(Int8Products {
        matmul: groups::matmul::<B>,
        rows: groups::rows::<B>,
        matmul_each: None,
        columns,
        matmul_interleaved: None,
    })
}

const fn products<S: Step, B: Block>() -> Int8Products {
    Int8Products {
        matmul: quantized::matmul::<S>,
        rows: quantized::rows::<S>,
        matmul_each: None,
        columns: column_products::<B>(),
        matmul_interleaved: interleaved::matmul(B::FORMAT),
    }
}

const fn column_products<B: Block>() -> Option<ColumnProducts> {
    match B::COLUMNS {
        Some(_) => Some(ColumnProducts { axpy: columns::axpy::<B>, matmul: columns::matmul::<B> }),
        None => None,
    }
}
