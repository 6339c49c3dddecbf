//! Softmax attention over rows of keys and values, for a tile of tokens at a time.

use std::ops::Range;

use sparse_simd::{Kernels, MatMut, Rows};

/// Rows of queries in a tile, about: enough to read keys and values once for many, few enough that the scores of a
/// long context stay in a cache.
const ROWS: usize = 48;

/// Query heads that share keys and values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    /// Number of query heads.
    pub(crate) heads: usize,
    /// Values per head.
    pub(crate) head_dim: usize,
    /// Factor on the scores.
    pub(crate) scale: f32,
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    /// Makes room for tiles of `group` with at most `tokens` tokens that see `positions` positions.
    pub(crate) fn reserve(&mut self, group: &Group, tokens: usize, positions: usize) {
        let rows = tokens.min(group.tokens()) * group.heads;
        let grow = |buffer: &mut Vec<f32>, len: usize| buffer.resize(buffer.len().max(len), 0.0);
        grow(&mut self.queries, rows * group.head_dim);
        grow(&mut self.scores, rows * positions);
        grow(&mut self.out, rows * group.head_dim);
    }
}

impl Group {
    /// Tokens of a tile.
    pub(crate) fn tokens(&self) -> usize {
        (ROWS / self.heads).max(1)
    }

    /// Values of a token: those of all heads.
    pub(crate) fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// `out[t] = softmax(scale queries[t] keys^T) values` for each head of each token of `out`.
    ///
    /// Of the rows of `keys` and `values`, token `t` sees those in `seen(t)`, at least one. Token `t`'s queries are
    /// the first [`width`](Self::width) values of chunk `t` of `queries`.
    pub(crate) fn attend<'a>(
        &self,
        k: &Kernels,
        (keys, values): (Rows<'_>, Rows<'_>),
        seen: impl Fn(usize) -> Range<usize>,
        queries: impl Iterator<Item = &'a [f32]>,
        scratch: &mut Scratch,
        out: &mut MatMut<'_>,
    ) {
        let (tokens, width, positions) = (out.tokens(), self.width(), keys.rows());
        let scratch_queries = &mut scratch.queries[..tokens * width];
        for (scaled, query) in scratch_queries.chunks_mut(width).zip(queries) {
            for (scaled, q) in scaled.iter_mut().zip(query) {
                *scaled = q * self.scale;
            }
        }
        let scores = &mut scratch.scores[..tokens * self.heads * positions];
        k.matmul_f32(keys, scratch_queries, &mut MatMut::new(scores, positions));
        for (row, scores) in scores.chunks_mut(positions).enumerate() {
            let seen = seen(row / self.heads);
            scores[..seen.start].fill(0.0);
            k.softmax(&mut scores[seen.clone()]);
            scores[seen.end..].fill(0.0);
        }
        let attended = &mut scratch.out[..tokens * width];
        k.weighted_sum(scores, values, &mut MatMut::new(attended, self.head_dim));
        for (t, attended) in attended.chunks(width).enumerate() {
            out.row(t).copy_from_slice(attended);
        }
    }
}
