//! The journal's file: its inode, and which blocks of the volume it is made of.
//!
//! ```text
//!   inode   0x00 i_mode   0x04 i_size_lo   0x20 i_flags   0x28 i_block[15]   0x64 i_generation
//!   i_block, by i_flags
//!     extents    header │ up to 4 entries ──► node: header │ entries │ checksum ──► … (5 levels)
//!     otherwise  12 blocks │ indirect │ double indirect │ triple indirect
//! ```
//! A journal has no holes and no unwritten extents, so its blocks are asked for in order and anything
//! else stops. Source: the kernel's `ext4/inodes.rst`, `ext4/ifork.rst`, `ext4/blockmap.rst`.

use std::ops::Range;

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::features;
use super::superblock::Superblock;
use super::{checksum, groups, site};
use crate::error::{Error, Site};
use crate::fs::Stop;
use crate::io::{ReadAt, read_vec};
use crate::units::index;

const EXTENTS_FL: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xF30A;
/// Longer extents are unwritten ones.
const MAX_EXTENT: u16 = 0x8000;
const MAX_DEPTH: u16 = 5;
/// How many runs of blocks, and how many blocks of map, are followed: no journal has thousands.
const MAX_PIECES: usize = 1 << 18;
/// Regular file, in the upper bits of i_mode.
const REGULAR: u16 = 0x8;

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawInode {
    i_mode: U16,
    i_uid: U16,
    i_size_lo: U32,
    i_times: [u8; 16],
    i_gid: U16,
    i_links_count: U16,
    i_blocks_lo: U32,
    i_flags: U32,
    i_osd1: U32,
    i_block: [u8; 60],
    i_generation: U32,
    i_file_acl_lo: U32,
    i_size_high: U32,
    i_obso_faddr: U32,
    i_osd2: [u8; 12],
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ExtentHeader {
    eh_magic: U16,
    eh_entries: U16,
    eh_max: U16,
    eh_depth: U16,
    eh_generation: U32,
}

/// An entry of a leaf.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Extent {
    ee_block: U32,
    ee_len: U16,
    ee_start_hi: U16,
    ee_start_lo: U32,
}

/// An entry of any other node.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ExtentIndex {
    ei_block: U32,
    ei_leaf_lo: U32,
    ei_leaf_hi: U16,
    ei_unused: U16,
}

/// Both have this many bytes.
const ENTRY: usize = size_of::<Extent>();

/// A file as blocks: which block of the volume holds which of the file.
#[derive(Debug, Default)]
pub(super) struct FileBlocks {
    runs: Vec<Run>,
    /// Blocks of the file.
    pub len: u64,
    /// Blocks of the volume that hold the map itself.
    nodes: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    logical: u64,
    physical: u64,
    len: u64,
}

impl FileBlocks {
    /// The block of the volume that holds block `logical` of the file.
    pub(super) fn find(&self, logical: u64) -> Option<u64> {
        let after = self.runs.partition_point(|run| run.logical <= logical);
        let run = self.runs.get(after.checked_sub(1)?)?;
        let inside = logical.checked_sub(run.logical)?;
        (inside < run.len).then(|| run.physical.saturating_add(inside))
    }

    /// All blocks of the volume that the file needs.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let data = self.runs.iter().map(|run| run.physical..run.physical.saturating_add(run.len));
        data.chain(self.nodes.iter().map(|&node| node..node.saturating_add(1))).collect()
    }

    /// Adds the next `len` blocks of the file.
    fn push(&mut self, physical: u64, len: u64) {
        match self.runs.last_mut() {
            Some(last) if last.physical.saturating_add(last.len) == physical => {
                last.len = last.len.saturating_add(len);
            }
            _ => self.runs.push(Run { logical: self.len, physical, len }),
        }
        self.len = self.len.saturating_add(len);
    }
}

/// Reads inode `number`, a regular file of at most `max_blocks` blocks without holes, and finds its
/// blocks.
pub(super) fn read_file(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    number: u32,
    max_blocks: u64,
) -> Result<FileBlocks, Stop> {
    let (bytes, at) = read_inode(volume, superblock, number)?;
    let Ok((raw, rest)) = RawInode::read_from_prefix(&bytes) else {
        return Err(Error::internal("an inode was read with the wrong length").into());
    };
    if !accepts_inode(superblock, number, &raw, &bytes, rest) {
        return Err(damaged(at, "its checksum is wrong"));
    }
    if raw.i_mode.get() >> 12 != REGULAR || raw.i_links_count.get() == 0 {
        return Err(damaged(at, "it is no file"));
    }
    let size = u64::from(raw.i_size_lo.get()) | u64::from(raw.i_size_high.get()) << 32;
    let blocks = size.checked_div(superblock.block_size).unwrap_or(0);
    if blocks > max_blocks {
        return Err(damaged(at, "it is larger than any that is read"));
    }
    let seed = [number, raw.i_generation.get()]
        .iter()
        .fold(superblock.checksum_seed, |crc, value| checksum::crc32c(crc, &value.to_le_bytes()));
    let mut walk = Walk { volume, superblock, seed, wanted: blocks, file: FileBlocks::default() };
    if raw.i_flags.get() & EXTENTS_FL != 0 {
        walk.extents(&raw.i_block, None, at)?;
    } else {
        walk.indirect_root(&raw.i_block, at)?;
    }
    if walk.file.len < blocks {
        return Err(damaged(at, "it has holes"));
    }
    Ok(walk.file)
}

