//! The second witness: everything that owns space.
//!
//! ```text
//!   superblocks, chunk tree, root tree ──► each root ──► blocks of its tree
//!                                 │                          └─► leaves of subvolumes: extents of files
//!                                 └─► leaves of the root tree itself: extents of the old free space cache
//! ```
//! Snapshots share their blocks. Each block is read once, by whichever tree comes to it first: one bit for
//! each possible place remembers it, so a thousand snapshots cost little more than one. Blocks that own nothing
//! but themselves (leaves of checksums, extents, free space) are known from who points to them and are not read.
//!
//! Where snapshots came and went, blocks that follow each other in a tree lie anywhere. So leaves wait until there
//! are many, and are then read in the order of their addresses.
//!
//! A subvolume that is being deleted is walked from where the deletion has come to. A block of it of which a
//! part is left out does not count as read: where another tree has it, all of it is walked.
//!
//! Source: btrfs-progs documentation, "Tree items" (`ROOT_ITEM`, `EXTENT_DATA`); the kernel's `btrfs_tree.h`.

use std::ops::Range;

use zerocopy::byteorder::{LE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::chunk::{Chunk, METADATA};
use super::features::unknown;
use super::superblock::{Fs, PRIMARY};
use super::tree::{Deleted, FS_TREE, Key, Node, Pointer, RawKey, Tree};
use super::{damaged, site};
use crate::error::Site;
use crate::fs::cluster_set::ClusterSet;
use crate::fs::witness::advance_within;
use crate::fs::{Owner, OwnerWalk, Purpose, Stop, Witness};
use crate::io::{Cached, ReadAt};
use crate::units::{Progress, add, length};

pub(super) const ROOT_ITEM: u8 = 132;
const EXTENT_DATA: u8 = 108;
/// Trees by number: roots, relocation by a balance; and those of subvolumes.
const ROOT_TREE: u64 = 1;
pub(super) const RELOCATION: u64 = 8u64.wrapping_neg();
const SUBVOLUMES: Range<u64> = 256..1 << 63;
const MAX_LEVEL: u8 = 7;
/// Kinds of extents: in its own record, on the device, there but never written.
const INLINE: u8 = 0;
const REGULAR: u8 = 1;
const RESERVED: u8 = 2;
/// Not at all, zlib, lzo, zstd.
const MAX_COMPRESSION: u8 = 3;
/// How many leaves wait to be read: some megabytes.
const MAX_WAITING: usize = 1 << 16;
const TREE_BLOCK: &str = "Btrfs tree block";
/// Extents, chunks, devices, checksums, quotas, subvolumes by UUID, free space, block groups.
const WITHOUT_OWNERS: [u64; 8] = [2, 3, 4, 7, 8, 9, 10, 11];
/// The files of a balance, empty at other times.
const DATA_RELOCATION: u64 = 9u64.wrapping_neg();

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawRoot {
    _inode: [u8; 160],
    generation: U64<LE>,
    _directory: U64<LE>,
    at: U64<LE>,
    _limits: [u8; 32],
    references: U32<LE>,
    deleted: RawKey,
    deleted_level: u8,
    level: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFileExtent {
    _generation: U64<LE>,
    _size: U64<LE>,
    compression: u8,
    encryption: u8,
    encoding: U16<LE>,
    kind: u8,
}

/// Where an extent lies that is not inside its own record.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPlace {
    start: U64<LE>,
    len: U64<LE>,
    _part: [u8; 16],
}

/// A tree of the root tree.
pub(super) struct Root {
    pub(super) pointer: Pointer,
    deleted: Option<Deleted>,
}

impl Root {
    pub(super) fn parse(key: Key, item: &[u8], fs: &Fs, at: Site) -> Result<Self, Stop> {
        let impossible = || damaged(&format!("the root of tree {} is impossible", name_of(key.object)), at);
        let Ok((raw, _)) = RawRoot::ref_from_prefix(item) else { return Err(impossible()) };
        let is_subvolume = key.object == FS_TREE || SUBVOLUMES.contains(&key.object);
        if !is_subvolume && key.object != DATA_RELOCATION && !WITHOUT_OWNERS.contains(&key.object) {
            return Err(unknown(&format!("It has a tree of number {}.", name_of(key.object))));
        }
        if raw.level > MAX_LEVEL || raw.generation.get() > fs.generation {
            return Err(impossible());
        }
        let pointer = Pointer {
            at: raw.at.get(),
            level: raw.level,
            generation: raw.generation.get(),
            owner: (!is_subvolume).then_some(key.object),
            first: None,
        };
        let (progress, level) = (raw.deleted.get(), raw.deleted_level);
        let deleted = raw.references.get() == 0 && progress.object != 0;
        if deleted && !(1..=raw.level).contains(&level) {
            return Err(impossible());
        }
        let deleted = deleted.then_some(Deleted { key: progress, level });
        Ok(Self { pointer, deleted })
    }
}

/// The number of a tree as people know it: those of the file system's own count down from zero, too.
const fn name_of(tree: u64) -> i64 {
    tree.cast_signed()
}

/// A walk over all owners, resumable after each tree block.
#[derive(Debug)]
pub(super) struct Walk {
    fs: Fs,
    started: bool,
    /// The root tree, and on top of it the chunk tree.
    outer: Vec<Tree>,
    /// Trees that a leaf of the root tree leads to: they are walked before the root tree goes on.
    inner: Vec<Tree>,
    /// Leaves that are still to be read, and those of them that are read now, in order.
    waiting: Vec<Pointer>,
    batch: std::vec::IntoIter<Pointer>,
    seen: Seen,
    /// Bytes of tree blocks read, and of all that there may be.
    done: u64,
    total: u64,
}

/// The tree blocks that were met.
#[derive(Debug)]
struct Seen {
    /// For each chunk, the number of its first place, if tree blocks may lie in it.
    first: Vec<Option<u64>>,
    /// Blocks of subvolumes, and those of all other trees.
    shared: ClusterSet,
    alone: ClusterSet,
}

impl Seen {
    fn new(fs: &Fs) -> Result<Self, Stop> {
        let mut places = 0;
        let mut first = Vec::new();
        for chunk in fs.chunks.all() {
            let may_hold = chunk.kind & METADATA != 0;
            first.push(may_hold.then_some(places));
            if may_hold {
                let count = chunk.len().checked_div(fs.sector).unwrap_or(0);
                places = add(places, count, "the places of tree blocks")?;
            }
        }
        Ok(Self { first, shared: ClusterSet::new(places)?, alone: ClusterSet::new(places)? })
    }

    /// The chunk and the places of the tree block at an address, and its number.
    fn place<'f>(&self, fs: &'f Fs, at: u64) -> Option<(&'f Chunk, Range<u64>, u32)> {
        let (number, chunk, range) = fs.chunks.of(at, fs.node).filter(|_| at.is_multiple_of(fs.sector))?;
        let first = (*self.first.get(number)?)?;
        let before = length(&(chunk.addresses.start..range.start));
        let place = first.checked_add(before.checked_div(fs.sector)?)?;
        Some((chunk, range, u32::try_from(place).ok()?))
    }

    /// Tells `witness` of a tree block. True if it is to be read: it may own something, and was not read before.
    fn visit(&mut self, fs: &Fs, pointer: &Pointer, witness: &mut Witness<'_>) -> Result<bool, Stop> {
        let Some((chunk, range, place)) = self.place(fs, pointer.at) else {
            let what = format!("the tree block at address {:#x} lies where none can be", pointer.at);
            return Err(damaged(&what, site(TREE_BLOCK, 0)));
        };
        // Subvolumes share blocks with their snapshots. Of every other tree a block is its own alone: where two come to
        // one block, one of them has lost what it had there, and who knows what that owned.
        let is_shared = pointer.owner.is_none();
        let is_others = if is_shared { self.alone.contains(place) } else { self.shared.contains(place) };
        if is_others || !is_shared && !self.alone.insert(place) {
            let what = format!("the tree block at address {:#x} belongs to two trees", pointer.at);
            return Err(damaged(&what, site(TREE_BLOCK, chunk.copies.first().copied().unwrap_or(0))));
        }
        if is_shared && !self.shared.insert(place) {
            return Ok(false);
        }
        for copy in chunk.places(range) {
            let at = site(TREE_BLOCK, copy.start);
            witness
                .owns(Purpose::Structure, copy, || Owner { name: "a tree block".into(), site: Some(at) })?;
        }
        // Leaves of these trees own nothing but themselves.
        Ok(pointer.level != 0 || pointer.owner.is_none_or(|tree| !WITHOUT_OWNERS.contains(&tree)))
    }

    /// Forgets a block that was read only in part.
    fn forget(&mut self, fs: &Fs, at: u64) {
        if let Some((_, _, place)) = self.place(fs, at) {
            self.shared.remove(place);
        }
    }
}

