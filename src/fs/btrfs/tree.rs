//! Tree blocks, and the walk over a tree.
//!
//! ```text
//!   │ checksum, UUID, own address, chunk tree's UUID, generation, owner, count, level │ header, 101 bytes
//!   level 0:  │ key, offset, size │ key, offset, size │ …  free …  │ data │ data │
//!   above:    │ key, address, generation │ key, address, generation │ …
//! ```
//! Who points to a block says which generation, level and first key it has; a block that is older than that is a
//! write that never came, however right its checksum is. Where there are two copies, the second one is read if
//! the first is damaged.
//!
//! Source: btrfs-progs documentation, "On-disk Format" (header, leaf and internal nodes); the kernel's
//! `btrfs_tree.h`.

use std::ops::Range;

use zerocopy::byteorder::{LE, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::superblock::Fs;
use super::{damaged, site};
use crate::error::Site;
use crate::fs::Stop;
use crate::io::{ReadAt, read_vec};
use crate::units::index;

const STRUCTURE: &str = "Btrfs tree block";
const FIRST_SUBVOLUME: u64 = 256;
pub(super) const FS_TREE: u64 = 5;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawKey {
    object: U64<LE>,
    kind: u8,
    offset: U64<LE>,
}

/// The name of an item. They are in this order in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
}

impl RawKey {
    pub(super) fn get(self) -> Key {
        Key { object: self.object.get(), kind: self.kind, offset: self.offset.get() }
    }
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    _checksum: [u8; 32],
    fsid: [u8; 16],
    address: U64<LE>,
    _flags: U64<LE>,
    chunk_tree: [u8; 16],
    generation: U64<LE>,
    owner: U64<LE>,
    count: U32<LE>,
    level: u8,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawItem {
    key: RawKey,
    offset: U32<LE>,
    size: U32<LE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawPointer {
    key: RawKey,
    address: U64<LE>,
    generation: U64<LE>,
}

/// A reference to a tree block, and what it must be.
#[derive(Debug, Clone)]
pub(super) struct Pointer {
    pub(super) at: u64,
    pub(super) level: u8,
    pub(super) generation: u64,
    /// The tree that it belongs to; none for a subvolume, whose blocks may be another's.
    pub(super) owner: Option<u64>,
    /// None for a root, which alone may be empty.
    pub(super) first: Option<Key>,
}

impl Pointer {
    /// The block, from the first copy that is whole.
    pub(super) fn read(&self, fs: &Fs, volume: &dyn ReadAt) -> Result<Node, Stop> {
        let mut last = damaged(
            &format!("the tree block at address {:#x} lies in no chunk", self.at),
            site(STRUCTURE, 0),
        );
        let Some((_, chunk, range)) = fs.chunks.of(self.at, fs.node) else { return Err(last) };
        for place in chunk.places(range) {
            let bytes = read_vec(volume, place.start, index(fs.node, "a tree block")?)?;
            let node = Node { bytes, site: site(STRUCTURE, place.start), level: self.level, is_cut: false };
            match self.check(fs, &node) {
                None => return Ok(node),
                Some(what) => {
                    last = damaged(&format!("the tree block at address {:#x} {what}", self.at), node.site);
                }
            }
        }
        Err(last)
    }

    /// What is wrong with a block.
    fn check(&self, fs: &Fs, node: &Node) -> Option<&'static str> {
        let Ok((header, rest)) = Header::ref_from_prefix(&node.bytes) else { return Some("is cut off") };
        if !fs.checksum.seals(&node.bytes) {
            return Some("does not match its checksum");
        }
        let chunk_tree = fs.chunk_tree_uuid.unwrap_or(header.chunk_tree);
        if header.address.get() != self.at || header.fsid != fs.uuid || header.chunk_tree != chunk_tree {
            return Some("belongs to somebody else");
        }
        let generation = header.generation.get();
        if generation != self.generation || generation > fs.generation || header.level != self.level {
            return Some("is of another time or level");
        }
        let owner = header.owner.get();
        let may_own = owner == FS_TREE || (FIRST_SUBVOLUME..1 << 63).contains(&owner);
        if self.owner.map_or(!may_own, |tree| tree != owner) {
            return Some("is of another tree");
        }
        let mut keys = if self.level == 0 {
            let Some(items) = node.array::<RawItem>() else { return Some("has too many items") };
            let room = rest.len();
            let from = items.len().checked_mul(size_of::<RawItem>());
            if items.iter().any(|item| item.range().is_none_or(|r| r.end > room || Some(r.start) < from)) {
                return Some("has an item outside of itself");
            }
            items.iter().map(|item| item.key.get()).collect::<Vec<_>>()
        } else {
            let Some(pointers) = node.array::<RawPointer>() else { return Some("has too many children") };
            pointers.iter().map(|pointer| pointer.key.get()).collect()
        }
        .into_iter();
        let mut last = keys.next();
        if last.is_none() && (self.level != 0 || self.first.is_some())
            || self.first.is_some_and(|k| last != Some(k))
        {
            return Some("does not begin with the key that leads to it");
        }
        for key in keys {
            if last >= Some(key) {
                return Some("has keys that are out of order");
            }
            last = Some(key);
        }
        None
    }
}

impl RawItem {
    /// Where its data are, after the header.
    fn range(&self) -> Option<Range<usize>> {
        let start = usize::try_from(self.offset.get()).ok()?;
        Some(start..start.checked_add(usize::try_from(self.size.get()).ok()?)?)
    }
}

/// A tree block that was checked.
#[derive(Debug)]
pub(super) struct Node {
    bytes: Vec<u8>,
    pub(super) site: Site,
    level: u8,
    /// Whether some of its children are gone, and were left out of the walk.
    pub(super) is_cut: bool,
}

impl Node {
    fn header(&self) -> Option<(&Header, &[u8])> {
        Header::ref_from_prefix(&self.bytes).ok()
    }

