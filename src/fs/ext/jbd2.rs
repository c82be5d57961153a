//! The format of a jbd2 journal: every number is big-endian.
//!
//! ```text
//!   block 0        superblock      what the journal is, where its log begins
//!   s_first …      log, circular   ┌ descriptor │ data │ data … ┐┌ revoke ┐┌ commit ┐  one transaction
//!   the last few   fast commits
//!
//!   any control block   0x0 h_magic 0xC03B3998   0x4 h_blocktype   0x8 h_sequence
//!   descriptor          0xC tags (where each data block belongs) …        checksum of the block
//!   revoke              0xC r_count │ blocks not to be overwritten …      checksum of the block
//!   commit              0xC h_chksum_type │ h_chksum_size │ 0x10 h_chksum
//! ```
//! Source: the kernel's `ext4/journal.rst`.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum;
use crate::fs::{Decline, DeclineReason, Stop};

/// What every control block begins with, and what an escaped data block began with.
pub(super) const MAGIC: u32 = 0xC03B_3998;
const SUPERBLOCK_V1: u32 = 3;
const SUPERBLOCK_V2: u32 = 4;

const COMPAT_CHECKSUM: u32 = 0x1;
const INCOMPAT_64BIT: u32 = 0x2;
const INCOMPAT_ASYNC_COMMIT: u32 = 0x4;
const INCOMPAT_CSUM_V2: u32 = 0x8;
const INCOMPAT_CSUM_V3: u32 = 0x10;
const INCOMPAT_FAST_COMMIT: u32 = 0x20;
/// Revoke records, and all of the above.
const UNDERSTOOD_INCOMPAT: u32 = 0x3F;
/// s_checksum_type: CRC-32C.
const CRC32C: u8 = 4;
/// Blocks for fast commits where the superblock does not say how many.
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
/// The shortest log that a kernel takes.
const MIN_LOG_BLOCKS: u64 = 1024;

const FLAG_ESCAPED: u16 = 0x1;
const FLAG_SAME_UUID: u16 = 0x2;
const FLAG_LAST: u16 = 0x8;
/// Where the tags or revoke records of a control block begin.
const TAGS_AT: usize = 12;
const RECORDS_AT: usize = 16;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawSuperblock {
    h_magic: U32,
    h_blocktype: U32,
    h_sequence: U32,
    s_blocksize: U32,
    s_maxlen: U32,
    s_first: U32,
    s_sequence: U32,
    s_start: U32,
    s_errno: U32,
    s_feature_compat: U32,
    s_feature_incompat: U32,
    s_feature_ro_compat: U32,
    s_uuid: [u8; 16],
    s_nr_users: U32,
    s_dynsuper: U32,
    s_max_transaction: U32,
    s_max_trans_data: U32,
    s_checksum_type: u8,
    s_padding2: [u8; 3],
    s_num_fc_blks: U32,
    s_head: U32,
    s_padding: [u8; 160],
    s_checksum: U32,
    s_users: [u8; 768],
}

/// How the log is protected against half-written transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    None,
    /// One CRC-32 over a transaction's descriptors and data.
    V1,
    /// CRC-32C of each block; half of it in the tags.
    V2,
    /// CRC-32C of each block.
    V3,
}

/// A journal's superblock whose numbers make sense.
#[derive(Debug, Clone)]
pub(super) struct Format {
    /// The blocks of the file that the log goes round in.
    pub first: u64,
    pub end: u64,
    /// Where the log begins; none if it is empty.
    pub start: Option<u64>,
    /// The sequence number of the first transaction.
    pub sequence: u32,
    /// Whether the file system recorded an error here.
    pub error: bool,
    pub protection: Protection,
    /// Whether a commit block may be written before what it commits.
    pub async_commit: bool,
    /// The first block of fast commits, if there may be any.
    pub fast_commits: Option<u64>,
    wide: bool,
    seed: u32,
}

/// What a control block is, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Descriptor,
    Commit,
    Revoke,
    Other,
}

/// Where one data block of a transaction belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub block: u64,
    /// Whether the block began with the magic number, which was taken out.
    pub escaped: bool,
    checksum: u32,
}

