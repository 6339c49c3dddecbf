//! The threads behind [`Pool`](super::Pool).

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::thread::{self, JoinHandle, Thread};

use web_time::Instant;

use super::Job;
use super::governor::Governor;

/// Spins before a waiting worker starts to yield its core: some tens of microseconds.
const SPINS: u32 = 2_000;
/// Yields before it parks.
const YIELDS: u32 = 50;

type JobPointer = *const super::Job<'static>;
type Panic = Box<dyn Any + Send>;

/// The chunk counter: epoch of the job in the high 32 bits, then chunks in all and chunks claimed, 16 bits each.
/// One word, so that a worker that arrives late can never claim a chunk of a job that it did not see.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Ticket(u64);

impl Ticket {
    fn first(epoch: u32, chunks: u16) -> Self {
        Self(u64::from(epoch) << 32 | u64::from(chunks) << 16)
    }
    fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }
    fn chunks(self) -> usize {
        usize::from((self.0 >> 16) as u16)
    }
    fn claimed(self) -> usize {
        usize::from(self.0 as u16)
    }
}

struct Shared {
    ticket: AtomicU64,
    /// Chunks of the current job whose calls have returned.
    done: AtomicUsize,
    /// The current job; written while no chunk is claimable or unfinished, read while holding a claimed chunk.
    job: UnsafeCell<Option<JobPointer>>,
    panic: Mutex<Option<Panic>>,
    asleep: Box<[AtomicBool]>,
    /// Workers whose threads run: what starting a thread allocates and frees is behind them.
    started: AtomicUsize,
    stop: AtomicBool,
}

// SAFETY: `job` is the only field that is not Sync by itself; its doc says when it is read and written, and the
// ticket's release/acquire pair orders the two.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is to a Sync closure that outlives its job.
unsafe impl Send for Shared {}

impl Shared {
    /// Claims a chunk of the current job and runs it. False when all are claimed.
    fn run_one(&self, worker: usize) -> bool {
        let mut seen = self.ticket.load(Ordering::Acquire);
        loop {
            let ticket = Ticket(seen);
            if ticket.claimed() >= ticket.chunks() {
                return false;
            }
            match self.ticket.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.call(ticket, worker);
                    return true;
                }
                Err(now) => seen = now,
            }
        }
    }

    fn call(&self, ticket: Ticket, worker: usize) {
        // SAFETY: this thread holds an unfinished chunk, so `Workers::run` has not returned and the job it
        // published before the ticket is still there.
        let job = unsafe { (*self.job.get()).map(|job| &*job) };
        if let Some(job) = job
            && let Err(panic) =
                catch_unwind(AssertUnwindSafe(|| job(ticket.claimed(), ticket.chunks(), worker)))
            && let Ok(mut slot) = self.panic.lock()
        {
            slot.get_or_insert(panic);
        }
        self.done.fetch_add(1, Ordering::Release);
    }

    fn work(&self, worker: usize) {
        self.started.fetch_add(1, Ordering::Release);
        let mut last = 0;
        while !self.stop.load(Ordering::Relaxed) {
            while self.run_one(worker) {}
            last = self.wait(last, worker);
        }
    }

    /// Waits for a ticket of another epoch than `last` and returns its epoch.
    fn wait(&self, last: u32, worker: usize) -> u32 {
        let epoch = || Ticket(self.ticket.load(Ordering::SeqCst)).epoch();
        for turn in 0..SPINS + YIELDS {
            let now = epoch();
            if now != last {
                return now;
            }
            if turn < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        let asleep = &self.asleep[worker - 1];
        // The flag goes up before the last look at the ticket, and `run` writes the ticket before it looks at
        // the flag: one of the two sees the other.
        asleep.store(true, Ordering::SeqCst);
        while epoch() == last && !self.stop.load(Ordering::SeqCst) {
            thread::park();
        }
        asleep.store(false, Ordering::SeqCst);
        epoch()
    }
}

