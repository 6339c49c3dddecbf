//! Where the codes of the precision lanes are in their blocks.

/// Where the vector kernels find the codes of a lane's block: pairs of bytes that hold a code each become words, and
/// the code is moved to the top of its word, then down.
pub(crate) struct LanePlaces {
    /// Where the bytes begin that hold the codes of each half.
    pub(crate) starts: [usize; 2],
    /// Of the first and the last eight codes of both halves, the bytes, counted from their half's start.
    pub(crate) index: [[u8; 32]; 2],
    /// What words are multiplied with.
    pub(crate) up: [[i16; 16]; 2],
}

pub(crate) const BIT3: LanePlaces = lane_places(3, [0, 6]);
pub(crate) const BIT7: LanePlaces = lane_places(7, [0, 14]);

/// For codes of `bits` bits that follow a scale.
const fn lane_places(bits: usize, starts: [usize; 2]) -> LanePlaces {
    let mut places = LanePlaces { starts, index: [[0; 32]; 2], up: [[0; 16]; 2] };
    let mut i = 0;
    while i < 32 {
        let (half, eight) = (i / 16, i / 8 % 2);
        let word = 8 * half + i % 8;
        let at = 2 + bits * i / 8 - starts[half];
        // A second byte that is not there, or holds another code, is moved out.
        places.index[eight][2 * word] = at as u8;
        places.index[eight][2 * word + 1] = (at + 1) as u8 % 16;
        places.up[eight][word] = 1 << (16 - bits - bits * i % 8);
        i += 1;
    }
    places
}

/// `N` of the bytes, from `start` on.
#[inline]
pub(crate) fn part<const N: usize>(bytes: &[u8], start: usize) -> &[u8; N] {
    &bytes[start..].as_chunks().0[0]
}
