//! The free map: every group's bitmap, or what stands for it, compared with every count there is.
//!
//! ```text
//!   1. descriptors ──► metadata   all that holds bitmaps, tables, copies: never free
//!   2. descriptors ──► group by group
//!        bitmap written      bits that are 0          ┐ count = bg_free_blocks_count?
//!        bitmap implied      the group less metadata  ┘ sum   = s_free_blocks_count?
//!   3. free ∩ metadata = ∅ ?
//! ```
//! An implied bitmap (BLOCK_UNINIT) is most of the free space of a young ext4. Uninitialised *inode
//! tables* are metadata like any other: blocks of garbage, and in use.

use std::ops::Range;

use super::groups::{self, Group};
use super::superblock::Superblock;
use super::{bitmap, site};
use crate::error::Site;
use crate::extents::Extents;
use crate::fs::{Decline, DeclineReason, FreeMap, Stop};
use crate::io::{ReadAt, read_vec};
use crate::units::{index, mul};

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

/// Computes what is free. `in_use` are blocks (besides the metadata of the groups) that are known to be
/// in use and that no bitmap may call free: the journal's.
pub(super) fn free_map(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    total: Total,
    in_use: &[Range<u64>],
) -> Result<FreeMap, Stop> {
    let metadata = Metadata::collect(volume, superblock)?;
    let mut bitmaps = Bitmaps::new(volume, superblock);
    let mut free = Extents::new();
    let mut free_clusters = 0u64;
    groups::for_each(volume, superblock, |group| {
        let blocks = groups::blocks_of(superblock, group.number);
        let clusters = blocks.end.saturating_sub(blocks.start).div_ceil(superblock.blocks_per_cluster);
        let mut count = 0u64;
        let mut add = |run: Range<u64>| {
            count = count.saturating_add(run.end.saturating_sub(run.start));
            let block = |cluster: u64| {
                let inside = cluster.saturating_mul(superblock.blocks_per_cluster);
                superblock.byte_of(blocks.start.saturating_add(inside).min(blocks.end))
            };
            free.push(block(run.start)..block(run.end));
        };
        if group.bitmap_implied {
            metadata.free_clusters_of(superblock, &blocks, clusters, &mut add);
        } else {
            bitmap::free_runs(bitmaps.of(&group)?, clusters, &mut add);
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
        free_clusters = free_clusters.saturating_add(count);
        Ok(())
    })?;

    let free_blocks = mul(free_clusters, superblock.blocks_per_cluster, "the count of free blocks")?;
    if total == Total::Exact && free_blocks != superblock.free_blocks {
        return Err(inconsistent(
            format!(
                "its groups have {free_blocks} free blocks and its superblock says {}",
                superblock.free_blocks
            ),
            site("ext superblock", super::superblock::OFFSET),
        ));
    }
    for range in metadata.ranges.iter().chain(in_use) {
        if free.intersects(superblock.byte_of(range.start)..superblock.byte_of(range.end)) {
            return Err(inconsistent(
                format!("blocks {}–{} hold its own structures and are marked free", range.start, range.end),
                site("ext block bitmap", superblock.byte_of(range.start)),
            ));
        }
    }
    let free_bytes = mul(free_blocks, superblock.block_size, "the count of free bytes")?;
    Ok(FreeMap { free, free_bytes, used_bytes: 0, on_request: Vec::new() })
}

/// The blocks that hold the structures of the groups: ascending, disjoint. An `Extents` may forget
/// ranges, which is safe for what is free and would not be here.
struct Metadata {
    ranges: Vec<Range<u64>>,
}

impl Metadata {
    fn collect(volume: &dyn ReadAt, superblock: &Superblock) -> Result<Self, Stop> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut push = |range: Range<u64>| match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.start < range.end => ranges.push(range),
            _ => {}
        };
        groups::for_each(volume, superblock, |group| {
            let base = groups::base_of(superblock, group.number);
            let blocks = groups::blocks_of(superblock, group.number);
            if base.end > blocks.end {
                return Err(inconsistent(
                    format!("block group {} is too small for its own structures", group.number),
                    site("ext group descriptor", group.at),
                ));
            }
            push(base);
            group.tables().into_iter().for_each(&mut push);
            Ok(())
        })?;
        ranges.sort_unstable_by_key(|range| range.start);
        for pair in ranges.windows(2) {
            if let [before, after] = pair
                && before.end > after.start
            {
                return Err(inconsistent(
                    format!("two of its structures share block {}", after.start),
                    site("ext group descriptors", superblock.byte_of(after.start)),
                ));
            }
        }
        Ok(Self { ranges })
    }

    /// The free clusters of a group whose bitmap is implied: those without any metadata in them, be it
    /// the group's own or, with flex_bg, that of other groups.
    fn free_clusters_of(
        &self,
        superblock: &Superblock,
        blocks: &Range<u64>,
        clusters: u64,
        add: &mut impl FnMut(Range<u64>),
    ) {
        let ratio = superblock.blocks_per_cluster.max(1);
        let first = self.ranges.partition_point(|range| range.end <= blocks.start);
        let inside = self.ranges.get(first..).unwrap_or_default();
        let mut from = 0u64;
        for range in inside.iter().take_while(|range| range.start < blocks.end) {
            let start = range.start.saturating_sub(blocks.start).checked_div(ratio).unwrap_or(0);
            if from < start {
                add(from..start);
            }
            from = from.max(range.end.saturating_sub(blocks.start).div_ceil(ratio));
        }
        if from < clusters {
            add(from..clusters);
        }
    }
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
        let block_size = self.superblock.block_size;
        let offset = |first: u64| self.superblock.byte_of(group.block_bitmap.saturating_sub(first));
        let read = group.block_bitmap >= self.first
            && offset(self.first).saturating_add(block_size) <= crate::units::len64(self.bytes.len());
        if !read {
            let most = READ_AHEAD.checked_div(block_size).unwrap_or(1).max(1);
            let together = self.superblock.groups_per_flex.clamp(1, most);
            let blocks = together.min(self.superblock.blocks.saturating_sub(group.block_bitmap));
            let len = index(self.superblock.byte_of(blocks), "block bitmaps")?;
            self.bytes = read_vec(self.volume, self.superblock.byte_of(group.block_bitmap), len)?;
            self.first = group.block_bitmap;
        }
        let start = index(offset(self.first), "a block bitmap")?;
        let len = index(self.superblock.clusters_per_group / 8, "a block bitmap")?;
        let bitmap = self.bytes.get(start..).and_then(|rest| rest.get(..len)).unwrap_or_default();
        if !group.accepts_bitmap(self.superblock, bitmap) {
            return Err(inconsistent(
                format!("the checksum of the bitmap of block group {} is wrong", group.number),
                site("ext block bitmap", self.superblock.byte_of(group.block_bitmap)),
            ));
        }
        Ok(bitmap)
    }
}

