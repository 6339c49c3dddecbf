//! Which activation a model's weights were trained with, found by trying.

use std::sync::Arc;

use sparse_core::ActivationType;
use sparse_gguf::Gguf;

use crate::tokenizer::EncodeOptions;
use crate::{Error, FfnActivation, Model, ModelOptions, RunningMean, Session, negative_log_likelihood};

/// Plain prose that every language model predicts better than chance.
const TEXT: &str = "Once upon a time there was a little girl who lived with her mother near the big forest. One day \
    she went out to play, and she saw a small dog under a tree. The dog was sad because it had lost its way home. \
    \"Do not cry,\" said the girl. \"I will help you to find your house.\" They walked along the road together until \
    they came to the old bridge over the river. On the other side there was a man who was looking for his dog.";
/// Tokens of it that are used.
const TOKENS: usize = 96;

/// How well a model predicts a short text with one activation.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ActivationScore {
    /// The activation.
    pub activation: FfnActivation,
    /// Perplexity of the text; infinite where the model's output was not finite.
    pub perplexity: f64,
}

/// Scores a short English text with each activation that models are trained with, the best first.
///
/// The right one wins by far on a trained model. ReLU and FATReLU of a small threshold are too much
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
    let tokenizer = model.tokenizer();
    let mut ids = Vec::new();
    if !tokenizer.add_bos() {
        // Without a token before it, the first word is a guess; any separator will do.
        ids.extend(tokenizer.bos());
    }
    ids.extend(tokenizer.encode(TEXT, EncodeOptions::default())?);
    ids.truncate(TOKENS.min(model.config().context));
    let mut scores = Vec::new();
    for activation in candidates.into_iter().chain(gated.then_some(FfnActivation::DRELU)) {
        model.set_activation(activation);
        let shared = Arc::new(model);
        let perplexity = score(&shared, &ids)?;
        scores.push(ActivationScore { activation, perplexity });
        model = Arc::into_inner(shared).expect("the session is gone");
    }
    scores.sort_by(|a, b| a.perplexity.total_cmp(&b.perplexity));
    Ok(scores)
}

fn score(model: &Arc<Model>, ids: &[u32]) -> Result<f64, Error> {
    let mut mean = RunningMean::default();
    let mut session = Session::new(model, ids.len())?;
    let each = |t: usize, logits: &[f32]| {
        if let Some(next) = ids.get(t + 1) {
            mean.add(negative_log_likelihood(logits, *next));
        }
    };
    match session.forward_each(ids, each) {
        Ok(()) => Ok(mean.mean().exp()),
        // The wrong function can make a sound model overflow.
        Err(Error::NotFinite { .. }) => Ok(f64::INFINITY),
        Err(e) => Err(e),
    }
}
