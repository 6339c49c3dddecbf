//! The machine's read bandwidth: the roofline of decode, which reads every weight once per token.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use sparse_simd::MatMut;
use web_time::Instant;

use crate::Pool;
use crate::memory::{self, Memory};

/// Bytes that a thread claims at a time.
const CHUNK: usize = 1 << 20;
/// Sums that a chunk is added up in: enough to keep loads, not additions, the limit.
const LANES: usize = 64;

/// Reads memory in order, to learn how fast that goes.
#[derive(Debug)]
pub struct ReadBandwidth {
    memory: Memory,
    sums: Vec<f32>,
}

impl ReadBandwidth {
    /// Prepares to read `bytes` (rounded up to whole MiB) per pass. Several times the size of the caches, or it is
    /// these that are measured. In huge pages where the system has them, so that looking up addresses does not count.
    ///
    /// # Panics
    /// If the system does not give so much memory.
    pub fn new(bytes: usize) -> Self {
        let chunks = bytes.div_ceil(CHUNK).max(1);
        let mut memory = memory::huge(chunks * CHUNK).expect("memory to read");
        // Not zero, or every page would be the same one.
        memory.fill(1);
        Self { memory, sums: vec![0.0; chunks] }
    }

    /// Bytes that a pass reads.
    pub fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// Reads everything once on the threads of `pool` and returns how long that took.
    pub fn pass(&mut self, pool: &Pool) -> Duration {
        let start = Instant::now();
        let (memory, chunks) = (&self.memory[..], self.sums.len());
        pool.for_columns(MatMut::new(&mut self.sums, chunks), 1, memory.len(), |range, mut out| {
            for (sum, chunk) in out.row(0).iter_mut().zip(range) {
                *sum = add_up(&memory[chunk * CHUNK..][..CHUNK]) as f32;
            }
        });
        let time = start.elapsed();
        // So that nobody leaves the reading out.
        let expected = (CHUNK as u64 / 8).wrapping_mul(u64::from_ne_bytes([1; 8])) as f32;
        assert!(self.sums.iter().all(|sum| *sum == expected), "memory returned other values");
        time
    }
}

fn add_up(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; LANES];
    for part in bytes.as_chunks::<{ 8 * LANES }>().0 {
        for (sum, word) in sums.iter_mut().zip(part.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.iter().fold(0, |all, sum| all.wrapping_add(*sum))
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
