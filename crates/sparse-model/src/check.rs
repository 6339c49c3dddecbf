//! Which activation a model's weights were trained with, found by trying.

use std::sync::Arc;

use sparse_core::ActivationType;
use sparse_gguf::Gguf;

use crate::mean::RunningMean;
use crate::tokenizer::EncodeOptions;
use crate::{Error, FfnActivation, Model, ModelOptions, Session, negative_log_likelihood};

/// Plain prose that every language model predicts better than chance.
const TEXT: &str = "Once upon a time there was a little girl who lived with her mother near the big forest. One day \
    she went out to play, and she saw a small dog under a tree. The dog was sad because it had lost its way home. \
    \"Do not cry,\" said the girl. \"I will help you to find your house.\" They walked along the road together until \
    they came to the old bridge over the river. On the other side there was a man who was looking for his dog. \
    He was very happy to see it again. \"Thank you for bringing my friend back to me,\" he said. \"How can I thank \
    you?\" The girl smiled and said that she only wanted to play with the dog for a little while. So they played \
    in the garden behind the house until the sun went down. Then the man gave her a big red apple, and she ran \
    home to tell her mother what had happened. That night she slept well and had a dream about her new friends.";
/// Tokens of it that are used.
const TOKENS: usize = 256;

/// How well a model predicts a short text with one activation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ActivationScore {
    /// The activation.
    pub activation: FfnActivation,
    /// Perplexity of the text; infinite where the model's output was not finite.
    pub perplexity: f64,
    /// How much worse a token is predicted than with the best activation, in standard errors of the
    /// mean difference, token by token; 0 for the best.
    pub behind: f64,
}

/// Scores a short English text with each activation that models are trained with, the best first.
///
/// The right one wins on a trained model, if only by a little over its smooth relatives: look at
/// [`ActivationScore::behind`]. ReLU and FATReLU of a small threshold are too much
/// alike to be told apart: ReLU stands for both.
///
/// # Errors
/// If the file is damaged or holds a model that this crate does not run.
pub fn check_activation(gguf: &Gguf, threads: usize) -> Result<Vec<ActivationScore>, Error> {
    use ActivationType::{GeluTanh, Relu, Relu2, Silu};
    let candidates = [Silu, GeluTanh, Relu, Relu2].map(FfnActivation::of);
    let options = ModelOptions::new(threads).activation(Some(candidates[0]));
    let mut model = Model::from_gguf_with(gguf, &options)?;
    let gated = model.ffns().all(|ffn| ffn.gate().is_some());
    let pairs = [FfnActivation::DRELU, FfnActivation::SWIGLU_OAI].into_iter().filter(|_| gated);
    let tokenizer = model.tokenizer();
    let mut ids = Vec::new();
    if !tokenizer.add_bos() {
        // Without a token before it, the first word is a guess; any separator will do.
        ids.extend(tokenizer.bos());
    }
    ids.extend(tokenizer.encode(TEXT, EncodeOptions::default())?);
    ids.truncate(TOKENS.min(model.config().context));
    let mut losses = Vec::new();
    for activation in candidates.into_iter().chain(pairs) {
        model.set_activation(activation);
        let shared = Arc::new(model);
        losses.push((activation, losses_of(&shared, &ids)?));
        model = Arc::into_inner(shared).expect("the session is gone");
    }
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len().max(1) as f64;
    losses.sort_by(|(_, a), (_, b)| mean(a).total_cmp(&mean(b)));
    let best = losses[0].1.clone();
    Ok(losses
        .into_iter()
        .map(|(activation, losses)| ActivationScore {
            activation,
            perplexity: mean(&losses).exp(),
            behind: standard_errors(&losses, &best),
        })
        .collect())
}

/// Mean of `losses - best` over its standard error.
fn standard_errors(losses: &[f64], best: &[f64]) -> f64 {
    let mut difference = RunningMean::default();
    losses.iter().zip(best).for_each(|(loss, best)| difference.add(loss - best));
    match difference.mean() {
        0.0 => 0.0,
        mean if mean.is_finite() => mean / difference.standard_error(),
        _ => f64::INFINITY,
    }
}

/// The negative log-likelihood of each token, in nats; infinite where the output was not finite.
fn losses_of(model: &Arc<Model>, ids: &[u32]) -> Result<Vec<f64>, Error> {
    let mut losses = Vec::with_capacity(ids.len());
    let mut session = Session::new(model, ids.len())?;
    let each = |t: usize, logits: &[f32]| {
        if let Some(next) = ids.get(t + 1) {
            losses.push(negative_log_likelihood(logits, *next));
        }
    };
    match session.forward_each(ids, each) {
        Ok(()) => Ok(losses),
        // The wrong function can make a sound model overflow.
        Err(Error::NotFinite { .. }) => Ok(vec![f64::INFINITY; ids.len().saturating_sub(1)]),
        Err(e) => Err(e),
    }
}