/// The kind and the sequence number of a control block; none if it is no control block.
pub(super) fn header(block: &[u8]) -> Option<(Kind, u32)> {
    let ([magic, kind, sequence], _) = <[U32; 3]>::read_from_prefix(block).ok()?;
    (magic.get() == MAGIC).then_some(())?;
    let kind = match kind.get() {
        1 => Kind::Descriptor,
        2 => Kind::Commit,
        5 => Kind::Revoke,
        _ => Kind::Other,
    };
    Some((kind, sequence.get()))
}

impl Format {
    /// Makes sense of block 0 of a journal of `file_blocks` blocks.
    pub(super) fn parse(block: &[u8], block_size: u64, file_blocks: u64) -> Result<Self, Stop> {
        let Ok((raw, _)) = RawSuperblock::read_from_prefix(block) else {
            return Err(crate::Error::internal("a journal superblock was read with the wrong length").into());
        };
        let version = raw.h_blocktype.get();
        if raw.h_magic.get() != MAGIC || !(SUPERBLOCK_V1..=SUPERBLOCK_V2).contains(&version) {
            return Err(damaged("it has no superblock"));
        }
        let feature = |word: U32| if version == SUPERBLOCK_V2 { word.get() } else { 0 };
        let (compat, incompat) = (feature(raw.s_feature_compat), feature(raw.s_feature_incompat));
        let unknown =
            [compat & !COMPAT_CHECKSUM, incompat & !UNDERSTOOD_INCOMPAT, feature(raw.s_feature_ro_compat)];
        if unknown != [0; 3] {
            return Err(Decline::new(
                DeclineReason::UnknownFeature,
                format!(
                    "The journal uses features that are not understood (compat {:#x}, incompat {:#x}, \
                     ro_compat {:#x}).",
                    unknown[0], unknown[1], unknown[2]
                ),
            )
            .into());
        }
        let protection =
            match (compat & COMPAT_CHECKSUM != 0, incompat & (INCOMPAT_CSUM_V2 | INCOMPAT_CSUM_V3)) {
                (false, 0) => Protection::None,
                (true, 0) => Protection::V1,
                (false, INCOMPAT_CSUM_V2) => Protection::V2,
                (false, INCOMPAT_CSUM_V3) => Protection::V3,
                _ => return Err(damaged("it has two kinds of checksums at once")),
            };
        if matches!(protection, Protection::V2 | Protection::V3) {
            require_checksum(&raw)?;
        }

        let (max, first) = (u64::from(raw.s_maxlen.get()), u64::from(raw.s_first.get()));
        if u64::from(raw.s_blocksize.get()) != block_size || max > file_blocks || first == 0 || first >= max {
            return Err(damaged("its superblock does not fit its file"));
        }
        let mut end = max;
        let mut fast_commits = None;
        if incompat & INCOMPAT_FAST_COMMIT != 0 {
            let given = raw.s_num_fc_blks.get();
            let count = if given == 0 { DEFAULT_FAST_COMMIT_BLOCKS } else { given };
            end = max
                .checked_sub(count.into())
                .filter(|&end| end >= MIN_LOG_BLOCKS && end > first)
                .ok_or_else(|| damaged("it has no room for fast commits"))?;
            fast_commits = end.checked_add(1).filter(|&at| at < max);
        }
        let start = Some(u64::from(raw.s_start.get())).filter(|&start| start != 0);
        if start.is_some_and(|start| !(first..end).contains(&start)) {
            return Err(damaged("its log begins outside it"));
        }
        // The superblock and the log; `first` is below `end`, see above.
        let len = end.checked_sub(first).and_then(|len| len.checked_add(1));
        if start.is_some() && len.is_none_or(|len| len < MIN_LOG_BLOCKS) {
            return Err(damaged("its log is shorter than a kernel takes"));
        }
        Ok(Self {
            first,
            end,
            start,
            sequence: raw.s_sequence.get(),
            error: raw.s_errno.get() != 0,
            protection,
            async_commit: incompat & INCOMPAT_ASYNC_COMMIT != 0,
            fast_commits,
            wide: incompat & INCOMPAT_64BIT != 0,
            seed: checksum::crc32c(checksum::START, &raw.s_uuid),
        })
    }

