//! The journal's file: which blocks of the volume it is made of, in order.
//!
//! A journal has no holes and no unwritten extents, so its blocks are asked for in order and anything
//! else stops.

use std::ops::Range;

use super::blockmap::{Lead, Node, Run};
use super::inode::{self, Inode, Kind};
use super::superblock::Superblock;
use super::{blockmap, groups};
use crate::fs::Stop;
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index, mul};

/// How many runs of blocks, and how many blocks of map, are followed: no journal has thousands.
const MAX_PIECES: usize = 1 << 18;

/// A file as blocks: which block of the volume holds which of the file.
#[derive(Debug, Default)]
pub(super) struct FileBlocks {
    runs: Vec<Run>,
    /// Blocks of the file.
    pub len: u64,
    /// Blocks of the volume that hold the map itself.
    nodes: Vec<u64>,
}

impl FileBlocks {
    /// The block of the volume that holds block `logical` of the file.
    pub(super) fn find(&self, logical: u64) -> Option<u64> {
        let after = self.runs.partition_point(|run| run.logical <= logical);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let inside = logical.checked_sub(run.logical)?;
        if inside < run.len { run.start.checked_add(inside) } else { None }
    }

    /// All blocks of the volume that the file needs.
    pub(super) fn ranges(&self) -> Result<Vec<Range<u64>>, Stop> {
        let data = self.runs.iter().map(|run| (run.start, run.len));
        data.chain(self.nodes.iter().map(|&node| (node, 1)))
            .map(|(start, len)| Ok(start..add(start, len, "the journal's blocks")?))
            .collect()
    }

    /// Adds the next blocks of the file.
    fn push(&mut self, run: Run) -> Result<(), Stop> {
        match self.runs.last_mut() {
            Some(last) if last.start.checked_add(last.len) == Some(run.start) => {
                last.len = add(last.len, run.len, "the length of the journal")?;
            }
            _ => self.runs.push(run),
        }
        self.len = add(self.len, run.len, "the length of the journal")?;
        Ok(())
    }
}

/// Reads the map of the file with inode `number`, which may have `max_blocks` blocks.
pub(super) fn read_file(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    number: u32,
    max_blocks: u64,
) -> Result<FileBlocks, Stop> {
    let (bytes, at) = read_inode(volume, superblock, number)?;
    let inode = Inode::new(number, at, &bytes)?;
    if !inode.has_right_checksum(superblock) {
        return Err(inode.damaged("its checksum is wrong"));
    }
    if inode.kind() != Kind::Regular || inode.links() == 0 {
        return Err(inode.damaged("it is no file"));
    }
    let blocks = inode.size(superblock).checked_div(superblock.block_size).unwrap_or(0);
    if blocks > max_blocks {
        return Err(inode.damaged("it is larger than any journal that is read"));
    }
    let mut file = FileBlocks::default();
    let mut open = inode.leads(superblock)?;
    open.reverse();
    while file.len < blocks
        && let Some(lead) = open.pop()
    {
        if file.runs.len().max(file.nodes.len()) >= MAX_PIECES {
            return Err(inode.damaged("it lies in too many pieces"));
        }
        match lead {
            Lead::Blocks(mut run) if run.logical == file.len && !run.unwritten => {
                // The last extent may go on behind the end of the file.
                run.len = run.len.min(blocks.abs_diff(file.len));
                file.push(run)?;
            }
            Lead::Blocks(run) if run.unwritten => {
                return Err(inode.damaged("part of it was never written"));
            }
            Lead::Node(node) if node.logical == file.len => {
                file.nodes.push(node.block);
                let mut leads = follow(volume, superblock, &inode, &node)?;
                leads.reverse();
                open.append(&mut leads);
            }
            Lead::Blocks(_) | Lead::Node(_) => return Err(inode.damaged("it has holes")),
        }
    }
    if file.len < blocks {
        return Err(inode.damaged("it has holes"));
    }
    Ok(file)
}