fn inconsistent(what: String, at: Site) -> Stop {
    let detail = format!("The file system contradicts itself: {what}. Run e2fsck on it, then try again.");
    Stop::Decline(Decline::new(DeclineReason::Inconsistent, detail).at(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::{BITMAPS, DESCRIPTORS, FREE, SUPERBLOCK, Sample, sample_free};

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
        let mut sample = Sample::new();
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
    fn clusters_with_any_metadata_in_them_are_used() {
        let metadata = Metadata { ranges: vec![5..7, 16..17, 100..120] };
        let mut superblock = crate::fs::ext::superblock::Superblock::parse(
            &crate::fs::ext::superblock::read(&Sample::new().bytes).unwrap(),
            1 << 30,
        )
        .unwrap();
        superblock.blocks_per_cluster = 8;
        let mut free = Vec::new();
        metadata.free_clusters_of(&superblock, &(0..128), 16, &mut |run| free.push(run));
        assert_eq!(free, [1..2, 3..12, 15..16]);
        free.clear();
        metadata.free_clusters_of(&superblock, &(112..128), 2, &mut |run| free.push(run));
        assert_eq!(free, vec![1..2], "a table that begins in the group before");
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
        for bit in [0, 1, 2, 6, 7, 8, 15, 16, 1115] {
            let mut sample = Sample::new();
            sample.bytes[BITMAPS[1] + bit / 8] &= !(1 << (bit % 8));
            sample.use_bits(1, 2000..2001);
            sample.seal();
            contradicts(&sample, "hold its own structures and are marked free");
        }
    }

    #[test]
    fn structures_that_overlap_decline() {
        let mut sample = Sample::new();
        sample.put32(DESCRIPTORS + 64 + 4, 16);
        sample.seal();
        contradicts(&sample, "share block 16");
    }

    #[test]
    fn a_group_too_small_for_its_own_structures_declines() {
        contradicts(&Sample::new().with16(0xCE, 3000), "too small for its own structures");
    }

    #[test]
    fn bitmaps_that_lie_together_are_read_together() {
        use std::cell::Cell;
        struct Counting(Vec<u8>, Cell<u32>);
        impl ReadAt for Counting {
            fn size(&self) -> u64 {
                self.0.size()
            }
            fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> crate::Result<()> {
                self.1.set(self.1.get() + 1);
                self.0.read_exact_at(offset, buf)
            }
        }
        let reads = |sample: Sample| {
            let volume = Counting(sample.bytes, Cell::new(0));
            let raw = crate::fs::ext::superblock::read(&volume).unwrap();
            let superblock = Superblock::parse(&raw, volume.size()).unwrap();
            volume.1.set(0);
            free_map(&volume, &superblock, Total::Exact, &[]).unwrap();
            volume.1.get()
        };
        let in_a_row = |flex_bg: u32| {
            let mut sample = Sample::new();
            for (group, from) in BITMAPS.into_iter().enumerate().take(2) {
                let bitmap = sample.bytes[from..][..1024].to_vec();
                sample.bytes[(60 + group) * 1024..][..1024].copy_from_slice(&bitmap);
                sample.put32(DESCRIPTORS + group * 64, 60 + u32::try_from(group).unwrap());
            }
            sample.with32(0x174, 0x104).with_bits(0x60, flex_bg)
        };
        assert_eq!(reads(in_a_row(0)), 4, "descriptors twice, and two bitmaps");
        assert_eq!(reads(in_a_row(0x200)), 3);
    }
}
