//! The free map: every group's bitmap, or what stands for it, compared with every count there is.
//!
//! ```text
//!   group by group
//!     bitmap written      bits that are 0          ┐ count = bg_free_blocks_count?
//!     bitmap implied      the group less metadata  ┘ sum   = s_free_blocks_count?
//! ```
//! An implied bitmap (BLOCK_UNINIT) is most of the free space of a young ext4. Uninitialised *inode
//! tables* are metadata like any other: blocks of garbage, and in use. That nothing which is called free
//! has an owner is the second witness' to find: see [`owners`](super::owners).

use std::ops::Range;

use super::groups::{self, Group};
use super::metadata::Metadata;
use super::superblock::Superblock;
use super::{bitmap, site};
use crate::error::{Error, Site};
use crate::extents::Extents;
use crate::fs::{Decline, DeclineReason, FreeMap, Stop};
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index, len64, mul};

/// How much of neighbouring bitmaps is read at once.
const READ_AHEAD: u64 = 128 << 10;

/// How the superblock's own count of free blocks is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Total {
    /// Cleanly unmounted: it is exact.
    Exact,
    /// The volume is mounted by its own account. A kernel keeps this count in memory and writes it
    /// when it unmounts; after a crash it computes the count anew from the group descriptors (which
    /// are journalled), and so does this reader.
    Stale,
}

/// Computes what the bitmaps call free, and collects the file system's own structures.
pub(super) fn free_map(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    total: Total,
) -> Result<(FreeMap, Metadata), Stop> {
    let metadata = Metadata::collect(volume, superblock)?;
    let mut bitmaps = Bitmaps::new(volume, superblock);
    let mut free = Extents::new();
    let mut free_clusters = 0u64;
    groups::for_each(volume, superblock, |group| {
        let blocks = groups::blocks_of(superblock, group.number)?;
        let clusters = length(&blocks)?.div_ceil(superblock.blocks_per_cluster);
        let mut runs = Vec::new();
        if group.bitmap_implied {
            metadata.free_clusters_of(superblock, &blocks, clusters, &mut runs)?;
        } else {
            bitmap::free_runs(bitmaps.of(&group)?, clusters, |run| runs.push(run));
        }
        let mut count = 0u64;
        for run in runs {
            count = add(count, length(&run)?, "the count of free clusters")?;
            let byte_of = |cluster: u64| {
                let inside = mul(cluster, superblock.blocks_per_cluster, "the place of a cluster")?;
                superblock.byte_of(add(blocks.start, inside, "the place of a cluster")?.min(blocks.end))
            };
            free.push(byte_of(run.start)?..byte_of(run.end)?);
        }
        if count != group.free_clusters {
            return Err(inconsistent(
                format!(
                    "block group {} has {count} free by its bitmap and {} by its count",
                    group.number, group.free_clusters
                ),
                site("ext group descriptor", group.at),
            ));
        }
        free_clusters = add(free_clusters, count, "the count of free clusters")?;
        Ok(())
    })?;

    let free_blocks = mul(free_clusters, superblock.blocks_per_cluster, "the count of free blocks")?;
    if total == Total::Exact && free_blocks != superblock.free_blocks {
        return Err(inconsistent(
            format!(
                "its groups have {free_blocks} free blocks and its superblock says {}",
                superblock.free_blocks
            ),
            site("ext superblock", super::raw_superblock::OFFSET),
        ));
    }
    let free_bytes = superblock.byte_of(free_blocks)?;
    let spans = superblock.byte_of(superblock.blocks)?;
    let used_bytes = spans
        .checked_sub(free_bytes)
        .ok_or_else(|| Error::internal("more blocks are free than there are"))?;
    Ok((FreeMap { free, free_bytes, used_bytes, spans, on_request: Vec::new() }, metadata))
}

fn length(range: &Range<u64>) -> Result<u64, Error> {
    range.end.checked_sub(range.start).ok_or_else(|| Error::internal("a range ends before it starts"))
}

