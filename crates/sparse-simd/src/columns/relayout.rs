//! From rows to columns and back.

use super::recipe::{SubScales, pack, sub_scales, unpack};
use super::{ColumnLayout, Columns, Recipe, place};
use crate::Rows;

const CHUNK: usize = ColumnLayout::CHUNK;

/// Codes of 64 rows of one super-group.
type Tile = [[u8; 256]; CHUNK];

impl ColumnLayout {
    /// Writes `w` in this layout.
    ///
    /// # Panics
    /// If `w` has another format or shape, or `out` is not [`bytes`](Self::bytes) long.
    pub fn relayout(&self, w: Rows<'_>, out: &mut [u8]) {
        assert_eq!(
            (w.format(), w.rows(), w.cols()),
            (self.format, self.rows, self.cols),
            "relayout: w and layout"
        );
        assert_eq!(out.len(), self.bytes(), "relayout: length of out");
        let Some(recipe) = self.format.recipe() else {
            let size = self.format.block_bytes();
            for (c, column) in out.chunks_exact_mut(self.column_bytes.max(1)).enumerate() {
                for (r, value) in column.chunks_exact_mut(size).enumerate() {
                    value.copy_from_slice(&w.row(r)[c * size..][..size]);
                }
            }
            return;
        };
        out.fill(0);
        for first in (0..self.cols).step_by(self.format.block_len()) {
            for chunk in (0..self.rows).step_by(CHUNK) {
                self.relayout_tile(&recipe, w, first, chunk, out);
            }
        }
    }

    /// Rows `chunk..chunk + 64` of the super-group at column `first`.
    fn relayout_tile(&self, recipe: &Recipe, w: Rows<'_>, first: usize, chunk: usize, out: &mut [u8]) {
        let (len, size) = (self.format.block_len(), self.format.block_bytes());
        let mut tile: Tile = [[0; 256]; CHUNK];
        for (i, codes) in tile.iter_mut().take(self.rows - chunk).enumerate() {
            let r = chunk + i;
            let block = &w.row(r)[first / len * size..][..size];
            for (h, &at) in recipe.halves.iter().enumerate() {
                let to = self.super_at(first) + 2 * (h * self.padded() + r);
                out[to..to + 2].copy_from_slice(&block[at..at + 2]);
            }
            if recipe.subs != SubScales::None {
                let (sub, min) = sub_scales(self.format, recipe.group, block);
                for g in 0..len / recipe.group {
                    let to = self.group_at(first + g * recipe.group, recipe.group) + r;
                    match recipe.subs {
                        SubScales::None => {}
                        SubScales::Nibbles => out[to] = sub[g] as u8 & 15 | (min[g] as u8) << 4,
                        SubScales::Scale => out[to] = sub[g] as u8,
                        SubScales::Both => {
                            out[to] = sub[g] as u8;
                            out[to + self.padded()] = min[g] as u8;
                        }
                    }
                }
            }
            unpack(recipe.block_planes(), block, &mut codes[..len]);
        }
        for c in 0..len {
            let mut codes = [0; CHUNK];
            for (i, row) in tile.iter().enumerate() {
                codes[place(i)] = row[c];
            }
            let at = self.column_at(first + c, recipe.group) + chunk / CHUNK * recipe.chunk_bytes();
            pack(recipe.chunk_planes(), &codes, &mut out[at..][..recipe.chunk_bytes()]);
        }
    }
}

impl Columns<'_> {
    /// Writes the rows that this was made from, byte for byte: the inverse of [`ColumnLayout::relayout`].
    ///
    /// # Panics
    /// If `out` is not as long as the rows.
    pub fn restore(&self, out: &mut [u8]) {
        let (rows, cols) = (self.rows(), self.cols());
        let row_bytes = cols / self.format().block_len() * self.format().block_bytes();
        assert_eq!(out.len(), rows * row_bytes, "restore: length of out");
        let Some(recipe) = self.format().recipe() else {
            let size = self.format().block_bytes();
            for (r, row) in out.chunks_exact_mut(row_bytes).enumerate() {
                for (c, value) in row.chunks_exact_mut(size).enumerate() {
                    value.copy_from_slice(&self.column(c)[r * size..][..size]);
                }
            }
            return;
        };
        out.fill(0);
        for first in (0..cols).step_by(self.format().block_len()) {
            for (i, rows) in out.chunks_mut(CHUNK * row_bytes).enumerate() {
                self.restore_tile(&recipe, first, CHUNK * i, row_bytes, rows);
            }
        }
    }

    /// The super-group at column `first` of the rows from `chunk` on.
    fn restore_tile(&self, recipe: &Recipe, first: usize, chunk: usize, row_bytes: usize, out: &mut [u8]) {
        let (layout, data) = (&self.layout, self.data);
        let (len, size) = (layout.format.block_len(), layout.format.block_bytes());
        let mut tile: Tile = [[0; 256]; CHUNK];
        for c in 0..len {
            let at = layout.column_at(first + c, recipe.group) + chunk / CHUNK * recipe.chunk_bytes();
            let mut codes = [0; CHUNK];
            unpack(recipe.chunk_planes(), &data[at..][..recipe.chunk_bytes()], &mut codes);
            for (i, row) in tile.iter_mut().enumerate() {
                row[c] = codes[place(i)];
            }
        }
        for (i, row) in out.chunks_exact_mut(row_bytes).enumerate() {
            let r = chunk + i;
            let block = &mut row[first / len * size..][..size];
            for (h, &at) in recipe.halves.iter().enumerate() {
                let from = layout.super_at(first) + 2 * (h * layout.padded() + r);
                block[at..at + 2].copy_from_slice(&data[from..from + 2]);
            }
            let (mut sub, mut min) = ([0; 16], [0; 16]);
            for g in 0..len / recipe.group {
                let from = layout.group_at(first + g * recipe.group, recipe.group) + r;
                (sub[g], min[g]) = recipe.subs.read(data, from, layout.padded());
            }
            layout.format.set_sub_scales(&sub, &min, block);
            pack(recipe.block_planes(), &tile[i][..len], block);
        }
    }
}
