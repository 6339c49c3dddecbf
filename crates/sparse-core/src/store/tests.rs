//! Tests of the store. Those that need threads, sleep or catch panics are not built for WebAssembly.

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
            true => Err(StoreError { what: std::format!("unit {unit}"), source: io::Error::other("broken") }),
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

#[cfg(not(target_family = "wasm"))]
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

#[cfg(not(target_family = "wasm"))]
#[test]
fn an_error_is_that_of_the_call_and_nothing_stays_of_it() {
    let (store, broken, _) = store(30);
    broken.store(5, Ordering::Relaxed);
    store.expect([5].into_iter(), [].into_iter());
    for _ in 0..2 {
        assert_eq!(store.get(5).unwrap_err().to_string(), "cannot read unit 5: broken");
    }
    // A thread of the store may be trying it at this moment.
    let gone = |_| {
        std::thread::sleep(Duration::from_millis(1));
        store.statistics().resident_bytes == 0
    };
    assert!((0..5000).any(gone));
    broken.store(u32::MAX, Ordering::Relaxed);
    assert_eq!(*store.get(5).unwrap(), 5);
}

#[cfg(not(target_family = "wasm"))]
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
#[cfg(not(target_family = "wasm"))]
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

#[cfg(not(target_family = "wasm"))]
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
/// Units that are read three at a time, some of which cannot be.
struct Runs(Numbers);

impl UnitLoader<u32> for Runs {
    fn bytes(&self, unit: u32) -> usize {
        self.0.bytes(unit)
    }

    fn load(&self, unit: u32) -> Result<u32, StoreError> {
        self.0.load(unit)
    }

    fn run(&self) -> usize {
        3
    }
}

fn runs(budget: usize) -> (NeuronStore<u32>, Arc<AtomicU32>) {
    let loader = Runs(Numbers { broken: Arc::new(AtomicU32::new(u32::MAX)), ..Numbers::default() });
    let broken = Arc::clone(&loader.0.broken);
    (NeuronStore::new(100, budget, Box::new(Lfu::new()), Box::new(loader)), broken)
}

#[cfg(not(target_family = "wasm"))]
#[test]
fn many_units_come_in_the_order_that_they_were_asked_for() {
    let (store, broken) = runs(200);
    let mut held = Held::default();
    let mut get = |units: &[u32]| {
        let found = store.get_all(units.iter().copied(), &mut held);
        found.map(|()| held.iter().copied().collect::<Vec<_>>())
    };
    let units: Vec<u32> = (0..20).map(|i| (i * 7 + 3) % 20).collect();
    assert_eq!(get(&units).unwrap(), units);
    let found = store.statistics();
    assert_eq!((found.hits, found.misses, found.read_bytes, found.resident_bytes), (0, 20, 200, 200));
    // More than the budget has room for stay while they are held.
    let more: Vec<u32> = (10..60).collect();
    assert_eq!(get(&more).unwrap(), more);
    assert_eq!(store.statistics().hits, 10);
    assert_eq!(get(&[5, 70]).unwrap(), [5, 70]);
    assert!(store.statistics().resident_bytes <= 200);
    broken.store(80, Ordering::Relaxed);
    assert_eq!(get(&[77, 78, 79, 80, 81]).unwrap_err().to_string(), "cannot read unit 80: broken");
    assert!(get(&[77, 81, 99]).unwrap_err().to_string().contains("its loader panicked"));
    assert_eq!(get(&[81, 77]).unwrap(), [81, 77]);
}

#[cfg(not(target_family = "wasm"))]
#[test]
fn threads_that_ask_for_the_same_units_all_get_them() {
    let (store, _) = runs(150);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                let mut held = Held::default();
                for round in 0..50 {
                    let units: Vec<u32> = (0..10).map(|i| (i * 3 + round + thread) % 40).collect();
                    store.get_all(units.iter().copied(), &mut held).unwrap();
                    assert!(held.iter().eq(&units));
                }
            });
        }
    });
    assert!(store.statistics().resident_bytes <= 150);
}

#[test]
fn pinned_units_stay_whatever_comes() {
    let (store, _) = runs(50);
    store.pin_all([3, 1, 2].into_iter()).unwrap();
    store.reset_statistics();
    (10..40).for_each(|unit| drop(store.get(unit).unwrap()));
    store.get_all(1..4, &mut Held::default()).unwrap();
    let found = store.statistics();
    assert_eq!((found.hits, found.misses, found.resident_bytes), (3, 30, 50));
}
