//! The free map: the tree of free extents of each allocation group, against every count that there is.
//!
//! ```text
//!   extents by place ──┬─► free map        sum, longest = AGF's
//!   extents by size  ──┘   the same extents
//!   free + free lists + blocks of these trees below their roots, over all groups = sb_fdblocks
//! ```
//! The blocks of the free list (AGFL) and of the trees count as free in the superblock, since the trees give
//! them back as space gets used. They are in nobody's free extent, and so they stay.
//!
//! Source: XFS Algorithms & Data Structures, "AG Free Space Management".

use zerocopy::byteorder::{BE, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::btree::{BNO, CNT, Kind, Tree};
use super::group::Agf;
use super::superblock::{Fs, SUPERBLOCK};
use super::{damaged, site};
use crate::error::Site;
use crate::extents::Extents;
use crate::fs::{FreeMap, Stop};
use crate::io::ReadAt;
use crate::units::{add, mul};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Extent {
    start: U32<BE>,
    count: U32<BE>,
}

/// What one tree of free extents holds, apart from their order.
#[derive(Default, PartialEq, Eq)]
struct Sum {
    extents: u64,
    blocks: u64,
    longest: u32,
    /// A sum over a mix of each extent, the same in any order: both trees must hold the same extents.
    mix: u64,
}

impl Sum {
    fn count(&mut self, start: u32, count: u32) -> Result<(), Stop> {
        self.extents = add(self.extents, 1, "the free extents")?;
        self.blocks = add(self.blocks, count.into(), "the free blocks")?;
        self.longest = self.longest.max(count);
        // Odd multipliers of well mixed bits (SplitMix64): a damaged extent does not cancel out by chance.
        let pair = u64::from(start) << 32 | u64::from(count);
        let mixed = (pair ^ pair >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        self.mix = self.mix.wrapping_add((mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB));
        Ok(())
    }
}

/// Maps the free blocks.
pub(super) fn free_map(fs: &Fs, volume: &dyn ReadAt) -> Result<FreeMap, Stop> {
    let mut free = Extents::new();
    let mut free_blocks = 0;
    let mut counted = 0;
    for group in 0..fs.groups {
        let agf = Agf::read(fs, volume, group)?;
        let at = site("XFS AGF", fs.header_at(group, 1)?);
        let (sum, by_place) = by_place(fs, volume, group, &agf, &mut free, at)?;
        let (same, by_size) = by_size(fs, volume, group, &agf, at)?;
        if sum != same {
            let what = format!("the two free space trees of allocation group {group} differ");
            return Err(damaged(&what, at));
        }
        if sum.blocks != u64::from(agf.free_blocks.get()) || sum.longest != agf.longest.get() {
            let what = format!(
                "allocation group {group} has {} free blocks, {} of them together, and its header says {} and {}",
                sum.blocks, sum.longest, agf.free_blocks, agf.longest
            );
            return Err(damaged(&what, at));
        }
        // Roots are not counted. Reverse mappings are walked later; until then, the header's number serves.
        let roots = if fs.rmapbt { 3 } else { 2 };
        let trees = add(by_place, by_size, "the blocks of the trees")?;
        let rmap = if fs.rmapbt { agf.rmap_blocks.get() } else { 0 };
        let below = add(trees, rmap.into(), "the blocks of the trees")?.checked_sub(roots);
        let Some(below) = below.filter(|&below| !fs.lazy_count || below == u64::from(agf.tree_blocks.get()))
        else {
            let what =
                format!("allocation group {group} has another number of tree blocks than its header says");
            return Err(damaged(&what, at));
        };
        free_blocks = add(free_blocks, sum.blocks, "the free blocks")?;
        for part in [sum.blocks, agf.list_count.get().into(), below] {
            counted = add(counted, part, "the free blocks")?;
        }
    }
    if counted != fs.free_blocks {
        let what = format!("{counted} blocks are free, and its superblock says {}", fs.free_blocks);
        return Err(damaged(&what, SUPERBLOCK));
    }
    let free_bytes = mul(free_blocks, fs.block_size, "the free space")?;
    let Some(used_blocks) = fs.blocks.checked_sub(free_blocks) else {
        return Err(damaged("more blocks are free than there are", SUPERBLOCK));
    };
    let used_bytes = mul(used_blocks, fs.block_size, "the used space")?;
    let spans = mul(fs.blocks, fs.block_size, "the size of the file system")?;
    Ok(FreeMap { free, free_bytes, used_bytes, spans, on_request: Vec::new() })
}

/// Adds the free extents of a group to `free`.
fn by_place(
    fs: &Fs,
    volume: &dyn ReadAt,
    group: u32,
    agf: &Agf,
    free: &mut Extents,
    at: Site,
) -> Result<(Sum, u64), Stop> {
    let mut end = u64::from(fs.header_blocks()?);
    let (root, levels) = (agf.bno_root.get(), agf.bno_levels.get());
    walk(fs, volume, &BNO, (group, root, levels), at, &mut |start, count, site| {
        if u64::from(start) < end {
            return Err(damaged("free extents overlap, or are out of order", site));
        }
        free.push(fs.bytes(group, start, count, &|| site)?);
        end = add(start.into(), count.into(), "a free extent")?;
        Ok(())
    })
}

fn by_size(fs: &Fs, volume: &dyn ReadAt, group: u32, agf: &Agf, at: Site) -> Result<(Sum, u64), Stop> {
    let mut last = (0, 0);
    let (root, levels) = (agf.cnt_root.get(), agf.cnt_levels.get());
    walk(fs, volume, &CNT, (group, root, levels), at, &mut |start, count, site| {
        if (count, start) <= last {
            return Err(damaged("free extents by size are out of order", site));
        }
        last = (count, start);
        Ok(())
    })
}

/// Walks a tree of free extents; gives their sum and the number of its blocks.
fn walk(
    fs: &Fs,
    volume: &dyn ReadAt,
    kind: &'static Kind,
    (group, root, levels): (u32, u32, u32),
    at: Site,
    extent: &mut dyn FnMut(u32, u32, Site) -> Result<(), Stop>,
) -> Result<(Sum, u64), Stop> {
    let mut tree = Tree::of_group(kind, group, root, levels, at)?;
    let mut sum = Sum::default();
    while let Some(leaf) = tree.next_leaf(fs, volume, &mut |_, _| Ok(()))? {
        for record in leaf.records::<Extent>()? {
            let (start, count) = (record.start.get(), record.count.get());
            extent(start, count, leaf.site)?;
            sum.count(start, count)?;
        }
    }
    Ok((sum, tree.blocks))
}
