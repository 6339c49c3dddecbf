//! Which vector instructions the kernels may use.

use crate::Kernels;
use core::fmt;
use thiserror::Error;

/// A set of vector instructions, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Level {
    /// Plain Rust, on every target: the specification of the others.
    Scalar,
    /// SSE4.1 with SSSE3: x86 since Nehalem, Silvermont and Bulldozer.
    Sse41,
    /// AVX2 with FMA and F16C: x86 since Haswell and Zen.
    Avx2,
    /// AVX2 with AVX-VNNI: Intel since Alder Lake, AMD since Zen 5, where AVX-512 is not to be had.
    AvxVnni,
    /// AVX-512 F, BW, VL, DQ, VNNI and VBMI: Ice Lake, Zen 4 and later. CPUs with an earlier AVX-512, such as
    /// Skylake-X and Cascade Lake, use [`Avx2`](Self::Avx2).
    Avx512,
    /// NEON: all 64-bit ARM.
    Neon,
    /// [`Dotprod`](Self::Dotprod) with the matrix products of ARMv8.6 (Neoverse V1, Cortex-A510 and A710, Apple M2 and
    /// later): feature `npu`, experimental. It executes more instructions than `Dotprod`, so it is below it.
    I8mm,
    /// NEON with the dot products of ARMv8.2 (Cortex-A55 and A75, Apple A13 and later): feature `npu`, experimental.
    Dotprod,
    /// Vectors of 128 bits in WebAssembly, where the program was built with them.
    Simd128,
}

impl Level {
    /// Every level, from the least to the most of each kind of CPU.
    pub const ALL: [Level; 9] = [
        Self::Scalar,
        Self::Sse41,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Neon,
        Self::I8mm,
        Self::Dotprod,
        Self::Simd128,
    ];

    /// The highest level that this CPU and this build have. `SPARSE_SIMD` has no influence here.
    pub fn detect() -> Self {
        Self::available().max().unwrap_or(Self::Scalar)
    }

    /// The levels that this CPU and this build have, from the least to the most.
    pub fn available() -> impl Iterator<Item = Level> + Clone {
        Self::ALL.into_iter().filter(|&level| Kernels::at(level).is_some())
    }

    /// The level's name, as `SPARSE_SIMD` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Sse41 => "sse4.1",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
            Self::I8mm => "i8mm",
            Self::Simd128 => "simd128",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(feature = "std")]
impl core::str::FromStr for Level {
    type Err = LevelError;

    /// Reads a level's [`name`](Level::name).
    fn from_str(word: &str) -> Result<Self, LevelError> {
        let named = Self::ALL.into_iter().find(|level| level.name() == word);
        named.ok_or_else(|| LevelError::Unknown { word: word.into() })
    }
}

/// A level that was asked for, by `SPARSE_SIMD` or by name, and cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LevelError {
    /// A word that names no level.
    #[cfg(feature = "std")]
    #[error(
        "unknown SIMD level {word:?}: expected scalar, sse4.1, avx2, avxvnni, avx512, neon, dotprod, i8mm or simd128"
    )]
    Unknown {
        /// The word.
        word: std::string::String,
    },
    /// A level that this CPU or this build lacks.
    #[error(
        "SIMD level {level} is not available: the highest that this CPU and this build have is {}",
        Level::detect()
    )]
    Unavailable {
        /// The level.
        level: Level,
    },
}
