//! Keys and values of the tokens seen so far.

use half::f16;
use sparse_simd::{BlockFormat, Rows};

/// Keys and values of every layer in half precision.
///
/// Each layer and key-value head has its own contiguous `[context x head_dim]` rows, so that attention reads
/// them as one stream. Memory is reserved for the whole context but only touched as tokens arrive.
#[derive(Debug)]
pub(crate) struct KvCache {
    keys: Vec<f16>,
    values: Vec<f16>,
    kv_heads: usize,
    context: usize,
    head_dim: usize,
}

impl KvCache {
    /// An empty cache for `context` tokens.
    pub(crate) fn new(layers: usize, kv_heads: usize, context: usize, head_dim: usize) -> Self {
        let n = layers * kv_heads * context * head_dim;
        Self {
            keys: bytemuck::allocation::zeroed_vec(n),
            values: bytemuck::allocation::zeroed_vec(n),
            kv_heads,
            context,
            head_dim,
        }
    }

    /// Tokens it has room for.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    fn start(&self, layer: usize, head: usize) -> usize {
        (layer * self.kv_heads + head) * self.context * self.head_dim
    }

    /// Keys and values of the first `len` tokens, `[len x head_dim]` each.
    pub(crate) fn rows(&self, layer: usize, head: usize, len: usize) -> (Rows<'_>, Rows<'_>) {
        let start = self.start(layer, head);
        [&self.keys, &self.values]
            .map(|all| {
                let bytes = bytemuck::cast_slice(&all[start..][..len * self.head_dim]);
                Rows::new(BlockFormat::F16, self.head_dim, bytes).expect("whole rows")
            })
            .into()
    }

    /// Key and value of the token at `position`, for writing.
    pub(crate) fn entry(&mut self, layer: usize, head: usize, position: usize) -> (&mut [f16], &mut [f16]) {
        let at = self.start(layer, head) + position * self.head_dim;
        let range = at..at + self.head_dim;
        (&mut self.keys[range.clone()], &mut self.values[range])
    }
}
