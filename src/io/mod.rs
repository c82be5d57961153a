//! Synchronous random-access reading: the one thing the core asks of its host.
//!
//! ```text
//!   ReadAt ◄── memory · native file · Node (web::source) · browser File (web::source)
//!     ▲
//!     ├── Cached   pages for metadata walks
//!     ├── Overlay  a log or journal replayed in memory, never written
//!     └── Window   one volume of a disk
//! ```
//! Synchronous on purpose: tree walks, fuzzers and debuggers all get simpler, `FileReaderSync` in a
//! worker is as fast as the asynchronous calls, and Node has `readSync`.

mod cache;
#[cfg(not(target_family = "wasm"))]
mod file;
mod overlay;
mod window;

pub use cache::Cached;
#[cfg(not(target_family = "wasm"))]
pub use file::NativeFile;
pub use overlay::{Overlay, Patches};
pub use window::{Segments, Window};

use std::rc::Rc;

use zerocopy::FromBytes;

use crate::error::{Error, ErrorKind, Result};
use crate::units::len64;

/// Something of a fixed size that can be read at any byte.
pub trait ReadAt {
    /// The size in bytes.
    fn size(&self) -> u64;

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// `read-failed` where the host fails or the range reaches past [`ReadAt::size`];
    /// `source-changed` where the host can tell that the file is no longer the one that was opened.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Rc<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        (**self).read_exact_at(offset, buf)
    }
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        len64(self.len())
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let from = usize::try_from(offset).ok();
        let bytes = from
            .and_then(|from| self.get(from..from.checked_add(buf.len())?))
            .ok_or_else(|| past_end(offset, len64(buf.len()), self.size()))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.as_slice().size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.as_slice().read_exact_at(offset, buf)
    }
}

/// Reads `len` bytes at `offset` into a new buffer. The range is checked against the size before
/// anything is allocated, and callers limit `len` to what the structure may have.
///
/// # Errors
/// As [`ReadAt::read_exact_at`].
pub fn read_vec<R: ReadAt + ?Sized>(reader: &R, offset: u64, len: usize) -> Result<Vec<u8>> {
    check_range(reader, offset, len64(len))?;
    let mut buf = vec![0; len];
    reader.read_exact_at(offset, &mut buf)?;
    Ok(buf)
}

/// Reads one on-disk structure at `offset`.
///
/// # Errors
/// As [`ReadAt::read_exact_at`].
pub fn read_struct<T: FromBytes, R: ReadAt + ?Sized>(reader: &R, offset: u64) -> Result<T> {
    let buf = read_vec(reader, offset, size_of::<T>())?;
    T::read_from_bytes(&buf).map_err(|_| Error::internal("a structure was read with the wrong length"))
}

/// Refuses a range that reaches past the end of `reader`.
///
/// # Errors
/// `read-failed`.
pub fn check_range<R: ReadAt + ?Sized>(reader: &R, offset: u64, len: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= reader.size() => Ok(()),
        _ => Err(past_end(offset, len, reader.size())),
    }
}

/// The error for a read that reaches past the end.
#[must_use]
pub fn past_end(offset: u64, len: u64, size: u64) -> Error {
    Error::new(
        ErrorKind::ReadFailed,
        format!("cannot read {len} bytes at offset {offset:#x}: there are only {size} bytes"),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    /// Bytes in memory that count the reads of them.
    pub(crate) struct Counting {
        bytes: Vec<u8>,
        reads: Cell<u32>,
    }

    impl Counting {
        pub(crate) fn new(bytes: Vec<u8>) -> Self {
            Self { bytes, reads: Cell::new(0) }
        }

        pub(crate) fn reads(&self) -> u32 {
            self.reads.get()
        }
    }

    impl ReadAt for Counting {
        fn size(&self) -> u64 {
            self.bytes.size()
        }

        fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
            self.reads.set(self.reads() + 1);
            self.bytes.read_exact_at(offset, buf)
        }
    }

    /// The one suite that every reader passes; `expected` is what the reader holds.
    pub(crate) fn conforms<R: ReadAt>(reader: &R, expected: &[u8]) {
        assert_eq!(reader.size(), len64(expected.len()));
        assert_eq!(read_vec(reader, 0, expected.len()).unwrap(), expected);
        assert_eq!(read_vec(reader, reader.size(), 0).unwrap(), []);
        for (start, len) in [(0, 1), (1, 3), (511, 2), (expected.len() / 2, expected.len() / 3)] {
            if let Some(part) = expected.get(start..start + len) {
                assert_eq!(read_vec(reader, len64(start), len).unwrap(), part, "{start}+{len}");
            }
        }
        for (offset, len) in [(reader.size(), 1), (0, expected.len() + 1), (u64::MAX, 1)] {
            let mut buf = vec![0; len];
            assert_eq!(reader.read_exact_at(offset, &mut buf).unwrap_err().kind(), ErrorKind::ReadFailed);
        }
    }

    pub(crate) fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((i * 7 + i / 256) % 251).unwrap()).collect()
    }

    #[test]
    fn memory_conforms() {
        conforms(&pattern(5000), &pattern(5000));
        conforms(&Vec::new(), &[]);
    }
}
