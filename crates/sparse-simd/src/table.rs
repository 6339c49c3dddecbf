//! What a CPU level consists of: one function per task, and one entry per format.
//!
//! Nothing here is checked. [`Kernels`](crate::Kernels) checks shapes, then calls these functions.

use crate::{
    Activation, BlockFormat, Columns, Int8, Int8Mut, Interleaved, Level, MatMut, Panels, Q8, Q8Mut, Rows,
    Tiles,
};
use core::ops::Range;
use half::f16;

/// The functions of one CPU level.
///
/// # Safety
/// Every function asks of its caller:
/// - The CPU has the instructions of [`level`](Self::level).
/// - The shapes are those that the method of [`Kernels`](crate::Kernels) with its name checks.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    pub(crate) level: Level,
    pub(crate) formats: ByFormat,
    /// Whether rows of a format by eights, where it has these products, are multiplied faster than plain ones.
    pub(crate) prefers_interleaved: fn(BlockFormat) -> bool,
    pub(crate) quantize: unsafe fn(x: &[f32], out: &mut Q8Mut<'_>),
    pub(crate) quantize_rows: unsafe fn(x: &[f32], out: &mut Int8Mut<'_>),
    pub(crate) panels_f32: unsafe fn(w: Panels<'_>, x: &[f32], out: &mut MatMut<'_>),
    pub(crate) panels_int8: unsafe fn(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>),
    pub(crate) scan: unsafe fn(w: Tiles<'_>, x: Q8<'_>, out: &mut [f32]),
    pub(crate) dot_f32: unsafe fn(a: &[f32], b: &[f32]) -> f32,
    pub(crate) axpy_f32: unsafe fn(a: f32, x: &[f32], y: &mut [f32]),
    pub(crate) to_f16: unsafe fn(x: &[f32], out: &mut [f16]),
    pub(crate) rms_norm: unsafe fn(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]),
    pub(crate) layer_norm: LayerNorm,
    pub(crate) softmax: unsafe fn(x: &mut [f32]),
    pub(crate) hadamard: unsafe fn(x: &mut [f32]),
    pub(crate) hadamard_runs: unsafe fn(x: &mut [f32], order: usize),
    pub(crate) round_pairs: unsafe fn(x: &[f32], inverse: f32, codes: &mut [u8]) -> [f32; 2],
    pub(crate) activate: unsafe fn(f: Activation, x: &mut [f32]),
    pub(crate) activate_mul: unsafe fn(f: Activation, gate: &mut [f32], up: &[f32]),
    pub(crate) add: unsafe fn(y: &mut [f32], x: &[f32]),
    pub(crate) rope: unsafe fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
    pub(crate) rope_halves: unsafe fn(x: &mut [f32], cos: &[f32], sin: &[f32]),
}

/// See [`Table`].
pub(crate) type AddRows =
    unsafe fn(w: Rows<'_>, active: &[u32], h: &[f32], cols: Range<usize>, out: &mut [f32]);

/// See [`Table`].
pub(crate) type AxpyColumnsQ8 =
    unsafe fn(w: Columns<'_>, active: &[u32], h: Q8<'_>, rows: Range<usize>, out: &mut [f32]);

/// See [`Table`].
pub(crate) type AxpyColumnsF32 =
    unsafe fn(w: Columns<'_>, active: &[u32], h: &[f32], rows: Range<usize>, out: &mut [f32]);

/// See [`Table`].
pub(crate) type MatmulInterleaved = unsafe fn(w: Interleaved<'_>, x: Q8<'_>, out: &mut MatMut<'_>);

/// See [`Table`].
pub(crate) type LayerNorm = unsafe fn(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]);

/// The functions of one format.
///
/// # Safety
/// As for [`Table`]; and the weights have the format.
#[derive(Clone, Copy)]
pub(crate) struct FormatKernels {
    pub(crate) format: BlockFormat,
    pub(crate) products: Products,
    pub(crate) add_rows: AddRows,
    pub(crate) weighted_sum: unsafe fn(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>),
}

/// Products of one format, by what it is multiplied with.
#[derive(Clone, Copy)]
pub(crate) enum Products {
    Int8(Int8Products),
    Floats(FloatProducts),
}

/// Products with int8 activations.
///
/// # Safety
/// As for [`FormatKernels`].
#[derive(Clone, Copy)]
pub(crate) struct Int8Products {
    pub(crate) matmul: unsafe fn(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>),
    pub(crate) rows: unsafe fn(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]),
    /// The products that single tokens have, bit for bit; `None` where those are what `matmul` computes.
    pub(crate) matmul_each: Option<unsafe fn(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>)>,
    /// `None` if the format cannot be stored by columns.
    pub(crate) columns: Option<ColumnProducts>,
    /// Of rows by eights; not there for every format.
    pub(crate) matmul_interleaved: Option<MatmulInterleaved>,
}

/// Products of weights stored by columns with int8 activations.
///
/// # Safety
/// As for [`FormatKernels`].
#[derive(Clone, Copy)]
pub(crate) struct ColumnProducts {
    pub(crate) axpy: AxpyColumnsQ8,
    pub(crate) matmul: unsafe fn(w: Columns<'_>, x: Q8<'_>, rows: Range<usize>, out: &mut MatMut<'_>),
}

/// Products with f32 activations.
///
/// # Safety
/// As for [`FormatKernels`].
#[derive(Clone, Copy)]
pub(crate) struct FloatProducts {
    pub(crate) matmul: unsafe fn(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>),
    pub(crate) rows: unsafe fn(w: Rows<'_>, active: &[u32], x: &[f32], out: &mut [f32]),
    pub(crate) axpy_columns: AxpyColumnsF32,
}

/// An entry for each of [`BlockFormat::ALL`], in that order.
pub(crate) type ByFormat = [FormatKernels; BlockFormat::ALL.len()];

/// Checks when the crate is compiled that each entry is at its format's place.
pub(crate) const fn by_format(entries: ByFormat) -> ByFormat {
    let mut i = 0;
    while i < entries.len() {
        assert!(entries[i].format as usize == i, "entries of a level are not in the order of BlockFormat");
        i += 1;
    }
    entries
}
