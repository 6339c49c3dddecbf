//! The machine's read bandwidth: the roofline of decode, which reads every weight once per token.

use alloc::vec;
use alloc::vec::Vec;
use std::time::{Duration, Instant};

use sparse_simd::MatMut;

use crate::Pool;

/// Bytes that a thread claims at a time.
const CHUNK: usize = 1 << 20;
/// Sums that a chunk is added up in: enough to keep loads, not additions, the limit.
const LANES: usize = 64;

/// Reads memory in order, to learn how fast that goes.
#[derive(Debug)]
pub struct ReadBandwidth {
    words: Vec<u64>,
    sums: Vec<f32>,
}

impl ReadBandwidth {
    /// Prepares to read `bytes` (rounded up to whole MiB) per pass. Several times the size of the caches, or it is
    /// these that are measured.
    pub fn new(bytes: usize) -> Self {
        let chunks = bytes.div_ceil(CHUNK).max(1);
        // Not zero, or every page would be the same one.
        Self { words: vec![1; chunks * CHUNK / 8], sums: vec![0.0; chunks] }
    }

    /// Bytes that a pass reads.
    pub fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    /// Reads everything once on the threads of `pool` and returns how long that took.
    pub fn pass(&mut self, pool: &Pool) -> Duration {
        let start = Instant::now();
        let (words, chunks) = (&self.words, self.sums.len());
        pool.for_columns(MatMut::new(&mut self.sums, chunks), 1, 0, |range, mut out| {
            for (sum, chunk) in out.row(0).iter_mut().zip(range) {
                *sum = add_up(&words[chunk * CHUNK / 8..][..CHUNK / 8]) as f32;
            }
        });
        let time = start.elapsed();
        // So that nobody leaves the reading out.
        assert!(self.sums.iter().all(|sum| *sum == (CHUNK / 8) as f32), "memory returned other values");
        time
    }
}

fn add_up(words: &[u64]) -> u64 {
    let mut sums = [0u64; LANES];
    for part in words.chunks_exact(LANES) {
        for (sum, word) in sums.iter_mut().zip(part) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_read_on_any_number_of_threads() {
        let mut memory = ReadBandwidth::new(3 * CHUNK + 1);
        assert_eq!(memory.bytes(), 4 * CHUNK);
        for threads in [1, 3] {
            assert!(memory.pass(&Pool::new(threads)) > Duration::ZERO);
        }
    }
}
