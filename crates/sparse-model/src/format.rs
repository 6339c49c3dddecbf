//! Formats that weights are rounded to when a model is opened.

use std::fmt;
use std::str::FromStr;

use sparse_core::{Matrix, Storage};
use sparse_gguf::{BlockFormat, quantize};
use sparse_precision::{LaneMatrix, PrecisionLane};

/// Blocks that weights can be rounded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// Of a lane, rounded as [`LaneMatrix`] does it: by a search for the scales.
    Lane(PrecisionLane),
    /// Of a GGUF format that [`quantize`] writes, rounded as ggml does it.
    Gguf(BlockFormat),
}

impl WeightFormat {
    /// The formats with fewer bits than a half float.
    pub const ALL: [Self; 8] = [
        Self::Lane(PrecisionLane::Bit3),
        Self::Lane(PrecisionLane::Bit5),
        Self::Lane(PrecisionLane::Bit7),
        Self::Gguf(BlockFormat::Q4_0),
        Self::Gguf(BlockFormat::Q4_1),
        Self::Gguf(BlockFormat::Q5_0),
        Self::Gguf(BlockFormat::Q5_1),
        Self::Gguf(BlockFormat::Q8_0),
    ];

    /// What the blocks are.
    pub fn blocks(self) -> BlockFormat {
        match self {
            Self::Lane(lane) => lane.format(),
            Self::Gguf(format) => format,
        }
    }

    /// Rounds whole rows of `cols` values; errors in column `c` of a lane count `importance[c]` times, if that is given. The error
    /// is a problem in words.
    pub(crate) fn quantize(
        self,
        cols: usize,
        values: &[f32],
        importance: Option<&[f32]>,
    ) -> Result<Vec<u8>, String> {
        let format = self.blocks();
        if !cols.is_multiple_of(format.block_len()) {
            return Err(format!(
                "rows of {cols} values cannot be stored in {}, which takes multiples of {}; choose another format",
                format.name(),
                format.block_len()
            ));
        }
        let rounded = match (self, importance) {
            (Self::Gguf(format), _) => return quantize(format, values).map_err(|e| e.to_string()),
            (Self::Lane(lane), None) => LaneMatrix::new(lane, cols, values),
            (Self::Lane(lane), Some(importance)) => LaneMatrix::weighted(lane, cols, values, importance),
        };
        rounded.map(LaneMatrix::into_bytes).map_err(|e| e.to_string())
    }

    /// [`quantize`](Self::quantize), as a matrix.
    pub(crate) fn round(
        self,
        cols: usize,
        values: &[f32],
        importance: Option<&[f32]>,
    ) -> Result<Matrix, String> {
        let bytes = self.quantize(cols, values, importance)?;
        let storage = Storage::filled(bytes.len(), |out| out.copy_from_slice(&bytes));
        Matrix::new(self.blocks(), cols, storage).map_err(|e| e.to_string())
    }
}

impl From<BlockFormat> for WeightFormat {
    fn from(format: BlockFormat) -> Self {
        Self::Gguf(format)
    }
}

impl From<PrecisionLane> for WeightFormat {
    fn from(lane: PrecisionLane) -> Self {
        Self::Lane(lane)
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lane(lane) => fmt::Display::fmt(lane, f),
            Self::Gguf(format) => f.pad(format.name()),
        }
    }
}

impl FromStr for WeightFormat {
    type Err = String;

    /// A format by its name, in any case: one of [`ALL`](Self::ALL), F16 or BF16.
    fn from_str(name: &str) -> Result<Self, String> {
        let halves = [BlockFormat::F16, BlockFormat::Bf16].map(Self::Gguf);
        let mut all = Self::ALL.into_iter().chain(halves);
        all.clone().find(|format| format.to_string().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let first = all.next().map(|format| format.to_string()).unwrap_or_default();
            let names = all.fold(first, |names, format| format!("{names}, {format}"));
            format!("weights have no format \"{name}\"; there are {names}")
        })
    }
}
