//! Weights that are more than memory holds: a cache of units over something slower, usually a file.
//!
//! A unit is what is read at once: an expert, or the weights of some neurons. *Hot* units are pinned, *warm* ones are in
//! the cache, *cold* ones in the file.

mod policy;
mod slab;
#[cfg(test)]
mod tests;

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
pub use slab::{Place, Slab};

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

    /// Units that are read together at most: some where one is small.
    fn run(&self) -> usize {
        1
    }

    /// Reads `units`, [`run`](Self::run) of them at most, in ascending order: a result for each.
    fn load_run(&self, units: &[u32]) -> Vec<Result<T, StoreError>> {
        units.iter().map(|unit| self.load(*unit)).collect()
    }
}

/// Units that a caller of [`NeuronStore::get_all`] holds: they stay in memory until it is dropped or filled anew.
#[derive(Debug)]
pub struct Held<T> {
    units: Vec<Option<Arc<T>>>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { units: Vec::new() }
    }
}

impl<T> Held<T> {
    /// The units, in the order that they were asked for.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.units.iter().flatten().map(|unit| &**unit)
    }
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

impl core::ops::AddAssign for StoreStatistics {
    fn add_assign(&mut self, o: Self) {
        self.hits += o.hits;
        self.misses += o.misses;
        self.prefetched += o.prefetched;
        self.prefetched_hits += o.prefetched_hits;
        self.read_bytes += o.read_bytes;
        self.stalled += o.stalled;
        self.resident_bytes += o.resident_bytes;
        self.budget_bytes += o.budget_bytes;
    }
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
const READERS: usize = 3;
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
    /// Units that somebody waits for.
    wanted: VecDeque<u32>,
    /// Units to be read ahead, and whether that is a guess.
    queue: VecDeque<(u32, bool)>,
    /// Units that will be asked for next, and those that may be after that.
    expected: Vec<u32>,
    /// Units that were read on a guess lately, and those of them that were asked for.
    guesses: (u32, u32),
    /// Calls that asked whether guesses pay.
    asks: u32,
    statistics: StoreStatistics,
    closed: bool,
}

/// What became of units that were to be read.
type Loaded<T> = Vec<Result<Arc<T>, StoreError>>;

struct Unit<T> {
    at: At<T>,
    pinned: bool,
    /// It will be asked for: it leaves if no other can.
    soon: bool,
    /// It was read ahead and not asked for since: whether on a guess.
    ahead: Option<bool>,
}

enum At<T> {
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
        let unit = |_| Unit { at: At::Cold, pinned: false, soon: false, ahead: None };
        let state = State {
            units: (0..units).map(unit).collect(),
            policy,
            wanted: VecDeque::new(),
            queue: VecDeque::new(),
            expected: Vec::new(),
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
        let mut held = Held::default();
        self.get_all([unit].into_iter(), &mut held)?;
        Ok(held.units.remove(0).expect("what was asked for"))
    }

