//! Products with weights stored by columns.

use crate::columns::{All, Choice, SubScales, place, run_of_group, unpack};
use crate::layout::Block;
use crate::table::ColumnProducts;
use crate::{ColumnLayout, Columns, MatMut, Q8};
use core::ops::Range;
use half::f16;

const CHUNK: usize = ColumnLayout::CHUNK;

/// The products of a format that can be stored by columns.
pub(crate) const fn products<B: Block>() -> Option<ColumnProducts> {
    match B::COLUMNS {
        Some(_) => Some(ColumnProducts { axpy, matmul }),
        None => None,
    }
}

fn axpy(w: Columns<'_>, active: &[u32], h: Q8<'_>, rows: Range<usize>, out: &mut [f32]) {
    sum(w, active, h, rows, out);
}

fn matmul(w: Columns<'_>, x: Q8<'_>, rows: Range<usize>, out: &mut MatMut<'_>) {
    for t in 0..x.tokens() {
        sum(w, All(w.cols()), x.row(t), rows.clone(), out.row(t));
    }
}

/// Sum over groups of `dh * (d * sub * codes + m * min * total)`, where `codes` and `total` are the integer sums, over
/// the active columns of the group, of code times activation and of activations.
fn sum(w: Columns<'_>, active: impl Choice, h: Q8<'_>, rows: Range<usize>, out: &mut [f32]) {
    let (layout, data) = (w.layout(), w.data());
    let Some(recipe) = w.format().recipe() else { return };
    let half = |at: usize| f16::from_le_bytes([data[at], data[at + 1]]).to_f32();
    // The K formats subtract their minima.
    let sign = if recipe.subs == SubScales::None { 1.0 } else { -1.0 };
    out.fill(0.0);
    let mut i = 0;
    while i < active.count() {
        let n = run_of_group(active, i, recipe.group);
        let first = active.get(i);
        let total: i32 = (i..i + n).map(|k| i32::from(h.q[active.get(k)])).sum();
        let (factors, subs) = (layout.super_at(first), layout.group_at(first, recipe.group));
        for chunk in rows.clone().step_by(CHUNK) {
            let mut codes = [0; CHUNK];
            for k in i..i + n {
                let c = active.get(k);
                let (at, mut column) = (chunk / CHUNK * recipe.chunk_bytes(), [0; CHUNK]);
                unpack(recipe.chunk_planes(), &w.column(c)[at..][..recipe.chunk_bytes()], &mut column);
                for (r, sum) in codes.iter_mut().enumerate() {
                    *sum += recipe.value(column[place(r)]) * i32::from(h.q[c]);
                }
            }
            for r in chunk..rows.end.min(chunk + CHUNK) {
                let (sub, min) = recipe.subs.read(data, subs + r, layout.padded());
                let product = half(factors + 2 * r) * (i32::from(sub) * codes[r - chunk]) as f32;
                let offset = match recipe.halves.len() {
                    2 => sign * half(factors + 2 * (layout.padded() + r)) * (i32::from(min) * total) as f32,
                    _ => 0.0,
                };
                out[r - rows.start] += h.d[first / 32] * (product + offset);
            }
        }
        i += n;
    }
}
