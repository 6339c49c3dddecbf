//! The packed scales of the K formats, as words.

/// The sixteen 6-bit scales of Q3_K as bytes, four per word.
#[inline]
pub(crate) fn q3_k_scales(scales: [u8; 12]) -> [u32; 4] {
    let [a, b, high] = words(scales);
    let fold = |low: u32, high: u32| low & 0x0F0F_0F0F | (high & 0x0303_0303) << 4;
    [fold(a, high), fold(b, high >> 2), fold(a >> 4, high >> 4), fold(b >> 4, high >> 6)]
}

/// The eight 6-bit scales and the eight 6-bit minima of Q4_K and Q5_K as bytes, four per word.
#[inline]
pub(crate) fn k_scales(scales: [u8; 12]) -> [[u32; 2]; 2] {
    let [a, b, c] = words(scales);
    let fold = |low: u32, high: u32| low & 0x0F0F_0F0F | (high >> 6 & 0x0303_0303) << 4;
    [[a & 0x3F3F_3F3F, fold(c, a)], [b & 0x3F3F_3F3F, fold(c >> 4, b)]]
}

fn words(bytes: [u8; 12]) -> [u32; 3] {
    bytemuck::cast::<[u8; 12], [[u8; 4]; 3]>(bytes).map(u32::from_le_bytes)
}