    /// All of `units`, which are read if they are not in memory: by this thread and those of the store together. `held` has
    /// them afterwards, and nothing that it had before.
    ///
    /// # Errors
    /// If one cannot be read; then `held` is empty.
    ///
    /// # Panics
    /// If there is no such unit.
    pub fn get_all(&self, units: impl Iterator<Item = u32>, held: &mut Held<T>) -> Result<(), StoreError> {
        held.units.clear();
        self.shared.get_all(units, held).inspect_err(|_| held.units.clear())
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
        expected.drain(..).for_each(|unit| units[unit as usize].soon = false);
        for (unit, guess) in next.map(|unit| (unit, false)).chain(soon.map(|unit| (unit, true))) {
            let known = &mut units[unit as usize];
            known.soon = true;
            expected.push(unit);
            if matches!(known.at, At::Cold) {
                queue.push_back((unit, guess));
            }
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
        self.pin_all([unit].into_iter())
    }

    /// Reads `units` and keeps them for good.
    ///
    /// # Errors
    /// As [`get_all`](Self::get_all).
    ///
    /// # Panics
    /// As [`get_all`](Self::get_all).
    pub fn pin_all(&self, units: impl Iterator<Item = u32> + Clone) -> Result<(), StoreError> {
        {
            let mut state = self.shared.lock();
            for unit in units.clone() {
                state.units[unit as usize].pinned = true;
                // Only what may leave is ranked.
                state.policy.removed(unit);
            }
        }
        self.get_all(units, &mut Held::default())
    }

    /// Forgets what was counted so far: the units in memory stay.
    pub fn reset_statistics(&self) {
        let mut state = self.shared.lock();
        let StoreStatistics { resident_bytes, budget_bytes, .. } = state.statistics;
        state.statistics = StoreStatistics { resident_bytes, budget_bytes, ..StoreStatistics::default() };
    }

    /// Gives the units another budget; those that do not fit leave.
    pub fn set_budget(&self, bytes: usize) {
        let mut state = self.shared.lock();
        state.statistics.budget_bytes = bytes;
        state.make_room(0, |unit| self.shared.loader.bytes(unit));
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

    fn get_all(&self, units: impl Iterator<Item = u32>, held: &mut Held<T>) -> Result<(), StoreError> {
        let mut state = self.lock();
        // Which are missing, and where they belong.
        let mut missing: Vec<(u32, usize)> = Vec::new();
        for (i, unit) in units.enumerate() {
            let found = state.take(unit);
            if found.is_none() {
                missing.push((unit, i));
            }
            held.units.push(found);
        }
        state.statistics.hits += (held.units.len() - missing.len()) as u64;
        if missing.is_empty() {
            return Ok(());
        }
        state.statistics.misses += missing.len() as u64;
        let start = Instant::now();
        // In the order of the file.
        missing.sort_unstable();
        for (unit, _) in &missing {
            state.units[*unit as usize].soon = true;
        }
        if missing.len() > self.loader.run() {
            state.wanted.extend(missing.iter().map(|(unit, _)| *unit));
            self.asked.notify_all();
            while let Some(run) = state.next_wanted(self.loader.run()) {
                // What could not be read is tried again below.
                (state, _) = self.load_run(state, &run);
            }
        }
        let mut result = Ok(());
        for (unit, i) in missing {
            while matches!(state.units[unit as usize].at, At::Coming) {
                state = self.loaded.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.units[unit as usize].soon = false;
            if result.is_err() {
                continue;
            }
            held.units[i] = state.take(unit);
            if held.units[i].is_none() {
                let (after, mut loaded) = self.load_run(state, &[unit]);
                state = after;
                match loaded.pop().expect("a result per unit") {
                    Ok(loaded) => held.units[i] = Some(loaded),
                    Err(error) => result = Err(error),
                }
            }
        }
        state.statistics.stalled += start.elapsed();
        result
    }

    /// Reads cold units.
    fn load_run<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<T>>,
        run: &[u32],
    ) -> (MutexGuard<'a, State<T>>, Loaded<T>) {
        let bytes = run.iter().map(|unit| self.loader.bytes(*unit)).sum();
        state.make_room(bytes, |unit| self.loader.bytes(unit));
        state.statistics.resident_bytes += bytes;
        for unit in run {
            state.units[*unit as usize].at = At::Coming;
        }
        drop(state);
        // Others wait for the units: a loader that panics is an error to them, too.
        let loaded = catch_unwind(AssertUnwindSafe(|| self.loader.load_run(run)));
        let loaded = loaded.unwrap_or_else(|_| run.iter().map(|unit| Err(panicked(*unit))).collect());
        let mut state = self.lock();
        let settle = |(unit, loaded): (&u32, Result<T, StoreError>)| {
            let State { units, policy, statistics, .. } = &mut *state;
            let (bytes, known) = (self.loader.bytes(*unit), &mut units[*unit as usize]);
            match loaded {
                Ok(loaded) => {
                    let loaded = Arc::new(loaded);
                    known.at = At::Warm(Arc::clone(&loaded));
                    statistics.read_bytes += bytes as u64;
                    if !known.pinned {
                        policy.used(*unit);
                    }
                    Ok(loaded)
                }
                Err(error) => {
                    (known.at, known.ahead) = (At::Cold, None);
                    statistics.resident_bytes -= bytes;
                    Err(error)
                }
            }
        };
        let loaded = run.iter().zip(loaded).map(settle).collect();
        // While they came, others could not go.
        state.make_room(0, |unit| self.loader.bytes(unit));
        self.loaded.notify_all();
        (state, loaded)
    }

    /// Reads what is wanted, and then what is expected, until the store is closed.
    fn read_ahead(&self) {
        let mut state = self.lock();
        while !state.closed {
            if let Some(run) = state.next_wanted(self.loader.run()) {
                (state, _) = self.load_run(state, &run);
            } else if let Some((run, guess)) = state.next_expected(self.loader.run()) {
                let bytes = run.iter().map(|unit| self.loader.bytes(*unit)).sum::<usize>();
                state.make_room(bytes, |unit| self.loader.bytes(unit));
                if state.statistics.resident_bytes + bytes > state.statistics.budget_bytes {
                    // Whoever asks for the units reads them, when others may go.
                    run.iter().for_each(|unit| state.units[*unit as usize].ahead = None);
                    continue;
                }
                let results;
                (state, results) = self.load_run(state, &run);
                // Of an error, whoever asks for the unit learns, who reads it again.
                let read = results.iter().filter(|result| result.is_ok()).count();
                state.statistics.prefetched += read as u64;
                state.guesses.0 += if guess { read as u32 } else { 0 };
            } else {
                state = self.asked.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

fn panicked(unit: u32) -> StoreError {
    StoreError { what: alloc::format!("unit {unit}"), source: io::Error::other("its loader panicked") }
}

impl<T> State<T> {
    /// A unit in memory, now used.
    fn take(&mut self, unit: u32) -> Option<Arc<T>> {
        let known = &mut self.units[unit as usize];
        let At::Warm(found) = &known.at else { return None };
        let found = Arc::clone(found);
        match known.ahead.take() {
            None if known.pinned => {}
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

    /// The cold ones of the next units that somebody waits for, `most` at most.
    fn next_wanted(&mut self, most: usize) -> Option<Vec<u32>> {
        let mut run = Vec::new();
        while run.len() < most
            && let Some(unit) = self.wanted.pop_front()
        {
            if matches!(self.units[unit as usize].at, At::Cold) {
                run.push(unit);
            }
        }
        // Two that wait for the same units.
        run.sort_unstable();
        run.dedup();
        (!run.is_empty()).then_some(run)
    }

    /// The cold ones of the next units to be read ahead, `most` at most, and whether they are guesses.
    fn next_expected(&mut self, most: usize) -> Option<(Vec<u32>, bool)> {
        let (mut run, kind) = (Vec::new(), self.queue.front()?.1);
        while run.len() < most
            && let Some((unit, guess)) = self.queue.front().copied().filter(|(_, guess)| *guess == kind)
        {
            self.queue.pop_front();
            let known = &mut self.units[unit as usize];
            if matches!(known.at, At::Cold) {
                known.ahead = Some(guess);
                run.push(unit);
            }
        }
        run.sort_unstable();
        run.dedup();
        match run.is_empty() {
            true => self.next_expected(most),
            false => Some((run, kind)),
        }
    }

    /// Gives units up until `bytes` more fit: those expected soon only if there are no others, those in use never.
    fn make_room(&mut self, bytes: usize, bytes_of: impl Fn(u32) -> usize) {
        while self.statistics.resident_bytes + bytes > self.statistics.budget_bytes {
            let free = |other: u32| {
                let Unit { at, pinned, .. } = &self.units[other as usize];
                !pinned && matches!(at, At::Warm(held) if Arc::strong_count(held) == 1)
            };
            let victim = self.policy.victim(&|unit| !self.units[unit as usize].soon && free(unit));
            let Some(victim) = victim.or_else(|| self.policy.victim(&free)) else { return };
            self.units[victim as usize].at = At::Cold;
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
