//! The B+trees of XFS, walked leaf by leaf.
//!
//! ```text
//!   block   │ magic, level, records │ left, right │ own place, LSN, UUID, owner, CRC │ records, or keys ┆ pointers │
//!                                     4 or 8 each   version 5 only
//! ```
//! One shape serves all of them: the short form has block numbers in one allocation group, the long form (the
//! extents of a file) has them in the file system. Only pointers are followed, and the siblings must agree with
//! them. A walk ends because each leaf holds records that come after those of the leaf before: the users of
//! this see to that.
//!
//! Source: XFS Algorithms & Data Structures, "B+trees"; the kernel's `xfs_format.h`.

use std::ops::Range;

use zerocopy::byteorder::{BE, U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::superblock::{Fs, crc_fits};
use super::{damaged, site};
use crate::error::{Error, Site};
use crate::fs::Stop;
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index};

/// The most levels that a tree may have; the kernel's largest is below that.
const MAX_LEVELS: u32 = 12;
const NO_SIBLING: u64 = u64::MAX;

/// One kind of tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// What its blocks are called.
    pub(super) structure: &'static str,
    /// Magic numbers of versions 4 and 5.
    magic: [[u8; 4]; 2],
    /// Bytes of a record, and of what stands for a subtree.
    record: usize,
    key: usize,
    long: bool,
}

const fn kind(
    structure: &'static str,
    old: [u8; 4],
    new: [u8; 4],
    record: usize,
    key: usize,
    long: bool,
) -> Kind {
    Kind { structure, magic: [old, new], record, key, long }
}

/// Version 4 has no such tree.
const NONE: [u8; 4] = [0; 4];
/// Free extents by their place, and by their length.
pub(super) static BNO: Kind = kind("XFS free space tree (by block)", *b"ABTB", *b"AB3B", 8, 8, false);
pub(super) static CNT: Kind = kind("XFS free space tree (by size)", *b"ABTC", *b"AB3C", 8, 8, false);
/// Inode chunks, and those of them with free inodes.
pub(super) static INO: Kind = kind("XFS inode tree", *b"IABT", *b"IAB3", 16, 4, false);
pub(super) static FINO: Kind = kind("XFS free inode tree", *b"FIBT", *b"FIB3", 16, 4, false);
/// Reverse mappings: each subtree has its lowest and its highest key.
pub(super) static RMAP: Kind = kind("XFS reverse mapping tree", NONE, *b"RMB3", 24, 40, false);
/// Shared extents, and those that wait to become a file's own.
pub(super) static REFC: Kind = kind("XFS reference count tree", NONE, *b"R3FC", 12, 4, false);
/// The extents of a file.
pub(super) static BMAP: Kind = kind("XFS extent tree", *b"BMAP", *b"BMA3", 16, 8, true);

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 4],
    level: U16<BE>,
    records: U16<BE>,
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Identity {
    place: U64<BE>,
    lsn: U64<BE>,
    uuid: [u8; 16],
}

/// Where the parts of a block stand.
struct Shape {
    /// Bytes of a pointer, and of a sibling.
    pointer: usize,
    identity: usize,
    owner: usize,
    crc: usize,
    /// Where records begin.
    records: usize,
}

impl Kind {
    const fn shape(&self, v5: bool) -> Shape {
        match (self.long, v5) {
            (false, _) => {
                Shape { pointer: 4, identity: 16, owner: 48, crc: 52, records: if v5 { 56 } else { 16 } }
            }
            (true, _) => {
                Shape { pointer: 8, identity: 24, owner: 56, crc: 64, records: if v5 { 72 } else { 24 } }
            }
        }
    }
}

/// A walk over one tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) kind: &'static Kind,
    /// The group that block numbers of the short form count in.
    group: u32,
    /// Whose tree it is: a group or an inode.
    owner: u64,
    stack: Vec<Node>,
    /// For each level, the last block that was seen there and its right sibling.
    last: Vec<Option<(u64, u64)>>,
    /// Blocks seen.
    pub(super) blocks: u64,
}

