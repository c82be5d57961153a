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
    Ok(FreeMap { free, free_bytes, on_request: Vec::new() })
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
            let together = self.superblock.groups_per_flex.clamp(1, (READ_AHEAD / block_size).max(1));
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
