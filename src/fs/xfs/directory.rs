//! Directories: whether what they name lies in space that is called free.
//!
//! ```text
//!   in the inode:  │ entries │ wide │ parent │ length, offset, name, type, inode │ …
//!   data block:    │ header │ inode, length, name, type, tag │ unused: 0xFFFF, length … │ … │ (hashes, count) │
//! ```
//! Inodes are found by the inode tree, and so an old copy of all trees, headers and the superblock, which stand
//! side by side at the volume's start, could agree with itself and not know the newest chunk of inodes. The
//! directories that name those inodes lie elsewhere. An inode that is named is therefore an owner of its place.
//! Only the blocks with names are read, not those with hashes.
//!
//! Source: XFS Algorithms & Data Structures, "Directories"; the kernel's `xfs_da_format.h`.

use std::collections::VecDeque;
use std::ops::Range;

use super::superblock::{Fs, crc_fits};
use super::{damaged, site};
use crate::error::Site;
use crate::fs::{Owner, Purpose, Stop, Witness};
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index, len64};

/// Where in a directory its hashes begin.
const HASHES: u64 = 1 << 35;
const CRC_AT: usize = 4;
const LSN_AT: usize = 16;
const UUID_AT: usize = 24;
const OWNER_AT: usize = 40;
const UNUSED: u16 = 0xFFFF;

/// The blocks of one directory, gathered from its extents.
#[derive(Debug)]
pub(super) struct Directory {
    number: u64,
    /// What is still to be read: place in the directory (in file system blocks), place on the volume.
    queue: VecDeque<(u64, Range<u64>)>,
    /// A directory block may be made of several file system blocks; what was read of it, and where it began.
    block: Vec<u8>,
    first: u64,
    site: Site,
}

impl Directory {
    pub(super) const fn new(number: u64, site: Site) -> Self {
        Self { number, queue: VecDeque::new(), block: Vec::new(), first: 0, site }
    }

    /// Remembers an extent; those come in order.
    pub(super) fn add(&mut self, fs: &Fs, offset: u64, range: Range<u64>) {
        if offset.checked_mul(fs.block_size).is_some_and(|at| at < HASHES) {
            self.queue.push_back((offset, range));
        }
    }

    /// Reads the next block. False if there is none left for now.
    pub(super) fn step(
        &mut self,
        fs: &Fs,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
    ) -> Result<bool, Stop> {
        let Some((offset, range)) = self.queue.pop_front() else { return Ok(false) };
        let end = add(range.start, fs.block_size, "a block")?;
        if end < range.end {
            self.queue.push_front((add(offset, 1, "a block")?, end..range.end));
        }
        let have = len64(self.block.len()).checked_div(fs.block_size).unwrap_or(0);
        if have == 0 {
            self.first = offset;
            self.site = site("XFS directory block", range.start);
        } else if self.first.checked_add(have) != Some(offset) {
            return Err(self.wrong("is incomplete"));
        }
        self.block.extend(read_vec(volume, range.start, index(fs.block_size, "a block")?)?);
        if len64(self.block.len()) == fs.directory_block {
            let block = std::mem::take(&mut self.block);
            self.read_block(fs, &block, witness)?;
        }
        Ok(true)
    }

    /// Ends a directory of blocks.
    pub(super) fn end(&self) -> Result<(), Stop> {
        if self.block.is_empty() { Ok(()) } else { Err(self.wrong("is incomplete")) }
    }

    /// Reads a directory that lies in its inode.
    pub(super) fn read_inline(&self, fs: &Fs, bytes: &[u8], witness: &mut Witness<'_>) -> Result<(), Stop> {
        self.inline_entries(fs, bytes, witness)?.ok_or_else(|| self.wrong("is damaged"))
    }

