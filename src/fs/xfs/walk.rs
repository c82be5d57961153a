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
//! Source: XFS Algorithms & Data Structures, "AG Inode Management", "Reverse-Mapping B+tree", "Reference Count
//! B+tree".

use std::cell::Cell;
use std::ops::Range;

use zerocopy::byteorder::{BE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::btree::{BNO, CNT, FINO, INO, Kind, Leaf, REFC, RMAP, Tree};
use super::directory::Directory;
use super::group::{Agf, Agi};
use super::inode::{Fork, Inode, RawExtent, looks_used};
use super::superblock::{Fs, SUPERBLOCK};
use super::{damaged, site};
use crate::error::{Result as Outcome, Site};
use crate::fs::{Owner, OwnerWalk, Stop, Witness};
use crate::io::{Cached, ReadAt, read_vec};
use crate::units::{Progress, add, index, len64, length, mul};

/// Inodes of one chunk.
const CHUNK: u32 = 64;
/// How many inodes one bit of the mask of holes stands for.
const PER_HOLE: usize = 4;
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
struct InodeRecord {
    first: U32<BE>,
    /// Without holes, these four bytes are one number: how many inodes are free.
    holes: U16<BE>,
    count: u8,
    free_count: u8,
    free: U64<BE>,
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

/// A chunk of inodes in the middle of its walk.
#[derive(Debug)]
struct Chunk {
    /// The number of the first inode in the group, and its place on the volume.
    first: u32,
    start: u64,
    present: u64,
    free: u64,
    /// Which of them are still to be looked at.
    left: Range<u32>,
}

/// An inode in the middle of its walk.
#[derive(Debug)]
struct File {
    inode: Inode,
    /// The forks that are left; the first of them is walked.
    forks: Range<usize>,
    /// How many of its extents were seen, and where in the file the last one ended.
    extents: u64,
    end: u64,
    /// Blocks seen in both forks.
    blocks: u64,
    /// What is still to be read of a directory.
    directory: Option<Directory>,
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
            if self.walk_file(&mut file, volume, witness)? {
                self.file = Some(file);
            }
        } else if let Some(mut chunk) = self.chunk.take() {
            if self.walk_chunk(&mut chunk, volume, witness)? {
                self.chunk = Some(chunk);
            }
        } else if let Some((leaf, mut left)) = self.leaf.take() {
            let records = leaf.records::<InodeRecord>()?;
            if let Some(record) = left.next().and_then(|next| records.get(next)) {
                self.chunk = Some(self.start_chunk(record, leaf.site, witness)?);
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
            witness.owns(fs.bytes(group, start, count, &|| at)?, || structure(what, group, at))
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
            witness.owns(range, || structure(kind.structure, group, at))
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

    /// Hears of blocks whose owner is met elsewhere, too: they are not added to what is owned.
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
            witness.owns(range, || Owner { name: name(), site: Some(at) })?;
        }
        Ok(())
    }

    fn start_chunk(
        &mut self,
        record: &InodeRecord,
        at: Site,
        witness: &mut Witness<'_>,
    ) -> Result<Chunk, Stop> {
        let (first, free) = (record.first.get(), record.free.get());
        let holes = if self.fs.sparse_inodes { record.holes.get() } else { 0 };
        let free_count = u64::from(record.free_count);
        let mut present = 0u64;
        let start = self.fs.header_at(self.group, 0)?;
        let end = add(start, mul(self.fs.group_len(self.group), self.fs.block_size, "a group")?, "a group")?;
        let inode_at = |inode: u64| -> Outcome<u64> {
            add(start, mul(inode, self.fs.inode_size, "an inode")?, "an inode")
        };
        for (hole, from) in (0..CHUNK).step_by(PER_HOLE).enumerate() {
            if holes >> hole & 1 != 0 {
                continue;
            }
            present |= 0xF << from;
            let inode = add(first.into(), from.into(), "an inode")?;
            let range = inode_at(inode)?..inode_at(add(inode, len64(PER_HOLE), "an inode")?)?;
            if range.end > end {
                return Err(damaged("an inode chunk does not lie in its group", at));
            }
            witness.owns(range, || structure("inodes", self.group, at))?;
        }
        let free = free & present;
        let has_count = !self.fs.sparse_inodes || u32::from(record.count) == present.count_ones();
        if u64::from(free.count_ones()) != free_count || !has_count {
            return Err(damaged("an inode chunk has another number of (free) inodes than it says", at));
        }
        self.found.inodes = add(self.found.inodes, present.count_ones().into(), "the inodes")?;
        self.found.free = add(self.found.free, free_count, "the inodes")?;
        Ok(Chunk { first, start: inode_at(first.into())?, present, free, left: 0..CHUNK })
    }

    /// Looks at the next inode of a chunk. False at the end.
    fn walk_chunk(
        &mut self,
        chunk: &mut Chunk,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
    ) -> Result<bool, Stop> {
        let Some(at) = chunk.left.next() else { return Ok(false) };
        let is = |mask: u64| mask >> at & 1 != 0;
        if !is(chunk.present) {
            return Ok(true);
        }
        witness.looked_at(1)?;
        let offset = mul(at.into(), self.fs.inode_size, "an inode")?;
        let offset = add(chunk.start, offset, "an inode")?;
        let bytes = read_vec(volume, offset, index(self.fs.inode_size, "an inode")?)?;
        if is(chunk.free) && !looks_used(&self.fs, &bytes) {
            return Ok(true);
        }
        let number = self.fs.inode_number(self.group, add(chunk.first.into(), at.into(), "an inode")?);
        let inode = Inode::parse(&self.fs, &bytes, number, site("XFS inode", offset))?;
        let directory = inode.is_directory.then(|| Directory::new(number, inode.site));
        if let (Some(directory), Some(names)) = (&directory, &inode.inline) {
            directory.read_inline(&self.fs, names, witness)?;
        }
        self.file = Some(File { inode, forks: 0..2, extents: 0, end: 0, blocks: 0, directory });
        Ok(true)
    }

    /// Hears of the next extents of an inode. False at the end.
    fn walk_file(
        &mut self,
        file: &mut File,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
    ) -> Result<bool, Stop> {
        let fs = &self.fs;
        let (number, at) = (file.inode.number, file.inode.site);
        if let Some(directory) = &mut file.directory
            && directory.step(fs, volume, witness)?
        {
            return Ok(true);
        }
        let Some((fork, says)) = file.inode.forks.get_mut(file.forks.start) else {
            if file.blocks == file.inode.blocks {
                return Ok(false);
            }
            let (found, says) = (file.blocks, file.inode.blocks);
            let what = format!("inode {number} has {found} blocks and says that it has {says}");
            return Err(damaged(&what, at));
        };
        let says = *says;
        let owner = |at| move || Owner { name: format!("inode {number}"), site: Some(at) };
        let done = match fork {
            Fork::Empty => true,
            Fork::List(bytes) => {
                let bytes = std::mem::take(bytes);
                let list = <[RawExtent]>::ref_from_bytes(&bytes)
                    .map_err(|_| crate::Error::internal("a list of extents has another length"))?;
                file.hear(fs, list, at, witness)?;
                true
            }
            Fork::Extents(tree) => {
                let before = tree.blocks;
                let leaf = tree.next_leaf(fs, volume, &mut |range, at| witness.owns(range, owner(at)))?;
                let blocks = length(&(before..tree.blocks));
                file.blocks = add(file.blocks, blocks, "the blocks of an inode")?;
                self.extent_blocks = add(self.extent_blocks, blocks, "the blocks of inodes")?;
                if self.extent_blocks > fs.blocks {
                    return Err(damaged("trees of extents have more blocks than there are", at));
                }
                match leaf {
                    Some(leaf) => {
                        file.hear(fs, leaf.records::<RawExtent>()?, leaf.site, witness)?;
                        false
                    }
                    None => true,
                }
            }
        };
        if done {
            if file.extents != says {
                let what = format!("inode {number} has {} extents and says that it has {says}", file.extents);
                return Err(damaged(&what, at));
            }
            if let Some(directory) = file.directory.take_if(|_| file.forks.start == 1) {
                directory.end()?;
            }
            file.forks.next();
            (file.extents, file.end) = (0, 0);
        }
        Ok(true)
    }
}

impl File {
    /// Hears of some extents of the fork that is walked.
    fn hear(
        &mut self,
        fs: &Fs,
        extents: &[RawExtent],
        at: Site,
        witness: &mut Witness<'_>,
    ) -> Result<(), Stop> {
        let number = self.inode.number;
        for extent in extents {
            let (offset, block, count) = extent.decode();
            if offset < self.end {
                return Err(damaged(&format!("the extents of inode {number} are out of order"), at));
            }
            let (group, start) = fs.split(block);
            let range = fs.bytes(group, start, count, &|| at)?;
            witness.owns(range.clone(), || Owner { name: format!("inode {number}"), site: Some(at) })?;
            if let Some(directory) = self.directory.as_mut().filter(|_| self.forks.start == 0) {
                directory.add(fs, offset, range);
            }
            self.end = add(offset, count.into(), "an extent")?;
            self.blocks = add(self.blocks, count.into(), "the blocks of an inode")?;
        }
        self.extents = add(self.extents, len64(extents.len()), "the extents of an inode")?;
        Ok(())
    }
}

/// A structure of a group as an owner.
fn structure(what: &str, group: u32, at: Site) -> Owner {
    Owner { name: format!("{what} of allocation group {group}"), site: Some(at) }
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
        loop {
            if !self.advance(&cached, witness)? {
                return Ok(Progress::FINISHED);
            }
            if cached.inner().read.get() >= budget {
                let bytes = |inodes| mul(inodes, self.fs.inode_size, "the inodes");
                let done = bytes(add(self.inodes, self.found.inodes, "the inodes")?)?;
                return Ok(Progress { done, total: done.max(bytes(self.fs.inodes)?), finished: false });
            }
        }
    }

    fn remedy(&self) -> &'static str {
        "unmount it and run `xfs_repair` on it"
    }
}
