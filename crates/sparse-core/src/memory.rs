//! Memory in large pages.

use std::io;

use memmap2::MmapMut;

/// `len` zero bytes, in pages of 2 MB where the system has them.
pub(crate) fn huge(len: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(len)?;
    // Only a wish: without it, everything works and is slower.
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
