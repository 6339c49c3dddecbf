//! Memory in large pages, and memory that stays.

use std::io;

#[cfg(any(unix, windows))]
pub(crate) type Memory = memmap2::MmapMut;
#[cfg(not(any(unix, windows)))]
pub(crate) type Memory = alloc::vec::Vec<u8>;

/// `len` zero bytes, in pages of 2 MB where the system has them.
///
/// # Errors
/// When the system does not give so much memory.
pub(crate) fn huge(len: usize) -> io::Result<Memory> {
    #[cfg(any(unix, windows))]
    {
        let memory = Memory::map_anon(len)?;
        // Only a wish: without it, everything works and is slower.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(memory)
    }
    #[cfg(not(any(unix, windows)))]
    {
        Ok(alloc::vec![0; len])
    }
}

/// Keeps the system from paging `memory` out.
///
/// # Errors
/// When the system cannot, or does not allow this program so much.
pub(crate) fn lock(memory: &Memory) -> io::Result<()> {
    #[cfg(unix)]
    return memory.lock();
    #[cfg(not(unix))]
    {
        let _ = memory;
        Err(io::ErrorKind::Unsupported.into())
    }
}
