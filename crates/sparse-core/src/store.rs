//! Weights that are more than memory holds: a cache of units over something slower, usually a file.
//!
//! A unit is what is read at once: an expert, or the weights of some neurons. *Hot* units are pinned, *warm* ones are in
//! the cache, *cold* ones in the file.

mod policy;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use web_time::Instant;

pub use policy::{CachePolicy, Lfu, Lru};

/// Weights that could not be read.
#[derive(Debug, Error)]
#[error("cannot read {what}: {source}")]
pub struct StoreError {
    /// Which weights, of which file.
    pub what: String,
    /// Why.
    pub source: io::Error,
}

/// Brings units into memory.
pub trait UnitLoader<T>: Send + Sync {
    /// Bytes of `unit` in memory.
    fn bytes(&self, unit: u32) -> usize;

    /// Reads `unit`.
    ///
    /// # Errors
    /// If it cannot be read, or is not what it was when the store was made.
    fn load(&self, unit: u32) -> Result<T, StoreError>;
}

/// What a store has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStatistics {
    /// Units that were in memory when they were asked for.
    pub hits: u64,
    /// Units that were not, or not yet.
    pub misses: u64,
    /// Units that were read before they were asked for.
    pub prefetched: u64,
    /// Those of them that were asked for then.
    pub prefetched_hits: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Time that callers waited for units.
    pub stalled: Duration,
    /// Bytes of the units in memory.
    pub resident_bytes: usize,
    /// Bytes that units may take.
    pub budget_bytes: usize,
}

impl StoreStatistics {
    /// Share of the units asked for that were in memory; 1 before the first.
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 1.0,
            all => self.hits as f64 / all as f64,
        }
    }
}

/// Units under a byte budget.
///
/// Any thread may ask for units. Threads of the store read what is [expected](Self::expect).
pub struct NeuronStore<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    readers: Vec<JoinHandle<()>>,
}

/// Threads that read ahead: disks are faster with some requests at a time.
const READERS: usize = 2;
/// Guesses that the share of right ones is counted over.
const GUESSES: u32 = 256;
/// Guesses that are tried in any case.
const FIRST_GUESSES: u32 = 16;
/// Layers after which one is guessed although guesses are mostly wrong.
const GUESS_AGAIN: u32 = 64;

struct Shared<T> {
    loader: Box<dyn UnitLoader<T>>,
    state: Mutex<State<T>>,
    /// A unit came in, or could not be read.
    loaded: Condvar,
    /// There is something to read ahead, or nothing any more.
    asked: Condvar,
}

struct State<T> {
    units: Vec<Unit<T>>,
    policy: Box<dyn CachePolicy>,
    /// Units to be read ahead, and whether that is a guess.
    queue: VecDeque<(u32, bool)>,
    /// Units that will be asked for next, and those that may be after that.
    expected: [Vec<u32>; 2],
    /// Units that were read on a guess lately, and those of them that were asked for.
    guesses: (u32, u32),
    /// Calls that asked whether guesses pay.
    asks: u32,
    statistics: StoreStatistics,
    closed: bool,
}

struct Unit<T> {
    place: Place<T>,
    pinned: bool,
    /// It was read ahead and not asked for since: whether on a guess.
    ahead: Option<bool>,
}

enum Place<T> {
    /// In the file.
    Cold,
    /// On its way; its bytes count already.
    Coming,
    /// In memory.
    Warm(Arc<T>),
}

