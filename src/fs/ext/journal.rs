//! The journal replayed in memory: what a kernel would do at the next mount, without a write.
//!
//! ```text
//!   log    descriptor data data │ commit   descriptor data │ revoke │ commit   descriptor data ┄
//!          └──── transaction 7 ────────┘   └──── transaction 8 ──────────┘     never committed
//!
//!   1. scan     which transactions are complete?
//!   2. revoke   which blocks were freed (and may hold file data by now), and until when?
//!   3. replay   every other block of every complete transaction, in order, onto the overlay
//! ```
//! **When is the result what a kernel sees?** A log ends where the next control block does not have the
//! expected number: a transaction without its commit block never happened, and is left out. Wherever a
//! kernel would stop with an error, or where kernels of different ages decide differently (a checksum
//! that is wrong inside a transaction that has its commit block, a torn commit followed by another,
//! fast commits that wait), the volume is declined. Orphans (files deleted while open) are freed by the
//! kernel after the replay; here they stay in use. Source: the kernel's `ext4/journal.rst`.

use std::collections::HashMap;
use std::ops::Range;

use super::inode::{self, FileBlocks};
use super::jbd2::{self, Format, Kind, Protection};
use super::superblock::{JournalPlace, Superblock};
use super::{checksum, features};
use crate::extents::Extents;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{Cached, Overlay, ReadAt, read_vec};

/// The longest journal that `mke2fs` makes.
const MAX_BLOCKS: u64 = 10_240_000;
/// How many control blocks, and how many revoked blocks, one log may have.
const MAX_CONTROL: usize = 1 << 20;

/// The journal of a volume, as far as it has one that can be read.
pub(super) struct Journal<'v> {
    volume: &'v dyn ReadAt,
    superblock: Superblock,
    log: Option<Log<'v>>,
}

/// What a replay brought.
pub(super) struct Replay<'v> {
    /// The volume as it will be.
    pub volume: Overlay<&'v dyn ReadAt>,
    /// How many transactions were replayed; a journal may be open and empty.
    pub transactions: usize,
}

/// Finds the journal and declines a volume whose journal contradicts the superblock.
pub(super) fn open<'v>(volume: &'v dyn ReadAt, superblock: &Superblock) -> Result<Journal<'v>, Stop> {
    let pending = superblock.features.has(features::RECOVER);
    let log = match superblock.journal {
        JournalPlace::Nowhere if pending => {
            return Err(jbd2::damaged("it must be replayed and there is none"));
        }
        JournalPlace::Elsewhere if pending => {
            return Err(cannot_replay("it lies on another device").into());
        }
        JournalPlace::Nowhere | JournalPlace::Elsewhere => None,
        JournalPlace::Inode(number) => Some(Log::open(volume, superblock, number)?),
    };
    if let Some(log) = &log {
        if log.format.error {
            return Err(Decline::new(
                DeclineReason::ErrorState,
                "The journal recorded an error of the file system. Run e2fsck on it, then try again.",
            )
            .into());
        }
        if !pending && log.format.start.is_some() {
            // A kernel would ignore this log, e2fsck would offer to replay it.
            return Err(cannot_replay("it is not empty, yet the file system says it need not be").into());
        }
    }
    Ok(Journal { volume, superblock: superblock.clone(), log })
}

impl<'v> Journal<'v> {
    /// The blocks that the journal itself is made of.
    pub(super) fn blocks(&self) -> Vec<Range<u64>> {
        self.log.as_ref().map(|log| log.file.ranges()).unwrap_or_default()
    }

    /// Replays the journal if the volume was in use; none if it was not.
    pub(super) fn replay(&self) -> Result<Option<Replay<'v>>, Stop> {
        if !self.superblock.features.has(features::RECOVER) {
            return Ok(None);
        }
        let mut overlay = Overlay::new(self.volume);
        let mut transactions = 0;
        if let Some((log, start)) = self.log.as_ref().and_then(|log| Some((log, log.format.start?))) {
            let complete = log.scan(start)?;
            let next = complete.last().map_or(log.format.sequence, |last| last.sequence.wrapping_add(1));
            log.require_no_fast_commits(next)?;
            let revoked = log.revoked(&complete)?;
            let own = Extents::from_ranges(log.file.ranges());
            for transaction in &complete {
                self.apply(log, transaction, &revoked, &own, &mut overlay)?;
            }
            transactions = complete.len();
        }
        Ok(Some(Replay { volume: overlay, transactions }))
    }

    fn apply(
        &self,
        log: &Log<'_>,
        transaction: &Transaction,
        revoked: &HashMap<u64, u32>,
        own: &Extents,
        overlay: &mut Overlay<&'v dyn ReadAt>,
    ) -> Result<(), Stop> {
        let block_size = self.superblock.block_size;
        for &descriptor in &transaction.descriptors {
            let mut at = log.after(descriptor, 1);
            for tag in log.format.tags(&log.read(descriptor)?) {
                let from = log.block(at)?;
                if log.format.has_block_checksums()
                    && !log.format.accepts_data(tag, transaction.sequence, &log.read(at)?)
                {
                    return Err(cannot_replay("a checksum in it is wrong").into());
                }
                at = log.after(at, 1);
                let stays = revoked
                    .get(&tag.block)
                    .is_some_and(|&until| !jbd2::came_after(transaction.sequence, until));
                if stays {
                    continue;
                }
                if own.contains(tag.block..tag.block.saturating_add(1)) {
                    return Err(jbd2::damaged("it would overwrite itself"));
                }
                let target = tag
                    .block
                    .checked_mul(block_size)
                    .filter(|target| {
                        target.checked_add(block_size).is_some_and(|end| end <= self.volume.size())
                    })
                    .ok_or_else(|| jbd2::damaged("it has blocks from outside the volume"))?;
                let patched = overlay
                    .patch_redirect(target, block_size, self.superblock.byte_of(from))
                    .and_then(|()| {
                        if tag.escaped {
                            overlay.patch_bytes(target, jbd2::MAGIC.to_be_bytes().to_vec())?;
                        }
                        Ok(())
                    });
                patched.map_err(|error| Stop::Decline(cannot_replay(error.summary())))?;
            }
        }
        Ok(())
    }
}