    /// The tags of a descriptor block, up to the last one or the end of the block.
    pub(super) fn tags(&self, block: &[u8]) -> Vec<Tag> {
        // Where the block ends, so do the tags, as a kernel reads them.
        let mut rest = self.without_tail(block).get(TAGS_AT..).unwrap_or(&[]);
        let mut tags = Vec::new();
        while let Some((tag, flags, after)) = self.split_tag(rest) {
            tags.push(tag);
            rest = after;
            if flags & FLAG_SAME_UUID == 0 {
                rest = rest.get(16..).unwrap_or(&[]);
            }
            if flags & FLAG_LAST != 0 {
                break;
            }
        }
        tags
    }

    /// The first tag of `bytes`, its flags, and what follows it.
    fn split_tag<'b>(&self, bytes: &'b [u8]) -> Option<(Tag, u16, &'b [u8])> {
        let (low, rest) = U32::read_from_prefix(bytes).ok()?;
        let (checksum, flags, high, after) = if self.protection == Protection::V3 {
            let ([flags, high, checksum], after) = <[U32; 3]>::read_from_prefix(rest).ok()?;
            let [_, _, a, b] = flags.get().to_be_bytes();
            (checksum.get(), u16::from_be_bytes([a, b]), high.get(), after)
        } else {
            let ([checksum, flags], rest) = <[U16; 2]>::read_from_prefix(rest).ok()?;
            let (high, rest) = if self.wide {
                let (high, rest) = U32::read_from_prefix(rest).ok()?;
                (high.get(), rest)
            } else {
                (0, rest)
            };
            // Version 2 has two more bytes in every tag that nothing uses.
            let after = if self.protection == Protection::V2 { rest.get(2..)? } else { rest };
            (u32::from(checksum.get()), flags.get(), high, after)
        };
        let high = if self.wide { u64::from(high) << 32 } else { 0 };
        let tag = Tag { block: high | u64::from(low.get()), escaped: flags & FLAG_ESCAPED != 0, checksum };
        Some((tag, flags, after))
    }

    /// The blocks that a revoke block names.
    pub(super) fn revoked<'b>(&self, block: &'b [u8]) -> Result<Box<dyn Iterator<Item = u64> + 'b>, Stop> {
        let count = block.get(TAGS_AT..).and_then(|rest| U32::read_from_prefix(rest).ok());
        let end = count.and_then(|(count, _)| usize::try_from(count.get()).ok()).unwrap_or(usize::MAX);
        if end > self.without_tail(block).len() {
            return Err(damaged("one of its lists of revoked blocks is longer than a block"));
        }
        // A count that does not even cover the header lists nothing, to a kernel, too.
        let records = block.get(RECORDS_AT..end).unwrap_or(&[]);
        Ok(if self.wide {
            let (records, _) = records.as_chunks::<8>();
            Box::new(records.iter().map(|&record| U64::from_bytes(record).get()))
        } else {
            let (records, _) = records.as_chunks::<4>();
            Box::new(records.iter().map(|&record| U32::from_bytes(record).get().into()))
        })
    }

    /// Whether the checksum at the end of a descriptor or revoke block is right.
    pub(super) fn accepts_control(&self, block: &[u8]) -> bool {
        if !self.has_block_checksums() {
            return true;
        }
        let covered = self.without_tail(block);
        let crc = checksum::crc32c(checksum::crc32c(self.seed, covered), &[0; 4]);
        block.last_chunk::<4>().is_some_and(|&tail| u32::from_be_bytes(tail) == crc)
    }

    /// Whether a commit block is whole. `running` is the checksum of what it commits (version 1).
    pub(super) fn accepts_commit(&self, block: &[u8], running: u32) -> bool {
        let Some((before, [kind, size, _, _, a, b, c, d, after @ ..])) = block.split_at_checked(TAGS_AT)
        else {
            return false;
        };
        let found = u32::from_be_bytes([*a, *b, *c, *d]);
        match self.protection {
            Protection::None => true,
            Protection::V1 => (*kind, *size, found) == (1, 4, running) || (*kind, *size, found) == (0, 0, 0),
            Protection::V2 | Protection::V3 => {
                let Some(between) = block.get(TAGS_AT..RECORDS_AT) else { return false };
                let crc = [before, between, &[0; 4], after].into_iter().fold(self.seed, checksum::crc32c);
                crc == found
            }
        }
    }

    /// Whether a data block, as it lies in the log, is the one that `tag` means.
    pub(super) fn accepts_data(&self, tag: Tag, sequence: u32, block: &[u8]) -> bool {
        let crc = || checksum::crc32c(checksum::crc32c(self.seed, &sequence.to_be_bytes()), block);
        match self.protection {
            Protection::None | Protection::V1 => true,
            Protection::V2 => crc() & u32::from(u16::MAX) == tag.checksum,
            Protection::V3 => crc() == tag.checksum,
        }
    }

    /// Whether data blocks have checksums of their own.
    pub(super) fn has_block_checksums(&self) -> bool {
        matches!(self.protection, Protection::V2 | Protection::V3)
    }

    fn without_tail<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        let tail = if self.has_block_checksums() { 4 } else { 0 };
        block.len().checked_sub(tail).and_then(|len| block.get(..len)).unwrap_or(&[])
    }
}