impl<T: Send + Sync + 'static> NeuronStore<T> {
    /// A store of `units` units, of which as many are kept in memory as have `budget` bytes. A unit that is asked for is
    /// read even if it does not fit.
    pub fn new(
        units: usize,
        budget: usize,
        policy: Box<dyn CachePolicy>,
        loader: Box<dyn UnitLoader<T>>,
    ) -> Self {
        let unit = |_| Unit { place: Place::Cold, pinned: false, ahead: None };
        let state = State {
            units: (0..units).map(unit).collect(),
            policy,
            queue: VecDeque::new(),
            expected: [Vec::new(), Vec::new()],
            guesses: (0, 0),
            asks: 0,
            statistics: StoreStatistics { budget_bytes: budget, ..StoreStatistics::default() },
            closed: false,
        };
        let shared = Arc::new(Shared {
            loader,
            state: Mutex::new(state),
            loaded: Condvar::new(),
            asked: Condvar::new(),
        });
        // Without threads nothing is read ahead.
        let reader = |_| {
            let ahead = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("weights".into());
            thread.spawn(move || ahead.read_ahead()).ok()
        };
        let readers = (0..READERS).filter_map(reader).collect();
        Self { shared, readers }
    }

    /// `unit`, read if it is not in memory.
    ///
    /// # Errors
    /// If it cannot be read.
    ///
    /// # Panics
    /// If there is no such unit.
    pub fn get(&self, unit: u32) -> Result<Arc<T>, StoreError> {
        self.shared.get(unit)
    }

    /// States that the units `next` will be asked for now, in that order, and those in `soon` perhaps after them: the store
    /// reads them ahead, and keeps them if it can. What was expected before is not any more.
    ///
    /// # Panics
    /// If there is no such unit.
    pub fn expect(&self, next: impl Iterator<Item = u32>, soon: impl Iterator<Item = u32>) {
        let mut state = self.shared.lock();
        let State { expected, queue, units, .. } = &mut *state;
        queue.clear();
        let [first, second] = expected;
        first.clear();
        first.extend(next);
        second.clear();
        second.extend(soon);
        for (list, guess) in [(first, false), (second, true)] {
            let cold = |unit: &&u32| matches!(units[**unit as usize].place, Place::Cold);
            queue.extend(list.iter().filter(cold).map(|unit| (*unit, guess)));
        }
        if !queue.is_empty() {
            self.shared.asked.notify_all();
        }
    }

    /// Whether units that may be asked for are worth guessing: most guesses of late were right.
    pub fn guesses_pay(&self) -> bool {
        let mut state = self.shared.lock();
        state.asks = (state.asks + 1) % GUESS_AGAIN;
        let (all, right) = state.guesses;
        all < FIRST_GUESSES || right >= all / 4 * 3 || state.asks == 0
    }

    /// Reads `unit` and keeps it for good.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    ///
    /// # Panics
    /// As [`get`](Self::get).
    pub fn pin(&self, unit: u32) -> Result<(), StoreError> {
        self.shared.lock().units[unit as usize].pinned = true;
        self.get(unit).map(drop)
    }

    /// Gives the units another budget; those that do not fit leave.
    pub fn set_budget(&self, bytes: usize) {
        let mut state = self.shared.lock();
        state.statistics.budget_bytes = bytes;
        state.make_room(0, None, |unit| self.shared.loader.bytes(unit));
    }

    /// What the store has done so far.
    pub fn statistics(&self) -> StoreStatistics {
        self.shared.lock().statistics
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // A thread that panicked has changed nothing halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, unit: u32) -> Result<Arc<T>, StoreError> {
        let mut state = self.lock();
        if let Some(found) = state.take(unit) {
            state.statistics.hits += 1;
            return Ok(found);
        }
        let start = Instant::now();
        state.statistics.misses += 1;
        while matches!(state.units[unit as usize].place, Place::Coming) {
            state = self.loaded.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let found = match state.take(unit) {
            Some(found) => Ok(found),
            None => {
                let (after, result) = self.load(state, unit);
                state = after;
                result
            }
        };
        state.statistics.stalled += start.elapsed();
        found
    }

    /// Reads a cold unit.
    fn load<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
        unit: u32,
    ) -> (MutexGuard<'a, State<T>>, Result<Arc<T>, StoreError>) {
        let bytes = self.loader.bytes(unit);
        state.make_room(bytes, Some(unit), |unit| self.loader.bytes(unit));
        state.statistics.resident_bytes += bytes;
        state.units[unit as usize].place = Place::Coming;
        drop(state);
        // Others wait for the unit: a loader that panics is an error to them, too.
        let loaded = catch_unwind(AssertUnwindSafe(|| self.loader.load(unit)));
        let loaded = loaded.unwrap_or_else(|_| {
            let source = io::Error::other("its loader panicked");
            Err(StoreError { what: alloc::format!("unit {unit}"), source })
        });
        let loaded = loaded.map(Arc::new);
        let mut state = self.lock();
        match &loaded {
            Ok(loaded) => {
                state.statistics.read_bytes += bytes as u64;
                state.units[unit as usize].place = Place::Warm(Arc::clone(loaded));
                state.policy.used(unit);
            }
            Err(_) => {
                state.units[unit as usize].ahead = None;
                state.statistics.resident_bytes -= bytes;
                state.units[unit as usize].place = Place::Cold;
            }
        }
        self.loaded.notify_all();
        (state, loaded)
    }

    /// Reads what is expected until the store is closed.
    fn read_ahead(&self) {
        let mut state = self.lock();
        while !state.closed {
            match state.queue.pop_front() {
                Some((unit, guess)) if matches!(state.units[unit as usize].place, Place::Cold) => {
                    state.units[unit as usize].ahead = Some(guess);
                    let result;
                    (state, result) = self.load(state, unit);
                    // Of an error, whoever asks for it learns, who reads it again.
                    if result.is_ok() {
                        state.statistics.prefetched += 1;
                        state.guesses.0 += u32::from(guess);
                    }
                }
                Some(_) => {}
                None => state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl<T> State<T> {
    /// A unit in memory, now used.
    fn take(&mut self, unit: u32) -> Option<Arc<T>> {
        let Unit { place: Place::Warm(found), ahead, .. } = &mut self.units[unit as usize] else {
            return None;
        };
        let found = Arc::clone(found);
        match ahead.take() {
            None => self.policy.used(unit),
            // It was counted when it came in.
            Some(guess) => {
                self.statistics.prefetched_hits += 1;
                self.guesses.1 += u32::from(guess);
                if self.guesses.0 >= GUESSES {
                    self.guesses = (self.guesses.0 / 2, self.guesses.1 / 2);
                }
            }
        }
        Some(found)
    }

    /// Gives units up until `bytes` more fit: those expected soon only if there are no others, those in use never.
    fn make_room(&mut self, bytes: usize, unit: Option<u32>, bytes_of: impl Fn(u32) -> usize) {
        while self.statistics.resident_bytes + bytes > self.statistics.budget_bytes {
            let free = |other: u32| {
                let Unit { place, pinned, .. } = &self.units[other as usize];
                Some(other) != unit
                    && !pinned
                    && matches!(place, Place::Warm(held) if Arc::strong_count(held) == 1)
            };
            let soon = |unit: u32| self.expected.iter().any(|list| list.contains(&unit));
            let victim = self.policy.victim(&|unit| free(unit) && !soon(unit));
            let Some(victim) = victim.or_else(|| self.policy.victim(&free)) else { return };
            self.units[victim as usize].place = Place::Cold;
            self.units[victim as usize].ahead = None;
            self.policy.removed(victim);
            self.statistics.resident_bytes -= bytes_of(victim);
        }
    }
}

impl<T: Send + Sync + 'static> Drop for NeuronStore<T> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.asked.notify_all();
        for reader in self.readers.drain(..) {
            // A panic of the reader was reported when it happened.
            let _ = reader.join();
        }
    }
}

impl<T: Send + Sync + 'static> fmt::Debug for NeuronStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NeuronStore").field("statistics", &self.statistics()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// Units of 10 bytes whose value is their number, and how many were read. `broken` cannot be; 99 is a
    /// fault of the loader.
    #[derive(Default)]
    struct Numbers {
        broken: Arc<AtomicU32>,
        reads: Arc<AtomicU32>,
    }

    impl UnitLoader<u32> for Numbers {
        fn bytes(&self, _: u32) -> usize {
            10
        }

        fn load(&self, unit: u32) -> Result<u32, StoreError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            assert_ne!(unit, 99, "meant");
            match self.broken.load(Ordering::Relaxed) == unit {
                true => {
                    Err(StoreError { what: std::format!("unit {unit}"), source: io::Error::other("broken") })
                }
                false => Ok(unit),
            }
        }
    }

    fn store(budget: usize) -> (NeuronStore<u32>, Arc<AtomicU32>, Arc<AtomicU32>) {
        let loader = Numbers { broken: Arc::new(AtomicU32::new(u32::MAX)), ..Numbers::default() };
        let (broken, reads) = (Arc::clone(&loader.broken), Arc::clone(&loader.reads));
        (NeuronStore::new(100, budget, Box::new(Lru::new()), Box::new(loader)), broken, reads)
    }

    #[test]
    fn what_was_used_lately_is_in_memory() {
        let (store, _, reads) = store(39);
        for unit in [1, 2, 3, 1, 4, 1, 2] {
            assert_eq!(*store.get(unit).unwrap(), unit);
            assert!(store.statistics().resident_bytes <= 39);
        }
        let found = store.statistics();
        assert_eq!((found.hits, found.misses, found.read_bytes), (2, 5, 50));
        assert_eq!((reads.load(Ordering::Relaxed), found.resident_bytes), (5, 30));
        store.set_budget(10);
        assert_eq!(store.statistics().resident_bytes, 10);
    }

    #[test]
    fn a_loader_that_panics_leaves_nobody_waiting() {
        let (store, _, _) = store(30);
        for _ in 0..2 {
            assert_eq!(store.get(99).unwrap_err().to_string(), "cannot read unit 99: its loader panicked");
        }
        assert_eq!(*store.get(5).unwrap(), 5);
        assert_eq!(store.statistics().resident_bytes, 10);
    }

    #[test]
    fn what_is_held_or_pinned_stays() {
        let (store, _, _) = store(30);
        store.pin(7).unwrap();
        let held = store.get(8).unwrap();
        for unit in 20..40 {
            store.get(unit).unwrap();
        }
        let before = store.statistics().hits;
        assert_eq!((*store.get(7).unwrap(), *store.get(8).unwrap(), *held), (7, 8, 8));
        assert_eq!(store.statistics().hits, before + 2);
    }

    #[test]
    fn an_error_is_that_of_the_call_and_nothing_stays_of_it() {
        let (store, broken, _) = store(30);
        broken.store(5, Ordering::Relaxed);
        store.expect([5].into_iter(), [].into_iter());
        for _ in 0..2 {
            assert_eq!(store.get(5).unwrap_err().to_string(), "cannot read unit 5: broken");
        }
        assert_eq!(store.statistics().resident_bytes, 0);
        broken.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(*store.get(5).unwrap(), 5);
    }

    #[test]
    fn what_is_expected_is_read_ahead() {
        let (store, _, reads) = store(100);
        store.expect([1, 2, 3].into_iter(), [4, 5].into_iter());
        while store.statistics().prefetched < 5 {
            std::thread::yield_now();
        }
        for unit in 1..5 {
            store.get(unit).unwrap();
        }
        let found = store.statistics();
        assert_eq!((found.hits, found.misses, found.prefetched_hits), (4, 0, 4));
        assert_eq!(reads.load(Ordering::Relaxed), 5);
    }

    /// Guesses that are wrong stop, and are tried again later.
    #[test]
    fn wrong_guesses_stop() {
        let (store, _, _) = store(1000);
        assert!(store.guesses_pay());
        store.expect([].into_iter(), 0..FIRST_GUESSES);
        while store.statistics().prefetched < u64::from(FIRST_GUESSES) {
            std::thread::yield_now();
        }
        let tries = (0..2 * GUESS_AGAIN).filter(|_| store.guesses_pay()).count();
        assert!((1..=2).contains(&tries), "{tries}");
        (0..FIRST_GUESSES).for_each(|unit| drop(store.get(unit).unwrap()));
        assert!((0..GUESS_AGAIN - 1).all(|_| store.guesses_pay()));
    }

    #[test]
    fn threads_share_what_one_reads() {
        let (store, _, reads) = store(1000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|unit| assert_eq!(*store.get(unit).unwrap(), unit)));
            }
        });
        assert_eq!(reads.load(Ordering::Relaxed), 50);
    }
}
