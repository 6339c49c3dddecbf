//! Kernels for AVX2 with FMA and F16C.

use crate::{Kernels, Level, scalar};

pub(crate) const KERNELS: Kernels = Kernels { level: Level::Avx2, ..scalar::KERNELS };
