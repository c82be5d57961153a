//! A page cache for metadata: file-system and container structures are small and lie close together,
//! and each call into a browser's `FileReaderSync` costs half a millisecond whatever its length.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::{ReadAt, check_range};
use crate::error::{Error, Result};
use crate::units::{add, index, len64, length, mul};

/// Bytes of one page.
const PAGE: u64 = 128 << 10;
/// How many pages are kept: 16 MiB.
const MAX_PAGES: usize = 128;

/// A reader that keeps the pages it has read. A read of several pages' length passes by the cache,
/// so that payload does not push metadata out.
pub struct Cached<R> {
    inner: R,
    pages: RefCell<Pages>,
}

#[derive(Default)]
struct Pages {
    by_number: HashMap<u64, Page>,
    clock: u64,
}

struct Page {
    bytes: Rc<[u8]>,
    last_used: u64,
}

impl<R: ReadAt> Cached<R> {
    /// A cache over `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, pages: RefCell::default() }
    }

    /// What is cached.
    pub const fn inner(&self) -> &R {
        &self.inner
    }

    fn page(&self, number: u64) -> Result<Rc<[u8]>> {
        let mut pages = self.pages.borrow_mut();
        pages.clock = pages.clock.wrapping_add(1);
        let now = pages.clock;
        if let Some(page) = pages.by_number.get_mut(&number) {
            page.last_used = now;
            return Ok(Rc::clone(&page.bytes));
        }
        let start = mul(number, PAGE, "a page")?;
        let len = PAGE.min(length(&(start..self.inner.size())));
        let mut bytes = vec![0; index(len, "a cache page")?];
        self.inner.read_exact_at(start, &mut bytes)?;
        let bytes: Rc<[u8]> = bytes.into();
        if pages.by_number.len() >= MAX_PAGES {
            let oldest = pages.by_number.iter().min_by_key(|(_, page)| page.last_used).map(|(&n, _)| n);
            if let Some(oldest) = oldest {
                pages.by_number.remove(&oldest);
            }
        }
        pages.by_number.insert(number, Page { bytes: Rc::clone(&bytes), last_used: now });
        Ok(bytes)
    }
}

impl<R: ReadAt> ReadAt for Cached<R> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        check_range(self, offset, len64(buf.len()))?;
        if len64(buf.len()) / 2 >= PAGE {
            return self.inner.read_exact_at(offset, buf);
        }
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let page = self.page(at / PAGE)?;
            let tail = page.get(index(at % PAGE, "a page offset")?..);
            let tail = tail.ok_or_else(|| Error::internal("a cache page is shorter than its reader"))?;
            let n = tail.len().min(rest.len());
            let (Some(from), Some((to, after))) = (tail.get(..n), rest.split_at_mut_checked(n)) else {
                return Err(Error::internal("a cache page is shorter than its reader"));
            };
            if n == 0 {
                return Err(Error::internal("a cache page is shorter than its reader"));
            }
            to.copy_from_slice(from);
            rest = after;
            at = add(at, len64(n), "a read")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tests::{Counting, conforms, pattern};

    #[test]
    fn cache_conforms() {
        for len in [0, 100, 300_000, 131_072, 1_000_000] {
            conforms(&Cached::new(pattern(len)), &pattern(len));
        }
    }

    #[test]
    fn a_page_is_read_once_and_memory_is_bounded() {
        let cached = Cached::new(Counting::new(vec![1; 40 << 20]));
        let mut buf = [0; 16];
        for offset in 0..1000 {
            cached.read_exact_at(offset, &mut buf).unwrap();
        }
        assert_eq!(cached.inner.reads(), 1);
        for page in 0..300 {
            cached.read_exact_at(page * PAGE, &mut buf).unwrap();
        }
        assert!(cached.pages.borrow().by_number.len() <= MAX_PAGES);
    }
}