fn read_inode(volume: &dyn ReadAt, superblock: &Superblock, number: u32) -> Result<(Vec<u8>, u64), Stop> {
    let at = site("ext superblock", super::superblock::OFFSET);
    let from_zero = number
        .checked_sub(1)
        .filter(|_| number <= superblock.inodes)
        .ok_or_else(|| Error::corrupt(at, format!("there is no inode {number} for the journal")))?;
    let group = from_zero.checked_div(superblock.inodes_per_group).unwrap_or(u32::MAX);
    let inside = from_zero.checked_rem(superblock.inodes_per_group).unwrap_or(0);
    if group >= superblock.groups {
        return Err(Error::corrupt(at, format!("there is no inode {number} for the journal")).into());
    }
    let table = groups::read_one(volume, superblock, group)?.inode_table;
    let offset = superblock
        .byte_of(table.start)
        .saturating_add(u64::from(inside).saturating_mul(superblock.inode_size));
    Ok((read_vec(volume, offset, index(superblock.inode_size, "an inode")?)?, offset))
}

/// Whether an inode's checksum (metadata_csum) is right. `rest` is what follows its first 128 bytes.
fn accepts_inode(superblock: &Superblock, number: u32, raw: &RawInode, bytes: &[u8], rest: &[u8]) -> bool {
    if !superblock.features.has(features::METADATA_CSUM) {
        return true;
    }
    const LOW: Range<usize> = 0x7C..0x7E;
    const HIGH: Range<usize> = 0x82..0x84;
    let half = |range: Range<usize>| {
        bytes.get(range).and_then(|half| <[u8; 2]>::try_from(half).ok()).map_or(0, u16::from_le_bytes)
    };
    // i_extra_isize tells how much of the larger inode is in use; the upper half ends 4 bytes into it.
    let has_high = rest.len() >= 4 && half(0x80..0x82) >= 4;
    let mut covered = bytes.to_vec();
    for range in [Some(LOW), has_high.then_some(HIGH)].into_iter().flatten() {
        if let Some(field) = covered.get_mut(range) {
            field.fill(0);
        }
    }
    let number = number.to_le_bytes();
    let generation = raw.i_generation.get().to_le_bytes();
    let expected = [number.as_slice(), &generation, &covered]
        .into_iter()
        .fold(superblock.checksum_seed, checksum::crc32c);
    let found = u32::from(half(LOW)) | u32::from(half(HIGH)) << 16;
    let mask = if has_high { u32::MAX } else { u32::from(u16::MAX) };
    (expected ^ found) & mask == 0
}

/// Collects the blocks of a file in order.
struct Walk<'a> {
    volume: &'a dyn ReadAt,
    superblock: &'a Superblock,
    /// What the checksums of extent nodes start from.
    seed: u32,
    /// How many blocks the file has; the walk ends there.
    wanted: u64,
    file: FileBlocks,
}

