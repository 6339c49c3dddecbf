//! Softmax attention over rows of keys and values, for a tile of tokens at a time.

use std::ops::Range;

use sparse_core::Activations;
use sparse_simd::{Kernels, MatMut};

use crate::kv_cache::{BLOCK, KvCache};

/// Rows of queries in a tile, about: enough to read keys and values once for many, few enough that the scores of a
/// long context stay in a cache.
const ROWS: usize = 48;

/// Rows from which products with keys are computed in one way, whatever their number.
const MANY: usize = 24;

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

/// Keys and values that a tile sees.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) cache: &'a KvCache,
    /// Which of its heads.
    pub(crate) head: usize,
    /// Which of its tokens.
    pub(crate) positions: Range<usize>,
    /// A score per query head that takes its share of the softmax and has no value, if there are such.
    pub(crate) sinks: &'a [f32],
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    queries: Vec<f32>,
    /// The queries in eight bits, for keys that are.
    quantized: Activations,
    scores: Vec<f32>,
    /// The scores of one query, and its sink.
    with_sink: Vec<f32>,
    /// The scores of a block, and what its values make of them.
    part: Vec<f32>,
    sums: Vec<f32>,
    out: Vec<f32>,
}

impl Scratch {
    /// Makes room for tiles of `group` with at most `tokens` tokens that see `positions` positions.
    pub(crate) fn reserve(&mut self, group: &Group, tokens: usize, positions: usize) {
        let rows = tokens.min(group.tokens()) * group.heads;
        let rows = if tokens > 1 { rows.max(MANY) } else { rows };
        let grow = |buffer: &mut Vec<f32>, len: usize| buffer.resize(buffer.len().max(len), 0.0);
        grow(&mut self.queries, rows * group.head_dim);
        grow(&mut self.scores, rows * positions);
        grow(&mut self.with_sink, positions + 1);
        grow(&mut self.part, rows * BLOCK);
        grow(&mut self.sums, rows * group.head_dim);
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

    /// `out[t] = softmax(scale queries[t] keys^T) values` for each head of each token of `out`. Where a head has a
    /// sink, the softmax is that of the scores and the sink, of which the sink's share is left out (Xiao et al. 2023,
    /// arXiv 2309.17453).
    ///
    /// Of the positions in `cached`, token `t` sees those in `seen(t)`, numbered from the first of them, at least one.
    /// Token `t`'s queries are the first [`width`](Self::width) values of chunk `t` of `queries`.
    ///
    /// A token of a `batch` has the same bits whatever the tile's other tokens are, and so has one that is not of a
    /// batch; the two may differ, since few rows are multiplied in another way than many.
    pub(crate) fn attend<'a>(
        &self,
        k: &Kernels,
        cached: &Seen<'_>,
        seen: impl Fn(usize) -> Range<usize>,
        queries: impl Iterator<Item = &'a [f32]>,
        batch: bool,
        scratch: &mut Scratch,
        out: &mut MatMut<'_>,
    ) {
        let (width, positions) = (self.width(), cached.positions.len());
        let rows = out.tokens() * self.heads;
        let many = if batch { rows.max(MANY) } else { rows };
        let scaled = &mut scratch.queries[..many * self.head_dim];
        for (scaled, query) in scaled.chunks_mut(width).zip(queries) {
            for (scaled, q) in scaled.iter_mut().zip(query) {
                *scaled = q * self.scale;
            }
        }
        scaled[rows * self.head_dim..].fill(0.0);
        let scores = &mut scratch.scores[..many * positions];
        self.score(k, cached, scaled, &mut scratch.quantized, scores);
        for (row, scores) in scores.chunks_mut(positions).take(rows).enumerate() {
            let seen = seen(row / self.heads);
            scores[..seen.start].fill(0.0);
            match cached.sinks.get(row % self.heads) {
                None => k.softmax(&mut scores[seen.clone()]),
                Some(sink) => {
                    let with_sink = &mut scratch.with_sink[..=seen.len()];
                    with_sink[..seen.len()].copy_from_slice(&scores[seen.clone()]);
                    with_sink[seen.len()] = *sink;
                    k.softmax(with_sink);
                    scores[seen.clone()].copy_from_slice(&with_sink[..seen.len()]);
                }
            }
            scores[seen.end..].fill(0.0);
        }
        let attended = &mut scratch.out[..rows * self.head_dim];
        let scores = &scores[..rows * positions];
        sum_values(k, cached, scores, &mut scratch.part, &mut scratch.sums, attended, self.head_dim);
        for (t, attended) in attended.chunks(width).enumerate() {
            out.row(t).copy_from_slice(attended);
        }
    }

    /// `scores[r][p]` = query `r` times the key of position `p`.
    fn score(
        &self,
        k: &Kernels,
        cached: &Seen<'_>,
        queries: &[f32],
        quantized: &mut Activations,
        scores: &mut [f32],
    ) {
        let mut out = MatMut::new(scores, cached.positions.len());
        let mut is_quantized = false;
        for piece in KvCache::pieces(cached.positions.clone()) {
            let (keys, _) = cached.cache.rows(cached.head, piece.clone());
            let mut out = out.columns(cached.columns(&piece));
            if !keys.format().is_quantized() {
                k.matmul_f32(keys, queries, &mut out);
                continue;
            }
            if !is_quantized {
                quantized.reshape(queries.len() / self.head_dim, self.head_dim);
                quantized.x_mut().copy_from_slice(queries);
                quantized.quantize(k);
                is_quantized = true;
            }
            k.matmul_q8(keys, quantized.q8(), &mut out);
        }
    }
}

impl Seen<'_> {
    /// Where a piece is among all positions.
    fn columns(&self, piece: &Range<usize>) -> Range<usize> {
        piece.start - self.positions.start..piece.end - self.positions.start
    }
}

/// `out[r]` = sum over the positions of `scores[r][p]` times the value of `p`, block by block: where blocks begin does not
/// depend on which positions are seen.
fn sum_values(
    k: &Kernels,
    cached: &Seen<'_>,
    scores: &[f32],
    part: &mut [f32],
    sums: &mut [f32],
    out: &mut [f32],
    head_dim: usize,
) {
    let (positions, rows) = (cached.positions.len(), out.len() / head_dim);
    for (i, piece) in KvCache::pieces(cached.positions.clone()).enumerate() {
        let (_, values) = cached.cache.rows(cached.head, piece.clone());
        let columns = cached.columns(&piece);
        let scores = if columns.len() == positions {
            scores
        } else {
            let part = &mut part[..rows * columns.len()];
            for (part, scores) in part.chunks_mut(columns.len()).zip(scores.chunks(positions)) {
                part.copy_from_slice(&scores[columns.clone()]);
            }
            &*part
        };
        if i == 0 {
            k.weighted_sum(scores, values, &mut MatMut::new(out, head_dim));
        } else {
            let sums = &mut sums[..out.len()];
            k.weighted_sum(scores, values, &mut MatMut::new(sums, head_dim));
            k.add(out, sums);
        }
    }
}
