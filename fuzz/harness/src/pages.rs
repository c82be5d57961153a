//! Files in memory: sparse pages, shared until they are written.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Result};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use vhd_compactor::error::{Error, ErrorKind};
use vhd_compactor::io::ReadAt;

const PAGE: usize = 4096;

/// A sparse file. A clone shares all pages until one side writes.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    pages: HashMap<u64, Rc<[u8; PAGE]>>,
    size: u64,
}

impl Pages {
    /// Reads a file; pages of zeros cost nothing.
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut pages = Self { pages: HashMap::new(), size };
        let mut buf = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let len = (size - at).min(buf.len() as u64) as usize;
            file.read_exact(&mut buf[..len])?;
            pages.put(at, &buf[..len]);
            at += len as u64;
        }
        Ok(pages)
    }

    /// Sets the size; new bytes are zero.
    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            self.pages.retain(|&page, _| page * (PAGE as u64) < size);
            let rest = (size % PAGE as u64) as usize;
            if let (true, Some(last)) = (rest > 0, self.pages.get_mut(&(size / PAGE as u64))) {
                Rc::make_mut(last)[rest..].fill(0);
            }
        }
        self.size = size;
    }

    /// Writes bytes, which must lie inside.
    pub fn put(&mut self, mut at: u64, mut bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= self.size);
        while !bytes.is_empty() {
            let inside = (at % PAGE as u64) as usize;
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - inside));
            let page = at / PAGE as u64;
            if self.pages.contains_key(&page) || now.iter().any(|&byte| byte != 0) {
                let page = self.pages.entry(page).or_insert_with(|| Rc::new([0; PAGE]));
                Rc::make_mut(page)[inside..inside + now.len()].copy_from_slice(now);
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
            match self.pages.get(&(at / PAGE as u64)) {
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
