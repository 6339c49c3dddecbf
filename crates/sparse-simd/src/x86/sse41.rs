//! Kernels for SSE4.1.
//!
//! - `product`: the order in which a matrix product goes over rows and tokens, for float and quantised weights.
//! - `quantised`: products of quantised weights, one driver for all formats; `small` and `super_blocks` tell it
//!   where a format's codes and scales are.
//! - `float`: products of float weights, and the KV cache's half-precision rows.
//! - `rows`: norms, softmax, activations; `exp` is their exponential.
//! - `quantise`: activations to int8.
//!
//! Where the scalar kernel is a plain loop, compilers make it SSE2 already, and it serves here too.

mod exp;
mod float;
mod load;
mod product;
mod quantise;
mod quantised;
mod rows;
mod small;
mod super_blocks;

use crate::layout::*;
use crate::{Kernels, Level, scalar};

pub(crate) const KERNELS: Kernels = Kernels {
    level: Level::Sse41,
    quantise: quantise::quantise,
    matmul_f32: float::matmul::<float::F32>,
    matmul_f16: float::matmul::<float::F16>,
    matmul_bf16: float::matmul::<float::Bf16>,
    matmul_q4_0: quantised::matmul::<[BlockQ4_0; 4]>,
    matmul_q4_1: quantised::matmul::<[BlockQ4_1; 4]>,
    matmul_q5_0: quantised::matmul::<[BlockQ5_0; 4]>,
    matmul_q5_1: quantised::matmul::<[BlockQ5_1; 4]>,
    matmul_q8_0: quantised::matmul::<[BlockQ8_0; 4]>,
    matmul_q2_k: quantised::matmul::<BlockQ2K>,
    matmul_q3_k: quantised::matmul::<BlockQ3K>,
    matmul_q4_k: quantised::matmul::<BlockQ4K>,
    matmul_q5_k: quantised::matmul::<BlockQ5K>,
    matmul_q6_k: quantised::matmul::<BlockQ6K>,
    matmul_iq4_nl: quantised::matmul::<[BlockIq4Nl; 4]>,
    dot_f32: float::dot_f32,
    dot_f16: float::dot_f16,
    axpy_f32: scalar::KERNELS.axpy_f32,
    axpy_f16: float::axpy_f16,
    to_f16: float::to_f16,
    rms_norm: rows::rms_norm,
    softmax: rows::softmax,
    silu_mul: rows::silu_mul,
    add: scalar::KERNELS.add,
    rope: scalar::KERNELS.rope,
};