/// A complete transaction: where in the log its control blocks lie.
#[derive(Debug, Default)]
struct Transaction {
    sequence: u32,
    descriptors: Vec<u64>,
    revokes: Vec<u64>,
}

/// The journal's file and what its superblock says.
struct Log<'v> {
    volume: Cached<&'v dyn ReadAt>,
    file: FileBlocks,
    format: Format,
    block_size: u64,
    block_len: usize,
}

impl<'v> Log<'v> {
    fn open(volume: &'v dyn ReadAt, superblock: &Superblock, number: u32) -> Result<Self, Stop> {
        let file = inode::read_file(volume, superblock, number, MAX_BLOCKS)?;
        let first = file.find(0).ok_or_else(|| jbd2::damaged("its file is empty"))?;
        let block_len = superblock.block_len();
        let block = read_vec(volume, superblock.byte_of(first), block_len)?;
        let format = Format::parse(&block, superblock.block_size, file.len)?;
        Ok(Self { volume: Cached::new(volume), file, format, block_size: superblock.block_size, block_len })
    }

    /// The block of the volume that holds block `at` of the journal.
    fn block(&self, at: u64) -> Result<u64, Stop> {
        self.file.find(at).ok_or_else(|| jbd2::damaged("its file is too short"))
    }

    fn read(&self, at: u64) -> Result<Vec<u8>, Stop> {
        let block = self.block(at)?;
        Ok(read_vec(&self.volume, block.saturating_mul(self.block_size), self.block_len)?)
    }

    /// The block of the log `by` blocks after `at`, going round at the end.
    fn after(&self, at: u64, by: u64) -> u64 {
        let len = self.format.end.saturating_sub(self.format.first);
        let from_first = at.saturating_sub(self.format.first).saturating_add(by);
        self.format.first.saturating_add(from_first.checked_rem(len).unwrap_or(0))
    }

    /// The complete transactions, in order.
    fn scan(&self, start: u64) -> Result<Vec<Transaction>, Stop> {
        let mut complete = Vec::new();
        let mut current = Transaction { sequence: self.format.sequence, ..Transaction::default() };
        let mut running = checksum::START;
        // A block of the current transaction has a wrong checksum; an earlier commit block has.
        let (mut suspect, mut torn) = (false, false);
        let mut control_blocks = 0usize;
        let mut left = self.format.end.saturating_sub(self.format.first);
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
                    let tags = crate::units::len64(self.format.tags(&block).len());
                    if self.format.protection == Protection::V1 {
                        running = checksum::crc32_be(running, &block);
                        for data in 1..=tags.min(left) {
                            running = checksum::crc32_be(running, &self.read(self.after(at, data))?);
                        }
                    }
                    current.descriptors.push(at);
                    len = tags.saturating_add(1);
                }
                Kind::Revoke => {
                    suspect |= !self.format.accepts_control(&block);
                    current.revokes.push(at);
                }
                Kind::Commit => {
                    if suspect || torn {
                        return Err(cannot_replay("a checksum in it is wrong").into());
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
                        return Err(cannot_replay("the checksum of a transaction is wrong").into());
                    }
                    running = checksum::START;
                }
                Kind::Other => break,
            }
            control_blocks = control_blocks.saturating_add(1);
            left = match left.checked_sub(len) {
                Some(left) if control_blocks <= MAX_CONTROL => left,
                _ => return Err(jbd2::damaged("its log has no end")),
            };
            at = self.after(at, len);
        }
        Ok(complete)
    }

    /// The revoked blocks, each with the last transaction that it is revoked for.
    fn revoked(&self, complete: &[Transaction]) -> Result<HashMap<u64, u32>, Stop> {
        let mut revoked = HashMap::new();
        for transaction in complete {
            for &at in &transaction.revokes {
                for block in self.format.revoked(&self.read(at)?)? {
                    revoked.insert(block, transaction.sequence);
                }
                if revoked.len() > MAX_CONTROL {
                    return Err(cannot_replay("it revokes more blocks than are read").into());
                }
            }
        }
        Ok(revoked)
    }

    /// Declines where fast commits may wait for the transaction after the last complete one. They say
    /// what changed, not which blocks; only a kernel (or e2fsck) can apply them.
    fn require_no_fast_commits(&self, next: u32) -> Result<(), Stop> {
        let Some(at) = self.format.fast_commits else { return Ok(()) };
        match jbd2::fast_commit_transaction(&self.read(at)?) {
            Some(transaction) if transaction != next => Ok(()),
            _ => Err(cannot_replay("it has fast commits, which only a running system can apply").into()),
        }
    }
}

fn cannot_replay(why: &str) -> Decline {
    Decline::new(
        DeclineReason::JournalPending,
        format!(
            "The file system was in use when this image was taken, and its journal cannot be replayed here: \
             {why}. Start the system (or mount the file system) once, shut it down cleanly, then try again."
        ),
    )
}
