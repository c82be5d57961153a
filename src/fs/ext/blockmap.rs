//! The map of a file: which blocks of the volume an inode leads to, one node at a time.
//!
//! ```text
//!   i_block of the inode (60 bytes), by i_flags
//!     extents    header │ up to 4 entries ──► node: header │ entries │ checksum ──► … (5 levels)
//!     otherwise  12 blocks │ indirect │ double indirect │ triple indirect
//!
//!   entry of a leaf     0x0 ee_block   0x4 ee_len       0x6 ee_start_hi   0x8 ee_start_lo
//!   entry of a node     0x0 ei_block   0x4 ei_leaf_lo   0x8 ei_leaf_hi
//! ```
//! Each function reads one node that the caller has in memory and tells what it leads to; reading on is the
//! caller's. So one caller goes through a file in order (the journal) and another goes through thousands
//! of files in the order of the disk. Depth falls with every level, so a tree ends; that blocks are
//! named twice is for the caller to bound. Source: the kernel's `ext4/ifork.rst`, `ext4/blockmap.rst`.

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::superblock::Superblock;
use super::{checksum, features};

const EXTENT_MAGIC: u16 = 0xF30A;
/// Longer extents are unwritten ones.
const MAX_EXTENT: u16 = 0x8000;
const MAX_DEPTH: u16 = 5;
/// The place in i_block after which pointers lead to nodes of 1, 2 and 3 levels.
const DIRECT: usize = 12;

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

/// Blocks of a file that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// The first of them, counted from the start of the file.
    pub logical: u64,
    /// The block of the volume that it is.
    pub start: u64,
    pub len: u64,
    /// Whether they were allocated and never written.
    pub unwritten: bool,
}

/// A block of the volume that holds a part of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub block: u64,
    /// The first block of the file that it maps.
    pub logical: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A node of an extent tree of this depth; 0 is a leaf.
    Extents(u16),
    /// Pointers, to blocks of the file (1) or to more pointers.
    Pointers(u8),
}

/// What a part of a map leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    Blocks(Run),
    Node(Node),
}

/// Why a map cannot be followed, as a clause.
pub(super) type Fault = &'static str;

const DAMAGED: Fault = "its extent tree is damaged";
const OUTSIDE: Fault = "its map leads outside the file system";

/// What an extent tree's root in `i_block` leads to, in the order of the file.
pub(super) fn extent_root(superblock: &Superblock, i_block: &[u8]) -> Result<Vec<Lead>, Fault> {
    extents(superblock, i_block, None)
}

/// What the pointers in `i_block` lead to, in the order of the file.
pub(super) fn pointer_root(superblock: &Superblock, i_block: &[u8]) -> Result<Vec<Lead>, Fault> {
    let mut leads = Leads { superblock, found: Vec::new() };
    let mut logical = 0u64;
    for (position, pointer) in pointers(i_block).enumerate() {
        let levels = match position.checked_sub(DIRECT) {
            None => 0,
            Some(0) => 1,
            Some(1) => 2,
            Some(_) => 3,
        };
        leads.pointer(pointer, logical, levels)?;
        logical = after(superblock, logical, levels)?;
    }
    Ok(leads.found)
}

/// What `node`, whose block reads `bytes`, leads to. `seed` is what the inode's checksums start from.
pub(super) fn follow(
    superblock: &Superblock,
    seed: u32,
    node: &Node,
    bytes: &[u8],
) -> Result<Vec<Lead>, Fault> {
    let levels = match node.kind {
        Kind::Extents(depth) => return extents(superblock, bytes, Some((depth, seed))),
        Kind::Pointers(levels) => levels.checked_sub(1).ok_or(DAMAGED)?,
    };
    let mut leads = Leads { superblock, found: Vec::new() };
    let mut logical = node.logical;
    for pointer in pointers(bytes) {
        leads.pointer(pointer, logical, levels)?;
        logical = after(superblock, logical, levels)?;
    }
    Ok(leads.found)
}

/// One node of an extent tree: the root, or one of which a parent told the depth and whose checksum
/// starts from a seed.
fn extents(superblock: &Superblock, node: &[u8], below: Option<(u16, u32)>) -> Result<Vec<Lead>, Fault> {
    let Ok((header, rest)) = ExtentHeader::read_from_prefix(node) else { return Err(DAMAGED) };
    let (depth, max) = (header.eh_depth.get(), header.eh_max.get());
    let valid = header.eh_magic.get() == EXTENT_MAGIC
        && depth <= MAX_DEPTH
        && below.is_none_or(|(expected, _)| expected == depth)
        && header.eh_entries.get() <= max
        && usize::from(max) <= rest.len() / ENTRY
        && (depth == 0 || header.eh_entries.get() > 0);
    if !valid {
        return Err(DAMAGED);
    }
    if let Some((_, seed)) = below
        && !accepts_node(superblock, seed, node, max)
    {
        return Err("a checksum in its extent tree is wrong");
    }
    let mut leads = Leads { superblock, found: Vec::new() };
    for entry in rest.chunks_exact(ENTRY).take(header.eh_entries.get().into()) {
        match depth.checked_sub(1) {
            Some(below) => leads.index(entry, below)?,
            None => leads.extent(entry)?,
        }
    }
    Ok(leads.found)
}