fn require_checksum(raw: &RawSuperblock) -> Result<(), Stop> {
    if raw.s_checksum_type != CRC32C {
        return Err(damaged("its checksums are of an unknown type"));
    }
    let (Some(before), Some(after)) = (raw.as_bytes().get(..0xFC), raw.as_bytes().get(0x100..)) else {
        return Err(damaged("its superblock is cut off"));
    };
    let crc = [before, &[0; 4], after].into_iter().fold(checksum::START, checksum::crc32c);
    if crc == raw.s_checksum.get() { Ok(()) } else { Err(damaged("the checksum of its superblock is wrong")) }
}

/// A journal that a kernel would not take.
pub(super) fn damaged(what: &str) -> Stop {
    Decline::new(
        DeclineReason::Inconsistent,
        format!("The journal is damaged: {what}. Run e2fsck on the file system, then try again."),
    )
    .into()
}

/// A journal with something in it that cannot be replayed here.
pub(super) fn pending(why: &str) -> Decline {
    Decline::new(
        DeclineReason::JournalPending,
        format!(
            "The file system was in use when this image was taken, and its journal cannot be replayed here: \
             {why}. Start the system (or mount the file system) once, shut it down cleanly, then try again."
        ),
    )
}

/// A journal that the kernel refuses to replay, so that starting the system is no remedy.
pub(super) fn refused_by_kernel(why: &str) -> Decline {
    Decline::new(
        DeclineReason::JournalPending,
        format!(
            "The file system was in use when this image was taken, and its journal cannot be replayed: {why}. Linux \
             refuses to mount it like this, so starting the system does not help. Run `e2fsck -f` on it from another \
             system, then try again."
        ),
    )
}

/// Whether transaction `a` came after transaction `b`: sequence numbers go round.
pub(super) fn came_after(a: u32, b: u32) -> bool {
    (1..1 << 31).contains(&a.wrapping_sub(b))
}

