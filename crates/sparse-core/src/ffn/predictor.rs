//! The low-rank predictor: which neurons will be active, without reading their weights.

use alloc::vec::Vec;

use sparse_simd::Activation;

use super::selector::reordered;
use crate::error::same_len;
use crate::linear::add_bias;
use crate::{Activations, ColumnMatrix, Compute, Error, Matrix};

/// Scores `Q f(P x) + b` of all neurons, in `O(r (d + hidden))`; `f` is the identity, or
/// [ReLU](Self::with_relu).
///
/// P is `[r x d]` and Q `[hidden x r]`, in f32 or in any other block format. A score is the logit of "this neuron is
/// active" if the predictor was fitted to that.
#[derive(Clone, Debug)]
pub struct LowRankPredictor {
    p: Matrix,
    q: Tall,
    bias: Vec<f32>,
    relu: bool,
    input: PredictorInput,
}

/// What a predictor reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PredictorInput {
    /// What the layer reads.
    #[default]
    Layer,
    /// A vector of its own, as wide: [`FfnScratch::set_predictor_input`](crate::FfnScratch::set_predictor_input). PowerInfer's
    /// predictors read the residual stream before its norm.
    Own,
}

/// A matrix of many short rows.
#[derive(Clone, Debug)]
enum Tall {
    Rows(Matrix),
    /// Adding up the columns, of many rows at a time, is several times as fast as so many sums of a block or two.
    Columns(ColumnMatrix),
}

impl LowRankPredictor {
    /// A predictor of the neurons of an FFN of `d` inputs and `hidden` neurons: `p` is `[r x d]`, `q` `[hidden x r]`,
    /// `bias` has a value per neuron.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(p: Matrix, q: Matrix, bias: Vec<f32>) -> Result<Self, Error> {
        same_len("columns of the predictor's q", p.rows(), q.cols())?;
        same_len("bias of the predictor", q.rows(), bias.len())?;
        let q = match q.format().is_quantized() {
            true => Tall::Columns(ColumnMatrix::from_rows(&q)?),
            false => Tall::Rows(q),
        };
        Ok(Self { p, q, bias, relu: false, input: PredictorInput::default() })
    }

    /// The same with a ReLU between the factors.
    #[must_use]
    pub fn with_relu(self) -> Self {
        Self { relu: true, ..self }
    }

    /// The same with another input.
    #[must_use]
    pub fn with_input(self, input: PredictorInput) -> Self {
        Self { input, ..self }
    }

    /// Whether there is a ReLU between the factors.
    pub fn has_relu(&self) -> bool {
        self.relu
    }

    /// What it reads.
    pub fn input(&self) -> PredictorInput {
        self.input
    }

    /// The same for neurons in another order: neuron i is the one that was `order[i]`.
    ///
    /// # Errors
    /// If it is too large to address.
    pub(super) fn reordered(&self, order: &[u32]) -> Result<Self, Error> {
        let (p, q, bias) = self.parts();
        let Self { relu, input, .. } = *self;
        Ok(Self { relu, input, ..Self::new(p, q.select(order), reordered(order, bias))? })
    }

    /// Rank: the width between the two factors.
    pub fn rank(&self) -> usize {
        self.p.rows()
    }

    /// Width of the input.
    pub fn inputs(&self) -> usize {
        self.p.cols()
    }

    /// Neurons scored.
    pub fn neurons(&self) -> usize {
        self.bias.len()
    }

    /// The factors P and Q, and the bias.
    pub fn parts(&self) -> (Matrix, Matrix, &[f32]) {
        let q = match &self.q {
            Tall::Rows(q) => q.clone(),
            Tall::Columns(q) => q.to_rows(),
        };
        (self.p.clone(), q, &self.bias)
    }

    /// Bytes that scoring one token reads.
    pub fn bytes(&self) -> usize {
        let q = match &self.q {
            Tall::Rows(q) => q.bytes(),
            Tall::Columns(q) => q.bytes(),
        };
        self.p.bytes() + q + size_of_val(&*self.bias)
    }

    /// The scores of every token in `x`, `[tokens x neurons]`. `projected` is scratch space with [`rank`](Self::rank)
    /// columns.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn scores(
        &self,
        compute: &Compute,
        x: &Activations,
        projected: &mut Activations,
        scores: &mut [f32],
    ) {
        assert_eq!(projected.cols(), self.rank(), "width between the factors");
        projected.resize(x.tokens());
        self.p.matmul(compute, x, projected.x_mut());
        if self.relu {
            compute.kernels.activate(Activation::Relu, projected.x_mut());
        }
        projected.quantize(compute.kernels);
        match &self.q {
            Tall::Rows(q) => q.matmul(compute, projected, scores),
            Tall::Columns(q) => q.matmul(compute, projected, scores),
        }
        add_bias(compute, Some(&self.bias), scores);
    }
}