/// What is left to visit below one block.
#[derive(Debug)]
struct Node {
    /// The level of the children.
    level: usize,
    children: std::vec::IntoIter<u64>,
}

/// A block of records.
#[derive(Debug)]
pub(super) struct Leaf {
    bytes: Vec<u8>,
    records: Range<usize>,
    pub(super) site: Site,
}

impl Leaf {
    /// The records as `T`, whose size is that of a record.
    pub(super) fn records<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self) -> Result<&[T], Stop> {
        let bytes = self.bytes.get(self.records.clone());
        let records = bytes.and_then(|bytes| <[T]>::ref_from_bytes(bytes).ok());
        records.ok_or_else(|| Error::internal("a record is not as long as its tree's").into())
    }
}

impl Tree {
    /// The tree of a group whose root block is `root`.
    pub(super) fn of_group(
        kind: &'static Kind,
        group: u32,
        root: u32,
        levels: u32,
        at: Site,
    ) -> Result<Self, Stop> {
        if levels == 0 {
            return Err(damaged("a tree has no levels", at));
        }
        Self::new(kind, group, group.into(), levels, vec![root.into()], at)
    }

    /// The tree of an inode, whose root block lies in the inode and points to `children`, which have
    /// `levels` levels.
    pub(super) fn of_inode(inode: u64, levels: u32, children: Vec<u64>, at: Site) -> Result<Self, Stop> {
        Self::new(&BMAP, 0, inode, levels, children, at)
    }

    fn new(
        kind: &'static Kind,
        group: u32,
        owner: u64,
        levels: u32,
        children: Vec<u64>,
        at: Site,
    ) -> Result<Self, Stop> {
        let top = match levels.checked_sub(1) {
            Some(top) if levels <= MAX_LEVELS => index(top.into(), "a tree")?,
            _ => return Err(damaged(&format!("a tree has {levels} levels"), at)),
        };
        let last = (0..levels).map(|_| None).collect();
        let stack = vec![Node { level: top, children: children.into_iter() }];
        Ok(Self { kind, group, owner, stack, last, blocks: 0 })
    }

    /// The next leaf. `visit` is told the bytes of every block on the way.
    pub(super) fn next_leaf(
        &mut self,
        fs: &Fs,
        volume: &dyn ReadAt,
        visit: &mut dyn FnMut(Range<u64>, Site) -> Result<(), Stop>,
    ) -> Result<Option<Leaf>, Stop> {
        while let Some(node) = self.stack.last_mut() {
            let level = node.level;
            let Some(child) = node.children.next() else {
                self.stack.pop();
                continue;
            };
            let (bytes, records, site) = self.read(fs, volume, child, level, visit)?;
            match level.checked_sub(1) {
                None => return Ok(Some(Leaf { bytes, records, site })),
                Some(below) => {
                    let pointer = self.kind.shape(fs.v5).pointer;
                    let pointers = bytes.get(records);
                    let pointers = pointers.ok_or_else(|| Error::internal("pointers past their block"))?;
                    let children: Vec<u64> = pointers.chunks_exact(pointer).map(number).collect();
                    self.stack.push(Node { level: below, children: children.into_iter() });
                }
            }
        }
        if self.last.iter().flatten().any(|&(_, right)| right != NO_SIBLING) {
            let what = format!("the last blocks of a tree ({}) are missing", self.kind.structure);
            return Err(damaged(&what, site(self.kind.structure, 0)));
        }
        Ok(None)
    }

