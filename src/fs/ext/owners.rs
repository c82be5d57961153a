//! The second witness of ext: every inode in use, and every block that it leads to.
//!
//! ```text
//!   the file system's own structures ─┐
//!   inode tables, in runs ──► inode ──┼─► extents, pointers, attribute blocks ──► Witness: free after all?
//!             ▲                       │        │
//!             │                       └────────┴─► queue of map blocks, directories (read in the disk's order)
//!             └── every name in a directory must be of an inode that is walked ──┘
//! ```
//! **Which inodes are in use?** Those with links, as `e2fsck` has it, and those that the inode bitmap calls
//! used. A group's table is walked as far as its descriptor says that it was ever used: behind that there may
//! be the remains of another file system. **What if a descriptor or an inode bitmap is an old one?** Then
//! inodes are left out that a person can still open. So each name in each directory is looked up: one of an
//! inode outside the walked part, or of one that the bitmap calls free, declines the volume. From the
//! root on, whatever has a name is thus walked, and so is what the superblock and attributes name.
//!
//! The order of work is that of the disk, a few thousand inodes at a time; what waits is bounded, and so
//! is how many blocks are read: no more than the volume has in use. Source: as [`inode`](super::inode).

use std::collections::HashSet;
use std::ops::Range;

use super::blockmap::{self, Lead, Node};
use super::inode::{self, Content, Inode, Kind};
use super::inode_bitmaps::{InodeBitmaps, is_set};
use super::metadata::{self, Metadata, Table};
use super::superblock::Superblock;
use super::{attribute, directory, features, path, site};
use crate::error::{Error, Site};
use crate::fs::witness::advance_within;
use crate::fs::{Decline, DeclineReason, Owner, OwnerWalk, Purpose, Stop, Witness};
use crate::io::{Overlay, Patches, ReadAt, read_vec};
use crate::units::{Progress, add, index, mul};

/// How much of an inode table is read at once.
const TABLE_PIECE: u64 = 1 << 20;
/// How much of a directory is read at once, and of map blocks that lie near each other.
const READ: u64 = 256 << 10;
/// How many blocks that nobody asked for are read with two that somebody did: a read costs as much as
/// 64 KiB of reading.
const GAP: u64 = 64 << 10;
/// How many blocks are taken off the queue at once, and how many leads they may add to it.
const BATCH: u64 = 256;
const BATCH_LEADS: u64 = 1 << 16;
/// How many blocks of maps and directories are read of one volume: those of 2⁴⁰ blocks in small pieces.
const MAX_BLOCKS: u64 = 1 << 28;
/// How many shared attribute blocks are remembered, so that they are counted once.
const MAX_SHARED: usize = 1 << 16;

/// The walk over all owners of one volume.
#[derive(Debug)]
pub(super) struct Owners {
    /// What a replayed journal puts on the volume.
    patches: Patches,
    walk: Walk,
}

#[derive(Debug)]
struct Walk {
    superblock: Superblock,
    metadata: Metadata,
    /// The clusters of the file system's own structures, as blocks.
    structures: Vec<Range<u64>>,
    stage: Stage,
    /// Blocks that are still to be read, of the inodes that were read last.
    queue: Vec<Work>,
    bitmaps: InodeBitmaps,
    /// Attribute blocks that were counted.
    shared: HashSet<u64>,
    /// The clusters that were counted last, and for which inode: with bigalloc, extents share clusters.
    last: (u32, Range<u64>),
    /// How many more blocks of maps and directories may be read.
    blocks_left: u64,
    progress: Progress,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Structures,
    /// The next inode, by group and place in its table.
    Inodes(usize, u32),
}

/// A block, or several that follow each other, that is to be read.
#[derive(Debug, Clone, Copy)]
struct Work {
    block: u64,
    len: u64,
    what: What,
    file: File,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Map(Node),
    Names,
    Attributes,
}

