//! Fitting the low-rank predictor to what neurons did.

use alloc::vec;
use alloc::vec::Vec;

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatRef, Side, get_global_parallelism};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};

use crate::error::same_len;
use crate::{Error, LowRankPredictor, Matrix};

/// Share of the mean variance of the inputs that is added to each of them, so that inputs that always move together
/// do no harm.
const RIDGE: f32 = 1e-3;
/// Tokens per gradient step.
const BATCH: usize = 512;
/// Adam's constants (Kingma and Ba 2014, arXiv 1412.6980).
const BETA: (f32, f32) = (0.9, 0.99);
/// Step of the first update, relative to the root mean square of what is updated. It falls to zero by a cosine.
const STEP: f32 = 0.03;

/// Samples of a layer's inputs and of which neurons they made active, analysed once for predictors of every rank.
///
/// First comes reduced-rank regression (Izenman 1975, doi 10.1016/0047-259X(75)90042-1) of the activity, scaled to unit
/// variance, on the inputs: in closed form, by the eigenvectors of what the inputs explain. Then gradient steps on the
/// logistic loss turn scores into logits.
#[derive(Debug)]
pub struct PredictorFit {
    /// Inputs less their mean, `[tokens x d]`.
    x: Mat<f32>,
    mean: Mat<f32>,
    /// 1 where a neuron was active, `[tokens x hidden]`.
    active: Mat<f32>,
    /// How often it was, a row.
    frequency: Vec<f32>,
    /// Directions of the input, best first: `[d x d]`.
    directions: Mat<f32>,
    /// What each explains of each neuron, `[d x hidden]`.
    explained: Mat<f32>,
}

/// A fitted predictor in f32: the score of neuron j is `q[j] . (p x) + bias[j]`, a logit.
#[derive(Clone, Debug, PartialEq)]
pub struct PredictorFactors {
    /// Width of the input.
    pub inputs: usize,
    /// Rank.
    pub rank: usize,
    /// `[rank x inputs]`.
    pub p: Vec<f32>,
    /// `[hidden x rank]`.
    pub q: Vec<f32>,
    /// One value per neuron.
    pub bias: Vec<f32>,
}

impl PredictorFit {
    /// Analyses samples: inputs `x`, `[tokens x inputs]`, and whether a neuron was `active`, `[tokens x neurons]`.
    ///
    /// # Errors
    /// If the lengths do not fit together, there are no samples, or an input is not finite.
    pub fn new(x: &[f32], inputs: usize, active: &[bool], neurons: usize) -> Result<Self, Error> {
        let tokens = x.len().checked_div(inputs).unwrap_or(0);
        same_len("inputs of the samples", tokens * inputs, x.len())?;
        same_len("neurons of the samples", tokens * neurons, active.len())?;
        let bad = x.iter().copied().find(|x| !x.is_finite());
        if let Some(value) = bad.or((tokens == 0).then_some(0.0)) {
            let what = if tokens == 0 { "number of samples" } else { "input of a sample" };
            return Err(Error::Value { what, value, expected: "a finite number above zero" });
        }
        let n = tokens as f32;
        let par = get_global_parallelism();
        let x = MatRef::from_row_major_slice(x, tokens, inputs);
        let mean = Mat::from_fn(inputs, 1, |i, _| (0..tokens).map(|t| x[(t, i)]).sum::<f32>() / n);
        let x = Mat::from_fn(tokens, inputs, |t, i| x[(t, i)] - mean[(i, 0)]);
        let active = Mat::from_fn(tokens, neurons, |t, j| f32::from(u8::from(active[t * neurons + j])));
        // One sample more of either kind: nothing is certain.
        let frequency: Vec<f32> = (0..neurons)
            .map(|j| ((0..tokens).map(|t| active[(t, j)]).sum::<f32>() + 1.0) / (n + 2.0))
            .collect();

        let mut covariance = x.transpose() * &x * faer::Scale(1.0 / n);
        let ridge = RIDGE * (0..inputs).map(|i| covariance[(i, i)]).sum::<f32>() / inputs as f32;
        (0..inputs).for_each(|i| covariance[(i, i)] += ridge.max(f32::MIN_POSITIVE));
        let bad_inputs = || Error::Value {
            what: "covariance of the samples",
            value: ridge,
            expected: "positive definite",
        };
        let cholesky = covariance.llt(Side::Lower).map_err(|_| bad_inputs())?;
        let l = cholesky.L();
        let scaled =
            Mat::from_fn(tokens, neurons, |t, j| (active[(t, j)] - frequency[j]) / deviation(frequency[j]));
        // M = L^-1 X' Y: its left singular vectors are the directions that explain most.
        let mut m = x.transpose() * scaled * faer::Scale(1.0 / n);
        solve_lower_triangular_in_place(l, m.as_mut(), par);
        let squares = &m * m.transpose();
        // In f64, as the axes of a screen: the decomposition takes long to compile, so that there is one of it.
        let squares = Mat::from_fn(inputs, inputs, |i, j| f64::from(squares[(i, j)]));
        let eigen = squares.self_adjoint_eigen(Side::Lower).map_err(|_| bad_inputs())?;
        let u = eigen.U().reverse_cols();
        let mut directions = Mat::from_fn(inputs, inputs, |i, k| u[(i, k)] as f32);
        let explained = directions.transpose() * m;
        solve_upper_triangular_in_place(l.transpose(), directions.as_mut(), par);
        Ok(Self { x, mean, active, frequency, directions, explained })
    }

