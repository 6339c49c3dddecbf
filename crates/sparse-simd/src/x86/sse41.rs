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

use crate::kernels::{Sparse, SparseQ8};
use crate::layout::*;
use crate::{Kernels, Level, scalar};
use quantized::Step;

pub(crate) const KERNELS: Kernels = Kernels {
    level: Level::Sse41,
    quantize: quantize::quantize,
    quantize_rows: simd::quantize_rows,
    panels_f32: simd::panels_f32,
    panels_int8: simd::panels_int8,
    matmul_f32: simd::matmul_f32,
    matmul_f16: simd::matmul_f16,
    matmul_bf16: simd::matmul_bf16,
    matmul_q4_0: quantized::matmul::<[BlockQ4_0; 4]>,
    matmul_q4_1: quantized::matmul::<[BlockQ4_1; 4]>,
    matmul_q5_0: quantized::matmul::<[BlockQ5_0; 4]>,
    matmul_q5_1: quantized::matmul::<[BlockQ5_1; 4]>,
    matmul_q8_0: quantized::matmul::<[BlockQ8_0; 4]>,
    matmul_q2_k: quantized::matmul::<BlockQ2K>,
    matmul_q3_k: quantized::matmul::<BlockQ3K>,
    matmul_q4_k: quantized::matmul::<BlockQ4K>,
    matmul_q5_k: quantized::matmul::<BlockQ5K>,
    matmul_q6_k: quantized::matmul::<BlockQ6K>,
    matmul_iq4_nl: quantized::matmul::<[BlockIq4Nl; 4]>,
    matmul_bit3: quantized::matmul::<[BlockBit3; 4]>,
    matmul_bit7: quantized::matmul::<[BlockBit7; 4]>,
    sparse: SPARSE,
    scan: simd::scan,
    weighted_sum: simd::weighted_sum,
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
    rope: scalar::KERNELS.rope,
    rope_halves: simd::rope_halves,
};

const SPARSE: Sparse = Sparse {
    q4_0: sparse::<[BlockQ4_0; 4], BlockQ4_0>(),
    q4_1: sparse::<[BlockQ4_1; 4], BlockQ4_1>(),
    q5_0: sparse::<[BlockQ5_0; 4], BlockQ5_0>(),
    q5_1: sparse::<[BlockQ5_1; 4], BlockQ5_1>(),
    q8_0: sparse::<[BlockQ8_0; 4], BlockQ8_0>(),
    q2_k: sparse::<BlockQ2K, BlockQ2K>(),
    q3_k: sparse::<BlockQ3K, BlockQ3K>(),
    q4_k: sparse::<BlockQ4K, BlockQ4K>(),
    q5_k: sparse::<BlockQ5K, BlockQ5K>(),
    q6_k: sparse::<BlockQ6K, BlockQ6K>(),
    iq4_nl: sparse::<[BlockIq4Nl; 4], BlockIq4Nl>(),
    bit3: sparse::<[BlockBit3; 4], BlockBit3>(),
    bit7: sparse::<[BlockBit7; 4], BlockBit7>(),
    rows_floats: simd::matmul_rows,
    axpy_floats: simd::axpy_columns,
    add_rows: simd::add_rows,
};

const fn sparse<S: Step, B: Block>() -> SparseQ8 {
    SparseQ8 { rows: quantized::rows::<S>, axpy: columns::axpy::<B>, matmul: columns::matmul::<B> }
}
