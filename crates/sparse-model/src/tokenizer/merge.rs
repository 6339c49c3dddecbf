//! The merge loop that both kinds of tokenizer share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A stretch of text that is one token, or no token yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    /// Where it starts in the text, in bytes.
    pub(super) start: usize,
    /// Where it ends; at `start` once its left neighbor took it over.
    pub(super) end: usize,
    /// Its token.
    pub(super) id: Option<u32>,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbors that could become one token. Ordered as they merge: by rank, then from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: usize,
    right: usize,
    id: u32,
    /// Bytes of the pair. A pair of another length is not the one that was found, its parts have grown.
    len: usize,
}

/// Merges neighboring symbols, lowest rank first and leftmost among equals, until no pair has a rank.
///
/// `tokenizers` has such a loop for BPE, but not this one: there, every pair has a rank of its own, while a
/// SentencePiece score ranks the result, so that all pairs of equal score compete from left to right. Its own tables
/// also cost more to build; docs/design.md has figures.
///
/// The buffers stay for the next text.
#[derive(Debug, Default)]
pub(super) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Candidate>>,
}

impl Merger {
    /// Starts a new text.
    pub(super) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends the next `len` bytes of the text as a symbol.
    pub(super) fn push(&mut self, len: usize, id: Option<u32>) {
        let index = self.symbols.len();
        let (start, previous) = match self.symbols.last_mut() {
            Some(last) => {
                last.next = Some(index);
                (last.end, Some(index - 1))
            }
            None => (0, None),
        };
        self.symbols.push(Symbol { start, end: start + len, id, previous, next: None });
    }

    /// Merges by `pair`, which gives the rank and the token of two neighbors that are one, and returns what is left.
    pub(super) fn run(
        &mut self,
        pair: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
    ) -> impl Iterator<Item = &Symbol> {
        let Self { symbols, queue } = self;
        let candidate = |symbols: &[Symbol], left: usize, right: usize| {
            let (l, r) = (&symbols[left], &symbols[right]);
            pair(l, r).map(|(rank, id)| Reverse(Candidate { rank, left, right, id, len: r.end - l.start }))
        };
        queue.extend((1..symbols.len()).filter_map(|right| candidate(symbols, right - 1, right)));
        while let Some(Reverse(c)) = queue.pop() {
            let (left, right) = (symbols[c.left], symbols[c.right]);
            if left.end == left.start || right.end == right.start || right.end - left.start != c.len {
                continue;
            }
            symbols[c.left] = Symbol { end: right.end, id: Some(c.id), next: right.next, ..left };
            symbols[c.right].end = right.start;
            if let Some(next) = right.next {
                symbols[next].previous = Some(c.left);
                queue.extend(candidate(symbols, c.left, next));
            }
            if let Some(previous) = left.previous {
                queue.extend(candidate(symbols, previous, c.left));
            }
        }
        symbols.iter().filter(|s| s.end > s.start)
    }
}
