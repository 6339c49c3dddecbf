//! Weights laid out for products with several vectors.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use sparse_simd::{Line, MatMut, PanelKind, PanelLayout, Panels};

use crate::error::{finite, same_len};
use crate::{ActivationType, Activations, Compute, Error};

/// Rows that a worker takes at a time, at least: what a kernel multiplies at once.
const GRAIN_ROWS: usize = 2 * PanelLayout::ROWS;

/// `y = W x + b` with weights that are packed once, when they are loaded: fast for batches, where a [`Matrix`](crate::Matrix) is made
/// for single vectors. Weights of a few bits grow to eight or 32.
pub struct PackedMatrix {
    layout: PanelLayout,
    lines: Vec<Line>,
}

impl PackedMatrix {
    /// Packs `weights`, rows of `cols` values, and a bias of one value per row.
    ///
    /// # Errors
    /// If there are no weights, they are no whole number of rows, a row has more values than int8 sums have room for
    /// ([`PanelLayout::MAX_INT8_COLS`]), a value is NaN or infinite, or the bias has another length.
    pub fn new(kind: PanelKind, cols: usize, weights: &[f32], bias: Option<&[f32]>) -> Result<Self, Error> {
        let rows = weights.len().checked_div(cols).unwrap_or(0);
        same_len("weights of whole rows", rows * cols, weights.len())?;
        let layout = PanelLayout::new(kind, rows, cols)?;
        if let Some(bias) = bias {
            same_len("bias", rows, bias.len())?;
            finite("bias", bias)?;
        }
        finite("weight", weights)?;
        let mut lines = vec![Line::ZERO; layout.lines()];
        for (r, row) in weights.chunks_exact(cols).enumerate() {
            layout.write(r, row, bias.map_or(0.0, |bias| bias[r]), &mut lines);
        }
        Ok(Self { layout, lines })
    }

    /// How values are stored.
    pub fn kind(&self) -> PanelKind {
        self.layout.kind()
    }

    /// Number of rows: outputs.
    pub fn rows(&self) -> usize {
        self.layout.rows()
    }

    /// Values per row: inputs.
    pub fn cols(&self) -> usize {
        self.layout.cols()
    }

    /// Bytes that one pass over the matrix reads, with scales and biases.
    pub fn bytes(&self) -> usize {
        size_of_val(self.lines.as_slice())
    }

    /// `out[t] = W x[t] + b` for every vector of the batch; `out` is `[tokens x rows]`.
    ///
    /// In int8 it reads what [`Activations::quantize_rows`] makes of `x`, which must be up to date, and all CPU levels
    /// have the same result. The result does not depend on the number of threads, and a vector's not on the others.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn matmul(&self, compute: &Compute, x: &Activations, out: &mut [f32]) {
        self.forward(compute, x, out, |_| ());
    }

    /// `out[t] = f(W x[t] + b)`: [`matmul`](Self::matmul), and an activation function applied to what each thread has
    /// just computed.
    ///
    /// # Panics
    /// As [`matmul`](Self::matmul).
    pub fn matmul_activate(&self, compute: &Compute, x: &Activations, f: ActivationType, out: &mut [f32]) {
        self.forward(compute, x, out, |row| f.apply(compute.kernels, row));
    }

    fn forward(&self, compute: &Compute, x: &Activations, out: &mut [f32], then: impl Fn(&mut [f32]) + Sync) {
        assert_eq!(x.cols(), self.cols(), "input width");
        let w = Panels::new(self.layout, &self.lines).expect("as many lines as the layout says");
        let out = MatMut::new(out, self.rows());
        compute.pool.for_columns(out, GRAIN_ROWS, self.bytes(), |range, mut out| {
            let w = w.slice(range);
            match self.kind() {
                PanelKind::Int8 => compute.kernels.matmul_panels_int8(w, x.int8(), &mut out),
                _ => compute.kernels.matmul_panels_f32(w, x.x(), &mut out),
            }
            for t in 0..out.tokens() {
                then(out.row(t));
            }
        });
    }
}

