//! Keys and values of the tokens seen so far.

use std::ops::Range;
use std::str::FromStr;

use half::f16;
use sparse_simd::{BlockFormat, Kernels, Rows};

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvFormat {
    /// Half precision. A layer with a value beyond its range goes on in [`F32`](Self::F32).
    #[default]
    F16,
    /// Single precision: twice the memory.
    F32,
}

impl FromStr for KvFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "f16" => Ok(Self::F16),
            "f32" => Ok(Self::F32),
            other => Err(format!("keys and values have no format \"{other}\"; there are f16, f32")),
        }
    }
}

/// Keys and values of one layer.
///
/// Each key-value head has its own contiguous `[context x head_dim]` rows, so that attention reads
/// them as one stream. Memory is reserved for the whole context but only touched as tokens arrive.
#[derive(Debug)]
pub(crate) struct KvCache {
    values: Storage,
    kv_heads: usize,
    context: usize,
    head_dim: usize,
}

/// Keys, then values: `[2 x kv_heads x context x head_dim]`.
#[derive(Debug)]
enum Storage {
    F16(Vec<f16>),
    F32(Vec<f32>),
}

/// What a [`KvCache`] has two of.
#[derive(Clone, Copy, Debug)]
enum Part {
    Key,
    Value,
}

impl KvCache {
    /// An empty cache for `context` tokens, or `None` where there is not enough memory to address or to get.
    pub(crate) fn new(format: KvFormat, kv_heads: usize, context: usize, head_dim: usize) -> Option<Self> {
        let n = [kv_heads, context, head_dim].into_iter().try_fold(2_usize, usize::checked_mul)?;
        let values = match format {
            KvFormat::F16 => Storage::F16(bytemuck::allocation::try_zeroed_vec(n).ok()?),
            KvFormat::F32 => Storage::F32(bytemuck::allocation::try_zeroed_vec(n).ok()?),
        };
        Some(Self { values, kv_heads, context, head_dim })
    }

    /// How keys and values are stored now.
    pub(crate) fn format(&self) -> KvFormat {
        match self.values {
            Storage::F16(_) => KvFormat::F16,
            Storage::F32(_) => KvFormat::F32,
        }
    }

    /// Keys and values of the tokens at `positions`, `[positions x head_dim]` each.
    pub(crate) fn rows(&self, head: usize, positions: Range<usize>) -> (Rows<'_>, Rows<'_>) {
        [Part::Key, Part::Value]
            .map(|part| {
                let start = self.start(part, head) + positions.start * self.head_dim;
                let range = start..start + positions.len() * self.head_dim;
                let (format, bytes) = match &self.values {
                    Storage::F16(all) => (BlockFormat::F16, bytemuck::cast_slice(&all[range])),
                    Storage::F32(all) => (BlockFormat::F32, bytemuck::cast_slice(&all[range])),
                };
                Rows::new(format, self.head_dim, bytes).expect("whole rows")
            })
            .into()
    }

    /// Stores keys and values of the token at `position`, `[kv_heads x head_dim]` each.
    pub(crate) fn write(&mut self, k: &Kernels, position: usize, keys: &[f32], values: &[f32]) {
        if matches!(self.values, Storage::F16(_)) && !(fits_f16(keys) && fits_f16(values)) {
            tracing::warn!(position, "keys or values beyond half precision: this layer goes on in f32");
            self.widen();
        }
        for (part, all) in [(Part::Key, keys), (Part::Value, values)] {
            for (head, x) in all.chunks(self.head_dim).enumerate() {
                let start = self.start(part, head) + position * self.head_dim;
                let range = start..start + self.head_dim;
                match &mut self.values {
                    Storage::F16(all) => k.to_f16(x, &mut all[range]),
                    Storage::F32(all) => all[range].copy_from_slice(x),
                }
            }
        }
    }

    /// Stores everything in single precision from now on.
    fn widen(&mut self) {
        if let Storage::F16(all) = &self.values {
            self.values = Storage::F32(all.iter().map(|x| x.to_f32()).collect());
        }
    }

    fn start(&self, part: Part, head: usize) -> usize {
        (part as usize * self.kv_heads + head) * self.context * self.head_dim
    }
}

/// Whether no finite value becomes infinite in half precision.
fn fits_f16(x: &[f32]) -> bool {
    // Values up to here round to the largest finite one.
    const LIMIT: f32 = 65_520.0;
    x.iter().fold(true, |fits, x| fits & (x.abs() < LIMIT || !x.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_beyond_half_precision_widens_the_cache_and_keeps_the_rest() {
        let k = Kernels::get();
        let mut cache = KvCache::new(KvFormat::F16, 2, 4, 2).unwrap();
        cache.write(k, 0, &[1.0, 2.0, 3.0, 65_519.0], &[0.5; 4]);
        assert_eq!(cache.format(), KvFormat::F16);
        cache.write(k, 1, &[1e6, -1.0, 4.0, 5.0], &[0.25; 4]);
        assert_eq!(cache.format(), KvFormat::F32);
        let decode = |rows: Rows<'_>| -> Vec<f32> {
            let mut out = vec![0.0; rows.rows() * 2];
            for (r, out) in out.chunks_mut(2).enumerate() {
                BlockFormat::F32.decode(rows.row(r), out).unwrap();
            }
            out
        };
        assert_eq!(decode(cache.rows(0, 0..2).0), [1.0, 2.0, 1e6, -1.0]);
        assert_eq!(decode(cache.rows(1, 0..2).0), [3.0, 65_504.0, 4.0, 5.0]);
        assert_eq!(decode(cache.rows(1, 1..2).1), [0.25, 0.25]);
    }

    #[test]
    fn a_context_that_no_memory_holds_is_refused() {
        assert!(KvCache::new(KvFormat::F16, usize::MAX / 8, 8, 8).is_none());
        assert!(KvCache::new(KvFormat::F32, usize::MAX / 128, 1, 8).is_none());
    }

    #[test]
    fn the_limit_is_where_rounding_gives_infinity() {
        assert!(f16::from_f32(65_519.99).is_finite() && fits_f16(&[65_519.99]));
        assert!(f16::from_f32(65_520.0).is_infinite() && !fits_f16(&[-65_520.0]));
        assert!(fits_f16(&[f32::NAN, f32::INFINITY]));
    }
}
