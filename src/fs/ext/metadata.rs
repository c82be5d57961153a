//! The file system's own structures: copies of the superblock, descriptors, bitmaps, inode tables.
//!
//! ```text
//!   group 0   │ superblock │ descriptors │ reserved │ bitmaps of 16 groups │ inode tables of 16 groups │
//!   group 1   │ superblock │ descriptors │ reserved │ data …      (with flex_bg; without, each has its own)
//! ```
//! They are never free, and where a group's bitmap is implied they are all that is used in it.

use std::ops::Range;

use super::groups::{self, Group};
use super::map::inconsistent;
use super::site;
use super::superblock::Superblock;
use crate::error::Error;
use crate::fs::Stop;
use crate::io::ReadAt;
use crate::units::{mul, sort_ranges};

/// The inode table of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    /// Its first block.
    pub start: u64,
    /// The block of the inode bitmap.
    pub bitmap: u64,
    /// How many inodes at its start may have been used.
    pub inodes: u32,
}

/// What the groups of a volume are made of.
#[derive(Debug)]
pub(super) struct Metadata {
    /// The blocks of all structures: ascending, disjoint. An `Extents` may forget ranges, which is safe for
    /// what is free and would not be here.
    ranges: Vec<Range<u64>>,
    /// The inode tables, by group.
    tables: Vec<Table>,
}

impl Metadata {
    pub(super) fn collect(volume: &dyn ReadAt, superblock: &Superblock) -> Result<Self, Stop> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut tables = Vec::new();
        let mut push = |range: Range<u64>| match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.start < range.end => ranges.push(range),
            _ => {}
        };
        groups::for_each(volume, superblock, |group| {
            let base = groups::base_of(superblock, group.number)?;
            let blocks = groups::blocks_of(superblock, group.number)?;
            if base.end > blocks.end {
                return Err(inconsistent(
                    format!("block group {} is too small for its own structures", group.number),
                    site("ext group descriptor", group.at),
                ));
            }
            push(base);
            group.tables()?.into_iter().for_each(&mut push);
            let Group { inode_bitmap, inodes, inode_table, .. } = group;
            tables.push(Table { start: inode_table.start, bitmap: inode_bitmap, inodes });
            Ok(())
        })?;
        sort_ranges(&mut ranges);
        for pair in ranges.windows(2) {
            if let [before, after] = pair
                && before.end > after.start
            {
                return Err(inconsistent(
                    format!("two of its structures share block {}", after.start),
                    site("ext group descriptors", superblock.byte_of(after.start)?),
                ));
            }
        }
        Ok(Self { ranges, tables })
    }

    /// The inode tables, by group.
    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The clusters that any of the structures lie in, as blocks: ascending, disjoint.
    pub(super) fn clusters(&self, superblock: &Superblock) -> Result<Vec<Range<u64>>, Error> {
        let mut clusters: Vec<Range<u64>> = Vec::new();
        for range in &self.ranges {
            let range = superblock.whole_clusters(range.clone())?;
            match clusters.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => clusters.push(range),
            }
        }
        Ok(clusters)
    }

    /// The free clusters of a group whose bitmap is implied: those without any metadata in them, be it
    /// the group's own or, with flex_bg, that of other groups.
    pub(super) fn free_clusters_of(
        &self,
        superblock: &Superblock,
        blocks: &Range<u64>,
        clusters: u64,
        free: &mut Vec<Range<u64>>,
    ) -> Result<(), Error> {
        let no_cluster = || Error::internal("a cluster without blocks");
        let ratio = superblock.blocks_per_cluster;
        let first = self.ranges.partition_point(|range| range.end <= blocks.start);
        let mut from = 0u64;
        for range in self.ranges.iter().skip(first).take_while(|range| range.start < blocks.end) {
            // A table may begin in the group before.
            let start = range.start.saturating_sub(blocks.start);
            let start = start.checked_div(ratio).ok_or_else(no_cluster)?;
            if from < start {
                free.push(from..start);
            }
            let end = range.end.checked_sub(blocks.start).ok_or_else(no_cluster)?;
            from = from.max(end.div_ceil(ratio));
        }
        if from < clusters {
            free.push(from..clusters);
        }
        Ok(())
    }

    /// How many bytes of inode tables are to be walked.
    pub(super) fn table_bytes(&self, superblock: &Superblock) -> Result<u64, Error> {
        let inodes: u64 = self.tables.iter().map(|table| u64::from(table.inodes)).sum();
        mul(inodes, superblock.inode_size, "the size of the inode tables")
    }
}

/// The name of the structure that `block` belongs to, for a message.
pub(super) fn name_of(volume: &dyn ReadAt, superblock: &Superblock, block: u64) -> String {
    let mut name = "a structure of the file system".to_owned();
    // What cannot be read (again) only costs the name.
    let _ = groups::for_each(volume, superblock, |group| {
        let number = group.number;
        let [bitmap, inode_bitmap, table] = group.tables()?;
        for (range, what) in [
            (groups::base_of(superblock, number)?, "superblock and group descriptors"),
            (bitmap, "block bitmap"),
            (inode_bitmap, "inode bitmap"),
            (table, "inode table"),
        ] {
            if range.contains(&block) {
                name = format!("{what} of block group {number}");
            }
        }
        Ok(())
    });
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::Sample;

    #[test]
    fn clusters_with_any_metadata_in_them_are_used() {
        let metadata = Metadata { ranges: vec![5..7, 16..17, 100..120], tables: Vec::new() };
        let mut superblock = crate::fs::ext::superblock::Superblock::parse(
            &crate::fs::ext::raw_superblock::read(&Sample::new().bytes).unwrap(),
            1 << 30,
        )
        .unwrap();
        superblock.blocks_per_cluster = 8;
        let mut free = Vec::new();
        metadata.free_clusters_of(&superblock, &(0..128), 16, &mut free).unwrap();
        assert_eq!(free, [1..2, 3..12, 15..16]);
        free.clear();
        metadata.free_clusters_of(&superblock, &(112..128), 2, &mut free).unwrap();
        assert_eq!(free, vec![1..2], "a table that begins in the group before");
    }

    #[test]
    fn whole_clusters_are_told_once() {
        let metadata = Metadata { ranges: vec![5..7, 7..9, 17..18, 100..120], tables: Vec::new() };
        let raw = crate::fs::ext::raw_superblock::read(&Sample::new().bytes).unwrap();
        let mut superblock = Superblock::parse(&raw, 1 << 30).unwrap();
        assert_eq!(metadata.clusters(&superblock).unwrap(), [5..9, 17..18, 100..120]);
        superblock.first_data_block = 0;
        superblock.blocks_per_cluster = 8;
        assert_eq!(metadata.clusters(&superblock).unwrap(), [0..24, 96..120]);
    }
}