/// Reads bitmaps, with those that follow in the same read where they are known to lie together.
struct Bitmaps<'a> {
    volume: &'a dyn ReadAt,
    superblock: &'a Superblock,
    first: u64,
    bytes: Vec<u8>,
}

impl<'a> Bitmaps<'a> {
    fn new(volume: &'a dyn ReadAt, superblock: &'a Superblock) -> Self {
        Self { volume, superblock, first: 0, bytes: Vec::new() }
    }

    /// The bytes of a group's bitmap that stand for clusters, their checksum verified.
    fn of(&mut self, group: &Group) -> Result<&[u8], Stop> {
        let block_len = self.superblock.block_len()?;
        let bitmap = match self.place(group.block_bitmap)? {
            Some(start) => start,
            None => {
                let at_once = READ_AHEAD.checked_div(self.superblock.block_size).unwrap_or(1).max(1);
                let left = self.superblock.blocks.checked_sub(group.block_bitmap).unwrap_or(1);
                let blocks = self.superblock.groups_per_flex.clamp(1, at_once).min(left);
                let len = index(self.superblock.byte_of(blocks)?, "block bitmaps")?;
                self.bytes = read_vec(self.volume, self.superblock.byte_of(group.block_bitmap)?, len)?;
                self.first = group.block_bitmap;
                0
            }
        };
        let len = index(self.superblock.clusters_per_group / 8, "a block bitmap")?;
        let bitmap = self.bytes.get(bitmap..).and_then(|rest| rest.get(..block_len)?.get(..len));
        let bitmap = bitmap.ok_or_else(|| Error::internal("a block bitmap is longer than its block"))?;
        if !group.accepts_bitmap(self.superblock, bitmap) {
            return Err(inconsistent(
                format!("the checksum of the bitmap of block group {} is wrong", group.number),
                site("ext block bitmap", self.superblock.byte_of(group.block_bitmap)?),
            ));
        }
        Ok(bitmap)
    }

    /// Where in memory `block` is, if it was read with another.
    fn place(&self, block: u64) -> Result<Option<usize>, Stop> {
        let Some(inside) = block.checked_sub(self.first) else { return Ok(None) };
        let start = self.superblock.byte_of(inside)?;
        let end = add(start, self.superblock.block_size, "a block bitmap")?;
        Ok(if end <= len64(self.bytes.len()) { Some(index(start, "a block bitmap")?) } else { None })
    }
}

