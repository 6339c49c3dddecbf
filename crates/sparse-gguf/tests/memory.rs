//! Memory never grows with a number that a file merely states. A test program of its own: it counts every
//! allocation of the process.

use peak_alloc::PeakAlloc;
use sparse_gguf::Gguf;

#[path = "suite/raw.rs"]
mod raw;
use raw::Raw;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most memory in use during `f`, beyond what was in use before.
fn peak(f: impl FnOnce()) -> usize {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    f();
    MEMORY.peak_usage() - before
}

#[test]
fn memory_is_bounded_by_the_bytes_that_are_there() {
    // One after the other: the count is of the whole process.
    stated_lengths_allocate_nothing();
    a_large_vocabulary_costs_little_more_than_its_bytes();
}

fn stated_lengths_allocate_nothing() {
    const BODY: usize = 4096;
    // Every length just beyond what the bytes that follow can hold, and then absurdly so.
    for stated in [BODY as u64 + 1, 1 << 31, 1 << 40, 1 << 60, u64::MAX] {
        let pair = || Raw::new(0, 1).text("key");
        let array = |ty: u32| pair().u32(9).u32(ty).u64(stated);
        let files = [
            Raw::new(stated, 0),
            Raw::new(0, stated),
            Raw::new(0, 1).u64(stated),
            pair().u32(8).u64(stated),
            array(0),
            array(8),
            array(9),
            array(12),
            Raw::new(1, 0).u64(stated),
            Raw::new(1, 0).tensor("tensor", &[stated], 0, 0),
            Raw::new(1, 0).tensor("tensor", &[stated], 24, 0),
            Raw::new(1, 0).tensor("tensor", &[1], 0, stated & !31),
        ];
        for (i, file) in files.into_iter().enumerate() {
            let bytes = file.data(1, BODY).0;
            let mut error = None;
            // The file itself was allocated before, and is kept without a copy.
            let used = peak(|| error = Gguf::from_bytes(bytes).err());
            let error = error.unwrap_or_else(|| panic!("file {i} with {stated} is valid"));
            assert!(used < 1024, "file {i} with {stated}: {used} bytes for {error}");
        }
    }
}

fn a_large_vocabulary_costs_little_more_than_its_bytes() {
    let count = 50_000u64;
    let head = Raw::new(0, 1).text("tokens").u32(9).u32(8).u64(count);
    let file = (0..count).fold(head, |raw, i| raw.text(format!("token {i}"))).0;
    let size = file.len();
    let used = peak(|| {
        let gguf = Gguf::from_bytes(file).unwrap();
        assert_eq!(gguf.metadata().strings("tokens").unwrap()[49_999], "token 49999");
    });
    assert!(used < 4 * size, "{used} bytes for a file of {size}");
}