/// Whether the checksum behind the entries of an extent node is right.
fn accepts_node(superblock: &Superblock, seed: u32, node: &[u8], max: u16) -> bool {
    if !superblock.features.has(features::METADATA_CSUM) {
        return true;
    }
    let end = usize::from(max).checked_mul(ENTRY).and_then(|len| len.checked_add(size_of::<ExtentHeader>()));
    let Some((covered, tail)) = end.and_then(|end| node.split_at_checked(end)) else { return false };
    U32::read_from_prefix(tail).is_ok_and(|(found, _)| found.get() == checksum::crc32c(seed, covered))
}

/// The first block of the file behind what a pointer of `levels` maps from `logical` on.
fn after(superblock: &Superblock, logical: u64, levels: u8) -> Result<u64, Fault> {
    let per_block = superblock.block_size / 4;
    per_block
        .checked_pow(levels.into())
        .and_then(|blocks| logical.checked_add(blocks))
        .ok_or("its map has more blocks than a file can have")
}

/// Collects what a node leads to, neighbours joined.
struct Leads<'s> {
    superblock: &'s Superblock,
    found: Vec<Lead>,
}

impl Leads<'_> {
    fn index(&mut self, entry: &[u8], below: u16) -> Result<(), Fault> {
        let Ok(index) = ExtentIndex::read_from_bytes(entry) else { return Err(DAMAGED) };
        let block = u64::from(index.ei_leaf_hi.get()) << 32 | u64::from(index.ei_leaf_lo.get());
        self.node(block, index.ei_block.get().into(), Kind::Extents(below))
    }

    fn extent(&mut self, entry: &[u8]) -> Result<(), Fault> {
        let Ok(extent) = Extent::read_from_bytes(entry) else { return Err(DAMAGED) };
        let start = u64::from(extent.ee_start_hi.get()) << 32 | u64::from(extent.ee_start_lo.get());
        let len = extent.ee_len.get();
        let unwritten = len > MAX_EXTENT;
        let len = if unwritten { len & !MAX_EXTENT } else { len };
        self.blocks(Run { logical: extent.ee_block.get().into(), start, len: len.into(), unwritten })
    }

    /// A pointer through `levels` blocks of pointers; 0 is a hole.
    fn pointer(&mut self, pointer: u32, logical: u64, levels: u8) -> Result<(), Fault> {
        match (pointer, levels) {
            (0, _) => Ok(()),
            (_, 0) => self.blocks(Run { logical, start: pointer.into(), len: 1, unwritten: false }),
            _ => self.node(pointer.into(), logical, Kind::Pointers(levels)),
        }
    }

    fn node(&mut self, block: u64, logical: u64, kind: Kind) -> Result<(), Fault> {
        if !self.superblock.holds(block) {
            return Err(OUTSIDE);
        }
        self.found.push(Lead::Node(Node { block, logical, kind }));
        Ok(())
    }

    fn blocks(&mut self, run: Run) -> Result<(), Fault> {
        let last = run.len.checked_sub(1).ok_or("an extent has no blocks")?;
        let last = run.start.checked_add(last).ok_or(OUTSIDE)?;
        if run.start == 0 || !self.superblock.holds(run.start) || !self.superblock.holds(last) {
            return Err(OUTSIDE);
        }
        match self.found.last_mut() {
            // Both sums fit: blocks of a file fit 2⁴², those of a volume fit 2⁵⁴ bytes.
            Some(Lead::Blocks(before))
                if before.unwritten == run.unwritten
                    && before.start.checked_add(before.len) == Some(run.start)
                    && before.logical.checked_add(before.len) == Some(run.logical) =>
            {
                before.len = before.len.checked_add(run.len).ok_or(OUTSIDE)?;
            }
            _ => self.found.push(Lead::Blocks(run)),
        }
        Ok(())
    }
}

/// How many leads one block can have at most: pointers are the smallest of them.
pub(super) const fn max_leads(superblock: &Superblock) -> u64 {
    superblock.block_size / 4
}

fn pointers(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks::<4>().0.iter().map(|&pointer| u32::from_le_bytes(pointer))
}
