//! A part of a reader as a reader of its own: one volume of a disk.

use super::{ReadAt, check_range};
use crate::error::Result;
use crate::units::{add, len64};

/// `len` bytes of `inner` from `start` on.
pub struct Window<R> {
    inner: R,
    start: u64,
    len: u64,
}

impl<R: ReadAt> Window<R> {
    /// The window `start .. start + len`.
    ///
    /// # Errors
    /// `read-failed` if it reaches past the end of `inner`.
    pub fn new(inner: R, start: u64, len: u64) -> Result<Self> {
        check_range(&inner, start, len)?;
        Ok(Self { inner, start, len })
    }
}

impl<R: ReadAt> ReadAt for Window<R> {
    fn size(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        self.inner.read_exact_at(add(self.start, offset, "a volume offset")?, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tests::{conforms, pattern};

    #[test]
    fn window_conforms() {
        let whole = pattern(9000);
        conforms(&Window::new(&whole, 1000, 5000).unwrap(), &whole[1000..6000]);
        assert!(Window::new(&whole, 8999, 2).is_err());
        assert!(Window::new(&whole, u64::MAX, 2).is_err());
    }
}
