//! The free map: what no chunk has of the device, and what no extent has of a chunk.
//!
//! ```text
//!   root tree ─┬► device tree       extents of the device = copies of all chunks     rest of the device: free
//!              ├► extent tree       extents, in order, none across chunks            rest of each chunk: free
//!              └► or their own tree block groups, one for each chunk: their sums, and the superblock's
//! ```
//! Source: btrfs-progs documentation, "On-disk Format", "Tree items" (`DEV_EXTENT`, `BLOCK_GROUP_ITEM`,
//! `EXTENT_ITEM`, `METADATA_ITEM`); the kernel's `btrfs_tree.h`.

use std::ops::Range;

use zerocopy::byteorder::{LE, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::chunk::{Chunk, FIRST_CHUNK_TREE};
use super::features::unknown;
use super::superblock::{Fs, PRIMARY};
use super::tree::{Key, Node, Pointer, Tree};
use super::walk::{RELOCATION, ROOT_ITEM, Root};
use super::{damaged, site, unfinished};
use crate::error::Site;
use crate::extents::Extents;
use crate::fs::{DeclineReason, FreeMap, Stop};
use crate::io::ReadAt;
use crate::units::{add, length};

const EXTENT_TREE: u64 = 2;
const DEVICE_TREE: u64 = 4;
const BLOCK_GROUP_TREE: u64 = 11;
const EXTENT_ITEM: u8 = 168;
const METADATA_ITEM: u8 = 169;
/// Who refers to an extent, where that has no room in the extent's own record; who made it.
const REFERENCES: [u8; 5] = [172, 176, 178, 182, 184];
const BLOCK_GROUP_ITEM: u8 = 192;
const DEVICE_EXTENT: u8 = 204;
const TEMPORARY_ITEM: u8 = 248;
/// What a device remembers: the errors that were seen.
const PERSISTENT_ITEM: u8 = 249;
const REPLACEMENT: u8 = 250;
/// In the flags of an extent: a tree block.
const TREE_BLOCK: u64 = 2;
/// How many free ranges wait to be put in order.
const MAX_WAITING: usize = 1 << 20;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawDeviceExtent {
    _chunk_tree: U64<LE>,
    chunk_object: U64<LE>,
    chunk: U64<LE>,
    len: U64<LE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawReplacement {
    _from: U64<LE>,
    _left: U64<LE>,
    _right: U64<LE>,
    _mode: U64<LE>,
    state: U64<LE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawBlockGroup {
    used: U64<LE>,
    _chunk_object: U64<LE>,
    kind: U64<LE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawExtent {
    _references: U64<LE>,
    _generation: U64<LE>,
    flags: U64<LE>,
}

/// The free ranges of the device, which come in any order.
#[derive(Default)]
struct Free {
    reserved: Extents,
    free: Extents,
    waiting: Vec<Range<u64>>,
    bytes: u64,
}

impl Free {
    fn push(&mut self, range: Range<u64>) -> Result<(), Stop> {
        for free in self.reserved.gaps(range) {
            self.bytes = add(self.bytes, length(&free), "the free bytes")?;
            self.waiting.push(free);
        }
        if self.waiting.len() >= MAX_WAITING {
            self.put_in_order();
        }
        Ok(())
    }

    fn put_in_order(&mut self) {
        let waiting = Extents::from_ranges(std::mem::take(&mut self.waiting));
        self.free = self.free.union(&waiting);
    }
}

/// Maps what is free.
pub(super) fn free_map(fs: &Fs, volume: &dyn ReadAt) -> Result<FreeMap, Stop> {
    let roots = Roots::read(fs, volume)?;
    let mut free = Free { reserved: Extents::from_ranges(fs.reserved().collect()), ..Free::default() };
    outside_chunks(fs, volume, roots.find(DEVICE_TREE)?, &mut free)?;
    let mut groups = vec![None; fs.chunks.all().len()];
    if fs.block_group_tree {
        block_groups(fs, volume, roots.find(BLOCK_GROUP_TREE)?, &mut groups)?;
    }
    let found = inside_chunks(fs, volume, roots.find(EXTENT_TREE)?, &mut free, &mut groups)?;
    let mut used = 0;
    for ((chunk, found), says) in fs.chunks.all().iter().zip(found).zip(groups) {
        if Some(found) != says {
            let says = says.map_or_else(|| "nothing".to_owned(), |says| says.to_string());
            let what = format!(
                "extents take {found} bytes of the block group at address {:#x}, and it says {says}",
                chunk.addresses.start
            );
            return Err(damaged(
                &what,
                site("Btrfs block group", chunk.copies.first().copied().unwrap_or(0)),
            ));
        }
        used = add(used, found, "the used bytes")?;
    }
    if used != fs.used {
        let what = format!("extents take {used} bytes, and its superblock says {}", fs.used);
        return Err(damaged(&what, site(PRIMARY, 0x1_0078)));
    }
    free.put_in_order();
    let Some(used_bytes) = fs.total.checked_sub(free.bytes) else {
        return Err(damaged("more is free than there is", site(PRIMARY, 0x1_0070)));
    };
    Ok(FreeMap {
        free: free.free,
        free_bytes: free.bytes,
        used_bytes,
        spans: fs.total,
        on_request: Vec::new(),
    })
}

/// The trees that tell of free space.
struct Roots(Vec<(u64, Pointer)>);

impl Roots {
    /// Reads the root tree, and declines for what a mounted file system must finish first.
    fn read(fs: &Fs, volume: &dyn ReadAt) -> Result<Self, Stop> {
        let mut found = Vec::new();
        let mut tree = Tree::new(fs.root.clone());
        while let Some(leaf) = tree.next_leaf(fs, volume)? {
            for (key, item) in leaf.items() {
                if key.kind == TEMPORARY_ITEM || key.kind == ROOT_ITEM && key.object == RELOCATION {
                    let what = "A balance is under way: mount it, and let the balance end or cancel it (btrfs \
                                balance cancel).";
                    return Err(unfinished(DeclineReason::Dirty, what, leaf.site));
                }
                if key.kind == ROOT_ITEM {
                    let root = Root::parse(key, item, fs, leaf.site)?;
                    if [EXTENT_TREE, DEVICE_TREE, BLOCK_GROUP_TREE].contains(&key.object) {
                        found.push((key.object, root.pointer));
                    }
                }
            }
        }
        Ok(Self(found))
    }

    fn find(&self, tree: u64) -> Result<Pointer, Stop> {
        let mut found = self.0.iter().filter(|(number, _)| *number == tree);
        match (found.next(), found.next()) {
            (Some((_, root)), None) => Ok(root.clone()),
            _ => Err(damaged(&format!("its tree {tree} is missing"), site("Btrfs root tree", 0))),
        }
    }
}

/// What no chunk has of the device. The extents of the device must be the copies of the chunks.
fn outside_chunks(fs: &Fs, volume: &dyn ReadAt, root: Pointer, free: &mut Free) -> Result<(), Stop> {
    let chunks = fs.chunks.all().iter();
    let mut copies: Vec<_> = chunks
        .flat_map(|chunk| chunk.copies.iter().map(|&copy| (copy, chunk.len(), chunk.addresses.start)))
        .collect();
    copies.sort_unstable();
    let mut copies = copies.into_iter();
    let (mut end, mut used) = (0, 0);
    let mut tree = Tree::new(root);
    while let Some(leaf) = tree.next_leaf(fs, volume)? {
        for (key, item) in leaf.items() {
            match key.kind {
                DEVICE_EXTENT => {}
                REPLACEMENT => {
                    require_no_replacement(item, leaf.site)?;
                    continue;
                }
                PERSISTENT_ITEM => continue,
                kind => return Err(unknown(&format!("Its device tree has an item of kind {kind}."))),
            }
            let raw = RawDeviceExtent::ref_from_prefix(item).ok().map(|(raw, _)| raw);
            let raw = raw.filter(|raw| key.object == fs.device && raw.chunk_object.get() == FIRST_CHUNK_TREE);
            let extent = raw.map(|raw| (key.offset, raw.len.get(), raw.chunk.get()));
            let range = extent.and_then(|(start, len, _)| fs.on_device(start, len));
            let Some(range) = range.filter(|range| range.start >= end && extent == copies.next()) else {
                let what = format!("the extent of the device at {:#x} is not a copy of a chunk", key.offset);
                return Err(damaged(&what, leaf.site));
            };
            free.push(end..range.start)?;
            used = add(used, length(&range), "the extents of the device")?;
            end = range.end;
        }
    }
    if copies.next().is_some() || used != fs.device_used {
        let what = "the extents of the device are not the copies of all chunks, or have another sum";
        return Err(damaged(what, site("Btrfs device tree", 0)));
    }
    free.push(end..fs.total)
}

/// Declines while the device is being replaced: the first state is "never", the later ones are ends.
fn require_no_replacement(item: &[u8], at: Site) -> Result<(), Stop> {
    if RawReplacement::ref_from_prefix(item).is_ok_and(|(raw, _)| matches!(raw.state.get(), 0 | 2 | 3)) {
        return Ok(());
    }
    let what =
        "Its device is being replaced: mount it, and let that end or cancel it (btrfs replace cancel).";
    Err(unfinished(DeclineReason::Dirty, what, at))
}

/// Reads the tree of block groups.
fn block_groups(fs: &Fs, volume: &dyn ReadAt, root: Pointer, groups: &mut [Option<u64>]) -> Result<(), Stop> {
    let mut tree = Tree::new(root);
    while let Some(leaf) = tree.next_leaf(fs, volume)? {
        for (key, item) in leaf.items() {
            if key.kind != BLOCK_GROUP_ITEM {
                return Err(unknown(&format!("Its block group tree has an item of kind {}.", key.kind)));
            }
            block_group(fs, key, item, leaf.site, groups)?;
        }
    }
    Ok(())
}

/// Notes what a block group says is used of its chunk.
fn block_group(fs: &Fs, key: Key, item: &[u8], at: Site, groups: &mut [Option<u64>]) -> Result<(), Stop> {
    let found = fs.chunks.of(key.object, key.offset);
    if let (Some((number, chunk, range)), Ok((raw, _))) = (found, RawBlockGroup::ref_from_prefix(item))
        && let Some(group) = groups.get_mut(number)
        && chunk.addresses == range
        && chunk.kind == raw.kind.get()
        && group.is_none()
    {
        *group = Some(raw.used.get());
        return Ok(());
    }
    let what = format!("the block group at address {:#x} is not that of a chunk", key.object);
    Err(damaged(&what, at))
}

/// What no extent has of the chunks. Gives how much is used of each.
fn inside_chunks(
    fs: &Fs,
    volume: &dyn ReadAt,
    root: Pointer,
    free: &mut Free,
    groups: &mut [Option<u64>],
) -> Result<Vec<u64>, Stop> {
    let mut found = Vec::new();
    let mut chunks = fs.chunks.all().iter();
    let mut rest: Option<(&Chunk, u64, u64)> = chunks.next().map(|c| (c, c.addresses.start, 0));
    let mut tree = Tree::new(root);
    while let Some(leaf) = tree.next_leaf(fs, volume)? {
        for (key, item) in leaf.items() {
            match key.kind {
                BLOCK_GROUP_ITEM if !fs.block_group_tree => block_group(fs, key, item, leaf.site, groups)?,
                EXTENT_ITEM | METADATA_ITEM => {
                    let len = extent_len(fs, key, item, &leaf)?;
                    let range = fs.chunks.of(key.object, len);
                    // Chunks before the one of this extent are at their end.
                    while let (Some((chunk, end, used)), Some((_, this, _))) = (rest, &range)
                        && chunk.addresses.start < this.addresses.start
                    {
                        gap(chunk, end..chunk.addresses.end, free)?;
                        found.push(used);
                        rest = chunks.next().map(|chunk| (chunk, chunk.addresses.start, 0));
                    }
                    let (Some((chunk, end, used)), Some((_, this, range))) = (rest, range) else {
                        return Err(bad_extent(key, "lies in no chunk", leaf.site));
                    };
                    if chunk.addresses != this.addresses || range.start < end {
                        return Err(bad_extent(key, "overlaps another one", leaf.site));
                    }
                    gap(chunk, end..range.start, free)?;
                    rest = Some((chunk, range.end, add(used, len, "the used bytes")?));
                }
                kind if REFERENCES.contains(&kind) => {}
                kind => return Err(unknown(&format!("Its extent tree has an item of kind {kind}."))),
            }
        }
    }
    while let Some((chunk, end, used)) = rest {
        gap(chunk, end..chunk.addresses.end, free)?;
        found.push(used);
        rest = chunks.next().map(|chunk| (chunk, chunk.addresses.start, 0));
    }
    Ok(found)
}

fn gap(chunk: &Chunk, range: Range<u64>, free: &mut Free) -> Result<(), Stop> {
    chunk.places(range).try_for_each(|place| free.push(place))
}

/// How long an extent is. A record of a tree block may leave that out, and has the level there.
fn extent_len(fs: &Fs, key: Key, item: &[u8], leaf: &Node) -> Result<u64, Stop> {
    let Ok((raw, _)) = RawExtent::ref_from_prefix(item) else {
        return Err(bad_extent(key, "is recorded as before 2009", leaf.site));
    };
    let is_block = raw.flags.get() & TREE_BLOCK != 0;
    let len = if key.kind == METADATA_ITEM { fs.node } else { key.offset };
    let fits = if is_block { len == fs.node } else { key.kind == EXTENT_ITEM };
    if !fits || !key.object.is_multiple_of(fs.sector) || !len.is_multiple_of(fs.sector) {
        return Err(bad_extent(key, "has an impossible size", leaf.site));
    }
    Ok(len)
}

fn bad_extent(key: Key, what: &str, at: Site) -> Stop {
    damaged(&format!("the extent at address {:#x} {what}", key.object), at)
}
