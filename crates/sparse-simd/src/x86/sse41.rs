//! Kernels for SSE4.1.
//!
//! - `quantized`: products of quantized weights, one driver for all formats; `small` and `super_blocks` tell it
//!   where a format's codes and scales are.
//! - `simd`: everything on floats, from the generic kernels.
//! - `quantize`: activations to int8; `int8`: products of packed int8 weights.

mod columns;
mod int8;
mod load;
mod quantize;
mod quantized;
mod scan;
mod simd;
mod small;
mod super_blocks;

use crate::layout::*;
use crate::simd::{Bf16, F16, F32, Stored};
use crate::table::{ByFormat, FormatKernels, Int8Products, Table, by_format};
use crate::{Kernels, Level, scalar};
use quantized::Step;

pub(crate) static KERNELS: Kernels = Kernels(TABLE);

pub(crate) const TABLE: Table = Table {
    level: Level::Sse41,
    quantize: quantize::quantize,
    quantize_rows: simd::quantize_rows,
    panels_f32: simd::panels_f32,
    panels_int8: simd::panels_int8,
    formats: FORMATS,
    prefers_interleaved: false,
    scan: simd::scan,
    dot_f32: simd::dot_f32,
    axpy_f32: simd::axpy_f32,
    to_f16: simd::to_f16,
    rms_norm: simd::rms_norm,
    hadamard: simd::hadamard,
    layer_norm: simd::layer_norm,
    softmax: simd::softmax,
    activate: simd::activate,
    activate_mul: simd::activate_mul,
    add: simd::add,
    // A plain loop, which compilers make SSE2 already.
    rope: scalar::TABLE.rope,
    rope_halves: simd::rope_halves,
};

const FORMATS: ByFormat = by_format([
    floats::<F32>(),
    floats::<F16>(),
    floats::<Bf16>(),
    blocks::<BlockQ4_0>(),
    blocks::<BlockQ4_1>(),
    blocks::<BlockQ5_0>(),
    blocks::<BlockQ5_1>(),
    blocks::<BlockQ8_0>(),
    super_blocks::<BlockQ2K>(),
    super_blocks::<BlockQ3K>(),
    super_blocks::<BlockQ4K>(),
    super_blocks::<BlockQ5K>(),
    super_blocks::<BlockQ6K>(),
    blocks::<BlockIq4Nl>(),
    blocks::<BlockBit3>(),
    blocks::<BlockBit7>(),
]);

/// The entry of a format of floats.
const fn floats<W: Stored>() -> FormatKernels {
    simd::floats::<W>(simd::float_products::<W>())
}

/// The entry of a format with blocks of 32.
const fn blocks<B: Block>() -> FormatKernels
where
    [B; 4]: Step,
{
    simd::blocks::<B>(products::<[B; 4], B>())
}

/// The entry of a format with blocks of 256.
const fn super_blocks<B: Block + Step>() -> FormatKernels {
    simd::blocks::<B>(products::<B, B>())
}

const fn products<S: Step, B: Block>() -> Int8Products {
    Int8Products {
        matmul: quantized::matmul::<S>,
        rows: quantized::rows::<S>,
        axpy_columns: columns::axpy::<B>,
        matmul_columns: columns::matmul::<B>,
        matmul_interleaved: crate::scalar::interleaved::matmul(B::FORMAT),
    }
}
