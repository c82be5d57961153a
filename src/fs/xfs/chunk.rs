//! A chunk of inodes: which of them there are, and which are free.
//!
//! ```text
//!   record   │ first inode │ holes (1 bit for 4 inodes) │ count, free count │ free (1 bit for 1 inode) │
//!   chunk    │ inode │ inode │ … 64 in all, one after the other in a group; nothing is owned in a hole │
//! ```
//! Source: XFS Algorithms & Data Structures, "AG Inode Management", "Sparse Inodes".

use std::ops::Range;

use zerocopy::byteorder::{BE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::directory::Directory;
use super::file::File;
use super::group::part_of_group;
use super::inode::{Inode, looks_used};
use super::superblock::Fs;
use super::{damaged, site};
use crate::error::{Result as Outcome, Site};
use crate::fs::{Purpose, Stop, Witness};
use crate::io::{ReadAt, read_vec};
use crate::units::{add, index, len64, mul};

/// Inodes of one chunk.
const CHUNK: u32 = 64;
/// How many inodes one bit of the mask of holes stands for.
const PER_HOLE: usize = 4;

/// A record of a tree of inodes.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct InodeRecord {
    pub(super) first: U32<BE>,
    /// Without holes, these four bytes are one number: how many inodes are free.
    holes: U16<BE>,
    count: u8,
    free_count: u8,
    free: U64<BE>,
}

/// A chunk of inodes in the middle of its walk.
#[derive(Debug)]
pub(super) struct Chunk {
    group: u32,
    /// The number of the first inode in the group, and its place on the volume.
    first: u32,
    start: u64,
    present: u64,
    free: u64,
    /// Which of them are still to be looked at.
    left: Range<u32>,
}

impl Chunk {
    /// Begins the walk over the chunk of a record at `at`. Its place is owned, whether its inodes are in use
    /// or free.
    pub(super) fn begin(
        record: &InodeRecord,
        fs: &Fs,
        group: u32,
        at: Site,
        witness: &mut Witness<'_>,
    ) -> Result<Self, Stop> {
        let (first, free) = (record.first.get(), record.free.get());
        let holes = if fs.sparse_inodes { record.holes.get() } else { 0 };
        let mut present = 0u64;
        let start = fs.header_at(group, 0)?;
        let end = add(start, mul(fs.group_len(group), fs.block_size, "a group")?, "a group")?;
        let inode_at =
            |inode: u64| -> Outcome<u64> { add(start, mul(inode, fs.inode_size, "an inode")?, "an inode") };
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
            witness.owns(Purpose::Structure, range, || part_of_group("inodes", group, at))?;
        }
        let free = free & present;
        let has_count = !fs.sparse_inodes || u32::from(record.count) == present.count_ones();
        if free.count_ones() != u32::from(record.free_count) || !has_count {
            return Err(damaged("an inode chunk has another number of (free) inodes than it says", at));
        }
        Ok(Self { group, first, start: inode_at(first.into())?, present, free, left: 0..CHUNK })
    }

    /// How many inodes there are, and how many of them are free.
    pub(super) const fn counts(&self) -> (u32, u32) {
        (self.present.count_ones(), self.free.count_ones())
    }

    /// The place in the chunk that is to be looked at next; none at the end.
    pub(super) fn next_place(&mut self) -> Option<u32> {
        self.left.next()
    }

    /// Reads the inode at a place of the chunk, if there is one and it is in use.
    pub(super) fn read(
        &self,
        place: u32,
        fs: &Fs,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
    ) -> Result<Option<File>, Stop> {
        let is = |mask: u64| mask >> place & 1 != 0;
        if !is(self.present) {
            return Ok(None);
        }
        witness.looked_at(1)?;
        let offset = mul(place.into(), fs.inode_size, "an inode")?;
        let offset = add(self.start, offset, "an inode")?;
        let bytes = read_vec(volume, offset, index(fs.inode_size, "an inode")?)?;
        if is(self.free) && !looks_used(fs, &bytes) {
            return Ok(None);
        }
        let number = fs.inode_number(self.group, add(self.first.into(), place.into(), "an inode")?);
        let inode = Inode::parse(fs, &bytes, number, site("XFS inode", offset))?;
        let directory = inode.is_directory.then(|| Directory::new(number, inode.site));
        if let (Some(directory), Some(names)) = (&directory, &inode.inline) {
            directory.read_inline(fs, names, witness)?;
        }
        Ok(Some(File::new(inode, directory)))
    }
}