    /// Reads a block and checks it. Gives where its records (of a leaf) or its pointers are.
    fn read(
        &mut self,
        fs: &Fs,
        volume: &dyn ReadAt,
        block: u64,
        level: usize,
        visit: &mut dyn FnMut(Range<u64>, Site) -> Result<(), Stop>,
    ) -> Result<(Vec<u8>, Range<usize>, Site), Stop> {
        let structure = self.kind.structure;
        let (group, start) = if self.kind.long { fs.split(block) } else { (self.group, fit(block)) };
        let range = fs.bytes(group, start, 1, &|| site(structure, 0))?;
        let at = site(structure, range.start);
        self.blocks = add(self.blocks, 1, "the blocks of a tree")?;
        let bytes = read_vec(volume, range.start, index(fs.block_size, "a block")?)?;
        let shape = self.kind.shape(fs.v5);
        let wrong = |what: &str| damaged(&format!("a block of a tree ({structure}) {what}"), at);

        let Ok((head, _)) = Head::ref_from_prefix(&bytes) else {
            return Err(Error::internal("a block is shorter than its header").into());
        };
        let [old, new] = self.kind.magic;
        if head.magic != (if fs.v5 { new } else { old }) || usize::from(head.level.get()) != level {
            return Err(wrong("is of another kind or level"));
        }
        if fs.v5 {
            self.check_identity(fs, &bytes, &shape, range.start, at)?;
        }
        let records = self.fill(&shape, usize::from(head.records.get()), level, bytes.len());
        let Some(records) = records else { return Err(wrong("has an impossible number of records")) };
        self.check_siblings(&bytes, &shape, block, level)
            .ok_or_else(|| wrong("is out of the order of its level"))?;
        visit(range, at)?;
        Ok((bytes, records, at))
    }

    fn check_identity(&self, fs: &Fs, bytes: &[u8], shape: &Shape, start: u64, at: Site) -> Result<(), Stop> {
        let structure = self.kind.structure;
        let wrong = |what: &str| damaged(&format!("a block of a tree ({structure}) {what}"), at);
        if !crc_fits(bytes, shape.crc) {
            return Err(wrong("does not match its checksum"));
        }
        let identity = bytes.get(shape.identity..).and_then(|b| Identity::ref_from_prefix(b).ok());
        let owner = bytes.get(shape.owner..).and_then(|b| b.get(..shape.pointer)).map(number);
        let Some((identity, _)) = identity else { return Err(wrong("is too short")) };
        if identity.uuid != fs.meta_uuid || identity.place.get() != start / 512 || owner != Some(self.owner) {
            return Err(wrong("belongs to somebody else"));
        }
        fs.check_lsn(identity.lsn.get(), at)
    }

    /// Where the records or pointers of a block are; none if there are more than fit, or none at all where
    /// there must be some.
    fn fill(&self, shape: &Shape, count: usize, level: usize, size: usize) -> Option<Range<usize>> {
        let room = size.checked_sub(shape.records)?;
        let is_root = level.checked_add(1)? == self.last.len() && !self.kind.long;
        if count == 0 && !(is_root && level == 0) {
            return None;
        }
        let (each, start) = if level == 0 {
            (self.kind.record, shape.records)
        } else {
            let most = room.checked_div(self.kind.key.checked_add(shape.pointer)?)?;
            let start = shape.records.checked_add(most.checked_mul(self.kind.key)?)?;
            (shape.pointer, (count <= most).then_some(start)?)
        };
        let end = start.checked_add(count.checked_mul(each)?)?;
        (end <= size).then_some(start..end)
    }

    /// Whether a block says of its neighbours what the walk has seen.
    fn check_siblings(&mut self, bytes: &[u8], shape: &Shape, block: u64, level: usize) -> Option<()> {
        let sibling = |slot: usize| {
            let at = slot.checked_mul(shape.pointer)?.checked_add(8)?;
            let value = number(bytes.get(at..)?.get(..shape.pointer)?);
            // All ones in the width of the tree.
            let none = shape.pointer == 4 && value == u32::MAX.into();
            Some(if none { NO_SIBLING } else { value })
        };
        let (left, right) = (sibling(0)?, sibling(1)?);
        let last = self.last.get_mut(level)?;
        let fits = match *last {
            None => left == NO_SIBLING,
            Some((before, its_right)) => left == before && its_right == block,
        };
        *last = Some((block, right));
        fits.then_some(())
    }
}

/// A big-endian number of four or eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// A block number of the short form, which is read from 32 bits.
fn fit(block: u64) -> u32 {
    u32::try_from(block).unwrap_or(u32::MAX)
}

/// The words of eight bytes, keys and pointers alike, that the root in an inode is made of.
pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks_exact(8).map(number)
}
