//! The second witness: everything that owns space.
//!
//! ```text
//!   superblocks, chunk tree, root tree ──► each root ──► blocks of its tree
//!                                 │                          └─► leaves of subvolumes: extents of files
//!                                 └─► leaves of the root tree itself: extents of the old free space cache
//! ```
//! Snapshots share their blocks. Each block is walked once, by whichever tree comes to it first: one bit for
//! each possible place remembers it, so a thousand snapshots cost little more than one. Blocks that own nothing
//! but themselves (leaves of checksums, extents, free space) are known from who points to them and are not read.
//!
//! A subvolume that is being deleted is walked from where the deletion has come to.
//!
//! Source: btrfs-progs documentation, "Tree items" (`ROOT_ITEM`, `EXTENT_DATA`); the kernel's `btrfs_tree.h`.

use std::ops::Range;

use zerocopy::byteorder::{LE, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::chunk::METADATA;
use super::superblock::{Fs, PRIMARY};
use super::tree::{FS_TREE, Key, Node, Pointer, RawKey, Tree};
use super::{damaged, site};
use crate::error::Site;
use crate::fs::cluster_set::ClusterSet;
use crate::fs::witness::advance_within;
use crate::fs::{Owner, OwnerWalk, Stop, Witness};
use crate::io::{Cached, ReadAt};
use crate::units::{Progress, add, length};

pub(super) const ROOT_ITEM: u8 = 132;
const EXTENT_DATA: u8 = 108;
/// Trees by number: roots, relocation by a balance; and those of subvolumes.
const ROOT_TREE: u64 = 1;
pub(super) const RELOCATION: u64 = 8u64.wrapping_neg();
const SUBVOLUMES: Range<u64> = 256..1 << 63;
const MAX_LEVEL: u8 = 7;
/// Extents, chunks, devices, checksums, quotas, subvolumes by UUID, free space.
const WITHOUT_OWNERS: [u64; 7] = [2, 3, 4, 7, 8, 9, 10];

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
    _deleted_level: u8,
    level: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFileExtent {
    _generation: U64<LE>,
    _size: U64<LE>,
    _compression: u8,
    encryption: u8,
    _encoding: [u8; 2],
    kind: u8,
}

/// Where an extent lies that is not inside its own record.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPlace {
    start: U64<LE>,
    len: U64<LE>,
}

/// A tree of the root tree.
pub(super) struct Root {
    pub(super) pointer: Pointer,
    /// Of a subvolume that is being deleted: what comes before this is gone already.
    deleted: Option<Key>,
}

impl Root {
    pub(super) fn parse(key: Key, item: &[u8], fs: &Fs, at: Site) -> Result<Self, Stop> {
        let raw = RawRoot::ref_from_prefix(item).ok().map(|(raw, _)| raw);
        let Some(raw) = raw.filter(|raw| raw.level <= MAX_LEVEL && raw.generation.get() <= fs.generation)
        else {
            return Err(damaged(&format!("the root of tree {} is impossible", key.object), at));
        };
        let is_subvolume = key.object == FS_TREE || SUBVOLUMES.contains(&key.object);
        let pointer = Pointer {
            at: raw.at.get(),
            level: raw.level,
            generation: raw.generation.get(),
            owner: (!is_subvolume).then_some(key.object),
            first: None,
        };
        let progress = raw.deleted.get();
        let deleted = (raw.references.get() == 0 && progress.object != 0).then_some(progress);
        Ok(Self { pointer, deleted })
    }

