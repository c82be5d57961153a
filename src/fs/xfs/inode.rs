//! An inode: which extents of data and attributes it has.
//!
//! ```text
//!   │ core (100 bytes, version 3: 176) │ data fork │ attribute fork │     the second begins at 8 × di_forkoff
//!                                        a device number, bytes, a list of extents,
//!                                        or the root of a tree of extents
//! ```
//! Source: XFS Algorithms & Data Structures, "On-disk Inode", "Data Extents".

use std::ops::Range;

use zerocopy::byteorder::{BE, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::btree::{Tree, words};
use super::damaged;
use super::superblock::{Fs, crc_fits};
use crate::error::{Error, Site};
use crate::fs::Stop;
use crate::units::index;

const MAGIC: [u8; 2] = *b"IN";
/// The size of the core of versions 1 and 2, and that of version 3.
const OLD_CORE: usize = 100;
const CORE: usize = 176;
const CRC_AT: usize = 100;
/// The part of `di_mode` that says what kind of file it is.
const FILE_TYPE: u16 = 0xF000;
const DIRECTORY: u16 = 0x4000;
/// `di_flags`: the data lie in the realtime section.
const REALTIME: u16 = 1;
/// `di_flags2`: the counts of extents are wide, and stand elsewhere.
const WIDE_COUNTS: u64 = 1 << 4;
/// The most children that a root in an inode of 2 KiB points to.
const MAX_CHILDREN: usize = 2048 / 16;

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawInode {
    magic: [u8; 2],
    mode: U16<BE>,
    version: u8,
    format: u8,
    _links_and_owner: [u8; 18],
    wide_extents: U64<BE>,
    _times: [u8; 24],
    size: U64<BE>,
    blocks: U64<BE>,
    _extent_size: U32<BE>,
    extents: U32<BE>,
    attribute_extents: U16<BE>,
    fork_offset: u8,
    attribute_format: u8,
    _dmapi: [u8; 6],
    flags: U16<BE>,
    _generation: [u8; 8],
}

/// What version 3 adds.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTail {
    _crc: [u8; 4],
    _changes: U64<BE>,
    lsn: U64<BE>,
    flags2: U64<BE>,
    _pad: [u8; 24],
    number: U64<BE>,
    uuid: [u8; 16],
}

/// One record of a list or tree of extents.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawExtent {
    high: U64<BE>,
    low: U64<BE>,
}

impl RawExtent {
    /// The first block of the file, the block where it lies, and how many blocks follow there.
    pub(super) fn decode(&self) -> (u64, u64, u32) {
        let (high, low) = (self.high.get(), self.low.get());
        // The highest bit says only that the blocks were never written: they are owned all the same.
        let offset = (high & !(1 << 63)) >> 9;
        let block = (high & 0x1FF) << 43 | low >> 21;
        (offset, block, u32::try_from(low & 0x1F_FFFF).unwrap_or(0))
    }
}

/// Where the extents of a fork are.
#[derive(Debug)]
pub(super) enum Fork {
    /// Nowhere: there are none.
    Empty,
    /// In the inode, as they stand there.
    List(Vec<u8>),
    /// In a tree of their own.
    Extents(Tree),
}

/// An inode that has extents, perhaps.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) number: u64,
    pub(super) site: Site,
    /// How many blocks both forks have, with those of their trees.
    pub(super) blocks: u64,
    /// Whether it is a directory, and that directory if it lies in the inode.
    pub(super) is_directory: bool,
    /// Whether its data are the file system's own: a directory, or quotas.
    pub(super) is_systems: bool,
    pub(super) inline: Option<Vec<u8>>,
    /// Data and attributes, and how many extents each has.
    pub(super) forks: [(Fork, u64); 2],
}

/// Whether an inode that is marked free looks as if it were in use.
pub(super) fn looks_used(fs: &Fs, bytes: &[u8]) -> bool {
    RawInode::ref_from_prefix(bytes).is_ok_and(|(raw, _)| raw.magic == MAGIC && raw.mode.get() != 0)
        && (!fs.v5 || crc_fits(bytes, CRC_AT))
}

