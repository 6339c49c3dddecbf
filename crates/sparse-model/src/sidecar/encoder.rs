//! The sidecar of an encoder.

use std::collections::HashMap;
#[cfg(feature = "fs")]
use std::path::Path;

use sparse_core::{Linear, Selector};
use sparse_gguf::{BlockFormat, Gguf, Sink};

use super::selectors::{self, Tensors};
use crate::bert::low_bit_copy;
use crate::{Encoder, Error};

/// Which neurons an encoder leaves out, and what that costs in accuracy.
#[derive(Debug)]
pub struct EncoderSidecar {
    /// [`Encoder::fingerprint`] of the model that it was made for.
    pub fingerprint: String,
    /// For every layer the selector, and what skipped neurons are taken to give, if that is not zero.
    pub layers: Vec<(Selector, Option<Vec<f32>>)>,
    /// The loss measured on sentences that calibration did not see.
    pub loss: Option<EncoderLoss>,
}

/// How far the embeddings of a sparse encoder are from those of the dense one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderLoss {
    /// 1 less the mean cosine to the dense embedding of the same sentence.
    pub mean: f64,
    /// Standard error of that.
    pub standard_error: f64,
    /// Sentences.
    pub sentences: usize,
}

impl EncoderLoss {
    /// Upper end of the 95 % confidence interval of the mean.
    pub fn upper(&self) -> f64 {
        self.mean + 1.96 * self.standard_error
    }
}

impl EncoderSidecar {
    /// Reads the sidecar of `encoder`, which must not be [dense](crate::EncoderSparsity::Dense): copies of weights are made
    /// of its layers'.
    ///
    /// # Errors
    /// If the file cannot be read, is no sidecar, is damaged, or was made for another model.
    #[cfg(feature = "fs")]
    pub fn open(path: impl AsRef<Path>, encoder: &Encoder) -> Result<Self, Error> {
        let path = path.as_ref();
        let in_file = |source| Error::File { path: path.to_owned(), source: Box::new(source) };
        Gguf::open(path)
            .map_err(Error::from)
            .and_then(|gguf| Self::from_gguf(&gguf, encoder))
            .map_err(in_file)
    }

    /// Reads the sidecar of `encoder` from a parsed file.
    ///
    /// # Errors
    /// If the file is no sidecar, is damaged, or was made for another model.
    pub fn from_gguf(gguf: &Gguf, encoder: &Encoder) -> Result<Self, Error> {
        let meta = gguf.metadata();
        let fingerprint = meta.opt_string("sparse.model.fingerprint")?.unwrap_or_default().to_owned();
        let found = encoder.fingerprint().to_owned();
        // A file without a fingerprint is no sidecar, and `read` says so.
        if !fingerprint.is_empty() && fingerprint != found {
            return Err(Error::Sidecar { expected: fingerprint, found });
        }
        let ups: HashMap<usize, &Linear> = encoder.ffns().map(|(i, ffn)| (i, ffn.up())).collect();
        let selectors = selectors::read(gguf, |i| Some(low_bit_copy(ups.get(&i)?)))?;
        let file = Tensors { gguf };
        let layers = selectors.into_iter().enumerate().map(|(i, selector)| {
            let name = mean(i);
            let means = gguf.info(&name).map(|_| file.vector(&name)).transpose()?;
            Ok((selector, means))
        });
        let number = |key: &str| meta.opt_f32(&format!("sparse.loss.{key}"));
        let loss = match (number("cosine")?, meta.opt_usize("sparse.loss.sentences")?) {
            (Some(mean), Some(sentences)) => Some(EncoderLoss {
                mean: mean.into(),
                standard_error: number("standard_error")?.unwrap_or(f32::NAN).into(),
                sentences,
            }),
            _ => None,
        };
        Ok(Self { layers: layers.collect::<Result<_, Error>>()?, fingerprint, loss })
    }

    /// Writes the sidecar; whatever was at `path` stays until the new file is complete.
    ///
    /// # Errors
    /// If the file cannot be written, or a selector is one for measurements only.
    #[cfg(feature = "fs")]
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.write(sparse_gguf::PendingFile::create(path)?)
    }

    /// Writes the sidecar to a sink, such as a `Vec<u8>`.
    ///
    /// # Errors
    /// If the sink fails, or a selector is one for measurements only.
    pub fn write<S: Sink>(&self, sink: S) -> Result<S::Done, Error> {
        let selectors = self.layers.iter().map(|(selector, _)| selector);
        let (mut meta, mut tensors) = selectors::write(&self.fingerprint, selectors)?;
        if let Some(loss) = &self.loss {
            meta.insert("sparse.loss.cosine", loss.mean as f32);
            meta.insert("sparse.loss.standard_error", loss.standard_error as f32);
            meta.insert("sparse.loss.sentences", loss.sentences as u64);
        }
        for (i, (_, means)) in self.layers.iter().enumerate() {
            if let Some(means) = means {
                let bytes = means.iter().flat_map(|v| v.to_le_bytes()).collect();
                tensors.push((mean(i), vec![means.len()], BlockFormat::F32, bytes));
            }
        }
        selectors::finish(sink, meta, &tensors)
    }

    /// Gives the selectors to the layers of `encoder`.
    ///
    /// # Errors
    /// If the sidecar was made for another model, or a selector does not fit.
    pub fn apply(self, encoder: &mut Encoder) -> Result<(), Error> {
        let layers = encoder.ffns().count();
        if encoder.fingerprint() != self.fingerprint || self.layers.len() != layers {
            let found = encoder.fingerprint().to_owned();
            return Err(Error::Sidecar { expected: self.fingerprint, found });
        }
        for ((_, ffn), (selector, means)) in encoder.ffns_mut().zip(self.layers) {
            ffn.set_selector(selector)?;
            ffn.set_means(means)?;
        }
        Ok(())
    }
}

fn mean(layer: usize) -> String {
    format!("blk.{layer}.ffn_hidden.mean")
}