/// A volume that contradicts itself.
pub(super) fn inconsistent(what: String, at: Site) -> Stop {
    let detail = format!("The file system contradicts itself: {what}. Run e2fsck on it, then try again.");
    Stop::from(Decline::new(DeclineReason::Inconsistent, detail).at(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::{BITMAPS, DESCRIPTORS, FREE, SUPERBLOCK, Sample, sample_free};
    use crate::io::tests::Counting;

    #[track_caller]
    fn contradicts(sample: &Sample, what: &str) {
        let decline = sample.declined();
        assert_eq!(decline.reason, DeclineReason::Inconsistent, "{decline:?}");
        assert!(decline.detail.contains(what), "{decline:?}");
    }

    #[test]
    fn free_is_what_written_and_implied_bitmaps_leave() {
        let map = Sample::new().mapped();
        assert_eq!(map.free.ranges(), sample_free());
        assert_eq!(map.free_bytes, FREE.iter().sum::<u64>() * 1024);
        assert_eq!(map.free_bytes, map.free.total());
    }

    #[test]
    fn padding_past_the_last_block_is_never_free() {
        let mut sample = Sample::new();
        sample.bytes.extend([0; 5000]);
        assert_eq!(sample.mapped().free.ranges(), sample_free());
    }

    #[test]
    fn a_written_bitmap_of_the_short_last_group_ends_where_the_group_does() {
        let mut sample = Sample::new();
        sample.put16(DESCRIPTORS + 2 * 64 + 0x12, 0);
        sample.use_bits(2, 0..10);
        sample.seal();
        assert_eq!(sample.mapped().free.ranges(), sample_free());
    }

    #[test]
    fn tables_of_other_groups_are_no_free_space_of_a_group_whose_bitmap_is_implied() {
        let mut sample = Sample::new().with_bits(0x60, 0x200);
        // Group 1 keeps its inode bitmap in group 2: allowed with flex_bg.
        sample.put32(DESCRIPTORS + 64 + 4, 4200);
        sample.put16(DESCRIPTORS + 2 * 64 + 0xC, 489);
        sample.put32(SUPERBLOCK + 0xC, u32::try_from(FREE.iter().sum::<u64>() - 1).unwrap());
        sample.seal();
        let map = sample.mapped();
        assert!(!map.free.intersects(4200 * 1024..4201 * 1024));
        assert_eq!(map.free.total() + 1024, FREE.iter().sum::<u64>() * 1024);
    }

    #[test]
    fn each_count_that_disagrees_declines() {
        for group in 0..3 {
            let mut sample = Sample::new();
            sample.put16(DESCRIPTORS + group * 64 + 0xC, 1);
            sample.seal();
            contradicts(&sample, &format!("block group {group} has"));
        }
        contradicts(&Sample::new().with32(0x0C, 7), "its superblock says 7");
        contradicts(&Sample::new().with32(0x158, 1), "its superblock says 4294");
    }

    #[test]
    fn a_bitmap_that_is_not_the_checksummed_one_declines() {
        let mut sample = Sample::new();
        sample.bytes[BITMAPS[1] + 255] ^= 0x80;
        contradicts(&sample, "the checksum of the bitmap of block group 1 is wrong");
    }

    #[test]
    fn metadata_that_a_bitmap_calls_free_declines() {
        // Each of: superblock copy, descriptors, reserved, bitmaps, table, the journal. Another bit is
        // set instead, so that the counts agree.
        for bit in [0, 1, 2, 5, 6, 7, 8, 15, 16, 1115] {
            let mut sample = Sample::new();
            sample.bytes[BITMAPS[1] + bit / 8] &= !(1 << (bit % 8));
            sample.use_bits(1, 2000..2001);
            sample.seal();
            let owner =
                ["superblock and", "block bitmap of", "inode bitmap of", "inode table of", "“the journal”"]
                    [[6, 7, 8, 16].iter().filter(|&&first| bit >= first).count()];
            contradicts(&sample, owner);
        }
    }

    #[test]
    fn structures_that_overlap_decline() {
        let mut sample = Sample::new().with_bits(0x60, 0x200);
        sample.put32(DESCRIPTORS + 64 + 4, 16);
        sample.seal();
        contradicts(&sample, "share block 16");
    }

    #[test]
    fn a_group_too_small_for_its_own_structures_declines() {
        // A last group of 100 blocks, with a copy of the superblock and 200 blocks for more descriptors.
        let sample = Sample::new().with32(0x04, 4197).with32(0x64, 0x400).with16(0xCE, 200);
        contradicts(&sample, "too small for its own structures");
    }

    #[test]
    fn bitmaps_that_lie_together_are_read_together() {
        let reads = |sample: Sample| {
            let volume = Counting::new(sample.bytes);
            let raw = crate::fs::ext::raw_superblock::read(&volume).unwrap();
            let superblock = Superblock::parse(&raw, volume.size()).unwrap();
            let before = volume.reads();
            free_map(&volume, &superblock, Total::Exact).unwrap();
            volume.reads() - before
        };
        let in_a_row = |log_groups_per_flex: u32| {
            let mut sample = Sample::new();
            for (group, from) in BITMAPS.into_iter().enumerate().take(2) {
                let bitmap = sample.bytes[from..][..1024].to_vec();
                sample.bytes[(60 + group) * 1024..][..1024].copy_from_slice(&bitmap);
                sample.put32(DESCRIPTORS + group * 64, 60 + u32::try_from(group).unwrap());
            }
            sample.with32(0x174, 0x100 | log_groups_per_flex).with_bits(0x60, 0x200)
        };
        assert_eq!(reads(in_a_row(0)), 4, "descriptors twice, and two bitmaps");
        assert_eq!(reads(in_a_row(4)), 3);
    }
}
