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

use crate::layout::*;
use crate::simd::Stored;
use crate::table::{
    ByFormat, ColumnProducts, FloatProducts, FormatKernels, Int8Products, Products, Table, by_format,
};
use crate::{BlockFormat, Kernels, Level, MatMut, Q8, Rows};
use columns::ColumnFormat;
use format::Format;
use lanes::{Bit3, Bit7};
use small::{Iq4Nl, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use supers::{Q2K, Q3K, Q4K, Q5K, Q6K};

use half::{bf16, f16};

pub(crate) static KERNELS: Kernels = Kernels(TABLE);

pub(crate) const TABLE: Table = Table {
    level: Level::Avx512,
    formats: FORMATS,
    // Those that are multiplied with the instructions of AVX2.
    prefers_interleaved: |format| matches!(format, BlockFormat::Iq4Xs | BlockFormat::MxFp4),
    quantize_rows: simd::quantize_rows,
    panels_f32: simd::panels_f32,
    panels_int8: simd::panels_int8,
    scan: simd::scan,
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
    rope_halves: simd::rope_halves,
    ..super::avx2::TABLE
};

const FORMATS: ByFormat = by_format([
    floats::<f32>(),
    floats::<f16>(),
    floats::<bf16>(),
    blocks::<Q4_0>(),
    blocks::<Q4_1>(),
    blocks::<Q5_0>(),
    blocks::<Q5_1>(),
    blocks::<Q8_0>(),
    blocks::<Q2K>(),
    blocks::<Q3K>(),
    blocks::<Q4K>(),
    blocks::<Q5K>(),
    blocks::<Q6K>(),
    blocks::<Iq4Nl>(),
    as_avx2::<BlockIq4Xs>(),
    as_avx2::<BlockMxFp4>(),
    decoded::<BlockNvFp4>(),
    decoded::<BlockTq1_0>(),
    as_avx2::<BlockTq2_0>(),
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
    blocks::<Bit3>(),
    blocks::<Bit7>(),
]);

/// The entry of a format of floats.
const fn floats<W: Stored>() -> FormatKernels {
    let avx2 = super::avx2::float_products::<W>();
    simd::floats::<W>(FloatProducts { axpy_columns: simd::axpy_columns::<W>, ..avx2 })
}

/// The entry of a quantized format.
const fn blocks<F: ColumnFormat>() -> FormatKernels {
    simd::blocks::<F::Block>(Int8Products {
        matmul: matmul::<F>,
        rows: gemv::rows::<F>,
        matmul_each: Some(matmul_each::<F>),
        columns: Some(ColumnProducts { axpy: columns::axpy::<F>, matmul: columns::matmul::<F> }),
        matmul_interleaved: super::avx2::interleaved::matmul(<F::Block as Block>::FORMAT),
    })
}

/// The entry of a quantized format whose products are those of AVX2.
const fn as_avx2<B: Block>() -> FormatKernels {
    simd::blocks::<B>(avx2_products(B::FORMAT))
}

/// The same, of a format that is decoded in plain Rust.
const fn decoded<B: Groups>() -> FormatKernels {
    simd::groups::<B>(avx2_products(B::FORMAT))
}

const fn avx2_products(format: BlockFormat) -> Int8Products {
    match super::avx2::TABLE.formats[format as usize].products {
        Products::Int8(products) => products,
        Products::Floats(_) => panic!("not quantized"),
    }
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
        // SAFETY: the caller promises the features of this level, weights in the format `F`, and
        // shapes that fit.
        return unsafe { gemm::gemm::<F>(w, x, out) };
    }
    // SAFETY: the caller promises the features of this level, weights in the format `F`, and shapes
    // that fit.
    unsafe { matmul_each::<F>(w, x, out) }
}

/// The same with the bits that single tokens have.
///
/// # Safety
/// As for [`matmul`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
unsafe fn matmul_each<F: Format>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    let rows = if x.tokens() == 1 { w.rows() } else { CACHED.div_ceil(w.row_bytes()) }.max(1);
    for from in (0..w.rows()).step_by(rows) {
        let range = from..w.rows().min(from + rows);
        // SAFETY: the caller promises the features of this level, weights in the format `F`, and
        // shapes that fit.
        unsafe { gemv::each::<F>(w.slice(range.clone()), x, &mut out.columns(range)) };
    }
}
