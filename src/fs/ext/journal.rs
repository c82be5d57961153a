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

use super::log::{Log, Transaction};
use super::superblock::{JournalPlace, Superblock};
use super::{features, jbd2};
use crate::extents::Extents;
use crate::fs::{Decline, DeclineReason, Stop};
use crate::io::{Overlay, ReadAt};
use crate::units::add;

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
            return Err(jbd2::pending("it lies on another device").into());
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
            return Err(jbd2::pending("it is not empty, yet the file system says it need not be").into());
        }
    }
    Ok(Journal { volume, superblock: superblock.clone(), log })
}

impl<'v> Journal<'v> {
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
            let own = Extents::from_ranges(log.file.ranges()?);
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
            let mut at = log.after(descriptor, 1)?;
            for tag in log.format.tags(&log.read(descriptor)?) {
                let (from, in_log) = (log.block(at)?, at);
                at = log.after(at, 1)?;
                let stays = revoked
                    .get(&tag.block)
                    .is_some_and(|&until| !jbd2::came_after(transaction.sequence, until));
                if stays {
                    continue;
                }
                if log.format.has_block_checksums()
                    && !log.format.accepts_data(tag, transaction.sequence, &log.read(in_log)?)
                {
                    return Err(jbd2::refused_by_kernel("a checksum in it is wrong").into());
                }
                if own.contains(tag.block..add(tag.block, 1, "a block of the journal")?) {
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
                    .patch_redirect(target, block_size, self.superblock.byte_of(from)?)
                    .and_then(|()| {
                        if tag.escaped {
                            overlay.patch_bytes(target, jbd2::MAGIC.to_be_bytes().to_vec())?;
                        }
                        Ok(())
                    });
                patched.map_err(|error| Stop::from(jbd2::pending(error.summary())))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::fs::DeclineReason::{ErrorState, Inconsistent, JournalPending, UnknownFeature};
    use crate::fs::ext::checksum;
    use crate::fs::ext::raw_superblock;
    use crate::fs::ext::sample::{
        BLOCK, DESCRIPTORS, FREE, JOURNAL, Log, Protection as Kind, SUPERBLOCK, Sample, sample_free,
    };
    use crate::io::read_vec;

    const KINDS: [Kind; 4] = [Kind::None, Kind::V1, Kind::V2, Kind::V3];

    /// The sample after `used` more blocks of group 0 were allocated; as after a crash, the count in
    /// the superblock is the old one.
    fn allocated(used: usize) -> Sample {
        let mut sample = Sample::new();
        sample.use_bits(0, 116..116 + used);
        sample.put16(DESCRIPTORS + 0xC, u16::try_from(FREE[0]).unwrap() - u16::try_from(used).unwrap());
        sample.seal();
        sample
    }

    fn free_after(used: u64) -> Vec<Range<u64>> {
        let mut free = sample_free();
        free[0].start += used * 1024;
        free
    }

    #[track_caller]
    fn assert_free(log: &Log, used: u64) {
        let sample = Sample::in_use(log);
        assert_eq!(sample.mapped().free.ranges(), free_after(used));
        assert_eq!(sample.detect().warnings[0].code, "journal-replayed");
    }

    #[track_caller]
    /// Linux would not mount it either.
    fn assert_refused(log: &Log) {
        let decline = Sample::in_use(log).declined();
        assert_eq!(decline.reason, JournalPending, "{decline:?}");
        assert!(decline.detail.contains("e2fsck -f"), "what to do about it: {}", decline.detail);
    }

    fn log(kind: Kind, steps: &[usize]) -> Log {
        let mut log = Log::new(kind);
        let mut before = Sample::new();
        for &used in steps {
            let after = allocated(used);
            log.change(&before, &after);
            before = after;
        }
        log
    }

    #[test]
    fn complete_transactions_are_replayed_in_order() {
        for kind in KINDS {
            assert_free(&log(kind, &[5]), 5);
            assert_free(&log(kind, &[5, 9, 2]), 2);
        }
    }

    #[test]
    fn a_volume_in_use_whose_log_is_empty_is_as_it_lies() {
        assert_free(&Log::new(Kind::V3), 0);
    }

    #[test]
    fn the_log_goes_round() {
        for start in [1090, 1095, 1097, 1099] {
            let mut log = log(Kind::V3, &[5, 9]);
            log.start = start;
            assert_free(&log, 9);
        }
    }

    #[test]
    fn sequence_numbers_go_round() {
        let mut log = Log::new(Kind::V3);
        log.sequence = u32::MAX;
        log.change(&Sample::new(), &allocated(5)).change(&allocated(5), &allocated(6));
        assert_free(&log, 6);
    }

    #[test]
    fn a_transaction_without_its_commit_block_never_happened() {
        for kind in KINDS {
            let mut log = log(kind, &[5, 9]);
            log.blocks.pop();
            assert_free(&log, 5);
        }
    }

    #[test]
    fn an_old_transaction_behind_the_newest_is_not_taken_for_the_next() {
        let mut log = log(Kind::None, &[5]);
        log.sequence = 3;
        log.change(&allocated(5), &allocated(9));
        assert_free(&log, 5);
    }

    #[test]
    fn revoked_blocks_stay_until_they_are_written_again() {
        let garbage = [(2u64, vec![0xAA; BLOCK])];
        for kind in KINDS {
            let mut log = Log::new(kind);
            log.write(&garbage).commit().write(&garbage).revoke(&[2]).commit();
            assert_free(&log, 0);
            log.change(&Sample::new(), &allocated(5));
            assert_free(&log, 5);
            log.revoke(&[99, 2, 98]).commit();
            assert_eq!(Sample::in_use(&log).declined().reason, Inconsistent, "a new bitmap, an old count");
        }
    }

    #[test]
    fn blocks_that_began_with_the_magic_number_begin_with_it_again() {
        let mut block = jbd2::MAGIC.to_be_bytes().to_vec();
        block.resize(BLOCK, 7);
        let mut log = Log::new(Kind::V3);
        log.write(&[(100, block.clone()), (101, vec![7; BLOCK])]).commit();
        let sample = Sample::in_use(&log);
        let raw = raw_superblock::read(&sample.bytes).unwrap();
        let parsed = Superblock::parse(&raw, sample.bytes.size()).unwrap();
        let replay = open(&sample.bytes, &parsed).unwrap().replay().unwrap().unwrap();
        assert_eq!(read_vec(&replay.volume, 100 * 1024, BLOCK).unwrap(), block);
        assert_eq!(read_vec(&replay.volume, 101 * 1024, BLOCK).unwrap(), vec![7; BLOCK]);
    }

    #[test]
    fn a_wrong_checksum_inside_a_complete_transaction_declines() {
        for kind in [Kind::V1, Kind::V2, Kind::V3] {
            let good = log(kind, &[5]);
            for position in 0..good.blocks.len() {
                let mut log = good.clone();
                log.blocks[position][500] ^= 1;
                if kind == Kind::V1 && position + 1 == good.blocks.len() {
                    assert_free(&log, 5); // Version 1 does not cover the commit block itself.
                } else {
                    assert_refused(&log);
                }
            }
        }
        let mut log = Log::new(Kind::V3);
        log.write(&[(100, vec![])]).revoke(&[100]).commit();
        log.blocks[2][500] ^= 1;
        assert_refused(&log);
    }

    #[test]
    fn a_wrong_checksum_inside_an_incomplete_transaction_does_not_matter() {
        for kind in [Kind::V1, Kind::V2, Kind::V3] {
            let mut log = log(kind, &[5, 9]);
            log.blocks.pop();
            for block in log.blocks.iter_mut().skip(4) {
                block[1000] ^= 1;
            }
            assert_free(&log, 5);
        }
    }

    #[test]
    fn a_torn_asynchronous_commit_ends_the_log_if_nothing_follows() {
        for kind in [Kind::V1, Kind::V2, Kind::V3] {
            let mut log = log(kind, &[5, 9]);
            log.incompat |= 0x4;
            assert_free(&log, 9);
            log.blocks.last_mut().unwrap()[0x11] ^= 1;
            assert_free(&log, 5);
            log.change(&allocated(9), &allocated(10));
            assert_refused(&log);
        }
    }

    #[test]
    fn version_1_lets_a_transaction_go_without_a_checksum() {
        let mut log = log(Kind::V1, &[5]);
        log.blocks.last_mut().unwrap()[0xC..0x14].fill(0);
        assert_free(&log, 5);
    }

    #[test]
    fn fast_commits_that_may_wait_decline() {
        let with_head = |head: &[u8]| {
            let mut log = log(Kind::V3, &[5]);
            log.incompat |= 0x20;
            let mut sample = Sample::in_use(&log);
            // 50 blocks of fast commits, of which the first is not used.
            let at = usize::try_from(JOURNAL).unwrap() * BLOCK;
            sample.bytes[at + 0x54..at + 0x58].copy_from_slice(&50u32.to_be_bytes());
            sample.bytes[at + 0xFC..at + 0x100].fill(0);
            let crc = checksum::crc32c(checksum::START, &sample.bytes[at..at + BLOCK]);
            sample.bytes[at + 0xFC..at + 0x100].copy_from_slice(&crc.to_be_bytes());
            sample.bytes[at + 1051 * BLOCK..][..head.len()].copy_from_slice(head);
            sample
        };
        let head = |transaction: u8| [9, 0, 8, 0, 0, 0, 0, 0, transaction, 0, 0, 0];
        assert_eq!(with_head(&head(8)).declined().reason, JournalPending);
        assert_eq!(with_head(&[0; 12]).declined().reason, JournalPending, "no kernel takes that");
        assert_eq!(with_head(&[1, 0, 8, 0]).declined().reason, JournalPending);
        assert_eq!(with_head(&head(7)).mapped().free.ranges(), free_after(5), "of an earlier transaction");
    }

    #[test]
    fn a_journal_that_contradicts_the_superblock_declines() {
        let recover = |sample: Sample| sample.with_bits(0x60, 0x4);
        for (what, sample, reason) in [
            ("none to replay", recover(Sample::new().with32(0x5C, 0x10)), Inconsistent),
            ("elsewhere", recover(Sample::new().with32(0xE0, 0)), JournalPending),
            ("no such inode", Sample::new().with32(0xE0, 97), Inconsistent),
            ("an inode that is no file", Sample::new().with32(0xE0, 9), Inconsistent),
        ] {
            let decline = sample.declined();
            assert_eq!(decline.reason, reason, "{what}: {decline:?}");
        }
        Sample::new().with32(0xE0, 0).mapped();
        Sample::new().with32(0x5C, 0x10).mapped();

        let mut unannounced = Sample::new();
        unannounced.put_log(&log(Kind::V3, &[5]));
        assert_eq!(unannounced.declined().reason, JournalPending);
        let mut error = Log::new(Kind::V3);
        error.errno = 5;
        let mut sample = Sample::new();
        sample.put_log(&error);
        assert_eq!(sample.declined().reason, ErrorState);
    }

    #[test]
    fn what_the_log_makes_of_the_superblock_counts() {
        let replayed = |after: Sample| {
            let mut log = Log::new(Kind::V3);
            log.change(&Sample::new(), &after);
            Sample::in_use(&log)
        };
        assert_eq!(replayed(Sample::new().with16(0x3A, 3)).declined().reason, ErrorState);
        assert_eq!(replayed(Sample::new().with_bits(0x64, 0x800)).declined().reason, UnknownFeature);
        let mut wiped = Sample::new();
        wiped.put16(SUPERBLOCK + 0x38, 0);
        assert_eq!(replayed(wiped).declined().reason, Inconsistent);
        replayed(Sample::new().with32(0xC, 1)).mapped();
    }

    #[test]
    fn a_hostile_log_declines() {
        let declines = |log: &Log| {
            let decline = Sample::in_use(log).declined();
            assert_eq!(decline.reason, Inconsistent, "{decline:?}");
            decline.detail
        };
        let mut endless = Log::new(Kind::V3);
        for _ in 0..1099 {
            endless.revoke(&[]);
        }
        assert!(declines(&endless).contains("has no end"));
        let mut outside = Log::new(Kind::V3);
        outside.write(&[(5000, vec![])]).commit();
        assert!(declines(&outside).contains("outside the volume"));
        let mut far_outside = Log::new(Kind::V3);
        far_outside.write(&[(u64::MAX / 2, vec![])]).commit();
        assert!(declines(&far_outside).contains("outside the volume"));
        let mut itself = Log::new(Kind::V3);
        itself.write(&[(JOURNAL + 3, vec![])]).commit();
        assert!(declines(&itself).contains("overwrite itself"));
        let mut long = Log::new(Kind::None);
        long.revoke(&[]).commit();
        long.blocks[0][14..16].copy_from_slice(&[0x7F, 0xFF]);
        assert!(declines(&long).contains("longer than a block"));
    }
}