/// The transaction of the fast commits in a block of them, if it begins with a header.
pub(super) fn fast_commit_transaction(block: &[u8]) -> Option<u32> {
    use zerocopy::byteorder::little_endian as le;
    #[derive(FromBytes, Immutable, KnownLayout)]
    #[repr(C)]
    struct Head {
        fc_tag: le::U16,
        fc_len: le::U16,
        fc_features: le::U32,
        fc_tid: le::U32,
    }
    let (head, _) = Head::read_from_prefix(block).ok()?;
    (head.fc_tag.get() == 9 && head.fc_len.get() == 8 && head.fc_features.get() == 0)
        .then(|| head.fc_tid.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::{self, Log};

    fn format(protection: sample::Protection) -> Format {
        Format::parse(&Log::new(protection).superblock(), 1024, 1100).unwrap()
    }

    #[test]
    fn the_superblock_has_its_size_and_its_fields_their_places() {
        use std::mem::offset_of;
        assert_eq!(size_of::<RawSuperblock>(), 1024);
        assert_eq!(offset_of!(RawSuperblock, s_feature_incompat), 0x28);
        assert_eq!(offset_of!(RawSuperblock, s_num_fc_blks), 0x54);
        assert_eq!(offset_of!(RawSuperblock, s_checksum), 0xFC);
    }

    #[test]
    fn tags_are_as_long_as_the_features_say() {
        let writes = [(5, vec![1]), (0x1_0000_0006, MAGIC.to_be_bytes().to_vec())];
        for protection in
            [sample::Protection::None, sample::Protection::V1, sample::Protection::V2, sample::Protection::V3]
        {
            let mut log = Log::new(protection);
            log.write(&writes);
            let format = format(protection);
            let tags = format.tags(&log.blocks[0]);
            let found: Vec<(u64, bool)> = tags.iter().map(|tag| (tag.block, tag.escaped)).collect();
            assert_eq!(found, [(5, false), (0x1_0000_0006, true)], "{protection:?}");
            for (tag, block) in tags.iter().zip(&log.blocks[1..]) {
                assert!(format.accepts_data(*tag, 7, block), "{protection:?}");
                assert_eq!(format.accepts_data(*tag, 8, block), !format.has_block_checksums());
            }
            assert!(format.accepts_control(&log.blocks[0]));
        }
    }

    #[test]
    fn narrow_tags_have_no_upper_halves() {
        let narrow = Format { wide: false, ..format(sample::Protection::None) };
        let words = [MAGIC, 1, 7, 5, 0x2, 6, 0x2 | 0x8, 99].map(u32::to_be_bytes).concat();
        let blocks: Vec<u64> = narrow.tags(&words).iter().map(|tag| tag.block).collect();
        assert_eq!(blocks, [5, 6]);
        let revoke = [MAGIC, 5, 7, 24, 77, 78, 79].map(u32::to_be_bytes).concat();
        assert_eq!(narrow.revoked(&revoke).unwrap().collect::<Vec<_>>(), [77, 78]);
    }

    #[test]
    fn a_descriptor_without_a_last_tag_ends_with_its_block() {
        let format = format(sample::Protection::V3);
        let block = vec![0; 1024];
        // 31 tags with their UUIDs, and one whose UUID would lie beyond: a kernel counts it, too.
        assert_eq!(format.tags(&block).len(), 32);
    }

    #[test]
    fn sequence_numbers_go_round() {
        assert!(came_after(8, 7) && !came_after(7, 8) && !came_after(7, 7));
        assert!(came_after(3, u32::MAX) && !came_after(u32::MAX, 3));
    }

    #[test]
    fn each_wrong_field_of_the_superblock_is_refused() {
        let seal = |block: &mut Vec<u8>| {
            block[0xFC..0x100].fill(0);
            let crc = checksum::crc32c(checksum::START, block);
            block[0xFC..0x100].copy_from_slice(&crc.to_be_bytes());
        };
        let mut log = Log::new(sample::Protection::V3);
        log.write(&[(5, vec![])]).commit();
        let good = log.superblock();
        Format::parse(&good, 1024, 1100).unwrap();
        for (what, at, value) in [
            ("magic", 0x0, 1u32),
            ("kind", 0x4, 1),
            ("block size", 0xC, 2048),
            ("longer than its file", 0x10, 1101),
            ("no first block", 0x14, 0),
            ("first block past the end", 0x14, 1100),
            ("start past the end", 0x1C, 1100),
            ("start before the first block", 0x14, 2),
            ("too short", 0x10, 1000),
            ("version 1 and 3", 0x24, 1),
            ("version 2 and 3", 0x28, 0x1B),
            ("no room for fast commits", 0x28, 0x33),
            ("unknown compat", 0x24, 2),
            ("unknown incompat", 0x28, 0x53),
            ("unknown ro_compat", 0x2C, 1),
            ("kind of checksum", 0x50, 0),
        ] {
            let mut block = good.clone();
            block[at..at + 4].copy_from_slice(&value.to_be_bytes());
            seal(&mut block);
            let Err(Stop::Decline(decline)) = Format::parse(&block, 1024, 1100) else { panic!("{what}") };
            let reason = if what.starts_with("unknown") {
                DeclineReason::UnknownFeature
            } else {
                DeclineReason::Inconsistent
            };
            assert_eq!(decline.reason, reason, "{what}");
        }
        let mut block = good;
        block[0x48] = 1;
        assert!(Format::parse(&block, 1024, 1100).is_err(), "checksum");
    }

    #[test]
    fn the_first_version_has_no_features() {
        let mut block = Log::new(sample::Protection::None).superblock();
        block[7] = 3;
        block[0x28..0x2C].fill(0xFF);
        let format = Format::parse(&block, 1024, 1100).unwrap();
        assert_eq!((format.protection, format.wide), (Protection::None, false));
    }
}
