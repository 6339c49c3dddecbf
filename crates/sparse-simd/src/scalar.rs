//! The kernels in plain Rust: what every other level is tested against.

mod columns;
mod float;
mod panels;
mod quantized;
mod scan;

use crate::kernels::{Sparse, SparseQ8};
use crate::layout::*;
use crate::{Kernels, Level};

pub(crate) const KERNELS: Kernels = Kernels {
    level: Level::Scalar,
    quantize: quantized::quantize,
    quantize_rows: panels::quantize_rows,
    panels_f32: panels::matmul_f32,
    panels_int8: panels::matmul_int8,
    matmul_f32: float::matmul_f32,
    matmul_f16: float::matmul_f16,
    matmul_bf16: float::matmul_bf16,
    matmul_q4_0: quantized::matmul::<BlockQ4_0>,
    matmul_q4_1: quantized::matmul::<BlockQ4_1>,
    matmul_q5_0: quantized::matmul::<BlockQ5_0>,
    matmul_q5_1: quantized::matmul::<BlockQ5_1>,
    matmul_q8_0: quantized::matmul::<BlockQ8_0>,
    matmul_q2_k: quantized::matmul::<BlockQ2K>,
    matmul_q3_k: quantized::matmul::<BlockQ3K>,
    matmul_q4_k: quantized::matmul::<BlockQ4K>,
    matmul_q5_k: quantized::matmul::<BlockQ5K>,
    matmul_q6_k: quantized::matmul::<BlockQ6K>,
    matmul_iq4_nl: quantized::matmul::<BlockIq4Nl>,
    matmul_bit3: quantized::matmul::<BlockBit3>,
    matmul_bit7: quantized::matmul::<BlockBit7>,
    sparse: SPARSE,
    scan: scan::scan,
    weighted_sum: float::weighted_sum,
    dot_f32: float::dot_f32,
    axpy_f32: float::axpy_f32,
    to_f16: float::to_f16,
    rms_norm: float::rms_norm,
    hadamard: crate::hadamard::transform,
    layer_norm: float::layer_norm,
    softmax: float::softmax,
    activate: float::activate,
    activate_mul: float::activate_mul,
    add: float::add,
    rope: float::rope,
    rope_halves: float::rope_halves,
};

const SPARSE: Sparse = Sparse {
    q4_0: sparse::<BlockQ4_0>(),
    q4_1: sparse::<BlockQ4_1>(),
    q5_0: sparse::<BlockQ5_0>(),
    q5_1: sparse::<BlockQ5_1>(),
    q8_0: sparse::<BlockQ8_0>(),
    q2_k: sparse::<BlockQ2K>(),
    q3_k: sparse::<BlockQ3K>(),
    q4_k: sparse::<BlockQ4K>(),
    q5_k: sparse::<BlockQ5K>(),
    q6_k: sparse::<BlockQ6K>(),
    iq4_nl: sparse::<BlockIq4Nl>(),
    bit3: sparse::<BlockBit3>(),
    bit7: sparse::<BlockBit7>(),
    rows_floats: float::matmul_rows,
    axpy_floats: columns::axpy_floats,
    add_rows: float::add_rows,
};

const fn sparse<B: Block>() -> SparseQ8 {
    SparseQ8 { rows: quantized::rows::<B>, axpy: columns::axpy, matmul: columns::matmul }
}
