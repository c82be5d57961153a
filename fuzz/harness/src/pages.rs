//! Files in memory: sparse pages, shared until they are written.
//!
//! ```text
//!   seed    base ──► │ page │ none │ page │ …       a list that all clones share
//!   clone   base ────┘
//!           own  ──► { 1: page }                    what was written since
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Result};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use vhd_compactor::error::{Error, ErrorKind};
use vhd_compactor::io::ReadAt;

const PAGE: usize = 4096;

type Page = [u8; PAGE];

const ZEROS: Page = [0; PAGE];

/// A sparse file. A clone of one that was loaded costs nothing: an input's patches are written beside what its seed has.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// None stands for a page that is all zero.
    base: Rc<Vec<Option<Box<Page>>>>,
    own: HashMap<u64, Box<Page>>,
    size: u64,
}

impl Pages {
    /// Reads a file; pages of zeros cost nothing.
    pub fn load(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut file = BufReader::with_capacity(1 << 20, file);
        let mut base = Vec::new();
        let mut at = 0;
        while at < size {
            let mut page = Box::new([0; PAGE]);
            let len = (size - at).min(PAGE as u64) as usize;
            file.read_exact(&mut page[..len])?;
            base.push((*page != ZEROS).then_some(page));
            at += len as u64;
        }
        Ok(Self { base: Rc::new(base), own: HashMap::new(), size })
    }

    /// An empty file of so many bytes, all zero.
    pub fn zeros(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    /// Writes bytes, which must lie inside.
    pub fn put(&mut self, mut at: u64, mut bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= self.size);
        while !bytes.is_empty() {
            let inside = (at % PAGE as u64) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - inside));
            let page = at / PAGE as u64;
            let old = self.page(page);
            if old.is_some() || *now != ZEROS[..now.len()] {
                let copy = old.copied();
                let page = self.own.entry(page).or_insert_with(|| Box::new(copy.unwrap_or([0; PAGE])));
                page[inside..inside + now.len()].copy_from_slice(now);
            }
            at += now.len() as u64;
            bytes = rest;
        }
    }

    /// The bytes from `at` on, zeros past the end.
    pub fn get(&self, mut at: u64, buf: &mut [u8]) {
        let mut rest = buf;
        while !rest.is_empty() {
            let inside = (at % PAGE as u64) as usize;
            let len = rest.len().min(PAGE - inside);
            let (now, later) = rest.split_at_mut(len);
            match self.page(at / PAGE as u64) {
                Some(page) => now.copy_from_slice(&page[inside..inside + len]),
                None => now.fill(0),
            }
            at += len as u64;
            rest = later;
        }
    }

    /// The bytes from `at` on, zeros past the end.
    pub fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.get(at, &mut bytes);
        bytes
    }

    /// Whether anything was written to `range` since the file was loaded.
    pub fn was_written(&self, range: Range<u64>) -> bool {
        let pages = range.start / PAGE as u64..range.end.div_ceil(PAGE as u64);
        self.own.keys().any(|page| pages.contains(page))
    }

    /// None where it is all zero.
    fn page(&self, number: u64) -> Option<&Page> {
        if !self.own.is_empty()
            && let Some(page) = self.own.get(&number)
        {
            return Some(page);
        }
        self.base.get(usize::try_from(number).ok()?)?.as_deref()
    }
}

impl ReadAt for Pages {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> vhd_compactor::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.size) {
            return Err(Error::new(ErrorKind::ReadFailed, "past the end"));
        }
        self.get(offset, buf);
        Ok(())
    }
}

/// A file that remembers what was read of it.
pub struct Watched {
    pub file: Pages,
    pub reads: RefCell<Vec<Range<u64>>>,
}

impl ReadAt for Watched {
    fn size(&self) -> u64 {
        self.file.size()
    }
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> vhd_compactor::Result<()> {
        self.reads.borrow_mut().push(offset..offset + buf.len() as u64);
        self.file.read_exact_at(offset, buf)
    }
}
