//! ERNIE 4.5 without experts.

use super::Architecture;
use crate::rope::RopePairs;

/// A llama model under another name.
pub(super) const ERNIE4_5: Architecture =
    Architecture { name: "ernie4_5", rope: RopePairs::Adjacent, adapt: |_, _| Ok(()) };