fn follow(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    inode: &Inode<'_>,
    node: &Node,
) -> Result<Vec<Lead>, Stop> {
    let bytes = read_vec(volume, superblock.byte_of(node.block)?, superblock.block_len()?)?;
    blockmap::follow(superblock, inode.seed(superblock), node, &bytes).map_err(|fault| inode.damaged(fault))
}

/// Reads the inode `number`, and tells where it lies.
fn read_inode(volume: &dyn ReadAt, superblock: &Superblock, number: u32) -> Result<(Vec<u8>, u64), Stop> {
    let (group, inside) =
        superblock.place_of_inode(number).ok_or_else(|| inode::missing(number, "the journal"))?;
    let table = groups::read_one(volume, superblock, group)?.inode_table;
    let inside = mul(inside.into(), superblock.inode_size, "an inode table")?;
    let offset = add(superblock.byte_of(table.start)?, inside, "an inode")?;
    Ok((read_vec(volume, offset, index(superblock.inode_size, "an inode")?)?, offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::{JOURNAL, JOURNAL_BLOCKS, JOURNAL_INODE as INODE, Sample};
    use crate::fs::ext::{checksum, raw_superblock};

    const BLOCKS: u64 = JOURNAL_BLOCKS as u64;

    fn file(sample: &Sample) -> Result<FileBlocks, String> {
        let raw = raw_superblock::read(&sample.bytes).unwrap();
        let superblock = Superblock::parse(&raw, sample.bytes.size()).unwrap();
        read_file(&sample.bytes, &superblock, 8, 2000).map_err(|stop| format!("{stop:?}"))
    }

    /// The sample with other words in the inode's i_block.
    fn with_map(words: &[u32], change: impl FnOnce(&mut Sample)) -> Sample {
        let mut sample = Sample::new();
        for (position, &word) in words.iter().enumerate() {
            sample.put32(INODE + 0x28 + position * 4, word);
        }
        change(&mut sample);
        sample.seal();
        sample
    }

    fn entry(logical: u32, len: u32, physical: u64) -> [u32; 3] {
        [logical, len, u32::try_from(physical).unwrap()]
    }

    fn leaf(entries: &[[u32; 3]]) -> Vec<u32> {
        let header = [0xF30A | u32::try_from(entries.len()).unwrap() << 16, 4, 0];
        std::iter::once(&header).chain(entries).flatten().copied().collect()
    }

    #[test]
    fn extents_are_found_in_order() {
        let found = file(&Sample::new()).unwrap();
        assert_eq!(found.ranges().unwrap(), std::slice::from_ref(&(JOURNAL..JOURNAL + BLOCKS)));
        let two = leaf(&[entry(0, 1000, 2065), entry(1000, 100, 3100)]);
        let found = file(&with_map(&two, |_| {})).unwrap();
        assert_eq!(found.ranges().unwrap(), [2065..3065, 3100..3200]);
        assert_eq!(
            [0, 999, 1000, 1099, 1100].map(|logical| found.find(logical)),
            [Some(2065), Some(3064), Some(3100), Some(3199), None]
        );
    }

    /// A tree of two levels whose leaf is block 90.
    fn tree(change: impl FnOnce(&mut Sample)) -> Sample {
        let root = [0x0001_F30A, 0x0001_0004, 0, 0, 90, 0];
        with_map(&root, |sample| {
            let at = 90 * 1024;
            for (position, word) in leaf(&[entry(0, 1100, JOURNAL)]).into_iter().enumerate() {
                sample.put32(at + position * 4, word);
            }
            let seed = checksum::crc32c(checksum::START, b"unique as a uuid");
            let seed = checksum::crc32c(checksum::crc32c(seed, &8u32.to_le_bytes()), &[0; 4]);
            let end = at + 12 + 4 * 12;
            let crc = checksum::crc32c(seed, &sample.bytes[at..end]);
            sample.put32(end, crc);
            change(sample);
        })
    }

    #[test]
    fn an_extent_tree_is_followed_and_belongs_to_the_file() {
        let found = file(&tree(|_| {})).unwrap();
        assert_eq!(found.ranges().unwrap(), [JOURNAL..JOURNAL + BLOCKS, 90..91]);
    }

    #[test]
    fn indirect_blocks_are_followed_and_belong_to_the_file() {
        let pointers: Vec<u32> = (0..12).map(|i| 2065 + i).chain([80, 81, 0]).collect();
        let found = file(&with_map(&pointers, |sample| {
            sample.put32(INODE + 0x20, 0);
            for i in 0..256 {
                sample.put32(80 * 1024 + i * 4, 2077 + i as u32);
            }
            for (i, node) in [82u32, 83, 84, 85].into_iter().enumerate() {
                sample.put32(81 * 1024 + i * 4, node);
                for j in 0..256 {
                    let logical = 12 + 256 + i * 256 + j;
                    sample.put32(node as usize * 1024 + j * 4, 2065 + logical as u32);
                }
            }
        }))
        .unwrap();
        let nodes = [80..81, 81..82, 82..83, 83..84, 84..85, 85..86];
        assert_eq!(found.ranges().unwrap()[0], JOURNAL..JOURNAL + BLOCKS);
        assert_eq!(found.ranges().unwrap()[1..], nodes);
    }

    #[track_caller]
    fn refused(sample: &Sample, why: &str) {
        let found = file(sample).unwrap_err();
        assert!(found.contains(why), "{found}");
    }

    #[test]
    fn each_map_that_cannot_be_a_journals_is_refused() {
        refused(&with_map(&leaf(&[entry(1, 1100, JOURNAL)]), |_| {}), "holes");
        refused(&with_map(&leaf(&[entry(0, 500, JOURNAL), entry(501, 600, 3000)]), |_| {}), "holes");
        refused(&with_map(&leaf(&[entry(0, 1099, JOURNAL)]), |_| {}), "holes");
        refused(&with_map(&leaf(&[]), |_| {}), "holes");
        refused(&with_map(&leaf(&[entry(0, 1100, 0)]), |_| {}), "outside");
        refused(&with_map(&leaf(&[entry(0, 1100, 4000)]), |_| {}), "outside");
        refused(&with_map(&leaf(&[entry(0, 0, JOURNAL)]), |_| {}), "an extent has no blocks");
        refused(&with_map(&leaf(&[entry(0, 0x8000 + 1100, JOURNAL)]), |_| {}), "never written");
        refused(&with_map(&[0x0001_F30B], |_| {}), "damaged");
        refused(&with_map(&[0x0005_F30A], |_| {}), "damaged");
        refused(&with_map(&[0x0001_F30A, 5], |_| {}), "damaged");
        refused(&with_map(&[0x0001_F30A, 0x0006_0004], |_| {}), "damaged");
        refused(&with_map(&[0; 15], |sample| sample.put32(INODE + 0x20, 0)), "holes");
        refused(&tree(|sample| sample.put32(INODE + 0x28 + 4, 0x0002_0004)), "damaged");
        refused(&tree(|sample| sample.put32(INODE + 0x28 + 16, 5000)), "outside");
        refused(&tree(|sample| sample.bytes[90 * 1024 + 50] ^= 1), "checksum in its extent tree");
    }

    #[test]
    fn each_wrong_field_of_the_inode_is_refused() {
        refused(&with_map(&[], |sample| sample.put16(INODE, 0x4180)), "no file");
        refused(&with_map(&[], |sample| sample.put16(INODE + 0x1A, 0)), "no file");
        refused(&with_map(&[], |sample| sample.put32(INODE + 4, 3000 * 1024)), "larger than any");
        refused(&with_map(&[], |sample| sample.put32(INODE + 0x6C, 1)), "larger than any");
        let mut sample = Sample::new();
        sample.put32(INODE + 8, 1);
        refused(&sample, "its checksum is wrong");
    }
}