/// What must be known of an inode after it was read.
#[derive(Debug, Clone, Copy)]
struct File {
    number: u32,
    /// What its checksums start from.
    seed: u32,
    /// How many of its blocks hold names: none unless it is a directory.
    blocks_of_names: u64,
    /// What its map leads to.
    contents: Purpose,
}

impl Owners {
    /// A walk over a volume whose free map was made; `used_bytes` are in use by it.
    pub(super) fn new(
        superblock: Superblock,
        metadata: Metadata,
        patches: Patches,
        used_bytes: u64,
    ) -> Result<Self, Stop> {
        let total = metadata.table_bytes(&superblock)?;
        let used_blocks = used_bytes.checked_div(superblock.block_size).unwrap_or(0);
        let walk = Walk {
            structures: metadata.clusters(&superblock)?,
            superblock,
            metadata,
            stage: Stage::Structures,
            queue: Vec::new(),
            bitmaps: InodeBitmaps::default(),
            shared: HashSet::new(),
            last: (0, 0..0),
            blocks_left: used_blocks.min(MAX_BLOCKS),
            progress: Progress { done: 0, total, finished: false },
        };
        Ok(Self { patches, walk })
    }
}

impl OwnerWalk for Owners {
    fn step(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        budget: u64,
    ) -> Result<Progress, Stop> {
        let replayed = Overlay::with(volume, std::mem::take(&mut self.patches));
        let outcome = self.walk.step(&replayed, witness, budget);
        self.patches = replayed.into_patches();
        outcome
    }

    fn remedy(&self) -> &'static str {
        "run `e2fsck -f` on the file system"
    }
}

impl Walk {
    fn step(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        budget: u64,
    ) -> Result<Progress, Stop> {
        let finished = advance_within(budget, || self.advance(volume, witness))?;
        Ok(Progress { finished, ..self.progress })
    }