impl Walk {
    pub(super) fn new(fs: Fs) -> Result<Self, Stop> {
        let seen = Seen::new(&fs)?;
        let outer = vec![Tree::new(fs.root.clone()), Tree::new(fs.chunk_root.clone())];
        let metadata = fs.chunks.all().iter().filter(|chunk| chunk.kind & METADATA != 0);
        let total = metadata.map(|chunk| chunk.len()).fold(0, u64::saturating_add);
        let (waiting, batch) = (Vec::new(), Vec::new().into_iter());
        Ok(Self { fs, started: false, outer, inner: Vec::new(), waiting, batch, seen, done: 0, total })
    }

    /// Does the next piece of work; gives what it cost, or none at the end.
    fn advance(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<Option<u64>, Stop> {
        if !self.started {
            self.started = true;
            for range in self.fs.reserved() {
                let at = site(PRIMARY, range.start);
                let owner = || Owner { name: "the superblocks".into(), site: Some(at) };
                witness.owns(Purpose::Structure, range, owner)?;
            }
        }
        let node = match self.batch.next() {
            Some(leaf) => Some(leaf.read(&self.fs, volume)?),
            None if self.waiting.len() < MAX_WAITING && !(self.inner.is_empty() && self.outer.is_empty()) => {
                self.next_of_trees(volume, witness)?
            }
            None if self.waiting.is_empty() => return Ok(None),
            None => {
                self.waiting.sort_unstable_by_key(|leaf| leaf.at);
                self.batch = std::mem::take(&mut self.waiting).into_iter();
                None
            }
        };
        let Some(node) = node else { return Ok(Some(0)) };
        self.done = add(self.done, self.fs.node, "the tree blocks")?;
        self.leaf(&node, witness)?;
        Ok(Some(self.fs.node))
    }

    /// Goes on in the innermost tree: reads its next block, if that is to be read now.
    fn next_of_trees(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
    ) -> Result<Option<Node>, Stop> {
        let trees = if self.inner.is_empty() { &mut self.outer } else { &mut self.inner };
        let Some(tree) = trees.last_mut() else { return Ok(None) };
        let (fs, seen, waiting) = (&self.fs, &mut self.seen, &mut self.waiting);
        let node = tree.next(fs, volume, &mut |pointer| {
            let is_read = seen.visit(fs, pointer, witness)?;
            // A leaf of the root tree is read at once: the trees of one such leaf are no great number.
            let waits = is_read && pointer.level == 0 && pointer.owner != Some(ROOT_TREE);
            if waits {
                waiting.push(pointer.clone());
            }
            Ok(is_read && !waits)
        })?;
        match &node {
            None => drop(trees.pop()),
            Some(node) if node.is_cut => seen.forget(fs, node.address()),
            Some(_) => {}
        }
        Ok(node)
    }

    /// Hears of what the items of a leaf own, and notes the trees that they lead to.
    fn leaf(&mut self, node: &Node, witness: &mut Witness<'_>) -> Result<(), Stop> {
        let mut count = 0;
        for (key, item) in node.items() {
            if key.kind == EXTENT_DATA {
                self.file_extent(key, item, node, witness)?;
                count = add(count, 1, "the extents of files")?;
            } else if key.kind == ROOT_ITEM && node.owner() == ROOT_TREE {
                let root = Root::parse(key, item, &self.fs, node.site)?;
                self.inner.push(Tree::being_deleted(root.pointer, root.deleted));
                count = add(count, 1, "the trees")?;
            }
        }
        witness.looked_at(count)
    }

    fn file_extent(&self, key: Key, item: &[u8], node: &Node, witness: &mut Witness<'_>) -> Result<(), Stop> {
        let wrong = |what: &str| {
            let what = format!("an extent of inode {} of tree {} {what}", key.object, node.owner());
            damaged(&what, node.site)
        };
        let Ok((raw, rest)) = RawFileExtent::ref_from_prefix(item) else { return Err(wrong("is cut off")) };
        if raw.compression > MAX_COMPRESSION || raw.encryption != 0 || raw.encoding.get() != 0 {
            return Err(wrong("is compressed, encrypted or encoded in an unknown way"));
        }
        match raw.kind {
            INLINE => return Ok(()),
            REGULAR | RESERVED => {}
            _ => return Err(wrong("is of an unknown kind")),
        }
        let Ok(place) = RawPlace::ref_from_bytes(rest) else { return Err(wrong("has an impossible length")) };
        let (start, len) = (place.start.get(), place.len.get());
        if start == 0 {
            return Ok(());
        }
        let Some((_, chunk, range)) = self.fs.chunks.of(start, len) else {
            return Err(wrong("lies in no chunk"));
        };
        // The root tree has the files of the old free space cache.
        let is_systems = node.owner() == ROOT_TREE;
        let purpose = if is_systems { Purpose::Structure } else { Purpose::File };
        for copy in chunk.places(range) {
            let name = || format!("inode {} of subvolume {}", key.object, node.owner());
            witness.owns(purpose, copy, || Owner { name: name(), site: Some(node.site) })?;
        }
        Ok(())
    }
}

impl OwnerWalk for Walk {
    fn step(
        &mut self,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        budget: u64,
    ) -> Result<Progress, Stop> {
        let cached = Cached::new(volume);
        if advance_within(budget, || self.advance(&cached, witness))? {
            return Ok(Progress::FINISHED);
        }
        Ok(Progress { done: self.done, total: self.total.max(self.done), finished: false })
    }

    fn remedy(&self) -> &'static str {
        "see what `btrfs check` says of it, unmounted"
    }
}