    fn tree(self) -> Tree {
        let tree = Tree::new(self.pointer);
        match self.deleted {
            Some(key) => tree.deleted_up_to(key),
            None => tree,
        }
    }
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
    places: ClusterSet,
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
        Ok(Self { first, places: ClusterSet::new(places)? })
    }

    /// Notes a tree block: true if it was not met before. `witness` hears of its copies.
    fn visit(&mut self, fs: &Fs, pointer: &Pointer, witness: &mut Witness<'_>) -> Result<bool, Stop> {
        let found = fs.chunks.of(pointer.at, fs.node).filter(|_| pointer.at.is_multiple_of(fs.sector));
        let place = found.and_then(|(number, chunk, range)| {
            let first = (*self.first.get(number)?)?;
            let before = length(&(chunk.addresses.start..range.start));
            let place = first.checked_add(before.checked_div(fs.sector)?)?;
            Some((chunk, range, u32::try_from(place).ok()?))
        });
        let Some((chunk, range, place)) = place else {
            let what = format!("the tree block at address {:#x} lies where none can be", pointer.at);
            return Err(damaged(&what, site("Btrfs tree block", 0)));
        };
        if !self.places.insert(place) {
            return Ok(false);
        }
        for copy in chunk.places(range) {
            let at = site("Btrfs tree block", copy.start);
            witness.owns(copy, || Owner { name: "a tree block".into(), site: Some(at) })?;
        }
        // Leaves of these trees own nothing but themselves.
        let may_own = pointer.level != 0 || pointer.owner.is_none_or(|tree| !WITHOUT_OWNERS.contains(&tree));
        Ok(may_own)
    }
}

impl Walk {
    pub(super) fn new(fs: Fs) -> Result<Self, Stop> {
        let seen = Seen::new(&fs)?;
        let outer = vec![Tree::new(fs.root.clone()), Tree::new(fs.chunk_root.clone())];
        let metadata = fs.chunks.all().iter().filter(|chunk| chunk.kind & METADATA != 0);
        let total = metadata.map(|chunk| chunk.len()).fold(0, u64::saturating_add);
        Ok(Self { fs, started: false, outer, inner: Vec::new(), seen, done: 0, total })
    }

    /// Does the next piece of work; gives what it cost, or none at the end.
    fn advance(&mut self, volume: &dyn ReadAt, witness: &mut Witness<'_>) -> Result<Option<u64>, Stop> {
        if !self.started {
            self.started = true;
            for range in self.fs.reserved() {
                let at = site(PRIMARY, range.start);
                witness.owns(range, || Owner { name: "the superblocks".into(), site: Some(at) })?;
            }
        }
        let is_inner = !self.inner.is_empty();
        let Some(mut tree) = self.inner.pop().or_else(|| self.outer.pop()) else { return Ok(None) };
        let (fs, seen) = (&self.fs, &mut self.seen);
        let node = tree.next(fs, volume, &mut |pointer| seen.visit(fs, pointer, witness))?;
        let Some(node) = node else { return Ok(Some(0)) };
        if is_inner {
            self.inner.push(tree)
        } else {
            self.outer.push(tree)
        }
        self.done = add(self.done, self.fs.node, "the tree blocks")?;
        self.leaf(&node, witness)?;
        Ok(Some(self.fs.node))
    }

    /// Hears of what the items of a leaf own, and notes the trees that they lead to.
    fn leaf(&mut self, node: &Node, witness: &mut Witness<'_>) -> Result<(), Stop> {
        let mut count = 0;
        for (key, item) in node.items() {
            if key.kind == EXTENT_DATA {
                self.file_extent(key, item, node, witness)?;
                count = add(count, 1, "the extents of files")?;
            } else if key.kind == ROOT_ITEM && node.owner() == ROOT_TREE {
                self.inner.push(Root::parse(key, item, &self.fs, node.site)?.tree());
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
        if raw.encryption != 0 || raw.kind > 2 {
            return Err(wrong("is encrypted, or of an unknown kind"));
        }
        if raw.kind == 0 {
            return Ok(());
        }
        let Ok((place, _)) = RawPlace::ref_from_prefix(rest) else { return Err(wrong("is cut off")) };
        let (start, len) = (place.start.get(), place.len.get());
        if start == 0 {
            return Ok(());
        }
        let Some((_, chunk, range)) = self.fs.chunks.of(start, len) else {
            return Err(wrong("lies in no chunk"));
        };
        for copy in chunk.places(range) {
            let name = || format!("inode {} of subvolume {}", key.object, node.owner());
            witness.owns(copy, || Owner { name: name(), site: Some(node.site) })?;
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
