//! The extents of one inode, as owners.
//!
//! ```text
//!   data fork ─► extents ─► (a directory: the names in its blocks) ─► attribute fork ─► extents ─► counts fit?
//! ```
//! Each fork must have as many extents as the inode says, and both together as many blocks, with those of their
//! trees.
//!
//! Source: XFS Algorithms & Data Structures, "Data Extents", "On-disk Inode".

use std::ops::Range;

use zerocopy::FromBytes;

use super::damaged;
use super::directory::Directory;
use super::inode::{Fork, Inode, RawExtent};
use super::superblock::Fs;
use crate::error::{Error, Site};
use crate::fs::{Owner, Purpose, Stop, Witness};
use crate::io::ReadAt;
use crate::units::{add, len64, length};

/// An inode in the middle of its walk.
#[derive(Debug)]
pub(super) struct File {
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

impl File {
    /// Before the first step; `directory` if the inode is one.
    pub(super) const fn new(inode: Inode, directory: Option<Directory>) -> Self {
        Self { inode, forks: 0..2, extents: 0, end: 0, blocks: 0, directory }
    }

    /// Hears of the next extents. False at the end. `tree_blocks` counts the blocks of the trees of extents of
    /// all inodes.
    pub(super) fn step(
        &mut self,
        fs: &Fs,
        volume: &dyn ReadAt,
        witness: &mut Witness<'_>,
        tree_blocks: &mut u64,
    ) -> Result<bool, Stop> {
        let (number, at) = (self.inode.number, self.inode.site);
        if let Some(directory) = &mut self.directory
            && directory.step(fs, volume, witness)?
        {
            return Ok(true);
        }
        let Some((fork, says)) = self.inode.forks.get_mut(self.forks.start) else {
            if self.blocks == self.inode.blocks {
                return Ok(false);
            }
            let (found, says) = (self.blocks, self.inode.blocks);
            let what = format!("inode {number} has {found} blocks and says that it has {says}");
            return Err(damaged(&what, at));
        };
        let says = *says;
        let done = match fork {
            Fork::Empty => true,
            Fork::List(bytes) => {
                let bytes = std::mem::take(bytes);
                let list = <[RawExtent]>::ref_from_bytes(&bytes)
                    .map_err(|_| Error::internal("a list of extents has another length"))?;
                self.hear(fs, list, at, witness)?;
                true
            }
            Fork::Extents(tree) => {
                let before = tree.blocks;
                let leaf = tree.next_leaf(fs, volume, &mut |range, at| {
                    witness.owns(Purpose::Structure, range, || owner(number, at))
                })?;
                let blocks = length(&(before..tree.blocks));
                self.blocks = add(self.blocks, blocks, "the blocks of an inode")?;
                *tree_blocks = add(*tree_blocks, blocks, "the blocks of inodes")?;
                if *tree_blocks > fs.blocks {
                    return Err(damaged("trees of extents have more blocks than there are", at));
                }
                match leaf {
                    Some(leaf) => {
                        self.hear(fs, leaf.records::<RawExtent>()?, leaf.site, witness)?;
                        false
                    }
                    None => true,
                }
            }
        };
        if done {
            self.end_fork(says)?;
        }
        Ok(true)
    }

    /// Hears of some extents of the fork that is walked.
    fn hear(
        &mut self,
        fs: &Fs,
        extents: &[RawExtent],
        at: Site,
        witness: &mut Witness<'_>,
    ) -> Result<(), Stop> {
        let number = self.inode.number;
        let is_contents = self.forks.start == 0 && !self.inode.is_systems;
        let purpose = if is_contents { Purpose::File } else { Purpose::Structure };
        for extent in extents {
            let (offset, block, count) = extent.decode();
            if offset < self.end {
                return Err(damaged(&format!("the extents of inode {number} are out of order"), at));
            }
            let (group, start) = fs.split(block);
            let range = fs.bytes(group, start, count, &|| at)?;
            witness.owns(purpose, range.clone(), || owner(number, at))?;
            if let Some(directory) = self.directory.as_mut().filter(|_| self.forks.start == 0) {
                directory.add(fs, offset, range);
            }
            self.end = add(offset, count.into(), "an extent")?;
            self.blocks = add(self.blocks, count.into(), "the blocks of an inode")?;
        }
        self.extents = add(self.extents, len64(extents.len()), "the extents of an inode")?;
        Ok(())
    }

    /// Ends the fork that is walked, which has as many extents as the inode `says`, or is damaged.
    fn end_fork(&mut self, says: u64) -> Result<(), Stop> {
        if self.extents != says {
            let (number, found) = (self.inode.number, self.extents);
            let what = format!("inode {number} has {found} extents and says that it has {says}");
            return Err(damaged(&what, self.inode.site));
        }
        // The blocks of a directory were read between its forks.
        if let Some(directory) = self.directory.take_if(|_| self.forks.start == 1) {
            directory.end()?;
        }
        self.forks.next();
        (self.extents, self.end) = (0, 0);
        Ok(())
    }
}

fn owner(inode: u64, at: Site) -> Owner {
    Owner { name: format!("inode {inode}"), site: Some(at) }
}
