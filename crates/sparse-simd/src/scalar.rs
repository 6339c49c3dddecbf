//! The kernels in plain Rust: what every other level is tested against.

mod float;
mod quantised;

use crate::layout::*;
use crate::{Kernels, Level};

pub(crate) const KERNELS: Kernels = Kernels {
    level: Level::Scalar,
    quantise: quantised::quantise,
    matmul_f32: float::matmul_f32,
    matmul_f16: float::matmul_f16,
    matmul_bf16: float::matmul_bf16,
    matmul_q4_0: quantised::matmul::<BlockQ4_0>,
    matmul_q4_1: quantised::matmul::<BlockQ4_1>,
    matmul_q5_0: quantised::matmul::<BlockQ5_0>,
    matmul_q5_1: quantised::matmul::<BlockQ5_1>,
    matmul_q8_0: quantised::matmul::<BlockQ8_0>,
    matmul_q2_k: quantised::matmul::<BlockQ2K>,
    matmul_q3_k: quantised::matmul::<BlockQ3K>,
    matmul_q4_k: quantised::matmul::<BlockQ4K>,
    matmul_q5_k: quantised::matmul::<BlockQ5K>,
    matmul_q6_k: quantised::matmul::<BlockQ6K>,
    matmul_iq4_nl: quantised::matmul::<BlockIq4Nl>,
    weighted_sum: float::weighted_sum,
    dot_f32: float::dot_f32,
    dot_f16: float::dot_f16,
    dot_bf16: float::dot_bf16,
    axpy_f32: float::axpy_f32,
    axpy_f16: float::axpy_f16,
    axpy_bf16: float::axpy_bf16,
    to_f16: float::to_f16,
    rms_norm: float::rms_norm,
    layer_norm: float::layer_norm,
    softmax: float::softmax,
    activate: float::activate,
    activate_mul: float::activate_mul,
    add: float::add,
    rope: float::rope,
    rope_halves: float::rope_halves,
};