    fn inline_entries(&self, fs: &Fs, bytes: &[u8], witness: &mut Witness<'_>) -> Result<Option<()>, Stop> {
        let Some(([count, wide], mut rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
        let width = if *wide == 0 { 4 } else { 8 };
        let Some((parent, entries)) = rest.split_at_checked(width) else { return Ok(None) };
        self.names(fs, number(parent), b"..", witness)?;
        rest = entries;
        for _ in 0..*count {
            let Some(([len, _, _], tail)) = rest.split_first_chunk::<3>() else { return Ok(None) };
            let Some((name, tail)) = tail.split_at_checked(usize::from(*len)) else { return Ok(None) };
            let Some((_, tail)) = tail.split_at_checked(usize::from(fs.file_types)) else { return Ok(None) };
            let Some((inode, tail)) = tail.split_at_checked(width) else { return Ok(None) };
            self.names(fs, number(inode), name, witness)?;
            rest = tail;
        }
        Ok(Some(()))
    }

    fn read_block(&self, fs: &Fs, block: &[u8], witness: &mut Witness<'_>) -> Result<(), Stop> {
        if fs.v5 {
            let field = |at: usize, len: usize| block.get(at..).and_then(|rest| rest.get(..len));
            if !crc_fits(block, CRC_AT) {
                return Err(self.wrong("does not match its checksum"));
            }
            if field(UUID_AT, 16) != Some(&fs.meta_uuid)
                || field(OWNER_AT, 8).map(number) != Some(self.number)
            {
                return Err(self.wrong("belongs to somebody else"));
            }
            fs.check_lsn(field(LSN_AT, 8).map_or(u64::MAX, number), self.site)?;
        }
        self.block_entries(fs, block, witness)?.ok_or_else(|| self.wrong("is damaged"))
    }

    fn block_entries(&self, fs: &Fs, block: &[u8], witness: &mut Witness<'_>) -> Result<Option<()>, Stop> {
        let (alone, one_of_many, header): (&[u8], &[u8], _) =
            if fs.v5 { (b"XDB3", b"XDD3", 64) } else { (b"XD2B", b"XD2D", 16) };
        let end = if block.starts_with(alone) {
            // The hashes follow, and at the end their number, and that of those not in use.
            let at = block.len().checked_sub(8);
            let count = at.and_then(|at| block.get(at..)?.get(..4)).map(number);
            let hashes = count.and_then(|count| usize::try_from(count).ok()?.checked_mul(8));
            at.zip(hashes).and_then(|(at, hashes)| at.checked_sub(hashes))
        } else {
            block.starts_with(one_of_many).then_some(block.len())
        };
        let Some(mut rest) = end.and_then(|end| block.get(header..end)) else { return Ok(None) };
        while !rest.is_empty() {
            // What is unused may be as short as this, at the very end of a block as well.
            let Some((start, after)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            let [tag_high, tag_low, len_high, len_low, ..] = *start;
            let len = if u16::from_be_bytes([tag_high, tag_low]) == UNUSED {
                Some(usize::from(u16::from_be_bytes([len_high, len_low])))
            } else {
                let Some((&name, after)) = after.split_first() else { return Ok(None) };
                let name = usize::from(name);
                let Some(text) = after.get(..name) else { return Ok(None) };
                self.names(fs, u64::from_be_bytes(*start), text, witness)?;
                // Number, length and tag, and perhaps the type.
                let around = if fs.file_types { 12 } else { 11 };
                name.checked_add(around).and_then(|len| len.checked_next_multiple_of(8))
            };
            // Every step goes on, by whole words.
            let Some(len) = len.filter(|&len| len > 0 && len.is_multiple_of(8)) else { return Ok(None) };
            let Some(next) = rest.get(len..) else { return Ok(None) };
            rest = next;
        }
        Ok(Some(()))
    }

    /// Hears of an inode that has a name.
    fn names(&self, fs: &Fs, inode: u64, name: &[u8], witness: &mut Witness<'_>) -> Result<(), Stop> {
        let range = fs.inode_bytes(inode).ok_or_else(|| self.wrong("names an inode that does not exist"))?;
        if witness.calls_free(range.clone()) {
            let name =
                format!("{} (inode {inode}, in directory {})", String::from_utf8_lossy(name), self.number);
            witness.owns(Purpose::Structure, range, || Owner { name, site: Some(self.site) })?;
        }
        Ok(())
    }

    fn wrong(&self, what: &str) -> Stop {
        damaged(&format!("a part of directory {} {what}", self.number), self.site)
    }
}

/// A big-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}
