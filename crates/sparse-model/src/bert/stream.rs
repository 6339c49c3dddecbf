//! Embeddings of texts that come one after the other.

use std::vec;

use super::Encoder;
use super::prompt::Prefix;
use crate::Error;

/// The embeddings of a sequence of texts, in its order: what [`Encoder::embed_stream`] returns.
///
/// After an error there are no more.
#[derive(Debug)]
pub struct EmbedStream<'a, I> {
    encoder: &'a Encoder,
    prefix: Prefix,
    texts: I,
    computed: vec::IntoIter<Vec<f32>>,
    failed: bool,
}

impl<'a, I> EmbedStream<'a, I> {
    pub(super) fn new(encoder: &'a Encoder, prefix: Prefix, texts: I) -> Self {
        Self { encoder, prefix, texts, computed: Vec::new().into_iter(), failed: false }
    }
}

impl<I> Iterator for EmbedStream<'_, I>
where
    I: Iterator,
    I::Item: AsRef<str>,
{
    type Item = Result<Vec<f32>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.computed.len() == 0 && !self.failed {
            let texts: Vec<I::Item> = self.texts.by_ref().take(self.encoder.window_len()).collect();
            let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
            match self.encoder.window(&self.prefix, &texts) {
                Ok(embeddings) => self.computed = embeddings.into_iter(),
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
        self.computed.next().map(Ok)
    }
}
