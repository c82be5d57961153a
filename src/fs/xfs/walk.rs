//! The second witness: everything that owns space.
//!
//! ```text
//!   for each group:  headers, free list, log ─► its trees ─► inode chunks ─► inodes ─► extents of both forks
//!                                              │            names of directories ─► inodes
//!                                              ├─► reverse mappings   who owns each block, said once more
//!                                              └─► reference counts   shared extents, copies in the making
//! ```
//! The inodes are walked even where there are reverse mappings, which alone would be quicker: those are changed
//! in the same transactions as the free space and tell who *should* own a block, and what a reader follows are
//! the extents of the inodes. Reverse mappings are heard as a third witness, since they lie in other blocks than
//! both. Shared extents are owned by several inodes, which is allowed.
//!
//! Nothing is kept of an inode; a tree keeps one list of pointers a level.
//!
//! Chunks and inodes have files of their own; here are the groups and their trees.
//!
//! Source: XFS Algorithms & Data Structures, "AG Inode Management", "Reverse-Mapping B+tree", "Reference Count
//! B+tree".

use std::cell::Cell;
use std::ops::Range;

use zerocopy::byteorder::{BE, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::btree::{BNO, CNT, FINO, INO, Kind, Leaf, REFC, RMAP, Tree};
use super::chunk::{Chunk, InodeRecord};
use super::file::File;
use super::group::{Agf, Agi, part_of_group};
use super::superblock::{Fs, SUPERBLOCK};
use super::{damaged, site};
use crate::error::{Result as Outcome, Site};
use crate::fs::witness::advance_within;
use crate::fs::{Owner, OwnerWalk, Purpose, Stop, Witness};
use crate::io::{Cached, ReadAt};
use crate::units::{Progress, add, len64, mul};

/// In a reference count, the bit of `startblock` that says "a copy in the making", not "shared".
const COW: u32 = 1 << 31;
/// The part of `rm_offset` that is an offset.
const OFFSET: u64 = (1 << 54) - 1;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct FreeRecord {
    start: U32<BE>,
    count: U32<BE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RmapRecord {
    start: U32<BE>,
    count: U32<BE>,
    owner: U64<BE>,
    offset: U64<BE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RefcountRecord {
    start: U32<BE>,
    count: U32<BE>,
    _owners: U32<BE>,
}

/// A walk over all owners, resumable after each inode, each leaf and each list of extents.
#[derive(Debug)]
pub(super) struct Walk {
    fs: Fs,
    /// The group that is walked, and those that follow.
    group: u32,
    groups: Range<u32>,
    /// What its headers say: inodes, free ones, blocks of reverse mappings.
    says: Counts,
    found: Counts,
    /// Trees that are still to be walked: kind, root, levels.
    trees: Vec<(&'static Kind, u32, u32)>,
    tree: Option<Tree>,
    /// The last key of that tree.
    last: (u64, u64, u64),
    /// A leaf of inode chunks, and which of its records are still to be walked.
    leaf: Option<(Leaf, Range<usize>)>,
    chunk: Option<Chunk>,
    file: Option<File>,
    /// Inodes in all groups so far, and blocks of the trees of extents of all of them.
    inodes: u64,
    extent_blocks: u64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    inodes: u64,
    free: u64,
    rmap_blocks: u64,
}

impl Walk {
    pub(super) fn new(fs: Fs) -> Self {
        let groups = 0..fs.groups;
        Self {
            fs,
            group: 0,
            groups,
            says: Counts::default(),
            found: Counts::default(),
            trees: Vec::new(),
            tree: None,
            last: (0, 0, 0),
            leaf: None,
            chunk: None,
            file: None,
            inodes: 0,
            extent_blocks: 0,
        }
    }

    /// Does the next piece of work. False if there is none left.
    fn advance(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<bool, Stop> {
        if let Some(mut file) = self.file.take() {
            if file.step(&self.fs, volume, witness, &mut self.extent_blocks)? {
                self.file = Some(file);
            }
        } else if let Some(mut chunk) = self.chunk.take() {
            if let Some(place) = chunk.next_place() {
                self.file = chunk.read(place, &self.fs, volume, witness)?;
                self.chunk = Some(chunk);
            }
        } else if let Some((leaf, mut left)) = self.leaf.take() {
            let records = leaf.records::<InodeRecord>()?;
            if let Some(record) = left.next().and_then(|next| records.get(next)) {
                let chunk = Chunk::begin(record, &self.fs, self.group, leaf.site, witness)?;
                let (inodes, free) = chunk.counts();
                self.found.inodes = add(self.found.inodes, inodes.into(), "the inodes")?;
                self.found.free = add(self.found.free, free.into(), "the inodes")?;
                self.chunk = Some(chunk);
                self.leaf = Some((leaf, left));
            }
        } else if let Some(mut tree) = self.tree.take() {
            if self.walk_tree(&mut tree, volume, witness)? {
                self.tree = Some(tree);
            }
        } else if let Some((kind, root, levels)) = self.trees.pop() {
            let at = site("XFS AGF", self.fs.header_at(self.group, 1)?);
            self.tree = Some(Tree::of_group(kind, self.group, root, levels, at)?);
            self.last = (0, 0, 0);
        } else {
            return self.next_group(volume, witness);
        }
        Ok(true)
    }

    /// Ends a group and begins the next one. False after the last one.
    fn next_group(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<bool, Stop> {
        if self.found != self.says {
            let what = format!(
                "the trees of allocation group {} hold {} inodes ({} of them free) and {} blocks of reverse \
                 mappings, and its headers say {} ({}) and {}",
                self.group,
                self.found.inodes,
                self.found.free,
                self.found.rmap_blocks,
                self.says.inodes,
                self.says.free,
                self.says.rmap_blocks
            );
            return Err(damaged(&what, site("XFS AGI", self.fs.header_at(self.group, 2)?)));
        }
        self.inodes = add(self.inodes, self.found.inodes, "the inodes")?;
        if let Some(group) = self.groups.next() {
            self.group = group;
            return self.begin_group(volume, witness).map(|()| true);
        }
        if self.inodes != self.fs.inodes {
            let what = format!("it has {} inodes, and its superblock says {}", self.inodes, self.fs.inodes);
            return Err(damaged(&what, SUPERBLOCK));
        }
        Ok(false)
    }

    fn begin_group(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<(), Stop> {
        let (fs, group) = (&self.fs, self.group);
        let agf = Agf::read(fs, volume, group)?;
        let agi = Agi::read(fs, volume, group)?;
        let at = site("XFS AGF", fs.header_at(group, 1)?);
        self.trees.extend([
            (&BNO, agf.bno_root.get(), agf.bno_levels.get()),
            (&CNT, agf.cnt_root.get(), agf.cnt_levels.get()),
            (&INO, agi.root.get(), agi.levels.get()),
        ]);
        if fs.finobt {
            self.trees.push((&FINO, agi.free_root.get(), agi.free_levels.get()));
        }
        if fs.reflink {
            self.trees.push((&REFC, agf.refcount_root.get(), agf.refcount_levels.get()));
        }
        let mut rmap_blocks = 0;
        if fs.rmapbt {
            self.trees.push((&RMAP, agf.rmap_root.get(), agf.rmap_levels.get()));
            rmap_blocks = agf.rmap_blocks.get().into();
        }
        let (inodes, free) = (agi.inodes.get().into(), agi.free_inodes.get().into());
        self.says = Counts { inodes, free, rmap_blocks };
        self.found = Counts::default();

        let mut owns = |start, count, what: &str, at: Site| {
            let range = fs.bytes(group, start, count, &|| at)?;
            witness.owns(Purpose::Structure, range, || part_of_group(what, group, at))
        };
        owns(0, fs.header_blocks()?, "the headers", at)?;
        if fs.log.group == group {
            owns(fs.log.start, fs.log.count, "the log", SUPERBLOCK)?;
        }
        for block in agf.free_list(fs, volume, group)? {
            owns(block, 1, "the free list", at)?;
        }
        Ok(())
    }

    /// Walks the next leaf of a tree. False at the end.
    fn walk_tree(
        &mut self,
        tree: &mut Tree,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
    ) -> Result<bool, Stop> {
        let (kind, group) = (tree.kind, self.group);
        let leaf = tree.next_leaf(&self.fs, volume, &mut |range, at| {
            witness.owns(Purpose::Structure, range, || part_of_group(kind.structure, group, at))
        })?;
        let Some(leaf) = leaf else {
            if *kind == RMAP {
                self.found.rmap_blocks = tree.blocks;
            }
            return Ok(false);
        };
        if *kind == RMAP {
            for record in leaf.records::<RmapRecord>()? {
                let (start, count, owner) = (record.start.get(), record.count.get(), record.owner.get());
                self.in_order((start.into(), owner, record.offset.get() & OFFSET), leaf.site)?;
                self.also_owned(witness, start, count, leaf.site, &|| rmap_owner(owner))?;
            }
        } else if *kind == REFC {
            for record in leaf.records::<RefcountRecord>()? {
                let (start, count) = (record.start.get(), record.count.get());
                self.in_order((start.into(), 0, 0), leaf.site)?;
                let (block, name) = match start & COW {
                    0 => (start, "a shared extent"),
                    _ => (start & !COW, "a copy that was being made"),
                };
                self.also_owned(witness, block, count, leaf.site, &|| name.into())?;
            }
        } else if *kind == INO || *kind == FINO {
            let records = leaf.records::<InodeRecord>()?;
            for record in records {
                self.in_order((record.first.get().into(), 0, 0), leaf.site)?;
            }
            if *kind == INO {
                let left = 0..records.len();
                self.leaf = Some((leaf, left));
            }
        } else {
            for record in leaf.records::<FreeRecord>()? {
                let (start, count) = (record.start.get(), record.count.get());
                let key = if *kind == CNT { (count, start) } else { (start, 0) };
                self.in_order((key.0.into(), key.1.into(), 0), leaf.site)?;
            }
        }
        Ok(true)
    }

    /// Sees to it that keys go up: a leaf that is met twice would be walked for ever.
    fn in_order(&mut self, key: (u64, u64, u64), at: Site) -> Result<(), Stop> {
        // One more than the key, so that a first key of zeros is in order, too.
        let key = (add(key.0, 1, "a key")?, key.1, key.2);
        if key <= self.last {
            return Err(damaged("the records of a tree are out of order", at));
        }
        self.last = key;
        Ok(())
    }

    /// Hears of blocks whose owner is met elsewhere, too, and which are told of here only to decline: they are not
    /// added to what is owned.
    fn also_owned(
        &self,
        witness: &mut Witness<'_>,
        start: u32,
        count: u32,
        at: Site,
        name: &dyn Fn() -> String,
    ) -> Result<(), Stop> {
        let range = self.fs.bytes(self.group, start, count, &|| at)?;
        if witness.calls_free(range.clone()) {
            witness.owns(Purpose::File, range, || Owner { name: name(), site: Some(at) })?;
        }
        Ok(())
    }
}

/// An owner as reverse mappings name it.
fn rmap_owner(owner: u64) -> String {
    if owner >> 63 == 0 { format!("inode {owner}") } else { "a structure of the file system".into() }
}

/// Counts what is read.
struct Meter<'a> {
    volume: &'a dyn ReadAt,
    read: Cell<u64>,
}

impl ReadAt for Meter<'_> {
    fn size(&self) -> u64 {
        self.volume.size()
    }

    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Outcome<()> {
        self.read.set(add(self.read.get(), len64(buf.len()), "the bytes read")?);
        self.volume.read_exact_at(offset, buf)
    }
}

impl OwnerWalk for Walk {
    fn step(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        budget: u64,
    ) -> Result<Progress, Stop> {
        let cached = Cached::new(Meter { volume, read: Cell::new(0) });
        let finished = advance_within(budget, || {
            let more = self.advance(&cached, witness)?;
            Ok(more.then(|| cached.inner().read.take()))
        })?;
        let bytes = |inodes| mul(inodes, self.fs.inode_size, "the inodes");
        let done = bytes(add(self.inodes, self.found.inodes, "the inodes")?)?;
        Ok(Progress { done, total: done.max(bytes(self.fs.inodes)?), finished })
    }

    fn remedy(&self) -> &'static str {
        "unmount it and run `xfs_repair` on it"
    }
}
