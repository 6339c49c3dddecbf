//! Bounds-checked reading of little-endian numbers and strings.

use std::borrow::Cow;
use std::fmt::Arguments;

use crate::Error;

/// A position in the bytes of a file. Every `what` names what is being read, for the error message.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pos: usize,
    lossy: bool,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, pos: 0, lossy: false }
    }

    /// Bytes read so far.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    /// Fails unless `count` items of at least `each` bytes can still follow. To be called with every length that
    /// a file states, before anything is allocated for it.
    pub(crate) fn expect(&self, count: u64, each: usize, what: Arguments<'_>) -> Result<(), Error> {
        let left = (self.bytes.len() - self.pos) as u64;
        let needed = count.saturating_mul(each as u64);
        if needed > left {
            return Err(Error::Truncated { what: what.to_string(), offset: self.pos as u64, needed, left });
        }
        Ok(())
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: u64, what: Arguments<'_>) -> Result<&'a [u8], Error> {
        self.expect(n, 1, what)?;
        // `n` is at most the number of bytes left, so it fits usize.
        let taken = &self.bytes[self.pos..][..n as usize];
        self.pos += taken.len();
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self, what: Arguments<'_>) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(crate) fn u32(&mut self, what: Arguments<'_>) -> Result<u32, Error> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: Arguments<'_>) -> Result<u64, Error> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// Whether bytes that are not UTF-8 become U+FFFD in the strings from here on, instead of an error.
    pub(crate) fn set_lossy(&mut self, lossy: bool) {
        self.lossy = lossy;
    }

    /// A string: its length as 64 bits, then that many bytes of UTF-8.
    pub(crate) fn string(&mut self, what: Arguments<'_>) -> Result<Cow<'a, str>, Error> {
        let len = self.u64(format_args!("length of {what}"))?;
        let offset = self.pos as u64;
        let bytes = self.take(len, what)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) if self.lossy => Ok(String::from_utf8_lossy(bytes)),
            Err(e) => {
                let valid_up_to = e.valid_up_to();
                Err(Error::InvalidUtf8 { what: what.to_string(), offset, valid_up_to })
            }
        }
    }

    /// A string that names something, without the NUL that some files of 2023 end strings with.
    pub(crate) fn name(&mut self, what: Arguments<'_>) -> Result<String, Error> {
        let mut name = self.string(what)?.into_owned();
        trim_nul(&mut name);
        Ok(name)
    }
}

/// Removes NULs from the end of `text`.
pub(crate) fn trim_nul(text: &mut String) {
    text.truncate(text.trim_end_matches('\0').len());
}
