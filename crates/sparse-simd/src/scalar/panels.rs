//! Products with packed weights.

use crate::MatMut;
use crate::int8::{self, Int8, Int8Mut, ZERO};
use crate::panels::{PanelLayout, Panels};

/// `out[t][r]` = bias + sum of products, column after column.
pub(super) fn matmul_f32(w: Panels<'_>, x: &[f32], out: &mut MatMut<'_>) {
    for (t, x) in x.chunks_exact(w.layout().cols()).enumerate() {
        let out = out.row(t).chunks_mut(PanelLayout::ROWS).enumerate();
        for (panel, out) in out {
            let (head, columns) = w.split(w.from(panel).0);
            let mut sums = *head[0].floats();
            for (line, x) in columns.iter().zip(x) {
                for (sum, w) in sums.iter_mut().zip(line.floats()) {
                    *sum += x * w;
                }
            }
            out.copy_from_slice(&sums[..out.len()]);
        }
    }
}

/// `out[t][r]` = sum of products of codes times (scale of the token times scale of the row) + bias.
pub(super) fn matmul_int8(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
    for t in 0..x.tokens() {
        let (row, codes) = (out.row(t), x.row(t).as_chunks::<4>().0);
        for (panel, out) in row.chunks_mut(PanelLayout::ROWS).enumerate() {
            let (head, columns) = w.split(w.from(panel).0);
            let mut sums = *head[2].integers();
            for (line, x) in columns.iter().zip(codes) {
                for (sum, w) in sums.iter_mut().zip(line.codes()) {
                    for (w, x) in w.iter().zip(x) {
                        // Exact, though a part of the sums may pass 2^31 on the way.
                        *sum = sum.wrapping_add(i32::from(*w) * i32::from(*x));
                    }
                }
            }
            let (bias, scales) = (head[0].floats(), head[1].floats());
            for (r, out) in out.iter_mut().enumerate() {
                *out = sums[r] as f32 * (x.d[t] * scales[r]) + bias[r];
            }
        }
    }
}

pub(super) fn quantize_rows(x: &[f32], out: &mut Int8Mut<'_>) {
    let rows = x.chunks_exact(out.cols).zip(out.q.chunks_exact_mut(Int8::stride(out.cols)));
    for ((x, q), d) in rows.zip(out.d.iter_mut()) {
        let inverse;
        (*d, inverse) = int8::scale(int8::magnitude(x));
        q.fill(ZERO);
        for (q, x) in q.iter_mut().zip(x) {
            *q = ZERO.wrapping_add_signed(int8::code(*x, inverse));
        }
    }
}