/// What the caller of jobs keeps between them.
struct Caller {
    /// The epoch of the last job.
    epoch: u32,
    governor: Governor,
}

/// Worker threads waiting for jobs.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<(Thread, Option<JoinHandle<()>>)>,
    /// Held by the caller whose job runs.
    caller: Mutex<Caller>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} workers", self.threads.len())
    }
}

impl Workers {
    /// Up to `count` threads: fewer when the system grants no more, at most 255. They run when this returns.
    pub(super) fn spawn(count: usize) -> Self {
        let count = count.min(super::MAX_THREADS - 1);
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            done: AtomicUsize::new(0),
            job: UnsafeCell::new(None),
            panic: Mutex::new(None),
            asleep: (0..count).map(|_| AtomicBool::new(false)).collect(),
            started: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let threads: Vec<_> = (1..=count)
            .map_while(|worker| {
                let shared = Arc::clone(&shared);
                let name = format!("sparse-{worker}");
                thread::Builder::new().name(name).spawn(move || shared.work(worker)).ok()
            })
            .map(|handle| (handle.thread().clone(), Some(handle)))
            .collect();
        while shared.started.load(Ordering::Acquire) < threads.len() {
            thread::yield_now();
        }
        Self { shared, threads, caller: Mutex::new(Caller { epoch: 0, governor: Governor::new() }) }
    }

    pub(super) fn count(&self) -> usize {
        self.threads.len()
    }

    /// Runs `f` for every chunk, or for one that is all of them on the calling thread alone where the [`Governor`]
    /// thinks that faster; false, having done nothing, when another caller's job is running or there are more chunks
    /// than a ticket can count.
    ///
    /// `work` is the size of the job for the governor, in bytes of weights; without it all threads work.
    pub(super) fn run(&self, chunks: usize, work: Option<usize>, f: &Job<'_>) -> bool {
        let mut caller = match self.caller.try_lock() {
            Ok(caller) => caller,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        let Ok(n) = u16::try_from(chunks) else { return false };
        let Some(work) = work else {
            self.share(&mut caller.epoch, n, f);
            return true;
        };
        let start = Instant::now();
        if caller.governor.alone() {
            f(0, 1, 0);
        } else {
            self.share(&mut caller.epoch, n, f);
        }
        caller.governor.learn(work, start.elapsed());
        true
    }

    /// Runs `f` for every chunk on all threads.
    fn share(&self, epoch: &mut u32, chunks: u16, f: &Job<'_>) {
        *epoch = epoch.wrapping_add(1);
        let shared = &*self.shared;
        shared.done.store(0, Ordering::Relaxed);
        let f: *const Job<'_> = f;
        // SAFETY: all chunks of the job before are done and claimed, so no worker reads `job`. The lifetime is
        // erased, and restored in effect by not returning before every chunk of this job is done.
        unsafe { *shared.job.get() = Some(std::mem::transmute::<*const Job<'_>, JobPointer>(f)) };
        shared.ticket.store(Ticket::first(*epoch, chunks).0, Ordering::SeqCst);
        for ((thread, _), asleep) in self.threads.iter().zip(&shared.asleep) {
            if asleep.load(Ordering::SeqCst) {
                thread.unpark();
            }
        }
        while shared.run_one(0) {}
        let mut turns = 0;
        while shared.done.load(Ordering::Acquire) < usize::from(chunks) {
            if turns < SPINS {
                std::hint::spin_loop()
            } else {
                thread::yield_now()
            }
            turns += 1;
        }
        let panic = shared.panic.lock().map_or_else(|p| p.into_inner().take(), |mut slot| slot.take());
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for (thread, handle) in &mut self.threads {
            thread.unpark();
            if let Some(handle) = handle.take() {
                // Panics of jobs were caught and handed to the caller; a worker itself has nothing to report.
                let _ = handle.join();
            }
        }
    }
}
