//! Sequences whose beginning a later prompt may share.

use sparse_model::Sequence;

/// Tokens of a prompt that are computed in any case: fewer would be computed in another way than in one prompt.
const REST: usize = 32;
/// Tokens that are worth sharing.
const LEAST: usize = 32;

/// Finished sequences, the one used last at the end.
#[derive(Debug)]
pub(super) struct Prefixes {
    sequences: Vec<Sequence>,
    bytes: usize,
}

impl Prefixes {
    /// Keeps about `bytes` of keys and values.
    pub(super) fn new(bytes: usize) -> Self {
        Self { sequences: Vec::new(), bytes }
    }

    /// A sequence that begins as `tokens` do, as far as that is of use.
    pub(super) fn find(&mut self, tokens: &[u32]) -> Option<Sequence> {
        let usable = |s: &Sequence| {
            let known = &s.tokens()[..s.position()];
            let common = known.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            common.min(tokens.len().saturating_sub(REST))
        };
        let (best, position) = self.sequences.iter().map(usable).enumerate().max_by_key(|(_, n)| *n)?;
        if position < LEAST {
            return None;
        }
        let sequence = self.sequences.remove(best);
        let fork = sequence.fork(position);
        self.sequences.push(sequence);
        // Layers that keep a summary cannot go back.
        fork.ok()
    }

    /// Keeps a sequence that is done, and lets go of others that take too much memory or say no more than it does.
    pub(super) fn keep(&mut self, sequence: Sequence) {
        let new = &sequence.tokens()[..sequence.position()];
        if new.len() < LEAST {
            return;
        }
        self.sequences.retain(|old| !new.starts_with(&old.tokens()[..old.position()]));
        self.sequences.push(sequence);
        let mut total: usize = self.sequences.iter().map(Sequence::kv_bytes).sum();
        while total > self.bytes && !self.sequences.is_empty() {
            total -= self.sequences.remove(0).kv_bytes();
        }
    }
}
