//! The state of a short convolution: what the last tokens put into it.

/// The last inputs of one layer's convolution.
///
/// It keeps one more than the next token needs, so that the last token can be taken back.
#[derive(Clone, Debug)]
pub(crate) struct ConvState {
    /// `[taps x width]`, oldest first; zeros before the first token.
    inputs: Vec<f32>,
    width: usize,
    /// Whether the last token can be taken back.
    rewinds: bool,
}

impl ConvState {
    /// The state before the first token.
    pub(crate) fn new(taps: usize, width: usize) -> Self {
        Self { inputs: vec![0.0; taps * width], width, rewinds: false }
    }

    /// The last inputs, `[taps x width]`, oldest first.
    #[cfg(feature = "fs")]
    pub(crate) fn inputs(&self) -> &[f32] {
        &self.inputs
    }

    /// Takes the last inputs from a file; `None` if there are more or fewer.
    #[cfg(feature = "fs")]
    pub(crate) fn restore(&mut self, inputs: &[f32]) -> Option<()> {
        (inputs.len() == self.inputs.len()).then(|| self.inputs.copy_from_slice(inputs))?;
        self.rewinds = false;
        Some(())
    }

    /// Forgets all tokens.
    pub(crate) fn clear(&mut self) {
        self.inputs.fill(0.0);
        self.rewinds = false;
    }

    /// Whether [`rewind`](Self::rewind) can take the last token back.
    pub(crate) fn rewinds(&self) -> bool {
        self.rewinds
    }

    /// Takes the last token back.
    pub(crate) fn rewind(&mut self) {
        debug_assert!(self.rewinds, "only the last token is kept");
        let kept = self.inputs.len() - self.width;
        self.inputs.copy_within(..kept, self.width);
        self.rewinds = false;
    }

    /// Appends a token's input, and returns all inputs that it sees: `[taps x width]`, oldest first.
    pub(crate) fn push(&mut self, input: &[f32]) -> &[f32] {
        let kept = self.inputs.len() - self.width;
        self.inputs.copy_within(self.width.., 0);
        self.inputs[kept..].copy_from_slice(input);
        self.rewinds = true;
        &self.inputs
    }
}
