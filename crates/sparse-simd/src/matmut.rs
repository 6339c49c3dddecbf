//! A strided, writable matrix that can be cut into column windows.

use core::marker::PhantomData;
use core::ops::Range;

/// A writable `[tokens x cols]` window of a larger row-major f32 buffer: row `t` starts `stride` values after
/// row `t - 1`.
///
/// Matrix products write one output column per weight row, so work split by weight rows needs windows of
/// columns that several threads own at once. Safe Rust has no slice for that; this type has.
#[derive(Debug)]
pub struct MatMut<'a> {
    ptr: *mut f32,
    tokens: usize,
    cols: usize,
    stride: usize,
    _data: PhantomData<&'a mut [f32]>,
}

// SAFETY: a MatMut is an exclusive borrow of the values in its window, like `&mut [f32]`.
unsafe impl Send for MatMut<'_> {}

impl<'a> MatMut<'a> {
    /// A window over the whole of `data`, `cols` values per token, rows adjacent.
    ///
    /// # Panics
    /// If `data.len()` is not a multiple of `cols`.
    pub fn new(data: &'a mut [f32], cols: usize) -> Self {
        assert!(cols > 0 && data.len().is_multiple_of(cols), "{} values in rows of {cols}", data.len());
        let tokens = data.len() / cols;
        Self { ptr: data.as_mut_ptr(), tokens, cols, stride: cols, _data: PhantomData }
    }

    /// Rows of the window.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Columns of the window.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The values of row `t`.
    ///
    /// # Panics
    /// If `t` is not below [`tokens`](Self::tokens).
    pub fn row(&mut self, t: usize) -> &mut [f32] {
        assert!(t < self.tokens);
        // SAFETY: row t of the window lies inside the borrowed buffer, and `self` borrows it exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.add(t * self.stride), self.cols) }
    }

    /// The window of columns `range` of this one, borrowed from it.
    ///
    /// # Panics
    /// If `range` is out of bounds.
    pub fn columns(&mut self, range: Range<usize>) -> MatMut<'_> {
        // SAFETY: the returned window borrows `self` mutably, so no other window exists meanwhile.
        unsafe { self.window_shared(0..self.tokens, range) }
    }

    /// The window of rows `range` of this one, borrowed from it.
    ///
    /// # Panics
    /// If `range` is out of bounds.
    pub fn rows(&mut self, range: Range<usize>) -> MatMut<'_> {
        // SAFETY: the returned window borrows `self` mutably, so no other window exists meanwhile.
        unsafe { self.window_shared(range, 0..self.cols) }
    }

    /// The window of these rows and columns, from a shared reference, for handing windows to several threads.
    ///
    /// # Safety
    /// - Windows alive at the same time must not overlap, and `self` must not be used while one lives.
    ///
    /// # Panics
    /// If a range is out of bounds.
    pub unsafe fn window_shared(&self, tokens: Range<usize>, columns: Range<usize>) -> MatMut<'_> {
        assert!(tokens.start <= tokens.end && tokens.end <= self.tokens);
        assert!(columns.start <= columns.end && columns.end <= self.cols);
        // An empty window has no place; rows of it are empty or not there.
        let offset = if tokens.is_empty() { 0 } else { tokens.start * self.stride + columns.start };
        MatMut {
            // SAFETY: the window's first row is a row of this one, and `columns.start` is at most its length.
            ptr: unsafe { self.ptr.add(offset) },
            tokens: tokens.len(),
            cols: columns.len(),
            stride: self.stride,
            _data: PhantomData,
        }
    }
}
