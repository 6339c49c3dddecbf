//! A pool of long-lived threads for short parallel sections.
//!
//! One token of a small model has some 150 parallel sections of a few microseconds each. Workers therefore wait
//! for the next section by a short spin, then by yielding, and park only when none comes. Chunks are claimed one
//! by one from a shared counter, and the caller waits for claimed chunks, never for workers: a worker that the
//! system has taken off its core simply claims nothing. One that loses its core in the middle of a chunk does make
//! the caller wait; where that happens, the pool finds out that the caller is faster alone (`governor`).
//!
//! Threads outlive the jobs they borrow, and share buffers by disjoint parts: what the compiler cannot check, this module does.
#![allow(unsafe_code)]

use core::ops::Range;

use sparse_simd::MatMut;

#[cfg(feature = "parallel")]
mod governor;
#[cfg(feature = "parallel")]
mod workers;
#[cfg(feature = "parallel")]
use workers::Workers;

/// Chunks per thread: enough to balance uneven cores, few enough to keep claims cheap.
const CHUNKS_PER_THREAD: usize = 4;

/// Threads that share the work of one computation; the calling thread is one of them. Clones have the same threads.
#[derive(Clone, Debug)]
pub struct Pool {
    #[cfg(feature = "parallel")]
    workers: Option<std::sync::Arc<Workers>>,
}

impl Pool {
    /// A pool of `threads` threads, the caller included. With one thread, or without the `parallel` feature,
    /// everything runs on the calling thread.
    pub fn new(threads: usize) -> Self {
        #[cfg(not(feature = "parallel"))]
        let _ = threads;
        Self {
            #[cfg(feature = "parallel")]
            workers: (threads > 1).then(|| std::sync::Arc::new(Workers::spawn(threads - 1))),
        }
    }

    /// Number of threads, the caller included.
    pub fn threads(&self) -> usize {
        #[cfg(feature = "parallel")]
        if let Some(workers) = &self.workers {
            return workers.count() + 1;
        }
        1
    }

    /// Calls `f(chunk, chunks, worker)` once for every `chunk` in `0..chunks`, on all threads, and returns when all
    /// calls have. `chunks` is at most `most_chunks`, and 1 where one thread does everything. `worker` is below
    /// [`threads`](Self::threads), and no two calls with the same worker overlap. `work` is the number of weight bytes
    /// that the job of a single token reads; a job without it goes to all threads in any case.
    ///
    /// When another thread is using the pool at this moment, everything runs on the calling thread, as worker 0.
    ///
    /// # Panics
    /// If a call of `f` panics.
    fn run(&self, most_chunks: usize, work: Option<usize>, f: &Job<'_>) {
        #[cfg(not(feature = "parallel"))]
        let _ = (most_chunks, work);
        #[cfg(feature = "parallel")]
        if let Some(workers) = &self.workers
            && most_chunks > 1
            && workers.run(most_chunks, work, f)
        {
            return;
        }
        f(0, 1, 0);
    }

