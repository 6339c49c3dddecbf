//! Memory in large pages.

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