impl Inode {
    /// Understands an inode, or declines.
    pub(super) fn parse(fs: &Fs, bytes: &[u8], number: u64, site: Site) -> Result<Self, Stop> {
        let wrong = |what: &str| damaged(&format!("inode {number} {what}"), site);
        let Ok((raw, _)) = RawInode::ref_from_prefix(bytes) else {
            return Err(Error::internal("an inode is shorter than its core").into());
        };
        let versions = if fs.v5 { 3..=3 } else { 1..=2 };
        if raw.magic != MAGIC || !versions.contains(&raw.version) {
            return Err(wrong("is damaged"));
        }
        let (core, wide) =
            if fs.v5 { (CORE, check_tail(fs, bytes, number, site)?) } else { (OLD_CORE, false) };
        let (data_count, attribute_count) = if wide {
            // The narrow counts together are where the wide one of attributes stands.
            (raw.wide_extents.get(), u64::from(raw.extents.get()))
        } else {
            (raw.extents.get().into(), raw.attribute_extents.get().into())
        };
        if raw.flags.get() & REALTIME != 0 && data_count != 0 {
            return Err(wrong("has data in a realtime section, and there is none"));
        }
        let start = usize::from(raw.fork_offset).checked_mul(8).and_then(|offset| core.checked_add(offset));
        let Some(start) = start.filter(|&start| start <= bytes.len()) else {
            return Err(wrong("has an attribute fork outside of itself"));
        };
        let has_attribute_fork = raw.fork_offset != 0;
        let split = if has_attribute_fork { start } else { bytes.len() };
        let fork = |range: Range<usize>, format, count| {
            let fork = bytes.get(range).ok_or_else(|| Error::internal("a fork past its inode"))?;
            read_fork(fork, format, count, number, site)
        };
        let data = fork(core..split, raw.format, data_count)?;
        let attributes = if has_attribute_fork {
            fork(split..bytes.len(), raw.attribute_format, attribute_count)?
        } else if attribute_count == 0 {
            Fork::Empty
        } else {
            return Err(wrong("has attributes and no place for them"));
        };
        let blocks = raw.blocks.get();
        let is_directory = raw.mode.get() & FILE_TYPE == DIRECTORY;
        let mut inline = None;
        if is_directory && raw.format == 1 {
            let len = usize::try_from(raw.size.get()).ok();
            let names = bytes.get(core..split).zip(len).and_then(|(fork, len)| fork.get(..len));
            inline = Some(names.ok_or_else(|| wrong("is longer than itself"))?.to_vec());
        }
        Ok(Self {
            number,
            site,
            blocks,
            is_directory,
            is_systems: is_directory || fs.quota_inodes.contains(&number),
            inline,
            forks: [(data, data_count), (attributes, attribute_count)],
        })
    }
}

/// Checks what version 3 adds. Gives whether the counts of extents are wide.
fn check_tail(fs: &Fs, bytes: &[u8], number: u64, site: Site) -> Result<bool, Stop> {
    let wrong = |what: &str| damaged(&format!("inode {number} {what}"), site);
    let tail = bytes.get(OLD_CORE..).and_then(|bytes| RawTail::ref_from_prefix(bytes).ok());
    let Some((tail, _)) = tail else { return Err(wrong("is damaged")) };
    if !crc_fits(bytes, CRC_AT) {
        return Err(wrong("does not match its checksum"));
    }
    if tail.number.get() != number || tail.uuid != fs.meta_uuid {
        return Err(wrong("says that it is another one"));
    }
    fs.check_lsn(tail.lsn.get(), site)?;
    Ok(tail.flags2.get() & WIDE_COUNTS != 0)
}

fn read_fork(bytes: &[u8], format: u8, count: u64, number: u64, site: Site) -> Result<Fork, Stop> {
    let wrong = |what: &str| damaged(&format!("inode {number} {what}"), site);
    match format {
        // A device, or the data themselves.
        0 | 1 if count == 0 => Ok(Fork::Empty),
        2 => {
            let len = index(count, "a list of extents")?.checked_mul(size_of::<RawExtent>());
            let list = len.and_then(|len| bytes.get(..len));
            list.map(|list| Fork::List(list.to_vec())).ok_or_else(|| wrong("has more extents than fit it"))
        }
        3 => {
            let Some((head, rest)) = bytes.split_first_chunk::<4>() else { return Err(wrong("is damaged")) };
            let [level @ .., high, low] = *head;
            let children = usize::from(u16::from_be_bytes([high, low]));
            // A key and a pointer of eight bytes each, all keys first.
            let room = rest.len() / 16;
            if children == 0 || children > room || children > MAX_CHILDREN {
                return Err(wrong("has an impossible tree of extents"));
            }
            let children = words(rest).skip(room).take(children).collect();
            let levels = u16::from_be_bytes(level).into();
            Tree::of_inode(number, levels, children, site).map(Fork::Extents)
        }
        _ => Err(wrong("has a fork of an unknown kind")),
    }
}
