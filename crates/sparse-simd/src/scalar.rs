//! The kernels in plain Rust: what every other level is tested against.

pub(crate) mod columns;
mod float;
pub(crate) mod interleaved;
mod panels;
mod quantized;
mod scan;

use crate::layout::*;
use crate::table::{ByFormat, FloatProducts, FormatKernels, Int8Products, Products, Table, by_format};
use crate::{Kernels, Level};
use half::{bf16, f16};

pub(crate) static KERNELS: Kernels = Kernels(TABLE);

pub(crate) const TABLE: Table = Table {
    level: Level::Scalar,
    formats: FORMATS,
    prefers_interleaved: |_| false,
    quantize: quantized::quantize,
    quantize_rows: panels::quantize_rows,
    panels_f32: panels::matmul_f32,
    panels_int8: panels::matmul_int8,
    scan: scan::scan,
    dot_f32: float::dot_f32,
    axpy_f32: float::axpy_f32,
    to_f16: float::to_f16,
    rms_norm: float::rms_norm,
    hadamard: crate::hadamard::transform,
    hadamard_runs: crate::hadamard::runs,
    round_pairs: crate::tiles::round_pairs,
    layer_norm: float::layer_norm,
    softmax: float::softmax,
    activate: float::activate,
    activate_mul: float::activate_mul,
    add: float::add,
    rope: float::rope,
    rope_halves: float::rope_halves,
};

const FORMATS: ByFormat = by_format([
    floats::<f32>(),
    floats::<f16>(),
    floats::<bf16>(),
    blocks::<BlockQ4_0>(),
    blocks::<BlockQ4_1>(),
    blocks::<BlockQ5_0>(),
    blocks::<BlockQ5_1>(),
    blocks::<BlockQ8_0>(),
    blocks::<BlockQ2K>(),
    blocks::<BlockQ3K>(),
    blocks::<BlockQ4K>(),
    blocks::<BlockQ5K>(),
    blocks::<BlockQ6K>(),
    blocks::<BlockIq4Nl>(),
    blocks::<BlockIq4Xs>(),
    blocks::<BlockMxFp4>(),
    blocks::<BlockNvFp4>(),
    blocks::<BlockTq1_0>(),
    blocks::<BlockTq2_0>(),
    blocks::<BlockQ1_0>(),
    blocks::<BlockQ2_0>(),
    blocks::<BlockIq1S>(),
    blocks::<BlockIq1M>(),
    blocks::<BlockIq2Xxs>(),
    blocks::<BlockIq2Xs>(),
    blocks::<BlockIq2S>(),
    blocks::<BlockIq3Xxs>(),
    blocks::<BlockIq3S>(),
    blocks::<BlockNvFp4Scaled>(),
    blocks::<BlockBit3>(),
    blocks::<BlockBit7>(),
]);

/// The entry of a format of floats.
const fn floats<W: Float>() -> FormatKernels {
    FormatKernels {
        format: W::FORMAT,
        products: Products::Floats(FloatProducts {
            matmul: float::matmul::<W>,
            rows: float::matmul_rows::<W>,
            axpy_columns: float::axpy_columns::<W>,
        }),
        add_rows: float::add_rows,
        weighted_sum: float::weighted_sum,
    }
}

/// The entry of a quantized format.
const fn blocks<B: Block>() -> FormatKernels {
    FormatKernels {
        format: B::FORMAT,
        products: Products::Int8(Int8Products {
            matmul: quantized::matmul::<B>,
            rows: quantized::rows::<B>,
            matmul_each: None,
            columns: columns::products::<B>(),
            matmul_interleaved: interleaved::matmul(B::FORMAT),
        }),
        add_rows: float::add_rows,
        weighted_sum: float::weighted_sum,
    }
}
