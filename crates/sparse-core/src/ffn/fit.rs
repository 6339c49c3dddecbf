//! Fitting the low-rank predictor to what neurons did.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{ColRef, Mat, MatRef, Side, get_global_parallelism};
use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use sparse_simd::Kernels;

use crate::error::{finite, same_len};
use crate::{ActivationType, Error, Linear, LowRankPredictor, Matrix};

/// Share of the mean variance of the inputs that is added to each of them, so that inputs that always move together
/// do no harm.
const RIDGE: f32 = 1e-3;
/// One sample of so many is kept to compare what was fitted to the others.
const HELD: usize = 8;
/// A logistic function of so many times x is nearly the distribution function of a normal variable (Camilli 1994, doi
/// 10.3102/10769986019003293).
const PROBIT: f32 = 1.702;
/// Share of a pre-activation's variance that is taken to be unexplained, at least: weights are rounded once more.
const LEAST_REST: f32 = 0.01;
/// Tokens per gradient step.
const BATCH: usize = 512;
/// Adam's constants (Kingma and Ba 2014, arXiv 1412.6980).
const BETA: (f32, f32) = (0.9, 0.99);
/// Step of the first update, relative to the root mean square of what is updated. It falls to zero by a cosine.
const STEP: f32 = 0.03;

/// Samples of a layer's inputs and of which neurons they made active, analyzed once for predictors of every rank.
///
/// First comes reduced-rank regression (Izenman 1975, doi 10.1016/0047-259X(75)90042-1) on the inputs, in closed form, by the
/// eigenvectors of what the inputs explain: of the neurons' activity ([`new`](Self::new)), or of their pre-activations where these
/// decide ([`above_zero`](Self::above_zero)). Then gradient steps on the logistic loss make better logits of the scores. They
/// count only if they do so on the samples that they were not given, the last eighth.
#[derive(Debug)]
pub struct PredictorFit {
    samples: Samples,
    /// Directions of the input, best first: `[d x d]`.
    directions: Mat<f32>,
    /// How much of each neuron's deviation each direction explains, `[d x hidden]`.
    explained: Mat<f32>,
    /// Of pre-activations: their means, in deviations.
    means: Option<Vec<f32>>,
}

