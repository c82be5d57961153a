//! The path of an inode, for the message that names the first owner in free space.
//!
//! Only asked when the volume is to be declined, and bounded: where the path is not found soon, the
//! inode's number must do.

use std::collections::HashSet;

use super::blockmap::{self, Lead};
use super::inode::{self, Content, Inode, Kind};
use super::metadata::Metadata;
use super::superblock::Superblock;
use super::{attribute, directory};
use crate::error::Error;
use crate::fs::Stop;
use crate::io::{Cached, ReadAt, read_vec};
use crate::units::{add, index, mul};

/// How many directories, and how many of their blocks, are looked through.
const MAX_DIRECTORIES: usize = 1 << 12;
const MAX_BLOCKS: u32 = 1 << 14;

/// What people call inode `number`.
pub(super) fn name_of(
    volume: &dyn ReadAt,
    superblock: &Superblock,
    metadata: &Metadata,
    number: u32,
) -> String {
    let purpose = superblock.named_inodes.iter().find(|(named, _)| *named == number);
    match (number, purpose) {
        (_, Some((_, purpose))) => (*purpose).to_owned(),
        (inode::BAD_BLOCKS, _) => "the list of bad blocks".to_owned(),
        (inode::RESIZE, _) => "the reserved group descriptors".to_owned(),
        _ => {
            let cached = Cached::new(volume);
            let mut search = Search { volume: &cached, superblock, metadata, blocks: 0 };
            // What cannot be read only costs the name.
            let path = search.find(number).ok().flatten();
            path.unwrap_or_else(|| format!("inode {number}"))
        }
    }
}

struct Search<'a> {
    volume: &'a dyn ReadAt,
    superblock: &'a Superblock,
    metadata: &'a Metadata,
    /// Blocks read so far.
    blocks: u32,
}

/// A directory that was found: its inode, and its path with a slash at the end.
struct Directory {
    inode: u32,
    path: String,
}

impl Search<'_> {
    /// Looks through the directories from the root on, level by level.
    fn find(&mut self, target: u32) -> Result<Option<String>, Stop> {
        let mut seen = HashSet::from([inode::ROOT]);
        let mut level = vec![Directory { inode: inode::ROOT, path: String::new() }];
        while !level.is_empty() {
            let mut below = Vec::new();
            for directory in &level {
                for stretch in self.stretches(directory.inode)? {
                    for entry in directory::entries(&stretch).map_while(Result::ok) {
                        if entry.is_dot() {
                            continue;
                        }
                        let path = format!("{}{}", directory.path, String::from_utf8_lossy(entry.name));
                        if entry.inode == target {
                            return Ok(Some(path));
                        }
                        if entry.may_be_directory()
                            && seen.len() < MAX_DIRECTORIES
                            && seen.insert(entry.inode)
                        {
                            below.push(Directory { inode: entry.inode, path: format!("{path}/") });
                        }
                    }
                }
            }
            level = below;
        }
        Ok(None)
    }

    /// The parts of a directory that hold entries; none where it is no directory.
    fn stretches(&mut self, number: u32) -> Result<Vec<Vec<u8>>, Stop> {
        let (bytes, at) = self.metadata.read_inode(self.volume, self.superblock, number)?;
        let inode = Inode::new(number, at, &bytes)?;
        if inode.kind() != Kind::Directory {
            return Ok(Vec::new());
        }
        if inode.content(self.superblock)? == Content::Inline {
            let more = inode.attributes().ok().and_then(|bytes| attribute::in_inode(bytes).ok());
            let parts = [inode.block_field().get(4..), more.map(|found| found.inline_data)];
            return Ok(parts.into_iter().flatten().map(<[u8]>::to_vec).collect());
        }
        let mut stretches = Vec::new();
        let mut open = inode.leads(self.superblock)?;
        while let Some(lead) = open.pop() {
            let (start, len) = match lead {
                Lead::Blocks(run) => (run.start, run.len),
                Lead::Node(node) => (node.block, 1),
            };
            for block in start..add(start, len, "a directory")? {
                self.blocks =
                    self.blocks.checked_add(1).filter(|&read| read <= MAX_BLOCKS).ok_or_else(|| {
                        Error::limit(
                            inode.site(),
                            "there are more directories than are looked through for a name",
                        )
                    })?;
                let block = self.superblock.byte_of(block)?;
                let bytes = read_vec(self.volume, block, self.superblock.block_len()?)?;
                match lead {
                    Lead::Blocks(_) => stretches.push(bytes),
                    Lead::Node(node) => {
                        let leads =
                            blockmap::follow(self.superblock, inode.seed(self.superblock), &node, &bytes);
                        open.append(&mut leads.map_err(|fault| inode.damaged(fault))?);
                    }
                }
            }
        }
        Ok(stretches)
    }
}

impl Metadata {
    /// Reads inode `number` by its group's table, and tells where it lies.
    fn read_inode(
        &self,
        volume: &dyn ReadAt,
        superblock: &Superblock,
        number: u32,
    ) -> Result<(Vec<u8>, u64), Stop> {
        let place = superblock
            .place_of_inode(number)
            .and_then(|(group, place)| Some((self.tables().get(usize::try_from(group).ok()?)?, place)));
        let (table, place) = place.ok_or_else(|| inode::missing(number, "a directory"))?;
        let inside = mul(place.into(), superblock.inode_size, "an inode table")?;
        let at = add(superblock.byte_of(table.start)?, inside, "an inode")?;
        Ok((read_vec(volume, at, index(superblock.inode_size, "an inode")?)?, at))
    }
}