    fn array<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> Option<&[T]> {
        let (header, rest) = self.header()?;
        let count = usize::try_from(header.count.get()).ok()?;
        <[T]>::ref_from_bytes(rest.get(..count.checked_mul(size_of::<T>())?)?).ok()
    }

    pub(super) fn chunk_tree_uuid(&self) -> [u8; 16] {
        self.header().map_or([0; 16], |(header, _)| header.chunk_tree)
    }

    pub(super) fn address(&self) -> u64 {
        self.header().map_or(0, |(header, _)| header.address.get())
    }

    /// The tree for which it was made.
    pub(super) fn owner(&self) -> u64 {
        self.header().map_or(0, |(header, _)| header.owner.get())
    }

    /// The items of a leaf; none of any other block.
    pub(super) fn items(&self) -> impl Iterator<Item = (Key, &[u8])> {
        let items = if self.level == 0 { self.array::<RawItem>() } else { None };
        let data = self.header().map_or(&[][..], |(_, rest)| rest);
        let item =
            move |item: &RawItem| (item.key.get(), data.get(item.range().unwrap_or(0..0)).unwrap_or(&[]));
        items.unwrap_or_default().iter().map(item)
    }

    /// The blocks below this one, in order.
    fn children(&self, owner: Option<u64>) -> Vec<Pointer> {
        let Some(level) = self.level.checked_sub(1) else { return Vec::new() };
        let child = |raw: &RawPointer| Pointer {
            at: raw.address.get(),
            level,
            generation: raw.generation.get(),
            owner,
            first: Some(raw.key.get()),
        };
        self.array().unwrap_or_default().iter().map(child).collect()
    }
}

/// How far the deletion of a subvolume has come: in its blocks of this level and above, the children before the one
/// that has the key are gone, and their places may be somebody else's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deleted {
    pub(super) key: Key,
    pub(super) level: u8,
}

/// A walk over one tree. It ends since each step down is one level down.
#[derive(Debug)]
pub(super) struct Tree {
    stack: Vec<std::vec::IntoIter<Pointer>>,
    deleted: Option<Deleted>,
    last: Option<Key>,
}

impl Tree {
    pub(super) fn new(root: Pointer) -> Self {
        Self::being_deleted(root, None)
    }

    /// A tree of which a part may be gone.
    pub(super) fn being_deleted(root: Pointer, deleted: Option<Deleted>) -> Self {
        Self { stack: vec![vec![root].into_iter()], deleted, last: None }
    }

    /// The next leaf, in the order of the keys.
    pub(super) fn next_leaf(&mut self, fs: &Fs, volume: &dyn ReadAt) -> Result<Option<Node>, Stop> {
        while let Some(node) = self.next(fs, volume, &mut |_| Ok(true))? {
            if node.level != 0 {
                continue;
            }
            let first = node.items().next().map(|(key, _)| key);
            let last = node.items().last().map(|(key, _)| key);
            if first.is_some() && self.last >= first {
                return Err(damaged("the leaves of a tree are out of order", node.site));
            }
            self.last = last.or(self.last);
            return Ok(Some(node));
        }
        Ok(None)
    }

    /// The next block of which `visit` says that it is to be read.
    pub(super) fn next(
        &mut self,
        fs: &Fs,
        volume: &dyn ReadAt,
        visit: &mut dyn FnMut(&Pointer) -> Result<bool, Stop>,
    ) -> Result<Option<Node>, Stop> {
        while let Some(level) = self.stack.last_mut() {
            let Some(pointer) = level.next() else {
                self.stack.pop();
                continue;
            };
            if !visit(&pointer)? {
                continue;
            }
            let mut node = pointer.read(fs, volume)?;
            let mut children = node.children(pointer.owner);
            if let Some(deleted) = self.deleted.filter(|deleted| deleted.level <= node.level) {
                let gone = |next: &&Pointer| next.first <= Some(deleted.key);
                let gone = children.iter().skip(1).take_while(gone).count();
                children.drain(..gone);
                node.is_cut = gone != 0;
            }
            self.stack.push(children.into_iter());
            return Ok(Some(node));
        }
        Ok(None)
    }
}
