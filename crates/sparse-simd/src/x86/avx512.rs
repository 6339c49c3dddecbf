//! Kernels for AVX-512 F, BW, VL, DQ, VNNI and VBMI.
//!
//! - `format` is what the drivers `gemv` (one token) and `gemm` (several) need of a quantized format; `small`,
//!   `lanes` and `supers` provide it for the formats with blocks of 32 and of 256 values.
//! - `columns` multiplies what is stored by columns.
//! - `int8` multiplies packed int8 weights.
//! - `simd`: functions and norms on rows of floats, and sums of weighted rows.
//!
//! Everything else is the AVX2 level's: on Zen 4, which executes 512-bit operations in two halves, float
//! products were no faster with wider vectors.

mod columns;
mod format;
mod gemm;
mod gemv;
mod int8;
mod lanes;
mod scan;
mod simd;
mod small;
mod supers;
mod transpose;

use crate::kernels::{Sparse, SparseQ8};
use crate::{Kernels, Level, MatMut, Q8, Rows};
use columns::ColumnFormat;
use format::Format;
use lanes::{Bit3, Bit7};
use small::{Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use supers::{Q2K, Q3K, Q4K, Q5K, Q6K};

pub(crate) const KERNELS: Kernels = Kernels {
    level: Level::Avx512,
    matmul_q4_0: matmul::<Q4_0>,
    matmul_q4_1: matmul::<Q4_1>,
    matmul_q5_0: matmul::<Q5_0>,
    matmul_q5_1: matmul::<Q5_1>,
    matmul_q8_0: matmul::<Q8_0>,
    matmul_q2_k: matmul::<Q2K>,
    matmul_q3_k: matmul::<Q3K>,
    matmul_q4_k: matmul::<Q4K>,
    matmul_q5_k: matmul::<Q5K>,
    matmul_q6_k: matmul::<Q6K>,
    matmul_iq4_nl: matmul::<Iq4Nl>,
    matmul_bit3: matmul::<Bit3>,
    matmul_bit7: matmul::<Bit7>,
    sparse: SPARSE,
    quantize_rows: simd::quantize_rows,
    panels_f32: simd::panels_f32,
    panels_int8: simd::panels_int8,
    scan: simd::scan,
    weighted_sum: simd::weighted_sum,
    to_f16: simd::to_f16,
    rms_norm: simd::rms_norm,
    hadamard: simd::hadamard,
    layer_norm: simd::layer_norm,
    softmax: simd::softmax,
    activate: simd::activate,
    activate_mul: simd::activate_mul,
    add: simd::add,
    rope_halves: simd::rope_halves,
    ..super::avx2::KERNELS
};

const SPARSE: Sparse = Sparse {
    q4_0: sparse::<Q4_0>(),
    q4_1: sparse::<Q4_1>(),
    q5_0: sparse::<Q5_0>(),
    q5_1: sparse::<Q5_1>(),
    q8_0: sparse::<Q8_0>(),
    q2_k: sparse::<Q2K>(),
    q3_k: sparse::<Q3K>(),
    q4_k: sparse::<Q4K>(),
    q5_k: sparse::<Q5K>(),
    q6_k: sparse::<Q6K>(),
    iq4_nl: sparse::<Iq4Nl>(),
    bit3: sparse::<Bit3>(),
    bit7: sparse::<Bit7>(),
    rows_floats: super::avx2::KERNELS.sparse.rows_floats,
    axpy_floats: simd::axpy_columns,
    add_rows: simd::add_rows,
};

const fn sparse<F: ColumnFormat>() -> SparseQ8 {
    SparseQ8 { rows: gemv::rows::<F>, axpy: columns::axpy::<F>, matmul: columns::matmul::<F> }
}

/// Tokens from which decoding a tile of weights for all of them is faster than reading the weights per token.
const MANY: usize = 6;

/// Weight bytes that stay in a cache while they are multiplied with a few tokens.
const CACHED: usize = 128 * 1024;

/// `out[t][r]` = row `r` of `w` times token `t` of `x`.
///
/// # Safety
/// - The CPU has the features of this level.
/// - The format of `w` is `F`, and the shapes fit together.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn matmul<F: Format>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    let tokens = x.tokens();
    if tokens >= MANY {
        // SAFETY: the caller's promises.
        return unsafe { gemm::gemm::<F>(w, x, out) };
    }
    let rows = if tokens == 1 { w.rows() } else { CACHED.div_ceil(w.row_bytes()) }.max(1);
    for from in (0..w.rows()).step_by(rows) {
        let range = from..w.rows().min(from + rows);
        for t in 0..tokens {
            // SAFETY: the caller's promises.
            unsafe { gemv::gemv::<F>(w.slice(range.clone()), x.row(t), &mut out.row(t)[range.clone()]) };
        }
    }
}
