//! Weight matrices whose rows are in several formats.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use sparse_simd::MatMut;

use crate::error::same_len;
use crate::matrix::{GRAIN_COLUMNS, GRAIN_ROWS};
use crate::rows::grain;
use crate::{Activations, Compute, Error, Matrix};

/// Row numbers that are made those of a segment at a time.
const LOCAL: usize = 256;

/// A weight matrix `[rows x cols]` in segments of consecutive rows, each in a format of its own: neurons in lanes, say, hot
/// ones first. Most matrices have one segment.
#[derive(Clone, Debug)]
pub struct SegmentedMatrix {
    segments: Vec<Matrix>,
    /// The first row of every segment, and behind them the number of rows.
    starts: Vec<usize>,
}

impl From<Matrix> for SegmentedMatrix {
    fn from(matrix: Matrix) -> Self {
        Self { starts: vec![0, matrix.rows()], segments: vec![matrix] }
    }
}

impl SegmentedMatrix {
    /// The rows of the first segment, then those of the second, and so on.
    ///
    /// # Errors
    /// If there are none, or their rows are not equally long.
    pub fn new(segments: Vec<Matrix>) -> Result<Self, Error> {
        let Some(first) = segments.first() else {
            return Err(Error::Length { what: "segments of a matrix, at least", expected: 1, found: 0 });
        };
        let mut starts = vec![0];
        for segment in &segments {
            same_len("columns of a segment", first.cols(), segment.cols())?;
            starts.push(starts[starts.len() - 1] + segment.rows());
        }
        Ok(Self { segments, starts })
    }

    /// The segments.
    pub fn segments(&self) -> &[Matrix] {
        &self.segments
    }

    /// The matrix, if there is one segment: only such a matrix may be interleaved.
    pub(crate) fn single_mut(&mut self) -> Option<&mut Matrix> {
        match &mut self.segments[..] {
            [matrix] => Some(matrix),
            _ => None,
        }
    }

    /// Makes rows contiguous again, for a matrix whose rows are used one by one.
    pub fn make_rows(&mut self) {
        self.segments.iter_mut().for_each(Matrix::make_rows);
    }

    /// Number of rows: outputs.
    pub fn rows(&self) -> usize {
        self.starts[self.segments.len()]
    }

    /// Values per row: inputs.
    pub fn cols(&self) -> usize {
        self.segments[0].cols()
    }

    /// Bytes that one pass over the matrix reads.
    pub fn bytes(&self) -> usize {
        self.segments.iter().map(Matrix::bytes).sum()
    }

    /// Bytes of the rows in `active` (ascending).
    pub fn bytes_of(&self, active: &[u32]) -> usize {
        self.split(active).map(|(segment, _, part)| part.len() * segment.row_bytes()).sum()
    }

    /// Whether products read the int8 form of their input.
    pub fn is_quantized(&self) -> bool {
        self.segments.iter().any(|s| s.format().is_quantized())
    }

    /// Decodes row `r` into `out` (`cols` values).
    ///
    /// # Panics
    /// If `r` is out of range or `out` has another length than `cols`.
    pub fn decode_row(&self, r: usize, out: &mut [f32]) {
        let s = self.starts.partition_point(|start| *start <= r) - 1;
        assert!(s < self.segments.len(), "row {r} of {}", self.rows());
        self.segments[s].decode_row(r - self.starts[s], out);
    }