#[derive(Debug)]
struct Samples {
    /// Inputs less their mean, `[tokens x d]`.
    x: Mat<f32>,
    mean: Mat<f32>,
    /// 1 where a neuron was active, `[tokens x hidden]`.
    active: Mat<f32>,
    /// How often it was.
    frequency: Vec<f32>,
    /// Samples, of all, that are for the fit.
    fitted: usize,
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
        let samples = Samples::new(x, inputs, active, neurons)?;
        let (fitted, l) = (samples.fitted, samples.covariance_root()?);
        let deviations: Vec<f32> = samples.frequency.iter().map(|f| deviation(*f)).collect();
        let standard = |t: usize, j: usize| (samples.active[(t, j)] - samples.frequency[j]) / deviations[j];
        // M = L^-1 X' Y: its left singular vectors are the directions that explain most.
        let x = samples.x.subrows(0, fitted);
        let mut m =
            x.transpose() * Mat::from_fn(fitted, neurons, standard) * faer::Scale(1.0 / fitted as f32);
        solve_lower_triangular_in_place(l.as_ref(), m.as_mut(), get_global_parallelism());
        let directions = directions(&m)?;
        Ok(Self::along(samples, directions, &l, &m, None))
    }

    /// Analyses samples as [`new`](Self::new) does, of neurons that are active where the outputs of `first`, `[neurons x inputs]`,
    /// are above zero. As these are linear in the inputs, samples only have to say how inputs vary, so that far fewer do.
    ///
    /// # Errors
    /// As [`new`](Self::new), or if a weight is not finite.
    pub fn above_zero(x: &[f32], inputs: usize, active: &[bool], first: &Linear) -> Result<Self, Error> {
        let (weight, neurons) = (first.weight(), first.weight().rows());
        same_len("inputs of the layer", weight.cols(), inputs)?;
        let samples = Samples::new(x, inputs, active, neurons)?;
        let l = samples.covariance_root()?;
        let mut rows = vec![0.0; neurons * inputs];
        rows.chunks_mut(inputs).enumerate().for_each(|(j, row)| weight.decode_row(j, row));
        finite("weight of the layer", &rows)?;
        let w = MatRef::from_row_major_slice(&rows, neurons, inputs);
        // Here Y = X W', so that M = L^-1 (L L') W' = L' W'.
        let mut m = l.transpose() * w.transpose();
        let mut means = w * &samples.mean;
        for (j, column) in m.col_iter_mut().enumerate() {
            let deviation = column.norm_l2().max(f32::MIN_POSITIVE);
            column.iter_mut().for_each(|v| *v /= deviation);
            means[(j, 0)] = (means[(j, 0)] + first.bias().map_or(0.0, |b| b[j])) / deviation;
        }
        // Neurons count by how much their activity varies.
        let counted = Mat::from_fn(inputs, neurons, |i, j| m[(i, j)] * deviation(samples.frequency[j]));
        let directions = directions(&counted)?;
        let means = means.col(0).iter().copied().collect();
        Ok(Self::along(samples, directions, &l, &m, Some(means)))
    }

    fn along(
        samples: Samples,
        mut directions: Mat<f32>,
        l: &Mat<f32>,
        m: &Mat<f32>,
        means: Option<Vec<f32>>,
    ) -> Self {
        let explained = directions.transpose() * m;
        solve_upper_triangular_in_place(l.transpose(), directions.as_mut(), get_global_parallelism());
        Self { samples, directions, explained, means }
    }

    /// The predictor of this rank (at most the width of the input), refined by `steps` gradient steps.
    pub fn factors(&self, rank: usize, steps: usize) -> PredictorFactors {
        let Samples { x, mean, fitted, .. } = &self.samples;
        let rank = rank.clamp(1, x.ncols());
        let closed = self.closed_form(rank);
        let refined = closed.clone().refined(&self.samples, steps);
        let held = *fitted..x.nrows();
        let Scores { p, q, bias } =
            match refined.loss(&self.samples, held.clone()) <= closed.loss(&self.samples, held) {
                true => refined,
                false => closed,
            };
        // Inputs will come with their mean.
        let shift = mean.transpose() * &p * &q;
        PredictorFactors {
            inputs: x.ncols(),
            rank,
            p: row_major(rank, x.ncols(), |k, i| p[(i, k)]),
            q: row_major(q.ncols(), rank, |j, k| q[(k, j)]),
            bias: (0..q.ncols()).map(|j| bias[(0, j)] - shift[(0, j)]).collect(),
        }
    }

    fn closed_form(&self, rank: usize) -> Scores {
        let frequency = &self.samples.frequency;
        // Logits per deviation of what is explained, and the logit where nothing deviates.
        let (slopes, bias): (Vec<f32>, Vec<f32>) = match &self.means {
            // By the slope of the logistic function at the frequency.
            None => frequency.iter().map(|f| (1.0 / deviation(*f), logit(*f))).unzip(),
            // What the rank does not explain decides by chance, as a normal variable.
            Some(means) => means
                .iter()
                .zip(self.explained.subrows(0, rank).col_iter())
                .map(|(mean, explained)| {
                    let rest = (1.0 - explained.squared_norm_l2()).max(LEAST_REST);
                    let slope = PROBIT / rest.sqrt();
                    (slope, slope * mean)
                })
                .unzip(),
        };
        Scores {
            p: self.directions.subcols(0, rank).to_owned(),
            q: Mat::from_fn(rank, slopes.len(), |k, j| self.explained[(k, j)] * slopes[j]),
            bias: Mat::from_fn(1, slopes.len(), |_, j| bias[j]),
        }
    }
}

impl Samples {
    fn new(x: &[f32], inputs: usize, active: &[bool], neurons: usize) -> Result<Self, Error> {
        let tokens = x.len().checked_div(inputs).unwrap_or(0);
        same_len("inputs of the samples", tokens * inputs, x.len())?;
        same_len("neurons of the samples", tokens * neurons, active.len())?;
        let bad = x.iter().copied().find(|x| !x.is_finite());
        if let Some(value) = bad.or((tokens == 0).then_some(0.0)) {
            let what = if tokens == 0 { "number of samples" } else { "input of a sample" };
            return Err(Error::Value { what, value, expected: "a finite number above zero" });
        }
        let fitted = tokens - tokens / HELD;
        let n = fitted as f32;
        let x = MatRef::from_row_major_slice(x, tokens, inputs);
        let mean = Mat::from_fn(inputs, 1, |i, _| (0..fitted).map(|t| x[(t, i)]).sum::<f32>() / n);
        let x = Mat::from_fn(tokens, inputs, |t, i| x[(t, i)] - mean[(i, 0)]);
        let active = Mat::from_fn(tokens, neurons, |t, j| f32::from(u8::from(active[t * neurons + j])));
        // One sample more of either kind: nothing is certain.
        let frequency = |j: usize| ((0..fitted).map(|t| active[(t, j)]).sum::<f32>() + 1.0) / (n + 2.0);
        Ok(Self { frequency: (0..neurons).map(frequency).collect(), x, mean, active, fitted })
    }