    /// The predictor of this rank (at most the width of the input), refined by `steps` gradient steps.
    pub fn factors(&self, rank: usize, steps: usize) -> PredictorFactors {
        let (inputs, neurons) = (self.x.ncols(), self.active.ncols());
        let rank = rank.clamp(1, inputs);
        let mut p = Adam::new(self.directions.subcols(0, rank).to_owned());
        // A deviation of the frequency is as many logits as the slope of the logistic function says.
        let slope = |j: usize| 1.0 / deviation(self.frequency[j]);
        let mut q = Adam::new(Mat::from_fn(rank, neurons, |k, j| self.explained[(k, j)] * slope(j)));
        let mut bias = Adam::new(Mat::from_fn(1, neurons, |_, j| logit(self.frequency[j])));
        let tokens = self.x.nrows();
        for step in 0..steps {
            let first = step * BATCH % tokens;
            let batch = BATCH.min(tokens - first);
            let x = self.x.subrows(first, batch);
            let projected = x * &p.value;
            // The gradient of the logistic loss by the scores.
            let mut error = &projected * &q.value;
            let scale = 1.0 / batch as f32;
            error.par_col_iter_mut().enumerate().for_each(|(j, errors)| {
                let (b, active) = (bias.value[(0, j)], self.active.col(j).subrows(first, batch));
                for (e, active) in errors.iter_mut().zip(active.iter()) {
                    *e = (1.0 / (1.0 + (-(*e + b)).exp()) - active) * scale;
                }
            });
            let rate = STEP * 0.5 * (1.0 + (core::f32::consts::PI * step as f32 / steps as f32).cos());
            let by_p = x.transpose() * (&error * q.value.transpose());
            let by_q = projected.transpose() * &error;
            let by_bias = Mat::from_fn(1, neurons, |_, j| error.col(j).iter().sum());
            p.update(&by_p, rate, step);
            q.update(&by_q, rate, step);
            bias.update(&by_bias, rate, step);
        }
        // Inputs will come with their mean.
        let shift = self.mean.transpose() * &p.value * &q.value;
        PredictorFactors {
            inputs,
            rank,
            p: row_major(rank, inputs, |k, i| p.value[(i, k)]),
            q: row_major(neurons, rank, |j, k| q.value[(k, j)]),
            bias: (0..neurons).map(|j| bias.value[(0, j)] - shift[(0, j)]).collect(),
        }
    }
}

impl PredictorFactors {
    /// The predictor with f32 weights.
    ///
    /// # Errors
    /// If the lengths do not fit together.
    pub fn predictor(&self) -> Result<LowRankPredictor, Error> {
        let matrix = |values: &[f32], cols| Matrix::from_f32(cols, values.iter().copied());
        LowRankPredictor::new(matrix(&self.p, self.inputs)?, matrix(&self.q, self.rank)?, self.bias.clone())
    }
}

/// Of a neuron that is active with this frequency. Rare ones count as not quite so rare: their few samples say little.
fn deviation(frequency: f32) -> f32 {
    (frequency * (1.0 - frequency)).max(0.01).sqrt()
}

fn logit(p: f32) -> f32 {
    (p / (1.0 - p)).ln()
}

fn row_major(rows: usize, cols: usize, value: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut out = vec![0.0; rows * cols];
    for (r, row) in out.chunks_mut(cols).enumerate() {
        row.iter_mut().enumerate().for_each(|(c, v)| *v = value(r, c));
    }
    out
}

/// A matrix that follows a gradient.
struct Adam {
    value: Mat<f32>,
    mean: Mat<f32>,
    square: Mat<f32>,
    /// Root mean square at the beginning: what steps are relative to.
    size: f32,
}

impl Adam {
    fn new(value: Mat<f32>) -> Self {
        let (rows, cols) = value.shape();
        let size = value.norm_l2() / ((rows * cols) as f32).sqrt();
        Self { mean: Mat::zeros(rows, cols), square: Mat::zeros(rows, cols), size, value }
    }

    fn update(&mut self, gradient: &Mat<f32>, rate: f32, step: usize) {
        let (b1, b2) = BETA;
        let n = step as i32 + 1;
        let (c1, c2) = (1.0 - b1.powi(n), 1.0 - b2.powi(n));
        let rate = rate * self.size;
        let columns = self.value.par_col_iter_mut().zip(self.mean.par_col_iter_mut());
        let columns = columns.zip(self.square.par_col_iter_mut()).zip(gradient.par_col_iter());
        columns.for_each(|(((value, mean), square), gradient)| {
            let rows = value.iter_mut().zip(mean.iter_mut()).zip(square.iter_mut()).zip(gradient.iter());
            for (((value, mean), square), g) in rows {
                *mean = b1 * *mean + (1.0 - b1) * g;
                *square = b2 * *square + (1.0 - b2) * g * g;
                *value -= rate * (*mean / c1) / ((*square / c2).sqrt() + 1e-12);
            }
        });
    }
}