    /// Does the next piece of work; gives how many bytes it read, or none at the end.
    fn advance(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<Option<u64>, Stop> {
        let read = match self.stage {
            _ if !self.queue.is_empty() => self.batch(volume, witness)?,
            Stage::Structures => self.structures(volume, witness)?,
            Stage::Inodes(group, from) => match self.metadata.tables().get(group).copied() {
                Some(table) => self.inodes(volume, witness, group, table, from)?,
                None => return Ok(None),
            },
        };
        Ok(Some(read))
    }

    /// Tells of the file system's own structures, and looks up the inodes that the superblock names.
    fn structures(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<u64, Stop> {
        // With blocks of 1 KiB the groups begin behind the boot block, whose bit no bitmap has.
        let boot = 0..self.superblock.byte_of(self.superblock.first_data_block)?;
        witness.owns(Purpose::Structure, boot, || Owner { name: "the boot block".into(), site: None })?;
        for blocks in &self.structures {
            let bytes = self.superblock.byte_of(blocks.start)?..self.superblock.byte_of(blocks.end)?;
            let first_free = witness.first_free(bytes.clone());
            witness.owns(Purpose::Structure, bytes, || {
                structure(volume, &self.superblock, first_free.unwrap_or(0))
            })?;
        }
        if self.superblock.features.has(features::MMP) {
            let block = self.superblock.mmp_block;
            let blocks = self.superblock.whole_clusters(block..add(block, 1, "the MMP block")?)?;
            let at = self.superblock.byte_of(blocks.start)?;
            witness.owns(Purpose::Structure, at..self.superblock.byte_of(blocks.end)?, || Owner {
                name: "block for multiple mount protection".into(),
                site: Some(site("ext4 MMP block", at)),
            })?;
        }
        let at = site("ext superblock", super::raw_superblock::OFFSET);
        for (number, purpose) in self.superblock.named_inodes.clone() {
            self.look_up(volume, number, at, || format!("the superblock ({purpose})"))?;
        }
        self.stage = Stage::Inodes(0, 0);
        Ok(0)
    }

    /// Walks the inodes of a table from place `from` on, as far as one read goes.
    fn inodes(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        group: usize,
        table: Table,
        from: u32,
    ) -> Result<u64, Stop> {
        let left = u64::from(table.inodes).checked_sub(from.into()).filter(|&left| left > 0);
        let Some(left) = left else {
            self.stage = Stage::Inodes(next(group)?, 0);
            return Ok(0);
        };
        let number = u32::try_from(group).map_err(|_| Error::internal("a group past the last"))?;
        let bitmap = self.bitmaps.of(volume, &self.superblock, number, table.bitmap)?.to_vec();
        if from == 0 {
            self.require_unused_behind(table, number, &bitmap)?;
        }
        let size = self.superblock.inode_size;
        let count = TABLE_PIECE.checked_div(size).unwrap_or(1).clamp(1, left);
        let len = mul(count, size, "an inode table")?;
        let inside = mul(from.into(), size, "an inode table")?;
        let start = add(self.superblock.byte_of(table.start)?, inside, "an inode table")?;
        let bytes = read_vec(volume, start, index(len, "an inode table")?)?;

        let first = mul(number.into(), self.superblock.inodes_per_group.into(), "an inode number")?;
        let first = add(add(first, from.into(), "an inode number")?, 1, "an inode number")?;
        let places = (from..).zip(first..).zip((start..).step_by(index(size, "an inode")?));
        for (bytes, ((place, number), at)) in bytes.chunks_exact(index(size, "an inode")?).zip(places) {
            let number = u32::try_from(number).map_err(|_| Error::internal("an inode past the last"))?;
            let inode = Inode::new(number, at, bytes)?;
            if inode.links() > 0 || is_set(&bitmap, place) {
                self.inode(volume, witness, &inode)?;
            }
        }
        self.progress.done = add(self.progress.done, len, "the walked inode tables")?;
        // `count` is at most what is left of a table whose length fits.
        let walked = u32::try_from(count).ok().and_then(|count| from.checked_add(count));
        let walked = walked.ok_or_else(|| Error::internal("an inode table past its end"))?;
        self.stage = Stage::Inodes(group, walked);
        Ok(len)
    }

    /// Declines where the inode bitmap has inodes in use that the descriptor says were never used.
    fn require_unused_behind(&self, table: Table, group: u32, bitmap: &[u8]) -> Result<(), Stop> {
        let behind = table.inodes..self.superblock.inodes_per_group;
        if behind.into_iter().any(|place| is_set(bitmap, place)) {
            return Err(super::map::inconsistent(
                format!("block group {group} has inodes in use where it says that none was ever used"),
                site("ext inode bitmap", self.superblock.byte_of(table.bitmap)?),
            ));
        }
        Ok(())
    }

    /// Tells of everything that an inode in use leads to, or puts it on the queue.
    fn inode(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        inode: &Inode<'_>,
    ) -> Result<(), Stop> {
        let reserved = inode.number < self.superblock.first_inode;
        match inode.kind() {
            _ if inode.is_blank() => return Ok(()),
            Kind::Empty if inode.number == inode::BAD_BLOCKS => {}
            Kind::Empty if reserved || inode.links() == 0 => return Ok(()),
            Kind::Empty => return Err(inode.damaged("it is in use and has no type")),
            _ => {}
        }
        if !inode.has_right_checksum(&self.superblock) {
            return Err(inode.damaged("its checksum is wrong"));
        }
        witness.looked_at(1)?;
        // A directory that was deleted while open may hold any names.
        let has_names = inode.kind() == Kind::Directory && inode.links() > 0;
        let size = if has_names { inode.size(&self.superblock) } else { 0 };
        let file = File {
            number: inode.number,
            seed: inode.seed(&self.superblock),
            blocks_of_names: size.div_ceil(self.superblock.block_size),
            contents: self.contents_of(inode),
        };
        let inline = inode.content(&self.superblock)? == Content::Inline;
        if inline || self.superblock.features.has(features::EA_INODE) {
            self.attributes_inside(volume, inode, inline && has_names)?;
        }
        if let Some(block) = inode.attribute_block(&self.superblock) {
            self.attribute_block(volume, witness, inode, file, block)?;
        }
        if let Some(block) = inode.translator_block(&self.superblock) {
            if !self.superblock.holds(block) {
                return Err(inode.damaged("its translator lies outside the file system"));
            }
            let end = add(block, 1, "a translator")?;
            self.own(volume, witness, file, Purpose::Structure, inode.site(), block..end)?;
        }
        for lead in inode.leads(&self.superblock)? {
            self.follow(volume, witness, file, inode.site(), lead)?;
        }
        Ok(())
    }

    /// What an inode's map leads to: a file's contents, or the journal, a quota file, a large attribute's value.
    fn contents_of(&self, inode: &Inode<'_>) -> Purpose {
        let is_named = self.superblock.named_inodes.iter().any(|&(number, _)| number == inode.number);
        let is_systems = inode.number < self.superblock.first_inode || is_named || inode.is_attribute_value();
        match inode.kind() {
            Kind::Regular | Kind::Symlink if !is_systems => Purpose::File,
            _ => Purpose::Structure,
        }
    }

    /// Looks up what attributes inside an inode and inline data name.
    fn attributes_inside(
        &mut self,
        volume: &dyn ReadAt,
        inode: &Inode<'_>,
        has_inline_names: bool,
    ) -> Result<(), Stop> {
        let attributes = attribute::in_inode(inode.attributes()?).map_err(|fault| inode.damaged(fault))?;
        for number in attributes.value_inodes {
            self.look_up(volume, number, inode.site(), || format!("an attribute of inode {}", inode.number))?;
        }
        if has_inline_names {
            // The first four bytes are the parent's number.
            let in_block = inode.block_field().get(4..).unwrap_or(&[]);
            for part in [in_block, attributes.inline_data] {
                self.names(volume, inode.number, inode.site(), part)?;
            }
        }
        Ok(())
    }

    /// A block of attributes, which several inodes may share.
    fn attribute_block(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        inode: &Inode<'_>,
        file: File,
        block: u64,
    ) -> Result<(), Stop> {
        if !self.superblock.holds(block) {
            return Err(inode.damaged("its attributes lie outside the file system"));
        }
        if self.shared.contains(&block) {
            return Ok(());
        }
        if self.shared.len() < MAX_SHARED {
            self.shared.insert(block);
        }
        let end = add(block, 1, "an attribute block")?;
        self.own(volume, witness, file, Purpose::Structure, inode.site(), block..end)?;
        if self.superblock.features.has(features::EA_INODE) {
            self.queue.push(Work { block, len: 1, what: What::Attributes, file });
        }
        Ok(())
    }

    /// Tells of what a map leads to, and puts what must be read on the queue.
    fn follow(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        file: File,
        at: Site,
        lead: Lead,
    ) -> Result<(), Stop> {
        match lead {
            Lead::Blocks(run) => {
                let end = add(run.start, run.len, "the blocks of a file")?;
                self.own(volume, witness, file, file.contents, at, run.start..end)?;
                let with_names = file.blocks_of_names.checked_sub(run.logical).filter(|&left| left > 0);
                if let Some(with_names) = with_names.filter(|_| !run.unwritten) {
                    let len = run.len.min(with_names);
                    self.queue.push(Work { block: run.start, len, what: What::Names, file });
                }
            }
            Lead::Node(node) => {
                let end = add(node.block, 1, "a block of a map")?;
                self.own(volume, witness, file, Purpose::Structure, at, node.block..end)?;
                self.queue.push(Work { block: node.block, len: 1, what: What::Map(node), file });
            }
        }
        Ok(())
    }

    /// Tells that an inode has `blocks`, in whole clusters.
    fn own(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        file: File,
        purpose: Purpose,
        at: Site,
        blocks: Range<u64>,
    ) -> Result<(), Stop> {
        let mut clusters = self.superblock.whole_clusters(blocks)?;
        // Reserved descriptors belong to an inode as well, and bad blocks may lie anywhere.
        let lists_structures = matches!(file.number, inode::BAD_BLOCKS | inode::RESIZE);
        if lists_structures && contains(&self.structures, &clusters) {
            return Ok(());
        }
        if self.superblock.blocks_per_cluster > 1 {
            let (number, last) = &self.last;
            if *number == file.number && last.contains(&clusters.start) {
                clusters.start = last.end.min(clusters.end);
            } else {
                self.last = (file.number, clusters.start..clusters.start);
            }
            self.last.1.end = self.last.1.end.max(clusters.end);
        }
        if clusters.is_empty() {
            return Ok(());
        }
        let bytes = self.superblock.byte_of(clusters.start)?..self.superblock.byte_of(clusters.end)?;
        witness.owns(purpose, bytes, || Owner {
            name: path::name_of(volume, &self.superblock, &self.metadata, file.number),
            site: Some(at),
        })
    }

    /// Reads some of the queue, in the order of the disk, and follows it.
    fn batch(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<u64, Stop> {
        let leads = blockmap::max_leads(&self.superblock).max(1);
        let count = BATCH_LEADS.checked_div(leads).unwrap_or(1).clamp(1, BATCH);
        let count = index(count, "a batch of blocks")?.min(self.queue.len());
        let mut batch: Vec<Work> = (0..count).map_while(|_| self.queue.pop()).collect();
        let longest = READ.checked_div(self.superblock.block_size).unwrap_or(1).max(1);
        for work in &mut batch {
            if let Some(rest) = work.len.checked_sub(longest).filter(|&rest| rest > 0) {
                let block = add(work.block, longest, "the blocks of a directory")?;
                self.queue.push(Work { block, len: rest, ..*work });
                work.len = longest;
            }
        }
        batch.sort_unstable_by_key(|work| work.block);

        let block_size = self.superblock.block_size;
        let mut read = 0u64;
        let mut rest = batch.as_slice();
        while let Some(first) = rest.first() {
            let (together, blocks) = near(rest, block_size)?;
            let start = self.superblock.byte_of(first.block)?;
            let len = self.superblock.byte_of(blocks)?;
            let bytes = read_vec(volume, start, index(len, "blocks of maps")?)?;
            let (now, later) = rest.split_at_checked(together).unwrap_or((rest, &[]));
            for work in now {
                let inside = distance(first.block, work.block)?;
                let from = index(self.superblock.byte_of(inside)?, "a block")?;
                let len = index(self.superblock.byte_of(work.len)?, "a block")?;
                let part = bytes.get(from..).and_then(|rest| rest.get(..len));
                let part = part.ok_or_else(|| Error::internal("a block that was not read"))?;
                self.work(volume, witness, work, part)?;
            }
            read = add(read, len, "what a step read")?;
            rest = later;
        }
        Ok(read)
    }

    fn work(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        work: &Work,
        bytes: &[u8],
    ) -> Result<(), Stop> {
        let at = self.superblock.byte_of(work.block)?;
        let number = work.file.number;
        if !matches!(work.what, What::Attributes) {
            self.blocks_left = self.blocks_left.checked_sub(work.len).ok_or_else(|| {
                let what = "its blocks are more than the volume has in use, with those of others";
                inode::damaged(number, what, site("ext map block", at))
            })?;
        }
        match work.what {
            What::Map(node) => {
                let at = site("ext map block", at);
                let leads = blockmap::follow(&self.superblock, work.file.seed, &node, bytes)
                    .map_err(|fault| inode::damaged(number, fault, at))?;
                for lead in leads {
                    self.follow(volume, witness, work.file, at, lead)?;
                }
            }
            What::Names => {
                let block_len = self.superblock.block_len()?;
                let places = (at..).step_by(block_len);
                for (block, at) in bytes.chunks_exact(block_len).zip(places) {
                    self.names(volume, number, site("ext directory", at), block)?;
                }
            }
            What::Attributes => {
                let at = site("ext attribute block", at);
                let found = attribute::in_block(bytes).map_err(|fault| inode::damaged(number, fault, at))?;
                for value in found.value_inodes {
                    self.look_up(volume, value, at, || format!("an attribute of inode {number}"))?;
                }
            }
        }
        Ok(())
    }

    /// Looks up every name in a stretch of a directory.
    fn names(&mut self, volume: &dyn ReadAt, directory: u32, at: Site, bytes: &[u8]) -> Result<(), Stop> {
        for entry in directory::entries(bytes) {
            let entry = entry.map_err(|fault| inode::damaged(directory, fault, at))?;
            if !entry.is_dot() {
                self.look_up(volume, entry.inode, at, || {
                    format!("the name “{}”", String::from_utf8_lossy(entry.name))
                })?;
            }
        }
        Ok(())
    }

    /// Declines where `number` is no inode that is walked. `by` says who names it.
    fn look_up(
        &mut self,
        volume: &dyn ReadAt,
        number: u32,
        at: Site,
        by: impl FnOnce() -> String,
    ) -> Result<(), Stop> {
        let place = self.superblock.place_of_inode(number).and_then(|(group, place)| {
            let table = *self.metadata.tables().get(usize::try_from(group).ok()?)?;
            Some((group, place, table))
        });
        let fault = match place {
            None => "is none of its inodes",
            Some((_, place, table)) if place >= table.inodes => "its group descriptor calls never used",
            Some((group, place, table)) => {
                let bitmap = self.bitmaps.of(volume, &self.superblock, group, table.bitmap)?;
                if is_set(bitmap, place) {
                    return Ok(());
                }
                "the inode bitmap calls free"
            }
        };
        let detail = format!(
            "The file system contradicts itself: {} leads to inode {number}, which {fault}, so a part of its \
             structures is out of date. Run `e2fsck -f` on it, then try again.",
            by()
        );
        Err(Decline::new(DeclineReason::Inconsistent, detail).at(at).into())
    }
}

/// How many of `rest` lie near enough to be read together, and how many blocks that reads.
fn near(rest: &[Work], block_size: u64) -> Result<(usize, u64), Error> {
    let Some(first) = rest.first() else { return Ok((0, 0)) };
    let per = |bytes: u64| bytes.checked_div(block_size).unwrap_or(0);
    let (gap, longest) = (per(GAP), per(READ).max(first.len));
    let mut end = add(first.block, first.len, "a block")?;
    let mut count = 1usize;
    for work in rest.iter().skip(1) {
        let work_end = add(work.block, work.len, "a block")?.max(end);
        let len = distance(first.block, work_end)?;
        if work.block > add(end, gap, "a block")? || len > longest {
            break;
        }
        end = work_end;
        count = next(count)?;
    }
    Ok((count, distance(first.block, end)?))
}

/// How many blocks `to` is behind `from`, in a list that is sorted.
fn distance(from: u64, to: u64) -> Result<u64, Error> {
    to.checked_sub(from).ok_or_else(|| Error::internal("blocks out of order"))
}

/// Whether all of `blocks` are in ranges that are ascending and do not touch.
fn contains(ranges: &[Range<u64>], blocks: &Range<u64>) -> bool {
    let first = ranges.partition_point(|range| range.end < blocks.end);
    ranges.get(first).is_some_and(|range| range.start <= blocks.start)
}

fn next(count: usize) -> Result<usize, Error> {
    count.checked_add(1).ok_or_else(|| Error::internal("a count that memory does not hold"))
}

/// The structure that the byte `at` belongs to.
fn structure(volume: &dyn ReadAt, superblock: &Superblock, at: u64) -> Owner {
    let block = at.checked_div(superblock.block_size).unwrap_or(0);
    Owner { name: metadata::name_of(volume, superblock, block), site: Some(site("ext block group", at)) }
}