    /// Splits the columns of `out` into windows whose widths are multiples of `grain` (but for the last) and
    /// calls `f(columns, window)` for each, on all threads.
    ///
    /// `work` is the number of weight bytes that the job reads. From jobs with one row the pool finds out by it whether
    /// its threads have cores of their own, and leaves such jobs to the caller when they have not.
    pub fn for_columns(
        &self,
        out: MatMut<'_>,
        grain: usize,
        work: usize,
        f: impl Fn(Range<usize>, MatMut<'_>) + Sync,
    ) {
        let cols = out.cols();
        let grains = cols.div_ceil(grain);
        let work = (out.tokens() == 1).then_some(work);
        let out = Shared(&raw const out);
        self.run(grains.min(self.threads() * CHUNKS_PER_THREAD), work, &|chunk, chunks, _| {
            let start = (chunk * grains / chunks) * grain;
            let end = (((chunk + 1) * grains / chunks) * grain).min(cols);
            // SAFETY: chunks are distinct, so their column ranges are disjoint, and `out` is not used directly
            // while `run` lasts.
            let window = unsafe { (*out.get()).window_shared(0..(*out.get()).tokens(), start..end) };
            f(start..end, window);
        });
    }

    /// Splits `out` into tiles of `tokens` rows and `columns` columns (the last of each may be smaller) and calls
    /// `f(scratch, rows, columns, tile)` for each, on all threads. A call has one element of `scratch`, which no
    /// other call uses at the same time.
    ///
    /// # Panics
    /// If a tile is empty, or `scratch` has fewer elements than the pool has threads.
    pub fn for_tiles<S: Send>(
        &self,
        scratch: &mut [S],
        out: MatMut<'_>,
        (tokens, columns): (usize, usize),
        f: impl Fn(&mut S, Range<usize>, Range<usize>, MatMut<'_>) + Sync,
    ) {
        assert!(scratch.len() >= self.threads(), "scratch for {} threads", scratch.len());
        let (all_tokens, all_columns) = (out.tokens(), out.cols());
        let down = all_tokens.div_ceil(tokens);
        let scratch = Shared(scratch.as_mut_ptr());
        let out = Shared(&raw const out);
        let tiles = down * all_columns.div_ceil(columns);
        self.run(tiles, (all_tokens == 1).then_some(0), &|chunk, chunks, worker| {
            // Tiles have their size whatever the number of chunks.
            for tile in chunk * tiles / chunks..(chunk + 1) * tiles / chunks {
                let (token, column) = (tile % down * tokens, tile / down * columns);
                let rows = token..all_tokens.min(token + tokens);
                let columns = column..all_columns.min(column + columns);
                // SAFETY: chunks and tiles are distinct, so the windows are disjoint, and `out` is not used directly
                // while `run` lasts; `worker` is below the length of `scratch` and no two calls share it.
                let (scratch, tile) = unsafe {
                    let tile = (*out.get()).window_shared(rows.clone(), columns.clone());
                    (&mut *scratch.get().add(worker), tile)
                };
                f(scratch, rows, columns, tile);
            }
        });
    }

    /// Calls `f(scratch, item)` for each of `items`, on all threads, whichever is free next taking the next one. A call has
    /// one element of `scratch`, which no other call uses at the same time.
    ///
    /// # Panics
    /// If `scratch` has fewer elements than the pool has threads.
    pub fn for_each<S: Send, T: Send>(
        &self,
        scratch: &mut [S],
        items: &mut [T],
        f: impl Fn(&mut S, &mut T) + Sync,
    ) {
        assert!(scratch.len() >= self.threads(), "scratch for {} threads", scratch.len());
        let len = items.len();
        let (scratch, items) = (Shared(scratch.as_mut_ptr()), Shared(items.as_mut_ptr()));
        self.run(len, None, &|chunk, chunks, worker| {
            for i in chunk * len / chunks..(chunk + 1) * len / chunks {
                // SAFETY: chunks are distinct, so no two calls have the same item; `worker` is below the length of
                // `scratch` and no two calls share it.
                let (scratch, item) = unsafe { (&mut *scratch.get().add(worker), &mut *items.get().add(i)) };
                f(scratch, item);
            }
        });
    }
}

/// Most threads a pool has.
#[cfg(feature = "parallel")]
const MAX_THREADS: usize = 256;

/// What threads share: called with a chunk, the number of chunks, and the worker that calls.
type Job<'a> = dyn Fn(usize, usize, usize) + Sync + 'a;

/// A pointer that may cross threads; who dereferences it says why that is sound.
struct Shared<P>(P);
// SAFETY: only the pointer crosses; see the dereferences.
unsafe impl<P> Sync for Shared<P> {}
impl<P: Copy> Shared<P> {
    // A method, so that closures capture the wrapper and not the pointer in it.
    fn get(&self) -> P {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{vec, vec::Vec};

    #[test]
    fn every_column_is_visited_once() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            for (tokens, cols, grain) in [(1, 1, 32), (1, 100, 32), (3, 64, 64), (2, 1000, 7), (1, 33, 1)] {
                let mut out = vec![0.0; tokens * cols];
                for _ in 0..50 {
                    pool.for_columns(MatMut::new(&mut out, cols), grain, 0, |range, mut window| {
                        for t in 0..tokens {
                            for (v, c) in window.row(t).iter_mut().zip(range.clone()) {
                                *v += (c + t) as f32;
                            }
                        }
                    });
                }
                let expected: Vec<f32> =
                    (0..tokens).flat_map(|t| (0..cols).map(move |c| 50.0 * (c + t) as f32)).collect();
                assert_eq!(out, expected, "{threads} threads, {tokens} x {cols}, grain {grain}");
            }
        }
    }

    #[test]
    fn every_tile_is_visited_once() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            for (tokens, cols, tile) in [(0, 3, (1, 1)), (1, 1, (5, 5)), (10, 12, (3, 5)), (16, 12, (4, 4))] {
                let mut out = vec![0.0; tokens * cols];
                let f = |(): &mut (), rows: Range<usize>, columns: Range<usize>, mut tile: MatMut<'_>| {
                    assert_eq!((tile.tokens(), tile.cols()), (rows.len(), columns.len()));
                    for (t, row) in rows.enumerate() {
                        for (v, c) in tile.row(t).iter_mut().zip(columns.clone()) {
                            *v += (row * cols + c + 1) as f32;
                        }
                    }
                };
                pool.for_tiles(&mut [(); 4], MatMut::new(&mut out, cols), tile, f);
                let expected: Vec<f32> = (1..=tokens * cols).map(|i| i as f32).collect();
                assert_eq!(out, expected, "{threads} threads, {tokens} x {cols}, {tile:?}");
            }
        }
    }

    #[test]
    fn every_item_is_visited_once() {
        for threads in [1, 2, 4] {
            let pool = Pool::new(threads);
            for len in [0, 1, 3, 100] {
                let (mut items, mut counts) = (vec![0usize; len], [0; 4]);
                pool.for_each(&mut counts, &mut items, |count, item| {
                    *item += 1;
                    *count += 1;
                });
                assert_eq!(items, vec![1; len], "{threads} threads");
                assert_eq!(counts.iter().sum::<usize>(), len, "{threads} threads");
            }
        }
    }

    #[cfg(feature = "parallel")]
    #[test]
    fn scratch_is_never_shared() {
        let pool = Pool::new(4);
        let mut scratch = vec![0usize; 4];
        let mut out = vec![0.0; 4096];
        for _ in 0..200 {
            pool.for_tiles(&mut scratch, MatMut::new(&mut out, 64), (7, 5), |count, rows, columns, _| {
                let before = *count;
                std::hint::spin_loop();
                *count = before + rows.len() * columns.len();
            });
        }
        assert_eq!(scratch.iter().sum::<usize>(), 200 * 4096);
    }

    #[cfg(feature = "parallel")]
    #[test]
    fn a_panic_in_a_chunk_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(3);
        let mut out = vec![0.0; 1000];
        for bad in [0, 500, 999] {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.for_columns(MatMut::new(&mut out, 1000), 10, 0, |range, _| {
                    assert!(!range.contains(&bad), "chunk of {bad}");
                });
            }));
            assert!(result.is_err());
        }
        pool.for_columns(MatMut::new(&mut out, 1000), 10, 0, |_, mut w| w.row(0).fill(2.0));
        assert!(out.iter().all(|v| *v == 2.0));
    }

    #[cfg(feature = "parallel")]
    #[test]
    fn a_pool_in_use_runs_a_second_caller_on_its_own_thread() {
        let pool = Pool::new(2);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let mut out = vec![0.0; 512];
                    for _ in 0..200 {
                        pool.for_columns(MatMut::new(&mut out, 512), 8, 0, |_, mut w| {
                            w.row(0).iter_mut().for_each(|v| *v += 1.0);
                        });
                    }
                    assert!(out.iter().all(|v| *v == 200.0));
                });
            }
        });
    }
}
