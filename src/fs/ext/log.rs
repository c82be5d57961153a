//! The log of a journal: its file, read as a ring of blocks, and the transactions that are complete.
//!
//! ```text
//!   s_start, s_sequence = 7                          the next block is not of transaction 9
//!     ▼                                                                  ▼
//!     descriptor data data │ revoke │ commit 7 ─ descriptor data │ commit 8 ┄ old blocks
//! ```

use std::collections::HashMap;

use super::checksum;
use super::file::{self, FileBlocks};
use super::jbd2::{self, Format, Kind, Protection};
use super::superblock::Superblock;
use crate::fs::Stop;
use crate::io::{Cached, ReadAt, read_vec};
use crate::units::{add, len64, mul};

/// The longest journal that `mke2fs` makes.
const MAX_BLOCKS: u64 = 10_240_000;
/// How many control blocks, and how many revoked blocks, one log may have.
const MAX_CONTROL: u64 = 1 << 19;

/// A complete transaction: where in the log its control blocks lie.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub sequence: u32,
    pub descriptors: Vec<u64>,
    pub revokes: Vec<u64>,
}

/// The journal's file and what its superblock says.
pub(super) struct Log<'v> {
    volume: Cached<&'v dyn ReadAt>,
    pub file: FileBlocks,
    pub format: Format,
    block_size: u64,
    block_len: usize,
}

impl<'v> Log<'v> {
    pub(super) fn open(volume: &'v dyn ReadAt, superblock: &Superblock, number: u32) -> Result<Self, Stop> {
        let file = file::read_file(volume, superblock, number, MAX_BLOCKS)?;
        let first = file.find(0).ok_or_else(|| jbd2::damaged("its file is empty"))?;
        let block_len = superblock.block_len()?;
        let block = read_vec(volume, superblock.byte_of(first)?, block_len)?;
        let format = Format::parse(&block, superblock.block_size, file.len)?;
        Ok(Self { volume: Cached::new(volume), file, format, block_size: superblock.block_size, block_len })
    }

    /// The block of the volume that holds block `at` of the journal.
    pub(super) fn block(&self, at: u64) -> Result<u64, Stop> {
        self.file.find(at).ok_or_else(|| jbd2::damaged("its file is too short"))
    }

    pub(super) fn read(&self, at: u64) -> Result<Vec<u8>, Stop> {
        let block = self.block(at)?;
        Ok(read_vec(&self.volume, mul(block, self.block_size, "a block of the journal")?, self.block_len)?)
    }

    /// How many blocks the log goes round in.
    fn len(&self) -> Result<u64, Stop> {
        let len = self.format.end.checked_sub(self.format.first).filter(|&len| len > 0);
        len.ok_or_else(|| jbd2::damaged("its log has no blocks"))
    }

    /// The block of the log `by` blocks after `at`, going round at the end.
    pub(super) fn after(&self, at: u64, by: u64) -> Result<u64, Stop> {
        let inside = at.checked_sub(self.format.first).and_then(|inside| inside.checked_add(by));
        let round = inside.and_then(|inside| inside.checked_rem(self.len().ok()?));
        let block = round.and_then(|round| self.format.first.checked_add(round));
        block.ok_or_else(|| jbd2::damaged("its log leads outside it"))
    }

    /// The complete transactions, in order.
    pub(super) fn scan(&self, start: u64) -> Result<Vec<Transaction>, Stop> {
        let mut complete = Vec::new();
        let mut current = Transaction { sequence: self.format.sequence, ..Transaction::default() };
        let mut running = checksum::START;
        // A block of the current transaction has a wrong checksum; an earlier commit block has.
        let (mut suspect, mut torn) = (false, false);
        let mut control_blocks = 0u64;
        let mut left = self.len()?;
        let mut at = start;
        loop {
            let block = self.read(at)?;
            let Some((kind, _)) = jbd2::header(&block).filter(|&(_, number)| number == current.sequence)
            else {
                break;
            };
            let mut len = 1;
            match kind {
                Kind::Descriptor => {
                    suspect |= !self.format.accepts_control(&block);
                    let tags = len64(self.format.tags(&block).len());
                    if self.format.protection == Protection::V1 {
                        running = checksum::crc32_be(running, &block);
                        for data in 1..=tags.min(left) {
                            running = checksum::crc32_be(running, &self.read(self.after(at, data)?)?);
                        }
                    }
                    current.descriptors.push(at);
                    len = add(tags, 1, "a transaction")?;
                }
                Kind::Revoke => {
                    suspect |= !self.format.accepts_control(&block);
                    current.revokes.push(at);
                }
                Kind::Commit => {
                    if suspect || torn {
                        return Err(jbd2::refused_by_kernel("a checksum in it is wrong").into());
                    }
                    let sequence = current.sequence.wrapping_add(1);
                    let transaction =
                        std::mem::replace(&mut current, Transaction { sequence, ..Transaction::default() });
                    if self.format.accepts_commit(&block, running) {
                        complete.push(transaction);
                    } else if self.format.async_commit {
                        // Written before what it commits, which never arrived. True if nothing follows.
                        torn = true;
                    } else {
                        return Err(jbd2::refused_by_kernel("the checksum of a transaction is wrong").into());
                    }
                    running = checksum::START;
                }
                Kind::Other => break,
            }
            control_blocks = add(control_blocks, 1, "the journal's control blocks")?;
            if control_blocks > MAX_CONTROL {
                return Err(jbd2::pending("it has more transactions than are read").into());
            }
            left = left.checked_sub(len).ok_or_else(|| jbd2::damaged("its log has no end"))?;
            at = self.after(at, len)?;
        }
        Ok(complete)
    }

    /// The revoked blocks, each with the last transaction that it is revoked for.
    pub(super) fn revoked(&self, complete: &[Transaction]) -> Result<HashMap<u64, u32>, Stop> {
        let mut revoked = HashMap::new();
        for transaction in complete {
            for &at in &transaction.revokes {
                for block in self.format.revoked(&self.read(at)?)? {
                    revoked.insert(block, transaction.sequence);
                }
                if len64(revoked.len()) > MAX_CONTROL {
                    return Err(jbd2::pending("it revokes more blocks than are read").into());
                }
            }
        }
        Ok(revoked)
    }

    /// Declines where fast commits may wait for the transaction after the last complete one. They say
    /// what changed, not which blocks; only a kernel (or e2fsck) can apply them.
    pub(super) fn require_no_fast_commits(&self, next: u32) -> Result<(), Stop> {
        let Some(at) = self.format.fast_commits else { return Ok(()) };
        match jbd2::fast_commit_transaction(&self.read(at)?) {
            Some(transaction) if transaction != next => Ok(()),
            _ => Err(jbd2::pending("it has fast commits, which only a running system can apply").into()),
        }
    }
}