impl Walk<'_> {
    /// One node of the extent tree; `depth` is the one it must have, if a parent told. The tree cannot
    /// go round: depth falls with every level, and every entry of a leaf moves the file on.
    fn extents(&mut self, node: &[u8], depth: Option<u16>, at: u64) -> Result<(), Stop> {
        let Ok((header, entries)) = ExtentHeader::read_from_prefix(node) else {
            return Err(Error::internal("an extent node is too short").into());
        };
        let found = header.eh_depth.get();
        let valid = header.eh_magic.get() == EXTENT_MAGIC
            && found <= MAX_DEPTH
            && depth.is_none_or(|depth| depth == found)
            && header.eh_entries.get() <= header.eh_max.get()
            && usize::from(header.eh_max.get()) <= entries.len() / ENTRY;
        if !valid {
            return Err(damaged(at, "its extent tree is damaged"));
        }
        if depth.is_some() && !self.accepts_node(node, header.eh_max.get()) {
            return Err(damaged(at, "a checksum in its extent tree is wrong"));
        }
        let entries = entries.chunks_exact(ENTRY).take(header.eh_entries.get().into());
        if entries.len() == 0 && depth.is_some() {
            return Err(damaged(at, "its extent tree is damaged"));
        }
        for entry in entries {
            if self.file.len >= self.wanted {
                break;
            }
            match found.checked_sub(1) {
                Some(below) => self.index(entry, below, at)?,
                None => self.extent(entry, at)?,
            }
        }
        Ok(())
    }

    fn index(&mut self, entry: &[u8], below: u16, at: u64) -> Result<(), Stop> {
        let Ok(index) = ExtentIndex::read_from_bytes(entry) else {
            return Err(Error::internal("an extent has the wrong length").into());
        };
        if u64::from(index.ei_block.get()) != self.file.len {
            return Err(damaged(at, "it has holes"));
        }
        let child = u64::from(index.ei_leaf_hi.get()) << 32 | u64::from(index.ei_leaf_lo.get());
        let bytes = self.node(child, at)?;
        self.extents(&bytes, Some(below), self.superblock.byte_of(child))
    }

    fn extent(&mut self, entry: &[u8], at: u64) -> Result<(), Stop> {
        let Ok(extent) = Extent::read_from_bytes(entry) else {
            return Err(Error::internal("an extent has the wrong length").into());
        };
        if u64::from(extent.ee_block.get()) != self.file.len {
            return Err(damaged(at, "it has holes"));
        }
        if extent.ee_len.get() == 0 || extent.ee_len.get() > MAX_EXTENT {
            return Err(damaged(at, "part of it was never written"));
        }
        let start = u64::from(extent.ee_start_hi.get()) << 32 | u64::from(extent.ee_start_lo.get());
        self.add(start, extent.ee_len.get().into(), at)
    }

    /// Whether the checksum behind the entries of an extent node is right.
    fn accepts_node(&self, node: &[u8], max: u16) -> bool {
        if !self.superblock.features.has(features::METADATA_CSUM) {
            return true;
        }
        let end = size_of::<ExtentHeader>().saturating_add(usize::from(max).saturating_mul(ENTRY));
        let Some((covered, tail)) = node.split_at_checked(end) else { return false };
        U32::read_from_prefix(tail)
            .is_ok_and(|(found, _)| found.get() == checksum::crc32c(self.seed, covered))
    }

    fn indirect_root(&mut self, i_block: &[u8], at: u64) -> Result<(), Stop> {
        for (position, pointer) in pointers(i_block).enumerate() {
            // Twelve direct pointers, then one each of the three levels.
            self.indirect(pointer, position.saturating_sub(11), at)?;
        }
        Ok(())
    }

    /// What `pointer` leads to through `levels` blocks of pointers.
    fn indirect(&mut self, pointer: u32, levels: usize, at: u64) -> Result<(), Stop> {
        if self.file.len >= self.wanted {
            return Ok(());
        }
        let Some(below) = levels.checked_sub(1) else {
            return self.add(pointer.into(), 1, at);
        };
        let bytes = self.node(pointer.into(), at)?;
        pointers(&bytes).try_for_each(|pointer| self.indirect(pointer, below, at))
    }

    /// Reads a block of the map.
    fn node(&mut self, block: u64, at: u64) -> Result<Vec<u8>, Stop> {
        if !self.superblock.holds(block) {
            return Err(damaged(at, "its map leads outside the file system"));
        }
        if self.file.nodes.len() >= MAX_PIECES {
            return Err(damaged(at, "it lies in too many pieces"));
        }
        self.file.nodes.push(block);
        Ok(read_vec(self.volume, self.superblock.byte_of(block), self.superblock.block_len())?)
    }

    fn add(&mut self, start: u64, len: u64, at: u64) -> Result<(), Stop> {
        let last = start.saturating_add(len).saturating_sub(1);
        if start == 0 || !self.superblock.holds(start) || !self.superblock.holds(last) {
            return Err(damaged(at, "it has holes or lies outside the file system"));
        }
        if self.file.runs.len() >= MAX_PIECES {
            return Err(damaged(at, "it lies in too many pieces"));
        }
        self.file.push(start, len);
        Ok(())
    }
}

fn pointers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|&pointer| u32::from_le_bytes(pointer))
}

fn damaged(at: u64, what: &str) -> Stop {
    let at: Site = site("ext journal inode", at);
    Error::corrupt(at, format!("the file of the journal cannot be followed: {what}; run e2fsck")).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::ext::sample::{JOURNAL, JOURNAL_BLOCKS, JOURNAL_INODE as INODE, Sample};
    use crate::fs::ext::superblock;

    const BLOCKS: u64 = JOURNAL_BLOCKS as u64;

    fn file(sample: &Sample) -> Result<FileBlocks, String> {
        let raw = superblock::read(&sample.bytes).unwrap();
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
    fn the_structures_have_their_sizes() {
        assert_eq!((size_of::<RawInode>(), size_of::<ExtentHeader>()), (128, 12));
        assert_eq!((size_of::<Extent>(), size_of::<ExtentIndex>()), (ENTRY, ENTRY));
    }

    #[test]
    fn extents_are_found_in_order() {
        let found = file(&Sample::new()).unwrap();
        assert_eq!(found.ranges(), std::slice::from_ref(&(JOURNAL..JOURNAL + BLOCKS)));
        let two = leaf(&[entry(0, 1000, 2065), entry(1000, 100, 3100)]);
        let found = file(&with_map(&two, |_| {})).unwrap();
        assert_eq!(found.ranges(), [2065..3065, 3100..3200]);
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
        assert_eq!(found.ranges(), [JOURNAL..JOURNAL + BLOCKS, 90..91]);
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
        assert_eq!(found.ranges()[0], JOURNAL..JOURNAL + BLOCKS);
        assert_eq!(found.ranges()[1..], nodes);
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
        refused(&with_map(&leaf(&[entry(0, 0, JOURNAL)]), |_| {}), "never written");
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