impl fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackedMatrix").field("layout", &self.layout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [PanelKind; 2] = [PanelKind::F32, PanelKind::Int8];

    fn values(n: usize, salt: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + salt) * 7919) % 251) as f32 / 125.0 - 1.0).collect()
    }

    fn activations(cols: usize, x: &[f32]) -> Activations {
        let mut all = Activations::with_capacity(x.len() / cols, cols);
        all.resize(x.len() / cols);
        all.x_mut().copy_from_slice(x);
        all.quantize_rows(Compute::new(1).kernels);
        all
    }

    #[test]
    fn products_are_near_those_of_the_values() {
        let (rows, cols, tokens) = (53, 70, 9);
        let (w, bias, x) = (values(rows * cols, 1), values(rows, 2), values(tokens * cols, 3));
        let input = activations(cols, &x);
        for (kind, slack) in [(PanelKind::F32, 1e-5), (PanelKind::Int8, 0.02)] {
            let packed = PackedMatrix::new(kind, cols, &w, Some(&bias)).unwrap();
            assert_eq!((packed.rows(), packed.cols(), packed.kind()), (rows, cols, kind));
            let mut out = vec![0.0; tokens * rows];
            packed.matmul(&Compute::new(1), &input, &mut out);
            for (i, found) in out.iter().enumerate() {
                let (t, r) = (i / rows, i % rows);
                let products = || w[r * cols..][..cols].iter().zip(&x[t * cols..]).map(|(w, x)| w * x);
                let (sum, size) = (bias[r] + products().sum::<f32>(), products().map(f32::abs).sum::<f32>());
                assert!((found - sum).abs() <= slack * size, "{kind:?} [{t}][{r}]: {found}, expected {sum}");
            }
        }
    }

    #[test]
    fn products_do_not_depend_on_the_number_of_threads() {
        let (rows, cols, tokens) = (203, 96, 5);
        let (w, input) = (values(rows * cols, 1), activations(cols, &values(tokens * cols, 2)));
        for kind in KINDS {
            let packed = PackedMatrix::new(kind, cols, &w, None).unwrap();
            let run = |threads| {
                let compute = Compute::new(threads);
                let (mut out, mut activated) = (vec![0.0; tokens * rows], vec![0.0; tokens * rows]);
                packed.matmul(&compute, &input, &mut out);
                packed.matmul_activate(&compute, &input, ActivationType::Relu, &mut activated);
                assert!(out.iter().zip(activated).all(|(y, relu)| y.max(0.0) == relu));
                out
            };
            let one = run(1);
            assert!(one.iter().any(|y| *y < 0.0));
            for threads in [2, 4] {
                assert_eq!(one, run(threads), "{kind:?}, {threads} threads");
            }
        }
    }

    #[test]
    fn no_batch_is_no_work() {
        for kind in KINDS {
            let packed = PackedMatrix::new(kind, 3, &[1.0; 6], None).unwrap();
            packed.matmul(&Compute::new(2), &activations(3, &[]), &mut []);
        }
    }

    #[test]
    fn weights_that_cannot_be_packed_are_refused() {
        let error = |kind, cols, w: &[f32], bias: Option<&[f32]>| {
            PackedMatrix::new(kind, cols, w, bias).unwrap_err().to_string()
        };
        for kind in KINDS {
            assert_eq!(error(kind, 4, &[1.0; 7], None), "weights of whole rows: expected 4, found 7");
            assert!(error(kind, 0, &[], None).starts_with("0 rows of 0 values cannot be panels"));
            assert!(error(kind, 3, &[], None).starts_with("0 rows of 3 values cannot be panels"));
            assert_eq!(error(kind, 2, &[1.0; 6], Some(&[1.0; 2])), "bias: expected 3, found 2");
            assert_eq!(error(kind, 1, &[1.0, f32::NAN], None), "weight is NaN, expected a finite number");
            assert_eq!(error(kind, 1, &[f32::INFINITY], None), "weight is inf, expected a finite number");
            let bias = Some(&[f32::NAN][..]);
            assert_eq!(error(kind, 1, &[1.0], bias), "bias is NaN, expected a finite number");
        }
        let wide = vec![1.0; PanelLayout::MAX_INT8_COLS + 1];
        assert!(error(PanelKind::Int8, wide.len(), &wide, None).contains("not too many"));
        assert_eq!(PackedMatrix::new(PanelKind::Int8, 3, &[1.0; 6], None).unwrap().bytes(), 64 * 4);
    }
}
