//! Kernels with data of typical sizes.

use std::hint::black_box;

use sparse_simd::{
    BlockFormat, ColumnLayout, Columns, Int8, Int8Mut, Kernels, Line, MatMut, PanelKind, PanelLayout, Panels,
    Q8, Q8Mut, Rows,
};

/// The kernels of [`call`].
#[allow(dead_code, reason = "not every program lists them")]
pub(crate) const NAMES: [&str; 11] =
    ["dot", "axpy", "columns", "panels", "F32", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "BIT3"];

const COLS: usize = 2048;
const ROWS: usize = 64;

/// What calls a kernel with so many tokens; `None` if there is no such kernel.
///
/// - `dot` and `axpy` are of 4096 floats.
/// - `columns` adds every third of 2048 columns of 64 weights in Q4_0.
/// - `panels` are 64 rows of 2048 packed int8 weights.
/// - The name of a format is 64 rows of 2048 such weights.
pub(crate) fn call(kernels: &'static Kernels, name: &str, tokens: usize) -> Option<Box<dyn FnMut()>> {
    let floats = |n: usize| (0..n).map(|i| (i % 13) as f32 - 6.0).collect::<Vec<_>>();
    let (x, mut y) = (floats(tokens * COLS), floats(4096));
    let mut out = vec![0.0; tokens * ROWS];
    // Any bytes are weights; these have small scales.
    let bytes = |n: usize| (0..n).map(|i| (i % 32) as u8).collect::<Vec<_>>();
    match name {
        "dot" => {
            let x = floats(4096);
            return Some(Box::new(move || {
                black_box(kernels.dot_f32(black_box(&x), &y));
            }));
        }
        "axpy" => {
            let x = floats(4096);
            return Some(Box::new(move || kernels.axpy_f32(0.5, black_box(&x), &mut y)));
        }
        "panels" => {
            let layout = PanelLayout::new(PanelKind::Int8, ROWS, COLS).ok()?;
            let mut lines = vec![Line::ZERO; layout.lines()];
            (0..ROWS).for_each(|r| layout.write(r, &floats(COLS), 0.0, &mut lines));
            let (mut q, mut d) = (vec![0; tokens * Int8::stride(COLS)], vec![0.0; tokens]);
            kernels.quantize_rows(&x, &mut Int8Mut { cols: COLS, q: &mut q, d: &mut d });
            return Some(Box::new(move || {
                let w = Panels::new(layout, black_box(&lines)).expect("all lines");
                let x = Int8 { cols: COLS, q: &q, d: &d };
                kernels.matmul_panels_int8(w, x, &mut MatMut::new(&mut out, ROWS));
            }));
        }
        _ => {}
    }
    let (mut q, mut d, mut sums) = (vec![0; x.len()], vec![0.0; x.len() / 32], vec![0; x.len() / 16]);
    kernels.quantize(&x, &mut Q8Mut { cols: COLS, q: &mut q, d: &mut d, sums: &mut sums });
    if name == "columns" {
        let format = BlockFormat::Q4_0;
        let layout = ColumnLayout::new(format, ROWS, COLS).ok()?;
        let (rows, mut columns) = (bytes(ROWS * format.row_bytes(COLS)?), vec![0; layout.bytes()]);
        layout.relayout(Rows::new(format, COLS, &rows).ok()?, &mut columns);
        let active: Vec<u32> = (0..COLS as u32).step_by(3).collect();
        return (tokens == 1).then(|| {
            Box::new(move || {
                let w = Columns::new(layout, black_box(&columns)).expect("all columns");
                let x = Q8 { cols: COLS, q: &q, d: &d, sums: &sums };
                kernels.axpy_columns_q8(w, &active, x, 0..ROWS, &mut out);
            }) as Box<dyn FnMut()>
        });
    }
    let format = BlockFormat::ALL.into_iter().find(|f| f.name() == name)?;
    let weights = bytes(ROWS * format.row_bytes(COLS)?);
    Some(Box::new(move || {
        let w = Rows::new(format, COLS, black_box(&weights)).expect("whole rows");
        let mut out = MatMut::new(&mut out, ROWS);
        match format.is_quantized() {
            true => kernels.matmul_q8(w, Q8 { cols: COLS, q: &q, d: &d, sums: &sums }, &mut out),
            false => kernels.matmul_f32(w, &x, &mut out),
        }
    }))
}