    /// L, lower triangular, with the covariance of the inputs `L L'`.
    fn covariance_root(&self) -> Result<Mat<f32>, Error> {
        let x = self.x.subrows(0, self.fitted);
        let mut covariance = x.transpose() * x * faer::Scale(1.0 / self.fitted as f32);
        let inputs = covariance.nrows();
        let ridge = RIDGE * (0..inputs).map(|i| covariance[(i, i)]).sum::<f32>() / inputs as f32;
        (0..inputs).for_each(|i| covariance[(i, i)] += ridge.max(f32::MIN_POSITIVE));
        let cholesky = covariance.llt(Side::Lower).map_err(|_| not_positive())?;
        Ok(cholesky.L().to_owned())
    }
}

fn not_positive() -> Error {
    Error::Value { what: "covariance of the samples", value: f32::NAN, expected: "positive definite" }
}

/// The left singular vectors of `m`, of the largest singular value first.
fn directions(m: &Mat<f32>) -> Result<Mat<f32>, Error> {
    let (squares, d) = (m * m.transpose(), m.nrows());
    // In f64, as the axes of a screen: the decomposition takes long to compile, so that there is one of it.
    let squares = Mat::from_fn(d, d, |i, j| f64::from(squares[(i, j)]));
    let eigen = squares.self_adjoint_eigen(Side::Lower).map_err(|_| not_positive())?;
    let u = eigen.U().reverse_cols();
    Ok(Mat::from_fn(d, d, |i, k| u[(i, k)] as f32))
}

/// Logits `x p q + bias`, of inputs less their mean.
#[derive(Clone)]
struct Scores {
    /// `[d x rank]`.
    p: Mat<f32>,
    /// `[rank x hidden]`.
    q: Mat<f32>,
    /// A row.
    bias: Mat<f32>,
}

impl Scores {
    /// After so many gradient steps on the logistic loss.
    fn refined(self, samples: &Samples, steps: usize) -> Self {
        let Samples { x, active, fitted, .. } = samples;
        let [mut p, mut q, mut bias] = [self.p, self.q, self.bias].map(Adam::new);
        for step in 0..steps {
            let first = step * BATCH % fitted;
            let batch = BATCH.min(fitted - first);
            let x = x.subrows(first, batch);
            let projected = x * &p.value;
            // The gradient of the logistic loss by the scores.
            let mut error = &projected * &q.value;
            let scale = 1.0 / batch as f32;
            error.par_col_iter_mut().enumerate().for_each(|(j, errors)| {
                let (bias, active) = (bias.value[(0, j)], active.col(j).subrows(first, batch));
                let mut logits = [0.0; BATCH];
                logits.iter_mut().zip(errors.as_ref().iter()).for_each(|(l, e)| *l = e + bias);
                // The kernels have x times the logistic function of x.
                let mut silu = logits;
                ActivationType::Silu.apply(Kernels::get(), &mut silu[..batch]);
                for (((e, l), s), active) in errors.iter_mut().zip(logits).zip(silu).zip(active.iter()) {
                    *e = (if l == 0.0 { 0.5 } else { s / l } - active) * scale;
                }
            });
            let rate = STEP * 0.5 * (1.0 + (core::f32::consts::PI * step as f32 / steps as f32).cos());
            let by_p = x.transpose() * (&error * q.value.transpose());
            let by_q = projected.transpose() * &error;
            let by_bias = Mat::from_fn(1, error.ncols(), |_, j| error.col(j).iter().sum());
            p.update(&by_p, rate, step);
            q.update(&by_q, rate, step);
            bias.update(&by_bias, rate, step);
        }
        Self { p: p.value, q: q.value, bias: bias.value }
    }

    /// The logistic loss of the samples in `range`, per neuron and sample; zero of none.
    fn loss(&self, samples: &Samples, range: Range<usize>) -> f64 {
        let scores = samples.x.subrows(range.start, range.len()) * &self.p * &self.q;
        let of_column = |(j, scores): (usize, ColRef<'_, f32>)| -> f64 {
            let active = samples.active.col(j).subrows(range.start, range.len());
            let loss = |(s, active): (&f32, &f32)| {
                let logit = s + self.bias[(0, j)];
                let wrong = if *active > 0.0 { -logit } else { logit };
                f64::from(wrong.max(0.0) + (-wrong.abs()).exp().ln_1p())
            };
            scores.iter().zip(active.iter()).map(loss).sum()
        };
        let sum: f64 = scores.par_col_iter().enumerate().map(of_column).sum();
        sum / (scores.nrows() * scores.ncols()).max(1) as f64
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