    /// `out[t][r] = dot(row r, x[t])`, as [`Matrix::matmul`].
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn matmul(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols(), "input width");
        let out = MatMut::new(out, self.rows());
        compute.pool.for_columns(out, GRAIN_ROWS, self.bytes(), |range, mut out| {
            for (segment, start) in self.segments.iter().zip(&self.starts) {
                let rows = range.start.max(*start)..range.end.min(start + segment.rows());
                if !rows.is_empty() {
                    let mut out = out.columns(rows.start - range.start..rows.end - range.start);
                    segment.multiply(compute, rows.start - start..rows.end - start, x, &mut out);
                }
            }
        });
    }

    /// The outputs in `active` (ascending) alone, of one token: `out[i] = dot(row active[i], x)`, the same number as that
    /// of [`matmul`](Self::matmul).
    ///
    /// # Panics
    /// If the shapes do not match, `x` is not one token, or `active` is not strictly ascending and in range.
    pub fn matmul_rows(&self, compute: &Compute, active: &[u32], x: &Activations, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols(), "input width");
        assert_eq!(active.len(), out.len(), "a value per active row");
        if active.is_empty() {
            return;
        }
        let (work, out) = (self.bytes_of(active), MatMut::new(out, active.len()));
        compute.pool.for_columns(out, grain(compute, active.len()), work, |range, mut out| {
            let out = out.row(0);
            self.local(&active[range], |segment, active, part| {
                segment.multiply_rows(compute.kernels, active, x, &mut out[part]);
            });
        });
    }

    /// The sum of the rows in `active` (ascending), each times its value: `out[c]` = sum over `i` of
    /// `values[i] * w[active[i]][c]`. The result depends neither on the number of threads nor on how rows are cut into
    /// segments.
    ///
    /// # Panics
    /// If the shapes do not match, or `active` is not strictly ascending and in range.
    pub fn axpy_rows(&self, compute: &Compute, active: &[u32], values: &[f32], out: &mut [f32]) {
        assert_eq!(active.len(), values.len(), "a value per active row");
        // Block lengths divide one another.
        let blocks = self.segments.iter().map(|s| s.format().block_len());
        let grain = blocks.fold(GRAIN_COLUMNS, usize::max);
        let out = MatMut::new(out, self.cols());
        compute.pool.for_columns(out, grain, self.bytes_of(active), |cols, mut out| {
            let out = out.row(0);
            out.fill(0.0);
            self.local(active, |segment, active, part| {
                compute.kernels.add_rows(
                    segment.to_rows().as_rows(),
                    active,
                    &values[part],
                    cols.clone(),
                    out,
                );
            });
        });
    }

    /// The sum of all rows, weighted by the values of every token: `out[t][c]` = sum over `r` of `x[t][r] * w[r][c]`;
    /// `out` is `[tokens x cols]`. For many tokens: they are what threads share. With several segments it allocates.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn weighted_sum(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        let (rows, cols, k) = (self.rows(), self.cols(), compute.kernels);
        let mut threads = vec![(); compute.pool.threads()];
        let tile = (x.tokens().div_ceil(compute.pool.threads()).max(1), cols);
        compute.pool.for_tiles(&mut threads, MatMut::new(out, cols), tile, |(), tokens, _, mut out| {
            let x = &x.x()[tokens.start * rows..tokens.end * rows];
            if let [all] = &self.segments[..] {
                return k.weighted_sum(x, all.to_rows().as_rows(), &mut out);
            }
            let (mut values, mut sums) = (Vec::new(), vec![0.0; tokens.len() * cols]);
            (0..tokens.len()).for_each(|t| out.row(t).fill(0.0));
            for (segment, start) in self.segments.iter().zip(&self.starts) {
                values.clear();
                values.extend(x.chunks(rows).flat_map(|x| &x[*start..start + segment.rows()]));
                k.weighted_sum(&values, segment.to_rows().as_rows(), &mut MatMut::new(&mut sums, cols));
                sums.chunks(cols).enumerate().for_each(|(t, sum)| k.add(out.row(t), sum));
            }
        });
    }

    /// The segments with some of the rows in `active`: the number of their first row, and where in `active` theirs are.
    fn split<'a>(
        &'a self,
        active: &'a [u32],
    ) -> impl Iterator<Item = (&'a Matrix, usize, Range<usize>)> + 'a {
        let mut done = 0;
        self.segments.iter().enumerate().filter_map(move |(s, segment)| {
            // What is out of range is for the last segment to refuse.
            let end = match s + 1 == self.segments.len() {
                true => active.len(),
                false => done + active[done..].partition_point(|j| (*j as usize) < self.starts[s + 1]),
            };
            let part = done..end;
            done = end;
            (!part.is_empty()).then_some((segment, self.starts[s], part))
        })
    }

    /// Calls `f(segment, rows of it, where in active they are)` until all of `active` has been seen.
    fn local(&self, active: &[u32], mut f: impl FnMut(&Matrix, &[u32], Range<usize>)) {
        for (segment, start, part) in self.split(active) {
            if start == 0 {
                f(segment, &active[part.clone()], part);
                continue;
            }
            let mut rows = [0; LOCAL];
            for begin in part.clone().step_by(LOCAL) {
                let part = begin..part.end.min(begin + LOCAL);
                let rows = &mut rows[..part.len()];
                rows.iter_mut()
                    .zip(&active[part.clone()])
                    .for_each(|(r, j)| *r = j.wrapping_sub(start as u32));
                f(segment, rows, part);
            }
        }
    }
}
