//! The three address spaces of a disk image and their byte offsets.
//!
//! ```text
//!   file   ── bytes of the container (`disk.vhdx`)           FileOffset
//!   disk   ── bytes of the virtual disk the guest sees       u64
//!   volume ── bytes from the start of one file system        u64
//! ```
//! A place in a container is a type of its own, because disk and file offsets meet in every line that reads
//! one. Disk and volume offsets meet in one place only, [`crate::io::Segments`], which alone turns one into
//! the other; ranges of both are the same sets ([`crate::extents`]).

use std::fmt;
use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};

/// Which address space an offset counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// The container file.
    File,
    /// The virtual disk.
    Disk,
    /// One volume on the virtual disk.
    Volume,
}

impl Space {
    /// The name used in messages and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Disk => "disk",
            Self::Volume => "volume",
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Puts ranges in order, by their starts and then their ends. One place for all: each sort that is compiled costs the
/// page a kilobyte.
#[inline(never)]
pub fn sort_ranges(ranges: &mut [Range<u64>]) {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
}

/// Whether any two of the ranges share a byte.
#[must_use]
pub fn overlap(mut ranges: Vec<Range<u64>>) -> bool {
    sort_ranges(&mut ranges);
    ranges.windows(2).any(|pair| matches!(pair, [a, b] if b.start < a.end))
}

/// How far a stepped piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes dealt with.
    pub done: u64,
    /// Bytes to deal with.
    pub total: u64,
    /// Whether it is finished.
    pub finished: bool,
}

impl Progress {
    /// Work that needs no (more) steps.
    pub const FINISHED: Self = Self { done: 0, total: 0, finished: true };
}

/// A byte of the container file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileOffset(u64);

impl FileOffset {
    /// The offset of byte `bytes`.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The offset in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This offset and `bytes` more.
    ///
    /// # Errors
    /// `limit-exceeded` if the sum does not fit 64 bits.
    pub fn plus(self, bytes: u64) -> Result<Self> {
        add(self.0, bytes, "a file offset").map(Self)
    }
}

impl fmt::Display for FileOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// `a + b`, or a clear error instead of an overflow. `what` names the value in the field's words.
///
/// # Errors
/// `limit-exceeded` on overflow.
pub fn add(a: u64, b: u64, what: &'static str) -> Result<u64> {
    a.checked_add(b).ok_or_else(|| too_large(what))
}

/// `a * b`, or a clear error instead of an overflow.
///
/// # Errors
/// `limit-exceeded` on overflow.
pub fn mul(a: u64, b: u64, what: &'static str) -> Result<u64> {
    a.checked_mul(b).ok_or_else(|| too_large(what))
}

/// The next multiple of `unit` at or above `value`.
///
/// # Errors
/// `limit-exceeded` on overflow or where `unit` is 0.
pub fn round_up(value: u64, unit: u64, what: &'static str) -> Result<u64> {
    value.checked_next_multiple_of(unit).ok_or_else(|| too_large(what))
}

/// How many bytes a range covers. A range that ends before it starts covers none, as everywhere in Rust.
#[must_use]
pub const fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// `value` as an index into memory.
///
/// # Errors
/// `limit-exceeded` if it does not fit (wasm has 32-bit memory).
pub fn index(value: u64, what: &'static str) -> Result<usize> {
    usize::try_from(value).map_err(|_| too_large(what))
}

fn too_large(what: &'static str) -> Error {
    Error::new(ErrorKind::LimitExceeded, format!("{what} is too large"))
}

/// A length in memory as a byte count. Memory never exceeds 64 bits, so nothing is lost.
#[must_use]
pub fn len64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_that_overflow_are_refused() {
        assert_eq!(FileOffset::new(3).plus(4).unwrap().get(), 7);
        assert_eq!(FileOffset::new(u64::MAX).plus(1).unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert!(add(u64::MAX, 1, "x").is_err());
        assert!(mul(u64::MAX, 2, "x").is_err());
        assert!(round_up(u64::MAX, 512, "x").is_err());
        assert_eq!(round_up(513, 512, "x").unwrap(), 1024);
    }
}
